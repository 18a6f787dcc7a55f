//! A task: what it is called, what it runs, which files it reads and writes.

use protocol::{JobSpec, Json, Need, ResourceRequest, WorkPath};
use serde::Serialize;

/// The number of a task: its place in the document, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskNo(u32);

impl TaskNo {
    /// The task at this place. Whether a workflow has it, [`crate::Workflow::get`] says.
    pub fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its place.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("there are no more than limits::TASKS_MAX tasks"))
    }
}

/// The number of a file of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(pub(crate) u32);

impl FileNo {
    /// Its place in [`crate::Workflow::files`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A task of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it is called in the document; no other task of the workflow has the same.
    pub id: String,
    /// What kind of work it is, as `mProject`: the `task` of its job, by which a site says where it runs.
    pub name: String,
    /// What it runs.
    pub command: Command,
    /// The files that it reads.
    pub inputs: Vec<FileNo>,
    /// The files that it has written when it is done.
    pub outputs: Vec<FileNo>,
    /// The tasks that it waits for, by their places, without repetitions.
    pub parents: Vec<TaskNo>,
    /// How many processors it asks for; as many as its pool gives where that is absent.
    pub cpus: Option<u32>,
    /// The services that it needs.
    pub needs: Vec<Need>,
    /// How long it took when the workflow was run and written down, in seconds.
    pub seconds: Option<f64>,
}

/// What a task runs, in the directory of the workflow. No shell looks at the words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// The program: a name that is looked for, or a path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its standard output goes, instead of into the log of the job.
    pub stdout: Option<WorkPath>,
    /// The same of its standard error. It may be the same file.
    pub stderr: Option<WorkPath>,
}

impl Command {
    /// The words to start. Where a stream goes into a file, a shell opens that and becomes the program; it looks at
    /// nothing else, and leaves no variable behind.
    pub fn argv(&self) -> Vec<&str> {
        let mut words = Vec::new();
        let mut through = |script, file| words.extend(["/bin/sh", "-c", script, file]);
        match (&self.stdout, &self.stderr) {
            (Some(out), Some(err)) if out == err => through(r#"exec "$@" >"$0" 2>&1"#, out.as_str()),
            (out, err) => {
                out.iter().for_each(|file| through(r#"exec "$@" >"$0""#, file.as_str()));
                err.iter().for_each(|file| through(r#"exec "$@" 2>"$0""#, file.as_str()));
            }
        }
        words.push(&self.program);
        words.extend(self.arguments.iter().map(String::as_str));
        words
    }
}

/// What a task of the kind `command` takes.
#[derive(Serialize)]
struct Input<'a> {
    argv: Vec<&'a str>,
}

impl Task {
    /// The job that the task is: of the task that its name says, which has to be one of the kind `command`
    /// (`docs/site.md`), and called by its id. The directory that it runs in is not in it.
    pub fn job(&self) -> JobSpec {
        let input = Json::from_serialize(&Input { argv: self.command.argv() }).expect("texts in a list are JSON");
        let resources = self.cpus.map(|cpus| ResourceRequest { cpus: Some(cpus), ..ResourceRequest::default() });
        let (name, needs) = (Some(self.id.clone()), self.needs.clone());
        JobSpec { task: self.name.clone(), input, name, resources, needs, ..JobSpec::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_into_a_file_by_a_shell_that_reads_no_word_of_the_command() {
        let command = |out: Option<&str>, err: Option<&str>| Command {
            program: "p".to_owned(),
            arguments: vec!["$(x) 'y'".to_owned(), String::new()],
            stdout: out.map(|path| path.parse().unwrap()),
            stderr: err.map(|path| path.parse().unwrap()),
        };
        let sh = |script, file| vec!["/bin/sh", "-c", script, file];
        let words = vec!["p", "$(x) 'y'", ""];
        for (out, err, before) in [
            (None, None, vec![]),
            (Some("o"), None, sh(r#"exec "$@" >"$0""#, "o")),
            (None, Some("e"), sh(r#"exec "$@" 2>"$0""#, "e")),
            (Some("o"), Some("o"), sh(r#"exec "$@" >"$0" 2>&1"#, "o")),
            (Some("o"), Some("e"), [sh(r#"exec "$@" >"$0""#, "o"), sh(r#"exec "$@" 2>"$0""#, "e")].concat()),
        ] {
            assert_eq!(command(out, err).argv(), [before, words.clone()].concat(), "{out:?} {err:?}");
        }
    }
}
