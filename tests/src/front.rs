//! A server in front of another: it refuses as many requests as it is told to, and passes on all others.
//!
//! With it the reaction to each kind of trouble, and the recovery from it, is tested against the real server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocol::hold;
use tokio::task::JoinHandle;

use crate::http::{RUNTIME, block_on, client};

/// The largest request that is passed on.
const REQUEST_BYTES_MAX: usize = 32_000_000;

/// How to refuse one request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Requests whose path ends like this; others are not affected.
    pub path_suffix: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body of the answer.
    pub body: String,
}

/// The server.
#[derive(Debug)]
pub struct Front {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    behind: String,
    state: Mutex<Doings>,
}

#[derive(Debug, Default)]
struct Doings {
    refusals: VecDeque<Refusal>,
    /// Text that no request may hold, and how it is refused then.
    unfit: Option<(String, Refusal)>,
    holds_nothing: bool,
    /// Path and status of every answer so far.
    answers: Vec<(String, u16)>,
}

impl Refusal {
    /// A refusal in the envelope of the queue API.
    pub fn of_api(path_suffix: &'static str, status: u16, code: u32, message: &str) -> Self {
        let body = format!(
            r#"{{"success":false,"errors":[{{"code":{code},"message":"{message}"}}],"messages":[],"result":null}}"#
        );
        Self { path_suffix, status, headers: vec![("content-type", "application/json")], body }
    }
}

impl Front {
    /// Starts one in front of the server at `behind` (`host:port`).
    pub fn before(behind: &str) -> Self {
        let shared = Arc::new(Shared { behind: behind.to_owned(), state: Mutex::default() });
        let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port can be had");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = RUNTIME.spawn(async move {
            axum::serve(listener, router).await.expect("serving ends only with the task");
        });
        Self { address, shared, task }
    }

    /// From now on nobody behind it offers to hold a pull open, as Cloudflare does not.
    pub fn hold_nothing(&self) {
        self.shared.state().holds_nothing = true;
    }

    /// Its address, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Refuses the next `times` requests that the refusal speaks of.
    pub fn refuse(&self, times: usize, refusal: &Refusal) {
        self.shared.state().refusals.extend(std::iter::repeat_n(refusal.clone(), times));
    }

    /// Refuses every request with this text in it that the refusal speaks of.
    pub fn refuse_text(&self, text: &str, refusal: &Refusal) {
        self.shared.state().unfit = Some((text.to_owned(), refusal.clone()));
    }

    /// How many refusals are still to come.
    pub fn refusals_left(&self) -> usize {
        self.shared.state().refusals.len()
    }

    /// The statuses of the answers so far to requests whose path ends like this.
    pub fn statuses(&self, path_suffix: &str) -> Vec<u16> {
        let state = self.shared.state();
        state.answers.iter().filter(|(path, _)| path.ends_with(path_suffix)).map(|&(_, status)| status).collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Doings> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let refusal = {
        let mut state = shared.state();
        let matching = state.refusals.iter().position(|refusal| path.ends_with(refusal.path_suffix));
        matching.and_then(|position| state.refusals.remove(position))
    };
    let mut response = match refusal {
        Some(refusal) => refused(refusal),
        None => read(&shared, request, &path).await,
    };
    if shared.state().holds_nothing {
        response.headers_mut().remove(hold::MAX_HEADER);
    }
    shared.state().answers.push((path, response.status().as_u16()));
    response
}

fn refused(refusal: Refusal) -> Response {
    let mut response = Response::builder().status(refusal.status);
    for (name, value) in refusal.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(refusal.body)).expect("a refusal has a valid status and valid headers")
}

async fn read(shared: &Shared, request: Request, path: &str) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let unfit = shared.state().unfit.clone();
    let is_unfit = |text: &str, refusal: &Refusal| {
        path.ends_with(refusal.path_suffix) && String::from_utf8_lossy(&body).contains(text)
    };
    match unfit {
        Some((text, refusal)) if is_unfit(&text, &refusal) => refused(refusal),
        _ => pass_on(&shared.behind, head, body).await,
    }
}

async fn pass_on(behind: &str, head: Parts, body: Bytes) -> Response {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    match forward(head.method, format!("http://{behind}{target}"), end_to_end(head.headers), body).await {
        Ok(response) => response,
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn forward(method: Method, url: String, headers: HeaderMap, body: Bytes) -> Result<Response, reqwest::Error> {
    let answer = client().request(method, url).headers(headers).body(body).send().await?;
    let (status, headers) = (answer.status(), end_to_end(answer.headers().clone()));
    let mut response = Response::new(Body::from(answer.bytes().await?));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The headers that are not about one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}
