//! The hook around every operation: what the plan says to a request for it, and the answers that come instead.
//!
//! Out of scope: faults that happen within the store.
//! Invariant: an injected refusal is what the service itself, or something in front of it, would answer: the same
//! status, code and form, so that a client cannot tell the difference.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use edge::Problem;
use futures_util::stream;
use leased_queue::Refused;

use super::Faults;
use super::dice::Outcome;
use super::kind::Operation;
use crate::api::{ApiError, FREE_TIER_LIMIT_EXCEEDED, QUEUE_DISABLED};
use crate::binding;
use crate::http::response;
use crate::jobs;
use crate::server::App;
use crate::store::{self, StoreRefusal};

/// What a proxy in front of a service says when the service does not.
const PAGE: &str = "<!DOCTYPE html><html><head><title>Something went wrong</title></head><body></body></html>";

/// Bodies that are no answer of any operation. Not among them: `{}` and `{"success":true}`, which are (every field of
/// the service's envelope is optional).
const GARBAGE: [&[u8]; 6] =
    [PAGE.as_bytes(), b"", b"{\"success\":true,\"errors\":[],\"mess", b"\xff\xfe\x00\x80", b"null", b"[]"];

/// Has the plan its say on every request for this operation. Without `--faults` there is no plan, and no hook.
pub(crate) fn disturbed(
    app: &Arc<App>,
    operation: Operation,
    methods: MethodRouter<Arc<App>>,
) -> MethodRouter<Arc<App>> {
    match &app.faults {
        None => methods,
        Some(faults) => methods.layer(from_fn_with_state((faults.clone(), operation), around)),
    }
}

/// Has a request carried out, unless the plan says otherwise.
async fn around(State((faults, operation)): State<(Arc<Faults>, Operation)>, request: Request, next: Next) -> Response {
    // That is no work.
    if *request.method() == Method::HEAD {
        return next.run(request).await;
    }
    let verdict = faults.request(operation);
    if !verdict.delay.is_zero() {
        tracing::debug!(?operation, delay = ?verdict.delay, "injected: the request waits");
        tokio::time::sleep(verdict.delay).await;
    }
    let Some(outcome) = verdict.outcome else {
        return next.run(request).await;
    };
    tracing::debug!(?operation, ?outcome, "injected");
    if outcome.is_after_all() {
        // What came of it stays here.
        let unseen = next.run(request).await;
        tracing::debug!(status = unseen.status().as_u16(), "carried out before that");
    }
    instead(operation, outcome)
}

impl Outcome {
    /// Is the request carried out all the same?
    fn is_after_all(self) -> bool {
        match self {
            Self::DropResponse => true,
            Self::ServerError { done, .. } | Self::Garbage { done, .. } => done,
            Self::DropRequest
            | Self::TooManyRequests { .. }
            | Self::FreeTierLimitExceeded
            | Self::QueueDisabled
            | Self::Paused => false,
        }
    }
}

/// The answer that a client gets.
fn instead(operation: Operation, outcome: Outcome) -> Response {
    match outcome {
        Outcome::DropRequest | Outcome::DropResponse => hang_up(),
        Outcome::TooManyRequests { retry_after_seconds } => {
            let problem = Problem::QueueFull { retry_after_seconds };
            let mut answer = refusal(operation, StoreRefusal::Overloaded.into(), problem);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            answer
        }
        Outcome::FreeTierLimitExceeded => {
            let error = ApiError::new(429, FREE_TIER_LIMIT_EXCEEDED, "FreeTierLimitExceeded");
            refusal(operation, error, Problem::allowance_used_up(protocol::timestamp_from_millis(store::now())))
        }
        Outcome::QueueDisabled => {
            let error = ApiError::new(429, QUEUE_DISABLED, "QueueDisabled");
            refusal(operation, error, Problem::queue_disabled())
        }
        Outcome::Paused => refusal(operation, StoreRefusal::Queue(Refused::DeliveryPaused).into(), Problem::Internal),
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
        Operation::Send => binding::Refused(error).into_response(),
        _ => error.into_response(),
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
    fn garbage_is_no_envelope() {
        for body in GARBAGE {
            let json = serde_json::from_slice::<serde_json::Value>(body);
            assert!(!json.is_ok_and(|value| value.is_object()), "{body:?}");
        }
    }
}
