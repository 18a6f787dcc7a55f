//! The runtime `bare`: the command as it is. It isolates nothing.

use std::ffi::OsString;
use std::path::Path;

use protocol::{JobId, RuntimeKind};

use super::programs::{is_executable, missing, on_path};
use super::{CommandLine, Wrapping};

/// A command without a container.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) command: Vec<String>,
    pub(crate) inherited: Vec<(OsString, OsString)>,
}

impl Bare {
    pub(super) fn command(&self, job_id: &JobId, job_dir: &Path) -> (CommandLine, Wrapping) {
        let mut environment = self.inherited.clone();
        environment.push(("WORK_DIR".into(), job_dir.into()));
        environment.push(("JOB_ID".into(), job_id.as_str().into()));
        let words = self.command.iter().map(OsString::from).collect();
        let command = CommandLine { words, environment, directory: job_dir.to_owned() };
        (command, Wrapping { runtime: RuntimeKind::Bare, image: None, hook: false })
    }

    /// Is the program there? A missing one would fail every job of the queue.
    pub(super) fn probe(&self) -> Result<(), String> {
        let program = &self.command[0];
        let path = self.inherited.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let found = if program.contains('/') {
            // A relative path is relative to the job directory, which is not there yet.
            Path::new(program).is_relative() || is_executable(Path::new(program))
        } else {
            on_path(&path.unwrap_or_default(), Path::new(program)).is_some()
        };
        if found {
            return Ok(());
        }
        Err(missing(&self.command, "on this node"))
    }
}
