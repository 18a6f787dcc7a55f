//! The hook around every request: what it asks for, what the plan says to that, and the answers that come instead.
//!
//! Out of scope: faults that happen within the store.
//! Invariant: an injected refusal is what the service itself, or something in front of it, would answer: the same
//! status, code and form, so that a client cannot tell the difference.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use edge::Problem;
use futures_util::stream;
use leased_queue::Refused;

use super::dice::Outcome;
use super::plan::Operation;
use super::{Faults, control};
use crate::api::{self, ApiError};
use crate::binding::{self, Target};
use crate::http::response;
use crate::jobs;
use crate::server::{self, App};
use crate::store::Refusal;

/// What a proxy in front of a service says when the service does not.
const PAGE: &str = "<!DOCTYPE html><html><head><title>Something went wrong</title></head><body></body></html>";

/// Bodies that are no answer of any operation. Not among them: `{}` and `{"success":true}`, which are (every field of
/// the service's envelope is optional).
const GARBAGE: [&[u8]; 6] =
    [PAGE.as_bytes(), b"", b"{\"success\":true,\"errors\":[],\"mess", b"\xff\xfe\x00\x80", b"null", b"[]"];

/// Has a request carried out, unless the plan says otherwise.
pub(crate) async fn around(faults: &Faults, app: &App, head: &Parts, body: &mut Body) -> Response {
    let path = head.uri.path();
    if path == control::PATH {
        return control::answer(faults, app, head, body).await;
    }
    let Some(operation) = operation(&head.method, path) else {
        return server::answer(app, head, body).await;
    };
    let verdict = faults.request(operation);
    if !verdict.delay.is_zero() {
        tracing::debug!(?operation, delay = ?verdict.delay, "injected: the request waits");
        tokio::time::sleep(verdict.delay).await;
    }
    let Some(outcome) = verdict.outcome else {
        return server::answer(app, head, body).await;
    };
    tracing::debug!(?operation, ?outcome, "injected");
    if outcome.is_after_all() {
        // What came of it stays here.
        let unseen = server::answer(app, head, body).await;
        tracing::debug!(status = unseen.status().as_u16(), "carried out before that");
    }
    instead(operation, outcome)
}

/// What a request asks for; `None` for what is no work (`GET /health`, unknown paths), and is left alone.
fn operation(method: &Method, path: &str) -> Option<Operation> {
    if *method == Method::HEAD {
        return None;
    }
    if let Some(below) = path.strip_prefix(api::PREFIX) {
        let segments: Vec<&str> = below.trim_end_matches('/').split('/').collect();
        let ["accounts", _, "queues", rest @ ..] = segments.as_slice() else { return None };
        return Some(match rest {
            [] | [_] | [_, "purge"] => Operation::Queues,
            [_, "metrics"] => Operation::Metrics,
            [_, "consumers", ..] => Operation::Consumers,
            [_, "messages"] => Operation::Push,
            [_, "messages", "batch"] => Operation::PushBatch,
            [_, "messages", "pull"] => Operation::Pull,
            [_, "messages", "ack"] => Operation::Ack,
            [_, "messages", "peek"] => Operation::Peek,
            [_, "messages", "purge"] => Operation::Purge,
            _ => return None,
        });
    }
    if Target::of_path(path).is_some() {
        return Some(Operation::Send);
    }
    matches!(path, "/jobs" | "/jobs/batch").then_some(Operation::Jobs)
}

impl Outcome {
    /// Is the request carried out all the same?
    fn is_after_all(self) -> bool {
        match self {
            Self::DropResponse => true,
            Self::ServerError { done, .. } | Self::Garbage { done, .. } => done,
            Self::DropRequest | Self::TooManyRequests { .. } | Self::Paused => false,
        }
    }
}

/// The answer that a client gets.
fn instead(operation: Operation, outcome: Outcome) -> Response {
    match outcome {
        Outcome::DropRequest | Outcome::DropResponse => hang_up(),
        Outcome::TooManyRequests { retry_after_seconds } => {
            let problem = Problem::QueueFull { retry_after_seconds };
            let mut answer = refusal(operation, Refusal::Overloaded.into(), problem);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            answer
        }
        Outcome::Paused => refusal(operation, Refusal::Queue(Refused::DeliveryPaused).into(), Problem::Internal),
        Outcome::ServerError { status: 500, .. } => {
            let error = ApiError::new(500, 15000, "UnknownInternalError");
            refusal(operation, error, Problem::Internal)
        }
        // Any other one comes from what stands in front of the service.
        Outcome::ServerError { status, .. } => response(status, [("content-type", "text/html")], PAGE.to_owned()),
        Outcome::Garbage { choice, .. } => garbage(choice),
    }
}

/// A refusal in the form that the client of the operation knows.
fn refusal(operation: Operation, error: ApiError, problem: Problem) -> Response {
    match operation {
        Operation::Jobs => jobs::to_response(problem.response()),
        Operation::Send => binding::refuse(&error),
        _ => error.response(),
    }
}

fn garbage(choice: u64) -> Response {
    let pick = usize::try_from(choice % GARBAGE.len() as u64).expect("it is below the length of an array");
    let mut answer = response(200, [("content-type", "application/json")], String::new());
    *answer.body_mut() = Body::from(GARBAGE[pick]);
    answer
}

/// An answer of which nothing is sent: hyper asks for the first piece of the body before it sends the head, and closes
/// the connection when that fails.
fn hang_up() -> Response {
    let failure = io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is closed on purpose");
    Response::new(Body::from_stream(stream::iter([Err::<Bytes, io::Error>(failure)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_operations() {
        const ID: &str = "/client/v4/accounts/a/queues/q";
        for (path, expected) in [
            (format!("{ID}/messages/pull"), Some(Operation::Pull)),
            (format!("{ID}/messages/ack/"), Some(Operation::Ack)),
            (format!("{ID}/messages"), Some(Operation::Push)),
            (format!("{ID}/messages/batch"), Some(Operation::PushBatch)),
            (format!("{ID}/messages/peek"), Some(Operation::Peek)),
            (format!("{ID}/messages/purge"), Some(Operation::Purge)),
            (format!("{ID}/metrics"), Some(Operation::Metrics)),
            (format!("{ID}/consumers/c"), Some(Operation::Consumers)),
            (format!("{ID}/purge"), Some(Operation::Queues)),
            ("/client/v4/accounts/a/queues".to_owned(), Some(Operation::Queues)),
            ("/binding/hpc-jobs/batch".to_owned(), Some(Operation::Send)),
            ("/message".to_owned(), Some(Operation::Send)),
            ("/jobs".to_owned(), Some(Operation::Jobs)),
            ("/jobs/batch".to_owned(), Some(Operation::Jobs)),
            (format!("{ID}/messages/other"), None),
            ("/client/v4/user".to_owned(), None),
            ("/health".to_owned(), None),
            ("/".to_owned(), None),
        ] {
            assert_eq!(operation(&Method::POST, &path), expected, "{path}");
            assert_eq!(operation(&Method::HEAD, &path), None, "{path}");
        }
    }

    #[test]
    fn garbage_is_no_envelope() {
        for body in GARBAGE {
            let json = serde_json::from_slice::<serde_json::Value>(body);
            assert!(!json.is_ok_and(|value| value.is_object()), "{body:?}");
        }
    }
}
