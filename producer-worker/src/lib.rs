//! The edge as a Cloudflare Worker: a thin shell around the crate `edge`.
//!
//! It reads requests, asks `edge`, sends to the queue `hpc-jobs` (binding `HPC_QUEUE`) and answers. No decision stands
//! here, so that `local-edge`, the other shell, answers the same.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `http` | requests and responses of the runtime, read and made with few crossings into JavaScript |
//! | `queue` | sending, and what the queue says when it does not take a message |

mod http;
mod queue;

use edge::{Admission, Config, Decision, Next, Problem, Route, Secret, Sent};
use worker::{Context, Date, Delay, Env, Result, console_error, event, web_sys};

/// The binding of the queue, as in `wrangler.toml`.
const QUEUE_BINDING: &str = "HPC_QUEUE";

/// The secret that a submission must carry, as set by `wrangler secret put`.
const API_KEY_SECRET: &str = "API_KEY";

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, _context: Context) -> Result<web_sys::Response> {
    let answer = match answer(&request, &env).await {
        Ok(answer) => answer,
        Err(error) => {
            console_error!("{error}");
            Problem::Internal.response()
        }
    };
    http::response(&answer)
}

async fn answer(request: &web_sys::Request, env: &Env) -> Result<edge::Response> {
    // A secret that was never set is a missing binding.
    let api_key = env.secret(API_KEY_SECRET).ok().and_then(|secret| Secret::new(&secret.to_string()));
    let admission = match http::route(request, &Config { api_key, ..Config::default() })? {
        Route::Answer(answer) => return Ok(answer),
        Route::ReadBody(admission) => admission,
        Route::Hub(_) | Route::Link => return Ok(Problem::NoHub.response()),
    };
    let body = http::read_body(request, admission.body_limit()).await?;
    submit(env, admission, &body).await
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
        let Err(refusal) = queue::send(&queue, pending.messages()).await else {
            return Ok(match pending.sent() {
                Sent::Answer(answer) => answer,
                Sent::Wait(_) => Problem::NoHub.response(),
            });
        };
        match pending.refused(refusal) {
            Next::RetryAfter(pause) => Delay::from(pause).await,
            Next::Answer(answer) => return Ok(answer),
        }
    }
}
