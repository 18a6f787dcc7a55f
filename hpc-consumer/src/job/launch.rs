//! How a run is begun: the command with its environment, its limits, and the marks by which its processes are found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Run;
use protocol::JobMessage;

use super::results_dir::ResultsDir;
use crate::run::{CommandLine, Limits, Runtime, Wrapping};

/// All that is needed to begin a run.
#[derive(Debug, Clone)]
pub(crate) struct StartLine {
    pub(crate) run: Run,
    pub(crate) command: CommandLine,
    /// Variables that all its processes have from their start; they are in the environment of the command.
    pub(crate) marks: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// The directory for `stdout.log` and `stderr.log`.
    pub(crate) logs: PathBuf,
    /// The final record, which must not be there before the run has ended.
    pub(crate) record: PathBuf,
    pub(crate) wrapping: Wrapping,
}

/// From a job to the begin of its run.
#[derive(Debug)]
pub(super) struct Launcher {
    results: ResultsDir,
    runtime: Arc<Runtime>,
    limits: Limits,
}

impl Launcher {
    pub(super) fn new(results: ResultsDir, runtime: Arc<Runtime>, limits: Limits) -> Self {
        Self { results, runtime, limits }
    }

    /// How the keeper is to begin a run.
    pub(super) fn start_line(&self, job: &JobMessage, run: &Run) -> StartLine {
        let directory = self.results.job_dir(&run.job_id);
        let (mut command, wrapping) = self.runtime.command(&run.job_id, &directory);
        // Not what a job may set anew, or what may be no text: a keeper of an earlier version knows its runs by these.
        let marks = vec![("HPC_QUEUE_RUN".to_owned(), run.to_string())];
        // A container clears what its runtime was started with, so this tells nothing to the job in it.
        for (name, value) in &marks {
            if !command.environment.iter().any(|(known, _)| known == name.as_str()) {
                command.environment.push((name.into(), value.into()));
            }
        }
        let limits = Limits { time: self.time_limit(job), ..self.limits.clone() };
        let record = self.results.record_path(&run.job_id);
        StartLine { run: run.clone(), command, marks, limits, logs: directory, record, wrapping }
    }

    /// The longest that a job may run: what it asked for, where the node allows as much.
    pub(super) fn time_limit(&self, job: &JobMessage) -> Duration {
        let asked = job.spec.time_limit_seconds.map_or(Duration::MAX, Duration::from_secs);
        self.limits.time.min(asked)
    }
}
