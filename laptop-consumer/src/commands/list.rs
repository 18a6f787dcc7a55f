//! `jobs`: what was submitted here, what is in the inbox, and, where there is a hub, what it knows.
//!
//! A result that is in the inbox is the last word on its job, whatever the hub says.

use std::collections::BTreeMap;
use std::time::SystemTime;

use client::Inbox;
use client::hub::{Answer, Filter, Hub};
use client::inbox::{self, Words};
use program::{Exit, JobFilter, Listed, Printer, age, fit, one_line, stdout_width, table};
use protocol::hub::JobBrief;
use protocol::{JobId, JobState, PoolName, SiteName, Timestamp, Word, timestamp_from_millis};
use serde::Serialize;

use super::{hub, note};
use crate::cli::ListArgs;
use crate::config::CommonArgs;

/// So many jobs of a hub are listed when it is not said how many.
const OF_HUB_DEFAULT: usize = 1_000;

/// A job as it is listed. As JSON, fields may be added, nothing else.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Job {
    pub(super) job_id: JobId,
    pub(super) state: Word<JobState>,
    reason: Option<String>,
    /// When it was submitted, or has ended, or since when it is so far.
    pub(super) since: Option<Timestamp>,
    pub(super) task: Option<String>,
    pool: Option<PoolName>,
    pub(super) name: Option<String>,
    /// Where it is; only a hub tells.
    site: Option<SiteName>,
}

impl Listed for Job {
    fn state(&self) -> JobState {
        self.state.known().unwrap_or(JobState::Unknown)
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

pub(super) async fn run(common: &CommonArgs, args: &ListArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let now = hub::now();
    let mut known = jobs(&inbox)?;
    if let Some(hub) = hub::if_any(common, &args.edge) {
        add(&mut known, of_hub(&hub, &args.filter).await);
    }
    let mut jobs = args.filter.select(known.into_values().collect(), now);
    // The newest stands last, where a terminal ends.
    jobs.sort_by_key(|job| job.since);
    if jobs.is_empty() {
        note("no jobs");
    } else if printer.is_human() {
        printer.text(&text(&jobs, now, stdout_width()))?;
    } else {
        for job in &jobs {
            printer.json(&serde_json::to_string(job)?)?;
        }
    }
    Ok(Exit::Ok)
}

/// The newest jobs of the hub that fit.
async fn of_hub(hub: &Hub, filter: &JobFilter) -> Vec<JobBrief> {
    let asked = Filter {
        states: filter.states().to_vec(),
        task: filter.task().map(str::to_owned),
        pool: filter.pool().map(ToString::to_string),
        name: filter.name().map(str::to_owned),
        parent: None,
    };
    let count = filter.limit().unwrap_or(OF_HUB_DEFAULT);
    match hub.newest(&asked, count).await {
        Ok(Answer::Known((jobs, more))) => {
            if more && filter.limit().is_none() {
                note(&format!("the hub knows more jobs; these are the newest {count}: --limit COUNT lists so many"));
            }
            jobs
        }
        Ok(Answer::UnknownJob | Answer::NoHub) => Vec::new(),
        Err(error) => {
            tracing::warn!("these are only the jobs that were submitted here or whose results are here: {error}");
            Vec::new()
        }
    }
}

/// Adds what the hub knows to what is known here.
fn add(known: &mut BTreeMap<JobId, Job>, told: Vec<JobBrief>) {
    for brief in told {
        let JobBrief { job_id, state, reason, task, name, pool, site, updated_at, .. } = brief;
        let here = known.get(&job_id);
        if let Some(here) = here.filter(|here| here.state().has_ended()) {
            // What a result does not say.
            let job = Job { name: here.name.clone().or(name), pool: here.pool.clone().or(pool), site, ..here.clone() };
            known.insert(job_id, job);
            continue;
        }
        let of_here = |word: fn(&Job) -> Option<String>| here.and_then(word);
        let task = task.or_else(|| of_here(|job| job.task.clone()));
        let name = name.or_else(|| of_here(|job| job.name.clone()));
        let pool = pool.or_else(|| here.and_then(|job| job.pool.clone()));
        let job = Job { job_id: job_id.clone(), state, reason, since: Some(updated_at), task, pool, name, site };
        known.insert(job_id, job);
    }
}

/// All that are known here.
pub(super) fn jobs(inbox: &Inbox) -> Result<BTreeMap<JobId, Job>, inbox::Error> {
    let submitted = inbox.submissions()?.into_iter().map(|job| (job.job_id, (job.at, job.words)));
    let mut known: BTreeMap<JobId, (Option<SystemTime>, Words)> = submitted.collect();
    for job_id in inbox.arrived()? {
        known.entry(job_id).or_default();
    }
    let mut jobs = BTreeMap::new();
    for (job_id, (at, Words { task, name, pool })) in known {
        let submitted = at.and_then(|at| Timestamp::try_from(at).ok());
        let submitted = submitted.map(|at| timestamp_from_millis(at.as_millisecond()));
        let queued = Job {
            job_id: job_id.clone(),
            state: JobState::Queued.into(),
            reason: None,
            since: submitted,
            task,
            pool,
            name,
            site: None,
        };
        let job = match inbox.find(&job_id) {
            Ok(Some(arrived)) => {
                let result = arrived.result;
                let state = JobState::of(&result).into();
                let reason = result.reason.map(|reason| reason.to_string());
                let since = result.finished_at.or(submitted);
                Job { state, reason, since, task: result.task.or(queued.task), ..queued }
            }
            Ok(None) => queued,
            // Somebody has put it there by hand, and it must not hide the others.
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        };
        jobs.insert(job_id, job);
    }
    Ok(jobs)
}

/// Ids come first, so that no terminal breaks one in two. What no job has has no column.
fn text(jobs: &[Job], now: Timestamp, width: Option<usize>) -> String {
    let heading =
        |name: &str, has: fn(&Job) -> bool| if jobs.iter().any(has) { name.to_owned() } else { String::new() };
    let headings = [
        "JOB ID".to_owned(),
        "STATE".to_owned(),
        "FOR".to_owned(),
        "TASK".to_owned(),
        heading("POOL", |job| job.pool.is_some()),
        heading("SITE", |job| job.site.is_some()),
        heading("NAME", |job| job.name.is_some()),
    ];
    let unknown = || "-".to_owned();
    let rows = jobs.iter().map(|job| {
        let reason = job.reason.as_ref().filter(|_| job.state == JobState::Failed);
        let reason = reason.map(|reason| format!(" ({})", one_line(reason))).unwrap_or_default();
        [
            job.job_id.to_string(),
            format!("{}{reason}", one_line(&job.state.to_string())),
            job.since.map_or_else(unknown, |since| age(since, now)),
            job.task.as_deref().map_or_else(unknown, one_line),
            job.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
            job.site.as_ref().map(ToString::to_string).unwrap_or_default(),
            job.name.as_deref().map_or_else(String::new, one_line),
        ]
    });
    let mut rows: Vec<_> = std::iter::once(headings).chain(rows).collect();
    fit(&mut rows, width);
    table(&rows).concat()
}
