//! Refusals, as `application/problem+json` (RFC 9457), in the form of those of the edge.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use lease::Refusal;
use serde::Serialize;

use crate::http::json;

/// When to come again to a broker that stops.
const RETRY_AFTER_STOPPING: u64 = 5;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct Problem {
    status: u16,
    code: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    retryable: bool,
}

impl Problem {
    fn new(status: u16, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "not_found", "Not found", "There is nothing at this path; docs/lease.md names those there are.")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "method_not_allowed", "Method not allowed", "This path does not take this method.")
    }

    pub(crate) fn malformed_json(why: &str) -> Self {
        let detail = format!("The body is to be one JSON value, the payload, in UTF-8: {why}.");
        Self::new(400, "malformed_json", "Malformed JSON", detail)
    }

    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", "Invalid request", detail)
    }

    pub(crate) fn broken_body(why: &str) -> Self {
        Self::new(400, "broken_body", "Broken body", format!("The body did not come in full: {why}."))
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let detail = format!("The payload has more than {limit} bytes, which is the most that is taken here.");
        Self::new(413, "payload_too_large", "Too large", detail)
    }

    pub(crate) fn internal() -> Self {
        Self::new(500, "internal", "Internal error", "The broker could not do this; its log says why.")
    }

    pub(crate) fn stopping() -> Self {
        let detail = "The broker is stopping; what it holds goes on with its next start. Ask again then.";
        let problem = Self::new(503, "stopping", "Stopping", detail);
        Self { retry_after: Some(RETRY_AFTER_STOPPING), ..problem }
    }

    pub(crate) fn response(&self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.title,
            status: self.status,
            code: self.code,
            detail: &self.detail,
            retryable: self.retry_after.is_some(),
        };
        let body = serde_json::to_string(&body).expect("a problem holds only texts and numbers");
        let mut response = json(self.status, body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoJob => {
                Self::new(404, "unknown_job", "Unknown job", "This job has ended, or was never begun here.")
            }
            Refusal::NoTask => {
                let detail =
                    "This job has no such task; a result is kept for a time only, and less once it was fetched.";
                Self::new(404, "unknown_task", "Unknown task", detail)
            }
            Refusal::NoQpu => {
                let detail = "There is no machine of this name here; GET /v1/qpus names those there are.";
                Self::new(404, "unknown_qpu", "Unknown machine", detail)
            }
            Refusal::KeyTaken => {
                let detail = "Another task of this job has this Idempotency-Key, with another payload or machine.";
                Self::new(409, "key_taken", "Key taken", detail)
            }
            Refusal::TooLarge { limit } => Self::too_large(limit),
            Refusal::Full { of_job, bytes, limit, retry_after } => {
                let who = if of_job { "This job has" } else { "All jobs together have" };
                let what = if bytes { "bytes of payloads and results" } else { "tasks that have not ended" };
                let mend = if bytes { "fetch results, or come" } else { "come" };
                let detail = format!("{who} {limit} {what}, which is the most that is held; {mend} again later.");
                let problem = Self::new(429, "lease_full", "Too much is held", detail);
                Self { retry_after: Some(retry_after.as_secs()), ..problem }
            }
        }
    }
}
