//! The JSON of the API. Every field of an answer is optional in its specification, and some differ between the
//! specification, the documentation and the live service; what is read here is the union.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::{Consumer, QueueInfo, count};

#[derive(Debug, Serialize)]
pub(crate) struct PullRequest {
    pub(crate) batch_size: usize,
    pub(crate) visibility_timeout_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct SettleRequest<'a> {
    pub(crate) acks: Vec<Ack<'a>>,
    pub(crate) retries: Vec<Retry<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Ack<'a> {
    pub(crate) lease_id: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Retry<'a> {
    pub(crate) lease_id: &'a str,
    pub(crate) delay_seconds: u64,
}

/// A body travels as text: JSON bodies may come back base64-encoded or plain, text always comes back as it was.
#[derive(Debug, Serialize)]
pub(crate) struct PushMessage<'a> {
    pub(crate) body: &'a str,
    pub(crate) content_type: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct PushBatch<'a> {
    pub(crate) messages: Vec<PushMessage<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) success: Option<bool>,
    #[serde(default)]
    pub(crate) errors: Option<Vec<ApiError>>,
    #[serde(default = "none")]
    pub(crate) result: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PullResult {
    #[serde(default)]
    pub(crate) messages: Option<Vec<PulledMessage>>,
    #[serde(default)]
    pub(crate) message_backlog_count: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PulledMessage {
    pub(crate) id: Option<String>,
    pub(crate) lease_id: Option<String>,
    /// Unread, so that one message cannot make the others unreadable.
    pub(crate) body: Option<Box<RawValue>>,
    pub(crate) attempts: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SettleResult {
    #[serde(rename = "ackCount")]
    pub(crate) ack_count: Option<f64>,
    #[serde(rename = "retryCount")]
    pub(crate) retry_count: Option<f64>,
    #[serde(default)]
    pub(crate) warnings: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Metrics {
    pub(crate) backlog_count: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Queue {
    queue_id: Option<String>,
    queue_name: Option<String>,
    settings: Option<QueueSettings>,
    consumers: Option<Vec<QueueConsumer>>,
}

#[derive(Debug, Deserialize)]
struct QueueSettings {
    delivery_paused: Option<bool>,
    message_retention_period: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct QueueConsumer {
    consumer_id: Option<String>,
    r#type: Option<String>,
    dead_letter_queue: Option<String>,
    settings: Option<ConsumerSettings>,
}

#[derive(Debug, Default, Deserialize)]
struct ConsumerSettings {
    max_retries: Option<f64>,
    /// All others stay what they are when one is changed.
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

impl Queue {
    pub(crate) fn info(self) -> QueueInfo {
        let (retention, paused) = match self.settings {
            Some(settings) => (settings.message_retention_period, settings.delivery_paused),
            None => (None, None),
        };
        let consumer = |consumer: QueueConsumer| {
            let settings = consumer.settings.unwrap_or_default();
            Consumer {
                id: consumer.consumer_id,
                pulls: consumer.r#type.as_deref() == Some("http_pull"),
                max_retries: settings.max_retries.map(count),
                // The service says "" where there is none.
                dead_letter_queue: consumer.dead_letter_queue.filter(|name| !name.is_empty()),
                others: settings.others,
            }
        };
        QueueInfo {
            id: self.queue_id,
            name: self.queue_name,
            retention: retention.map(count).map(Duration::from_secs),
            paused,
            answered: None,
            consumers: self.consumers.map(|consumers| consumers.into_iter().map(consumer).collect()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct CreateQueue<'a> {
    pub(crate) queue_name: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct EditQueue {
    pub(crate) settings: EditedSettings,
}

#[derive(Debug, Serialize)]
pub(crate) struct EditedSettings {
    pub(crate) message_retention_period: u64,
}

/// A pull consumer, whole: it is made, or put in the place of another one.
#[derive(Debug, Serialize)]
pub(crate) struct PutConsumer<'a> {
    pub(crate) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dead_letter_queue: Option<&'a str>,
    pub(crate) settings: serde_json::Map<String, Value>,
}

/// The body as text: what a JSON string holds, or other JSON as it stands.
pub(crate) fn text(body: &RawValue) -> String {
    serde_json::from_str(body.get()).unwrap_or_else(|_| body.get().to_owned())
}

/// Warnings are a map from lease to text, or a list of texts, or absent.
pub(crate) fn warnings(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Object(map) => map.values().map(text).collect(),
        Value::Array(list) => list.iter().map(text).collect(),
        _ => Vec::new(),
    }
}
