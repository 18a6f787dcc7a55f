//! Consumers: list, create, get, replace, delete. Only of type `http_pull`: what calls Workers is not here.

use std::sync::Arc;

use axum::extract::State;
use leased_queue::Consumer;
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::envelope::{ResultInfo, Success, Whole};
use super::queues::{CONTROL_SCHEMA, date};
use super::request::{InConsumer, InQueue, JsonBody, is_id};
use crate::server::App;
use crate::store::{ConsumerView, StoreRefusal};

/// The code for settings that a consumer cannot have.
const INVALID_CONSUMER: u32 = 100_127;

#[derive(Deserialize)]
pub(super) struct ConsumerRequest {
    r#type: String,
    dead_letter_queue: Option<String>,
    settings: Option<SettingsRequest>,
}

#[derive(Deserialize)]
struct SettingsRequest {
    batch_size: Option<Whole>,
    max_retries: Option<Whole>,
    retry_delay: Option<Whole>,
    visibility_timeout_ms: Option<Whole>,
}

#[derive(Serialize)]
pub(super) struct ConsumerResult {
    consumer_id: String,
    created_on: String,
    queue_name: String,
    r#type: &'static str,
    /// Empty where there is none.
    dead_letter_queue: String,
    settings: SettingsResult,
}

#[derive(Serialize)]
struct SettingsResult {
    batch_size: u64,
    max_retries: u64,
    retry_delay: u64,
    visibility_timeout_ms: u64,
}

pub(super) async fn list(State(app): State<Arc<App>>, InQueue(queue): InQueue) -> Result<Success, ApiError> {
    let consumer = app.store.call(move |registry| registry.consumer(&queue)).await;
    let consumers: Vec<ConsumerResult> =
        consumer.map_err(ApiError::of_control)?.into_iter().map(ConsumerResult::from).collect();
    let count = consumers.len();
    Success::page(consumers, ResultInfo { page: 1, per_page: 100, count, total_count: count, total_pages: 1 })
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(request): JsonBody<ConsumerRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    let consumer = request.consumer()?;
    answer(app.store.call(move |registry| registry.create_consumer(&queue, consumer)).await)
}

pub(super) async fn get(State(app): State<Arc<App>>, InConsumer(queue, id): InConsumer) -> Result<Success, ApiError> {
    let consumer = app.store.call(move |registry| registry.consumer(&queue)).await;
    let consumer = consumer.map_err(ApiError::of_control)?.filter(|consumer| consumer.id == id);
    answer(consumer.ok_or(StoreRefusal::ConsumerNotFound))
}

pub(super) async fn replace(
    State(app): State<Arc<App>>,
    InConsumer(queue, id): InConsumer,
    JsonBody(request): JsonBody<ConsumerRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    if !is_id(&id) {
        return Err(ApiError::from(StoreRefusal::ConsumerNotFound));
    }
    let consumer = request.consumer()?;
    answer(app.store.call(move |registry| registry.put_consumer(&queue, id, consumer)).await)
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    InConsumer(queue, id): InConsumer,
) -> Result<Success, ApiError> {
    let deleted = app.store.call(move |registry| registry.delete_consumer(&queue, &id)).await;
    deleted.map_err(ApiError::of_control)?;
    Success::done()
}

fn answer(consumer: Result<ConsumerView, StoreRefusal>) -> Result<Success, ApiError> {
    Success::of(ConsumerResult::from(consumer.map_err(ApiError::of_control)?))
}

impl ConsumerRequest {
    /// The consumer; settings that are not named have their defaults.
    fn consumer(self) -> Result<Consumer, ApiError> {
        match self.r#type.as_str() {
            "http_pull" => {}
            "worker" => {
                let problem = "consumers of type worker are not emulated by local-edge; use type http_pull";
                return Err(ApiError::new(400, INVALID_CONSUMER, problem));
            }
            _ => return Err(ApiError::schema(CONTROL_SCHEMA, "`type` must be http_pull")),
        }
        let default = Consumer::default();
        let dead_letter_queue = self.dead_letter_queue.filter(|name| !name.is_empty());
        let Some(settings) = self.settings else { return Ok(Consumer { dead_letter_queue, ..default }) };
        let or = |given: Option<Whole>, default: u64| given.map_or(default, |given| given.0);
        Ok(Consumer {
            batch_size: or(settings.batch_size, default.batch_size),
            max_retries: or(settings.max_retries, default.max_retries),
            retry_delay: or(settings.retry_delay, default.retry_delay),
            visibility_timeout_ms: or(settings.visibility_timeout_ms, default.visibility_timeout_ms),
            dead_letter_queue,
        })
    }
}

impl From<ConsumerView> for ConsumerResult {
    fn from(view: ConsumerView) -> Self {
        let ConsumerView { id, created_at, queue_name, consumer } = view;
        Self {
            consumer_id: id,
            created_on: date(created_at),
            queue_name,
            r#type: "http_pull",
            dead_letter_queue: consumer.dead_letter_queue.unwrap_or_default(),
            settings: SettingsResult {
                batch_size: consumer.batch_size,
                max_retries: consumer.max_retries,
                retry_delay: consumer.retry_delay,
                visibility_timeout_ms: consumer.visibility_timeout_ms,
            },
        }
    }
}
