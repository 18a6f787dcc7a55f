//! Whether this node can run jobs, and what it was seen in: the evidence in favor of a run that failed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::{Finished, Problem, RunEnd};

use super::files::ResultsDir;
use super::now;
use crate::run::Runtime;
use crate::{blocking, lock};

/// A run that failed so near to a trouble of the node is not blamed: the node may have been well again when it was
/// looked at.
const TROUBLE_REACHES: Duration = Duration::from_secs(60);

/// The node, as it was seen.
#[derive(Debug)]
pub(super) struct Health {
    results: ResultsDir,
    runtime: Arc<Runtime>,
    /// The last trouble that a probe has found, and when, in milliseconds since the Unix epoch. What only one job has
    /// met is no evidence: its directory may be the trouble.
    trouble: Mutex<Option<(i64, String)>>,
}

impl Health {
    pub(super) fn new(results: ResultsDir, runtime: Arc<Runtime>) -> Self {
        Self { results, runtime, trouble: Mutex::default() }
    }

    /// Is all there that a job needs?
    pub(super) async fn probe(&self) -> Result<(), Problem> {
        let results = self.results.clone();
        let probed = match blocking(move || results.probe()).await {
            Ok(scratch) => self.runtime.probe(&scratch).await,
            Err(problem) => Err(problem),
        };
        probed.inspect_err(|problem| self.met(problem)).map_err(Problem::from)
    }

    /// Can files be made?
    pub(super) fn probe_files(&self) -> Result<PathBuf, String> {
        self.results.probe().inspect_err(|problem| self.met(problem))
    }

    /// Can files be made now, and was there no trouble when a run ended?
    pub(super) fn probe_files_about(&self, ended_at_ms: i64) -> Result<PathBuf, String> {
        let scratch = self.probe_files()?;
        self.trouble_near(ended_at_ms).map_or(Ok(scratch), Err)
    }

    /// After a run that failed: was it the node? What the run itself says is not evidence enough.
    pub(super) async fn exonerate(&self, finished: &Finished) -> Result<(), Problem> {
        match &finished.end {
            RunEnd::Exit(0) | RunEnd::TimeLimit | RunEnd::MemoryLimit | RunEnd::EndedBy(_) => return Ok(()),
            RunEnd::NotStarted(problem) => return Err(format!("the job cannot be started: {problem}").into()),
            RunEnd::Exit(_) | RunEnd::Signal(_) => {}
        }
        let results = self.results.clone();
        let scratch = blocking(move || results.probe()).await.inspect_err(|problem| self.met(problem))?;
        if let Some(problem) = self.trouble_near(finished.finished_at_ms) {
            return Err(problem.into());
        }
        if self.runtime.suspects_itself(&finished.end, &finished.stderr_tail) {
            self.runtime.probe(&scratch).await.inspect_err(|problem| self.met(problem))?;
        }
        Ok(())
    }

    /// Remembers that the node is in trouble.
    pub(super) fn met(&self, problem: &str) {
        *lock(&self.trouble) = Some((now().as_millisecond(), problem.to_owned()));
    }

    /// The trouble that the node was in when a run ended, or shortly before or after.
    fn trouble_near(&self, ended_at_ms: i64) -> Option<String> {
        let trouble = lock(&self.trouble);
        let (met_at_ms, problem) = trouble.as_ref()?;
        let distance = Duration::from_millis(met_at_ms.abs_diff(ended_at_ms));
        (distance <= TROUBLE_REACHES).then(|| format!("about when the run ended, {problem}"))
    }
}
