//! Questions of the hub to the store of files, over the network.
//!
//! What is asked is signed already (`edge::files`), so this holds no secret, and decides nothing.

use std::pin::pin;
use std::time::Duration;

use edge::files::{StoreAnswer, StoreCall};
use edge::hub::Event;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use worker::wasm_bindgen::JsValue;
use worker::{
    AbortController, AbortSignal, Delay, Error, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Result,
};

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks, and tells what has come of it.
pub(crate) async fn ask(call: StoreCall) -> Event {
    let controller = AbortController::default();
    let signal = controller.signal();
    let outcome = match select(pin!(fetch(&call, &signal)), pin!(Delay::from(PATIENCE))).await {
        Either::Left((answered, _)) => answered.map_err(|error| error.to_string()),
        Either::Right(_) => {
            controller.abort();
            Err(format!("no answer within {} s", PATIENCE.as_secs()))
        }
    };
    Event::Stored { call, outcome }
}

async fn fetch(call: &StoreCall, signal: &AbortSignal) -> Result<StoreAnswer> {
    let mut answer = Fetch::Request(request(call)?).send_with_signal(signal).await?;
    let status = answer.status_code();
    let length = answer.headers().get("content-length")?.and_then(|length| length.parse().ok());
    let date = answer.headers().get("date")?;
    let mut body = Vec::new();
    // An answer without a body has no stream.
    if let Ok(mut pieces) = answer.stream() {
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece?);
            if body.len() >= StoreAnswer::BYTES_MAX {
                body.truncate(StoreAnswer::BYTES_MAX);
                break;
            }
        }
    }
    Ok(StoreAnswer { status, length, date, body: String::from_utf8_lossy(&body).into_owned() })
}

fn request(call: &StoreCall) -> Result<Request> {
    let method = match call.method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "DELETE" => Method::Delete,
        other => return Err(Error::RustError(format!("the hub asks with {other}"))),
    };
    let headers = Headers::new();
    for (name, value) in &call.headers {
        headers.set(name, value)?;
    }
    // The length of what would be packed on its way is not told.
    headers.set("accept-encoding", "identity")?;
    let mut init = RequestInit::new();
    init.with_method(method).with_redirect(RequestRedirect::Manual).with_headers(headers);
    if !call.body.is_empty() {
        init.with_body(Some(JsValue::from_str(&call.body)));
    }
    Request::new_with_init(&call.url, &init)
}
