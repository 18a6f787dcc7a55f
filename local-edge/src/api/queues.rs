//! Queues: create, list, get, replace, edit, delete; purge of all messages.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::consumers::ConsumerResult;
use super::envelope::{ResultInfo, Success, Whole};
use super::request::{InAccount, InQueue, JsonBody};
use crate::server::App;
use crate::store::{QueueRef, QueueView, SettingsPatch, Update};

/// The code for a body of another shape than these operations take.
pub(super) const CONTROL_SCHEMA: u32 = 10026;

/// The most queues on a page of a list.
const PER_PAGE_MAX: usize = 100;

#[derive(Deserialize)]
pub(super) struct CreateRequest {
    queue_name: String,
    settings: Option<SettingsRequest>,
    jurisdiction: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct UpdateRequest {
    queue_name: Option<String>,
    settings: Option<SettingsRequest>,
}

#[derive(Deserialize)]
struct SettingsRequest {
    delivery_delay: Option<Whole>,
    delivery_paused: Option<bool>,
    message_retention_period: Option<Whole>,
}

#[derive(Deserialize)]
pub(super) struct PurgeRequest {
    delete_messages_permanently: bool,
}

#[derive(Serialize)]
struct QueueResult {
    queue_id: String,
    queue_name: String,
    created_on: String,
    modified_on: String,
    settings: leased_queue::Settings,
    producers: [(); 0],
    producers_total_count: u64,
    consumers: Vec<ConsumerResult>,
    consumers_total_count: usize,
}

#[derive(Serialize)]
struct PurgeStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: InAccount,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Success, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::new(400, CONTROL_SCHEMA, error.body_text()))?;
    let (mut page, mut per_page, mut names) = (1_usize, PER_PAGE_MAX, Vec::new());
    for (name, value) in query {
        match name.as_str() {
            "page" => page = number(&name, &value, usize::MAX)?,
            "per_page" => per_page = number(&name, &value, PER_PAGE_MAX)?,
            "name" => names.push(value),
            _ => {}
        }
    }
    let queues = app.store.call(move |registry| Ok(registry.queues(&names))).await?;
    let total_count = queues.len();
    let first = (page - 1).saturating_mul(per_page);
    let on_page: Vec<QueueResult> = queues.into_iter().skip(first).take(per_page).map(QueueResult::from).collect();
    let total_pages = total_count.div_ceil(per_page);
    let info = ResultInfo { page, per_page, count: on_page.len(), total_count, total_pages };
    Success::page(on_page, info)
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    _: InAccount,
    JsonBody(create): JsonBody<CreateRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    let CreateRequest { queue_name, settings, jurisdiction } = create;
    if let Some(jurisdiction) = jurisdiction {
        tracing::warn!("the jurisdiction {jurisdiction:?} of queue {queue_name:?} is ignored: all data stays here");
    }
    let settings = patch(settings).apply(leased_queue::Settings::default());
    answer(app.store.call(move |registry| registry.create_queue(queue_name, settings)).await)
}

pub(super) async fn get(State(app): State<Arc<App>>, InQueue(queue): InQueue) -> Result<Success, ApiError> {
    answer(app.store.call(move |registry| registry.queue(&queue)).await)
}

pub(super) async fn replace(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(request): JsonBody<UpdateRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    update(&app, queue, request, Update::Replace).await
}

pub(super) async fn edit(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(request): JsonBody<UpdateRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    update(&app, queue, request, Update::Edit).await
}

async fn update(app: &App, queue: QueueRef, request: UpdateRequest, update: Update) -> Result<Success, ApiError> {
    let UpdateRequest { queue_name, settings } = request;
    let settings = patch(settings);
    answer(app.store.call(move |registry| registry.update_queue(&queue, queue_name, settings, update)).await)
}

pub(super) async fn delete(State(app): State<Arc<App>>, InQueue(queue): InQueue) -> Result<Success, ApiError> {
    let deleted = app.store.call(move |registry| registry.delete_queue(&queue)).await;
    deleted.map_err(ApiError::of_control)?;
    Success::done()
}

pub(super) async fn purge(
    State(app): State<Arc<App>>,
    InQueue(queue): InQueue,
    JsonBody(purge): JsonBody<PurgeRequest, CONTROL_SCHEMA>,
) -> Result<Success, ApiError> {
    if !purge.delete_messages_permanently {
        return Err(ApiError::schema(CONTROL_SCHEMA, "`delete_messages_permanently` must be true"));
    }
    answer(app.store.call(move |registry| registry.purge_all(&queue)).await)
}

/// A purge is complete when it is answered, so every purge that there was has completed.
pub(super) async fn purge_status(State(app): State<Arc<App>>, InQueue(queue): InQueue) -> Result<Success, ApiError> {
    let queue = app.store.call(move |registry| registry.queue(&queue)).await;
    let purged_at = queue.map_err(ApiError::of_control)?.purged_at;
    Success::of(PurgeStatus { completed: purged_at.map(|_| "true"), started_at: purged_at.map(date) })
}

fn answer(queue: Result<QueueView, crate::store::StoreRefusal>) -> Result<Success, ApiError> {
    Success::of(QueueResult::from(queue.map_err(ApiError::of_control)?))
}

fn patch(settings: Option<SettingsRequest>) -> SettingsPatch {
    settings.map_or_else(SettingsPatch::default, |settings| SettingsPatch {
        delivery_delay: settings.delivery_delay.map(|seconds| seconds.0),
        delivery_paused: settings.delivery_paused,
        message_retention_period: settings.message_retention_period.map(|seconds| seconds.0),
    })
}

fn number(name: &str, value: &str, max: usize) -> Result<usize, ApiError> {
    value.parse::<usize>().ok().filter(|number| (1..=max).contains(number)).ok_or_else(|| {
        ApiError::new(400, CONTROL_SCHEMA, format!("the query's `{name}` must be a whole number from 1 to {max}"))
    })
}

/// RFC 3339, as everywhere in the service's answers.
pub(super) fn date(milliseconds: i64) -> String {
    protocol::timestamp_from_millis(milliseconds).to_string()
}

impl From<QueueView> for QueueResult {
    fn from(queue: QueueView) -> Self {
        let consumers: Vec<ConsumerResult> = queue.consumer.into_iter().map(ConsumerResult::from).collect();
        Self {
            queue_id: queue.id,
            queue_name: queue.name,
            created_on: date(queue.created_at),
            modified_on: date(queue.modified_at),
            settings: queue.settings,
            producers: [],
            producers_total_count: 0,
            consumers_total_count: consumers.len(),
            consumers,
        }
    }
}
