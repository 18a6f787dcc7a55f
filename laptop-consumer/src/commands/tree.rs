//! The jobs that a job has asked for, as the hub knows them: drawn below it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use client::hub::{Error, Filter, Hub};
use program::{Node, stdout_width, tree};
use protocol::hub::JobBrief;
use protocol::link::TREE_JOBS_MAX;
use protocol::{JobId, JobState};

use super::hub;

/// It is said in good time, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The children of so many jobs are asked for at the most.
const ASKED_MAX: usize = 20;

/// The tree of a job that has asked for others, if the hub tells of one.
pub(super) async fn of(hub: &Hub, job_id: &JobId) -> Option<String> {
    match tokio::time::timeout(PATIENCE, asked(hub, job_id)).await {
        Ok(Ok(tree)) => tree,
        Ok(Err(error)) => {
            tracing::debug!("the hub tells of no children: {error}");
            None
        }
        Err(_) => None,
    }
}

async fn asked(hub: &Hub, job_id: &JobId) -> Result<Option<String>, Error> {
    let Some(status) = hub.job(job_id, None).await?.known() else { return Ok(None) };
    if !has_children(&status.brief) {
        return Ok(None);
    }
    let (mut below, mut open) = (HashMap::new(), VecDeque::from([job_id.clone()]));
    while let Some(parent) = open.pop_front().filter(|_| below.len() < ASKED_MAX) {
        let filter = Filter { parent: Some(parent.clone()), ..Filter::default() };
        let Some((mut jobs, _)) = hub.newest(&filter, TREE_JOBS_MAX as usize).await?.known() else { continue };
        jobs.sort_by_cached_key(number);
        open.extend(jobs.iter().filter(|job| has_children(job)).map(|job| job.job_id.clone()));
        below.insert(parent, jobs);
    }
    Ok(Some(tree(&node(status.brief, &mut below), hub::now(), stdout_width())))
}

fn has_children(job: &JobBrief) -> bool {
    job.children.is_some_and(|children| children.all > 0)
}

/// The number of a child, which its id ends with.
fn number(job: &JobBrief) -> u32 {
    job.job_id.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

fn node(job: JobBrief, below: &mut HashMap<JobId, Vec<JobBrief>>) -> Node {
    let children = below.remove(&job.job_id).unwrap_or_default();
    let all = job.children.map_or(0, |children| children.all as usize);
    let has_ended = job.state.known().is_some_and(JobState::has_ended);
    Node {
        more: all.saturating_sub(children.len()),
        below: children.into_iter().map(|child| node(child, below)).collect(),
        job_id: job.job_id,
        task: job.task,
        name: job.name,
        state: job.state,
        pool: job.pool,
        started: job.started_at,
        ended: has_ended.then_some(job.updated_at),
    }
}
