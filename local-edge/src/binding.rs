//! What workerd, the runtime of Cloudflare Workers, speaks for a queue binding: with this, a compiled Worker in real
//! workerd sends straight into these queues.
//!
//! workerd sends to the address of an external service: `POST /message` with the bare body, `POST /batch` with base64
//! bodies in JSON, `GET /metrics`. It names neither the queue nor a token, but adds the headers that its configuration
//! says, so there is one service per queue:
//!
//! ```text
//! (name = "hpc-jobs", external = (address = "127.0.0.1:8787", http = (injectRequestHeaders = [
//!     (name = "Authorization", value = "Bearer <CF_QUEUES_API_TOKEN>"),
//!     (name = "X-Queue-Name", value = "hpc-jobs"),
//! ])))
//! ```
//!
//! A client that can choose its paths may write `/binding/<queue name>/message` in place of the second header.
//!
//! An answer other than 200 makes the Worker's `send()` throw with the texts of the headers `CF-Queues-Error-Code` and
//! `CF-Queues-Error-Cause`; a 200 without the JSON below does so, too.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leased_queue::Metrics;
use protocol::limits;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{ApiError, Whole, authorize, read_json};
use crate::faults::{Operation, disturbed};
use crate::http::{header_text, json_response, read_body, response};
use crate::server::App;
use crate::store::{ContentType, Payload, QueueRef, Source, StoreRefusal};

/// The code for a body of another shape than a batch has.
const BATCH_SCHEMA: u32 = 10207;

/// The queue that a binding is for, as the path or a header names it.
struct InBinding(QueueRef);

/// A refusal that a Worker throws.
pub(crate) struct Refused(pub(crate) ApiError);

#[derive(Deserialize)]
struct BatchRequest {
    messages: Vec<BatchMessage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchMessage {
    body: String,
    content_type: Option<String>,
    delay_secs: Option<Whole>,
}

#[derive(Serialize)]
struct SendResult {
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    metrics: MetricsResult,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsResult {
    backlog_count: u64,
    backlog_bytes: u64,
    /// 0 where there is none.
    oldest_message_timestamp: i64,
}

/// The paths of the protocol, with the name of the queue in a header or in the path.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let methods: [(&str, MethodRouter<Arc<App>>); 3] =
        [("message", post(message)), ("batch", post(batch)), ("metrics", get(metrics))];
    let paths = methods.into_iter().fold(Router::new(), |router, (path, methods)| {
        let methods = disturbed(app, Operation::Send, methods);
        router.route(&format!("/{path}"), methods.clone()).route(&format!("/binding/{{queue}}/{path}"), methods)
    });
    paths.method_not_allowed_fallback(async || Refused(ApiError::method_not_allowed()))
}

impl FromRequestParts<Arc<App>> for InBinding {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        authorize(app, &parts.headers)?;
        // Without a name in the path, the path has no parameter.
        let in_path = Path::<String>::from_request_parts(parts, app).await.ok();
        let name = in_path
            .map(|Path(name)| name)
            .or_else(|| header_text(&parts.headers, "x-queue-name").map(|name| name.into_owned()));
        let name = name.ok_or_else(|| ApiError::new(400, 10104, "QueueNotFound: the header X-Queue-Name is missing"));
        Ok(Self(QueueRef::Name(name?)))
    }
}

async fn message(
    State(app): State<Arc<App>>,
    InBinding(queue): InBinding,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let format = header_text(&headers, "x-msg-fmt");
    let delay = delay(&headers)?;
    let body = read_body(request.into_body(), limits::MESSAGE_BYTES_MAX).await.map_err(ApiError::broken_body)?;
    let payload = payload(format.as_deref(), body, delay)?;
    sent(app.store.call(move |registry| registry.push(&queue, &[payload], None)).await)
}

async fn batch(
    State(app): State<Arc<App>>,
    InBinding(queue): InBinding,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let delay = delay(&headers)?;
    let payloads = payloads(read_json(request.into_body(), BATCH_SCHEMA).await?)?;
    sent(app.store.call(move |registry| registry.push(&queue, &payloads, delay)).await)
}

async fn metrics(State(app): State<Arc<App>>, InBinding(queue): InBinding) -> Result<Response, Refused> {
    let metrics = app.store.call(move |registry| registry.metrics(&queue)).await.map_err(ApiError::from)?;
    answer(&MetricsResult::from(metrics))
}

fn sent(metrics: Result<Metrics, StoreRefusal>) -> Result<Response, Refused> {
    answer(&SendResult::from(metrics.map_err(ApiError::from)?))
}

fn answer<T: Serialize>(value: &T) -> Result<Response, Refused> {
    let json = serde_json::to_string(value).map_err(|error| ApiError::internal(&error))?;
    Ok(json_response(200, json))
}

fn payloads(batch: BatchRequest) -> Result<Vec<Payload>, ApiError> {
    if batch.messages.is_empty() {
        return Err(ApiError::schema(BATCH_SCHEMA, "`messages` is empty"));
    }
    let payloads = batch.messages.into_iter().map(|message| {
        let body = STANDARD
            .decode(&message.body)
            .map_err(|error| ApiError::schema(BATCH_SCHEMA, format!("a `body` is not base64: {error}")))?;
        let delay = message.delay_secs.map(|seconds| Duration::from_secs(seconds.0));
        payload(message.content_type.as_deref(), body, delay)
    });
    payloads.collect()
}

/// Without a format, a body is one of V8's own serialization.
fn payload(format: Option<&str>, body: Vec<u8>, delay: Option<Duration>) -> Result<Payload, ApiError> {
    let content_type = ContentType::from_name(format.unwrap_or("v8"))
        .ok_or_else(|| ApiError::metadata("the content type must be text, json, bytes or v8"))?;
    let well = match content_type {
        ContentType::Text => std::str::from_utf8(&body).is_ok(),
        ContentType::Json => serde_json::from_slice::<&RawValue>(&body).is_ok(),
        ContentType::Bytes | ContentType::V8 => true,
    };
    // A body beyond the limit was not read to its end; the queue refuses it for its size.
    if !well && body.len() <= limits::MESSAGE_BYTES_MAX {
        let name = content_type.as_str();
        return Err(ApiError::metadata(format!("a body of content type {name} is no {name}")));
    }
    Ok(Payload { content_type, source: Source::Worker, body, delay })
}

fn delay(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(text) = header_text(headers, "x-msg-delay-secs") else { return Ok(None) };
    let seconds = text
        .trim()
        .parse::<u64>()
        .map_err(|_| ApiError::metadata("the header X-Msg-Delay-Secs must be a whole number of seconds, 0 or more"))?;
    Ok(Some(Duration::from_secs(seconds)))
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(error) = self;
        // A header holds visible ASCII; a text may repeat what a client sent.
        let cause: String = error.message.chars().filter(|&c| c == ' ' || c.is_ascii_graphic()).take(1_000).collect();
        let code = error.code.to_string();
        let headers = [
            ("content-type", "text/plain"),
            ("cf-queues-error-code", code.as_str()),
            ("cf-queues-error-cause", cause.as_str()),
        ];
        response(error.status, headers.into_iter().chain(error.retry_after()), error.message.clone())
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Metrics> for MetricsResult {
    fn from(metrics: Metrics) -> Self {
        Self {
            backlog_count: metrics.backlog_count,
            backlog_bytes: metrics.backlog_bytes,
            oldest_message_timestamp: metrics.oldest_message_at.unwrap_or(0),
        }
    }
}

impl From<Metrics> for SendResult {
    fn from(metrics: Metrics) -> Self {
        Self { metadata: Metadata { metrics: metrics.into() } }
    }
}
