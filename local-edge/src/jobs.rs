//! `POST /jobs` and its like, `GET /health`, what the hub answers, and the refusal of everything else: a shell
//! around crate `edge`, which decides. The Worker is another shell around the same decisions.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::any;
use edge::{Decision, Next, Pending, Problem, Route, Sent};
use leased_queue::Refused;

use crate::connections::Place;
use crate::faults::{Operation, disturbed};
use crate::http::{header_text, read_body, response};
use crate::server::App;
use crate::store::{ContentType, Payload, QueueRef, Source, StoreRefusal};
use crate::{hub, random};

/// The paths where jobs are submitted. For every other one there is [`handle`] as well: what it answers is the edge's
/// to say.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let submit = disturbed(app, Operation::Jobs, any(handle));
    Router::new().route("/jobs", submit.clone()).route("/jobs/batch", submit)
}

/// Answers a request.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let origin = header_text(request.headers(), "origin").map(Cow::into_owned);
    let mut answer = answer(&app, request).await;
    for (name, value) in app.edge.cors_headers(origin.as_deref()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

async fn answer(app: &App, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let header = |name| header_text(&head.headers, name);
    let (content_type, length) = (header("content-type"), header("content-length"));
    let (api_key, idempotency_key) = (header("x-api-key"), header("idempotency-key"));
    let (site_key, last_event_id, upgrade) = (header("x-site-key"), header("last-event-id"), header("upgrade"));
    let origin = header("origin");
    let (host, forwarded_proto) = (header("host"), header("x-forwarded-proto"));
    let edge_head = edge::Head {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        content_type: content_type.as_deref(),
        content_length: length.and_then(|length| length.parse().ok()),
        api_key: api_key.as_deref(),
        idempotency_key: idempotency_key.as_deref(),
        site_key: site_key.as_deref(),
        last_event_id: last_event_id.as_deref(),
        upgrade: upgrade.as_deref(),
        origin: origin.as_deref(),
        host: host.as_deref(),
        forwarded_proto: forwarded_proto.as_deref(),
    };
    let admission = match edge::route(&edge_head, &app.edge) {
        Route::Answer(answer) => return to_response(answer),
        Route::ReadBody(admission) => admission,
        Route::Hub(opening) => {
            let place = head.extensions.get::<Place>().cloned();
            return hub::ask(&app.hub, opening, body, place).await;
        }
        Route::Link => {
            let place = head.extensions.get::<Place>().cloned();
            return hub::link(&app.hub, head, place).await;
        }
    };
    let body = match read_body(body, admission.body_limit()).await {
        Ok(body) => body,
        Err(error) => return to_response(Problem::MalformedJson { detail: error.to_string() }.response()),
    };
    let now = protocol::timestamp_from_millis(app.now());
    let decision = admission.admit(&body, now, &mut random::bytes);
    match decision {
        Decision::Answer(answer) => to_response(answer),
        Decision::Enqueue(pending) => to_response(enqueue(app, pending).await),
    }
}

async fn enqueue(app: &App, mut pending: Pending) -> edge::Response {
    loop {
        let payloads: Vec<Payload> = pending.messages().iter().map(|message| payload(message)).collect();
        let queue = QueueRef::Name(edge::JOBS_QUEUE.to_owned());
        let refusal = match app.store.call(move |registry| registry.push(&queue, &payloads, None)).await {
            Ok(_) => {
                app.hub.submitted(pending.messages().to_vec());
                return match pending.sent() {
                    Sent::Answer(answer) => answer,
                    Sent::Wait(waiting) => {
                        let answer = hub::answer(&app.hub, waiting.request.clone()).await;
                        waiting.answer(answer)
                    }
                };
            }
            Err(refusal) => refusal,
        };
        match pending.refused(class(&refusal)) {
            Next::RetryAfter(pause) => {
                tracing::debug!(%refusal, ?pause, "the queue did not take a job");
                tokio::time::sleep(pause).await;
            }
            Next::Answer(answer) => {
                tracing::warn!(%refusal, "a job was not taken");
                return answer;
            }
        }
    }
}

fn payload(message: &str) -> Payload {
    Payload { content_type: ContentType::Text, source: Source::Worker, body: message.as_bytes().to_vec(), delay: None }
}

fn class(refusal: &StoreRefusal) -> edge::Refusal {
    match refusal {
        StoreRefusal::Overloaded | StoreRefusal::Queue(Refused::StorageLimit) => {
            edge::Refusal::Overloaded { retry_after: None }
        }
        StoreRefusal::Queue(
            Refused::MessageTooLarge { .. } | Refused::BatchTooLarge { .. } | Refused::BatchTooMany { .. },
        ) => edge::Refusal::TooLarge,
        _ => edge::Refusal::Unavailable,
    }
}

/// An answer of the edge, on the wire.
pub(crate) fn to_response(answer: edge::Response) -> Response {
    let edge::Response { status, headers, body } = answer;
    response(status, headers.iter().map(|(name, value)| (*name, value.as_str())), body)
}
