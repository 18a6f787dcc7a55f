//! The call of another system for one task, `POST /api/worker/task/execute` of NoETL: its broker sends a task and waits
//! for what it returned.
//!
//! Here it becomes a job like any other, of the task `python`. The broker is answered in its own form when the job has
//! ended, and told at its `callback_url` on the way. What of it has no counterpart is refused by name, and never passed
//! over: a requirement that is not installed would be an error far away.

use protocol::hub::JobStatus;
use protocol::{Callback, CallbackFormat, JobResult, JobSpec, JobState, Json, PoolName, check_name};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::hub::Request;
use crate::{Problem, Response};

/// The path.
pub(crate) const PATH: &str = "/api/worker/task/execute";

/// The task that every such job runs; the site's file has to have it.
const TASK: &str = "python";

/// A little less than the broker waits.
const WAIT: std::time::Duration = std::time::Duration::from_secs(55);

/// The longest `execution_id`.
const EXECUTION_ID_CHARS_MAX: usize = 256;

/// What the broker sends. It may send more, which changes nothing.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "NoetlCall", extend("required" = ["task"])))]
pub(crate) struct Call<'a> {
    /// What to run.
    #[serde(borrow)]
    #[cfg_attr(test, schemars(with = "Task<'_>"))]
    task: Option<Task<'a>>,
    /// Nothing can be installed.
    #[serde(borrow, default)]
    #[cfg_attr(test, schemars(with = "Json", extend("enum" = [null, [], {}, "", false])))]
    requirements: Option<&'a RawValue>,
    /// Nothing can be installed.
    #[serde(default)]
    #[cfg_attr(test, schemars(extend("enum" = [false, null])))]
    allow_installs: Option<bool>,
    /// Who is told of each step, in the events of NoETL's worker.
    #[serde(default)]
    callback_url: Option<String>,
    /// By what the caller knows the job: a text or a number.
    #[serde(borrow, default)]
    #[cfg_attr(test, schemars(with = "Option<Json>"))]
    execution_id: Option<&'a RawValue>,
    /// The pool.
    #[serde(default)]
    #[cfg_attr(test, schemars(regex(pattern = "^([A-Za-z0-9][A-Za-z0-9-]{0,63})?$")))]
    runtime: Option<String>,
    /// Kept with the job, if it is an object.
    #[serde(borrow, default)]
    #[cfg_attr(test, schemars(with = "Option<Json>"))]
    context: Option<&'a RawValue>,
}

/// A task of NoETL.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "NoetlTask", extend("required" = ["type", "code"])))]
struct Task<'a> {
    /// Other types are not run here.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "String", extend("const" = "python")))]
    r#type: Option<String>,
    /// What the job is called.
    #[serde(default)]
    task: Option<String>,
    /// The same.
    #[serde(default)]
    name: Option<String>,
    /// It defines a function `main`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "String", length(min = 1)))]
    code: Option<String>,
    /// The keyword arguments of `main`.
    #[serde(borrow, default, rename = "with")]
    #[cfg_attr(test, schemars(with = "Option<std::collections::BTreeMap<String, Json>>"))]
    arguments: Option<&'a RawValue>,
    /// No template is filled in.
    #[serde(borrow, default)]
    #[cfg_attr(test, schemars(with = "Json", extend("enum" = [null, [], {}, "", false])))]
    r#return: Option<&'a RawValue>,
    /// The pool, if the call names none.
    #[serde(default)]
    #[cfg_attr(test, schemars(regex(pattern = "^([A-Za-z0-9][A-Za-z0-9-]{0,63})?$")))]
    runtime: Option<String>,
}

/// Somebody waits for the end of such a job.
#[derive(Debug)]
pub struct Waiting {
    /// What the hub is to be asked, on behalf of whoever waits.
    pub request: Request,
    execution_id: Option<String>,
    calls_back: bool,
}

impl Waiting {
    pub(crate) fn new(job_id: protocol::JobId, callback: Option<&Callback>, execution_id: Option<String>) -> Self {
        Self { request: Request::Status { job_id, wait: WAIT }, execution_id, calls_back: callback.is_some() }
    }
}

fn invalid(field: &str, what: &str) -> Problem {
    Problem::InvalidField { field: Some(field.to_owned()), detail: format!("`{field}` {what}") }
}

/// The job that the call asks for, and the id by which its sender knows it.
pub(crate) fn job(text: &str) -> Result<(JobSpec, Option<String>), Problem> {
    #[derive(Serialize)]
    struct Input<'a> {
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        args: Option<&'a RawValue>,
    }
    let call: Call<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let detail =
                format!("the body is no call of a task, {{\"task\": {{\"type\": \"python\", …}}, …}}: {error}");
            Problem::InvalidField { field: None, detail }
        }
        _ => Problem::MalformedJson { detail: format!("the body is not JSON: {error}") },
    })?;
    let task = call.task.ok_or_else(|| invalid("task", "is missing"))?;
    if task.r#type.as_deref() != Some("python") {
        return Err(invalid("task.type", "must be python: other types of tasks are not run here"));
    }
    let code = task.code.filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| invalid("task.code", "is missing; it defines a function `main`"))?;
    if !is_nothing(task.r#return) {
        return Err(invalid("task.return", "is a template, which is not filled in here; return the value from `main`"));
    }
    if !is_nothing(call.requirements) || call.allow_installs == Some(true) {
        return Err(invalid(
            "requirements",
            "cannot be installed: a job runs in the image of its pool, which has all that it needs",
        ));
    }
    let arguments = task.arguments.filter(|arguments| arguments.get() != "null");
    if arguments.is_some_and(|arguments| !arguments.get().starts_with('{')) {
        return Err(invalid("task.with", "must be an object: the keyword arguments of `main`"));
    }
    let pool = call.runtime.or(task.runtime).filter(|runtime| !runtime.is_empty());
    let pool: Option<PoolName> = match pool {
        Some(runtime) => {
            Some(runtime.to_ascii_lowercase().parse().map_err(|error| invalid("runtime", &format!("{error}")))?)
        }
        None => None,
    };
    let execution_id = call.execution_id.and_then(identifier);
    let callback = call.callback_url.filter(|url| !url.is_empty()).map(|url| Callback {
        url,
        events: Some(Callback::EVENTS.map(Into::into).to_vec()),
        format: Some(CallbackFormat::Noetl.into()),
        reference: execution_id.clone(),
    });
    let input = Input { code: &code, args: arguments };
    let spec = JobSpec {
        task: TASK.to_owned(),
        input: Json::from_serialize(&input).expect("it holds only strings and JSON"),
        metadata: call.context.and_then(|context| Json::parse(context.get()).ok()).filter(Json::is_object),
        name: task.task.or(task.name).filter(|name| check_name(name).is_ok()),
        pool,
        callback,
        ..JobSpec::default()
    };
    Ok((spec, execution_id))
}

/// An id is a text or a number.
fn identifier(given: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<String>(given.get()).ok();
    let number = || serde_json::from_str::<serde_json::Number>(given.get()).ok().map(|number| number.to_string());
    let id = text.or_else(number)?;
    Some(id.chars().filter(|c| !c.is_control()).take(EXECUTION_ID_CHARS_MAX).collect())
}

/// Is this not given, or empty?
fn is_nothing(given: Option<&RawValue>) -> bool {
    given.is_none_or(|given| matches!(given.get(), "null" | "[]" | "{}" | "\"\"" | "false"))
}

/// The answer to the broker.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "NoetlAnswer"))]
pub(crate) struct Answer<'a> {
    /// `success`, `error` or `in_progress`.
    status: &'a str,
    /// As it came.
    execution_id: Option<&'a str>,
    /// The id of the job.
    task_id: &'a str,
    /// What `main` returned.
    result: Outcome<'a>,
    /// Why it failed, in a sentence.
    error: Option<&'a str>,
    /// Is somebody called?
    callback_invoked: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "NoetlOutcome"))]
struct Outcome<'a> {
    id: &'a str,
    status: &'a str,
    data: Option<Json>,
    error: Option<&'a str>,
}

impl Waiting {
    /// What the broker is answered, from what the hub answers.
    pub fn answer(self, response: Response) -> Response {
        let Ok(status) = serde_json::from_str::<JobStatus>(&response.body) else { return response };
        let told = Told::of(&status);
        let task_id = status.brief.job_id.as_str();
        let answer = Answer {
            status: told.status,
            execution_id: self.execution_id.as_deref(),
            task_id,
            result: Outcome { id: task_id, status: told.status, data: told.data.clone(), error: told.error.as_deref() },
            error: told.error.as_deref(),
            callback_invoked: self.calls_back,
        };
        // It goes on, and `GET /jobs/ID` tells of it.
        Response::of(if told.has_ended { 200 } else { 202 }, &answer)
    }
}

/// How a job is, in the other system's words.
struct Told {
    status: &'static str,
    has_ended: bool,
    data: Option<Json>,
    error: Option<String>,
}

impl Told {
    fn of(status: &JobStatus) -> Self {
        let result = status.result.as_ref().and_then(|json| JobResult::parse(json.as_str()).ok());
        let state = status.brief.state.known();
        let has_ended = state.is_some_and(JobState::has_ended);
        let word = match state {
            Some(JobState::Completed) => "success",
            Some(JobState::Failed | JobState::Cancelled) => "error",
            _ => "in_progress",
        };
        let message = status.message.clone().or_else(|| status.brief.reason.clone());
        Self {
            status: word,
            has_ended,
            data: result.and_then(|result| result.output),
            error: message.filter(|_| word == "error"),
        }
    }
}

/// The body of a call to the `callback_url`: `event` is a state, or `final`.
pub(crate) fn told(event: &str, status: &JobStatus, reference: Option<&str>, timestamp: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        event_id: String,
        event_type: &'a str,
        execution_id: Option<&'a str>,
        task_id: &'a str,
        task_name: &'a str,
        node_type: &'a str,
        status: &'a str,
        duration: Option<f64>,
        context: Option<()>,
        output_result: Option<&'a Json>,
        metadata: Metadata<'a>,
        parent_event_id: Option<()>,
        timestamp: &'a str,
        #[serde(flatten)]
        last: Option<Last<'a>>,
    }
    #[derive(Serialize)]
    struct Metadata<'a> {
        pool: Option<&'a str>,
        site: Option<&'a str>,
        attempt: u32,
    }
    #[derive(Serialize)]
    struct Last<'a> {
        result: Option<&'a Json>,
        error: Option<&'a str>,
        install: Install,
    }
    #[derive(Serialize)]
    struct Install {
        attempted: bool,
        installed: [String; 0],
    }
    let told = Told::of(status);
    let job_id = status.brief.job_id.as_str();
    let event_type = match event {
        "held" => "task_execute",
        "running" => "task_start",
        "completed" => "task_complete",
        FINAL => "task_final",
        _ => "task_error",
    };
    let ends = !matches!(event, "held" | "running");
    let started = status.timeline.iter().rfind(|moment| moment.event == "running").map(|moment| moment.at);
    let duration = started.map(|at| status.brief.updated_at.duration_since(at).as_secs_f64());
    let last = Last {
        result: told.data.as_ref(),
        error: told.error.as_deref(),
        install: Install { attempted: false, installed: [] },
    };
    let body = Body {
        event_id: format!("{job_id}.{event}"),
        event_type,
        execution_id: reference,
        task_id: job_id,
        task_name: status.brief.name.as_deref().unwrap_or(TASK),
        node_type: TASK,
        status: if ends { told.status } else { "in_progress" },
        duration: duration.filter(|_| ends),
        context: None,
        output_result: told.data.as_ref().filter(|_| ends),
        metadata: Metadata {
            pool: status.brief.pool.as_ref().map(PoolName::as_str),
            site: status.brief.site.as_ref().map(protocol::SiteName::as_str),
            attempt: status.brief.attempt,
        },
        parent_event_id: None,
        timestamp,
        last: (event == FINAL).then_some(last),
    };
    serde_json::to_string(&body).expect("it holds only strings, numbers and JSON")
}

/// The event after the one of an end.
pub(crate) const FINAL: &str = "final";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(call: &Value) -> Option<String> {
        match job(&call.to_string()) {
            Err(Problem::InvalidField { field, .. }) => Some(field.unwrap_or_default()),
            Err(other) => panic!("{other:?}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn a_call_becomes_a_job_of_the_task_python() {
        let call = json!({
            "task": {"type": "python", "task": "grover", "code": "def main(n): return n", "with": {"n": 4}, "return": null},
            "context": {"workload": 1}, "requirements": [], "allow_installs": false, "runtime": "QPU",
            "callback_url": "https://noetl.example/events", "execution_id": 77, "something": "else"
        });
        let (spec, execution_id) = job(&call.to_string()).unwrap();
        assert_eq!(
            (spec.task.as_str(), spec.name.as_deref(), execution_id.as_deref()),
            ("python", Some("grover"), Some("77"))
        );
        assert_eq!(spec.input.as_str(), r#"{"code":"def main(n): return n","args":{"n":4}}"#);
        assert_eq!(spec.pool, Some("qpu".parse().unwrap()));
        let callback = spec.callback.unwrap();
        assert_eq!((callback.reference.as_deref(), callback.format), (Some("77"), Some(CallbackFormat::Noetl.into())));
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_name() {
        let with = |name: &str, value: Value| {
            let mut call = json!({"task": {"type": "python", "code": "def main(): pass"}});
            match name.split_once('.') {
                Some((task, name)) => call[task][name] = value,
                None => call[name] = value,
            }
            call
        };
        assert_eq!(refused(&with("x", json!(1))), None);
        for (name, value) in [
            ("task.type", json!("duckdb")),
            ("task.type", Value::Null),
            ("task.code", Value::Null),
            ("task.return", json!("{{ result }}")),
            ("task.with", json!([1])),
            ("requirements", json!(["qiskit"])),
            ("runtime", json!("a b")),
        ] {
            assert_eq!(refused(&with(name, value)).as_deref(), Some(name));
        }
        assert_eq!(refused(&with("allow_installs", json!(true))).as_deref(), Some("requirements"));
        assert_eq!(refused(&json!({})).as_deref(), Some("task"));
        assert!(matches!(job("{"), Err(Problem::MalformedJson { .. })));
    }

    #[test]
    fn the_broker_is_answered_in_its_own_words() {
        let status = |state: &str, result: Value| {
            let body = json!({"job_id": "j", "state": state, "attempt": 1, "updated_at": "2026-11-30T04:00:03Z",
                "timeline": [{"at": "2026-11-30T04:00:01Z", "event": "running", "attempt": 1}], "result": result,
                "message": "it broke"});
            Response::json(200, body.to_string())
        };
        let answer = |response: Response| {
            let callback =
                Callback { url: "https://a.example".to_owned(), events: None, format: None, reference: None };
            let waiting = Waiting::new("j".parse().unwrap(), Some(&callback), Some("7".to_owned()));
            let answer = waiting.answer(response);
            (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap())
        };
        let done = json!({"job_id": "j", "status": "completed", "output": {"a": 1}});
        let (code, body) = answer(status("completed", done.clone()));
        let expected = json!({"status": "success", "execution_id": "7", "task_id": "j", "error": null, "callback_invoked": true,
            "result": {"id": "j", "status": "success", "data": {"a": 1}, "error": null}});
        assert_eq!((code, body), (200, expected));
        let (code, body) = answer(status("failed", json!({"job_id": "j", "status": "failed"})));
        assert_eq!((code, &body["status"], &body["error"]), (200, &json!("error"), &json!("it broke")));
        let (code, body) = answer(status("running", Value::Null));
        assert_eq!((code, &body["status"], &body["error"]), (202, &json!("in_progress"), &Value::Null));
        let problem = Problem::HubBusy.response();
        assert_eq!(answer(problem.clone()).0, problem.status);

        let status: JobStatus = serde_json::from_str(&status("completed", done).body).unwrap();
        let told = |event| serde_json::from_str::<Value>(&told(event, &status, Some("7"), "t")).unwrap();
        let running = told("running");
        assert_eq!((&running["event_type"], &running["status"]), (&json!("task_start"), &json!("in_progress")));
        assert_eq!((&running["output_result"], running.get("install")), (&Value::Null, None));
        let end = told(FINAL);
        assert_eq!(
            (&end["event_type"], &end["status"], &end["result"]),
            (&json!("task_final"), &json!("success"), &json!({"a": 1}))
        );
        assert_eq!((&end["duration"], &end["install"]["attempted"]), (&json!(2.0), &json!(false)));
    }
}
