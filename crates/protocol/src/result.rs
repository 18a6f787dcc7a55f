//! The final result of a job, as it travels to the laptop and as it stands on the cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{JobId, Json, Timestamp};

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
    /// A reason of a newer version.
    #[serde(other)]
    Unknown,
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
    /// The version of the message.
    pub v: u64,
    /// Which job.
    pub job_id: JobId,
    /// How it ended.
    pub status: Status,
    /// Where the result lies, as a URI: `file://host/path/output.json`, or the final record where there is no output.
    pub result_pointer: String,
    /// Why it failed; absent when it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// One sentence for the person who reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The exit code of the task, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that killed the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The named recipe that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Which execution of the job this was, counted from 1; 0 when it was never started.
    #[serde(default)]
    pub attempt: u32,
    /// What wrapped the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeKind>,
    /// Was the task kept from the node's other files and processes? `false` with the runtime `bare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// The host name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When the edge took the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the task started, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the job ended, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The content of `output.json`, when it is small enough to travel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// The size of `output.json` in bytes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The end of `stderr.log`, when the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

impl JobResult {
    /// The result as it travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a result holds only strings, numbers and JSON")
    }

    /// Reads the JSON text of a result (see [`crate::body::json_text`]).
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::TimeLimit => "time_limit",
            Self::MemoryLimit => "memory_limit",
            Self::Output => "output",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Infrastructure => "infrastructure",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apptainer => "apptainer",
            Self::Bare => "bare",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_result_format_unchanged() {
        // Laptops of older versions read what a newer daemon writes, and records outlive both.
        let json = r#"{"v":1,"job_id":"j1","status":"failed","result_pointer":"file://node1/results/j1.json","reason":"exit","message":"the task ended with exit code 3","exit_code":3,"task":"simulate","attempt":1,"runtime":"apptainer","isolated":true,"host":"node1","created_at":"2026-11-21T01:15:27.123Z","started_at":"2026-11-21T01:15:28Z","finished_at":"2026-11-21T01:15:29.5Z","output":{"pi":3.14},"output_bytes":11,"stderr_tail":"boom\n"}"#;
        let result = JobResult {
            v: 1,
            job_id: "j1".parse().unwrap(),
            status: Status::Failed,
            result_pointer: "file://node1/results/j1.json".to_owned(),
            reason: Some(Reason::Exit),
            message: Some("the task ended with exit code 3".to_owned()),
            exit_code: Some(3),
            signal: None,
            task: Some("simulate".to_owned()),
            attempt: 1,
            runtime: Some(RuntimeKind::Apptainer),
            isolated: Some(true),
            host: Some("node1".to_owned()),
            created_at: Some(crate::timestamp_from_millis(1_795_223_727_123)),
            started_at: Some(crate::timestamp_from_millis(1_795_223_728_000)),
            finished_at: Some(crate::timestamp_from_millis(1_795_223_729_500)),
            output: Some(Json::parse("{\"pi\":3.14}").unwrap()),
            output_bytes: Some(11),
            stderr_tail: Some("boom\n".to_owned()),
        };
        assert_eq!(result.to_json(), json);
        assert_eq!(JobResult::parse(json).unwrap(), result);
    }

    #[test]
    fn results_of_other_versions_are_read() {
        let old =
            JobResult::parse(r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file:///x"}"#).unwrap();
        assert_eq!((old.attempt, old.output), (0, None));
        let newer = r#"{"v":1,"job_id":"j1","status":"failed","result_pointer":"x","reason":"preempted","more":1}"#;
        assert_eq!(JobResult::parse(newer).unwrap().reason, Some(Reason::Unknown));
    }

    #[test]
    fn reasons_print_as_they_travel() {
        for reason in [
            Reason::Exit,
            Reason::Signal,
            Reason::TimeLimit,
            Reason::MemoryLimit,
            Reason::Output,
            Reason::Rejected,
            Reason::Cancelled,
            Reason::Infrastructure,
            Reason::Lost,
            Reason::Unknown,
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
    }
}
