//! The tasks that this image knows, by name. One module each: a pure function from the input to the output.

mod echo;
mod simulate;
mod summarize;

use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::TaskError;

/// One named recipe.
pub(crate) struct Task {
    /// The `task` of a job.
    pub(crate) name: &'static str,
    /// One line for `--help`.
    pub(crate) help: &'static str,
    /// From the job's `input` (and the work directory, to which paths are relative) to the text of `output.json`.
    pub(crate) run: fn(&RawValue, &Path) -> Result<String, TaskError>,
}

/// All of them.
pub(crate) static TASKS: [Task; 3] = [
    Task {
        name: "echo",
        help: "gives its input back, unchanged",
        run: |input, _work_dir| Ok(echo::run(input).get().to_owned()),
    },
    Task {
        name: "simulate",
        help: "random walkers on a lattice, checked against the exact law of diffusion",
        run: |input, _work_dir| simulate::run(input).map(|output| json(&output)),
    },
    Task {
        name: "summarize",
        help: "statistics of every numeric column of a CSV file",
        run: |input, work_dir| summarize::run(input, work_dir).map(|output| json(&output)),
    },
];

/// The task of that name.
pub(crate) fn find(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name)
}

/// The names of all tasks, for a message.
pub(crate) fn names() -> String {
    let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
    names.join(", ")
}

fn json<T: Serialize>(output: &T) -> String {
    serde_json::to_string(output).expect("numbers, strings and lists of them make JSON")
}
