//! Push, pull, acknowledge, peek, purge, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leased_queue::{Metrics, Warning};
use protocol::Json;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::ApiError;
use super::envelope::{Success, Whole};
use super::hold::{self, Ask};
use super::request::{InQueue, JsonBody};
use crate::config::JsonBodies;
use crate::server::App;
use crate::store::{ContentType, Payload, PulledMessage, Source};

/// The code for a body of another shape than a push takes.
const PUSH_SCHEMA: u32 = 10207;

/// The code for a body of another shape than a pull or an acknowledgement takes.
const PULL_SCHEMA: u32 = 10026;

#[derive(Deserialize)]
pub(super) struct PushRequest {
    #[serde(default, deserialize_with = "given")]
    body: Option<Json>,
    content_type: Option<String>,
    delay_seconds: Option<Whole>,
}

#[derive(Deserialize)]
pub(super) struct PushBatchRequest {
    messages: Vec<PushRequest>,
    delay_seconds: Option<Whole>,
}

#[derive(Deserialize)]
pub(super) struct PullRequest {
    batch_size: Option<Whole>,
    visibility_timeout_ms: Option<Whole>,
    /// Not the name of the field, but it stands in some documents.
    visibility_timeout: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct AckRequest {
    acks: Option<Vec<Ack>>,
    retries: Option<Vec<RetryItem>>,
}

#[derive(Deserialize)]
struct Ack {
    lease_id: String,
}

#[derive(Deserialize)]
struct RetryItem {
    lease_id: String,
    delay_seconds: Option<Whole>,
}

#[derive(Deserialize)]
pub(super) struct PeekRequest {
    batch_size: Option<Whole>,
}

#[derive(Deserialize)]
pub(super) struct PurgeRequest {
    refs: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    r#ref: String,
}

#[derive(Serialize)]
struct PushResult {
    metadata: Metadata,
}

#[derive(Serialize)]
struct PullResult {
    message_backlog_count: u64,
    messages: Vec<MessageResult>,
    metadata: Metadata,
}

#[derive(Serialize)]
struct PeekResult {
    messages: Vec<MessageResult>,
}

#[derive(Serialize)]
struct MessageResult {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#ref: Option<String>,
    body: String,
    attempts: u32,
    timestamp_ms: i64,
    metadata: MessageMetadata,
}

#[derive(Serialize)]
struct MessageMetadata {
    #[serde(rename = "CF-Content-Type")]
    content_type: &'static str,
    #[serde(rename = "CF-sourceMessageSource")]
    source: &'static str,
}

#[derive(Serialize)]
struct AckResult {
    #[serde(rename = "ackCount")]
    ack_count: u64,
    #[serde(rename = "retryCount")]
    retry_count: u64,
    warnings: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct PurgeResult {
    errors: [(); 0],
    warnings: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Metadata {
    metrics: MetricsResult,
}

#[derive(Serialize)]
struct MetricsResult {
    backlog_count: u64,
    backlog_bytes: u64,
    /// 0 where there is none.
    oldest_message_timestamp_ms: i64,
}

pub(super) async fn push(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(push): JsonBody<PushRequest, PUSH_SCHEMA>,
) -> Result<Success, ApiError> {
    let payloads = [push.payload()?];
    let metrics = app.store.call(move |registry| registry.push(&queue, &payloads, None)).await?;
    Success::of(PushResult { metadata: metrics.into() })
}

pub(super) async fn push_batch(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(batch): JsonBody<PushBatchRequest, PUSH_SCHEMA>,
) -> Result<Success, ApiError> {
    if batch.messages.is_empty() {
        return Err(ApiError::schema(PUSH_SCHEMA, "`messages` is empty"));
    }
    let delay = batch.delay_seconds.map(seconds);
    let payloads: Vec<Payload> = batch.messages.into_iter().map(PushRequest::payload).collect::<Result<_, _>>()?;
    let metrics = app.store.call(move |registry| registry.push(&queue, &payloads, delay)).await?;
    Success::of(PushResult { metadata: metrics.into() })
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    headers: HeaderMap,
    JsonBody(pull): JsonBody<PullRequest, PULL_SCHEMA>,
) -> Result<Response, ApiError> {
    if pull.visibility_timeout.is_some() {
        // Once: an old client sends it with every pull.
        app.told_of_visibility_timeout.call_once(|| {
            tracing::warn!(
                "a pull holds `visibility_timeout`, which is ignored, here and in further pulls; the field is `visibility_timeout_ms`"
            );
        });
    }
    let (batch_size, visibility_timeout_ms) =
        (pull.batch_size.map(|size| size.0), pull.visibility_timeout_ms.map(|timeout| timeout.0));
    let ask = Ask { queue, batch_size, visibility_timeout_ms };
    let wait = hold::asked(&headers);
    let (pulled, held) = hold::pull(&app, ask, wait.unwrap_or_default()).await?;
    let leased = |pulled: PulledMessage| {
        let lease_id = Some(pulled.message.lease().to_string());
        MessageResult { lease_id, ..MessageResult::new(pulled, app.json_bodies) }
    };
    let result = PullResult {
        message_backlog_count: pulled.metrics.backlog_count,
        messages: pulled.messages.into_iter().map(leased).collect(),
        metadata: pulled.metrics.into(),
    };
    let mut response = Success::of(result)?.into_response();
    hold::announce(&mut response, wait.map(|_| held));
    Ok(response)
}

pub(super) async fn ack(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(request): JsonBody<AckRequest, PULL_SCHEMA>,
) -> Result<Success, ApiError> {
    let AckRequest { acks, retries } = request;
    let acks: Vec<String> = acks.unwrap_or_default().into_iter().map(|ack| ack.lease_id).collect();
    let retries: Vec<_> = retries
        .unwrap_or_default()
        .into_iter()
        .map(|retry| (retry.lease_id, retry.delay_seconds.map(seconds)))
        .collect();
    let settled = app.store.call(move |registry| registry.settle(&queue, &acks, &retries)).await?;
    Success::of(AckResult {
        ack_count: settled.acked,
        retry_count: settled.retried,
        warnings: warnings(settled.warnings),
    })
}

pub(super) async fn peek(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(peek): JsonBody<PeekRequest, PULL_SCHEMA>,
) -> Result<Success, ApiError> {
    let size = peek.batch_size.map(|size| size.0);
    let messages = app.store.call(move |registry| registry.peek(&queue, size)).await?;
    let seen = |message: PulledMessage| {
        let reference = Some(message.message.reference().to_string());
        MessageResult { r#ref: reference, ..MessageResult::new(message, app.json_bodies) }
    };
    Success::of(PeekResult { messages: messages.into_iter().map(seen).collect() })
}

pub(super) async fn purge(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(purge): JsonBody<PurgeRequest, PUSH_SCHEMA>,
) -> Result<Success, ApiError> {
    let references: Vec<String> = purge.refs.into_iter().map(|reference| reference.r#ref).collect();
    let unknown = app.store.call(move |registry| registry.purge(&queue, &references)).await?;
    Success::of(PurgeResult { errors: [], warnings: warnings(unknown) })
}

pub(super) async fn metrics(State(app): State<Arc<App>>, InQueue(queue): InQueue) -> Result<Success, ApiError> {
    let metrics = app.store.call(move |registry| registry.metrics(&queue)).await?;
    Success::of(MetricsResult::from(metrics))
}

/// `Some` for every value that is there, `null` included.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

fn seconds(count: Whole) -> Duration {
    Duration::from_secs(count.0)
}

fn warnings(list: Vec<(String, Warning)>) -> BTreeMap<String, String> {
    list.into_iter().map(|(id, warning)| (id, warning.to_string())).collect()
}

impl PushRequest {
    fn payload(self) -> Result<Payload, ApiError> {
        let Some(body) = self.body else {
            return Err(ApiError::schema(PUSH_SCHEMA, "a message has no `body`"));
        };
        let (content_type, body) = match self.content_type.as_deref() {
            None | Some("json") => (ContentType::Json, body.as_str().as_bytes().to_vec()),
            Some("text") => {
                let text: String = body.read().map_err(|_| {
                    ApiError::schema(PUSH_SCHEMA, "the `body` of a message of content type text is not a string")
                })?;
                (ContentType::Text, text.into_bytes())
            }
            Some(_) => return Err(ApiError::metadata("`content_type` must be text or json")),
        };
        Ok(Payload { content_type, source: Source::Http, body, delay: self.delay_seconds.map(seconds) })
    }
}

impl MessageResult {
    fn new(pulled: PulledMessage, json_bodies: JsonBodies) -> Self {
        let PulledMessage { message, content_type, source, body } = pulled;
        let body = match (content_type, json_bodies) {
            (ContentType::Text, _) | (ContentType::Json, JsonBodies::Plain) => {
                // Checked when it was pushed; if the disk tells otherwise, its bytes are still not lost.
                String::from_utf8(body).unwrap_or_else(|error| STANDARD.encode(error.as_bytes()))
            }
            (ContentType::Json, JsonBodies::Base64) | (ContentType::Bytes | ContentType::V8, _) => {
                STANDARD.encode(body)
            }
        };
        Self {
            id: message.id.to_string(),
            lease_id: None,
            r#ref: None,
            body,
            attempts: message.attempts,
            timestamp_ms: message.published_at,
            metadata: MessageMetadata { content_type: content_type.as_str(), source: source.as_str() },
        }
    }
}

impl From<Metrics> for MetricsResult {
    fn from(metrics: Metrics) -> Self {
        Self {
            backlog_count: metrics.backlog_count,
            backlog_bytes: metrics.backlog_bytes,
            oldest_message_timestamp_ms: metrics.oldest_message_at.unwrap_or(0),
        }
    }
}

impl From<Metrics> for Metadata {
    fn from(metrics: Metrics) -> Self {
        Self { metrics: metrics.into() }
    }
}
