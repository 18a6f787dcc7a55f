//! What goes to the queue: results, acknowledgements, messages that are given back; and what is said of the queue.

use allowance::{OF_A_DELETION, operations};
use protocol::JobId;

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::publisher::Refused;
use crate::requests::{Requests, Verdict};
use crate::settler::Settled;
use crate::table::{Jobs, State};
use crate::{Effect, Fact, Failure, Fatal, Notice};

impl Lifecycle {
    pub(crate) fn publish_due(&mut self, step: &mut Step) {
        if self.shutdown.are_settings_wrong() {
            return;
        }
        let quiet = self.is_quiet();
        let jobs = &self.jobs;
        let bytes_of = |job_id: &JobId| record_bytes(jobs, job_id);
        let batch = self.publisher.begin(jobs.outbox(), bytes_of, quiet, self.now);
        step.effects.extend(batch.map(Effect::Publish));
    }

    pub(crate) fn published(&mut self, outcome: Result<(), Failure>, step: &mut Step) {
        let failure = match outcome {
            Ok(()) => {
                for job_id in self.publisher.pushed() {
                    let bytes = record_bytes(&self.jobs, &job_id);
                    self.thrift.allowance.spend(operations(bytes), self.now);
                    self.finish(job_id, step);
                }
                return;
            }
            Err(failure) => failure,
        };
        self.request_failed(|state| &mut state.publisher.pushes, &failure, step);
        if let Refused::ForGood(job_id) = self.publisher.failed(&failure.class, self.now) {
            // Its record stays on the disk.
            step.effects.push(Effect::Say(Notice::ResultRefused { job_id: job_id.clone(), what: failure.what }));
            self.finish(job_id, step);
        }
    }

    fn finish(&mut self, job_id: JobId, step: &mut Step) {
        self.publisher.done_with(&job_id);
        let leases = self.jobs.remove(&job_id);
        self.settler.acknowledge(leases.into_iter().map(|lease| lease.id));
        step.facts.push(Fact::Finished(job_id));
    }

    pub(crate) fn settled(&mut self, outcome: Result<(), Failure>, step: &mut Step) {
        match outcome {
            Ok(()) => {
                let deleted = self.settler.acks_under_way() as u64 * OF_A_DELETION;
                self.thrift.allowance.spend(deleted, self.now);
                let Settled { acknowledged, returns } = self.settler.settled();
                returns.into_iter().for_each(|delay| self.intake.comes_back(self.now + delay));
                for job_id in acknowledged {
                    let held = self.jobs.get(&job_id).is_some_and(|job| job.leases.is_empty());
                    step.facts.extend(held.then_some(Fact::Acknowledged(job_id)));
                }
            }
            Err(failure) => {
                self.request_failed(|state| &mut state.settler.requests, &failure, step);
                self.settler.failed(&failure.class);
            }
        }
    }

    /// From here on the queue may forget what is about to be delivered again: it is accepted, and so remembered here.
    pub(crate) fn acknowledge_lapsing(&mut self) {
        while let Some(job_id) = self.jobs.lapsing(self.now) {
            let asked = self.jobs.get(&job_id).is_some_and(|job| matches!(job.state, State::Asked));
            let leases = self.jobs.take_leases(&job_id);
            if !asked {
                self.settler.acknowledge_early(&job_id, leases.into_iter().map(|lease| lease.id));
            }
        }
    }

    /// Is nothing going on that could add to a batch soon?
    pub(crate) fn is_quiet(&self) -> bool {
        self.draining() || self.jobs.len() == self.jobs.count(Phase::Recorded)
    }

    /// Says that the queue answers again, once it does for all that is to be told to it.
    pub(crate) fn say_queue_is_back(&mut self, step: &mut Step) {
        let trouble = self.intake.pulls.in_trouble()
            || (self.publisher.pushes.in_trouble() && !self.jobs.outbox().is_empty())
            || (self.settler.requests.in_trouble() && !self.settler.is_done());
        if !trouble && self.queue_trouble.take().is_some() {
            step.effects.push(Effect::Say(Notice::QueueBack));
        }
    }

    pub(crate) fn request_failed(
        &mut self,
        requests: impl Fn(&mut Self) -> &mut Requests,
        failure: &Failure,
        step: &mut Step,
    ) {
        let now = self.now;
        match requests(self).failed(failure, now) {
            Verdict::Again { said: true, .. } => {}
            Verdict::Again { pause, said: false } => {
                self.queue_trouble = Some(failure.what.clone());
                let notice = Notice::QueueTrouble { what: failure.what.clone(), next_try: pause };
                step.effects.push(Effect::Say(notice));
            }
            Verdict::Never => self.shutdown.fail(Fatal::Refused(failure.what.clone()), now),
        }
    }
}

/// How long the record of a job is that is owed.
pub(crate) fn record_bytes(jobs: &Jobs, job_id: &JobId) -> usize {
    match jobs.get(job_id).map(|job| &job.state) {
        Some(State::Recorded(bytes)) => *bytes,
        _ => 0,
    }
}
