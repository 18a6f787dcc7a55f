//! The Cloudflare Queues HTTP API, under `/client/v4`: who may ask, and which operation answers a path.
//!
//! Names, envelope, limits, codes and statuses are the service's. What it leaves open, or what was chosen without
//! knowing its way, is listed in `docs/local-edge.md`.

mod consumers;
mod envelope;
mod errors;
mod hold;
mod messages;
mod queues;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

pub(crate) use envelope::Whole;
pub(crate) use errors::{ApiError, FREE_TIER_LIMIT_EXCEEDED, QUEUE_DISABLED};
pub(crate) use request::{authorize, read_json};

use crate::faults::{Operation, disturbed};
use crate::server::App;

/// The prefix of every path here.
const PREFIX: &str = "/client/v4";

/// Every operation, and what it is for the faults.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    const QUEUES: &str = "/accounts/{account_id}/queues";
    let one = get(queues::get).put(queues::replace).patch(queues::edit).delete(queues::delete);
    let all_consumers = get(consumers::list).post(consumers::create);
    let one_consumer = get(consumers::get).put(consumers::replace).delete(consumers::delete);
    let operations: [(&str, Operation, MethodRouter<Arc<App>>); 12] = [
        ("", Operation::Queues, get(queues::list).post(queues::create)),
        ("/{queue_id}", Operation::Queues, one),
        ("/{queue_id}/purge", Operation::Queues, post(queues::purge).get(queues::purge_status)),
        ("/{queue_id}/metrics", Operation::Metrics, get(messages::metrics)),
        ("/{queue_id}/messages", Operation::Push, post(messages::push)),
        ("/{queue_id}/messages/batch", Operation::PushBatch, post(messages::push_batch)),
        ("/{queue_id}/messages/pull", Operation::Pull, post(messages::pull)),
        ("/{queue_id}/messages/ack", Operation::Ack, post(messages::ack)),
        ("/{queue_id}/messages/peek", Operation::Peek, post(messages::peek)),
        ("/{queue_id}/messages/purge", Operation::Purge, post(messages::purge)),
        ("/{queue_id}/consumers", Operation::Consumers, all_consumers),
        ("/{queue_id}/consumers/{consumer_id}", Operation::Consumers, one_consumer),
    ];
    let paths = operations.into_iter().fold(Router::new(), |router, (path, operation, methods)| {
        router.route(&format!("{QUEUES}{path}"), disturbed(app, operation, methods))
    });
    let paths = paths.method_not_allowed_fallback(async || ApiError::method_not_allowed());
    let paths = paths.fallback(async |OriginalUri(uri): OriginalUri| ApiError::no_route(uri.path()));
    Router::new().nest(PREFIX, paths.layer(from_fn_with_state(app.clone(), only_with_token)))
}

async fn only_with_token(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, ApiError> {
    authorize(&app, request.headers())?;
    Ok(next.run(request).await)
}
