//! `POST /jobs`: one submission, sent until it is answered or patience ends.
//!
//! Invariant: every try carries the same idempotency key and the same bytes, so however often it arrives it is one job.

use std::time::Duration;

use protocol::{JobId, JobSpec, Json};
use queues::{Backoff, Unsent};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

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
        tried = if *tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") },
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
}

impl Error {
    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused(_) => Remedy::Unexpected,
            Self::GaveUp { .. } => Remedy::TryLater,
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

/// What became of one try.
enum Try {
    Queued(Queued),
    /// The same request would be refused again.
    Refused(String),
    /// It may succeed later, at the earliest after the pause that the edge names.
    Later(String, Option<Duration>),
}

/// Submits a job. `idempotency_key` has been checked.
pub async fn submit(
    http: &reqwest::Client,
    edge: &Edge,
    job: &JobSpec,
    idempotency_key: &str,
) -> Result<Queued, Error> {
    let body = serde_json::to_string(job).expect("a job holds only strings, numbers and JSON");
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
    let mut tries = 0;
    loop {
        tries += 1;
        let (what, after) = match send(http, edge, &body, idempotency_key).await {
            Try::Queued(queued) => return Ok(queued),
            Try::Refused(what) => return Err(Error::Refused(what)),
            Try::Later(what, after) => (what, after),
        };
        let pause = after.unwrap_or_else(|| backoff.pause());
        if tries == TRIES_MAX || pause > PAUSE_MAX {
            return Err(Error::GaveUp { tries, what, idempotency_key: idempotency_key.to_owned() });
        }
        tracing::warn!("the job is sent again in {:.1} s: {what}", pause.as_secs_f64());
        tokio::time::sleep(pause).await;
    }
}

async fn send(http: &reqwest::Client, edge: &Edge, body: &str, idempotency_key: &str) -> Try {
    match edge.address.check() {
        Ok(()) => {}
        Err(nobody @ Unsent::Nobody { .. }) => return Try::Later(edge.is_it_right(&nobody.to_string()), None),
        Err(error) => return Try::Refused(error.to_string()),
    }
    let request = http
        .post(edge.below(["jobs"]).url().clone())
        .header(CONTENT_TYPE, "application/json")
        .header(edge.key_header, edge.key.clone())
        .header("idempotency-key", idempotency_key)
        .body(body.to_owned());
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Try::Later(edge.no_answer(&error), None),
    };
    let (status, after) = (response.status(), retry_after(&response));
    match read(&mut response, ANSWER_BYTES_MAX).await {
        Ok(answer) => understand(edge, status, after, &answer),
        Err(error) => Try::Later(edge.no_answer(&error), None),
    }
}

fn understand(edge: &Edge, status: StatusCode, after: Option<Duration>, answer: &[u8]) -> Try {
    #[derive(Deserialize)]
    struct Accepted {
        job_id: JobId,
    }
    let text = String::from_utf8_lossy(answer);
    if status.is_success() {
        let queued = Json::parse(&text).and_then(|answer| {
            let Accepted { job_id } = answer.read()?;
            Ok(Queued { job_id, answer })
        });
        return match queued {
            Ok(queued) => Try::Queued(queued),
            Err(error) => Try::Refused(format!(
                "HTTP status {} without a job id ({error}); is PRODUCER_URL the address of the edge? It said: {}",
                status.as_u16(),
                shown(&text)
            )),
        };
    }
    let problem = Problem::read(&text);
    let what = match &problem {
        Some(problem) => refusal(edge, status, problem),
        None => edge.answered_by_another(status, &text),
    };
    if may_pass(status, problem.as_ref()) { Try::Later(what, after) } else { Try::Refused(what) }
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

    fn understood(status: u16, answer: &str) -> (&'static str, String) {
        let edge = Edge {
            address: Edge::address("https://edge.test", PlainHttp::default()).unwrap(),
            key_header: "x-api-key",
            key: HeaderValue::from_static("key"),
            key_origin: "API_KEY from .env line 3".to_owned(),
            setting: "PRODUCER_URL",
        };
        match understand(&edge, StatusCode::from_u16(status).unwrap(), None, answer.as_bytes()) {
            Try::Queued(queued) => ("queued", queued.job_id.to_string()),
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
