//! Giving jobs back to the queue, so that nothing of them is ours any more.

use std::time::Duration;

use protocol::JobId;

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::pools::{Place, PoolNo};
use crate::table::State;
use crate::{Attempt, Effect, Fact, Problem, Run};

/// How old a message may be to go back. The queue forgets a message some time after it was sent, whatever happens to
/// it: on the free plan after a day.
const GIVE_BACK_AGE_MAX: Duration = Duration::from_hours(12);

/// How long others who look at the queue have the first look at a job that is not for this site. A site that took it
/// again at once would keep it from all others.
const FOR_OTHERS: Duration = Duration::from_secs(10);

impl Lifecycle {
    /// Can the job go back to the queue, so that nothing of it is ours any more? Only while its message is sure to be
    /// there: it was delivered to us alone, and the lease holds.
    pub(crate) fn can_go_back(&self, job_id: &JobId) -> bool {
        // Its end is known, and here.
        let wanted = !self.is_cancelled(job_id);
        wanted
            && self.jobs.get(job_id).filter(|job| job.parent.is_none()).is_some_and(|job| {
                // What has failed already counts, and would be forgotten; and so would be its children.
                let unharmed = job.failures.task + job.failures.cut_off == 0 && !job.has_been_parked();
                // It must be there for longer than it takes to be delivered again.
                let young = job.sent.is_none_or(|sent| self.now < sent + GIVE_BACK_AGE_MAX);
                unharmed
                    && young
                    && job.deliveries.is_some_and(|deliveries| deliveries <= 1)
                    && !job.leases.is_empty()
                    && job.leases.iter().all(|lease| lease.until > self.now)
            })
    }

    /// Gives back all of a pool that was not started, as far as that is possible; the rest waits here.
    pub(crate) fn give_unstarted_back(&mut self, no: PoolNo, delay: Duration, step: &mut Step) {
        let lane = self.jobs.lane(no);
        for job_id in lane.waiting().chain(lane.staging()).chain(lane.ready()).cloned().collect::<Vec<_>>() {
            self.give_back(&job_id, delay, step);
        }
    }

    pub(crate) fn give_back(&mut self, job_id: &JobId, delay: Duration, step: &mut Step) {
        if !self.can_go_back(job_id) {
            return;
        }
        match (self.phase_of(job_id), self.run_of(job_id)) {
            // An earlier attempt here has left its claim on disk, and no other daemon could take the job.
            (Some(Phase::Waiting | Phase::Staging), Some(_)) => {}
            // A claim of an earlier daemon may stand that was not recorded yet.
            (Some(Phase::Waiting | Phase::Staging), None) if self.jobs.get(job_id).is_some_and(|job| job.restored) => {
                if let Some(job) = self.jobs.get_mut(job_id) {
                    job.attempt = Some(Attempt::FIRST);
                }
                self.jobs.set(job_id, State::Returning(delay));
                step.effects.push(Effect::Unclaim(Run { job_id: job_id.clone(), attempt: Attempt::FIRST }));
            }
            (Some(Phase::Waiting | Phase::Staging), None) => self.release(job_id, delay, step),
            (Some(Phase::Ready), Some(run)) => {
                // From here on a restart claims anew: the claim may be gone already.
                let failures = self.jobs.get(job_id).map(|job| job.failures).unwrap_or_default();
                step.facts.push(Fact::Again(job_id.clone(), failures));
                self.jobs.set(job_id, State::Returning(delay));
                step.effects.push(Effect::Unclaim(run));
            }
            _ => {}
        }
    }

    pub(crate) fn release(&mut self, job_id: &JobId, delay: Duration, step: &mut Step) {
        self.unstage(job_id, step);
        self.hand_on(job_id, delay);
        step.facts.push(Fact::Released(job_id.clone()));
    }

    /// A job goes back to the queue, which delivers it again after this delay, and the hub is told so: whoever else
    /// looks at the queue is woken then, and people see why it waits.
    pub(crate) fn hand_on(&mut self, job_id: &JobId, delay: Duration) {
        let (why, for_others) = match self.jobs.get(job_id).map(|job| &job.place) {
            Some(Place::Elsewhere(refusal)) => (Some(refusal.to_string().into()), FOR_OTHERS),
            _ => (None, Duration::ZERO),
        };
        let leases = self.jobs.give_back(job_id, self.now + delay, why);
        self.settler.give_back(leases.into_iter().map(|lease| lease.id), delay, for_others);
    }

    pub(crate) fn unclaimed(&mut self, run: &Run, outcome: Result<(), Problem>, step: &mut Step) {
        if !self.jobs.is(run, Phase::Returning) {
            return;
        }
        let Some(State::Returning(delay)) = self.jobs.get(&run.job_id).map(|job| &job.state) else { return };
        let delay = *delay;
        match outcome {
            Ok(()) if self.can_go_back(&run.job_id) => self.release(&run.job_id, delay, step),
            outcome => {
                self.jobs.set(&run.job_id, State::Waiting(self.now + self.settings.retry_delay));
                if let Err(problem) = outcome {
                    self.node_doubted(&run.job_id, problem, step);
                }
            }
        }
    }
}
