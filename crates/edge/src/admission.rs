//! From the body of a submission to queue messages, and from what the queue said to the answer.

use std::time::Duration;

use protocol::{JobId, JobMessage, JobSpec, Timestamp, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::problem::ProblemBody;
use crate::{Callbacks, JOBS_QUEUE, Problem, Response, Waiting, noetl};

/// How often, and after which pauses, a message is offered to a queue that does not take it: a person waits at the
/// other end, and the whole must stay well under the time-out of an HTTP client.
const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(900)];

/// When a client may come again, where the queue names no time.
const RETRY_AFTER_SECONDS: u64 = 5;

/// One job or several?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `POST /jobs`
    One,
    /// `POST /jobs/batch`
    Batch,
    /// One job, as NoETL asks for it.
    Noetl,
}

/// A submission whose head is in order.
#[derive(Debug)]
pub struct Admission {
    form: Form,
    idempotency_key: Option<String>,
    /// Who may be called; none where nobody can be.
    callbacks: Option<Callbacks>,
    /// Does this edge know where files are?
    files: bool,
}

/// What to do with a submission.
#[derive(Debug)]
pub enum Decision {
    /// Answer; nothing is to be sent.
    Answer(Response),
    /// Send the messages, all in one write, and then answer.
    Enqueue(Pending),
}

/// Messages that the queue has not taken yet.
#[derive(Debug)]
pub struct Pending {
    form: Form,
    /// When the jobs were admitted.
    at: Timestamp,
    messages: Vec<String>,
    jobs: Vec<JobAnswer>,
    refusals: usize,
    /// Who sent it waits for more than that it was taken.
    waiting: Option<Box<Waiting>>,
}

/// All messages are in the queue.
#[derive(Debug)]
pub enum Sent {
    /// Answer.
    Answer(Response),
    /// Ask the hub [`Waiting::request`], and answer with [`Waiting::answer`] of what it says.
    Wait(Box<Waiting>),
}

/// How a queue refuses a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests or too large a backlog (10250, 10251, 429).
    Overloaded {
        /// When the queue says to come again.
        retry_after: Option<Duration>,
    },
    /// The day's allowance is used up (10253): no use in trying again before the next day.
    QuotaExhausted,
    /// The queue is disabled (10252).
    Disabled,
    /// The queue says that a message or the batch is too large (10204, 10205, 10206).
    TooLarge,
    /// Anything else: no answer, 5xx, an unknown error. The write may have happened.
    Unavailable,
}

/// What to do after a refusal.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait, then send the same messages again.
    RetryAfter(Duration),
    /// Give up and answer.
    Answer(Response),
}

/// The answer for one job: it is in the queue, or why not.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(crate) enum JobAnswer {
    Queued(Queued),
    Refused(Refused),
}

/// A job is in the queue.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Queued {
    /// `queued`
    status: &'static str,
    /// Which job.
    job_id: JobId,
    /// The name of the queue.
    queue: &'static str,
}

/// A job of a batch was refused; others may have been taken.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Refused {
    /// `refused`
    status: &'static str,
    /// Why.
    problem: ProblemBody,
}

/// The answer to a batch.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BatchAnswer {
    /// One for each job, in the order of the batch.
    jobs: Vec<JobAnswer>,
}

impl JobAnswer {
    fn queued(job_id: JobId) -> Self {
        Self::Queued(Queued { status: "queued", job_id, queue: JOBS_QUEUE })
    }
}

impl Admission {
    pub(crate) fn new(form: Form, idempotency_key: Option<String>, callbacks: Option<Callbacks>, files: bool) -> Self {
        Self { form, idempotency_key, callbacks, files }
    }

    /// How much of the body to read at most. A shell that meets more hands over one byte more than this.
    pub fn body_limit(&self) -> usize {
        limits::REQUEST_BYTES_MAX
    }

    /// Reads the body. `mint` gives 16 random bytes a call, for the ids of jobs without an idempotency key.
    pub fn admit(self, body: &[u8], now: Timestamp, mint: &mut dyn FnMut() -> [u8; 16]) -> Decision {
        self.try_admit(body, now, mint).unwrap_or_else(|problem| Decision::Answer(problem.response()))
    }

    fn try_admit(self, body: &[u8], now: Timestamp, mint: &mut dyn FnMut() -> [u8; 16]) -> Result<Decision, Problem> {
        if body.len() > self.body_limit() {
            return Err(Problem::request_too_large(None));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| Problem::MalformedJson { detail: format!("the body is not UTF-8: {error}") })?;
        match self.form {
            Form::One => {
                let message = self.message(JobSpec::parse(text)?, None, now, mint)?;
                Ok(Decision::Enqueue(self.pending(vec![Ok(message)], now)))
            }
            Form::Noetl => {
                let (spec, execution_id) = noetl::job(text)?;
                let callback = spec.callback.clone();
                let message = self.message(spec, None, now, mint)?;
                let waiting = Waiting::new(message.0.clone(), callback.as_ref(), execution_id);
                Ok(Decision::Enqueue(Pending {
                    waiting: Some(Box::new(waiting)),
                    ..self.pending(vec![Ok(message)], now)
                }))
            }
            Form::Batch => {
                let jobs = batch(text)?;
                let messages: Vec<Result<(JobId, String), Problem>> = jobs
                    .iter()
                    .enumerate()
                    .map(|(position, job)| self.message(JobSpec::parse(job.get())?, Some(position), now, mint))
                    .collect();
                let cost = |(_, message): &(JobId, String)| message.len() + limits::MESSAGE_METADATA_BYTES;
                let size: usize = messages.iter().flatten().map(cost).sum();
                if size > limits::BATCH_BYTES_MAX {
                    return Err(Problem::TooLarge {
                        code: "batch_too_large",
                        what: "the batch, as queue messages,",
                        limit: limits::BATCH_BYTES_MAX as u64,
                        size: Some(size as u64),
                        unit: "bytes",
                    });
                }
                let pending = self.pending(messages, now);
                if pending.messages.is_empty() {
                    return Ok(Decision::Answer(pending.answer(422)));
                }
                Ok(Decision::Enqueue(pending))
            }
        }
    }

    fn message(
        &self,
        spec: JobSpec,
        position: Option<usize>,
        now: Timestamp,
        mint: &mut dyn FnMut() -> [u8; 16],
    ) -> Result<(JobId, String), Problem> {
        if let Some(callback) = &spec.callback {
            self.check_callback(&callback.url).map_err(|problem| Problem::InvalidField {
                field: Some("callback".to_owned()),
                detail: format!("`callback`: {problem}"),
            })?;
        }
        if spec.has_files() && !self.files {
            return Err(without_files(&spec));
        }
        // A key within the job is the job's own; the header's key is the whole request's, so places tell jobs apart.
        let job_id = match (&spec.idempotency_key, &self.idempotency_key) {
            (Some(key), _) => JobId::from_idempotency_key(key, None),
            (None, Some(key)) => JobId::from_idempotency_key(key, position),
            (None, None) => JobId::from_random(mint()),
        };
        let message = JobMessage::new(job_id.clone(), spec, now).into_text();
        if message.len() > limits::MESSAGE_BODY_BYTES_MAX {
            return Err(Problem::message_too_large(message.len()));
        }
        Ok((job_id, message))
    }

    fn check_callback(&self, url: &str) -> Result<(), String> {
        match &self.callbacks {
            Some(callbacks) => callbacks.check(url).map(drop).map_err(|problem| format!("its `url` {problem}")),
            None => {
                Err("this edge calls nobody; its operator sets CALLBACK_SECRET, and a hub, to have it do so".to_owned())
            }
        }
    }

    fn pending(&self, admitted: Vec<Result<(JobId, String), Problem>>, at: Timestamp) -> Pending {
        let mut pending =
            Pending { form: self.form, at, messages: Vec::new(), jobs: Vec::new(), refusals: 0, waiting: None };
        for job in admitted {
            pending.jobs.push(match job {
                Ok((job_id, message)) => {
                    pending.messages.push(message);
                    JobAnswer::queued(job_id)
                }
                Err(problem) => JobAnswer::Refused(Refused { status: "refused", problem: problem.body() }),
            });
        }
        pending
    }
}

/// The job needs a store of files, and this edge has none: it would wait for its files forever.
fn without_files(spec: &JobSpec) -> Problem {
    let field = if !spec.files.is_empty() {
        "files"
    } else if spec.outputs.is_some() {
        "outputs"
    } else {
        "input_file"
    };
    let detail = format!("`{field}`: {}", Problem::NoFiles.detail());
    Problem::InvalidField { field: Some(field.to_owned()), detail }
}

/// The jobs of `{"jobs": […]}`, each still unread.
fn batch(text: &str) -> Result<Vec<&RawValue>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Batch<'a> {
        #[serde(borrow)]
        jobs: Vec<&'a RawValue>,
    }
    let json: &RawValue = serde_json::from_str(text)
        .map_err(|error| Problem::MalformedJson { detail: format!("the body is not JSON: {error}") })?;
    let invalid = |detail: String| Problem::InvalidField { field: Some("jobs".to_owned()), detail };
    // Asked for by name, because a struct would be read from an array as well.
    if !json.get().starts_with('{') {
        return Err(invalid("a batch is an object, {\"jobs\": [job, …]}".to_owned()));
    }
    let batch: Batch<'_> = serde_json::from_str(json.get())
        .map_err(|error| invalid(format!("a batch is {{\"jobs\": [job, …]}}: {error}")))?;
    if batch.jobs.is_empty() {
        return Err(invalid("`jobs` is empty; there is nothing to queue".to_owned()));
    }
    if batch.jobs.len() > limits::BATCH_COUNT_MAX {
        return Err(Problem::TooLarge {
            code: "batch_too_many",
            what: "the batch",
            limit: limits::BATCH_COUNT_MAX as u64,
            size: Some(batch.jobs.len() as u64),
            unit: "jobs",
        });
    }
    Ok(batch.jobs)
}

impl Pending {
    /// The messages to send, as text: one by a single write, several by one batch write. Never empty.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// The answer once the queue has taken all messages.
    pub fn sent(mut self) -> Sent {
        match self.waiting.take() {
            Some(waiting) => Sent::Wait(waiting),
            None => Sent::Answer(self.answer(202)),
        }
    }

    /// What to do after the queue has refused the write.
    pub fn refused(&mut self, refusal: Refusal) -> Next {
        let pause = RETRY_PAUSES.get(self.refusals).copied();
        self.refusals += 1;
        let seconds = |after: Duration| after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let problem = match (refusal, pause) {
            // A queue that asks for a longer pause than a person would wait is answered on to that person.
            (Refusal::Overloaded { retry_after: Some(after) }, _) if after > RETRY_PAUSES[RETRY_PAUSES.len() - 1] => {
                Problem::QueueFull { retry_after_seconds: seconds(after) }
            }
            (Refusal::Overloaded { .. } | Refusal::Unavailable, Some(pause)) => return Next::RetryAfter(pause),
            (Refusal::Overloaded { .. }, None) => Problem::QueueFull { retry_after_seconds: RETRY_AFTER_SECONDS },
            (Refusal::Unavailable, None) => Problem::QueueUnavailable { retry_after_seconds: RETRY_AFTER_SECONDS },
            (Refusal::QuotaExhausted, _) => Problem::allowance_used_up(self.at),
            (Refusal::Disabled, _) => Problem::queue_disabled(),
            (Refusal::TooLarge, _) => Problem::TooLarge {
                code: "message_too_large",
                what: "the write to the queue",
                limit: limits::MESSAGE_BODY_BYTES_MAX as u64,
                size: self.messages.iter().map(|message| message.len() as u64).max(),
                unit: "bytes",
            },
        };
        Next::Answer(problem.response())
    }

    fn answer(mut self, status: u16) -> Response {
        let body = match self.form {
            Form::One | Form::Noetl => serde_json::to_string(&self.jobs.remove(0)),
            Form::Batch => serde_json::to_string(&BatchAnswer { jobs: self.jobs }),
        };
        Response::json(status, body.expect("an answer holds only strings and numbers"))
    }
}
