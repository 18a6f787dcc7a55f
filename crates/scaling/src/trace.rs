//! A workflow as WfCommons write it (WfFormat 1.5): tasks, what each waits for, and how long it ran.

use std::collections::HashMap;

use serde::Deserialize;

/// A workflow that was run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Its tasks.
    pub tasks: Vec<Task>,
}

/// A task that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The program, without what tells one call of it from another.
    pub name: String,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// The tasks that it waits for, by their places.
    pub parents: Vec<usize>,
}

/// A text that is no such trace.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTrace {
    /// It is not JSON, or no trace.
    #[error("it is no trace in WfFormat 1.5: {0}")]
    Format(#[from] serde_json::Error),
    /// A task waits for one that is not there.
    #[error("the task {task} waits for {parent}, which is not in the trace")]
    NoParent {
        /// Which task.
        task: String,
        /// What it waits for.
        parent: String,
    },
    /// Tasks wait for each other.
    #[error("the tasks of the trace wait for each other in a circle, {0} among them")]
    Circle(String),
    /// A task did not run for any time that there is.
    #[error("the task {0} has a run time that is no time")]
    Time(String),
}

#[derive(Deserialize)]
struct Document {
    workflow: Workflow,
}

#[derive(Deserialize)]
struct Workflow {
    specification: Specification,
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Specified>,
}

#[derive(Deserialize)]
struct Specified {
    id: String,
    name: String,
    #[serde(default)]
    parents: Vec<String>,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: f64,
}

impl Trace {
    /// Reads a trace.
    pub fn parse(text: &str) -> Result<Self, InvalidTrace> {
        let document: Document = serde_json::from_str(text)?;
        let ran: HashMap<String, f64> =
            document.workflow.execution.tasks.into_iter().map(|task| (task.id, task.runtime_in_seconds)).collect();
        let specified = document.workflow.specification.tasks;
        let places: HashMap<&str, usize> =
            specified.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
        let tasks = specified.iter().map(|task| {
            let parent = |parent: &String| {
                let no_parent = || InvalidTrace::NoParent { task: task.id.clone(), parent: parent.clone() };
                places.get(parent.as_str()).copied().ok_or_else(no_parent)
            };
            let seconds = ran.get(&task.id).copied().unwrap_or_default();
            if !(0.0..1e9).contains(&seconds) {
                return Err(InvalidTrace::Time(task.id.clone()));
            }
            let parents = task.parents.iter().map(parent).collect::<Result<_, _>>()?;
            Ok(Task { name: program(&task.name).to_owned(), seconds, parents })
        });
        let trace = Self { tasks: tasks.collect::<Result<_, InvalidTrace>>()? };
        trace.check_circles(&specified)?;
        Ok(trace)
    }

    fn check_circles(&self, specified: &[Specified]) -> Result<(), InvalidTrace> {
        let mut waits: Vec<usize> = self.tasks.iter().map(|task| task.parents.len()).collect();
        let children = self.children();
        let mut ready: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
        while let Some(at) = ready.pop() {
            for child in &children[at] {
                waits[*child] -= 1;
                if waits[*child] == 0 {
                    ready.push(*child);
                }
            }
        }
        match waits.iter().position(|waits| *waits > 0) {
            Some(at) => Err(InvalidTrace::Circle(specified[at].id.clone())),
            None => Ok(()),
        }
    }

    /// What waits for each task.
    pub(crate) fn children(&self) -> Vec<Vec<usize>> {
        let mut children = vec![Vec::new(); self.tasks.len()];
        for (at, task) in self.tasks.iter().enumerate() {
            task.parents.iter().for_each(|parent| children[*parent].push(at));
        }
        children
    }

    /// How long all tasks ran, one after the other, in seconds.
    pub fn work(&self) -> f64 {
        self.tasks.iter().map(|task| task.seconds).sum()
    }
}

/// `mProject_ID0000001` and `cpuhog_forkjoin_00000002` are calls of `mProject` and `cpuhog_forkjoin`.
fn program(name: &str) -> &str {
    let end = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if end.len() == name.len() {
        return name;
    }
    let end = end.strip_suffix("_ID").or_else(|| end.strip_suffix('_')).unwrap_or(name);
    if end.is_empty() { name } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(tasks: &str, ran: &str) -> Result<Trace, InvalidTrace> {
        let text =
            format!(r#"{{"workflow":{{"specification":{{"tasks":[{tasks}]}},"execution":{{"tasks":[{ran}]}}}}}}"#);
        Trace::parse(&text)
    }

    #[test]
    fn names_lose_what_tells_calls_apart() {
        for (name, expected) in [
            ("mProject_ID0000001", "mProject"),
            ("cpuhog_forkjoin_00000002", "cpuhog_forkjoin"),
            ("h264", "h264"),
            ("_7", "_7"),
        ] {
            assert_eq!(program(name), expected);
        }
    }

    #[test]
    fn what_is_no_trace_is_said() {
        let a = r#"{"id":"a","name":"x_1","parents":[]}"#;
        let read =
            trace(&format!(r#"{a},{{"id":"b","name":"y","parents":["a"]}}"#), r#"{"id":"b","runtimeInSeconds":2}"#);
        let read = read.unwrap();
        assert_eq!(
            (read.tasks[0].name.as_str(), read.tasks[1].parents.as_slice(), read.work()),
            ("x", [0].as_slice(), 2.0)
        );
        let says = |tasks: &str, ran: &str| trace(tasks, ran).unwrap_err().to_string();
        assert!(says(r#"{"id":"a","name":"x","parents":["z"]}"#, "").contains("a waits for z"));
        assert!(says(r#"{"id":"a","name":"x","parents":["a"]}"#, "").contains("in a circle, a among them"));
        assert!(says(a, r#"{"id":"a","runtimeInSeconds":-1}"#).contains("no time"));
        assert!(Trace::parse("{}").unwrap_err().to_string().contains("WfFormat 1.5"));
    }
}
