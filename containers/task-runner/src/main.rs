//! The task runner: the default `CONTAINER_CMD` of the runtime image.
//!
//! It reads `$WORK_DIR/input.json`, runs the task that the job names, and leaves `$WORK_DIR/output.json` behind, whole
//! or not at all. It knows nothing of queues, leases or retries: those belong to the daemon outside of the container.
//!
//! Invariants: exit code 0 means that `output.json` is complete and synced. Exit code 2 means that the job itself must
//! be changed, and one sentence on stderr says which field and how. Exit code 1 means that the machine failed. The same
//! job gives the same bytes on every machine.

mod config;
mod error;
mod fields;
mod tasks;
mod work_dir;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use error::TaskError;
use fields::{Fields, shortened};
use serde_json::value::RawValue;
use tasks::Kind;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let kind = if let [word] = arguments.as_slice() { Kind::named(word) } else { None };
    let outcome = match (arguments.as_slice(), kind) {
        (_, Some(kind)) => match run_kind(kind, &config::work_dir()) {
            // What the job brings prints for itself.
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        ([], _) => run(&config::work_dir()),
        (["-h" | "--help"], _) => Ok(help()),
        (["-V" | "--version"], _) => Ok(format!("task-runner {}", env!("CARGO_PKG_VERSION"))),
        _ => Err(TaskError::BadJob(
            "it takes no arguments but `command` or `python`: the task stands in input.json. Try `task-runner --help`."
                .to_owned(),
        )),
    };
    // A log that cannot be written must not change how the job ended.
    match outcome {
        Ok(sentence) => {
            let _ = writeln!(std::io::stdout(), "{sentence}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "task-runner: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the job in the work directory, and says what was done.
fn run(work_dir: &Path) -> Result<String, TaskError> {
    let text = work_dir::read_input(work_dir)?;
    let job = Fields::open(&text, "")?;
    let name = job.text("task")?.ok_or_else(|| job.invalid("task", "is missing; it names what to run"))?;
    let task = tasks::find(&name).ok_or_else(|| {
        job.invalid(
            "task",
            format!("is {:?}, which this image does not know; it knows {}", shortened(&name), tasks::names()),
        )
    })?;
    let output = (task.run)(job.given("input").unwrap_or(RawValue::NULL), work_dir)?;
    work_dir::write(work_dir, work_dir::OUTPUT, &output)?;
    Ok(format!("task {name} wrote output.json ({} bytes)", output.len()))
}

/// Runs what the job brings, whatever its task is called; returns the exit code.
fn run_kind(kind: Kind, work_dir: &Path) -> Result<u8, TaskError> {
    let text = work_dir::read_input(work_dir)?;
    let job = Fields::open(&text, "")?;
    let (output, code) = kind.run(job.given("input").unwrap_or(RawValue::NULL), work_dir)?;
    work_dir::write(work_dir, work_dir::OUTPUT, &output)?;
    Ok(code)
}

fn help() -> String {
    let mut text = "Runs the job that $WORK_DIR/input.json describes, and writes $WORK_DIR/output.json.\n\n\
        Usage: task-runner [command | python | --help | --version]\n\nTasks:\n"
        .to_owned();
    for task in &tasks::TASKS {
        text.push_str(&format!("  {:<11}{}\n", task.name, task.help));
    }
    text.push_str(
        "\nWith an argument, what the job brings is run, whatever its task is called:\n  \
           command    argv or script, with files and stdin; the output has exit_code, stdout and stderr\n  \
           python     code that defines main, called with args; the output is what it returns\n\
         \nEnvironment:\n  \
           WORK_DIR   where input.json is and output.json goes [default: /work]\n\n\
         Exit codes: 0 done, 1 the machine failed, 2 the job must be changed; stderr says why.\n\
         That of a command is its own.",
    );
    text
}
