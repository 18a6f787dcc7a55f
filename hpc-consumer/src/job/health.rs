//! Whether this node can run jobs, and what it was seen in: the evidence in favor of a run that failed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::{Blame, Evidence, Finished, Problem, RunEnd, blame};
use protocol::{JobSpec, PoolName};

use super::now;
use super::pools::Pools;
use super::results_dir::ResultsDir;
use crate::run::Required;
use crate::{blocking, lock};

/// A run that failed so near to a trouble of the node is not blamed: the node may have been well again when it was
/// looked at.
const TROUBLE_REACHES: Duration = Duration::from_secs(60);

/// The last trouble that a probe has found, and when, in milliseconds since the Unix epoch. What only one job has met
/// is no evidence: its directory may be the trouble.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(i64, String)>>);

impl Trouble {
    /// Remembers it.
    pub(super) fn met(&self, problem: &str) {
        *lock(&self.0) = Some((now().as_millisecond(), problem.to_owned()));
    }

    /// That in which the node was when a run ended, or shortly before or after.
    fn near(&self, ended_at_ms: i64) -> Option<String> {
        let trouble = lock(&self.0);
        let (met_at_ms, problem) = trouble.as_ref()?;
        let distance = Duration::from_millis(met_at_ms.abs_diff(ended_at_ms));
        (distance <= TROUBLE_REACHES).then(|| format!("about when the run ended, {problem}"))
    }
}

/// Whose the end of a run was that is not its own.
#[derive(Debug)]
pub(super) enum Culprit {
    Node(Problem),
    /// That of a service that it had.
    Service(Problem),
}

/// The node, as it was seen. What one pool lacks is that pool's trouble; the rest is that of all.
#[derive(Debug)]
pub(super) struct Health {
    results: ResultsDir,
    pools: Arc<Pools>,
    /// What the isolation of jobs must have.
    require: Vec<Required>,
    trouble: Trouble,
}

impl Health {
    pub(super) fn new(results: ResultsDir, pools: Arc<Pools>, require: Vec<Required>) -> Self {
        Self { results, pools, require, trouble: Trouble::default() }
    }

    /// Is all there that jobs of this pool need; or, without one that this site has, that all of them need?
    pub(super) async fn probe(&self, pool: Option<&PoolName>) -> Result<(), Problem> {
        let results = self.results.clone();
        let scratch = blocking(move || results.probe()).await.inspect_err(|problem| self.met(problem))?;
        if let Some(pool) = pool {
            self.pools.probe(pool, &scratch, &self.require).await?;
        }
        Ok(())
    }

    /// Can files be made?
    pub(super) fn probe_files(&self) -> Result<PathBuf, String> {
        self.results.probe().inspect_err(|problem| self.met(problem))
    }

    /// Can files be made now, and was there no trouble when a run ended?
    pub(super) fn probe_files_about(&self, job: &JobSpec, ended_at_ms: i64) -> Result<PathBuf, String> {
        let scratch = self.probe_files()?;
        let pool = self.pools.plan(job).ok().map(|plan| plan.pool);
        self.trouble_near(pool.as_ref(), ended_at_ms).map_or(Ok(scratch), Err)
    }

    /// After a run: was its end the node's, or that of a service that it had, of which this is known? What the run
    /// itself says is not evidence enough.
    pub(super) async fn exonerate(
        &self,
        job: &JobSpec,
        finished: &Finished,
        service_gone: Option<Problem>,
    ) -> Result<(), Culprit> {
        let (pool, variant) = self.pools.variant_of(job).unzip();
        if let (Some(variant), RunEnd::Exit(0)) = (variant, &finished.end) {
            variant.works();
        }
        let program_was_there = variant.is_some_and(|variant| variant.has_program());
        let mut evidence = Evidence { program_was_there, service_gone, ..Evidence::default() };
        if finished.has_failed() {
            let results = self.results.clone();
            let scratch = blocking(move || results.probe()).await.inspect_err(|problem| self.met(problem));
            let scratch = scratch.map_err(|problem| Culprit::Node(problem.into()))?;
            evidence.trouble = self.trouble_near(pool.as_ref(), finished.finished_at_ms).map(Problem::from);
            if let Some(variant) = variant.filter(|variant| variant.can_be_tried())
                && blame(finished, &evidence) == Blame::Unclear
            {
                let met = |problem: &String| {
                    if let Some(trouble) = pool.as_ref().and_then(|pool| self.pools.trouble(pool)) {
                        trouble.met(problem);
                    }
                };
                let probed = variant.runtime().probe(&scratch).await.inspect_err(met);
                evidence.program_was_there |= variant.runtime().has_program();
                evidence.runtime = Some(probed.map_err(Problem::from));
            }
        }
        match blame(finished, &evidence) {
            Blame::Task | Blame::Unclear => Ok(()),
            Blame::Node(problem) => Err(Culprit::Node(problem)),
            Blame::Service(problem) => Err(Culprit::Service(problem)),
        }
    }

    /// Remembers that the node is in trouble.
    pub(super) fn met(&self, problem: &str) {
        self.trouble.met(problem);
    }

    /// The trouble that the node, or this pool, was in when a run ended.
    fn trouble_near(&self, pool: Option<&PoolName>, ended_at_ms: i64) -> Option<String> {
        let of_pool = || self.pools.trouble(pool?)?.near(ended_at_ms);
        self.trouble.near(ended_at_ms).or_else(of_pool)
    }
}
