//! Refusals: the one table of HTTP statuses and codes. Codes are the service's; of the statuses it documents few, and
//! the others are chosen by what HTTP means with them.

use axum::response::{IntoResponse, Response};
use leased_queue::Refused;
use serde::Serialize;
use serde_json::error::Category;

use crate::http::{BrokenBody, response};
use crate::store::StoreRefusal;

/// When to come again after a 429, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// The queue is disabled. Only a fault has this code, and the next one.
pub(crate) const QUEUE_DISABLED: u32 = 10252;

/// The allowance of the free plan is used up for the day.
pub(crate) const FREE_TIER_LIMIT_EXCEEDED: u32 = 10253;

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: u32,
    pub(crate) message: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    errors: [ErrorBody<'a>; 1],
    messages: [(); 0],
    result: Option<()>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: u32,
    message: &'a str,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn no_token() -> Self {
        Self::new(401, 10000, "Authentication error: send the header `Authorization: Bearer <CF_QUEUES_API_TOKEN>`")
    }

    pub(super) fn wrong_token() -> Self {
        let message = "Authentication error: the token is not the one of this server (its --env-file has it)";
        Self::new(401, 10000, message)
    }

    pub(super) fn wrong_account() -> Self {
        Self::new(403, 10000, "Authentication error: the token is not for this account; check CF_ACCOUNT_ID")
    }

    pub(super) fn no_route(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        Self::new(404, 7003, format!("Could not route to {path}, perhaps your object identifier is invalid?"))
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, 10405, "Method not allowed for this path")
    }

    pub(super) fn malformed_queue_id() -> Self {
        Self::new(
            400,
            10107,
            "QueueIDMalformed: a queue id is 32 hexadecimal digits; the name of a queue is not its id",
        )
    }

    pub(crate) fn broken_body(error: BrokenBody) -> Self {
        Self::new(400, 10201, format!("ClientDisconnected: {error}"))
    }

    pub(crate) fn request_too_large() -> Self {
        let max = super::request::BYTES_MAX;
        Self::new(413, 10205, format!("BatchSizeOutOfBounds: the request body has more than {max} bytes"))
    }

    /// Not JSON at all, or JSON of another shape than the operation takes, which is `schema`.
    pub(super) fn json(error: &serde_json::Error, schema: u32) -> Self {
        match error.classify() {
            Category::Data => Self::schema(schema, error.to_string()),
            Category::Syntax | Category::Eof | Category::Io => {
                Self::new(400, 10208, format!("JSONRequestBodyMalformed: {error}"))
            }
        }
    }

    pub(crate) fn schema(code: u32, problem: impl std::fmt::Display) -> Self {
        Self::new(400, code, format!("JSONRequestBodyInvalid: {problem}"))
    }

    pub(crate) fn metadata(problem: impl std::fmt::Display) -> Self {
        Self::new(400, 10203, format!("MessageMetadataInvalid: {problem}"))
    }

    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!("a request failed inside of the server: {error}");
        Self::new(500, 15000, "UnknownInternalError: the log of local-edge says more")
    }

    /// For operations on queues and consumers themselves, the service has another code for an unknown queue.
    pub(super) fn of_control(refusal: StoreRefusal) -> Self {
        match refusal {
            StoreRefusal::QueueNotFound(_) => Self::new(404, 11000, refusal.to_string()),
            other => Self::from(other),
        }
    }

    /// The header that tells when to come again, where that helps.
    pub(crate) fn retry_after(&self) -> Option<(&'static str, &'static str)> {
        let helps = self.status == 429 && !matches!(self.code, QUEUE_DISABLED | FREE_TIER_LIMIT_EXCEEDED);
        helps.then_some(("retry-after", RETRY_AFTER_SECONDS))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let errors = [ErrorBody { code: self.code, message: &self.message }];
        let envelope = Envelope { success: false, errors, messages: [], result: None };
        let body = serde_json::to_string(&envelope).expect("an error holds only a number and a text");
        response(self.status, [("content-type", "application/json")].into_iter().chain(self.retry_after()), body)
    }
}

impl From<StoreRefusal> for ApiError {
    fn from(refusal: StoreRefusal) -> Self {
        let (status, code) = match &refusal {
            StoreRefusal::Queue(refused) => {
                let status = match refused {
                    Refused::PullNotEnabled => 405,
                    Refused::DeliveryPaused => 409,
                    Refused::StorageLimit => 429,
                    Refused::MessageTooLarge { .. } | Refused::BatchTooLarge { .. } | Refused::BatchTooMany { .. } => {
                        413
                    }
                    _ => 400,
                };
                (status, refused.code())
            }
            StoreRefusal::QueueNotFound(_) => (404, 10104),
            StoreRefusal::ConsumerNotFound => (404, 7003),
            StoreRefusal::ConsumerExists => (409, 11004),
            StoreRefusal::DeadLetterCycle => (400, 100_127),
            StoreRefusal::InvalidName => (400, 11003),
            StoreRefusal::NameTaken(_) => (409, 11009),
            StoreRefusal::TooManyQueues(_) => (403, 100_128),
            StoreRefusal::Overloaded => (429, 10250),
            StoreRefusal::Unavailable => (500, 15000),
        };
        Self::new(status, code, refusal.to_string())
    }
}
