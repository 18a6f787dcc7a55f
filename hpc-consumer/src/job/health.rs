//! Whether this node can run jobs, and what it was seen in: the evidence in favor of a run that failed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::{Blame, Evidence, Finished, Problem, RunEnd, blame};

use super::now;
use super::results_dir::ResultsDir;
use crate::run::{Required, Runtime, check};
use crate::{blocking, lock};

/// A run that failed so near to a trouble of the node is not blamed: the node may have been well again when it was
/// looked at.
const TROUBLE_REACHES: Duration = Duration::from_secs(60);

/// The node, as it was seen.
#[derive(Debug)]
pub(super) struct Health {
    results: ResultsDir,
    runtime: Arc<Runtime>,
    /// What the isolation of jobs must have.
    require: Vec<Required>,
    /// The last trouble that a probe has found, and when, in milliseconds since the Unix epoch. What only one job has
    /// met is no evidence: its directory may be the trouble.
    trouble: Mutex<Option<(i64, String)>>,
    /// A job has ended well.
    has_worked: AtomicBool,
}

impl Health {
    pub(super) fn new(results: ResultsDir, runtime: Arc<Runtime>, require: Vec<Required>) -> Self {
        Self { results, runtime, require, trouble: Mutex::default(), has_worked: AtomicBool::new(false) }
    }

    /// Is all there that a job needs?
    pub(super) async fn probe(&self) -> Result<(), Problem> {
        let results = self.results.clone();
        let probed = match blocking(move || results.probe()).await {
            Ok(scratch) => self.runtime.probe(&scratch).await.and_then(|()| self.check_isolation()),
            Err(problem) => Err(problem),
        };
        probed.inspect_err(|problem| self.met(problem)).map_err(Problem::from)
    }

    /// Is what jobs get what is demanded?
    fn check_isolation(&self) -> Result<(), String> {
        check(&self.require, &self.runtime.isolation().unwrap_or_default(), &self.runtime.left_out())
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

    /// After a run: was its end the node's? What the run itself says is not evidence enough.
    pub(super) async fn exonerate(&self, finished: &Finished) -> Result<(), Problem> {
        let mut evidence = Evidence { program_was_there: self.program_was_there(finished), ..Evidence::default() };
        if finished.has_failed() {
            let results = self.results.clone();
            let scratch = blocking(move || results.probe()).await.inspect_err(|problem| self.met(problem))?;
            evidence.trouble = self.trouble_near(finished.finished_at_ms).map(Problem::from);
            if blame(finished, &evidence) == Blame::Unclear {
                let probed = self.runtime.probe(&scratch).await.inspect_err(|problem| self.met(problem));
                evidence.program_was_there |= self.runtime.has_program();
                evidence.runtime = Some(probed.map_err(Problem::from));
            }
        }
        match blame(finished, &evidence) {
            Blame::Task | Blame::Unclear => Ok(()),
            Blame::Node(problem) => Err(problem),
        }
    }

    /// Was the program that jobs run ever seen to be there? A job that ends well shows it.
    fn program_was_there(&self, finished: &Finished) -> bool {
        if finished.end == RunEnd::Exit(0) {
            self.has_worked.store(true, Ordering::Relaxed);
        }
        self.has_worked.load(Ordering::Relaxed) || self.runtime.has_program()
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
