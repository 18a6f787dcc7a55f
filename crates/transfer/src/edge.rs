//! The edge, as every request to it needs it: where it is, the key, and how its answers are read.
//!
//! Invariant: however large an answer is, only so much of it is read; and no text from it is longer than a person
//! reads.

use std::time::Duration;

use queues::{Address, PlainHttp, UnusableUrl};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

/// How much of an answer that is not the edge's is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// Where jobs are submitted, followed and canceled, and where the store of files is asked for.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The address, which all paths are below.
    pub address: Address,
    /// The header with the key: that of people, `x-api-key`, or that of sites, `x-site-key`.
    pub key_header: &'static str,
    /// Its value, marked as a secret.
    pub key: HeaderValue,
    /// Where the key comes from, for whoever reads that it was refused: `API_KEY from .env line 3`.
    pub key_origin: String,
    /// The setting that names the address: `PRODUCER_URL`, say.
    pub setting: &'static str,
}

impl Edge {
    /// The address of an edge, as a setting names it.
    pub fn address(base_url: &str, plain_http: PlainHttp) -> Result<Address, UnusableUrl> {
        Address::parse(base_url, "", plain_http)
    }

    /// The address of something below it.
    pub fn below<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Address {
        self.address.clone().below(names)
    }

    /// Why there is no answer, or no whole one.
    pub fn no_answer(&self, error: &reqwest::Error) -> String {
        self.is_it_right(&queues::transport_text(&self.address, error))
    }

    /// What is wrong, and what may be the reason.
    pub fn is_it_right(&self, what: &str) -> String {
        format!("{what}; is it running, and is {} right?", self.setting)
    }

    /// Of an answer that is not in the words of the edge.
    pub fn answered_by_another(&self, status: StatusCode, answer: &str) -> String {
        format!(
            "HTTP status {}, and not in the words of the edge; is {} its address, or does a proxy answer in its place? It \
             said: {}",
            status.as_u16(),
            self.setting,
            shown(answer)
        )
    }
}

/// The body of a refusal (RFC 9457), as far as it is of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Its code, by which a program knows it.
    pub code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    /// The field of the request that it is about.
    pub field: Option<String>,
    retryable: Option<bool>,
}

impl Problem {
    /// The refusal that is in an answer, if it is the edge's.
    pub fn read(answer: &str) -> Option<Self> {
        let problem: Self = serde_json::from_str(answer).ok()?;
        (problem.code.is_some() || problem.detail.is_some()).then_some(problem)
    }

    /// What it says, with its codes.
    pub fn said(&self, status: StatusCode) -> String {
        let detail = self.detail.as_deref().or(self.title.as_deref()).unwrap_or("it does not say why");
        let field = self.field.as_ref().map(|field| format!("; field: {field}")).unwrap_or_default();
        format!("{detail} ({} {}){field}", status.as_u16(), self.code.as_deref().unwrap_or("no code"))
    }
}

/// Would the same request, sent again, do? The edge knows best: a 503 of one that is not set up will not pass.
pub fn may_pass(status: StatusCode, problem: Option<&Problem>) -> bool {
    let is_passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    problem.and_then(|problem| problem.retryable).unwrap_or(is_passing)
}

/// The answer, up to the largest that is read; a larger one is cut, and then is not understood.
pub async fn read(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut answer = Vec::new();
    while answer.len() < bytes_max
        && let Some(chunk) = response.chunk().await?
    {
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// When the edge wants to be asked again.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The beginning of a text.
pub fn shown(text: &str) -> String {
    let start: String = text.trim().chars().take(SHOWN_CHARS_MAX).collect();
    if start.is_empty() { "nothing".to_owned() } else { start }
}
