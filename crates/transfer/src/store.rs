//! The store, as it is reached: the edge with its key, and the addresses that it hands out without.
//!
//! Guarded: the key goes to the edge alone. Where an address leads that the edge has handed out is bound by the same
//! rule as the key ([`queues::PlainHttp`]), for who reads a request on its way can have the file.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::JobId;
use protocol::files::JobFiles;
use queues::{Address, Unsent};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use crate::clocks::Times;
use crate::edge::{self, Edge, Problem};
use crate::error::{Class, Error};

/// For how long nothing may go on before a call gives up, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest wait for an answer of the edge: it may ask the store, which puts thousands of parts together.
const EDGE_PATIENCE: Duration = Duration::from_secs(120);

/// The largest answer of the edge that is read: a thousand addresses, and ten thousand parts.
const ANSWER_BYTES_MAX: usize = 8_000_000;

/// How much of a refusal of a store is read.
const REFUSAL_BYTES_MAX: usize = 8_000;

/// For how long a connection may stand still.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Bounds of time are set by what goes on, and not by how long it takes.
pub(crate) const ENDLESS: Duration = Duration::from_hours(365 * 24);

/// The store of files behind an edge.
#[derive(Debug, Clone)]
pub struct Store {
    http: Client,
    pub(crate) edge: Edge,
    pub(crate) patience: Duration,
    /// Where the store was reached last, if that is not the edge.
    elsewhere: Arc<Mutex<Option<(Address, Client)>>>,
}

/// An answer of the edge that says no.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error: Error,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// Where something is put or had.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) url: Url,
    client: Client,
    /// When the edge has handed it out.
    since: Instant,
}

impl Target {
    pub(crate) fn request(&self, method: Method) -> RequestBuilder {
        self.client.request(method, self.url.clone()).timeout(ENDLESS)
    }

    /// May something be sent there now?
    pub(crate) fn checked(&self) -> Result<(), Error> {
        match self.address.check() {
            Ok(()) => Ok(()),
            Err(nobody @ Unsent::Nobody { .. }) => Err(Error::away(nobody.to_string())),
            Err(error) => Err(Error::new(Class::Refused, error.to_string())),
        }
    }

    /// Why there is no answer.
    pub(crate) fn no_answer(&self, error: &reqwest::Error) -> Error {
        Error::away(queues::transport_text(&self.address, error))
    }

    /// What the store has said in its refusal, and what clocks have to do with it.
    pub(crate) async fn words(&self, response: &mut Response) -> String {
        let date = response.headers().get(DATE).and_then(|date| Some(date.to_str().ok()?.to_owned()));
        let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let said = words(response).await;
        let times = date.filter(|_| refused).and_then(|date| {
            Times::read(&self.url, &date, self.since.elapsed(), protocol::Timestamp::now())
                .and_then(|times| times.told())
        });
        times.map_or_else(|| said.clone(), |times| format!("{said} ({times})"))
    }

    pub(crate) fn stalled(&self) -> Error {
        Error::away(format!("{} has taken and given nothing for {} s", self.address, STALLED_AFTER.as_secs()))
    }
}

impl Store {
    /// The store of this edge, should it have one. `http` is a client for its address ([`queues::http_client`]).
    pub fn new(http: Client, edge: Edge) -> Self {
        Self { http, edge, patience: PATIENCE, elsewhere: Arc::default() }
    }

    /// For how long a call tries again while nothing goes on. What it has done by then stays, and the next call goes on
    /// with it.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The files that a job has left, and those of them that the store keeps no more; none while it has no result. For
    /// the key of people alone.
    pub async fn job_files(&self, job_id: &JobId) -> Result<JobFiles, Error> {
        let (_, answer) = self.ask(Method::GET, &["jobs", job_id.as_str(), "files"], None).await?;
        self.understood(&answer)
    }

    /// Where a content can be had for a while; [`Class::Gone`] if it is not there.
    pub(crate) async fn where_is(&self, sha256: &str) -> Result<Target, Error> {
        let (headers, _) = self.ask(Method::GET, &["files", sha256], None).await?;
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or_else(|| self.garbage("it does not say where the content is"))?;
        self.target(location)
    }

    /// An address that the edge has handed out.
    pub(crate) fn target(&self, url: &str) -> Result<Target, Error> {
        let refused = |problem: String| {
            Error::new(Class::Refused, format!("the edge names an address of the store that is not used: {problem}"))
        };
        let address = self.edge.address.elsewhere(url).map_err(|error| refused(error.to_string()))?;
        let url = address.url().clone();
        let client = if url.origin() == self.edge.address.url().origin() {
            self.http.clone()
        } else {
            self.client_of(&address)?
        };
        let target = Target { address, url, client, since: Instant::now() };
        target.checked()?;
        Ok(target)
    }

    fn client_of(&self, address: &Address) -> Result<Client, Error> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*elsewhere
            && known.url().origin() == address.url().origin()
        {
            return Ok(client.clone());
        }
        let client = queues::http_client(address);
        let client = client.map_err(|error| Error::local(format!("cannot set up HTTPS: {error}")))?;
        *elsewhere = Some((address.clone(), client.clone()));
        Ok(client)
    }

    /// Asks the edge; an answer that leads elsewhere is one.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<String>,
    ) -> Result<(HeaderMap, Vec<u8>), Refusal> {
        let passing = |error: Error| Refusal { status: 0, error };
        match self.edge.address.check() {
            Ok(()) => {}
            Err(nobody @ Unsent::Nobody { .. }) => {
                return Err(passing(Error::away(self.edge.is_it_right(&nobody.to_string()))));
            }
            Err(error) => return Err(passing(Error::new(Class::Refused, error.to_string()))),
        }
        let url = self.edge.below(path.iter().copied()).url().clone();
        let mut request = self.http.request(method, url).header(self.edge.key_header, self.edge.key.clone());
        request = request.timeout(EDGE_PATIENCE);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let no_answer = |error: reqwest::Error| passing(Error::away(self.edge.no_answer(&error)));
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, after) = (response.status(), edge::retry_after(&response));
        let headers = std::mem::take(response.headers_mut());
        let answer = edge::read(&mut response, ANSWER_BYTES_MAX).await.map_err(no_answer)?;
        if status.is_success() || status == StatusCode::FOUND {
            return Ok((headers, answer));
        }
        let error = refused(&self.edge, status, &String::from_utf8_lossy(&answer)).wanting(after);
        Err(Refusal { status: status.as_u16(), error })
    }

    pub(crate) fn understood<T: serde::de::DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(answer).map_err(|error| self.garbage(&format!("its answer cannot be read ({error})")))
    }

    /// Of an answer that cannot be the edge's.
    pub(crate) fn garbage(&self, what: &str) -> Error {
        let setting = self.edge.setting;
        Error::away(format!(
            "the edge at {}: {what}; is {setting} its address, or does a proxy answer in its place?",
            self.edge.address
        ))
    }
}

/// What follows from an answer of the edge that says no.
fn refused(edge: &Edge, status: StatusCode, answer: &str) -> Error {
    let problem = Problem::read(answer);
    let code = problem.as_ref().and_then(|problem| problem.code.as_deref());
    let said = match &problem {
        Some(problem) => problem.said(status),
        None => edge.answered_by_another(status, answer),
    };
    let class = match (status.as_u16(), code) {
        (404, Some("unknown_file" | "unknown_job")) => Class::Gone,
        // An edge of an earlier version knows nothing of files.
        (501 | 405, _) | (404, None | Some("not_found")) => Class::NoStore,
        (401 | 403, Some(_)) => {
            let key = &edge.key_origin;
            return Error::new(
                Class::Denied,
                format!("{said}; check {key}: it must be the one that the edge was given"),
            );
        }
        (401 | 403, None) => Class::Denied,
        // There it counts what the holders of a key have; older contents go by themselves, but not soon.
        (507, Some(_)) => Class::Refused,
        _ if edge::may_pass(status, problem.as_ref()) => Class::Away,
        _ => Class::Refused,
    };
    let what = match (class, code) {
        (Class::NoStore, Some("no_files")) | (Class::Gone, _) => said,
        (Class::NoStore, _) => format!("the edge at {} has no store of files: {said}", edge.address),
        _ => format!("the edge at {} says: {said}", edge.address),
    };
    Error::new(class, what)
}

/// What a store has said in its refusal, in short.
async fn words(response: &mut Response) -> String {
    let read = tokio::time::timeout(STALLED_AFTER, edge::read(response, REFUSAL_BYTES_MAX)).await;
    let body = read.ok().and_then(Result::ok).unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let element = |name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (_, rest) = body.split_once(&open)?;
        Some(rest.split_once(&close)?.0.to_owned())
    };
    let said = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => edge::shown(&body),
    };
    format!("{} {}", response.status().as_u16(), edge::shown(&said))
}

#[cfg(test)]
mod tests {
    use queues::PlainHttp;
    use reqwest::header::HeaderValue;

    use super::*;

    fn store(url: &str) -> Store {
        let address = Edge::address(url, PlainHttp::default()).unwrap();
        let edge = Edge {
            address: address.clone(),
            key_header: "x-api-key",
            key: HeaderValue::from_static("key"),
            key_origin: "API_KEY from .env line 3".to_owned(),
            setting: "PRODUCER_URL",
        };
        Store::new(queues::http_client(&address).unwrap(), edge)
    }

    #[test]
    fn refusals_of_the_edge_are_told_apart_by_what_to_do() {
        for (status, answer, class, says) in [
            (
                501,
                r#"{"code":"no_files","detail":"this edge has no store of files"}"#,
                Class::NoStore,
                "this edge has no",
            ),
            (404, r#"{"code":"not_found","detail":"nothing here"}"#, Class::NoStore, "has no store of files"),
            (405, "", Class::NoStore, "has no store of files"),
            (404, r#"{"code":"unknown_file","detail":"it has expired"}"#, Class::Gone, "it has expired"),
            (401, r#"{"code":"unauthorized","detail":"wrong"}"#, Class::Denied, "check API_KEY from .env line 3"),
            (403, "<html>login</html>", Class::Denied, "not in the words of the edge"),
            (507, r#"{"code":"files_full","detail":"no room"}"#, Class::Refused, "no room"),
            (503, r#"{"code":"store_unavailable","detail":"away","retryable":true}"#, Class::Away, "away"),
            (502, "<html>", Class::Away, "HTTP status 502"),
            (422, r#"{"code":"x","detail":"odd"}"#, Class::Refused, "odd"),
        ] {
            let edge = store("https://edge.test").edge;
            let error = refused(&edge, StatusCode::from_u16(status).unwrap(), answer);
            assert_eq!(error.class(), class, "{status} {answer}");
            assert!(error.to_string().contains(says), "{status}: {error}");
        }
    }

    #[test]
    fn the_edge_leads_nobody_to_where_the_key_would_not_go() {
        let far = store("https://edge.test/base");
        assert!(far.target("https://store.test/x?y=z").is_ok());
        assert_eq!(far.target("https://edge.test/s3/files/x").unwrap().url.path(), "/s3/files/x");
        for url in ["http://store.test/x", "http://127.0.0.1:1/x", "unix:/run/socket", "file:///etc/passwd", "x", "/x"]
        {
            let error = far.target(url).err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(error.class(), Class::Refused, "{url}: {error}");
        }
        let here = store("http://127.0.0.1:1");
        assert_eq!(here.target("http://127.0.0.1:1/x").err().unwrap().class(), Class::Away, "nobody is there");
    }
}
