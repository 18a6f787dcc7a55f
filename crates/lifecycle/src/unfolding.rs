//! Jobs that are graphs of others: nothing of such a job runs. Once its directory is claimed it is parked, and whenever
//! a child has ended it is asked which tasks of the graph can begin by then; these are its next children. It ends when
//! there are none any more.
//!
//! - A child has the number of its task, so what has ended is found by its record, and nothing else is remembered.
//! - It is asked again after a restart, and as often as it takes: the answer follows from what is there.
//! - While the daemon drains nothing unfolds.
//!
//! Out of scope: graphs (crate `workflow`), and where their files are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{JobId, JobSpec, limits};

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::table::State;
use crate::trouble::pause_of_its_own;
use crate::{Effect, Ending, Finished, Notice, Problem, Run};

/// How many jobs are asked at a time. Each reads a document, which may be large.
const AT_A_TIME: usize = 2;

/// Before a job is asked again that could not be answered for; the second time twice as long.
const PAUSE: Duration = Duration::from_secs(5);

/// What there is to do of a graph by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfolded {
    /// These tasks can begin, each with its number; none, where all that can have begun.
    GoesOn(Vec<(u32, JobSpec)>),
    /// Nothing is left to do, and this is how it has ended.
    Over(Box<Finished>),
    /// The node could not tell.
    NodeBroken(Problem),
}

/// Which graphs are to be asked.
#[derive(Debug, Default)]
pub(crate) struct Unfolding {
    /// When, and in the order of acceptance.
    due: BTreeMap<(Duration, u64), JobId>,
    /// The same, to be looked up.
    waiting: BTreeSet<JobId>,
    /// Those that are asked now; and whether something has changed since.
    asked: BTreeMap<JobId, bool>,
    /// How often in a row one could not be answered for.
    broken: BTreeMap<JobId, u32>,
}

impl Unfolding {
    /// When the next one may be asked.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.due.keys().next().map(|(at, _)| *at).filter(|_| self.asked.len() < AT_A_TIME)
    }

    /// Is one asked now, or to be asked at once?
    pub(crate) fn is_busy(&self, now: Duration) -> bool {
        !self.asked.is_empty() || self.due.first_key_value().is_some_and(|((at, _), _)| *at <= now)
    }
}

impl Lifecycle {
    /// A graph has its directory: from here on it unfolds.
    pub(crate) fn begin_unfolding(&mut self, job_id: &JobId) {
        if let Some(job) = self.jobs.get_mut(job_id) {
            job.children.get_or_insert_default();
        }
        self.jobs.set(job_id, State::Parked);
        self.is_to_unfold(job_id, self.now);
    }

    /// An earlier daemon has left graphs: they are asked again.
    pub(crate) fn find_graphs(&mut self) {
        let graphs = self.jobs.iter().filter(|(_, job)| job.terms.is_graph && matches!(job.state, State::Parked));
        for job_id in graphs.map(|(job_id, _)| job_id.clone()).collect::<Vec<_>>() {
            if let Some(job) = self.jobs.get_mut(&job_id) {
                job.children.get_or_insert_default();
            }
            self.is_to_unfold(&job_id, self.now);
        }
    }

    /// Something has changed for a graph, or it is to be asked at this time.
    pub(crate) fn is_to_unfold(&mut self, job_id: &JobId, at: Duration) {
        if let Some(again) = self.unfolding.asked.get_mut(job_id) {
            *again = true;
        } else if !self.unfolding.waiting.contains(job_id)
            && let Some(job) = self.jobs.get(job_id)
        {
            self.unfolding.waiting.insert(job_id.clone());
            self.unfolding.due.insert((at, job.no), job_id.clone());
        }
    }

    /// Asks those whose time has come.
    pub(crate) fn unfold(&mut self, step: &mut Step) {
        if self.draining() {
            return;
        }
        while self.unfolding.asked.len() < AT_A_TIME
            && let Some(first) = self.unfolding.due.first_entry().filter(|first| first.key().0 <= self.now)
        {
            let job_id = first.remove();
            self.unfolding.waiting.remove(&job_id);
            let Some(run) = self.run_of(&job_id).filter(|_| self.phase_of(&job_id) == Some(Phase::Parked)) else {
                continue;
            };
            let alive = self.jobs.get(&job_id).and_then(|job| job.children.as_ref());
            let alive: Vec<JobId> = alive.map(|children| children.alive.iter().cloned().collect()).unwrap_or_default();
            // The others begin when these have ended.
            let room = limits::CHILDREN_AT_ONCE_MAX.saturating_sub(alive.len());
            self.unfolding.asked.insert(job_id, false);
            step.effects.push(Effect::Unfold { run, alive, room });
        }
    }

    /// A graph has said what there is to do.
    pub(crate) fn unfolded(&mut self, run: &Run, unfolded: Unfolded, step: &mut Step) {
        let job_id = &run.job_id;
        let again = self.unfolding.asked.remove(job_id).unwrap_or(false);
        if !self.jobs.is(run, Phase::Parked) || self.is_cancelled(job_id) {
            self.unfolding.broken.remove(job_id);
            return;
        }
        match unfolded {
            Unfolded::GoesOn(tasks) => {
                self.unfolding.broken.remove(job_id);
                let none = tasks.is_empty();
                if let Err(why) = self.start_children(job_id, tasks, step) {
                    return self.cannot_unfold(run, why, step);
                }
                if again {
                    self.is_to_unfold(job_id, self.now);
                } else if none && !self.has_children_alive(job_id) {
                    // It would wait for nothing. A record that was written is not seen everywhere at once.
                    self.is_to_unfold(job_id, self.now + PAUSE);
                }
            }
            Unfolded::Over(finished) => {
                self.unfolding.broken.remove(job_id);
                self.conclude(run, Ending::Finished(finished), step);
            }
            Unfolded::NodeBroken(problem) => {
                let times = self.unfolding.broken.entry(job_id.clone()).or_default();
                *times = times.saturating_add(1);
                let next_try = pause_of_its_own(*times).unwrap_or(PAUSE * *times);
                step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem, next_try }));
                self.is_to_unfold(job_id, self.now + next_try);
            }
        }
    }

    fn has_children_alive(&self, job_id: &JobId) -> bool {
        let children = self.jobs.get(job_id).and_then(|job| job.children.as_ref());
        children.is_some_and(|children| !children.alive.is_empty())
    }

    fn cannot_unfold(&mut self, run: &Run, why: String, step: &mut Step) {
        self.conclude(run, Ending::Rejected(format!("the workflow cannot go on: it {why}")), step);
    }
}
