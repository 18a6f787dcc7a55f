//! What passes between the Worker and the object of the hub: requests that the Worker has let through, links, and what
//! the queue has taken.

use std::cell::RefCell;
use std::time::Duration;

use edge::files::Asker;
use edge::hub::{Opening, Request};
use edge::{Problem, Waiting};
use serde_json::value::RawValue;
use worker::js_sys::{Reflect, Uint8Array};
use worker::wasm_bindgen::JsCast as _;
use worker::wasm_bindgen_futures::JsFuture;
use worker::{Delay, Env, Error, Result, Stub, console_error, web_sys};

use crate::http;
use crate::telling::Telling;

/// The binding of the object, as in `wrangler.toml`.
const BINDING: &str = "HUB";

/// There is one object, and this is its name.
const OBJECT: &str = "hub";

/// Where the object is asked what people and sites ask the Worker.
const ASKED: &str = "https://asked";

/// Where it is told what the queue has taken.
const SUBMITTED: &str = "https://submitted/";

/// The header by which the Worker tells the object that a site asks. It passes none on from outside.
const ASKED_BY_A_SITE: &str = "x-asked-by-a-site";

/// What the Worker says to the object.
pub(crate) enum Message {
    Submitted { messages: Vec<String> },
    Asked(std::result::Result<Request, Problem>),
    Linked,
}

/// The object, if this Worker has one.
pub(crate) fn object(env: &Env) -> Option<Stub> {
    env.durable_object(BINDING).and_then(|namespace| namespace.get_by_name(OBJECT)).ok()
}

/// How long somebody who tells waits for more to tell of.
const PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// Of all requests that are at work in this Worker.
    static TELLING: RefCell<Telling> = RefCell::default();
}

/// Leaves what the queue has taken to be told to the object. Whether it hears it is nothing to whoever has submitted
/// it. `true`: nobody tells it yet, and who leaves this is to ([`tell`]).
pub(crate) fn leave(messages: &[String]) -> bool {
    TELLING.with_borrow_mut(|telling| telling.leave(messages, crate::now().as_millisecond()))
}

/// Tells the object what is left, until nothing more comes.
pub(crate) async fn tell(object: Stub) {
    loop {
        let messages = TELLING.with_borrow_mut(|telling| telling.take(crate::now().as_millisecond()));
        if messages.is_empty() {
            return;
        }
        if let Err(error) = submitted(&object, &messages).await {
            console_error!("the hub was not told of {} job(s): {error}", messages.len());
        }
        // Who comes alone was told of at once; of a burst more comes in a moment.
        Delay::from(PAUSE).await;
    }
}

async fn submitted(object: &Stub, messages: &[String]) -> Result<()> {
    let init = web_sys::RequestInit::new();
    init.set_method("POST");
    // Each is JSON as it is.
    init.set_body(&format!("[{}]", messages.join(",")).into());
    let request = web_sys::Request::new_with_str_and_init(SUBMITTED, &init)?;
    object.fetch_with_request(request.into()).await.map(|_| ())
}

/// Has the object say how far a job is, for who waits for its end.
pub(crate) async fn wait(env: &Env, waiting: Waiting) -> Result<edge::Response> {
    let (Some(object), Request::Status { job_id, wait }) = (object(env), &waiting.request) else {
        return Ok(Problem::NoHub.response());
    };
    let url = format!("{ASKED}/jobs/{job_id}?wait={}", wait.as_secs());
    let answer = match object.fetch_with_str(&url).await {
        Ok(mut answer) if answer.status_code() == 200 => {
            edge::Response { status: 200, headers: Vec::new(), body: answer.text().await? }
        }
        Ok(_) => Problem::UnknownJob.response(),
        Err(error) => unavailable(&error),
    };
    Ok(waiting.answer(answer))
}

fn unavailable(error: &Error) -> edge::Response {
    console_error!("the hub does not answer: {error}");
    Problem::HubUnavailable.response()
}

/// Has the object take a link.
pub(crate) async fn link(object: &Stub, request: &web_sys::Request) -> Result<web_sys::Response> {
    pass(object, request, &[], false).await
}

/// Has the object answer a request.
pub(crate) async fn ask(
    object: &Stub,
    request: &web_sys::Request,
    opening: &Opening,
    body: &[u8],
) -> Result<web_sys::Response> {
    pass(object, request, body, opening.is_asked_by_a_site()).await
}

async fn pass(object: &Stub, request: &web_sys::Request, body: &[u8], is_site: bool) -> Result<web_sys::Response> {
    let init = web_sys::RequestInit::new();
    init.set_method(&request.method());
    // An answer that leads elsewhere is for whoever has asked.
    Reflect::set(&init, &"redirect".into(), &"manual".into())?;
    if !body.is_empty() {
        // A copy: the runtime reads it later, from where it is.
        init.set_body(&Uint8Array::from(body));
    }
    let headers = web_sys::Headers::new()?;
    for name in ["last-event-id", "upgrade"] {
        if let Some(value) = request.headers().get(name)? {
            headers.set(name, &value)?;
        }
    }
    if is_site {
        headers.set(ASKED_BY_A_SITE, "1")?;
    }
    init.set_headers(headers.unchecked_ref());
    let url = request.url();
    let request = web_sys::Request::new_with_str_and_init(&format!("{ASKED}{}", http::target(&url)), &init)?;
    match object.fetch_with_request(request.into()).await {
        // As it is: a WebSocket may come with it.
        Ok(response) => Ok(response.into()),
        Err(error) => http::response(&unavailable(&error)),
    }
}

/// What the Worker has said, at the object.
pub(crate) async fn read(request: &web_sys::Request) -> Result<Message> {
    let url = request.url();
    if url.starts_with(SUBMITTED) {
        let text = JsFuture::from(request.text()?).await?.as_string().unwrap_or_default();
        let messages: Vec<&RawValue> = serde_json::from_str(&text)?;
        let messages = messages.into_iter().map(|message| message.get().to_owned()).collect();
        return Ok(Message::Submitted { messages });
    }
    let last_event_id = request.headers().get("last-event-id")?;
    let opening = match Opening::of(http::path(&url), http::query(&url), last_event_id.as_deref()) {
        Ok(Some(opening)) => opening,
        Ok(None) => return Ok(Message::Linked),
        Err(problem) => return Ok(Message::Asked(Err(problem))),
    };
    // A store that the Worker holds itself there is none, so nobody needs to know where the Worker was reached.
    let is_site = request.headers().has(ASKED_BY_A_SITE)?;
    let opening = opening.asked_by(Asker { is_site, ..Asker::default() });
    let body = http::read_body(request, opening.body_limit()).await?;
    Ok(Message::Asked(opening.with_body(&body)))
}

/// A name for a link that no other one has.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("a Worker has crypto.getRandomValues");
    format!("{:032x}", u128::from_be_bytes(bytes))
}
