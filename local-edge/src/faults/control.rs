//! `/faults`: `PUT` sets a plan, `GET` shows it and what was injected, `DELETE` takes it away. With the API token, as
//! whatever holds it may read and delete all messages anyway. Not a path of any service, so it has no envelope.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::Faults;
use super::plan::Plan;
use crate::api::authorize;
use crate::http::{json_response, read_body};
use crate::server::App;

/// The path.
const PATH: &str = "/faults";

/// The largest plan that is read.
const PLAN_BYTES_MAX: usize = 64_000;

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
}

/// The path and its methods.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let Some(faults) = app.faults.clone() else { return Router::new() };
    let (show, set, clear) = (faults.clone(), faults.clone(), faults);
    let methods = get(async move || report(&show))
        .put(async move |request: Request| match read(request).await {
            Ok(plan) => {
                tracing::info!(seed = plan.seed, rules = plan.rules.len(), "a fault plan was set");
                set.set(Some(plan));
                report(&set)
            }
            Err((status, problem)) => refuse(status, &problem),
        })
        .delete(async move || {
            clear.set(None);
            tracing::info!("the fault plan was taken away");
            report(&clear)
        })
        .fallback(async || refuse(405, "this path takes GET, PUT and DELETE"));
    Router::new().route(PATH, methods.layer(from_fn_with_state(app.clone(), only_with_token)))
}

async fn only_with_token(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match authorize(&app, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(error.status, &error.message),
    }
}

fn report(faults: &Faults) -> Response {
    match faults.report() {
        Ok(report) => json_response(200, report),
        Err(error) => refuse(500, &error.to_string()),
    }
}

async fn read(request: Request) -> Result<Plan, (u16, String)> {
    let bytes = read_body(request.into_body(), PLAN_BYTES_MAX).await.map_err(|error| (400, error.to_string()))?;
    if bytes.len() > PLAN_BYTES_MAX {
        return Err((413, format!("the plan has more than {PLAN_BYTES_MAX} bytes")));
    }
    Plan::parse(&bytes).map_err(|error| (400, error.to_string()))
}

fn refuse(status: u16, problem: &str) -> Response {
    json_response(status, serde_json::to_string(&Error { error: problem }).expect("a text becomes JSON"))
}
