//! `POST /jobs` and `POST /jobs/batch`: a submission, sent until it is answered or patience ends.
//!
//! Invariant: every try carries the same idempotency keys and the same bytes, so however often it arrives each job is
//! one.

use std::time::Duration;

use protocol::{JobId, JobSpec, Json};
use queues::{Backoff, Unsent};
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};

use transfer::Edge;
use transfer::edge::{Problem, may_pass, read, retry_after, shown};

use crate::error::Remedy;

/// How often a submission is sent.
const TRIES_MAX: u32 = 5;

/// The longest pause between two tries. An edge that asks for a longer one is not waited for: a person is waiting.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1_000_000;

/// Why a job is not in the queue, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The edge refused it, and would again.
    #[error("{0}")]
    Refused(String),
    /// It was not answered as it should be. It may be in the queue all the same.
    #[error(
        "gave up after {tried}: {what}{end} Submit it later with --idempotency-key '{idempotency_key}': if the job is \
         in the queue already, it stays one job",
        tried = tried(*tries),
        end = if what.ends_with('?') { "" } else { "." }
    )]
    GaveUp {
        /// How often it was sent.
        tries: u32,
        /// What the last answer was.
        what: String,
        /// With this key a later try is still the same job.
        idempotency_key: String,
    },
    /// Several jobs were not answered as they should be. They may be in the queue all the same.
    #[error("gave up after {}: {what}", tried(*tries))]
    GaveUpBatch {
        /// How often they were sent.
        tries: u32,
        /// What the last answer was.
        what: String,
    },
}

fn tried(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }
}

impl Error {
    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused(_) => Remedy::Unexpected,
            Self::GaveUp { .. } | Self::GaveUpBatch { .. } => Remedy::TryLater,
        }
    }
}

/// A job that is in the queue.
#[derive(Debug)]
pub struct Queued {
    /// Its id.
    pub job_id: JobId,
    /// The whole answer.
    pub answer: Json,
}

/// What became of one job of several.
#[derive(Debug)]
pub enum Taken {
    /// It is in the queue.
    Queued(Queued),
    /// The edge refused it, and would again: why.
    Refused(String),
}

/// What became of one try.
enum Try<T> {
    Done(T),
    /// The same request would be refused again.
    Refused(String),
    /// It may succeed later, at the earliest after the pause that the edge names.
    Later(String, Option<Duration>),
}

/// How often a request was sent, and what the last answer was.
enum End {
    Refused(String),
    GaveUp(u32, String),
}

/// An answer, whatever it says.
struct Answer {
    status: StatusCode,
    after: Option<Duration>,
    body: Vec<u8>,
}

/// Submits a job. `idempotency_key` has been checked.
pub async fn submit(
    http: &reqwest::Client,
    edge: &Edge,
    job: &JobSpec,
    idempotency_key: &str,
) -> Result<Queued, Error> {
    let body = serde_json::to_string(job).expect("a job holds only strings, numbers and JSON");
    let request = http
        .post(edge.below(["jobs"]).url().clone())
        .header("idempotency-key", idempotency_key)
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    let queued = until_answered(edge, request, "the job is", |answer| understand(edge, answer)).await;
    queued.map_err(|end| match end {
        End::Refused(what) => Error::Refused(what),
        End::GaveUp(tries, what) => Error::GaveUp { tries, what, idempotency_key: idempotency_key.to_owned() },
    })
}

/// Submits several jobs at once, each with an idempotency key of its own, and says what became of each, in their order.
/// There are no more of them, and they have no more bytes, than the edge takes at once.
pub async fn submit_batch(http: &reqwest::Client, edge: &Edge, jobs: &[JobSpec]) -> Result<Vec<Taken>, Error> {
    #[derive(Serialize)]
    struct Batch<'a> {
        jobs: &'a [JobSpec],
    }
    let body = serde_json::to_string(&Batch { jobs }).expect("a job holds only strings, numbers and JSON");
    let request =
        http.post(edge.below(["jobs", "batch"]).url().clone()).header(CONTENT_TYPE, "application/json").body(body);
    let what = "some jobs are";
    let taken = until_answered(edge, request, what, |answer| understand_batch(edge, answer, jobs.len())).await;
    taken.map_err(|end| match end {
        End::Refused(what) => Error::Refused(what),
        End::GaveUp(tries, what) => Error::GaveUpBatch { tries, what },
    })
}

/// Sends a request until it is answered as it should be, or patience ends.
async fn until_answered<T>(
    edge: &Edge,
    request: RequestBuilder,
    what_is: &str,
    understand: impl Fn(&Answer) -> Try<T>,
) -> Result<T, End> {
    let request = request.header(edge.key_header, edge.key.clone());
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
    let mut tries = 0;
    loop {
        tries += 1;
        let again = request.try_clone().expect("its body is text");
        let answered = match send(edge, again).await {
            Try::Done(answer) => understand(&answer),
            Try::Refused(what) => Try::Refused(what),
            Try::Later(what, after) => Try::Later(what, after),
        };
        let (what, after) = match answered {
            Try::Done(done) => return Ok(done),
            Try::Refused(what) => return Err(End::Refused(what)),
            Try::Later(what, after) => (what, after),
        };
        let pause = after.unwrap_or_else(|| backoff.pause());
        if tries == TRIES_MAX || pause > PAUSE_MAX {
            return Err(End::GaveUp(tries, what));
        }
        tracing::warn!("{what_is} sent again in {:.1} s: {what}", pause.as_secs_f64());
        tokio::time::sleep(pause).await;
    }
}

async fn send(edge: &Edge, request: RequestBuilder) -> Try<Answer> {
    match edge.address.check() {
        Ok(()) => {}
        Err(nobody @ Unsent::Nobody { .. }) => return Try::Later(edge.is_it_right(&nobody.to_string()), None),
        Err(error) => return Try::Refused(error.to_string()),
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Try::Later(edge.no_answer(&error), None),
    };
    let (status, after) = (response.status(), retry_after(&response));
    match read(&mut response, ANSWER_BYTES_MAX).await {
        Ok(body) => Try::Done(Answer { status, after, body }),
        Err(error) => Try::Later(edge.no_answer(&error), None),
    }
}

fn understand(edge: &Edge, answer: &Answer) -> Try<Queued> {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status.is_success() {
        return match Json::parse(&text).and_then(queued) {
            Ok(queued) => Try::Done(queued),
            Err(error) => Try::Refused(format!(
                "HTTP status {} without a job id ({error}); is PRODUCER_URL the address of the edge? It said: {}",
                answer.status.as_u16(),
                shown(&text)
            )),
        };
    }
    refused(edge, answer, &text)
}

/// What the edge says of a job that it has taken.
fn queued(answer: Json) -> Result<Queued, serde_json::Error> {
    #[derive(Deserialize)]
    struct Accepted {
        job_id: JobId,
    }
    let Accepted { job_id } = answer.read()?;
    Ok(Queued { job_id, answer })
}

/// The edge says of each job whether it has taken it; when it has taken none, with the status of a refusal.
fn understand_batch(edge: &Edge, answer: &Answer, count: usize) -> Try<Vec<Taken>> {
    #[derive(Deserialize)]
    struct Several {
        jobs: Vec<Json>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        problem: Problem,
    }
    let text = String::from_utf8_lossy(&answer.body);
    let of_one = |answer: Json| match answer.read::<Refusal>() {
        Ok(Refusal { problem }) => Ok(Taken::Refused(refusal(edge, StatusCode::UNPROCESSABLE_ENTITY, &problem))),
        Err(_) => queued(answer).map(Taken::Queued),
    };
    let taken = serde_json::from_str(&text)
        .and_then(|Several { jobs }| jobs.into_iter().map(of_one).collect::<Result<Vec<_>, _>>());
    match taken {
        Ok(taken) if taken.len() == count => Try::Done(taken),
        Ok(taken) => Try::Refused(format!("the edge was sent {count} jobs, and answers of {}", taken.len())),
        Err(error) if answer.status.is_success() => Try::Refused(format!(
            "HTTP status {} without ids of jobs ({error}); is PRODUCER_URL the address of the edge? It said: {}",
            answer.status.as_u16(),
            shown(&text)
        )),
        Err(_) => refused(edge, answer, &text),
    }
}

fn refused<T>(edge: &Edge, answer: &Answer, text: &str) -> Try<T> {
    let problem = Problem::read(text);
    let what = match &problem {
        Some(problem) => refusal(edge, answer.status, problem),
        None => edge.answered_by_another(answer.status, text),
    };
    let later = may_pass(answer.status, problem.as_ref());
    if later { Try::Later(what, answer.after) } else { Try::Refused(what) }
}

/// A refusal in one sentence, with what to do about it.
fn refusal(edge: &Edge, status: StatusCode, problem: &Problem) -> String {
    let text = format!("the edge refused the job: {}", problem.said(status));
    let hint = match (status.as_u16(), problem.code.as_deref()) {
        (401 | 403, _) => {
            let key = &edge.key_origin;
            return format!("{text}; check {key}: it must be the one that the edge was given");
        }
        (404 | 405, _) => "check PRODUCER_URL: it is the address of the edge, without /jobs",
        (413, _) => "put large input where the cluster can read it, and submit its path",
        (_, Some("invalid_job")) => "`laptop-consumer submit --help` shows what a job takes",
        _ => return text,
    };
    format!("{text}; {hint}")
}

#[cfg(test)]
mod tests {
    use queues::PlainHttp;
    use reqwest::header::HeaderValue;

    use super::*;

    fn edge() -> Edge {
        Edge {
            address: Edge::address("https://edge.test", PlainHttp::default()).unwrap(),
            key_header: "x-api-key",
            key: HeaderValue::from_static("key"),
            key_origin: "API_KEY from .env line 3".to_owned(),
            setting: "PRODUCER_URL",
        }
    }

    fn answered(status: u16, answer: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), after: None, body: answer.as_bytes().to_vec() }
    }

    fn understood(status: u16, answer: &str) -> (&'static str, String) {
        match understand(&edge(), &answered(status, answer)) {
            Try::Done(queued) => ("queued", queued.job_id.to_string()),
            Try::Refused(what) => ("refused", what),
            Try::Later(what, _) => ("later", what),
        }
    }

    #[test]
    fn answers_are_told_apart_by_what_to_do() {
        let invalid = r#"{"code":"invalid_job","detail":"`task` is missing","field":"task","retryable":false}"#;
        let full = r#"{"code":"queue_full","detail":"the queue is full","retryable":true}"#;
        let not_set_up = r#"{"code":"not_configured","detail":"no API_KEY yet","retryable":false}"#;
        for (status, answer, outcome, says) in [
            (202, r#"{"status":"queued","job_id":"j1","queue":"hpc-jobs"}"#, "queued", "j1"),
            (202, "{}", "refused", "PRODUCER_URL"),
            (200, "<html>Welcome</html>", "refused", "<html>Welcome</html>"),
            (202, r#"{"job_id":"../x"}"#, "refused", "without a job id"),
            (302, "", "refused", "PRODUCER_URL"),
            (
                422,
                invalid,
                "refused",
                "`task` is missing (422 invalid_job); field: task; `laptop-consumer submit --help`",
            ),
            (401, r#"{"code":"unauthorized","detail":"wrong key"}"#, "refused", "check API_KEY from .env line 3: "),
            (404, r#"{"code":"not_found","detail":"nothing here"}"#, "refused", "without /jobs"),
            (413, r#"{"code":"message_too_large","detail":"too large"}"#, "refused", "submit its path"),
            (429, full, "later", "the queue is full"),
            (429, "", "later", "said: nothing"),
            (503, not_set_up, "refused", "no API_KEY yet"),
            (502, "<html>Bad gateway</html>", "later", "a proxy"),
            (500, "[]", "later", "HTTP status 500"),
        ] {
            let (what, text) = understood(status, answer);
            assert_eq!(what, outcome, "{status} {answer}");
            assert!(text.contains(says), "{status} {answer}: {text}");
        }
    }

    #[test]
    fn each_job_of_several_is_taken_or_refused() {
        let told = |status: u16, answer: &str| match understand_batch(&edge(), &answered(status, answer), 2) {
            Try::Done(taken) => taken
                .into_iter()
                .map(|taken| match taken {
                    Taken::Queued(queued) => queued.job_id.to_string(),
                    Taken::Refused(what) => what,
                })
                .collect::<Vec<_>>()
                .join(" | "),
            Try::Refused(what) => format!("refused: {what}"),
            Try::Later(what, _) => format!("later: {what}"),
        };
        let queued = r#"{"status":"queued","job_id":"j1","queue":"hpc-jobs"}"#;
        let refused = r#"{"status":"refused","problem":{"code":"invalid_job","detail":"too odd","status":422}}"#;
        let jobs = |jobs: &[&str]| format!(r#"{{"jobs":[{}]}}"#, jobs.join(","));
        let hint = "the edge refused the job: too odd (422 invalid_job); `laptop-consumer submit --help`";
        let both = told(202, &jobs(&[queued, refused]));
        assert!(both.starts_with("j1 | ") && both.contains(hint), "{both}");
        assert!(told(422, &jobs(&[refused, refused])).matches(hint).count() == 2);
        for (status, answer, says) in [
            (202, jobs(&[queued]), "refused: the edge was sent 2 jobs, and answers of 1"),
            (202, jobs(&[queued, "{}"]), "refused: HTTP status 202 without ids of jobs"),
            (200, "<html>".to_owned(), "refused: HTTP status 200 without ids of jobs"),
            (401, r#"{"code":"unauthorized","detail":"wrong key"}"#.to_owned(), "check API_KEY from .env line 3: "),
            (429, r#"{"code":"queue_full","detail":"full","retryable":true}"#.to_owned(), "later: "),
            (502, String::new(), "later: "),
        ] {
            let text = told(status, &answer);
            assert!(text.contains(says), "{status} {answer}: {text}");
        }
    }

    /// The status stands in the name of a file, since it travels outside of the body.
    #[test]
    fn answers_of_every_version_are_understood() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/wire/answer");
        let expected = [
            ("1-202-queued", "queued", "01010101-0101-4101-8101-010101010101"),
            ("1-401-unauthorized", "refused", "check API_KEY"),
            ("1-413-message-too-large", "refused", "the limit is 127900 (413 message_too_large)"),
            ("1-422-invalid-job", "refused", "field: task"),
            ("1-429-allowance", "later", "until 2026-11-22T00:00:00Z"),
            ("1-429-queue-full", "later", "the queue takes no more for now"),
            ("1-503-not-configured", "refused", "this edge has no API_KEY yet"),
            ("original-202-queued", "queued", "agile-codon-3fa2c1"),
            ("original-401-unauthorized", "refused", r#"{"error":"unauthorized"}"#),
        ];
        let mut files: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".json").to_owned())
            .collect();
        files.sort();
        assert_eq!(files, expected.map(|(file, ..)| file), "files, and what this test says of them");
        for (file, outcome, says) in expected {
            let answer = std::fs::read_to_string(directory.join(file).with_extension("json")).unwrap();
            let status = file.split('-').nth(1).and_then(|status| status.parse().ok()).unwrap();
            let (what, text) = understood(status, &answer);
            assert_eq!(what, outcome, "{file}: {text}");
            assert!(text.contains(says), "{file}: {text}");
        }
    }
}
