//! The time of one job in an idle system: from `POST /jobs` to the result in the queue, without a container.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::consumer::{Daemon, Node};
use super::results::Results;
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::http::Connection;
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const AIM: f64 = 0.05;
const JOBS: u32 = 40;
const WARM_UP: u32 = 5;
const PAIRS: usize = 4;
/// The shortest that the daemon takes.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// By then the daemon is idle.
const IDLE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let seconds = sample(workspace, &subfolder(folder, "latency")?)?;
    let row = |what: &str, value: f64, aim: Aim| Row {
        measure: format!(
            "hpc-consumer: from POST /jobs to the result in the queue, idle, polling each {} s, {what}",
            POLL_INTERVAL.as_secs_f64()
        ),
        here: format!("{:.1} ms", value * 1e3),
        against: format!("{:.0} ms, the aim", AIM * 1e3),
        ratio: value / AIM,
        aim,
    };
    Ok(vec![row("p50", median(&seconds), Aim::Under(1.0)), row("p95", percentile(&seconds, 95), Aim::None)])
}

/// The same with the programs of an earlier commit, in turns.
pub(super) fn against(
    workspace: &Workspace,
    earlier: &Workspace,
    name: &str,
    folder: &Path,
) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..PAIRS {
        ours.push(sample(workspace, &subfolder(folder, &format!("latency-today-{round}"))?)?);
        theirs.push(sample(earlier, &subfolder(folder, &format!("latency-earlier-{round}"))?)?);
    }
    let row = |what: &str, of: fn(&[f64]) -> f64, aim: Aim| {
        let all = |rounds: &[Vec<f64>]| rounds.iter().map(|round| of(round)).collect::<Vec<f64>>();
        let (ours, theirs) = (all(&ours), all(&theirs));
        Row {
            measure: format!(
                "all programs: from POST /jobs to the result in the queue, idle, against an earlier commit, {what}"
            ),
            here: format!("{:.1} ms", median(&ours) * 1e3),
            against: format!("{:.1} ms, {name}", median(&theirs) * 1e3),
            ratio: median(&ratios(&ours, &theirs)),
            aim,
        }
    };
    Ok(vec![row("p50", median, Aim::Under(1.0)), row("p95", |round| percentile(round, 95), Aim::None)])
}

/// The seconds of each job.
fn sample(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<f64>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    let interval = POLL_INTERVAL.as_secs_f64().to_string();
    let mut command = node.bare(workspace, &edge, "/bin/true", 2);
    command.env("POLL_INTERVAL_SECONDS", &interval).env("POLL_INTERVAL_MAX_SECONDS", &interval);
    let mut daemon = node.start(command)?;
    let seconds = of_jobs(&mut daemon, &mut User::of(&edge)?)?;
    daemon.stop()?;
    Ok(seconds)
}

/// The seconds of each of some jobs, one after the other.
pub(super) fn of_jobs(daemon: &mut Daemon, user: &mut User<'_>) -> anyhow::Result<Vec<f64>> {
    for _ in 0..WARM_UP {
        user.one_job()?;
    }
    let mut seconds = Vec::new();
    for job in 0..JOBS {
        // Each job comes at another moment between two polls: 19 has no divisor in common with the number of jobs.
        thread::sleep(IDLE + POLL_INTERVAL / JOBS * (job * 19 % JOBS));
        daemon.runs()?;
        seconds.push(user.one_job()?);
    }
    Ok(seconds)
}

/// Someone who submits one job and waits for its result.
pub(super) struct User<'a> {
    jobs: String,
    key: &'a str,
    connection: Connection,
    results: Results,
}

impl<'a> User<'a> {
    pub(super) fn of(edge: &'a LocalEdge) -> anyhow::Result<Self> {
        let jobs = format!("{}/jobs", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'));
        Ok(Self {
            jobs,
            key: edge.settings.get("API_KEY")?,
            connection: Connection::new(),
            results: Results::of(edge)?,
        })
    }

    /// The seconds from the request to the result.
    pub(super) fn one_job(&mut self) -> anyhow::Result<f64> {
        self.job(&json!({"task": "true"}))
    }

    /// The same of this job.
    pub(super) fn job(&mut self, job: &Value) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let id = self.submit(job)?;
        loop {
            let arrived = self.results.pull()?;
            let time = begin.elapsed();
            match arrived.as_slice() {
                [] if time > PATIENCE => bail!("the job {id} had no result within {PATIENCE:?}"),
                [] => thread::sleep(Duration::from_millis(1)),
                [one] if one.job_id == id => {
                    self.results.acknowledge(&arrived)?;
                    return Ok(time.as_secs_f64());
                }
                _ => bail!("there are results of other jobs than {id}"),
            }
        }
    }

    /// Submits a job and says its id.
    pub(super) fn submit(&self, job: &Value) -> anyhow::Result<String> {
        let headers = [("x-api-key", self.key)];
        let answer = self.connection.post(&self.jobs, &headers, job.to_string().as_bytes())?.json(202)?;
        answer["job_id"].as_str().map(str::to_owned).context("the answer to the job has no id")
    }

    /// Takes the results that are there, each of a job that has completed, and says whose they are.
    pub(super) fn take(&mut self) -> anyhow::Result<Vec<String>> {
        let arrived = self.results.pull()?;
        if !arrived.is_empty() {
            self.results.acknowledge(&arrived)?;
        }
        Ok(arrived.into_iter().map(|one| one.job_id).collect())
    }
}

/// The smallest value that so many percent of the values do not exceed.
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=40).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 95), 38.0);
        assert_eq!(percentile(&values, 100), 40.0);
        assert_eq!(percentile(&[3.0], 95), 3.0);
        assert!(percentile(&[], 95).is_nan());
    }
}
