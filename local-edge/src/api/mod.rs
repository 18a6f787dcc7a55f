//! The Cloudflare Queues HTTP API, under `/client/v4`: who may ask, and which operation answers a path.
//!
//! Names, envelope, limits, codes and statuses are the service's. What it leaves open, or what was chosen without
//! knowing its way, is listed in `docs/local-edge.md`.

mod consumers;
mod envelope;
mod errors;
mod messages;
mod queues;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde::de::DeserializeOwned;

pub(crate) use envelope::Whole;
pub(crate) use errors::ApiError;

use crate::http::{header_text, read_body};
use crate::server::App;
use crate::store::QueueRef;
use envelope::Success;

/// The prefix of every path here.
pub(crate) const PREFIX: &str = "/client/v4/";

/// The largest request body that is read: a batch of 256 KB, with all of its characters escaped, and then some.
pub(crate) const REQUEST_BYTES_MAX: usize = 4_000_000;

/// A request, on its way to an operation.
struct Request<'a> {
    app: &'a App,
    query: &'a str,
    body: &'a mut Body,
}

/// Answers a request whose path begins with [`PREFIX`].
pub(crate) async fn handle(app: &App, head: &Parts, body: &mut Body) -> Response {
    match answer(app, head, body).await {
        Ok(success) => success.response(),
        Err(error) => error.response(),
    }
}

async fn answer(app: &App, head: &Parts, body: &mut Body) -> Result<Success, ApiError> {
    authorize(app, &head.headers)?;
    let path = head.uri.path();
    let below = path.strip_prefix(PREFIX).unwrap_or_default();
    let segments: Vec<&str> = below.trim_end_matches('/').split('/').collect();
    let ["accounts", account, "queues", rest @ ..] = segments.as_slice() else {
        return Err(ApiError::no_route(path));
    };
    if !is_id(account) {
        return Err(ApiError::no_route(path));
    }
    if *account != app.account_id {
        return Err(ApiError::wrong_account());
    }
    let request = Request { app, query: head.uri.query().unwrap_or_default(), body };
    route(rest, &head.method, path, request).await
}

async fn route(rest: &[&str], method: &Method, path: &str, request: Request<'_>) -> Result<Success, ApiError> {
    let (queue, rest) = match rest {
        [] => {
            return match *method {
                Method::GET => queues::list(request).await,
                Method::POST => queues::create(request).await,
                _ => Err(ApiError::method_not_allowed()),
            };
        }
        [queue, rest @ ..] => (*queue, rest),
    };
    if !is_id(queue) {
        return Err(ApiError::malformed_queue_id());
    }
    let queue = QueueRef::Id(queue.to_owned());
    match (rest, method) {
        ([], &Method::GET) => queues::get(request, queue).await,
        ([], &Method::PUT) => queues::replace(request, queue).await,
        ([], &Method::PATCH) => queues::edit(request, queue).await,
        ([], &Method::DELETE) => queues::delete(request, queue).await,
        (["purge"], &Method::POST) => queues::purge(request, queue).await,
        (["purge"], &Method::GET) => queues::purge_status(request, queue).await,
        (["metrics"], &Method::GET) => messages::metrics(request, queue).await,
        (["messages"], &Method::POST) => messages::push(request, queue).await,
        (["messages", "batch"], &Method::POST) => messages::push_batch(request, queue).await,
        (["messages", "pull"], &Method::POST) => messages::pull(request, queue).await,
        (["messages", "ack"], &Method::POST) => messages::ack(request, queue).await,
        (["messages", "peek"], &Method::POST) => messages::peek(request, queue).await,
        (["messages", "purge"], &Method::POST) => messages::purge(request, queue).await,
        (["consumers"], &Method::GET) => consumers::list(request, queue).await,
        (["consumers"], &Method::POST) => consumers::create(request, queue).await,
        (["consumers", id], &Method::GET) => consumers::get(request, queue, id).await,
        (["consumers", id], &Method::PUT) => consumers::replace(request, queue, id).await,
        (["consumers", id], &Method::DELETE) => consumers::delete(request, queue, id).await,
        (
            []
            | ["purge" | "metrics" | "messages" | "consumers"]
            | ["messages", "batch" | "pull" | "ack" | "peek" | "purge"]
            | ["consumers", _],
            _,
        ) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::no_route(path)),
    }
}

/// Lets in who has the token. Compared in constant time.
pub(crate) fn authorize(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = header_text(headers, "authorization");
    let token = given.as_deref().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| {
        // The scheme has no case (RFC 9110).
        scheme.eq_ignore_ascii_case("bearer")
    });
    match token {
        Some((_, token)) if app.token.matches(token.trim()) => Ok(()),
        Some(_) => Err(ApiError::wrong_token()),
        None => Err(ApiError::no_token()),
    }
}

/// Ids of accounts, queues and consumers are 32 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Request<'_> {
    /// Reads the body; `schema` is the code for JSON that is not what the operation takes.
    async fn json<T: DeserializeOwned>(self, schema: u32) -> Result<T, ApiError> {
        read_json(self.body, schema).await
    }
}

/// Reads a JSON body.
pub(crate) async fn read_json<T: DeserializeOwned>(body: &mut Body, schema: u32) -> Result<T, ApiError> {
    let bytes = read_body(body, REQUEST_BYTES_MAX).await.map_err(ApiError::broken_body)?;
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(ApiError::request_too_large());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::json(&error, schema))
}
