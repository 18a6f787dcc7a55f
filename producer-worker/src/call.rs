//! Calls to addresses that submissions have named.
//!
//! Whether an address may be called is `edge::Callbacks`' to say. The network of Workers leads to public addresses
//! only, whatever a name resolves to.

use std::pin::pin;
use std::time::Duration;

use edge::Callbacks;
use edge::hub::{Call, Event};
use futures_util::future::{Either, select};
use worker::wasm_bindgen::JsValue;
use worker::{AbortController, Delay, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Result};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a call, and tells what came of it.
pub(crate) async fn call(callbacks: &Callbacks, call: Call) -> Event {
    let Call { job_id, event, url, headers, body } = call;
    let outcome = match callbacks.check(&url) {
        // It was allowed when the job was submitted.
        Err(problem) => Err(format!("the address {problem}")),
        Ok(_) => post(&url, &headers, &body).await,
    };
    Event::Called { job_id, event, outcome }
}

/// The status of the answer, or why there is none.
async fn post(url: &str, headers: &[(&'static str, String)], body: &str) -> std::result::Result<u16, String> {
    let controller = AbortController::default();
    let signal = controller.signal();
    let fetch = Fetch::Request(request(url, headers, body).map_err(|error| error.to_string())?);
    match select(pin!(fetch.send_with_signal(&signal)), pin!(Delay::from(PATIENCE))).await {
        Either::Left((Ok(answer), _)) => Ok(answer.status_code()),
        Either::Left((Err(error), _)) => Err(error.to_string()),
        Either::Right(_) => {
            controller.abort();
            Err(format!("no answer within {} s", PATIENCE.as_secs()))
        }
    }
}

fn request(url: &str, headers: &[(&'static str, String)], body: &str) -> Result<Request> {
    let all = Headers::new();
    for (name, value) in headers {
        all.set(name, value)?;
    }
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_redirect(RequestRedirect::Manual).with_headers(all);
    init.with_body(Some(JsValue::from_str(body)));
    Request::new_with_init(url, &init)
}
