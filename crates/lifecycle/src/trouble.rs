//! What the node has failed: claims, runs, the ends of runs; and what becomes of the jobs concerned.

use std::time::Duration;

use protocol::{JobId, PoolName};

use crate::lifecycle::{Lifecycle, Step};
use crate::pool::{Change, Doubt, PROBE_INTERVAL, PROBE_INTERVAL_MAX};
use crate::pools::PoolNo;
use crate::table::State;
use crate::{Attempt, Effect, Ending, Fact, Notice, Problem, Run};

/// How often a node may fail a job here before its outcome is `infrastructure`. The pauses between make this a day.
pub(crate) const NODE_FAILURES_MAX: u32 = 30;

/// The longest pause before a node tries a job again that it failed.
const AGAIN_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// How often the end of a run may be held up by a node that passes its probe before that is put down to the job.
const HELD_UP_MAX: u32 = 2;

/// The pause before a job is looked at again that the node has held up so often, if it is put down to the job: probes
/// have passed in between, and it must not hold up all others.
pub(crate) fn pause_of_its_own(held_up: u32) -> Option<Duration> {
    (held_up > HELD_UP_MAX).then(|| PROBE_INTERVAL.saturating_mul(1 << held_up.min(6)).min(PROBE_INTERVAL_MAX))
}

impl Lifecycle {
    pub(crate) fn claim_failed(&mut self, job_id: &JobId, problem: Problem, step: &mut Step) {
        let goes_back = self.can_go_back(job_id);
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        // Part of the claim may stand, and would keep every other daemon from the job: it is an attempt like one that
        // was launched, and the job goes back only when its claim is given up for sure.
        let first = job.attempt.is_none();
        let attempt = *job.attempt.get_or_insert(Attempt::FIRST);
        job.claims_failed = job.claims_failed.saturating_add(1);
        if job.claims_failed > HELD_UP_MAX {
            return self.claim_fails_again(job_id, problem, step);
        }
        let next_try = self.settings.retry_delay;
        step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem: problem.clone(), next_try }));
        if goes_back && first {
            self.jobs.set(job_id, State::Returning(next_try));
            step.effects.push(Effect::Unclaim(Run { job_id: job_id.clone(), attempt }));
        } else {
            self.jobs.set(job_id, State::Waiting(self.now + next_try));
        }
        self.node_doubted(job_id, problem, step);
    }

    /// Probes have passed in between: it is something about this job, which must not hold up all others.
    fn claim_fails_again(&mut self, job_id: &JobId, problem: Problem, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        job.failures.node += 1;
        let failures = job.failures;
        if failures.node > NODE_FAILURES_MAX
            && let Some(run) = self.run_of(job_id)
        {
            return self.conclude(&run, Ending::GivenUp(problem), step);
        }
        let next_try = self.node_pause(failures.node);
        step.facts.push(Fact::Again(job_id.clone(), failures));
        step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem, next_try }));
        self.jobs.set(job_id, State::Waiting(self.now + next_try));
    }

    pub(crate) fn node_failed(&mut self, run: &Run, problem: Problem, step: &mut Step) {
        let job_id = &run.job_id;
        self.node_broken(job_id, problem.clone(), step);
        let failures = self.jobs.get(job_id).map_or(0, |job| job.failures.node);
        // Another instance of a service takes the place of this one.
        if failures >= NODE_FAILURES_MAX || self.service_of(job_id).is_some() {
            self.conclude(run, Ending::GivenUp(problem), step);
        } else if self.can_go_back(job_id) && !self.filled_disk(job_id) {
            self.jobs.set(job_id, State::Returning(self.settings.retry_delay));
            step.effects.extend([Effect::Unclaim(run.clone()), Effect::Forget(vec![run.clone()])]);
            self.failed_by_node(run, step);
        } else {
            let pause = self.node_pause(failures);
            let why = format!("the node failed attempt {}: {problem}", run.attempt);
            self.again(run, pause, why, |failures| failures.node += 1, step);
        }
    }

    /// Did its last attempt fill the disk? That would be forgotten with a job that goes back.
    fn filled_disk(&self, job_id: &JobId) -> bool {
        self.jobs.get(job_id).is_some_and(|job| job.disks_filled > 0)
    }

    /// The attempt is over, whatever becomes of the job: a restart must not look for its run.
    fn failed_by_node(&mut self, run: &Run, step: &mut Step) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.failures.node += 1;
            step.facts.push(Fact::Again(run.job_id.clone(), job.failures));
        }
    }

    /// The pause before a job is tried again that this node has failed so often.
    pub(crate) fn node_pause(&self, failures: u32) -> Duration {
        self.settings.retry_delay.saturating_mul(1 << failures.min(12)).min(AGAIN_PAUSE_MAX)
    }

    pub(crate) fn probed(&mut self, pool: Option<&PoolName>, outcome: Result<(), Problem>, step: &mut Step) {
        let no = self.pools.of_name(pool);
        match self.pools.get_mut(no).probed(outcome, self.now) {
            Change::None => {}
            Change::Ready { again } => {
                // What went back meanwhile may be there again.
                self.intake.expect_messages();
                step.effects.extend(again.then(|| Effect::Say(Notice::NodeReady(self.said_name(no)))));
            }
            Change::Broken(problem) => self.is_broken(no, problem, step),
        }
    }

    /// Something went wrong with one job, and it may be that job's own trouble, or the node's: a look tells. Until then
    /// nothing new begins in its pool, and what runs goes on.
    pub(crate) fn node_doubted(&mut self, job_id: &JobId, problem: Problem, step: &mut Step) {
        let pool = self.pool_of_mut(job_id);
        match pool.doubt() {
            Doubt::Probe => step.effects.push(Effect::Probe(pool.name().cloned())),
            Doubt::Broken => self.node_broken(job_id, problem, step),
            Doubt::None => {}
        }
    }

    /// The node has failed a job: its pool is broken.
    pub(crate) fn node_broken(&mut self, job_id: &JobId, problem: Problem, step: &mut Step) {
        let now = self.now;
        if self.pool_of_mut(job_id).broke(problem.clone(), now) {
            let no = self.jobs.get(job_id).map_or(self.pools.nowhere(), |job| job.lane);
            self.is_broken(no, problem, step);
        }
    }

    /// Whoever holds the runs of a pool says that nothing more can begin in it.
    pub(crate) fn pool_broken(&mut self, pool: &PoolName, problem: Problem, step: &mut Step) {
        let (no, now) = (self.pools.of_name(Some(pool)), self.now);
        if no != self.pools.nowhere() && self.pools.get_mut(no).broke(problem.clone(), now) {
            self.is_broken(no, problem, step);
        }
    }

    /// The node has failed in what all pools need.
    pub(crate) fn all_broken(&mut self, problem: &Problem, step: &mut Step) {
        let mut news = false;
        for no in self.pools.real() {
            if self.pools.get_mut(no).broke(problem.clone(), self.now) {
                news = true;
                self.give_unstarted_back(no, self.settings.retry_delay, step);
            }
        }
        step.effects.extend(news.then(|| Effect::Say(Notice::NodeBroken(None, problem.clone()))));
    }

    fn is_broken(&mut self, no: PoolNo, problem: Problem, step: &mut Step) {
        step.effects.push(Effect::Say(Notice::NodeBroken(self.said_name(no), problem)));
        self.give_unstarted_back(no, self.settings.retry_delay, step);
    }

    /// The name of a pool, where there is more than one.
    fn said_name(&self, no: PoolNo) -> Option<PoolName> {
        self.pools.get(no).name().filter(|_| !self.pools.is_one()).cloned()
    }

    /// Is it of use to know how the node is for a pool? While draining only for what has ended and waits for it.
    pub(crate) fn may_probe(&self, no: PoolNo) -> bool {
        !self.draining() || self.jobs.lane(no).undone_count() > 0
    }
}
