//! `hpc-consumer show`: a job with those that it has asked for, as a tree with their times.
//!
//! Whose child a job is follows from its id, because a record does not say it: `ID-3` is the third of `ID`.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context as _;
use program::{Exit, Failure, Node, OutputFormat, escaped_json, stdout_width, tree};
use protocol::{JobId, JobResult, JobState, Timestamp, timestamp_from_millis};
use serde::Serialize;

use super::Jobs;
use crate::job::Claim;
use crate::store::view::JobView;

/// So many records are read at the most.
const RECORDS_MAX: usize = 20_000;

/// What is printed as JSON. Fields may be added, nothing else.
#[derive(Serialize)]
struct Shown<'a> {
    v: u64,
    #[serde(flatten)]
    tree: &'a Node,
}

/// Prints the tree of a job.
pub(crate) fn show(jobs: &Jobs, name: &JobId, format: OutputFormat) -> anyhow::Result<Exit> {
    let job_id = jobs.one_named(name)?;
    let held: HashMap<JobId, JobView> = jobs.holding()?.jobs.into_iter().map(|job| (job.job_id.clone(), job)).collect();
    let here = jobs.results.job_ids().with_context(|| jobs.unreadable())?;
    let mut below: BTreeMap<JobId, BTreeMap<u32, JobId>> = BTreeMap::new();
    for known in here.iter().chain(held.keys()) {
        for (parent, number, child) in steps(&job_id, known) {
            below.entry(parent).or_default().insert(number, child);
        }
    }
    if !here.contains(&job_id) && !held.contains_key(&job_id) && !below.contains_key(&job_id) {
        let what = format!("nothing is known of the job {job_id} here; `laptop-consumer status {job_id}` asks the hub");
        return Err(Failure::with(Exit::NotFound, what));
    }
    let mut reading = Reading { jobs, held, below, left: RECORDS_MAX };
    let root = reading.node(&job_id)?;
    let now = timestamp_from_millis(Timestamp::now().as_millisecond());
    crate::print(&match format {
        OutputFormat::Text => tree(&root, now, stdout_width()),
        OutputFormat::Json => escaped_json(&serde_json::to_string(&Shown { v: 1, tree: &root })?) + "\n",
    })?;
    Ok(Exit::Ok)
}

/// Is a job the child of one of these?
pub(super) fn is_child(job_id: &JobId, known: &HashSet<JobId>) -> bool {
    let parent = job_id.as_str().rsplit_once('-').and_then(|(parent, _)| parent.parse::<JobId>().ok());
    parent.is_some_and(|parent| known.contains(&parent) && !steps(&parent, job_id).is_empty())
}

/// The way from a job down to one below it, if it is: each parent with the number and id of its child.
fn steps(root: &JobId, known: &JobId) -> Vec<(JobId, u32, JobId)> {
    let Some(rest) = known.as_str().strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix('-')) else {
        return Vec::new();
    };
    let mut parent = root.clone();
    let mut steps = Vec::new();
    for part in rest.split('-') {
        // As a number is written, and no other way.
        let Some(number) = part.parse::<u32>().ok().filter(|number| *number > 0 && number.to_string() == part) else {
            return Vec::new();
        };
        let Ok(child) = parent.child(number) else { return Vec::new() };
        steps.push((std::mem::replace(&mut parent, child.clone()), number, child));
    }
    steps
}

struct Reading<'a> {
    jobs: &'a Jobs,
    held: HashMap<JobId, JobView>,
    below: BTreeMap<JobId, BTreeMap<u32, JobId>>,
    /// How many more records may be read.
    left: usize,
}

impl Reading<'_> {
    fn node(&mut self, job_id: &JobId) -> anyhow::Result<Node> {
        let mut node = self.alone(job_id)?;
        for child in self.below.remove(job_id).unwrap_or_default().into_values() {
            if self.left == 0 {
                node.more += 1;
            } else {
                node.below.push(self.node(&child)?);
            }
        }
        Ok(node)
    }

    fn alone(&mut self, job_id: &JobId) -> anyhow::Result<Node> {
        self.left = self.left.saturating_sub(1);
        // A job that has left the view has its record by now.
        let ended = self.jobs.ended(job_id)?.map(|(result, _)| result);
        let held = self.held.get(job_id);
        let state = match (&ended, held) {
            (Some(result), _) => JobState::of(result),
            (None, Some(held)) => held.state().unwrap_or(JobState::Unknown),
            // Another daemon has it, or the view is older than the job.
            (None, None) => match self.jobs.results.claim_of(job_id).with_context(|| self.jobs.unreadable())? {
                Claim::Stands => JobState::Running,
                Claim::GivenUp | Claim::None => JobState::Unknown,
            },
        };
        let running = held.filter(|_| state == JobState::Running);
        let of_result = |of: fn(&JobResult) -> Option<Timestamp>| ended.as_ref().and_then(of);
        Ok(Node {
            job_id: job_id.clone(),
            task: ended.as_ref().and_then(|result| result.task.clone()).or(held.and_then(|held| held.task.clone())),
            name: held.and_then(|held| held.name.clone()),
            state: state.into(),
            pool: ended.as_ref().and_then(|result| result.pool.clone()).or(held.and_then(|held| held.pool.clone())),
            started: of_result(|result| result.started_at).or(running.and_then(|held| held.since)),
            ended: of_result(|result| result.finished_at),
            below: Vec::new(),
            more: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_child_a_job_is_follows_from_its_id() {
        let way = |known: &str| {
            let steps = steps(&"a-1".parse().unwrap(), &known.parse().unwrap());
            steps.iter().map(|(parent, number, child)| format!("{parent} {number} {child}")).collect::<Vec<_>>()
        };
        assert_eq!(way("a-1-2"), ["a-1 2 a-1-2"]);
        assert_eq!(way("a-1-2-30"), ["a-1 2 a-1-2", "a-1-2 30 a-1-2-30"]);
        for other in
            ["a-1", "a-12", "a-1-", "a-1-x", "a-1-02", "a-1-0", "a-1-+2", "a-1-2-x", "b-1-2", "a-1-99999999999"]
        {
            if let Ok(other) = other.parse::<JobId>() {
                assert_eq!(way(other.as_str()), [""; 0], "{other}");
            }
        }
        let known = ["a", "a-1", "b-1"].map(|id| id.parse().unwrap()).into();
        let is = |id: &str| is_child(&id.parse().unwrap(), &known);
        assert_eq!(["a-1", "a-1-2", "a-2"].map(is), [true; 3]);
        assert_eq!(["a", "b-1", "a-x", "a-01"].map(is), [false; 4]);
    }
}
