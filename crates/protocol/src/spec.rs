//! What a submitter says of a job: the body of `POST /jobs`, one job of a batch, and the greater part of a message.
//!
//! Each field stands once, in [`JobSpec`], with its rule. From there follow the strict reader of the edge, which knows
//! the field and names all fields when it meets another; the tolerant reader of messages; and what is written into a
//! message. A test holds the table of `docs/protocol.md` to the same list.
//!
//! Out of scope: who the job is and when it came (`message`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fields::{Fields, NoFields, Unknown};
use crate::file::{self, Content, JobFile, Outputs};
use crate::{Callback, JobId, Json, Need, PoolName, ResourceRequest, limits};

/// What a user says of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct JobSpec {
    /// The named recipe that the job runs.
    #[serde(deserialize_with = "rules::task")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = limits::TASK_BYTES_MAX), regex(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")))]
    pub task: String,
    /// What the task works on; `null` when it was left out.
    #[serde(default)]
    pub input: Json,
    /// The user's own notes, an object; they are kept with the job and never read.
    #[serde(default, deserialize_with = "rules::object", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("type" = ["object", "null"])))]
    pub metadata: Option<Json>,
    /// What the user calls the job; it need not be the only one of that name.
    #[serde(default, deserialize_with = "rules::name", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = limits::NAME_CHARS_MAX), regex(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")))]
    pub name: Option<String>,
    /// The pool of a site that the job is to run in; the site says which when this is absent. Other systems call it
    /// `runtime`.
    #[serde(default, alias = "runtime", deserialize_with = "rules::pool", skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What the job asks to have for itself; what its pool gives to every job when this is absent.
    #[serde(default, deserialize_with = "rules::resources", skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequest>,
    /// The longest that the job may run, in seconds; the cluster may allow less.
    #[serde(default, deserialize_with = "rules::seconds", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = u64::MAX)))]
    pub time_limit_seconds: Option<u64>,
    /// How often the job is tried again after its own task failed: by its exit code, a signal, the time limit, or an
    /// output that cannot be used. At most [`limits::RETRIES_MAX`] times, and not at all when this is absent.
    #[serde(default, deserialize_with = "rules::retries", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(max = limits::RETRIES_MAX)))]
    pub retries: Option<u32>,
    /// May the job be started again, as its next attempt, after one was cut off because the machine or the keeper of
    /// the runs went down? It may when this is absent; when it may not, its outcome is [`crate::Reason::Lost`].
    #[serde(default, deserialize_with = "rules::yes_or_no", skip_serializing_if = "Option::is_none")]
    pub rerunnable: Option<bool>,
    /// An earlier job that was the same workflow, or nearly: what is done of it is taken over, and not run again. Jobs
    /// that are no workflow take no notice.
    #[serde(default, deserialize_with = "rules::job_id", skip_serializing_if = "Option::is_none")]
    pub resume: Option<JobId>,
    /// The same key gives the same job id, so a repeated submission is one job.
    #[serde(default, deserialize_with = "rules::idempotency_key", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = limits::IDEMPOTENCY_KEY_BYTES_MAX), regex(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")))]
    pub idempotency_key: Option<String>,
    /// Whom the edge tells of the job, where it has a hub.
    #[serde(default, deserialize_with = "rules::callback", skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    /// Files that the job finds in its directory; they are in the store before the job is submitted. Of several with
    /// one content each has its own path.
    #[serde(default, deserialize_with = "rules::files", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = limits::FILES_COUNT_MAX), extend("type" = ["array", "null"])))]
    pub files: Vec<JobFile>,
    /// Files that the job leaves and its user wants to have.
    #[serde(default, deserialize_with = "rules::outputs", skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
    /// The input as a file in the store, where it is too large to travel in the message. The task finds it where it
    /// finds every input; `input` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_file: Option<Content>,
    /// Services of the site that the job uses while it runs: it waits until each of them is ready and has a place.
    #[serde(default, deserialize_with = "rules::needs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = limits::NEEDS_MAX), extend("type" = ["array", "null"])))]
    pub needs: Vec<Need>,
}

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

impl serde::de::Error for InvalidJob {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::Field { field: "job".to_owned(), problem: problem.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Field { field: field.to_owned(), problem: "is missing; a job needs it".to_owned() }
    }

    fn duplicate_field(field: &'static str) -> Self {
        // Of the same name the last one counts, so this is another name of the field.
        Self::Field { field: field.to_owned(), problem: "is given under two names; give one of them".to_owned() }
    }
}

impl From<NoFields> for InvalidJob {
    fn from(error: NoFields) -> Self {
        match error {
            NoFields::NotJson(error) => Self::NotJson(error),
            NoFields::NotAnObject => Self::NotAnObject,
        }
    }
}

impl JobSpec {
    /// Reads and checks a submission. Unknown fields are refused: a typing error in `time_limit_seconds` must not
    /// become a job without a limit.
    pub fn parse(text: &str) -> Result<Self, InvalidJob> {
        let fields = Fields::find(text)?;
        let (resources, callback) = (fields.get("resources"), fields.get("callback"));
        let (files, outputs) = (fields.get("files"), fields.get("outputs"));
        let spec: Self = fields.read(Unknown::RefusedIn("a job"))?;
        // The rules of these fields are also those of readers of messages, who pass over what they do not know.
        let strictly = |field: &str, read: Option<String>| match read {
            Some(problem) => Err(InvalidJob::Field { field: field.to_owned(), problem }),
            None => Ok(()),
        };
        strictly("resources", resources.and_then(|given| ResourceRequest::read(given.get(), true).err()))?;
        strictly("callback", callback.and_then(|given| Callback::read(given.get(), true).err()))?;
        strictly("files", files.and_then(|given| file::read_files(given.get(), true).err()))?;
        strictly("outputs", outputs.and_then(|given| Outputs::read(given.get(), true).err()))?;
        let two_inputs = spec.input_file.is_some() && spec.input != Json::null();
        strictly("input_file", two_inputs.then(|| "is given besides `input`; give one of them".to_owned()))?;
        Ok(spec)
    }

    /// Has the job anything to do with the store of files?
    pub fn has_files(&self) -> bool {
        self.needs_files() || self.outputs.is_some()
    }

    /// Are there files that have to be there before it can begin?
    pub fn needs_files(&self) -> bool {
        !self.files.is_empty() || self.input_file.is_some()
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

/// The rule for the name of a job: returns what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > limits::NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let max = limits::NAME_CHARS_MAX;
        return Err(format!("must be 1 to {max} characters, none of them a control character"));
    }
    Ok(())
}

/// The rule for the task of a job: returns what is wrong with it.
pub fn check_task(task: &str) -> Result<(), String> {
    if task.is_empty() || task.len() > limits::TASK_BYTES_MAX || task.chars().any(char::is_control) {
        let max = limits::TASK_BYTES_MAX;
        return Err(format!("must be 1 to {max} bytes without control characters"));
    }
    Ok(())
}

/// What is right in a field. What a rule says follows the field's name.
mod rules {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer};

    use serde_json::value::RawValue;

    use crate::file::{self, JobFile, Outputs};
    use crate::need::Need;
    use crate::{Callback, InvalidJobId, JobId, Json, PoolName, ResourceRequest, limits};

    pub(super) fn task<'de, D: Deserializer<'de>>(given: D) -> Result<String, D::Error> {
        let task = text(given)?;
        super::check_task(&task).map_err(D::Error::custom)?;
        Ok(task)
    }

    pub(super) fn object<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Json>, D::Error> {
        let value = Json::deserialize(given)?;
        if value.is_object() { Ok(Some(value)) } else { Err(D::Error::custom("must be an object")) }
    }

    pub(super) fn name<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
        let name = text(given)?;
        super::check_name(&name).map_err(D::Error::custom)?;
        Ok(Some(name))
    }

    pub(super) fn pool<'de, D: Deserializer<'de>>(given: D) -> Result<Option<PoolName>, D::Error> {
        text(given)?.parse().map(Some).map_err(D::Error::custom)
    }

    pub(super) fn resources<'de, D: Deserializer<'de>>(given: D) -> Result<Option<ResourceRequest>, D::Error> {
        let given = Box::<RawValue>::deserialize(given)?;
        ResourceRequest::read(given.get(), false).map(Some).map_err(D::Error::custom)
    }

    pub(super) fn callback<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Callback>, D::Error> {
        let given = Box::<RawValue>::deserialize(given)?;
        Callback::read(given.get(), false).map(Some).map_err(D::Error::custom)
    }

    pub(super) fn files<'de, D: Deserializer<'de>>(given: D) -> Result<Vec<JobFile>, D::Error> {
        let given = Box::<RawValue>::deserialize(given)?;
        file::read_files(given.get(), false).map_err(D::Error::custom)
    }

    pub(super) fn outputs<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Outputs>, D::Error> {
        let given = Box::<RawValue>::deserialize(given)?;
        Outputs::read(given.get(), false).map(Some).map_err(D::Error::custom)
    }

    pub(super) fn needs<'de, D: Deserializer<'de>>(given: D) -> Result<Vec<Need>, D::Error> {
        let given = Box::<RawValue>::deserialize(given)?;
        Need::read_all(given.get()).map_err(D::Error::custom)
    }

    pub(super) fn seconds<'de, D: Deserializer<'de>>(given: D) -> Result<Option<u64>, D::Error> {
        match u64::deserialize(given) {
            Ok(seconds) if seconds > 0 => Ok(Some(seconds)),
            _ => Err(D::Error::custom("must be a whole number of seconds, 1 or more")),
        }
    }

    pub(super) fn retries<'de, D: Deserializer<'de>>(given: D) -> Result<Option<u32>, D::Error> {
        match u32::deserialize(given) {
            Ok(retries) if retries <= limits::RETRIES_MAX => Ok(Some(retries)),
            _ => Err(D::Error::custom(format!("must be a whole number from 0 to {}", limits::RETRIES_MAX))),
        }
    }

    pub(super) fn yes_or_no<'de, D: Deserializer<'de>>(given: D) -> Result<Option<bool>, D::Error> {
        bool::deserialize(given).map(Some).map_err(|_| D::Error::custom("must be true or false"))
    }

    pub(super) fn job_id<'de, D: Deserializer<'de>>(given: D) -> Result<Option<JobId>, D::Error> {
        let refused = |_| D::Error::custom(format!("must be the id of a job: {InvalidJobId}"));
        text(given)?.parse().map(Some).map_err(refused)
    }

    pub(super) fn idempotency_key<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
        let key = text(given)?;
        super::check_idempotency_key(&key).map_err(D::Error::custom)?;
        Ok(Some(key))
    }

    fn text<'de, D: Deserializer<'de>>(given: D) -> Result<String, D::Error> {
        String::deserialize(given).map_err(|_| D::Error::custom("must be a string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (r#"{"task":"a","name":""}"#, "`name` must be 1 to 128 characters"),
            (r#"{"task":"a","name":"a\nb"}"#, "none of them a control character"),
            (r#"{"task":"a","name":7}"#, "`name` must be a string"),
            (r#"{"task":"a","pool":"GPU"}"#, "`pool` must be the name of a pool: 1 to 64 characters of a-z 0-9 -"),
            (r#"{"task":"a","pool":""}"#, "`pool`"),
            (r#"{"task":"a","pool":["gpu"]}"#, "`pool` must be a string"),
            (r#"{"task":"a","runtime":"../x"}"#, "`runtime` must be the name of a pool"),
            (r#"{"task":"a","runtime":"gpu","pool":"gpu"}"#, "`pool` is given under two names"),
            (r#"{"task":"a","resources":4}"#, "`resources` must be an object such as"),
            (
                r#"{"task":"a","resources":{"cpu":4}}"#,
                "`resources` has `cpu`, which is no field of resources; the fields are cpus, memory, gpus, nodes",
            ),
            (
                r#"{"task":"a","resources":{"cpus":0}}"#,
                "`resources` has `cpus`, which must be a whole number from 1 to 1000000",
            ),
            (r#"{"task":"a","resources":{"gpus":-1}}"#, "`resources` has `gpus`, which must be a whole number from 0"),
            (r#"{"task":"a","resources":{"nodes":1.5}}"#, "`resources` has `nodes`"),
            (
                r#"{"task":"a","resources":{"memory":"2G"}}"#,
                "`resources` has `memory`, which must be an amount of memory with its unit, as 2GiB",
            ),
            (r#"{"task":"a","resources":{"memory":8}}"#, "`resources` has `memory`"),
            (r#"{"task":"a","resources":{"memory":8e9}}"#, "`resources` has `memory`"),
            (r#"{"task":"a","time_limit_seconds":0}"#, "`time_limit_seconds`"),
            (r#"{"task":"a","time_limit_seconds":1.5}"#, "`time_limit_seconds`"),
            (r#"{"task":"a","retries":101}"#, "`retries` must be a whole number from 0 to 100"),
            (r#"{"task":"a","retries":-1}"#, "`retries`"),
            (r#"{"task":"a","retries":2.0}"#, "`retries`"),
            (r#"{"task":"a","retries":"2"}"#, "`retries`"),
            (r#"{"task":"a","rerunnable":1}"#, "`rerunnable` must be true or false"),
            (r#"{"task":"a","rerunnable":"false"}"#, "`rerunnable`"),
            (r#"{"task":"a","resume":"../a"}"#, "`resume` must be the id of a job"),
            (r#"{"task":"a","resume":1}"#, "`resume` must be a string"),
            (r#"{"task":"a","idempotency_key":""}"#, "`idempotency_key`"),
            (r#"{"task":"a","idempotency_key":7}"#, "`idempotency_key` must be a string"),
            (r#"{"task":"a","callback":"https://a.example"}"#, "`callback` must be an object such as"),
            (r#"{"task":"a","callback":{"url":"x","to":1}}"#, "`callback` has `to`, which is no field of callback"),
            (r#"{"task":"a","inputs":{}}"#, "`inputs` is no field of a job"),
            (r#"{"task":"a","files":{}}"#, "`files` must be a list of files such as"),
            (
                r#"{"task":"a","files":[{"path":"../a","size":1,"sha256":"HEX"}]}"#,
                "`files` has `path`, which must be a path",
            ),
            (
                r#"{"task":"a","files":[{"path":"a","size":1,"sha256":"x"}]}"#,
                "`files` has `sha256`, which must be a SHA-256",
            ),
            (
                r#"{"task":"a","files":[{"path":"a","size":1,"sha256":"HEX","mode":1}]}"#,
                "`files` has `mode`, which is no field of a file",
            ),
            (r#"{"task":"a","files":[{"path":"a","size":-1,"sha256":"HEX"}]}"#, "`files` has `size`"),
            (
                r#"{"task":"a","files":[{"path":"a","size":1,"sha256":"HEX"},{"path":"A","size":1,"sha256":"HEX"}]}"#,
                "`files` has `a` and `A`, which cannot be beside each other",
            ),
            (r#"{"task":"a","outputs":["*"]}"#, "`outputs` must be an object such as"),
            (r#"{"task":"a","outputs":{}}"#, "`outputs` has `patterns`, which is missing"),
            (r#"{"task":"a","outputs":{"patterns":[]}}"#, "`patterns`, which must be a list of 1 to 100 patterns"),
            (
                r#"{"task":"a","outputs":{"patterns":["/etc/*"]}}"#,
                "`patterns`, which has a pattern that must be a path",
            ),
            (r#"{"task":"a","outputs":{"patterns":["*"],"when":"never"}}"#, "`when`, which must be success or always"),
            (
                r#"{"task":"a","input":1,"input_file":{"size":1,"sha256":"HEX"}}"#,
                "`input_file` is given besides `input`",
            ),
            (r#"{"task":"a","needs":"vqpu"}"#, "`needs` must be a list of services such as"),
            (r#"{"task":"a","needs":["VQPU"]}"#, "`needs` has a service whose name must be the name of a service"),
            (r#"{"task":"a","needs":[{"qubits":{"min":2}}]}"#, "`needs` has a service without `service`"),
            (r#"{"task":"a","needs":["a",{"service":"a"}]}"#, "`needs` has the service a twice"),
            (r#"{"task":"a","needs":[{"service":"a","qubits":{"near":2}}]}"#, "`qubits`, which has `near`"),
            (r#"{"task":"a","needs":[{"service":"a","qubits":{}}]}"#, "`qubits`, which asks for nothing"),
            (r#"{"task":"a","needs":[{"service":"a","qubits":{"min":3,"max":2}}]}"#, "which nothing can be"),
            (r#"{"task":"a","needs":[{"service":"a","qubits":{"min":"3"}}]}"#, "`qubits`, which has `min`"),
            (r#"{"task":"a","needs":[{"service":"a","qubits":[3]}]}"#, "`qubits`, which must be"),
            (r#"{"task":"a","needs":[{"service":"a","Qubits":3}]}"#, "a fact whose name must be"),
        ] {
            let text = &text.replace("HEX", &"0".repeat(64));
            let error = JobSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(text.len() < 2 || !error.contains("column") || !error.contains('`'), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_given_is_kept_and_null_is_absent() {
        let given = r#"{"needs":["vqpu"],"callback":{"url":"https://a.example","events":null},"idempotency_key":"k","rerunnable":false,"resume":"j-1","retries":100,"time_limit_seconds":60,"resources":{"memory":"2GiB","gpus":null},"runtime":"qpu","name":"é","metadata":{ "n":1 },"input":[1.0],"task":"a"}"#;
        let spec = JobSpec {
            task: "a".to_owned(),
            input: Json::parse("[1.0]").unwrap(),
            metadata: Some(Json::parse(r#"{"n":1}"#).unwrap()),
            name: Some("é".to_owned()),
            pool: Some("qpu".parse().unwrap()),
            resources: Some(ResourceRequest { memory: Some("2GiB".parse().unwrap()), ..ResourceRequest::default() }),
            time_limit_seconds: Some(60),
            retries: Some(100),
            rerunnable: Some(false),
            resume: Some("j-1".parse().unwrap()),
            idempotency_key: Some("k".to_owned()),
            callback: Some(Callback {
                url: "https://a.example".to_owned(),
                events: None,
                format: None,
                reference: None,
            }),
            files: Vec::new(),
            outputs: None,
            input_file: None,
            needs: vec![Need::of("vqpu".parse().unwrap())],
        };
        assert_eq!(JobSpec::parse(given).unwrap(), spec);
        let nothing = r#"{"task":"a","input":null,"metadata":null,"name":null,"pool":null,"runtime":null,"resources":null,"time_limit_seconds":null,"retries":null,"rerunnable":null,"resume":null,"idempotency_key":null,"callback":null,"outputs":null,"input_file":null,"files":null,"needs":null}"#;
        let bare = JobSpec::parse(r#"{"task":"a"}"#).unwrap();
        assert_eq!(JobSpec::parse(nothing).unwrap(), bare);
        assert_eq!(serde_json::to_string(&bare).unwrap(), r#"{"task":"a","input":null}"#);
    }

    #[test]
    fn of_several_errors_an_unknown_name_comes_first_and_then_the_first_field() {
        let error = |text: &str| JobSpec::parse(text).unwrap_err().to_string();
        assert!(
            error(r#"{"zzz":1,"retries":-1}"#).starts_with("`zzz` is no field of a job; the fields are task, input")
        );
        assert!(error(r#"{"retries":-1,"metadata":1,"task":"a"}"#).starts_with("`metadata`"));
        assert!(error(&format!("{{\"{}\":1}}", "x".repeat(500))).len() < 280);
    }

    /// A field of [`JobSpec`] is a row of the table that users read, in the same order, and nothing else is.
    #[test]
    fn the_documentation_has_the_same_fields() {
        let error = JobSpec::parse(r#"{"?":1}"#).unwrap_err().to_string();
        let (_, known) = error.split_once("the fields are ").unwrap();
        let page = include_str!("../../../docs/protocol.md");
        let (_, table) = page.split_once("| field | type | meaning |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let documented: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
        assert_eq!(documented.join(", "), known);
    }
}
