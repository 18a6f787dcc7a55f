//! The tasks that this image knows, by name. One module each: a pure function from the input to the output, and `plot`,
//! which draws what one of them has found.

mod command;
mod echo;
mod plot;
mod python;
mod simulate;
mod summarize;

use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::TaskError;
use crate::work_dir;

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
        help: "random walkers on a lattice, checked against the exact law of diffusion, with a plot",
        run: |input, work_dir| {
            let (output, plot) = simulate::run(input)?;
            work_dir::write(work_dir, simulate::PLOT, &plot)?;
            Ok(json(&output))
        },
    },
    Task {
        name: "summarize",
        help: "statistics of every numeric column of a CSV file",
        run: |input, work_dir| summarize::run(input, work_dir).map(|output| json(&output)),
    },
];

/// What a job brings by itself. A site says for which of its tasks, and then starts this program with the word: by the
/// name of a task alone no job gets there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A command or a script.
    Command,
    /// A function in Python.
    Python,
}

impl Kind {
    /// The kind that an argument of this program names.
    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "command" => Some(Self::Command),
            "python" => Some(Self::Python),
            _ => None,
        }
    }

    /// Runs what the input brings: the text of `output.json`, and with which exit code to end. Of Python nothing comes
    /// back: it writes its output by itself.
    pub(crate) fn run(self, input: &RawValue, work_dir: &Path) -> Result<(String, u8), TaskError> {
        match self {
            Self::Command => command::run(input, work_dir),
            Self::Python => Err(python::run(input, work_dir)),
        }
    }
}

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
