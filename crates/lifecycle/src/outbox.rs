//! What goes to the queue: results, acknowledgements, messages that are given back.

use std::time::Duration;

use protocol::{FailureClass, JobId, limits};

use crate::pauses::{Line, Verdict};
use crate::phases::Phase;
use crate::state::{Lifecycle, Step};
use crate::table::State;
use crate::{Effect, Fact, Failure, Notice};

/// Under load, results are pushed this often at most: a request carries a hundred as well as one.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// The same for acknowledgements, which nobody waits for.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// How many records are refused, one by one and none taken in between, before the queue is not asked at once for
/// others.
const REFUSED_MAX: usize = 3;

/// How long a record that was refused waits for its next try while there are others.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// How long a daemon that is to end when it is idle tries to publish what is refused.
const REFUSED_PATIENCE: Duration = Duration::from_secs(300);

/// A record that the queue has refused when it was sent alone.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// When that was for the first time.
    first: Duration,
    /// When it was for the last time.
    at: Duration,
    /// Did the queue take others since?
    others_were_taken: bool,
}

/// Before the next, smaller batch after one was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How long a daemon that cannot go on still tries to hand over what it owes.
const FATAL_PATIENCE: Duration = Duration::from_secs(10);

impl Lifecycle {
    /// When results may be pushed again, for there to be more than one.
    pub(crate) fn publish_at(&self) -> Duration {
        let full = self.jobs.outbox().len() >= limits::BATCH_COUNT_MAX;
        if full || self.quiet() { Duration::ZERO } else { self.publish.begun + PUBLISH_INTERVAL }
    }

    pub(crate) fn settle_at(&self) -> Duration {
        let full = self.acks.len() + self.retries.len() >= limits::BATCH_COUNT_MAX;
        if full || self.settle_now || self.quiet() { Duration::ZERO } else { self.settle.begun + SETTLE_INTERVAL }
    }

    pub(crate) fn publish_due(&mut self, step: &mut Step) {
        let free = self.publish.free(self.now) || (!self.publish.busy && self.may_pass_refused());
        if self.jobs.outbox().is_empty() || !free || self.now < self.publish_at() {
            return;
        }
        self.publishing = self.batch_to_publish();
        self.publish.begin(self.now);
        step.effects.push(Effect::Publish(self.publishing.clone()));
    }

    fn batch_to_publish(&self) -> Vec<JobId> {
        let size = |job_id: &JobId| match self.jobs.get(job_id).map(|job| &job.state) {
            Some(State::Recorded(bytes)) => *bytes,
            _ => 0,
        };
        let mut bytes = 0;
        let mut count = 0;
        let fits = |job_id: &&JobId| {
            bytes += size(job_id) + limits::MESSAGE_METADATA_BYTES;
            count += 1;
            // One record always goes: should it be too large, the queue says so.
            count == 1 || bytes <= limits::BATCH_BYTES_MAX
        };
        let most = self.publish_at_most.unwrap_or(limits::BATCH_COUNT_MAX);
        // What was refused goes again when there is nothing else: others tell whether the queue takes anything.
        let proven = |refusal: &Refusal| refusal.others_were_taken && self.now >= refusal.at + REFUSED_WAIT;
        if let Some((job_id, _)) = self.refused.iter().find(|(_, refusal)| proven(refusal)) {
            // Its time has come, however many others there are.
            return vec![job_id.clone()];
        }
        let others = self.jobs.outbox().len() > self.refused.len();
        let turn = |job_id: &&JobId| !others || !self.refused.contains_key(*job_id);
        self.jobs.outbox().iter().filter(turn).take(most).take_while(fits).cloned().collect()
    }

    pub(crate) fn published(&mut self, outcome: Result<(), Failure>, step: &mut Step) {
        let batch = std::mem::take(&mut self.publishing);
        match outcome {
            Ok(()) => {
                self.publish.succeeded();
                self.publish_refused = false;
                let more = self.publish_at_most.map(|most| most * 2);
                self.publish_at_most = more.filter(|most| *most < limits::BATCH_COUNT_MAX);
                // It takes results: what it refused before and refuses again is not fit for it.
                self.refused.values_mut().for_each(|refusal| refusal.others_were_taken = true);
                self.finish(batch, step);
            }
            Err(failure) => {
                self.failed(|state| &mut state.publish, &failure, step);
                self.publish_refused = failure.class == FailureClass::Refused;
                if self.publish_refused {
                    self.refused(batch, &failure, step);
                }
            }
        }
    }

    /// How many records were refused alone, and none was taken since.
    fn unproven(&self) -> usize {
        self.refused.values().filter(|refusal| !refusal.others_were_taken).count()
    }

    /// Is nothing owed but results that the queue has refused for a while?
    pub(crate) fn only_refused_are_left(&self) -> bool {
        let long_ago = |refusal: &Refusal| self.now >= refusal.first + REFUSED_PATIENCE;
        !self.publish.busy && self.jobs.len() == self.refused.len() && self.refused.values().all(long_ago)
    }

    /// Does the pause after a refusal not hold for others, because too few were refused to think that all will be?
    pub(crate) fn may_pass_refused(&self) -> bool {
        let unproven = self.unproven();
        let others = self.jobs.outbox().len() > self.refused.len();
        self.publish_refused
            && (1..REFUSED_MAX).contains(&unproven)
            && others
            && self.publish_at_most.is_none_or(|most| most == 1)
    }

    /// The queue does not take these records. Either it takes none, for a reason that passes or that a person mends, or
    /// one of them is not fit for it. Which one shows in ever smaller batches. That one is given up once others were
    /// taken and it is refused again, so that it does not hold them up; its record stays on the disk.
    fn refused(&mut self, batch: Vec<JobId>, failure: &Failure, step: &mut Step) {
        let [job_id] = batch.as_slice() else {
            self.publish_at_most = Some((batch.len() / 2).max(1));
            self.publish.not_before = self.publish.not_before.min(self.now + REFUSED_PAUSE);
            return;
        };
        if self.refused.get(job_id).is_some_and(|refusal| refusal.others_were_taken) {
            let notice = Notice::ResultRefused { job_id: job_id.clone(), what: failure.what.clone() };
            step.effects.push(Effect::Say(notice));
            self.finish(batch, step);
        } else {
            let first = self.refused.get(job_id).map_or(self.now, |refusal| refusal.first);
            self.refused.insert(job_id.clone(), Refusal { first, at: self.now, others_were_taken: false });
            if self.unproven() >= REFUSED_MAX {
                // It is not about single ones, whatever was taken before.
                self.refused.values_mut().for_each(|refusal| refusal.others_were_taken = false);
            }
        }
    }

    fn finish(&mut self, batch: Vec<JobId>, step: &mut Step) {
        for job_id in batch {
            self.refused.remove(&job_id);
            let leases = self.jobs.remove(&job_id);
            self.acks.extend(leases.into_iter().map(|lease| (lease.id, None)));
            step.facts.push(Fact::Finished(job_id));
        }
    }

    pub(crate) fn settle_due(&mut self, step: &mut Step) {
        if !self.unsettled() || !self.settle.free(self.now) || self.now < self.settle_at() {
            return;
        }
        let retries = self.retries.len().min(limits::BATCH_COUNT_MAX);
        let acks = self.acks.len().min(limits::BATCH_COUNT_MAX - retries);
        self.settling = (acks, retries);
        self.settle_now = self.acks.len() > acks || self.retries.len() > retries;
        self.settle.begin(self.now);
        step.effects.push(Effect::Settle {
            acks: self.acks.iter().take(acks).map(|(lease, _)| lease.clone()).collect(),
            retries: self.retries.iter().take(retries).cloned().collect(),
        });
    }

    pub(crate) fn settled(&mut self, outcome: Result<(), Failure>, step: &mut Step) {
        let (acks, retries) = std::mem::take(&mut self.settling);
        match outcome {
            Ok(()) => {
                self.settle.succeeded();
                self.retries.drain(..retries);
                for (_, job_id) in self.acks.drain(..acks) {
                    let held = job_id.filter(|job_id| self.jobs.get(job_id).is_some_and(|job| job.leases.is_empty()));
                    step.facts.extend(held.map(Fact::Acknowledged));
                }
            }
            Err(failure) => {
                self.settle_now = true;
                if failure.class == FailureClass::Refused {
                    // These leases will never be taken. Their messages come again, and what is remembered answers them.
                    self.acks.drain(..acks);
                    self.retries.drain(..retries);
                }
                self.failed(|state| &mut state.settle, &failure, step);
            }
        }
    }

    /// From here on the queue may forget what is about to be delivered again: it is accepted, and so remembered here.
    pub(crate) fn acknowledge_lapsing(&mut self) {
        while let Some(job_id) = self.jobs.lapsing(self.now) {
            let asked = self.jobs.get(&job_id).is_some_and(|job| matches!(job.state, State::Asked(_)));
            let leases = self.jobs.take_leases(&job_id);
            if !asked {
                self.settle_now = true;
                self.acks.extend(leases.into_iter().map(|lease| (lease.id, Some(job_id.clone()))));
            }
        }
    }

    pub(crate) fn unsettled(&self) -> bool {
        !self.acks.is_empty() || !self.retries.is_empty()
    }

    /// Is nothing going on that could add to a batch soon?
    pub(crate) fn quiet(&self) -> bool {
        let recorded = self.jobs.count(Phase::Recorded);
        self.draining() || self.jobs.len() == recorded
    }

    /// Says that the queue answers again, once it does for all that is to be told to it.
    pub(crate) fn say_queue_is_back(&mut self, step: &mut Step) {
        let trouble = self.pull.in_trouble()
            || (self.publish.in_trouble() && !self.jobs.outbox().is_empty())
            || (self.settle.in_trouble() && self.unsettled());
        if self.queue_trouble && !trouble {
            self.queue_trouble = false;
            step.effects.push(Effect::Say(Notice::QueueBack));
        }
    }

    pub(crate) fn failed(&mut self, line: impl Fn(&mut Self) -> &mut Line, failure: &Failure, step: &mut Step) {
        let now = self.now;
        match line(self).failed(failure, now) {
            Verdict::Again { said: true, .. } => {}
            Verdict::Again { pause, said: false } => {
                self.queue_trouble = true;
                let notice = Notice::QueueTrouble { what: failure.what.clone(), next_try: pause };
                step.effects.push(Effect::Say(notice));
            }
            Verdict::Never => {
                let until = now + FATAL_PATIENCE;
                self.draining_until = Some(self.draining_until.map_or(until, |earlier| earlier.min(until)));
                self.fatal.get_or_insert_with(|| failure.what.clone());
            }
        }
    }
}
