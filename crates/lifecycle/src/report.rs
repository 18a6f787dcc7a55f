//! What there is to say of jobs, pools and the daemon, in the words of the hub.
//!
//! Out of scope: what of it was said already (`reporter`).

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::link::{Amount, Children, JobReport, PoolReport, SiteReport};
use protocol::{JobId, JobState, Memory, PoolName, Timestamp, timestamp_from_millis};

use crate::lifecycle::{Lifecycle, PoolState};
use crate::phases::Phase;
use crate::{Fact, Room};

/// How much is told of how an attempt ended, in characters.
pub(crate) const MESSAGE_MAX: usize = 500;

/// What there is to say of a job besides its record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) since: Duration,
    pub(crate) name: Option<String>,
    pub(crate) pool: Option<PoolName>,
    pub(crate) parent: Option<JobId>,
    pub(crate) children: Option<Children>,
    /// Is it one too many for the hub to be told of?
    pub(crate) is_untold: bool,
}

/// What there is to say of children that have their records, and are held no more.
#[derive(Debug, Default)]
pub struct EndedChildren(BTreeMap<JobId, Known>);

impl EndedChildren {
    pub(crate) fn insert(&mut self, job_id: JobId, known: Known) {
        self.0.insert(job_id, known);
    }

    /// Takes out those whose records are among these facts.
    pub(crate) fn take(&mut self, facts: &[Fact]) -> Self {
        if self.0.is_empty() {
            return Self::default();
        }
        let recorded = facts.iter().filter_map(|fact| match fact {
            Fact::Recorded(job_id, _) => self.0.remove_entry(job_id),
            _ => None,
        });
        Self(recorded.collect())
    }

    pub(crate) fn get(&self, job_id: &JobId) -> Option<&Known> {
        self.0.get(job_id)
    }
}

/// A time since the Unix epoch, as it is written.
pub(crate) fn timestamp(since_epoch: Duration) -> Timestamp {
    timestamp_from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Lifecycle {
    /// How far a job is; nothing where that is not ours to say: it is not held, not accepted yet, or its record says
    /// it.
    pub(crate) fn job_report(&self, job_id: &JobId) -> Option<JobReport> {
        let job = self.jobs.get(job_id)?;
        let state = job.state.phase().state().filter(|state| *state != JobState::Unknown)?;
        // Whoever is to run it has it, and has no place for it yet.
        let state = if job.waits.is_some() { JobState::Held } else { state };
        let spec = self.jobs.brief(job_id).map(|message| &message.spec);
        // How many children it waits for stands by itself.
        let remark = || self.remark(job_id).map(|what| what.chars().take(MESSAGE_MAX).collect());
        let waits = job.waits_for_children().filter(|_| !self.is_cancelled(job_id)).map(str::to_owned);
        Some(JobReport {
            job_id: job_id.clone(),
            state: state.into(),
            attempt: job.begun(),
            at: timestamp(job.since),
            task: spec.map(|spec| spec.task.clone()),
            name: spec.and_then(|spec| spec.name.clone()),
            pool: self.pool_of(job_id).cloned(),
            parent: job.parent.as_ref().map(|parent| parent.job_id.clone()),
            children: job.children.as_ref().map(|children| children.report()),
            message: waits.or_else(remark),
            again_at: None,
            result: None,
        })
    }

    /// Is a job one too many for the hub to be told of?
    pub(crate) fn is_untold(&self, job_id: &JobId) -> bool {
        self.jobs.get(job_id).is_some_and(|job| job.is_untold)
    }

    /// What there is to say of a job besides its record.
    pub(crate) fn known_of(&self, job_id: &JobId) -> Known {
        let Some(job) = self.jobs.get(job_id) else { return Known { since: self.now, ..Known::default() } };
        Known {
            since: job.since,
            name: self.jobs.brief(job_id).and_then(|message| message.spec.name.clone()),
            pool: self.pool_of(job_id).cloned(),
            parent: job.parent.as_ref().map(|parent| parent.job_id.clone()),
            children: job.children.as_ref().map(|children| children.report()),
            is_untold: job.is_untold,
        }
    }

    /// How the daemon is as a whole.
    pub(crate) fn site_report(&self) -> SiteReport {
        let waiting = [Phase::Waiting, Phase::Staging, Phase::Claiming, Phase::Ready, Phase::Parked, Phase::Returning];
        let running = [Phase::Running, Phase::Ending, Phase::Uploading];
        let problem = self.node_problem().or(self.executor_problem()).map(ToString::to_string);
        SiteReport {
            held: count(waiting.iter().map(|phase| self.jobs.count(*phase)).sum()),
            running: count(running.iter().map(|phase| self.jobs.count(*phase)).sum()),
            owed: count(self.owed()),
            draining: self.draining(),
            trouble: problem.or_else(|| self.queue_problem().map(str::to_owned)),
        }
    }
}

impl PoolState<'_> {
    /// How the pool is.
    pub fn report(&self) -> PoolReport {
        let counts_memory = self.capacity.memory.is_some();
        // In a batch system slots are counted; what a pool has is what its allocations have.
        let capacity = match self.room {
            None => Amount {
                cpus: u64::from(self.capacity.cpus),
                memory: self.capacity.memory.map(Memory::bytes),
                gpus: count(self.capacity.gpus.len()),
            },
            Some(Room { held, .. }) => {
                Amount { cpus: held.cpus, memory: Some(held.memory).filter(|memory| *memory > 0), gpus: held.gpus }
            }
        };
        PoolReport {
            pool: self.name.clone(),
            ready: self.is_ready,
            problem: self.problem.map(ToString::to_string),
            held: count(self.waiting),
            running: count(self.running),
            hold: Some(self.hold).filter(|hold| *hold < usize::MAX).map(count),
            capacity,
            in_use: Amount {
                cpus: self.held.cpus,
                memory: Some(self.held.memory).filter(|_| counts_memory),
                gpus: self.held.gpus,
            },
            allocations: self.room.map(|room| count(room.allocations)),
            want: self.room.map(|room| count(room.want)),
            why: self.room.map(|room| room.why.clone()).filter(|why| !why.is_empty()),
        }
    }
}
