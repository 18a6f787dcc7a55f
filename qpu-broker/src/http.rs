//! Requests and answers. What a job may ask, and what whoever starts and ends jobs may.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use lease::{Event, QpuName, Refusal, Reply, Submission, TaskId, View, ViewStage};
use protocol::JobId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::desk::{Gone, Ways};
use crate::problem::Problem;
use crate::sockets::Sockets;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request waits for the end of a task at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How deep a payload may be. What reads it in an adapter may end over one that is deeper.
const DEPTH_MAX: usize = 100;

/// The longest Idempotency-Key.
const KEY_BYTES_MAX: usize = 128;

/// What answers the requests of one job.
struct OfJob {
    job: JobId,
    ways: Ways,
    payload_max: usize,
}

/// What a job may ask.
pub(crate) fn of_job(job: JobId, ways: Ways, payload_max: usize) -> Router {
    let task = get(|state, path, query| answer(show(state, path, query)))
        .delete(|state, path| answer(cancel(state, path)))
        .fallback(|| async { Problem::method_not_allowed().response() });
    let tasks = post(|state, path, headers, body| answer(submit(state, path, headers, body)))
        .fallback(|| async { Problem::method_not_allowed().response() });
    let machines = get(|State(of): State<Arc<OfJob>>| answer(async move { machines(&of.ways).await }))
        .fallback(|| async { Problem::method_not_allowed().response() });
    Router::new()
        .route("/v1/qpus", machines)
        .route("/v1/qpus/{qpu}/tasks", tasks)
        .route("/v1/qpus/{qpu}/tasks/{id}", task)
        .fallback(|| async { Problem::not_found().response() })
        .with_state(Arc::new(OfJob { job, ways, payload_max }))
}

/// What whoever starts and ends jobs may ask.
pub(crate) fn control(sockets: Sockets, ways: Ways) -> Router {
    let job = post(|state, path| answer(open_job(state, path)))
        .delete(|state, path| answer(end_job(state, path)))
        .fallback(|| async { Problem::method_not_allowed().response() });
    let jobs = get(|state| answer(jobs(state))).fallback(|| async { Problem::method_not_allowed().response() });
    let machines = get(|State((_, ways)): State<(Sockets, Ways)>| answer(async move { machines(&ways).await }))
        .fallback(|| async { Problem::method_not_allowed().response() });
    Router::new()
        .route("/v1/qpus", machines)
        .route("/v1/jobs", jobs)
        .route("/v1/jobs/{job}", job)
        .fallback(|| async { Problem::not_found().response() })
        .with_state((sockets, ways))
}

/// An answer of JSON.
pub(crate) fn json(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status.try_into().expect("every status of this program is one of HTTP");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(answer: impl Future<Output = Result<Response, Problem>>) -> Response {
    answer.await.unwrap_or_else(|problem| problem.response())
}

impl From<Gone> for Problem {
    fn from(_: Gone) -> Self {
        Self::stopping()
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid_request(rejection.body_text())
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    id: &'a str,
}

async fn submit(
    State(of): State<Arc<OfJob>>,
    qpu: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(qpu) = qpu?;
    let qpu: QpuName = qpu.parse().map_err(|_| Problem::from(Refusal::NoQpu))?;
    let key = key(&headers)?;
    let payload = read_body(body, of.payload_max).await?;
    let payload = String::from_utf8(payload).map_err(|error| Problem::malformed_json(&error.to_string()))?;
    serde_json::from_str::<&RawValue>(&payload).map_err(|error| Problem::malformed_json(&error.to_string()))?;
    if is_deeper(&payload, DEPTH_MAX) {
        let why = format!("what is within one another is deeper than {DEPTH_MAX}");
        return Err(Problem::malformed_json(&why));
    }
    // A line break stands between the parts of JSON and never within one; an adapter has it in one line.
    let payload = payload.trim().replace(['\n', '\r'], " ");
    let digest = Sha256::digest(payload.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // A text takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Problem::internal())?;
    let submission = Submission { id: TaskId::from_random(random), job: of.job.clone(), qpu, payload, key, digest };
    match of.ways.request(move |request| Event::Submit(request, Box::new(submission))).await? {
        Reply::Accepted(id) => Ok(body_of(202, &Accepted { id: id.as_str() })),
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done | Reply::Task(_) => Err(Problem::internal()),
    }
}

/// Are lists and objects of this JSON deeper within one another?
fn is_deeper(json: &str, max: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
    }
    false
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let well = |key: &&str| !key.is_empty() && key.len() <= KEY_BYTES_MAX;
    let key = key.to_str().ok().filter(well);
    let wrong =
        || Problem::invalid_request(format!("An Idempotency-Key has 1 to {KEY_BYTES_MAX} characters of ASCII."));
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

async fn read_body(body: Body, max: usize) -> Result<Vec<u8>, Problem> {
    let whole = async {
        let mut body = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| Problem::broken_body(&error.to_string()))?);
            if bytes.len() > max {
                return Err(Problem::too_large(max as u64));
            }
        }
        Ok(bytes)
    };
    let late = || Problem::broken_body(&format!("it took longer than {} s", BODY_TIMEOUT.as_secs()));
    tokio::time::timeout(BODY_TIMEOUT, whole).await.map_err(|_| late())?
}

#[derive(Deserialize)]
struct Wait {
    wait: Option<String>,
}

async fn show(
    State(of): State<Arc<OfJob>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((qpu, id)) = path?;
    let Query(Wait { wait }) = query.map_err(|error| Problem::invalid_request(error.body_text()))?;
    let id = task_id(&id)?;
    let wait = wait.as_deref().map_or(Ok(0.0), str::parse::<f64>);
    let wait = wait.map_err(|_| Problem::invalid_request("`wait` is a number of seconds, up to 60."))?;
    let wait = Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or(WAIT_MAX).min(WAIT_MAX);
    let until = Instant::now() + wait;
    // First, so that who asks in a wrong way is told at once.
    let mut view = view_at(of.ways.look(&of.job, &id, false).await?, &qpu)?;
    if !matches!(view.stage, ViewStage::Ended(..)) && !wait.is_zero() {
        view = match tokio::time::timeout_at(until, of.ways.look(&of.job, &id, true)).await {
            Ok(ended) => view_at(ended?, &qpu)?,
            Err(_) => view_at(of.ways.look(&of.job, &id, false).await?, &qpu)?,
        };
    }
    let result = match view.stage {
        ViewStage::Ended(..) => of.ways.fetch(&id).await?,
        _ => None,
    };
    Ok(task_response(&view, result))
}

async fn cancel(
    State(of): State<Arc<OfJob>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((qpu, id)) = path?;
    let id = task_id(&id)?;
    view_at(of.ways.look(&of.job, &id, false).await?, &qpu)?;
    let job = of.job.clone();
    match of.ways.request(move |request| Event::Cancel(request, job, id)).await? {
        Reply::Task(view) => Ok(task_response(&view, None)),
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done | Reply::Accepted(_) => Err(Problem::internal()),
    }
}

fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|_| Refusal::NoTask.into())
}

/// The task, if it is at this machine.
fn view_at(found: Result<View, Refusal>, qpu: &str) -> Result<View, Problem> {
    let view = found?;
    if view.qpu.as_str() == qpu { Ok(view) } else { Err(Refusal::NoTask.into()) }
}

#[derive(Serialize)]
struct TaskBody<'a> {
    id: &'a str,
    qpu: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancelling: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn task_response(view: &View, result: Option<String>) -> Response {
    let (before, error) = match &view.stage {
        ViewStage::Queued { before } => (Some(*before), None),
        ViewStage::Ended(_, message) => (None, message.as_deref()),
        ViewStage::Submitting | ViewStage::Running => (None, None),
    };
    let body = TaskBody {
        id: view.id.as_str(),
        qpu: view.qpu.as_str(),
        status: view.stage.word(),
        before,
        cancelling: view.cancelling,
        result: result.and_then(|result| RawValue::from_string(result).ok()),
        error,
    };
    body_of(200, &body)
}

#[derive(Serialize)]
struct MachineBody<'a> {
    name: &'a str,
    queued: usize,
    jobs: usize,
    in_flight: usize,
    max_in_flight: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Machines<'a> {
    qpus: Vec<MachineBody<'a>>,
}

async fn machines(ways: &Ways) -> Result<Response, Problem> {
    let machines = ways.machines().await?;
    let shown = machines.iter().map(|(name, machine)| MachineBody {
        name: name.as_str(),
        queued: machine.queued,
        jobs: machine.jobs,
        in_flight: machine.in_flight,
        max_in_flight: machine.max_in_flight,
        trouble: machine.trouble.as_ref().map(|(what, _)| what.as_str()),
        next_try_seconds: machine.trouble.as_ref().map(|(_, pause)| pause.as_secs_f64().ceil() as u64),
    });
    Ok(body_of(200, &Machines { qpus: shown.collect() }))
}

#[derive(Serialize)]
struct Opened<'a> {
    job_id: &'a str,
    socket: String,
}

async fn open_job(
    State((sockets, ways)): State<(Sockets, Ways)>,
    job: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(job) = job?;
    let job = job_id(&job)?;
    let of_it = job.clone();
    // First on disk: the next broker listens for it as well.
    ways.request(move |request| Event::OpenJob(request, of_it)).await?;
    let socket = sockets.open(&job).map_err(|error| {
        tracing::error!("the job {job} has no socket: {error:#}");
        Problem::internal()
    })?;
    Ok(body_of(200, &Opened { job_id: job.as_str(), socket: socket.display().to_string() }))
}

async fn end_job(
    State((sockets, ways)): State<(Sockets, Ways)>,
    job: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(job) = job?;
    let job = job_id(&job)?;
    let of_it = job.clone();
    ways.request(move |request| Event::EndJob(request, of_it)).await?;
    sockets.remove(&job);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = axum::http::StatusCode::NO_CONTENT;
    Ok(response)
}

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<JobId>,
}

async fn jobs(State((_, ways)): State<(Sockets, Ways)>) -> Result<Response, Problem> {
    Ok(body_of(200, &Jobs { jobs: ways.jobs().await? }))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|error| Problem::invalid_request(format!("The id of the job cannot be used: {error}.")))
}

fn body_of(status: u16, body: &impl Serialize) -> Response {
    json(status, serde_json::to_string(body).expect("an answer holds only texts, numbers and JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_lists_and_objects_and_not_of_texts() {
        for (json, deeper) in [
            ("[[1],[2]]", false),
            ("[{\"a\":[1]}]", true),
            ("[\"[[[\\\"[[\",[1]]", false),
            ("[\"\\\\\",[[1]]]", true),
            ("1", false),
        ] {
            assert_eq!(is_deeper(json, 2), deeper, "{json}");
        }
    }
}
