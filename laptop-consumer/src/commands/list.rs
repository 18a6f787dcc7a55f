//! `jobs`: what was submitted here, and what is in the inbox.

use std::collections::BTreeMap;
use std::time::SystemTime;

use client::Inbox;
use client::inbox::{self, Words};
use program::{Exit, JobFilter, Listed, Printer, age, one_line, table};
use protocol::{JobId, JobState, PoolName, Reason, Timestamp, Word, timestamp_from_millis};
use serde::Serialize;

use super::note;
use crate::config::CommonArgs;

/// A job as it is listed. As JSON, fields may be added, nothing else.
#[derive(Debug, Serialize)]
struct Job {
    job_id: JobId,
    state: JobState,
    reason: Option<Word<Reason>>,
    /// When it was submitted, or has ended.
    since: Option<Timestamp>,
    task: Option<String>,
    pool: Option<PoolName>,
    name: Option<String>,
}

impl Listed for Job {
    fn state(&self) -> JobState {
        self.state
    }

    fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    fn pool(&self) -> Option<&str> {
        self.pool.as_ref().map(PoolName::as_str)
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn changed(&self) -> Option<Timestamp> {
        self.since
    }
}

pub(super) fn run(common: &CommonArgs, filter: &JobFilter, printer: &mut Printer) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let now = timestamp_from_millis(Timestamp::now().as_millisecond());
    let mut jobs = filter.select(jobs(&inbox)?, now);
    // The newest stands last, where a terminal ends.
    jobs.sort_by_key(|job| job.since);
    if jobs.is_empty() {
        note("no jobs");
    } else if printer.is_human() {
        printer.text(&text(&jobs, now))?;
    } else {
        for job in &jobs {
            printer.json(&serde_json::to_string(job)?)?;
        }
    }
    Ok(Exit::Ok)
}

/// All that are known here.
fn jobs(inbox: &Inbox) -> Result<Vec<Job>, inbox::Error> {
    let submitted = inbox.submissions()?.into_iter().map(|job| (job.job_id, (job.at, job.words)));
    let mut known: BTreeMap<JobId, (Option<SystemTime>, Words)> = submitted.collect();
    for job_id in inbox.arrived()? {
        known.entry(job_id).or_default();
    }
    let mut jobs = Vec::new();
    for (job_id, (at, Words { task, name, pool })) in known {
        let submitted = at.and_then(|at| Timestamp::try_from(at).ok());
        let submitted = submitted.map(|at| timestamp_from_millis(at.as_millisecond()));
        jobs.push(match inbox.find(&job_id) {
            Ok(Some(arrived)) => {
                let result = arrived.result;
                let (state, since) = (JobState::of(&result), result.finished_at.or(submitted));
                Job { job_id, state, reason: result.reason, since, task: result.task.or(task), pool, name }
            }
            Ok(None) => Job { job_id, state: JobState::Queued, reason: None, since: submitted, task, pool, name },
            // Somebody has put it there by hand, and it must not hide the others.
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        });
    }
    Ok(jobs)
}

/// Ids come first, so that no terminal breaks one in two. What no job has has no column.
fn text(jobs: &[Job], now: Timestamp) -> String {
    let heading =
        |name: &str, has: fn(&Job) -> bool| if jobs.iter().any(has) { name.to_owned() } else { String::new() };
    let headings = [
        "JOB ID".to_owned(),
        "STATE".to_owned(),
        "FOR".to_owned(),
        "TASK".to_owned(),
        heading("POOL", |job| job.pool.is_some()),
        heading("NAME", |job| job.name.is_some()),
    ];
    let unknown = || "-".to_owned();
    let rows = jobs.iter().map(|job| {
        let reason = job.reason.as_ref().filter(|_| job.state == JobState::Failed);
        let reason = reason.map(|reason| format!(" ({})", one_line(&reason.to_string()))).unwrap_or_default();
        [
            job.job_id.to_string(),
            format!("{}{reason}", job.state),
            job.since.map_or_else(unknown, |since| age(since, now)),
            job.task.as_deref().map_or_else(unknown, one_line),
            job.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
            job.name.as_deref().map_or_else(String::new, one_line),
        ]
    });
    table(&std::iter::once(headings).chain(rows).collect::<Vec<_>>()).concat()
}
