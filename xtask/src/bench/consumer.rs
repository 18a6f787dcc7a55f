//! What the measures of the daemon share: its directories, its end, jobs in the queue, and the time until all of them
//! have their results in the queue.
//!
//! Invariant: with a daemon ends its keeper, and with the keeper every run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::results::Results;
use super::subfolder;
use crate::http::Connection;
use crate::keeper;
use crate::processes::{LocalEdge, Process};
use crate::workspace::{Profile, Workspace};

/// The most that one request to the edge takes.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(600);
/// How long between two looks at the queue of results: often enough for a measure of seconds, and rare enough to cost
/// nothing next to it.
const LOOK: Duration = Duration::from_millis(15);

/// Submits the same job so many times.
pub(super) fn submit(edge: &LocalEdge, job: &Value, count: usize) -> anyhow::Result<()> {
    submit_in_turn(edge, std::slice::from_ref(job), count)
}

/// Submits so many jobs, of these in turn.
pub(super) fn submit_in_turn(edge: &LocalEdge, jobs: &[Value], count: usize) -> anyhow::Result<()> {
    let url = format!("{}/jobs/batch", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'));
    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let connection = Connection::new();
    let mut left = count;
    let mut in_turn = jobs.iter().cycle();
    while left > 0 {
        let size = left.min(BATCH);
        let batch: Vec<&Value> = in_turn.by_ref().take(size).collect();
        let body = json!({"jobs": batch}).to_string();
        let answer = connection.post(&url, &headers, body.as_bytes())?.json(202)?;
        let jobs = answer["jobs"].as_array().context("the answer to the batch has no list of jobs")?;
        if jobs.len() != size || jobs.iter().any(|job| job["job_id"].is_null()) {
            bail!("not every job of the batch was accepted: {answer}");
        }
        left -= size;
    }
    Ok(())
}

/// The directories of one daemon.
pub(super) struct Node {
    profile: Profile,
    folder: PathBuf,
    state: PathBuf,
    results: PathBuf,
}

impl Node {
    /// Makes them in `folder/<name>`.
    pub(super) fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        Self::built(Profile::Release, folder, name)
    }

    /// The same, for a daemon that was built so.
    pub(super) fn built(profile: Profile, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = subfolder(folder, name)?;
        Ok(Self { profile, state: subfolder(&folder, "state")?, results: subfolder(&folder, "results")?, folder })
    }

    /// Where the daemon keeps what must not be forgotten.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Where its jobs are.
    pub(super) fn results(&self) -> &Path {
        &self.results
    }

    /// The daemon's command.
    pub(super) fn command(&self, workspace: &Workspace, edge: &LocalEdge) -> Command {
        let mut command = Command::new(workspace.program(self.profile, "hpc-consumer"));
        command
            .arg("run")
            .arg("--env-file")
            .arg(&edge.env_file)
            .env("STATE_DIR", &self.state)
            .env("RESULTS_DIR", &self.results)
            .env("POLL_INTERVAL_SECONDS", "0.1")
            .env("POLL_INTERVAL_MAX_SECONDS", "0.1")
            .env("DRAIN_TIMEOUT_SECONDS", "1");
        command
    }

    /// The command of a daemon whose jobs are this one without a container.
    pub(super) fn bare(&self, workspace: &Workspace, edge: &LocalEdge, job: &str, slots: usize) -> Command {
        let mut command = self.command(workspace, edge);
        command.env("RUNTIME", "bare").env("CONTAINER_CMD", job).env("MAX_PARALLEL_JOBS", slots.to_string());
        command
    }

    /// Starts the daemon.
    pub(super) fn start(&self, mut command: Command) -> anyhow::Result<Daemon> {
        let process = Process::start("hpc-consumer", &mut command, &self.folder)?;
        Ok(Daemon { process, state: self.state.clone() })
    }

    /// Starts the daemon and measures the seconds until so many results are in the queue, which was empty. Then the
    /// daemon must end by itself, and the results are taken out of the queue: each must be of another job, completed.
    pub(super) fn seconds_for(&self, edge: &LocalEdge, mut command: Command, jobs: usize) -> anyhow::Result<f64> {
        let mut results = Results::of(edge)?;
        command.arg("--exit-when-idle");
        let begin = Instant::now();
        let mut daemon = self.start(command)?;
        let all_there = format!("the results of {jobs} jobs were in the queue");
        let seconds = daemon.process.wait_for(&all_there, PATIENCE, |_| {
            thread::sleep(LOOK);
            // The edge answers, or the patience ends.
            let count = results.count().unwrap_or_default();
            (count >= jobs).then(|| begin.elapsed().as_secs_f64())
        })?;
        daemon.ends_by_itself(Duration::from_secs(60))?;
        results.take(jobs)?;
        Ok(seconds)
    }
}

/// A running daemon. Dropping it stops it, its keeper and all runs.
pub(super) struct Daemon {
    /// The daemon itself.
    pub(super) process: Process,
    state: PathBuf,
}

impl Daemon {
    /// The process ids of the daemon and of its keeper.
    pub(super) fn ids(&self) -> anyhow::Result<[u32; 2]> {
        let keeper = keeper::id(&self.state)
            .with_context(|| format!("no keeper runs for {}; its keeper.json tells which", self.state.display()))?;
        Ok([self.process.id(), keeper])
    }

    /// An error when it does not run any more.
    pub(super) fn runs(&mut self) -> anyhow::Result<()> {
        if self.process.has_ended()? {
            bail!("the daemon ended instead of going on. Its last lines:\n{}", self.last_lines());
        }
        Ok(())
    }

    /// Waits until it has ended, in good order.
    pub(super) fn ends_by_itself(&mut self, bound: Duration) -> anyhow::Result<()> {
        let status = self.process.wait(bound)?;
        if !status.success() {
            bail!("the daemon ended with {status}. Its last lines:\n{}", self.last_lines());
        }
        Ok(())
    }

    /// Stops it, its keeper and all runs; an error when one of them has to be killed.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        if !self.process.stop() {
            bail!("the daemon did not end when it was asked to, and was killed");
        }
        keeper::end(&self.state)
    }

    fn last_lines(&self) -> String {
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // In this order: a daemon whose keeper goes would start another one.
        self.process.stop();
        if let Err(error) = keeper::end(&self.state) {
            eprintln!("{error:#}");
        }
    }
}
