//! A job as it travels to the cluster: the message in `hpc-jobs`, and what a task finds of it.
//!
//! A message is kept as the text that came. What a reader does not know survives in it: a daemon that accepts a job
//! with a newer field stores and hands on the whole. `v` changes only when an older reader could do harm.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::fields::{Fields, NoFields, Unknown};
use crate::kind::Kind;
use crate::{InvalidJob, JobId, JobSpec, Json, Timestamp, VERSION};

/// The version of messages of jobs with files: an older reader refuses them.
const VERSION_WITH_FILES: u64 = 2;

/// The version of messages of jobs that need services, with files or without: an older reader refuses them.
const VERSION_WITH_NEEDS: u64 = 3;

/// A job in the queue `hpc-jobs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMessage {
    text: String,
    /// Which job.
    pub job_id: JobId,
    /// When the edge took the job. Absent in messages of other producers.
    pub created_at: Option<Timestamp>,
    /// What the user said of it.
    pub spec: JobSpec,
}

/// A message as this version writes it.
#[derive(Serialize)]
struct Written<'a> {
    v: u64,
    job_id: &'a JobId,
    #[serde(serialize_with = "crate::time::write")]
    created_at: Timestamp,
    #[serde(flatten)]
    spec: &'a JobSpec,
}

impl JobMessage {
    /// The message for a submission.
    pub fn new(job_id: JobId, mut spec: JobSpec, created_at: Timestamp) -> Self {
        // The id follows from the key; the key itself is of no use to anybody on the way.
        spec.idempotency_key = None;
        // Who does not know of services or files would run the job without them.
        let v = match (spec.needs.is_empty(), spec.has_files()) {
            (false, _) => VERSION_WITH_NEEDS,
            (true, true) => VERSION_WITH_FILES,
            (true, false) => VERSION,
        };
        let written = Written { v, job_id: &job_id, created_at, spec: &spec };
        let text = serde_json::to_string(&written).expect("a job message holds only strings, numbers and JSON");
        Self { text, job_id, created_at: Some(created_at), spec }
    }

    /// The message as it came, or as it is sent; empty where it is [`Self::without_input`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The message as it came, or as it is sent.
    pub fn into_text(self) -> String {
        self.text
    }

    /// All of it but what may be large, for as long as the job is at work: its input and its files are in place by
    /// then, and its text in the store. Of its files those stay that it only reads: they are no outputs of it.
    #[must_use]
    pub fn without_input(&self) -> Self {
        let files = self.spec.files.iter().filter(|file| file.read_only).cloned().collect();
        let spec = JobSpec { input: Json::null(), metadata: None, files, ..self.spec.clone() };
        Self { text: String::new(), job_id: self.job_id.clone(), created_at: self.created_at, spec }
    }

    /// A job of which nothing is known but its id. Its text is empty, too.
    pub fn unknown(job_id: JobId) -> Self {
        let spec = JobSpec { task: "unknown".to_owned(), ..JobSpec::default() };
        Self { text: String::new(), job_id, created_at: None, spec }
    }

    /// The same message with this task, if it is plainly a job and has none, as those of the system that this one
    /// replaces may.
    pub fn with_task(text: &str, task: &str) -> Option<String> {
        let fields = Fields::find(text).ok()?;
        if fields.has("task") || Kind::of(&fields) != Some(Kind::Job) {
            return None;
        }
        // An object that is a job has fields. Of two of one name the last counts, should this one be there as `null`.
        let (before, after) = text.rsplit_once('}')?;
        let task = serde_json::to_string(task).ok()?;
        Some(format!("{before},\"task\":{task}}}{after}"))
    }

    /// Reads the JSON text of a message (see [`crate::body::json_text`]). The rules for its fields are those of the
    /// edge, since another producer may write into the queue as well; fields that are not known are left alone.
    pub fn parse(text: &str) -> Result<Self, UnreadableJob> {
        let nobodys = |problem: String| UnreadableJob { job_id: None, problem, is_result: false };
        let fields = Fields::find(text).map_err(|error| match error {
            NoFields::NotJson(error) => nobodys(format!("it is no job object: {error}")),
            NoFields::NotAnObject => nobodys("it is no job object".to_owned()),
        })?;
        if Kind::of(&fields) == Some(Kind::Result) {
            let problem = "it is a result, which belongs into the other queue".to_owned();
            return Err(UnreadableJob { job_id: None, problem, is_result: true });
        }
        let job_id = fields.get("job_id").ok_or_else(|| nobodys("it has no `job_id`".to_owned()))?;
        let job_id: JobId = serde_json::from_str(job_id.get())
            .map_err(|_| nobodys(format!("its `job_id` is invalid: {}", crate::InvalidJobId)))?;
        let unreadable = |problem| UnreadableJob { job_id: Some(job_id.clone()), problem, is_result: false };
        if let Some(v) = fields.get("v").map(RawValue::get)
            && !matches!(v, "1" | "2" | "3")
        {
            let v: String = v.chars().take(32).collect();
            return Err(unreadable(format!(
                "it is of version {v}, and this program reads versions up to {VERSION_WITH_NEEDS}; a newer one may"
            )));
        }
        let created_at = fields.get("created_at").and_then(|value| serde_json::from_str(value.get()).ok());
        let spec = fields.read(Unknown::Passed).map_err(|error: InvalidJob| unreadable(error.to_string()))?;
        Ok(Self { text: text.to_owned(), job_id: job_id.clone(), created_at, spec })
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
    /// It is plainly a result: the ids of the two queues are swapped, and nothing of this queue may be acknowledged.
    pub is_result: bool,
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

    fn message(spec: &str) -> JobMessage {
        let spec = JobSpec::parse(spec).unwrap();
        JobMessage::new(JobId::from_random([1; 16]), spec, crate::timestamp_from_millis(1_795_223_727_123))
    }

    fn with_digest(text: &str) -> String {
        text.replace("HEX", &"0".repeat(64))
    }

    #[test]
    fn job_message_format_unchanged() {
        // Daemons of older versions read what a newer edge writes: fields may be added, nothing else. How messages of
        // earlier versions looked is in tests/compat.
        for (spec, json) in [
            (
                r#"{"task": "simulate", "input": {"steps": 10}, "metadata": {"name": "a"}, "time_limit_seconds": 60, "idempotency_key": "k"}"#,
                r#"{"v":1,"job_id":"01010101-0101-4101-8101-010101010101","created_at":"2026-11-21T01:15:27.123Z","task":"simulate","input":{"steps":10},"metadata":{"name":"a"},"time_limit_seconds":60}"#,
            ),
            (
                r#"{"task": "simulate", "retries": 3, "rerunnable": false}"#,
                r#"{"v":1,"job_id":"01010101-0101-4101-8101-010101010101","created_at":"2026-11-21T01:15:27.123Z","task":"simulate","input":null,"retries":3,"rerunnable":false}"#,
            ),
            (
                r#"{"task": "a", "outputs": {"patterns": ["plots/"]}, "files": [{"path": "a.dat", "size": 7, "sha256": "HEX"}]}"#,
                r#"{"v":2,"job_id":"01010101-0101-4101-8101-010101010101","created_at":"2026-11-21T01:15:27.123Z","task":"a","input":null,"files":[{"path":"a.dat","size":7,"sha256":"HEX"}],"outputs":{"patterns":["plots"]}}"#,
            ),
            (
                r#"{"task": "a", "needs": ["db", {"qubits": {"min": 20}, "service": "vqpu", "kind": "aer", "noise": false}]}"#,
                r#"{"v":3,"job_id":"01010101-0101-4101-8101-010101010101","created_at":"2026-11-21T01:15:27.123Z","task":"a","input":null,"needs":["db",{"service":"vqpu","kind":"aer","noise":false,"qubits":{"min":20}}]}"#,
            ),
            (
                r#"{"task": "a", "resources": {"nodes": 2, "gpus": 1, "memory": "8 GiB", "cpus": 4}, "runtime": "gpu-a", "name": "first try"}"#,
                r#"{"v":1,"job_id":"01010101-0101-4101-8101-010101010101","created_at":"2026-11-21T01:15:27.123Z","task":"a","input":null,"name":"first try","pool":"gpu-a","resources":{"cpus":4,"memory":8589934592,"gpus":1,"nodes":2}}"#,
            ),
        ] {
            let (spec, json) = (with_digest(spec), with_digest(json));
            let message = message(&spec);
            assert_eq!(message.text(), json);
            assert_eq!(JobMessage::parse(&json).unwrap(), message);
        }
    }

    #[test]
    fn a_message_is_kept_as_it_came_with_all_that_is_not_known() {
        let text = "{ \"later\": {\"b\": 1.50, \"a\": \"\\u00e9\"},\n \"resources\": {\"cpus\": 1, \"tmp\": 1}, \"task\": \"echo\", \"job_id\": \"j1\", \"wants\": [\"j0\"] }\n";
        let message = JobMessage::parse(text).unwrap();
        assert_eq!((message.text(), message.spec.task.as_str(), message.spec.input.as_str()), (text, "echo", "null"));
        assert_eq!((message.created_at, &message.spec.metadata), (None, &None));
        assert_eq!(message.clone().into_text(), text);
        let small = message.without_input();
        assert_eq!((small.text(), &small.spec, &small.job_id), ("", &message.spec, &message.job_id));
    }

    #[test]
    fn what_is_large_is_left_out_of_a_job_at_work() {
        let message = message(
            r#"{"task":"a","input":[1],"metadata":{},"name":"n","pool":"p","resources":{"cpus":2},"time_limit_seconds":7,"retries":1,"rerunnable":true,"resume":"j-1"}"#,
        );
        let small = message.without_input();
        assert_eq!((small.text(), small.spec.input.as_str(), &small.spec.metadata), ("", "null", &None));
        let spec =
            JobSpec { input: Json::parse("[1]").unwrap(), metadata: Some(Json::parse("{}").unwrap()), ..small.spec };
        assert_eq!((spec, small.job_id, small.created_at), (message.spec, message.job_id, message.created_at));
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
            (r#"{"job_id":"j1","task":"echo","pool":"A"}"#, Some("j1"), "`pool` must be"),
            (r#"{"v":4,"job_id":"j1","task":"echo"}"#, Some("j1"), "version 4"),
            (r#"{"v":3,"job_id":"j1","task":"echo","needs":[7]}"#, Some("j1"), "`needs` must be a list"),
        ] {
            let error = JobMessage::parse(text).unwrap_err();
            assert_eq!(error.job_id.as_ref().map(JobId::as_str), id, "{text}");
            assert!(error.problem.contains(problem), "{text}: {}", error.problem);
            assert!(!error.is_result, "{text}");
        }
    }

    #[test]
    fn a_job_without_a_task_can_be_given_one() {
        let with_task = |text: &str| JobMessage::with_task(text, "run \"it\"");
        let text = r#" {"job_id":"j1","input":{"command":"ls","task":"of the input"}} "#;
        let given = with_task(text).unwrap();
        assert_eq!(given, r#" {"job_id":"j1","input":{"command":"ls","task":"of the input"},"task":"run \"it\""} "#);
        let null = with_task(r#"{"job_id":"j1","task":null,"input":1}"#).unwrap();
        for given in [given, null] {
            let job = JobMessage::parse(&given).unwrap();
            assert_eq!((job.spec.task.as_str(), job.job_id.as_str()), (r#"run "it""#, "j1"));
        }
        for other in [
            r#"{"job_id":"j1","task":"a","input":1}"#,
            r#"{"job_id":"j1"}"#,
            r#"{"input":1}"#,
            r#"{"job_id":"j1","status":"completed","result_pointer":"p"}"#,
            r#"{"job_id":"j1","status":"x","event_type":"log","input":1}"#,
            "[{}]",
            "{}",
            "{",
        ] {
            assert_eq!(with_task(other), None, "{other}");
        }
    }

    #[test]
    fn a_result_is_never_taken_for_a_job() {
        // It has an id and a task, and would run with `null` as its input.
        let result =
            r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file://n/x","task":"echo","attempt":1}"#;
        let error = JobMessage::parse(result).unwrap_err();
        assert!(error.is_result && error.job_id.is_none(), "{error:?}");
    }
}
