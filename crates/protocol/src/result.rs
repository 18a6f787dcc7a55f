//! The final result of a job, as it travels to the laptop and as it stands on the cluster.
//!
//! Who reads one may be older than who wrote it, or much newer: results of the system that this one replaces lie in
//! queues, too. So it takes a job id and a state to be a result; every other field is read where it is what we know
//! by that name, and else passed over. A result is kept as the text that came, in which all of it survives.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::fields::Fields;
use crate::kind::Kind;
use crate::{Content, Isolation, JobFile, JobId, Json, PoolName, Timestamp, Usage, VERSION, Word};

/// Did the job do what it was meant to do?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The task ended with exit code 0, and what it left behind can be used.
    Completed,
    /// It did not; [`JobResult::reason`] says why.
    Failed,
}

/// What made a job fail. A job cannot choose its own class: only `exit` and `output` are in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The task ended with an exit code other than 0.
    Exit,
    /// A signal killed the task.
    Signal,
    /// The task ran longer than it was allowed to, and was ended.
    TimeLimit,
    /// The task used more memory than it was allowed to, and was ended.
    MemoryLimit,
    /// The task filled the disk of its directory, in several attempts one after the other.
    DiskFull,
    /// The task ended well, but `output.json` is not a regular file that holds JSON.
    Output,
    /// The message was not a job that can be run.
    Rejected,
    /// A user cancelled the job.
    Cancelled,
    /// We failed, not the job: the node, the image, the disk. It was tried again, and then given up.
    Infrastructure,
    /// It cannot be proven what happened to the run: it was cut off and the job was not started again, or its record
    /// cannot be read.
    Lost,
}

/// What wrapped the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A container: `apptainer exec`.
    Apptainer,
    /// The command itself, isolated from nothing.
    Bare,
}

/// The one final result of a job. The bytes of its JSON are the message in `hpc-results` and the record
/// `RESULTS_DIR/<job_id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// The version of the message; 1 where it says none.
    #[serde(default = "version_1", deserialize_with = "version")]
    pub v: u64,
    /// Which job.
    pub job_id: JobId,
    /// How it ended.
    pub status: Word<Status>,
    /// Where the result lies, as a URI: `file://host/path/output.json`, or the final record where there is no output.
    #[serde(default, deserialize_with = "if_known")]
    pub result_pointer: String,
    /// Why it failed; absent when it completed.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word<Reason>>,
    /// One sentence for the person who reads it.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The exit code of the task, where it ended by itself.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that killed the task.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The named recipe that was run.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The pool of the site that it ran in, where a site's file says so, as the next two.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The image: a reference with its digest, or the path, length and time of a file.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The words of the command.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Which execution of the job this was, counted from 1; 0 when it was never started.
    #[serde(default, deserialize_with = "if_known")]
    pub attempt: u32,
    /// What wrapped the command.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Word<RuntimeKind>>,
    /// Was the task kept from the node's other files and processes? `false` with the runtime `bare`.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// What kept the task from the rest of its node, as far as it was seen.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What Slurm calls the allocation that the task ran in, where it ran in one.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub slurm_job_id: Option<String>,
    /// The host name of the node.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What its processes have used, as far as it was seen.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the edge took the job.
    #[serde(
        default,
        deserialize_with = "if_known",
        serialize_with = "crate::time::write_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Timestamp>,
    /// When the task started, by the node's clock.
    #[serde(
        default,
        deserialize_with = "if_known",
        serialize_with = "crate::time::write_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<Timestamp>,
    /// When the job ended, by the node's clock.
    #[serde(
        default,
        deserialize_with = "if_known",
        serialize_with = "crate::time::write_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub finished_at: Option<Timestamp>,
    /// The content of `output.json`, when it is small enough to travel; also when that is `null`.
    #[serde(default, deserialize_with = "also_null", skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// The size of `output.json` in bytes, where there is one.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The content of `output.json` in the store of files, when it is too large to travel.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub output_file: Option<Content>,
    /// What the job has left that its user wanted to have, and is in the store of files.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<JobFile>,
    /// What is to be said of them, in a sentence: that nothing matched a pattern, or that files were packed.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub files_note: Option<String>,
    /// When what the job has left was sent once more after its end, by hand, where it was: with it, the list of files
    /// is a later one than that of the same end without.
    #[serde(
        default,
        deserialize_with = "if_known",
        serialize_with = "crate::time::write_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub resent_at: Option<Timestamp>,
    /// The end of what the task printed, when the job failed, or when it completed and no output travels.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub stdout_tail: Option<String>,
    /// The same of standard error.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

fn version_1() -> u64 {
    1
}

fn version<'de, D: Deserializer<'de>>(given: D) -> Result<u64, D::Error> {
    Ok(if_known::<Option<u64>, D>(given)?.unwrap_or(1))
}

/// What another version may have put there is no reason to lose the result.
pub(crate) fn if_known<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(given: D) -> Result<T, D::Error> {
    let value = Box::<RawValue>::deserialize(given)?;
    Ok(serde_json::from_str(value.get()).unwrap_or_default())
}

fn also_null<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(given).map(Some)
}

impl JobResult {
    /// The result as it travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a result holds only strings, numbers and JSON")
    }

    /// Is this the same end of the same job, whose files were sent later than those of the other?
    pub fn supersedes(&self, other: &Self) -> bool {
        let end = |result: &Self| {
            let Self { job_id, status, reason, attempt, created_at, started_at, finished_at, .. } = result.clone();
            (job_id, status, reason, attempt, created_at, started_at, finished_at)
        };
        self.resent_at > other.resent_at && end(self) == end(other)
    }

    /// Reads the JSON text of a result (see [`crate::body::json_text`]).
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Was it written by a version that may mean more than this one understands?
    pub fn is_newer(&self) -> bool {
        self.v > VERSION
    }
}

/// What comes in the queue `hpc-results`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultMessage {
    /// The final result of a job.
    Result(Box<JobResult>),
    /// Something that happened on the way, and is nobody's result: the system that this one replaces sent heartbeats
    /// and lines of logs. They are worth keeping, and no cause for alarm.
    Event(String),
}

/// A message in the queue of results that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct UnreadableResult {
    /// What is wrong with it.
    pub problem: String,
    /// It is plainly a job: the ids of the two queues are swapped, and nothing of this queue may be acknowledged.
    pub is_job: bool,
}

impl ResultMessage {
    /// Reads the JSON text of a message (see [`crate::body::json_text`]).
    pub fn parse(text: &str) -> Result<Self, UnreadableResult> {
        let unreadable = |problem: String| UnreadableResult { problem, is_job: false };
        if let Ok(fields) = Fields::find(text) {
            if Kind::of(&fields) == Some(Kind::Job) {
                let problem = "it is a job, which belongs into the other queue".to_owned();
                return Err(UnreadableResult { problem, is_job: true });
            }
            let event = fields.get("event_type").and_then(|value| serde_json::from_str::<String>(value.get()).ok());
            // The last event of a job is its result.
            if let Some(event) = event.filter(|event| !matches!(event.as_str(), "completed" | "failed")) {
                return Ok(Self::Event(event));
            }
        }
        JobResult::parse(text)
            .map(|result| Self::Result(Box::new(result)))
            .map_err(|error| unreadable(error.to_string()))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_result_format_unchanged() {
        // Laptops of older versions read what a newer daemon writes, and records outlive both.
        let json = r#"{"v":1,"job_id":"j1","status":"failed","result_pointer":"file://node1/results/j1.json","reason":"exit","message":"the task ended with exit code 3","exit_code":3,"task":"simulate","pool":"cpu","image":"ghcr.io/a/b@sha256:0","command":["task-runner"],"attempt":1,"runtime":"apptainer","isolated":true,"isolation":{"network":"none"},"slurm_job_id":"4711","host":"node1","usage":{"cpu_time_ms":4280,"memory_bytes":1048576},"created_at":"2026-11-21T01:15:27.123Z","started_at":"2026-11-21T01:15:28.000Z","finished_at":"2026-11-21T01:15:29.500Z","output":{"pi":3.14},"output_bytes":11,"output_file":{"sha256":"0000000000000000000000000000000000000000000000000000000000000000","size":7},"files":[{"path":"a.png","size":7,"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}],"files_note":"n","resent_at":"2026-11-21T01:15:29.600Z","stdout_tail":"step 2\n","stderr_tail":"boom\n"}"#;
        let result = JobResult {
            v: 1,
            job_id: "j1".parse().unwrap(),
            status: Status::Failed.into(),
            result_pointer: "file://node1/results/j1.json".to_owned(),
            reason: Some(Reason::Exit.into()),
            message: Some("the task ended with exit code 3".to_owned()),
            exit_code: Some(3),
            signal: None,
            task: Some("simulate".to_owned()),
            pool: Some("cpu".parse().unwrap()),
            image: Some("ghcr.io/a/b@sha256:0".to_owned()),
            command: Some(vec!["task-runner".to_owned()]),
            attempt: 1,
            runtime: Some(RuntimeKind::Apptainer.into()),
            isolated: Some(true),
            isolation: Some(Isolation { network: Some(crate::Network::None.into()), ..Isolation::default() }),
            slurm_job_id: Some("4711".to_owned()),
            host: Some("node1".to_owned()),
            usage: Some(Usage { cpu_time_ms: Some(4_280), memory_bytes: Some(1 << 20), source: None }),
            created_at: Some(crate::timestamp_from_millis(1_795_223_727_123)),
            started_at: Some(crate::timestamp_from_millis(1_795_223_728_000)),
            finished_at: Some(crate::timestamp_from_millis(1_795_223_729_500)),
            output: Some(Json::parse("{\"pi\":3.14}").unwrap()),
            output_bytes: Some(11),
            output_file: Some(Content { sha256: "0".repeat(64).parse().unwrap(), size: 7 }),
            files: vec![JobFile {
                path: "a.png".parse().unwrap(),
                size: 7,
                sha256: "0".repeat(64).parse().unwrap(),
                pack: false,
                read_only: false,
            }],
            files_note: Some("n".to_owned()),
            resent_at: Some(crate::timestamp_from_millis(1_795_223_729_600)),
            stdout_tail: Some("step 2\n".to_owned()),
            stderr_tail: Some("boom\n".to_owned()),
        };
        assert_eq!(result.to_json(), json);
        assert_eq!(JobResult::parse(json).unwrap(), result);
        // Earlier versions left out zeros at the end.
        let earlier = json.replace(".000Z", "Z").replace(".500Z", ".5Z");
        assert_eq!(JobResult::parse(&earlier).unwrap(), result);
        // Times sort as their texts do.
        let text = |millis| {
            serde_json::to_string(&JobResult {
                started_at: Some(crate::timestamp_from_millis(millis)),
                ..result.clone()
            })
            .unwrap()
        };
        assert!([0, 1, 10, 120, 500, 999, 1000].map(text).is_sorted());
    }

    #[test]
    fn results_of_other_versions_are_read() {
        let old =
            JobResult::parse(r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file:///x"}"#).unwrap();
        assert_eq!((old.attempt, &old.output, old.is_newer()), (0, &None, false));
        let unversioned = JobResult::parse(r#"{"job_id":"j1","status":"completed","result_pointer":"/x"}"#).unwrap();
        assert_eq!((unversioned.v, unversioned.status), (1, Status::Completed.into()));

        let newer = r#"{"v":2,"job_id":"j1","status":"paused","result_pointer":"x","reason":"preempted","runtime":"vm","more":1,"exit_code":{"code":1},"attempt":"second","started_at":"soon"}"#;
        let newer = JobResult::parse(newer).unwrap();
        assert!(newer.is_newer());
        assert_eq!(newer.status, Word::Unknown("paused".to_owned()));
        assert_eq!(newer.reason.map(|reason| reason.to_string()).as_deref(), Some("preempted"));
        assert_eq!(newer.runtime.map(|runtime| runtime.to_string()).as_deref(), Some("vm"));
        assert_eq!((newer.exit_code, newer.attempt, newer.started_at), (None, 0, None));
    }

    #[test]
    fn an_output_of_null_is_an_output() {
        let of = |output: &str| {
            let text =
                format!(r#"{{"v":1,"job_id":"j1","status":"completed","result_pointer":"x","attempt":1{output}}}"#);
            let result = JobResult::parse(&text).unwrap();
            assert_eq!(result.to_json(), text);
            result.output
        };
        assert_eq!(of(r#","output":null"#), Some(Json::null()));
        assert_eq!(of(""), None);
    }

    #[test]
    fn what_comes_in_the_queue_of_results_is_told_apart() {
        let result = |text: &str| matches!(ResultMessage::parse(text), Ok(ResultMessage::Result(_)));
        assert!(result(r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"x"}"#));
        assert!(result(r#"{"job_id":"j1","status":"failed","result_pointer":"","event_type":"failed","exit_code":1}"#));
        assert!(result(r#"{"v":3,"job_id":"j1","status":"better than ever"}"#));
        for (text, event) in [
            (r#"{"event_type":"heartbeat","status":"alive","source":"hpc-consumer","pid":7}"#, "heartbeat"),
            // It names a job, whose result is still to come.
            (r#"{"job_id":"j1","status":"running","result_pointer":"","event_type":"log","line":"x"}"#, "log"),
        ] {
            assert_eq!(ResultMessage::parse(text), Ok(ResultMessage::Event(event.to_owned())));
        }
        for (text, is_job) in [
            (r#"{"v":1,"job_id":"j1","task":"echo","input":{}}"#, true),
            (r#"{"v":1,"job_id":"../../evil","status":"completed","result_pointer":"x"}"#, false),
            (r#"{"job_id":"j1"}"#, false),
            (r#"{"job_id":"j1","status":7}"#, false),
            ("{}", false),
            ("[]", false),
            ("hello", false),
        ] {
            assert_eq!(ResultMessage::parse(text).unwrap_err().is_job, is_job, "{text}");
        }
    }

    #[test]
    fn words_print_as_they_travel() {
        for reason in [
            Reason::Exit,
            Reason::Signal,
            Reason::TimeLimit,
            Reason::MemoryLimit,
            Reason::DiskFull,
            Reason::Output,
            Reason::Rejected,
            Reason::Cancelled,
            Reason::Infrastructure,
            Reason::Lost,
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
        assert_eq!(
            (Status::Failed.to_string(), RuntimeKind::Bare.to_string()),
            ("failed".to_owned(), "bare".to_owned())
        );
    }
}
