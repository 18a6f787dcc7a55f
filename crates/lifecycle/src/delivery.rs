//! What comes from the queue and goes back to it: deliveries, leases, results.

use std::time::Duration;

use protocol::{FailureClass, JobId, JobMessage, limits};

use crate::phases::Phase;
use crate::state::{Lifecycle, Node, Step};
use crate::table::{NewJob, State};
use crate::{Delivery, Effect, Fact, Failure, Lease, Notice, Terms};

/// Under load, results are pushed this often at most: a request carries a hundred as well as one.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// The same for acknowledgements, which nobody waits for.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// Before the next, smaller batch after one was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

impl Lifecycle {
    pub(crate) fn pulled(&mut self, deliveries: Vec<Delivery>, step: &mut Step) {
        self.pull.succeeded();
        if deliveries.is_empty() {
            let doublings = self.empty_pulls.min(16);
            self.empty_pulls = self.empty_pulls.saturating_add(1);
            let pause = self.settings.poll_interval.saturating_mul(1 << doublings);
            self.pull.not_before =
                self.now + pause.min(self.settings.poll_interval_max.max(self.settings.poll_interval));
            return;
        }
        self.empty_pulls = 0;
        // Jobs first: a stray message with the id of one of them must not take its place.
        let mut strays = Vec::new();
        let mut new = Vec::new();
        for delivery in deliveries {
            match parse(&delivery.body) {
                Ok(message) => new.extend(self.delivered(&delivery, message, step)),
                Err(problem) => strays.push((delivery, problem)),
            }
        }
        if !new.is_empty() {
            step.effects.push(Effect::Recall(new));
        }
        for (delivery, (job_id, problem)) in strays {
            let job_id = job_id.filter(|job_id| self.jobs.get(job_id).is_none());
            self.putting_away += 1;
            step.effects.push(Effect::PutAway { lease_id: delivery.lease_id, job_id, body: delivery.body, problem });
        }
    }

    /// A job was delivered; its id is returned if we do not hold it.
    fn delivered(&mut self, delivery: &Delivery, message: JobMessage, step: &mut Step) -> Option<JobId> {
        let lease = self.lease_of(delivery);
        let job_id = message.job_id.clone();
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.deliveries = job.deliveries.max(delivery.deliveries);
            if job.state.phase() != Phase::Asked {
                step.facts.push(Fact::Leased(job_id.clone(), lease.clone()));
            }
            self.jobs.add_lease(&job_id, lease);
            return None;
        }
        let terms = Terms { retries: message.retries.unwrap_or(0), rerunnable: message.rerunnable.unwrap_or(true) };
        let sent = message.created_at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).map(Duration::from_millis);
        let job = NewJob::new(State::Asked(Box::new(message)), terms, delivery.deliveries, sent);
        self.jobs.insert(job_id.clone(), job);
        self.jobs.add_lease(&job_id, lease);
        Some(job_id)
    }

    pub(crate) fn recalled(&mut self, answers: Vec<(JobId, bool)>, step: &mut Step) {
        for (job_id, finished) in answers {
            let Some(job) = self.jobs.get(&job_id) else { continue };
            let State::Asked(message) = &job.state else { continue };
            if finished {
                let leases = self.jobs.remove(&job_id);
                self.acks.extend(leases.into_iter().map(|lease| (lease.id, None)));
            } else if self.draining() || self.node != Node::Ready {
                // Pulled before we knew; nothing of it is ours yet.
                let delay = if self.draining() { Duration::ZERO } else { self.settings.retry_delay };
                let leases = self.jobs.remove(&job_id);
                self.retry(leases, delay);
            } else if job.leases.is_empty() {
                // The answer took longer than the lease: it is delivered again, to us or to another.
                self.jobs.remove(&job_id);
            } else if let Some(lease) = job.leases.last() {
                step.facts.push(Fact::Accepted {
                    job_id: job_id.clone(),
                    message: message.to_json(),
                    terms: job.terms,
                    lease: lease.clone(),
                });
                self.jobs.set(&job_id, State::Waiting(self.now));
            }
        }
    }

    pub(crate) fn put_away(&mut self, lease_id: String, record: Option<(JobId, String)>, step: &mut Step) {
        self.putting_away -= 1;
        let Some((job_id, record)) = record else {
            self.acks.push_back((lease_id, None));
            return;
        };
        // When it lapses is not known any more; acknowledged at once, that does not matter.
        let lease = Lease { id: lease_id, until: self.now };
        if self.jobs.get(&job_id).is_none() {
            step.facts.push(Fact::Accepted {
                job_id: job_id.clone(),
                message: String::new(),
                terms: Terms::default(),
                lease: lease.clone(),
            });
            step.facts.push(Fact::Recorded(job_id.clone(), record.clone()));
            let job = NewJob::new(State::Recorded(record.len()), Terms::default(), u64::MAX, None);
            self.jobs.insert(job_id.clone(), job);
        }
        self.jobs.add_lease(&job_id, lease);
    }

    pub(crate) fn retry(&mut self, leases: Vec<Lease>, delay: Duration) {
        // It comes back after its delay: the queue is not empty.
        self.empty_pulls = 0;
        self.returns_until = self.returns_until.max(self.now + delay);
        self.settle_now = true;
        self.retries.extend(leases.into_iter().map(|lease| (lease.id, delay)));
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
        if self.jobs.outbox().is_empty() || !self.publish.free(self.now) || self.now < self.publish_at() {
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
        self.jobs.outbox().iter().take(most).take_while(fits).cloned().collect()
    }

    pub(crate) fn published(&mut self, outcome: Result<(), Failure>, step: &mut Step) {
        let batch = std::mem::take(&mut self.publishing);
        match outcome {
            Ok(()) => {
                self.publish.succeeded();
                let more = self.publish_at_most.map(|most| most * 2);
                self.publish_at_most = more.filter(|most| *most < limits::BATCH_COUNT_MAX);
                // It takes results: what it refused before and refuses again is not fit for it.
                self.refused.values_mut().for_each(|others_were_taken| *others_were_taken = true);
                self.finish(batch, step);
            }
            Err(failure) => {
                self.failed(|state| &mut state.publish, &failure, step);
                if failure.class == FailureClass::Refused {
                    self.refused(batch, &failure, step);
                }
            }
        }
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
        if self.refused.get(job_id) == Some(&true) {
            let notice = Notice::ResultRefused { job_id: job_id.clone(), what: failure.what.clone() };
            step.effects.push(Effect::Say(notice));
            self.finish(batch, step);
        } else {
            self.refused.insert(job_id.clone(), false);
            self.jobs.postpone(job_id);
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
}

/// The job in a message, or whose job it was meant to be and what is wrong with it.
fn parse(body: &str) -> Result<JobMessage, (Option<JobId>, String)> {
    match protocol::body::json_text(body) {
        Some(text) => JobMessage::parse(&text).map_err(|error| (error.job_id.clone(), error.to_string())),
        None => Err((None, "the message is not a job: its body is not JSON, neither plain nor base64".to_owned())),
    }
}
