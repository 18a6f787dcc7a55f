//! What comes from the queue: how much is asked for, deliveries and their leases.

use std::sync::Arc;
use std::time::Duration;

use protocol::{JobId, JobMessage};

use crate::lifecycle::{Lifecycle, Step, sent};
use crate::needs::Needs;
use crate::phases::Phase;
use crate::pools::{Place, PoolNo, Routed};
use crate::table::{NewJob, State};
use crate::{Delivery, Effect, Fact, Fatal, Lease, Origin, Pulled, Recalled, Terms};

/// How many results may be owed, and outputs to their store, before no more jobs are taken.
const OWED_MAX: usize = 10_000;

/// What a result among the jobs proves.
const SWAPPED: &str = "CF_JOBS_QUEUE_ID and CF_RESULTS_QUEUE_ID are swapped, so swap the two (`hpc-consumer run --check` \
     tells what the queues are called); nothing was acknowledged, and nothing of it was run";

impl Lifecycle {
    pub(crate) fn pulled(&mut self, pulled: Pulled, step: &mut Step) {
        self.intake.pulled(&pulled, &self.settings, self.now);
        self.thrift.asked_for = 0;
        self.has_cost(&pulled);
        // Jobs first: a stray message with the id of one of them must not take its place.
        let mut strays = Vec::new();
        // Whoever these are for finds them where they are.
        let mut misplaced = Vec::new();
        let mut new = Vec::new();
        let mut any_fits = false;
        for delivery in pulled.deliveries {
            match parse(&delivery.body, self.settings.default_task.as_deref()) {
                Ok(message) => {
                    if let Some((job_id, fits)) = self.delivered(&delivery, message, step) {
                        any_fits |= fits;
                        new.push(job_id);
                    }
                }
                Err(Stray::Result(problem)) => misplaced.push((delivery.lease_id, problem)),
                Err(Stray::NoJob(job_id, problem)) => strays.push((delivery, job_id, problem)),
            }
        }
        if !new.is_empty() && !self.pools.is_one() {
            self.intake.brought(any_fits);
        }
        if let Some((_, problem)) = misplaced.first() {
            self.shutdown.fail(Fatal::WrongSettings(format!("{problem}; {SWAPPED}")), self.now);
            let leases = misplaced.into_iter().map(|(lease_id, _)| lease_id);
            self.settler.give_back(leases, Duration::ZERO, Duration::ZERO);
        }
        if !new.is_empty() {
            step.effects.push(Effect::Recall(new));
        }
        for (delivery, job_id, problem) in strays {
            let job_id = job_id.filter(|job_id| self.jobs.get(job_id).is_none());
            self.intake.puts_away();
            step.effects.push(Effect::PutAway { lease_id: delivery.lease_id, job_id, body: delivery.body, problem });
        }
    }

    /// A job was delivered; its id is returned if we do not hold it, and whether it will find room in its pool soon.
    fn delivered(&mut self, delivery: &Delivery, message: JobMessage, step: &mut Step) -> Option<(JobId, bool)> {
        let lease = self.intake.lease_of(delivery, &self.settings);
        let job_id = message.job_id.clone();
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.deliveries = job.deliveries.map(|before| before.max(delivery.deliveries));
            if job.state.phase() != Phase::Asked {
                step.facts.push(Fact::Leased(job_id.clone(), lease.clone()));
            }
            self.jobs.add_lease(&job_id, lease);
            return None;
        }
        let Routed { place, resources, retries, is_graph } = self.route(&message.spec);
        let (rerunnable, needs_files) = (message.spec.rerunnable.unwrap_or(true), message.spec.needs_files());
        let terms = Terms { retries, rerunnable, needs_files, is_graph };
        let needs = Needs::of(&message.spec, is_graph);
        let (deliveries, sent, message) = (Some(delivery.deliveries), sent(&message), Some(Arc::new(message)));
        // What needs services may have to wait for them here.
        let fits = needs.is_none() && matches!(place, Place::In(no) if self.wants_for(no) > 0);
        let job = NewJob { deliveries, message, sent, needs, ..NewJob::new(State::Asked, place, resources, terms) };
        self.jobs.insert(job_id.clone(), job);
        self.jobs.add_lease(&job_id, lease);
        Some((job_id, fits))
    }

    pub(crate) fn recalled(&mut self, answers: Vec<(JobId, Recalled)>, step: &mut Step) {
        for (job_id, recalled) in answers {
            let Some(job) = self.jobs.get(&job_id).filter(|job| matches!(job.state, State::Asked)) else { continue };
            let (Some(lease), Some(message)) = (job.leases.last(), self.jobs.message(&job_id)) else {
                // The answer took longer than the lease: it is delivered again, to us or to another.
                self.jobs.remove(&job_id);
                continue;
            };
            match recalled {
                // A message that comes for the first time asks for the result once more: its sender does not have it.
                Recalled::Ended(Some(record)) if job.deliveries == Some(1) => {
                    step.facts.push(Fact::Owed(job_id.clone(), record.clone(), lease.clone()));
                    self.jobs.set(&job_id, State::Recorded(record.len()));
                    self.jobs.drop_input(&job_id);
                }
                Recalled::Ended(_) => {
                    let leases = self.jobs.remove_ended(&job_id);
                    self.settler.acknowledge(leases.into_iter().map(|lease| lease.id));
                }
                Recalled::New => {
                    let accepted = Fact::Accepted {
                        job_id: job_id.clone(),
                        message: message.text().to_owned(),
                        terms: job.terms,
                        origin: Origin::Queue(lease.clone()),
                    };
                    if let Some(delay) = self.is_to_stay_in_the_queue(&job_id, step) {
                        self.leave_in_the_queue(&job_id, delay);
                    } else {
                        step.facts.push(accepted);
                        self.jobs.set(&job_id, State::Waiting(self.now));
                        self.jobs.keep_message(&job_id);
                        self.accepted(&job_id);
                    }
                }
            }
        }
    }

    pub(crate) fn put_away(&mut self, lease_id: String, record: Option<(JobId, String)>, step: &mut Step) {
        self.intake.has_put_away();
        let Some((job_id, record)) = record else { return self.settler.acknowledge([lease_id]) };
        // When it lapses is not known any more; acknowledged at once, that does not matter.
        let lease = Lease { id: lease_id, until: self.now, deliveries: None };
        if self.jobs.get(&job_id).is_none() {
            step.facts.push(Fact::Owed(job_id.clone(), record.clone(), lease.clone()));
            let Routed { place, resources, .. } = self.pools.of_unknown(&self.settings.site);
            let job = NewJob::new(State::Recorded(record.len()), place, resources, Terms::default());
            self.jobs.insert(job_id.clone(), job);
        }
        self.jobs.add_lease(&job_id, lease);
    }

    /// A message stays in the queue, which delivers it again after this delay.
    fn leave_in_the_queue(&mut self, job_id: &JobId, delay: Duration) {
        if self.jobs.get(job_id).is_some_and(|job| matches!(job.place, Place::Elsewhere(_))) {
            return self.hand_on(job_id, delay);
        }
        // Of the many for which there is no room nobody has to be told.
        let leases = self.jobs.remove(job_id);
        self.settler.give_back(leases.into_iter().map(|lease| lease.id), delay, Duration::ZERO);
    }

    /// How many messages to ask for now.
    pub(crate) fn wants_pull(&self) -> usize {
        let may = self.executor.is_known()
            && !self.takes_nothing_new()
            && !self.intake.is_putting_away()
            && self.jobs.outbox().len() + self.jobs.count(Phase::Uploading) < OWED_MAX;
        if !may {
            return 0;
        }
        let wanted = self.pools.real().map(|no| self.wants_for(no)).fold(0, usize::saturating_add);
        let count = self.intake.count(wanted, self.settings.batch_size);
        self.thrift.allowance.messages(count, self.owed_operations(), self.now)
    }

    /// How many messages to ask for on behalf of a pool. Whose they will be the queue alone knows.
    fn wants_for(&self, no: PoolNo) -> usize {
        let (pool, lane) = (self.pools.get(no), self.jobs.lane(no));
        if !pool.is_ready() {
            return 0;
        }
        if !pool.is_trusted() {
            let early = lane.due_count()
                + self.lacking(no)
                + [Phase::Asked, Phase::Claiming, Phase::Ready, Phase::Running]
                    .iter()
                    .map(|phase| lane.count(*phase))
                    .sum::<usize>();
            return usize::from(early + self.being_dealt_with(no) == 0);
        }
        if lane.room_elsewhere().is_some() {
            // Allocations are asked for what waits here. What waits for services is not of it, and has a bound itself.
            let waiting: usize =
                [Phase::Asked, Phase::Waiting, Phase::Staging].iter().map(|phase| lane.count(*phase)).sum();
            let waiting = waiting.saturating_sub(lane.needing_count());
            return pool.hold().saturating_sub(waiting).min(self.settings.batch_size);
        }
        let ahead = pool.ahead(self.now);
        let (free, wanted) = (self.room(no, 0), self.room(no, ahead));
        // A slot is never left empty for the sake of a larger batch.
        if free > 0 || wanted * 2 > ahead { wanted.min(self.settings.batch_size) } else { 0 }
    }
}

/// A message that is no job, and what is wrong with it.
enum Stray {
    /// It is plainly a result.
    Result(String),
    /// It is anything else; with the job that it was meant to be, if that can be read.
    NoJob(Option<JobId>, String),
}

/// The job in a message. One that names no task gets the default: what is stored of it has that, too.
fn parse(body: &str, default_task: Option<&str>) -> Result<JobMessage, Stray> {
    let Some(text) = protocol::body::json_text(body) else {
        let problem = "the message is not a job: its body is not JSON, neither plain nor base64".to_owned();
        return Err(Stray::NoJob(None, problem));
    };
    let with_task = default_task.and_then(|task| JobMessage::with_task(&text, task));
    JobMessage::parse(with_task.as_deref().unwrap_or(&text)).map_err(|error| {
        let problem = error.to_string();
        if error.is_result { Stray::Result(problem) } else { Stray::NoJob(error.job_id, problem) }
    })
}
