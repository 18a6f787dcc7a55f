//! What comes from the queue: how much is asked for, deliveries and their leases.

use std::time::Duration;

use protocol::{JobId, JobMessage};

use crate::phases::Phase;
use crate::state::{Lifecycle, Node, Step};
use crate::table::{NewJob, State};
use crate::{Delivery, Effect, Fact, Lease, Terms};

/// How far ahead jobs are pulled: as many as have ended within this time lately. A queue of jobs of a second is pulled
/// two at a time; one of jobs that take a millisecond, in batches. Nobody else waits longer than this for a job that
/// waits here.
pub const AHEAD: Duration = Duration::from_secs(2);

/// How many results may be owed before no more jobs are taken.
const OWED_MAX: usize = 10_000;

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

    /// How many jobs may wait here besides those that fill the free slots.
    pub(crate) fn ahead(&self) -> usize {
        let recent = self.ends.iter().filter(|end| **end + AHEAD > self.now).count();
        recent.min(self.settings.batch_size)
    }

    /// How many messages to ask for now.
    pub(crate) fn wants_pull(&self) -> usize {
        let may = self.node == Node::Ready
            && self.keeper.known
            && !self.draining()
            && self.handing_over_until.is_none()
            && self.putting_away == 0
            && self.jobs.outbox().len() < OWED_MAX;
        if !may {
            return 0;
        }
        let pending = self.jobs.count(Phase::Asked)
            + self.jobs.due_count(self.now)
            + self.jobs.count(Phase::Claiming)
            + self.jobs.count(Phase::Ready);
        if !self.trusted {
            let at_work = pending + self.running() + self.being_dealt_with();
            return usize::from(at_work == 0);
        }
        let (free, ahead) = (self.free_slots(), self.ahead());
        let wanted = (free + ahead).saturating_sub(pending);
        // A slot is never left empty for the sake of a larger batch.
        if pending < free || wanted * 2 > ahead { wanted.min(self.settings.batch_size) } else { 0 }
    }

    /// The lease of a delivery that a pull brought, by our clock.
    pub(crate) fn lease_of(&self, delivery: &Delivery) -> crate::Lease {
        crate::Lease { id: delivery.lease_id.clone(), until: self.pull.begun + self.settings.lease }
    }
}

/// The job in a message, or whose job it was meant to be and what is wrong with it.
fn parse(body: &str) -> Result<JobMessage, (Option<JobId>, String)> {
    match protocol::body::json_text(body) {
        Some(text) => JobMessage::parse(&text).map_err(|error| (error.job_id.clone(), error.to_string())),
        None => Err((None, "the message is not a job: its body is not JSON, neither plain nor base64".to_owned())),
    }
}
