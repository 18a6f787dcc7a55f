//! From the head of a request to what is to be done with it, before any of its body is read.

use protocol::limits;

use crate::admission::{Admission, Form};
use crate::{Problem, Secret};

/// What the edge needs to know of itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// The key that a submission must carry; `None` when none was set, and then nobody may submit.
    pub api_key: Option<Secret>,
}

/// What the edge looks at before it reads a body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The header `content-type`.
    pub content_type: Option<&'a str>,
    /// The header `content-length`.
    pub content_length: Option<u64>,
    /// The header `x-api-key`.
    pub api_key: Option<&'a str>,
    /// The header `idempotency-key`.
    pub idempotency_key: Option<&'a str>,
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Header names in lower case, and their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body, JSON.
    pub body: String,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Route {
    /// Answer at once.
    Answer(Response),
    /// Read the body, up to [`Admission::body_limit`] and one byte more, and have it admitted.
    ReadBody(Admission),
}

/// Decides by the head of a request. The key is checked before anything else of a submission, so that a stranger
/// learns nothing and costs no reading.
pub fn route(head: &Head<'_>, config: &Config) -> Route {
    match admission(head, config) {
        Ok(Some(admission)) => Route::ReadBody(admission),
        Ok(None) => Route::Answer(Response::json(200, r#"{"status":"ok"}"#.to_owned())),
        Err(problem) => Route::Answer(problem.response()),
    }
}

/// The admission to go on with, or `None` when all is well and there is nothing to admit.
fn admission(head: &Head<'_>, config: &Config) -> Result<Option<Admission>, Problem> {
    let form = match (head.path, head.method) {
        ("/health", "GET" | "HEAD") => return Ok(None),
        ("/health", _) => return Err(Problem::MethodNotAllowed { allow: "GET" }),
        ("/jobs", "POST") => Form::One,
        ("/jobs/batch", "POST") => Form::Batch,
        ("/jobs" | "/jobs/batch", _) => return Err(Problem::MethodNotAllowed { allow: "POST" }),
        _ => return Err(Problem::NotFound),
    };
    let Some(api_key) = &config.api_key else {
        let detail =
            "this edge has no API_KEY yet, so nobody may submit; set it (`wrangler secret put API_KEY`)".to_owned();
        return Err(Problem::NotConfigured { detail });
    };
    if !head.api_key.is_some_and(|guess| api_key.matches(guess)) {
        return Err(Problem::Unauthorized { given: head.api_key.is_some() });
    }
    if !head.content_type.is_some_and(is_json) {
        return Err(Problem::UnsupportedMediaType);
    }
    if let Some(size) = head.content_length
        && size > limits::REQUEST_BYTES_MAX as u64
    {
        return Err(Problem::request_too_large(Some(size)));
    }
    if let Some(key) = head.idempotency_key
        && let Err(problem) = protocol::check_idempotency_key(key)
    {
        let field = "Idempotency-Key";
        return Err(Problem::InvalidField { field: Some(field.to_owned()), detail: format!("`{field}` {problem}") });
    }
    Ok(Some(Admission::new(form, head.idempotency_key.map(str::to_owned))))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl Response {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self { status, headers: vec![("content-type", "application/json".to_owned())], body }
    }
}
