//! The edge as a Cloudflare Worker: a thin shell around the crate `edge`.
//!
//! It reads requests, asks `edge`, sends to the queue `hpc-jobs` (binding `HPC_QUEUE`) and answers. What is asked of
//! the hub it has the hub's object answer (binding `HUB`). No decision stands here, so that `local-edge`, the other
//! shell, answers the same.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `config` | what the operator has set |
//! | `http` | requests and responses of the runtime, read and made with few crossings into JavaScript |
//! | `queue` | sending, and what the queue says when it does not take a message |
//! | `hub` | what passes between the Worker and the object of the hub |
//! | `telling` | what the object is still to be told of |
//! | `object` | that object: a shell around `edge::hub` |
//! | `call` | its calls to addresses that submissions have named |
//! | `store` | its questions to the store of files |
//! | `storage` | its tables |
//! | `follower` | one who waits for an answer of it, or reads a stream |

mod call;
mod config;
mod follower;
mod http;
mod hub;
mod object;
mod queue;
mod storage;
mod store;
mod telling;

use edge::{Admission, Config, Decision, Next, Pending, Problem, Route, Sent};
use protocol::Timestamp;
use worker::{Context, Date, Delay, Env, Result, console_error, event, web_sys};

/// The binding of the queue, as in `wrangler.toml`.
const QUEUE_BINDING: &str = "HPC_QUEUE";

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> Result<web_sys::Response> {
    let config = config::config(&env);
    let answer = match answer(&request, &config, &env, &context).await {
        Ok(answer) => answer,
        Err(error) => {
            console_error!("{error}");
            http::response(&Problem::Internal.response())?
        }
    };
    http::for_other_origins(&request, &config, answer)
}

async fn answer(
    request: &web_sys::Request,
    config: &Config,
    env: &Env,
    context: &Context,
) -> Result<web_sys::Response> {
    let answer = match http::route(request, config)? {
        Route::Answer(answer) => answer,
        Route::ReadBody(admission) => {
            let body = http::read_body(request, admission.body_limit()).await?;
            match submit(env, admission, &body).await {
                Ok(pending) => {
                    if config.hub
                        && hub::leave(pending.messages())
                        && let Some(hub) = hub::object(env)
                    {
                        // After the answer: nobody waits for it.
                        context.wait_until(hub::tell(hub));
                    }
                    match pending.sent() {
                        Sent::Answer(answer) => answer,
                        Sent::Wait(waiting) => hub::wait(env, *waiting).await?,
                    }
                }
                Err(answer) => answer,
            }
        }
        Route::Hub(opening) => match hub::object(env) {
            Some(hub) => {
                let body = http::read_body(request, opening.body_limit()).await?;
                return hub::ask(&hub, request, &opening, &body).await;
            }
            None => Problem::NoHub.response(),
        },
        Route::Link => match hub::object(env) {
            Some(hub) => return hub::link(&hub, request).await,
            None => Problem::NoHub.response(),
        },
    };
    http::response(&answer)
}

/// What is in the queue then, or the answer to whoever submitted what is not.
async fn submit(env: &Env, admission: Admission, body: &[u8]) -> std::result::Result<Pending, edge::Response> {
    let mut mint = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("a Worker has crypto.getRandomValues");
        bytes
    };
    let mut pending = match admission.admit(body, now(), &mut mint) {
        Decision::Answer(answer) => return Err(answer),
        Decision::Enqueue(pending) => pending,
    };
    let Ok(queue) = env.queue(QUEUE_BINDING) else {
        let detail = format!("this edge has no queue: the binding {QUEUE_BINDING} is missing from wrangler.toml");
        return Err(Problem::NotConfigured { detail }.response());
    };
    loop {
        let Err(refusal) = queue::send(&queue, pending.messages()).await else { return Ok(pending) };
        match pending.refused(refusal) {
            Next::RetryAfter(pause) => Delay::from(pause).await,
            Next::Answer(answer) => return Err(answer),
        }
    }
}

fn now() -> Timestamp {
    protocol::timestamp_from_millis(i64::try_from(Date::now().as_millis()).unwrap_or(i64::MAX))
}
