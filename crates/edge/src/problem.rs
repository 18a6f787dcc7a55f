//! The one table of refusals. Each has a status, a stable `code` for programs and a sentence for people, and travels
//! as `application/problem+json` (RFC 9457).

use protocol::{InvalidJob, Timestamp, limits, timestamp_from_millis};
use serde::Serialize;

use crate::Response;

/// When a client may come again to a queue that its owner has disabled: it takes a person to change that.
const RETRY_AFTER_DISABLED_SECONDS: u64 = 3_600;

/// The service counts a day's allowance anew at midnight, UTC.
/// When to ask a hub again that could not answer.
const RETRY_AFTER_HUB_SECONDS: u64 = 5;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// Why a request, or one job of a batch, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// 404: there is nothing at this path.
    NotFound,
    /// 405: the path exists, but not with this method.
    MethodNotAllowed {
        /// The method that would do.
        allow: &'static str,
    },
    /// 401: the key is missing or wrong.
    Unauthorized {
        /// Was there a key at all?
        given: bool,
    },
    /// 415: the content type is not JSON.
    UnsupportedMediaType,
    /// 400: the body is not JSON.
    MalformedJson {
        /// What the parser says, with line and column.
        detail: String,
    },
    /// 422: the JSON is no job.
    InvalidField {
        /// Which field; absent when the whole body has the wrong shape.
        field: Option<String>,
        /// What is wrong with it.
        detail: String,
    },
    /// 413: larger than something can carry.
    TooLarge {
        /// A stable code that says what was too large.
        code: &'static str,
        /// The thing that was too large, in words.
        what: &'static str,
        /// How large it may be.
        limit: u64,
        /// How large it is; unknown where reading stopped at the limit.
        size: Option<u64>,
        /// What `limit` and `size` count.
        unit: &'static str,
    },
    /// 429: the queue takes no more for now.
    QueueFull {
        /// When to come again, in seconds.
        retry_after_seconds: u64,
    },
    /// 429: the queue takes no more today: what its plan allows for a day is used up.
    AllowanceUsedUp {
        /// When the next day begins.
        until: Timestamp,
        /// The same, in seconds.
        retry_after_seconds: u64,
    },
    /// 429: the queue takes nothing until a person enables it.
    QueueDisabled {
        /// When to come again, in seconds.
        retry_after_seconds: u64,
    },
    /// 503: the queue did not take the job, and may later.
    QueueUnavailable {
        /// When to come again, in seconds.
        retry_after_seconds: u64,
    },
    /// 503: the edge itself is not set up.
    NotConfigured {
        /// What is missing.
        detail: String,
    },
    /// 401: no site key, or another one.
    UnauthorizedSite {
        /// Was there any key at all?
        given: bool,
    },
    /// 400: a parameter or the body of a question cannot be read.
    InvalidRequest {
        /// Which, where it has a name.
        field: Option<String>,
        /// What is wrong with it.
        detail: String,
    },
    /// 404: the hub has never heard of the job.
    UnknownJob,
    /// 404: there is nothing of what a job has printed, and nobody who could send it.
    NoLogs {
        /// How far the job is.
        state: String,
    },
    /// 409: the hub does not listen to a site.
    SiteRefused {
        /// A stable word for programs.
        code: &'static str,
        /// Why, and what to do.
        detail: String,
    },
    /// 426: only a WebSocket is answered here.
    UpgradeRequired,
    /// 501: this edge has no hub.
    NoHub,
    /// 501: this edge does not know where files are.
    NoFiles,
    /// 404: a content is not there.
    UnknownFile,
    /// 409: a content was not put there, or not as it was offered.
    UploadRefused {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// 507: those who have this key have put there as much as they may.
    FilesFull {
        /// How much they may, in bytes.
        limit: u64,
        /// How much they have.
        total: u64,
        /// How much more this would be.
        size: u64,
    },
    /// 503: the store of files does not do what it is asked.
    StoreUnavailable {
        /// What it says.
        detail: String,
    },
    /// 503: too many wait or listen.
    HubBusy,
    /// 503: the hub cannot read or write its tables.
    HubUnavailable,
    /// 500: the edge itself failed. What happened is in its log, not in the answer.
    Internal,
}

/// The body of a refusal (RFC 9457).
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Problem"))]
pub(crate) struct ProblemBody {
    /// `about:blank`: `code` says all.
    r#type: &'static str,
    /// What it is, in a few words.
    title: &'static str,
    /// The status of the answer.
    pub(crate) status: u16,
    /// A stable word for programs.
    code: &'static str,
    /// What is wrong and what to do, in a sentence for a person.
    detail: String,
    /// Which field or parameter is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// What `size` may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// How large it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Would the same request, sent again, do?
    retryable: bool,
}

impl Problem {
    /// What the plan of the queue allows for a day was used up at this time.
    pub fn allowance_used_up(at: Timestamp) -> Self {
        let at = at.as_millisecond();
        let next_day = (at.div_euclid(DAY_MILLIS) + 1).saturating_mul(DAY_MILLIS);
        Self::AllowanceUsedUp {
            until: timestamp_from_millis(next_day),
            retry_after_seconds: next_day.abs_diff(at).div_ceil(1_000),
        }
    }

    /// The queue is disabled. Nothing tells when that changes.
    pub fn queue_disabled() -> Self {
        Self::QueueDisabled { retry_after_seconds: RETRY_AFTER_DISABLED_SECONDS }
    }

    pub(crate) fn request_too_large(size: Option<u64>) -> Self {
        Self::TooLarge {
            code: "request_too_large",
            what: "the request body",
            limit: limits::REQUEST_BYTES_MAX as u64,
            size,
            unit: "bytes",
        }
    }

    pub(crate) fn message_too_large(size: usize) -> Self {
        Self::TooLarge {
            code: "message_too_large",
            what: "the job, as a queue message,",
            limit: limits::MESSAGE_BODY_BYTES_MAX as u64,
            size: Some(size as u64),
            unit: "bytes",
        }
    }

    /// HTTP status, code, title.
    fn row(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NotFound => (404, "not_found", "Not found"),
            Self::MethodNotAllowed { .. } => (405, "method_not_allowed", "Method not allowed"),
            Self::Unauthorized { .. } => (401, "unauthorized", "Unauthorized"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Unsupported media type"),
            Self::MalformedJson { .. } => (400, "malformed_json", "Malformed JSON"),
            Self::InvalidField { .. } => (422, "invalid_job", "Invalid job"),
            Self::TooLarge { code, .. } => (413, code, "Too large"),
            // One code for all three: for a program they differ in the time to wait, which `retry-after` tells.
            Self::QueueFull { .. } => (429, "queue_full", "Queue full"),
            Self::AllowanceUsedUp { .. } => (429, "queue_full", "Daily allowance used up"),
            Self::QueueDisabled { .. } => (429, "queue_full", "Queue disabled"),
            Self::QueueUnavailable { .. } => (503, "queue_unavailable", "Queue unavailable"),
            Self::NotConfigured { .. } => (503, "not_configured", "Not configured"),
            Self::UnauthorizedSite { .. } => (401, "unauthorized", "Unauthorized"),
            Self::InvalidRequest { .. } => (400, "invalid_request", "Invalid request"),
            Self::UnknownJob => (404, "unknown_job", "Unknown job"),
            Self::NoLogs { .. } => (404, "no_logs", "Nothing printed"),
            Self::SiteRefused { code, .. } => (409, code, "Site refused"),
            Self::UpgradeRequired => (426, "upgrade_required", "Upgrade required"),
            Self::NoHub => (501, "no_hub", "No hub"),
            Self::NoFiles => (501, "no_files", "No store of files"),
            Self::UnknownFile => (404, "unknown_file", "Unknown file"),
            Self::UploadRefused { .. } => (409, "upload_refused", "Upload refused"),
            Self::FilesFull { .. } => (507, "files_full", "No room for files"),
            Self::StoreUnavailable { .. } => (503, "store_unavailable", "Store unavailable"),
            Self::HubBusy => (503, "hub_busy", "Hub busy"),
            Self::HubUnavailable => (503, "hub_unavailable", "Hub unavailable"),
            Self::Internal => (500, "internal", "Internal error"),
        }
    }

    pub(crate) fn detail(&self) -> String {
        match self {
            Self::NotFound => "there is nothing here; jobs go to POST /jobs or POST /jobs/batch, and GET /jobs lists them".to_owned(),
            Self::MethodNotAllowed { allow } => format!("this path takes {allow}"),
            Self::Unauthorized { given: false } => {
                "the header `x-api-key` is missing; it holds the API_KEY of this edge".to_owned()
            }
            Self::Unauthorized { given: true } => {
                "the key in the header `x-api-key` is not the API_KEY of this edge".to_owned()
            }
            Self::UnsupportedMediaType => "the body is JSON: send it with `content-type: application/json`".to_owned(),
            Self::MalformedJson { detail } | Self::NotConfigured { detail } => detail.clone(),
            Self::InvalidField { detail, .. }
            | Self::InvalidRequest { detail, .. }
            | Self::SiteRefused { detail, .. }
            | Self::UploadRefused { detail } => detail.clone(),
            Self::UnauthorizedSite { given: false } => {
                "the header `x-site-key` is missing; it holds the SITE_KEY of this edge".to_owned()
            }
            Self::UnauthorizedSite { given: true } => {
                "the key in the header `x-site-key` is not the SITE_KEY of this edge".to_owned()
            }
            Self::UnknownJob => {
                "the hub has never heard of this job; it hears of a job when it is submitted here, or from the site that holds it".to_owned()
            }
            Self::NoLogs { state } => {
                format!("the job is {state}, and nothing that it printed is here, nor a site linked that could send it")
            }
            Self::UpgradeRequired => "this is the link of a site: a WebSocket".to_owned(),
            Self::NoHub => {
                "this edge has no hub: jobs can be submitted, and results come through the queue".to_owned()
            }
            Self::NoFiles => {
                "this edge has no store of files; its operator names one with FILES_ENDPOINT, FILES_BUCKET, FILES_ACCESS_KEY_ID and FILES_SECRET_ACCESS_KEY".to_owned()
            }
            Self::UnknownFile => {
                "there is no such content: it was never put there, or it has expired; offer it with POST /files".to_owned()
            }
            Self::FilesFull { limit, total, size } => {
                format!(
                    "{total} bytes are there already, and with these {size} there would be more than the {limit} that FILES_BYTES_MAX allows; older ones go by themselves after FILES_KEEP_DAYS"
                )
            }
            Self::StoreUnavailable { detail } => format!("the store of files cannot be used now: {detail}"),
            Self::HubBusy => "too many requests wait at the hub; ask again in a few seconds".to_owned(),
            Self::HubUnavailable => {
                "the hub cannot read or write what it knows, and the edge's log says why; jobs and results are not touched by it".to_owned()
            }
            Self::Internal => {
                "the edge failed, and its log says why; the job may or may not be queued, so send it again with the same Idempotency-Key".to_owned()
            }
            Self::TooLarge { what, limit, size: Some(size), unit, .. } => {
                format!("{what} has {size} {unit}; the limit is {limit}")
            }
            Self::TooLarge { what, limit, size: None, unit, .. } => {
                format!("{what} has more than {limit} {unit}")
            }
            Self::QueueFull { retry_after_seconds } => {
                format!(
                    "the queue takes no more for now; the job was not taken, send it again in {retry_after_seconds} s"
                )
            }
            Self::AllowanceUsedUp { until, .. } => {
                format!(
                    "what the queue's plan allows for a day is used up, until {until}; the job was not taken, send it again after that"
                )
            }
            Self::QueueDisabled { .. } => {
                "the queue is disabled, and takes nothing until its owner enables it; the job was not taken".to_owned()
            }
            Self::QueueUnavailable { retry_after_seconds } => {
                format!(
                    "the queue did not answer; send the job again in {retry_after_seconds} s, with an Idempotency-Key to be sure that it runs once"
                )
            }
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.row().0
    }

    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after_seconds }
            | Self::AllowanceUsedUp { retry_after_seconds, .. }
            | Self::QueueDisabled { retry_after_seconds }
            | Self::QueueUnavailable { retry_after_seconds } => Some(*retry_after_seconds),
            Self::HubBusy | Self::HubUnavailable | Self::StoreUnavailable { .. } => Some(RETRY_AFTER_HUB_SECONDS),
            _ => None,
        }
    }

    pub(crate) fn body(&self) -> ProblemBody {
        let (status, code, title) = self.row();
        let (limit, size) = match self {
            Self::TooLarge { limit, size, .. } => (Some(*limit), *size),
            Self::FilesFull { limit, size, .. } => (Some(*limit), Some(*size)),
            _ => (None, None),
        };
        let field = match self {
            Self::InvalidField { field, .. } | Self::InvalidRequest { field, .. } => field.clone(),
            _ => None,
        };
        let retryable = self.retry_after_seconds().is_some() || matches!(self, Self::Internal);
        ProblemBody { r#type: "about:blank", title, status, code, detail: self.detail(), field, limit, size, retryable }
    }

    /// The whole answer.
    pub fn response(&self) -> Response {
        let mut headers = vec![("content-type", "application/problem+json".to_owned())];
        if let Some(seconds) = self.retry_after_seconds() {
            headers.push(("retry-after", seconds.to_string()));
        }
        match self {
            Self::MethodNotAllowed { allow } => headers.push(("allow", (*allow).to_owned())),
            Self::Unauthorized { .. } => headers.push(("www-authenticate", "x-api-key".to_owned())),
            Self::UnauthorizedSite { .. } => headers.push(("www-authenticate", "x-site-key".to_owned())),
            Self::UpgradeRequired => headers.push(("upgrade", "websocket".to_owned())),
            _ => {}
        }
        let body = serde_json::to_string(&self.body()).expect("a problem holds only strings and numbers");
        Response { status: self.status(), headers, body }
    }
}

impl From<InvalidJob> for Problem {
    fn from(error: InvalidJob) -> Self {
        let detail = error.to_string();
        match error {
            InvalidJob::NotJson(_) => Self::MalformedJson { detail },
            InvalidJob::NotAnObject => Self::InvalidField { field: None, detail },
            InvalidJob::Field { field, .. } => Self::InvalidField { field: Some(field), detail },
        }
    }
}
