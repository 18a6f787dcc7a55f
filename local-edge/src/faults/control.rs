//! `/faults`: `PUT` sets a plan, `GET` shows it and what was injected, `DELETE` takes it away. With the API token, as
//! whatever holds it may read and delete all messages anyway. Not a path of any service, so it has no envelope.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde::Serialize;

use super::Faults;
use super::plan::Plan;
use crate::api::authorize;
use crate::http::{json_response, read_body};
use crate::server::App;

/// The path.
pub(super) const PATH: &str = "/faults";

/// The largest plan that is read.
const PLAN_BYTES_MAX: usize = 64_000;

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
}

/// Answers a request for [`PATH`].
pub(super) async fn answer(faults: &Faults, app: &App, head: &Parts, body: &mut Body) -> Response {
    let done = match allowed(app, &head.headers) {
        Err(refusal) => Err(refusal),
        Ok(()) => match head.method {
            Method::GET => Ok(()),
            Method::PUT => put(faults, body).await,
            Method::DELETE => {
                faults.set(None);
                tracing::info!("the fault plan was taken away");
                Ok(())
            }
            _ => Err((405, "this path takes GET, PUT and DELETE".to_owned())),
        },
    };
    let report = done.and_then(|()| faults.report().map_err(|error| (500, error.to_string())));
    match report {
        Ok(report) => json_response(200, report),
        Err((status, problem)) => refuse(status, &problem),
    }
}

fn allowed(app: &App, headers: &HeaderMap) -> Result<(), (u16, String)> {
    authorize(app, headers).map_err(|error| (error.status, error.message))
}

async fn put(faults: &Faults, body: &mut Body) -> Result<(), (u16, String)> {
    let bytes = read_body(body, PLAN_BYTES_MAX).await.map_err(|error| (400, error.to_string()))?;
    if bytes.len() > PLAN_BYTES_MAX {
        return Err((413, format!("the plan has more than {PLAN_BYTES_MAX} bytes")));
    }
    let plan = Plan::parse(&bytes).map_err(|error| (400, error.to_string()))?;
    tracing::info!(seed = plan.seed, rules = plan.rules.len(), "a fault plan was set");
    faults.set(Some(plan));
    Ok(())
}

fn refuse(status: u16, problem: &str) -> Response {
    json_response(status, serde_json::to_string(&Error { error: problem }).expect("a text becomes JSON"))
}
