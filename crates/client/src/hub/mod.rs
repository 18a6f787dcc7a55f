//! The hub of the edge, as people ask it: how far jobs are, which there are, what they print, who works; and that they
//! are not wanted any more (`docs/hub.md`).
//!
//! Out of scope: when it is asked ([`Listener`], the programs).
//!
//! Invariants: what the hub says is a view, and no program stands on it alone: where there is none, or it does not
//! answer, everything goes on without it. That there is none is an answer and no error. Whatever comes as an answer, so
//! much of it is read and no more, nothing waits for ever, and an answer about another job is none.

mod error;
mod events;
mod listener;
mod logs;
mod place;
pub(crate) mod sse;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use protocol::hub::{CancelAnswer, CancelMany, CancelManyAnswer, JobBrief, JobPage, JobStatus, PAGE_MAX, Pools, Sites};
use protocol::link::Stream;
use protocol::{JobId, JobState};
use queues::Unsent;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use transfer::Edge;
use transfer::edge::{self, Problem};

pub use self::error::Error;
pub use self::events::{Event, Events};
pub use self::listener::{Interest, Listener};
pub use self::logs::{LogFollower, LogNews, LogsOf};

/// The longest wait for an answer that the hub has at once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// How much longer than it was asked to hold an answer a hub may take.
const WAIT_GRACE: Duration = Duration::from_secs(15);

/// How long an answer may go on that has no end; what is waited for on the way has bounds of its own.
const ENDLESS: Duration = Duration::from_hours(365 * 24);

/// The largest answer that is read: a page of the most jobs, and the end of what a job has printed, are far smaller.
const ANSWER_BYTES_MAX: usize = 8_000_000;

/// So many jobs are asked for one by one; of more, pages are read.
const SINGLE_MAX: usize = 8;

/// So many of those that no page had are asked for one by one.
const REST_MAX: usize = 100;

/// So many pages of the most jobs are read in search of some.
const SEARCH_PAGES_MAX: usize = 10;

/// What the hub says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// This.
    Known(T),
    /// That it has never heard of the job, or has forgotten it.
    UnknownJob,
    /// There is no hub: the edge is of an earlier version, or has none.
    NoHub,
}

impl<T> Answer<T> {
    /// What it says of something.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(known) => Some(known),
            Self::UnknownJob | Self::NoHub => None,
        }
    }

    /// The same with its content changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Known(known) => Answer::Known(change(known)),
            Self::UnknownJob => Answer::UnknownJob,
            Self::NoHub => Answer::NoHub,
        }
    }
}

/// Which jobs are listed. Without any of these, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states; none: in any.
    pub states: Vec<JobState>,
    /// Of this task.
    pub task: Option<String>,
    /// In this pool.
    pub pool: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// That this job has asked for. Only an edge of this version knows: ask of a job of which it says that it has some.
    pub parent: Option<JobId>,
}

/// The words of several states, as the hub takes them.
pub fn states_text(states: &[JobState]) -> Option<String> {
    let words: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// The hub of an edge.
#[derive(Debug, Clone)]
pub struct Hub {
    http: reqwest::Client,
    edge: Edge,
}

impl Hub {
    /// The hub of this edge, should it have one. `http` is a client for its address.
    pub fn new(http: reqwest::Client, edge: Edge) -> Self {
        Self { http, edge }
    }

    /// A page of jobs, newest first.
    pub async fn jobs(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Answer<JobPage>, Error> {
        let mut url = self.url(&["jobs"]);
        let states = states_text(&filter.states);
        let limit = limit.clamp(1, PAGE_MAX).to_string();
        let fields = [
            ("state", states.as_deref()),
            ("task", filter.task.as_deref()),
            ("pool", filter.pool.as_deref()),
            ("name", filter.name.as_deref()),
            ("parent", filter.parent.as_ref().map(JobId::as_str)),
            ("after", after),
            ("limit", Some(limit.as_str())),
        ];
        // The address of an edge has no query; one that has keeps it.
        url.query_pairs_mut().extend_pairs(fields.iter().filter_map(|(name, value)| Some((name, (*value)?))));
        self.json(self.request(Method::GET, url), ANSWER_PATIENCE).await
    }

    /// Pages of jobs, newest first, until there are so many jobs, or no more. Also says whether there are more.
    pub async fn newest(&self, filter: &Filter, count: usize) -> Result<Answer<(Vec<JobBrief>, bool)>, Error> {
        let mut jobs = Vec::new();
        let mut after: Option<String> = None;
        // A page may have fewer jobs than were asked for. One whose end is where it began would be the same again.
        for _ in 0..count.div_ceil(PAGE_MAX).saturating_mul(4) {
            let page = match self.jobs(filter, after.as_deref(), count - jobs.len()).await? {
                Answer::Known(page) => page,
                Answer::UnknownJob | Answer::NoHub => return Ok(Answer::NoHub),
            };
            jobs.extend(page.jobs);
            let again = page.after == after;
            after = page.after;
            if after.is_none() || again || jobs.len() >= count {
                break;
            }
        }
        let more = after.is_some() || jobs.len() > count;
        jobs.truncate(count);
        Ok(Answer::Known((jobs, more)))
    }

    /// All that is known of a job; with `wait`, when it has ended, or after so long.
    pub async fn job(&self, job_id: &JobId, wait: Option<Duration>) -> Result<Answer<JobStatus>, Error> {
        let mut url = self.url(&["jobs", job_id.as_str()]);
        let patience = match wait {
            Some(wait) => {
                url.query_pairs_mut().append_pair("wait", &wait.as_secs().to_string());
                wait + WAIT_GRACE
            }
            None => ANSWER_PATIENCE,
        };
        let answer: Answer<JobStatus> = self.json(self.request(Method::GET, url), patience).await?;
        if let Answer::Known(status) = &answer {
            self.is_about(job_id, &status.brief.job_id)?;
        }
        Ok(answer)
    }

    /// How far these jobs are, as far as the hub knows.
    pub async fn briefs(&self, wanted: &[JobId]) -> Result<Answer<HashMap<JobId, JobBrief>>, Error> {
        let mut found = HashMap::new();
        let mut missing: HashSet<&JobId> = wanted.iter().collect();
        let mut after: Option<String> = None;
        let pages = if wanted.len() > SINGLE_MAX { SEARCH_PAGES_MAX + 2 * wanted.len().div_ceil(PAGE_MAX) } else { 0 };
        for _ in 0..pages {
            let page = match self.jobs(&Filter::default(), after.as_deref(), PAGE_MAX).await? {
                Answer::Known(page) => page,
                Answer::UnknownJob | Answer::NoHub => return Ok(Answer::NoHub),
            };
            found.extend(page.jobs.into_iter().filter(|job| missing.remove(&job.job_id)).map(by_id));
            let again = page.after == after;
            after = page.after;
            if after.is_none() {
                // These are all that it knows.
                return Ok(Answer::Known(found));
            }
            if missing.is_empty() || again {
                break;
            }
        }
        for job_id in wanted.iter().filter(|job_id| missing.contains(job_id)).take(REST_MAX) {
            match self.job(job_id, None).await? {
                Answer::Known(status) => found.extend([by_id(status.brief)]),
                Answer::UnknownJob => {}
                Answer::NoHub => return Ok(Answer::NoHub),
            }
        }
        Ok(Answer::Known(found))
    }

    /// A job is not wanted any more.
    pub async fn cancel(&self, job_id: &JobId) -> Result<Answer<CancelAnswer>, Error> {
        let request = self.request(Method::POST, self.url(&["jobs", job_id.as_str(), "cancel"]));
        let answer: Answer<CancelAnswer> = self.json(request, ANSWER_PATIENCE).await?;
        if let Answer::Known(cancel) = &answer {
            self.is_about(job_id, &cancel.job_id)?;
        }
        Ok(answer)
    }

    /// Jobs that fit are not wanted any more. When it says that there are more, the same request goes on.
    pub async fn cancel_many(&self, which: &CancelMany) -> Result<Answer<CancelManyAnswer>, Error> {
        let request = self.request(Method::POST, self.url(&["jobs", "cancel"])).json(which);
        self.json(request, ANSWER_PATIENCE).await
    }

    /// The end of what a job has printed on one of its streams.
    pub async fn log(&self, job_id: &JobId, stream: Stream) -> Result<Answer<String>, Error> {
        let mut url = self.url(&["jobs", job_id.as_str(), "logs"]);
        url.query_pairs_mut().append_pair("stream", stream.as_str());
        let answer = self.ask(self.request(Method::GET, url), ANSWER_PATIENCE).await?;
        Ok(answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The pools of all sites.
    pub async fn pools(&self) -> Result<Answer<Pools>, Error> {
        self.json(self.request(Method::GET, self.url(&["pools"])), ANSWER_PATIENCE).await
    }

    /// All sites, and what waits in the queue.
    pub async fn sites(&self) -> Result<Answer<Sites>, Error> {
        self.json(self.request(Method::GET, self.url(&["sites"])), ANSWER_PATIENCE).await
    }

    /// What happens to all jobs, as it does.
    pub async fn events(&self) -> Result<Answer<Events>, Error> {
        let stream = self.stream(self.request(Method::GET, self.url(&["events"]))).await?;
        Ok(stream.map(Events::new))
    }

    fn url(&self, path: &[&str]) -> Url {
        self.edge.below(path.iter().copied()).url().clone()
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        // Bounds of time are set here: the client's own would end what is held open.
        self.http.request(method, url).header(self.edge.key_header, self.edge.key.clone()).timeout(ENDLESS)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder, patience: Duration) -> Result<Answer<T>, Error> {
        Ok(match self.ask(request, patience).await? {
            Answer::Known(bytes) => Answer::Known(serde_json::from_slice(&bytes).map_err(|error| {
                Error::garbage(&format!(
                    "the answer is not the hub's ({error}); it begins: {}",
                    edge::shown(&String::from_utf8_lossy(&bytes))
                ))
            })?),
            Answer::UnknownJob => Answer::UnknownJob,
            Answer::NoHub => Answer::NoHub,
        })
    }

    async fn ask(&self, request: RequestBuilder, patience: Duration) -> Result<Answer<Vec<u8>>, Error> {
        let asked = async {
            let mut response = self.send(request).await?;
            self.whole(&mut response).await
        };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(self.silent(patience)))
    }

    /// An answer that comes in pieces, as server-sent events.
    async fn stream(&self, request: RequestBuilder) -> Result<Answer<sse::Stream>, Error> {
        let opened = async {
            let mut response = self.send(request).await?;
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if response.status().is_success() && kind.starts_with(sse::CONTENT_TYPE) {
                return Ok(Answer::Known(sse::Stream::new(response, self.edge.clone())));
            }
            Ok(match self.whole(&mut response).await? {
                Answer::Known(bytes) => {
                    let begins = edge::shown(&String::from_utf8_lossy(&bytes));
                    return Err(Error::garbage(&format!("the answer is no stream of events; it begins: {begins}")));
                }
                Answer::UnknownJob => Answer::UnknownJob,
                Answer::NoHub => Answer::NoHub,
            })
        };
        tokio::time::timeout(ANSWER_PATIENCE, opened).await.unwrap_or_else(|_| Err(self.silent(ANSWER_PATIENCE)))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        match self.edge.address.check() {
            Ok(()) => {}
            Err(nobody @ Unsent::Nobody { .. }) => {
                return Err(Error::unavailable(self.edge.is_it_right(&nobody.to_string())));
            }
            Err(error) => return Err(Error::Refused(error.to_string())),
        }
        request.send().await.map_err(|error| Error::unavailable(self.edge.no_answer(&error)))
    }

    /// The body of an answer that says something, or what else it means.
    async fn whole(&self, response: &mut Response) -> Result<Answer<Vec<u8>>, Error> {
        let (status, after) = (response.status(), edge::retry_after(response));
        let body = edge::read(response, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| Error::unavailable(self.edge.no_answer(&error)))?;
        understand(&self.edge, status, after, body)
    }

    fn silent(&self, patience: Duration) -> Error {
        Error::unavailable(format!("{} has not answered within {} s", self.edge.address, patience.as_secs()))
    }

    /// Is an answer about the job that was asked for?
    fn is_about(&self, asked: &JobId, told: &JobId) -> Result<(), Error> {
        if asked == told {
            return Ok(());
        }
        Err(Error::garbage(&format!("it was asked for the job {asked} and answers of {told}")))
    }
}

fn by_id(job: JobBrief) -> (JobId, JobBrief) {
    (job.job_id.clone(), job)
}

fn understand(
    edge: &Edge,
    status: StatusCode,
    after: Option<Duration>,
    body: Vec<u8>,
) -> Result<Answer<Vec<u8>>, Error> {
    if status.is_success() {
        return Ok(Answer::Known(body));
    }
    let text = String::from_utf8_lossy(&body);
    let problem = Problem::read(&text);
    let code = problem.as_ref().and_then(|problem| problem.code.as_deref());
    match (status.as_u16(), code) {
        (404, Some("unknown_job")) => return Ok(Answer::UnknownJob),
        // An edge of an earlier version has nothing there, or takes only submissions.
        (501 | 405, _) | (404, None | Some("not_found")) => return Ok(Answer::NoHub),
        _ => {}
    }
    let what = match &problem {
        Some(problem) => problem.said(status),
        None => edge.answered_by_another(status, &text),
    };
    if problem.is_some() && matches!(status.as_u16(), 401 | 403) {
        let key = &edge.key_origin;
        return Err(Error::Refused(format!("{what}; check {key}: it must be the one that the edge was given")));
    }
    if status == StatusCode::NOT_FOUND {
        return Err(Error::NotThere(what));
    }
    if edge::may_pass(status, problem.as_ref()) {
        Err(Error::Unavailable { what, after })
    } else {
        Err(Error::Refused(what))
    }
}

#[cfg(test)]
mod tests {
    use queues::PlainHttp;
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn that_there_is_no_hub_is_an_answer_and_a_wrong_key_is_none() {
        let edge = Edge {
            address: Edge::address("https://edge.test", PlainHttp::default()).unwrap(),
            key_header: "x-api-key",
            key: HeaderValue::from_static("key"),
            key_origin: "API_KEY from .env line 3".to_owned(),
            setting: "PRODUCER_URL",
        };
        let understood = |status: u16, body: &str| match understand(
            &edge,
            StatusCode::from_u16(status).unwrap(),
            None,
            body.as_bytes().to_vec(),
        ) {
            Ok(Answer::Known(_)) => "known".to_owned(),
            Ok(Answer::UnknownJob) => "unknown job".to_owned(),
            Ok(Answer::NoHub) => "no hub".to_owned(),
            Err(Error::Refused(what)) => format!("refused: {what}"),
            Err(Error::NotThere(what)) => format!("not there: {what}"),
            Err(Error::Unavailable { what, .. }) => format!("later: {what}"),
        };
        for (status, body, says) in [
            (200, "{}", "known"),
            (202, "{}", "known"),
            (404, r#"{"code":"unknown_job","detail":"never heard of it"}"#, "unknown job"),
            (501, r#"{"code":"no_hub","detail":"this edge has no hub"}"#, "no hub"),
            (404, r#"{"code":"not_found","detail":"there is nothing here"}"#, "no hub"),
            (405, r#"{"code":"method_not_allowed","detail":"this path takes POST"}"#, "no hub"),
            (404, "<html>nothing</html>", "no hub"),
            (
                404,
                r#"{"code":"no_logs","detail":"nothing that it printed is here"}"#,
                "not there: nothing that it printed",
            ),
            (
                401,
                r#"{"code":"unauthorized","detail":"wrong"}"#,
                "refused: wrong (401 unauthorized); check API_KEY from",
            ),
            (403, "<html>login</html>", "refused: HTTP status 403, and not in the words of the edge"),
            (422, r#"{"code":"invalid_job","detail":"`state`: odd","field":"state"}"#, "refused: `state`: odd (422"),
            (429, r#"{"code":"busy","detail":"too much"}"#, "later: too much"),
            (503, "", "later: HTTP status 503"),
            (503, r#"{"code":"not_configured","detail":"no key","retryable":false}"#, "refused: no key"),
        ] {
            let told = understood(status, body);
            assert!(told.starts_with(says), "{status} {body}: {told}");
        }
    }

    #[test]
    fn states_are_asked_for_together() {
        assert_eq!(states_text(&[]), None);
        assert_eq!(states_text(&[JobState::Held, JobState::Running]).as_deref(), Some("held,running"));
    }
}
