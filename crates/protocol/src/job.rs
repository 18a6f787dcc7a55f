//! A job as it is submitted, and as it travels to the cluster.

use serde::{Deserialize, Serialize};

use crate::{JobId, Json, Timestamp, VERSION, limits};

/// What a user sends to `POST /jobs`: `{"task", "input"?, "metadata"?, …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSubmission {
    /// The named recipe that the job runs.
    pub task: String,
    /// What the task works on; `null` when it was left out.
    pub input: Json,
    /// The user's own notes, an object; they are kept with the job and never read.
    pub metadata: Option<Json>,
    /// The longest that the job may run, in seconds; the cluster may allow less.
    pub time_limit_seconds: Option<u64>,
    /// How often the job is tried again after its own task failed, at most [`limits::RETRIES_MAX`]; 0 when absent.
    pub retries: Option<u32>,
    /// May the job be started again after an attempt was cut off? It may when this is absent.
    pub rerunnable: Option<bool>,
    /// The same key gives the same job id, so a repeated submission is one job.
    pub idempotency_key: Option<String>,
}

/// The fields that [`JobSubmission`] has, in the order of the documentation.
const SUBMISSION_FIELDS: &str = "task, input, metadata, time_limit_seconds, retries, rerunnable, idempotency_key";

/// Why a submission is no job.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJob {
    /// The text is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// The text is JSON, but not an object.
    #[error("a job is a JSON object such as {{\"task\": \"echo\", \"input\": {{}}}}")]
    NotAnObject,
    /// A field is missing, has the wrong type, is empty, or is too long.
    #[error("`{field}` {problem}")]
    Field {
        /// Which field.
        field: String,
        /// What is wrong with it, as a text that follows the field's name.
        problem: String,
    },
}

impl InvalidJob {
    fn field(field: &str, problem: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), problem: problem.into() }
    }
}

impl JobSubmission {
    /// Reads and validates a submission. Unknown fields are refused: a typing error in `time_limit_seconds` must not
    /// become a job without a limit.
    pub fn parse(text: &str) -> Result<Self, InvalidJob> {
        let value = Json::parse(text).map_err(InvalidJob::NotJson)?;
        Self::from_json(&value)
    }

    /// The same for JSON that was read already, as within a batch.
    pub fn from_json(value: &Json) -> Result<Self, InvalidJob> {
        if !value.is_object() {
            return Err(InvalidJob::NotAnObject);
        }
        let fields: std::collections::BTreeMap<String, Json> = value.read().map_err(InvalidJob::NotJson)?;
        let known = |name: &&String| SUBMISSION_FIELDS.split(", ").any(|field| field == name.as_str());
        if let Some(unknown) = fields.keys().find(|name| !known(name)) {
            let shown: String = unknown.chars().take(64).collect();
            return Err(InvalidJob::field(&shown, format!("is no field of a job; the fields are {SUBMISSION_FIELDS}")));
        }
        // A field that is `null` is a field that was left out: clients in other languages write both.
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let text = |name: &str| {
            given(name)
                .map(|value| value.read::<String>().map_err(|_| InvalidJob::field(name, "must be a string")))
                .transpose()
        };

        let task = text("task")?.ok_or_else(|| InvalidJob::field("task", "is missing; it names what the job runs"))?;
        if task.is_empty() || task.len() > limits::TASK_BYTES_MAX || task.chars().any(char::is_control) {
            let problem = format!("must be 1 to {} bytes without control characters", limits::TASK_BYTES_MAX);
            return Err(InvalidJob::field("task", problem));
        }
        let metadata = given("metadata").cloned();
        if metadata.as_ref().is_some_and(|value| !value.is_object()) {
            return Err(InvalidJob::field("metadata", "must be an object"));
        }
        let time_limit_seconds = given("time_limit_seconds")
            .map(|value| match value.read::<u64>() {
                Ok(seconds) if seconds > 0 => Ok(seconds),
                _ => Err(InvalidJob::field("time_limit_seconds", "must be a whole number of seconds, 1 or more")),
            })
            .transpose()?;
        let retries = given("retries")
            .map(|value| match value.read::<u32>() {
                Ok(retries) if retries <= limits::RETRIES_MAX => Ok(retries),
                _ => {
                    let problem = format!("must be a whole number from 0 to {}", limits::RETRIES_MAX);
                    Err(InvalidJob::field("retries", problem))
                }
            })
            .transpose()?;
        let rerunnable = given("rerunnable")
            .map(|value| value.read::<bool>().map_err(|_| InvalidJob::field("rerunnable", "must be true or false")))
            .transpose()?;
        let idempotency_key = text("idempotency_key")?;
        if let Some(key) = &idempotency_key {
            check_idempotency_key(key).map_err(|problem| InvalidJob::field("idempotency_key", problem))?;
        }
        Ok(Self {
            task,
            input: given("input").cloned().unwrap_or_default(),
            metadata,
            time_limit_seconds,
            retries,
            rerunnable,
            idempotency_key,
        })
    }
}

/// The rule for an idempotency key, in the body or in the header: returns what is wrong with it.
pub fn check_idempotency_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        let max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        return Err(format!("must be 1 to {max} bytes without control characters"));
    }
    Ok(())
}

/// A job as it travels in the queue `hpc-jobs`.
///
/// Readers ignore fields that they do not know, so a newer edge may add some; `v` changes only when an older reader
/// could no longer do the right thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobMessage {
    /// The version of the message, [`VERSION`].
    pub v: u64,
    /// Which job.
    pub job_id: JobId,
    /// The named recipe that the job runs.
    pub task: String,
    /// What the task works on.
    pub input: Json,
    /// When the edge took the job. Absent in messages of other producers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// The user's own notes, an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    /// The longest that the job may run, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit_seconds: Option<u64>,
    /// How often the job is tried again after its own task failed: by its exit code, a signal, the time limit, or an
    /// output that cannot be used. Not at all when this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// May the job be started again, as its next attempt, after one was cut off because the machine or the keeper of
    /// the runs went down? It may when this is absent; when it may not, its outcome is [`crate::Reason::Lost`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerunnable: Option<bool>,
}

impl JobMessage {
    /// The message for a submission.
    pub fn new(job_id: JobId, submission: JobSubmission, created_at: Timestamp) -> Self {
        Self {
            v: VERSION,
            job_id,
            task: submission.task,
            input: submission.input,
            created_at: Some(created_at),
            metadata: submission.metadata,
            time_limit_seconds: submission.time_limit_seconds,
            retries: submission.retries,
            rerunnable: submission.rerunnable,
        }
    }

    /// The message as it travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a job message holds only strings, numbers and JSON")
    }

    /// A job of which nothing is known but its id.
    pub fn unknown(job_id: JobId) -> Self {
        Self {
            v: VERSION,
            job_id,
            task: "unknown".to_owned(),
            input: Json::default(),
            created_at: None,
            metadata: None,
            time_limit_seconds: None,
            retries: None,
            rerunnable: None,
        }
    }

    /// The same without what may be large, for those who need not know what the task works on.
    #[must_use]
    pub fn without_input(&self) -> Self {
        Self { task: self.task.clone(), job_id: self.job_id.clone(), input: Json::default(), metadata: None, ..*self }
    }

    /// Reads the JSON text of a message (see [`crate::body::json_text`]).
    pub fn parse(text: &str) -> Result<Self, UnreadableJob> {
        /// Every field as it comes, so that an unreadable message still tells its job id.
        #[derive(Deserialize)]
        struct Loose {
            v: Option<Json>,
            job_id: Option<Json>,
            task: Option<Json>,
            input: Option<Json>,
            created_at: Option<Json>,
            metadata: Option<Json>,
            time_limit_seconds: Option<Json>,
            retries: Option<Json>,
            rerunnable: Option<Json>,
        }
        let no_job = |what: &str| UnreadableJob { job_id: None, problem: format!("it is no job object{what}") };
        let json = Json::parse(text).map_err(|error| no_job(&format!(": {error}")))?;
        // Asked for by name, because a struct would be read from an array as well.
        if !json.is_object() {
            return Err(no_job(""));
        }
        let loose: Loose = json.read().map_err(|error| no_job(&format!(": {error}")))?;
        let Some(job_id) = &loose.job_id else {
            return Err(UnreadableJob { job_id: None, problem: "it has no `job_id`".to_owned() });
        };
        let job_id: JobId = job_id.read().map_err(|_| UnreadableJob {
            job_id: None,
            problem: format!("its `job_id` is invalid: {}", crate::InvalidJobId),
        })?;
        let unreadable = |problem: String| UnreadableJob { job_id: Some(job_id.clone()), problem };
        if let Some(v) = &loose.v
            && v.as_str() != "1"
        {
            let v: String = v.as_str().chars().take(32).collect();
            return Err(unreadable(format!(
                "it is of version {v}, and this program reads version {VERSION}; a newer one may"
            )));
        }
        // The same rules as at the edge; another producer may write into the queue as well.
        let fields = [
            ("task", loose.task),
            ("input", loose.input),
            ("metadata", loose.metadata),
            ("time_limit_seconds", loose.time_limit_seconds),
            ("retries", loose.retries),
            ("rerunnable", loose.rerunnable),
        ];
        let given: std::collections::BTreeMap<_, _> =
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let value = Json::from_serialize(&given).expect("names and JSON values make a JSON object");
        let submission = JobSubmission::from_json(&value).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self {
            v: VERSION,
            job_id: job_id.clone(),
            task: submission.task,
            input: submission.input,
            created_at: loose.created_at.and_then(|value| value.read().ok()),
            metadata: submission.metadata,
            time_limit_seconds: submission.time_limit_seconds,
            retries: submission.retries,
            rerunnable: submission.rerunnable,
        })
    }
}

/// A message in the queue that is not a job that we can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message is not a job: {problem}")]
pub struct UnreadableJob {
    /// Whose job it was meant to be, where that can be read.
    pub job_id: Option<JobId>,
    /// What is wrong with it.
    pub problem: String,
}

/// What a task finds in `/work/input.json`.
#[derive(Debug, Serialize)]
pub struct JobInput<'a> {
    /// Which job.
    pub job_id: &'a JobId,
    /// The named recipe to run.
    pub task: &'a str,
    /// What to work on.
    pub input: &'a Json,
    /// The user's own notes, or `null`.
    pub metadata: &'a Option<Json>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> JobMessage {
        let submission = JobSubmission::parse(
            r#"{"task": "simulate", "input": {"steps": 10}, "metadata": {"name": "a"}, "time_limit_seconds": 60}"#,
        )
        .unwrap();
        JobMessage::new(JobId::from_random([1; 16]), submission, crate::timestamp_from_millis(1_795_223_727_123))
    }

    #[test]
    fn job_message_format_unchanged() {
        // Daemons of older versions read what a newer edge writes: fields may be added at the end, nothing else.
        let json = r#"{"v":1,"job_id":"01010101-0101-4101-8101-010101010101","task":"simulate","input":{"steps":10},"created_at":"2026-11-21T01:15:27.123Z","metadata":{"name":"a"},"time_limit_seconds":60}"#;
        assert_eq!(message().to_json(), json);
        assert_eq!(JobMessage::parse(json).unwrap(), message());

        let json = r#"{"v":1,"job_id":"01010101-0101-4101-8101-010101010101","task":"simulate","input":{"steps":10},"created_at":"2026-11-21T01:15:27.123Z","metadata":{"name":"a"},"time_limit_seconds":60,"retries":3,"rerunnable":false}"#;
        let message = JobMessage { retries: Some(3), rerunnable: Some(false), ..message() };
        assert_eq!(message.to_json(), json);
        assert_eq!(JobMessage::parse(json).unwrap(), message);
    }

    #[test]
    fn messages_without_version_and_with_unknown_fields_are_read() {
        let message = JobMessage::parse(r#"{"job_id":"j1","task":"echo","later":[1]}"#).unwrap();
        assert_eq!((message.task.as_str(), message.input.as_str(), message.metadata), ("echo", "null", None));
    }

    #[test]
    fn unreadable_messages_tell_the_id_where_there_is_one() {
        for (text, id, problem) in [
            ("[]", None, "no job object"),
            (r#"[1,"j1","echo",1,null,null,null]"#, None, "no job object"),
            ("7", None, "no job object"),
            ("{}", None, "no `job_id`"),
            (r#"{"job_id":"../x","task":"echo"}"#, None, "`job_id` is invalid"),
            (r#"{"job_id":7,"task":"echo"}"#, None, "`job_id` is invalid"),
            (r#"{"job_id":"j1"}"#, Some("j1"), "`task` is missing"),
            (r#"{"job_id":"j1","task":{}}"#, Some("j1"), "`task` must be a string"),
            (r#"{"job_id":"j1","task":"echo","retries":101}"#, Some("j1"), "`retries` must be"),
            (r#"{"job_id":"j1","task":"echo","rerunnable":0}"#, Some("j1"), "`rerunnable` must be"),
            (r#"{"v":2,"job_id":"j1","task":"echo"}"#, Some("j1"), "version 2"),
        ] {
            let error = JobMessage::parse(text).unwrap_err();
            assert_eq!(error.job_id.as_ref().map(JobId::as_str), id, "{text}");
            assert!(error.problem.contains(problem), "{text}: {}", error.problem);
        }
    }

    #[test]
    fn retries_and_rerunnable_are_kept_as_given_and_null_is_absent() {
        for (fields, retries, rerunnable) in [
            ("", None, None),
            (r#","retries":null,"rerunnable":null"#, None, None),
            (r#","retries":0,"rerunnable":true"#, Some(0), Some(true)),
            (r#","retries":100,"rerunnable":false"#, Some(100), Some(false)),
        ] {
            let submission = JobSubmission::parse(&format!(r#"{{"task":"a"{fields}}}"#)).unwrap();
            assert_eq!((submission.retries, submission.rerunnable), (retries, rerunnable), "{fields}");
            let message = JobMessage::new(JobId::from_random([1; 16]), submission, crate::timestamp_from_millis(0));
            assert_eq!((message.retries, message.rerunnable), (retries, rerunnable), "{fields}");
        }
    }

    #[test]
    fn invalid_submissions_name_the_field() {
        for (text, problem) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "JSON object"),
            ("{}", "`task` is missing"),
            (r#"{"task":null}"#, "`task` is missing"),
            (r#"{"task":5}"#, "`task` must be a string"),
            (r#"{"task":""}"#, "`task` must be 1 to 128 bytes"),
            (r#"{"task":"a\u0000"}"#, "without control characters"),
            (r#"{"task":"a","metadata":[]}"#, "`metadata` must be an object"),
            (r#"{"task":"a","time_limit_seconds":0}"#, "`time_limit_seconds`"),
            (r#"{"task":"a","time_limit_seconds":1.5}"#, "`time_limit_seconds`"),
            (r#"{"task":"a","retries":101}"#, "`retries` must be a whole number from 0 to 100"),
            (r#"{"task":"a","retries":-1}"#, "`retries`"),
            (r#"{"task":"a","retries":2.0}"#, "`retries`"),
            (r#"{"task":"a","retries":"2"}"#, "`retries`"),
            (r#"{"task":"a","rerunnable":1}"#, "`rerunnable` must be true or false"),
            (r#"{"task":"a","rerunnable":"false"}"#, "`rerunnable`"),
            (r#"{"task":"a","idempotency_key":""}"#, "`idempotency_key`"),
            (r#"{"task":"a","inputs":{}}"#, "`inputs` is no field of a job"),
        ] {
            let error = JobSubmission::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
