//! Requests and responses of the runtime.
//!
//! Every call into JavaScript costs more than all that the edge decides, so the runtime's own types are used as they
//! are, each header is asked for once, and a body crosses in one piece.

use edge::{Config, Head, Response, Route};
use futures_util::StreamExt as _;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsCast as _;
use worker::wasm_bindgen_futures::JsFuture;
use worker::{ByteStream, Result, web_sys};

/// The status of an answer with a WebSocket.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Has the head of a request looked at.
pub(crate) fn route(request: &web_sys::Request, config: &Config) -> Result<Route> {
    let headers = request.headers();
    let content_type = headers.get("content-type")?;
    let api_key = headers.get("x-api-key")?;
    let idempotency_key = headers.get("idempotency-key")?;
    let site_key = headers.get("x-site-key")?;
    let upgrade = headers.get("upgrade")?;
    let last_event_id = headers.get("last-event-id")?;
    let origin = headers.get("origin")?;
    let url = request.url();
    let head = Head {
        method: &request.method(),
        path: path(&url),
        query: query(&url),
        content_type: content_type.as_deref(),
        content_length: content_length(request)?,
        api_key: api_key.as_deref(),
        idempotency_key: idempotency_key.as_deref(),
        site_key: site_key.as_deref(),
        last_event_id: last_event_id.as_deref(),
        upgrade: upgrade.as_deref(),
        origin: origin.as_deref(),
        ..Head::default()
    };
    Ok(edge::route(&head, config))
}

/// Reads the body up to `limit` bytes and, where there is more, one byte more.
pub(crate) async fn read_body(request: &web_sys::Request, limit: usize) -> Result<Vec<u8>> {
    let Some(stream) = request.body() else { return Ok(Vec::new()) };
    if content_length(request)?.is_some() {
        // The length was within the limit when the head was looked at, and the runtime holds the sender to it.
        let buffer = JsFuture::from(request.array_buffer()?).await?;
        return Ok(Uint8Array::new(&buffer).to_vec());
    }
    let mut body = Vec::new();
    let mut chunks = ByteStream::from(stream);
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

/// An answer with what a browser asks for of one to a page of another origin.
pub(crate) fn for_other_origins(
    request: &web_sys::Request,
    config: &Config,
    answer: web_sys::Response,
) -> Result<web_sys::Response> {
    if config.cors_origins.is_empty() || answer.status() == SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let origin = request.headers().get("origin")?;
    let more = config.cors_headers(origin.as_deref());
    if more.is_empty() {
        return Ok(answer);
    }
    // The headers of one that the hub gave cannot be changed.
    let headers = web_sys::Headers::new_with_headers(&answer.headers())?;
    for (name, value) in more {
        headers.set(name, &value)?;
    }
    let init = web_sys::ResponseInit::new();
    init.set_status(answer.status());
    init.set_headers(headers.unchecked_ref());
    Ok(web_sys::Response::new_with_opt_readable_stream_and_init(answer.body().as_ref(), &init)?)
}

/// Makes the answer that the runtime sends.
pub(crate) fn response(answer: &Response) -> Result<web_sys::Response> {
    let headers = web_sys::Headers::new()?;
    headers.set("cache-control", "no-store")?;
    for (name, value) in &answer.headers {
        headers.set(name, value)?;
    }
    let init = web_sys::ResponseInit::new();
    init.set_status(answer.status);
    init.set_headers(headers.unchecked_ref());
    Ok(web_sys::Response::new_with_opt_str_and_init(Some(&answer.body), &init)?)
}

fn content_length(request: &web_sys::Request) -> Result<Option<u64>> {
    Ok(request.headers().get("content-length")?.and_then(|length| length.parse().ok()))
}

/// The path and query of a URL as the runtime writes it: scheme, `://`, host, and always a path.
pub(crate) fn target(url: &str) -> &str {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or("/", |at| &url[after_scheme + at..])
}

/// The path of a URL.
pub(crate) fn path(url: &str) -> &str {
    let target = target(url);
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// The query of a URL, without its question mark; empty where there is none.
pub(crate) fn query(url: &str) -> &str {
    target(url).split_once('?').map_or("", |(_, query)| query)
}
