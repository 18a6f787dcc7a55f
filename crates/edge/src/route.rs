//! From the head of a request to what is to be done with it, before any of its body is read.

use protocol::limits;

use serde::Serialize;

use crate::admission::{Admission, Form};
use crate::files::{Asker, Store};
use crate::hub::{Opening, Path};
use crate::{Callbacks, Problem, Secret, noetl};

/// The description of the API; `openapi` makes it from the types that serve it.
pub(crate) const DESCRIPTION: &str = include_str!("../openapi.json");

/// What the edge needs to know of itself.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The key that a submission must carry; `None` when none was set, and then nobody may submit.
    pub api_key: Option<Secret>,
    /// The key that sites show to the hub; `None` when none was set, and then no site may link.
    pub site_key: Option<Secret>,
    /// Has this edge a hub?
    pub hub: bool,
    /// Where files are, if anywhere.
    pub files: Option<Store>,
    /// Who may be called when a job is so far.
    pub callbacks: Callbacks,
    /// The origins whose pages may ask in a browser, as browsers write them; only pages of this edge when there are
    /// none.
    pub cors_origins: Vec<String>,
}

/// What the edge looks at before it reads a body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without its question mark; empty where there is none.
    pub query: &'a str,
    /// The header `content-type`.
    pub content_type: Option<&'a str>,
    /// The header `content-length`.
    pub content_length: Option<u64>,
    /// The header `x-api-key`.
    pub api_key: Option<&'a str>,
    /// The header `idempotency-key`.
    pub idempotency_key: Option<&'a str>,
    /// The header `x-site-key`.
    pub site_key: Option<&'a str>,
    /// The header `last-event-id`.
    pub last_event_id: Option<&'a str>,
    /// The header `upgrade`.
    pub upgrade: Option<&'a str>,
    /// The header `origin`.
    pub origin: Option<&'a str>,
    /// The header `host`.
    pub host: Option<&'a str>,
    /// The header `x-forwarded-proto`.
    pub forwarded_proto: Option<&'a str>,
}

impl Head<'_> {
    /// By which scheme and host the edge was reached: what lies beside it is reached in the same way.
    fn reached_at(&self) -> String {
        let scheme = if self.forwarded_proto == Some("https") { "https" } else { "http" };
        let well = |host: &&str| {
            host.len() <= 255 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
        };
        format!("{scheme}://{}", self.host.filter(well).unwrap_or("localhost"))
    }
}

impl Config {
    /// The headers by which a browser lets a page of another origin read an answer: to be added to every one.
    pub fn cors_headers(&self, origin: Option<&str>) -> Vec<(&'static str, String)> {
        let known = origin.filter(|origin| self.cors_origins.iter().any(|known| known == origin));
        match known {
            Some(origin) => vec![
                ("access-control-allow-origin", origin.to_owned()),
                ("access-control-expose-headers", "retry-after".to_owned()),
                ("vary", "origin".to_owned()),
            ],
            None => Vec::new(),
        }
    }
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Header names in lower case, and their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Route {
    /// Answer at once.
    Answer(Response),
    /// Read the body, up to [`Admission::body_limit`] and one byte more, and have it admitted.
    ReadBody(Admission),
    /// Read the body, up to [`Opening::body_limit`] and one byte more, and ask the hub ([`Opening::with_body`]).
    Hub(Opening),
    /// Make a WebSocket of it: it is the link of a site.
    Link,
}

/// Decides by the head of a request. The key is checked before anything else of a submission, so that a stranger
/// learns nothing and costs no reading.
pub fn route(head: &Head<'_>, config: &Config) -> Route {
    try_route(head, config).unwrap_or_else(|problem| Route::Answer(problem.response()))
}

/// The page of the hub. It holds nothing of anybody, so it needs no key: whoever looks at it gives theirs to it.
fn page_to_look_at(config: &Config) -> Response {
    let files = match &config.files {
        None => page::Files::Nowhere,
        Some(store) => store.origin().map_or(page::Files::Here, page::Files::At),
    };
    let headers = [
        ("content-type", page::CONTENT_TYPE),
        ("content-security-policy", &page::policy(files)),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    Response { status: 200, headers, body: page::html(files) }
}

/// What a browser asks before a page of another origin may send its request. It names no key, and learns nothing of it.
fn preflight() -> Response {
    let headers = [
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type, idempotency-key, last-event-id, x-api-key"),
        ("access-control-max-age", "3600"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    Response { status: 204, headers, body: String::new() }
}

fn try_route(head: &Head<'_>, config: &Config) -> Result<Route, Problem> {
    if head.method == "OPTIONS" && !config.cors_headers(head.origin).is_empty() {
        return Ok(Route::Answer(preflight()));
    }
    match (head.path, head.method) {
        ("/health", "GET" | "HEAD") => Ok(Route::Answer(Response::json(200, r#"{"status":"ok"}"#.to_owned()))),
        ("/health", _) => Err(Problem::MethodNotAllowed { allow: "GET" }),
        ("/openapi.json", "GET" | "HEAD") => Ok(Route::Answer(Response::json(200, DESCRIPTION.to_owned()))),
        ("/openapi.json", _) => Err(Problem::MethodNotAllowed { allow: "GET" }),
        ("/", "GET" | "HEAD") => Ok(Route::Answer(page_to_look_at(config))),
        ("/", _) => Err(Problem::MethodNotAllowed { allow: "GET" }),
        ("/jobs", "POST") => admission(Form::One, head, config).map(Route::ReadBody),
        ("/jobs/batch", "POST") => admission(Form::Batch, head, config).map(Route::ReadBody),
        (noetl::PATH, "POST") => admission(Form::Noetl, head, config).map(Route::ReadBody),
        ("/jobs/batch" | noetl::PATH, _) => Err(Problem::MethodNotAllowed { allow: "POST" }),
        _ => hub(head, config),
    }
}

fn hub(head: &Head<'_>, config: &Config) -> Result<Route, Problem> {
    let path = Path::of(head.path).ok_or(Problem::NotFound)?;
    // Browsers ask so, and who has allowed them.
    let asks_head = head.method == "HEAD" && !config.cors_origins.is_empty() && path.is_one_answer();
    if head.method != path.method() && !asks_head {
        let allow = if head.path == "/jobs" { "GET, POST" } else { path.method() };
        return Err(Problem::MethodNotAllowed { allow });
    }
    let is_site = path.is_for_sites() || path.is_for_sites_too() && head.api_key.is_none() && head.site_key.is_some();
    if is_site {
        let Some(site_key) = &config.site_key else {
            let detail = "this edge has no SITE_KEY yet, so no site may link; set it (`wrangler secret put SITE_KEY`)"
                .to_owned();
            return Err(Problem::NotConfigured { detail });
        };
        if !head.site_key.is_some_and(|guess| site_key.matches(guess)) {
            return Err(Problem::UnauthorizedSite { given: head.site_key.is_some() });
        }
    } else {
        check_key(head, config)?;
    }
    if !config.hub {
        return Err(Problem::NoHub);
    }
    if path.is_about_files() && config.files.is_none() {
        return Err(Problem::NoFiles);
    }
    let asker = Asker { is_site, origin: head.reached_at() };
    match path.opening(head.query, head.last_event_id, asker)? {
        Some(opening) if opening.needs_json() && !head.content_type.is_some_and(is_json) => {
            Err(Problem::UnsupportedMediaType)
        }
        Some(opening) => {
            opening.check_announced(head.content_length)?;
            Ok(Route::Hub(opening))
        }
        None if head.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) => Ok(Route::Link),
        None => Err(Problem::UpgradeRequired),
    }
}

fn check_key(head: &Head<'_>, config: &Config) -> Result<(), Problem> {
    let Some(api_key) = &config.api_key else {
        let detail =
            "this edge has no API_KEY yet, so nobody may submit; set it (`wrangler secret put API_KEY`)".to_owned();
        return Err(Problem::NotConfigured { detail });
    };
    if !head.api_key.is_some_and(|guess| api_key.matches(guess)) {
        return Err(Problem::Unauthorized { given: head.api_key.is_some() });
    }
    Ok(())
}

fn admission(form: Form, head: &Head<'_>, config: &Config) -> Result<Admission, Problem> {
    check_key(head, config)?;
    if form == Form::Noetl && !config.hub {
        return Err(Problem::NoHub);
    }
    if !head.content_type.is_some_and(is_json) {
        return Err(Problem::UnsupportedMediaType);
    }
    if let Some(size) = head.content_length
        && size > limits::REQUEST_BYTES_MAX as u64
    {
        return Err(Problem::request_too_large(Some(size)));
    }
    if let Some(key) = head.idempotency_key
        && let Err(problem) = check_header_key(key)
    {
        let field = "Idempotency-Key";
        return Err(Problem::InvalidField { field: Some(field.to_owned()), detail: format!("`{field}` {problem}") });
    }
    let callbacks = config.callbacks.clone();
    let callbacks = if config.hub && callbacks.secret.is_some() { Some(callbacks) } else { None };
    let files = config.hub && config.files.is_some();
    Ok(Admission::new(form, head.idempotency_key.map(str::to_owned), callbacks, files))
}

/// A header that is not UTF-8 comes with U+FFFD for what is not: different keys would be one.
fn check_header_key(key: &str) -> Result<(), String> {
    if key.contains(char::REPLACEMENT_CHARACTER) {
        return Err("must be UTF-8".to_owned());
    }
    protocol::check_idempotency_key(key)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl Response {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self { status, headers: vec![("content-type", "application/json".to_owned())], body }
    }

    /// A value as JSON.
    pub(crate) fn of(status: u16, value: &impl Serialize) -> Self {
        Self::json(status, serde_json::to_string(value).expect("an answer holds only strings, numbers and JSON"))
    }

    /// A text for people.
    pub(crate) fn text(body: String) -> Self {
        Self { status: 200, headers: vec![("content-type", "text/plain; charset=utf-8".to_owned())], body }
    }
}
