//! The edge as a Cloudflare Worker: a thin shell around the crate `edge`.
//!
//! It reads requests, asks `edge`, sends to the queue `hpc-jobs` (binding `HPC_QUEUE`) and answers. No decision stands
//! here, so that `local-edge`, the other shell, answers the same.

mod queue;

use edge::{Admission, Config, Decision, Head, Next, Problem, Route};
use futures_util::StreamExt as _;
use worker::{Context, Date, Delay, Env, Headers, Request, Response, Result, console_error, event};

/// The binding of the queue, as in `wrangler.toml`.
const QUEUE_BINDING: &str = "HPC_QUEUE";

/// The secret that a submission must carry, as set by `wrangler secret put`.
const API_KEY_SECRET: &str = "API_KEY";

#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    match answer(request, &env).await {
        Ok(response) => Ok(response),
        Err(error) => {
            console_error!("{error}");
            respond(Problem::Internal.response())
        }
    }
}

async fn answer(mut request: Request, env: &Env) -> Result<Response> {
    let admission = match admission(&request, env)? {
        Route::Answer(answer) => return respond(answer),
        Route::ReadBody(admission) => admission,
    };
    let body = read_body(&mut request, admission.body_limit()).await?;
    respond(submit(env, admission, &body).await?)
}

fn admission(request: &Request, env: &Env) -> Result<Route> {
    let headers = request.headers();
    let content_type = headers.get("content-type")?;
    let api_key = headers.get("x-api-key")?;
    let idempotency_key = headers.get("idempotency-key")?;
    let head = Head {
        method: &request.method().to_string(),
        path: &request.path(),
        content_type: content_type.as_deref(),
        content_length: headers.get("content-length")?.and_then(|length| length.parse().ok()),
        api_key: api_key.as_deref(),
        idempotency_key: idempotency_key.as_deref(),
    };
    // A secret that was never set is a missing binding.
    let api_key = env.secret(API_KEY_SECRET).ok().and_then(|secret| edge::Secret::new(&secret.to_string()));
    Ok(edge::route(&head, &Config { api_key }))
}

/// Reads the body up to `limit` bytes and, where there is more, one byte more.
async fn read_body(request: &mut Request, limit: usize) -> Result<Vec<u8>> {
    if request.headers().has("content-length")? {
        // The length was within the limit when the head was looked at, and the runtime holds the sender to it.
        return request.bytes().await;
    }
    let mut body = Vec::new();
    // The body was not read before, so the only error is that there is none.
    let Ok(mut chunks) = request.stream() else { return Ok(body) };
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let room = (limit + 1).saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() > limit {
            break;
        }
    }
    Ok(body)
}

async fn submit(env: &Env, admission: Admission, body: &[u8]) -> Result<edge::Response> {
    let now = protocol::timestamp_from_millis(i64::try_from(Date::now().as_millis()).unwrap_or(i64::MAX));
    let mut mint = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("a Worker has crypto.getRandomValues");
        bytes
    };
    let mut pending = match admission.admit(body, now, &mut mint) {
        Decision::Answer(answer) => return Ok(answer),
        Decision::Enqueue(pending) => pending,
    };
    let Ok(queue) = env.queue(QUEUE_BINDING) else {
        let detail = format!("this edge has no queue: the binding {QUEUE_BINDING} is missing from wrangler.toml");
        return Ok(Problem::NotConfigured { detail }.response());
    };
    loop {
        let Err(refusal) = queue::send(&queue, pending.messages()).await else { return Ok(pending.sent()) };
        match pending.refused(refusal) {
            Next::RetryAfter(pause) => Delay::from(pause).await,
            Next::Answer(answer) => return Ok(answer),
        }
    }
}

fn respond(answer: edge::Response) -> Result<Response> {
    let headers = Headers::new();
    for (name, value) in &answer.headers {
        headers.set(name, value)?;
    }
    Ok(Response::from_bytes(answer.body.into_bytes())?.with_status(answer.status).with_headers(headers))
}
