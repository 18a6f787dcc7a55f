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

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leased_queue::Metrics;
use protocol::limits;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{ApiError, Whole, authorize, read_json};
use crate::http::{header_text, json_response, read_body, response};
use crate::server::App;
use crate::store::{ContentType, Payload, QueueRef, Source};

/// The code for a body of another shape than a batch has.
const BATCH_SCHEMA: u32 = 10207;

/// What a binding asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `POST /message`
    Message,
    /// `POST /batch`
    Batch,
    /// `GET /metrics`
    Metrics,
}

/// A path of the protocol: the operation, and the name of the queue where the path holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    operation: Operation,
    queue: Option<&'a str>,
}

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

impl<'a> Target<'a> {
    /// Reads a path; `None` when it is none of this protocol.
    pub(crate) fn of_path(path: &'a str) -> Option<Self> {
        let (queue, operation) = match path.strip_prefix("/binding/") {
            Some(rest) => rest.split_once('/').map(|(queue, operation)| (Some(queue), operation))?,
            None => (None, path.strip_prefix('/')?),
        };
        let operation = match operation {
            "message" => Operation::Message,
            "batch" => Operation::Batch,
            "metrics" => Operation::Metrics,
            _ => return None,
        };
        Some(Self { operation, queue })
    }
}

/// Answers a binding.
pub(crate) async fn handle(app: &App, target: Target<'_>, head: &Parts, body: &mut Body) -> Response {
    match answer(app, target, head, body).await {
        Ok(json) => json_response(200, json),
        Err(error) => refuse(&error),
    }
}

async fn answer(app: &App, target: Target<'_>, head: &Parts, body: &mut Body) -> Result<String, ApiError> {
    authorize(app, &head.headers)?;
    let queue = match target.queue {
        Some(name) => name.to_owned(),
        None => header_text(&head.headers, "x-queue-name")
            .map(|name| name.into_owned())
            .ok_or_else(|| ApiError::new(400, 10104, "QueueNotFound: the header X-Queue-Name is missing"))?,
    };
    let queue = QueueRef::Name(queue);
    match (target.operation, &head.method) {
        (Operation::Message, &Method::POST) => {
            let payload = message(&head.headers, body).await?;
            let sent = app.store.call(move |registry| registry.push(&queue, &[payload], None)).await?;
            to_json(&SendResult::from(sent))
        }
        (Operation::Batch, &Method::POST) => {
            let delay = delay(&head.headers)?;
            let payloads = batch(body).await?;
            let sent = app.store.call(move |registry| registry.push(&queue, &payloads, delay)).await?;
            to_json(&SendResult::from(sent))
        }
        (Operation::Metrics, &Method::GET) => {
            let metrics = app.store.call(move |registry| registry.metrics(&queue)).await?;
            to_json(&MetricsResult::from(metrics))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn message(headers: &HeaderMap, body: &mut Body) -> Result<Payload, ApiError> {
    let format = header_text(headers, "x-msg-fmt");
    let delay = delay(headers)?;
    let body = read_body(body, limits::MESSAGE_BYTES_MAX).await.map_err(ApiError::broken_body)?;
    payload(format.as_deref(), body, delay)
}

async fn batch(body: &mut Body) -> Result<Vec<Payload>, ApiError> {
    let batch: BatchRequest = read_json(body, BATCH_SCHEMA).await?;
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

fn to_json<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| ApiError::internal(&error))
}

/// A refusal that a Worker throws.
pub(crate) fn refuse(error: &ApiError) -> Response {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_protocol() {
        let target = |operation, queue| Some(Target { operation, queue });
        for (path, expected) in [
            ("/message", target(Operation::Message, None)),
            ("/batch", target(Operation::Batch, None)),
            ("/metrics", target(Operation::Metrics, None)),
            ("/binding/hpc-jobs/batch", target(Operation::Batch, Some("hpc-jobs"))),
            ("/binding/hpc-jobs/other", None),
            ("/binding/hpc-jobs", None),
            ("/binding/a/b/message", None),
            ("/messages", None),
            ("/jobs", None),
            ("", None),
        ] {
            assert_eq!(Target::of_path(path), expected, "{path}");
        }
    }
}
