//! One step, and all that is possible after it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use allowance::Allowance;
use protocol::{JobId, JobMessage, PoolName};
use site::{Capacity, Grant, Held, Site};

use crate::cancel::Cancellations;
use crate::executor::ExecutorView;
use crate::intake::Intake;
use crate::needs::Needs;
use crate::phases::Phase;
use crate::pools::{Place, PoolNo, Pools, Routed};
use crate::publisher::Publisher;
use crate::refusal::Refusals;
use crate::report::EndedChildren;
use crate::services::Services;
use crate::settler::Settler;
use crate::shutdown::Shutdown;
use crate::table::{Jobs, NewJob, State};
use crate::thrift::Thrift;
use crate::transfers::FileStore;
use crate::unfolding::Unfolding;
use crate::{Attempt, Changes, Effect, Entry, Event, Fact, Launched, Notice, Problem, Room, Run, Stage};

/// What the life of a job depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What runs where. It does not change in the life of a daemon: another file is another life.
    pub site: Arc<Site>,
    /// What a message runs that is plainly a job and names no task; without it, such a message is no job.
    pub default_task: Option<String>,
    /// How many messages to ask for at most in one pull.
    pub batch_size: usize,
    /// For how long a pull leases its messages.
    pub lease: Duration,
    /// After the first empty pull, how long to the next; it doubles with each further empty pull.
    pub poll_interval: Duration,
    /// The longest time between two pulls of an empty queue.
    pub poll_interval_max: Duration,
    /// The time between them while somebody tells when there is something ([`Event::Linked`]).
    pub linked_poll_interval: Duration,
    /// How many operations of the queues may be spent a day; as many as one likes without.
    pub operations_per_day: Option<u64>,
    /// How long a job waits, in the queue or here, after a node could not run it.
    pub retry_delay: Duration,
    /// Between two looks at a job that another daemon holds.
    pub claim_patience: Duration,
    /// How long a drain waits for what runs.
    pub drain_timeout: Duration,
    /// Exit once the queue is empty and nothing is left to do?
    pub exit_when_idle: bool,
    /// What tells this life of a daemon from all others, in up to 12 characters of a job id: the ids of the instances
    /// of services that it starts hold it.
    pub life: String,
}

/// What follows from an event: the facts are to be on disk before the effects begin, which [`crate::Driver`] sees to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What must not be forgotten, in order.
    pub facts: Vec<Fact>,
    /// What to do, to be begun in this order; the ends may come in any.
    pub effects: Vec<Effect>,
}

/// How a pool is, for people.
#[derive(Debug, Clone, Copy)]
pub struct PoolState<'a> {
    /// Which.
    pub name: &'a PoolName,
    /// Can jobs begin in it? It is being looked at, or has not been yet, where they cannot and nothing is wrong.
    pub is_ready: bool,
    /// What is wrong with it, while something is.
    pub problem: Option<&'a Problem>,
    /// How many jobs wait in it.
    pub waiting: usize,
    /// How many of them wait for the store of files, or for a service that has no place for them, and so for no room.
    pub stranded: usize,
    /// How many run in it.
    pub running: usize,
    /// What they have for themselves.
    pub held: Held,
    /// How much there is.
    pub capacity: &'a Capacity,
    /// How many jobs may wait in it.
    pub hold: usize,
    /// Since when the first of its jobs waits that may begin.
    pub waiting_since: Option<Duration>,
    /// What it has in its batch system, where it lives in one.
    pub room: Option<&'a Room>,
}

/// When a message was sent, where that is known, since the Unix epoch.
pub(crate) fn sent(message: &JobMessage) -> Option<Duration> {
    let millis = u64::try_from(message.created_at?.as_millisecond()).ok()?;
    Some(Duration::from_millis(millis))
}

/// The life of all jobs that this daemon holds. Each of its parts knows one thing and decides what follows from that
/// alone; what concerns several is decided here.
#[derive(Debug)]
pub struct Lifecycle {
    pub(crate) settings: Settings,
    pub(crate) now: Duration,
    pub(crate) jobs: Jobs,
    pub(crate) intake: Intake,
    pub(crate) publisher: Publisher,
    pub(crate) settler: Settler,
    pub(crate) pools: Pools,
    pub(crate) refusals: Refusals,
    pub(crate) executor: ExecutorView,
    pub(crate) shutdown: Shutdown,
    pub(crate) cancellations: Cancellations,
    pub(crate) file_store: FileStore,
    pub(crate) unfolding: Unfolding,
    pub(crate) services: Services,
    /// Children that have ended and of which there is something to say, if anybody asks.
    pub(crate) ended: EndedChildren,
    /// What the queues may cost.
    pub(crate) thrift: Thrift,
    /// What was said of the queue: it does not answer, and not yet that it does again.
    pub(crate) queue_trouble: Option<String>,
}

impl Lifecycle {
    /// A daemon that finds this on its disk, in the order of acceptance, and knows nothing of its node yet. Step it
    /// with [`Event::Tick`] to begin.
    pub fn restore(settings: Settings, entries: Vec<Entry>, now: Duration) -> Self {
        // The queue counts from its receipt of the pull and we from its sending, so there is a margin already; this one
        // is for the way of the acknowledgement, with its retries.
        let margin = (settings.lease / 3).min(Duration::from_secs(300));
        let pools = Pools::new(&settings.site, settings.batch_size);
        let mut jobs = Jobs::new(Pools::lanes(&settings.site), margin);
        jobs.now = now;
        let (mut parkings, mut unwanted) = (Vec::new(), Vec::new());
        let (mut services, mut served) = (Services::new(&settings.site), Vec::new());
        for entry in entries {
            let since = entry.since.min(now);
            let Routed { place, resources, .. } = match (&entry.service, &entry.message) {
                (Some(service), _) => pools.route_of_service(&settings.site, service),
                (None, Some(message)) => pools.route(&settings.site, &message.spec),
                (None, None) => pools.of_unknown(&settings.site),
            };
            let needs = entry.message.as_ref().filter(|_| entry.service.is_none());
            let needs = needs.and_then(|message| Needs::of(&message.spec, entry.terms.is_graph));
            if let Some(service) = entry.service.as_ref().filter(|_| !matches!(entry.stage, Stage::Recorded(_))) {
                let idle_since = entry.idle_since.map_or(now, |since| since.min(now));
                services.found(service, &entry.job_id, idle_since);
            }
            let (mut lane, mut found) = (None, None);
            let state = match entry.stage {
                Stage::Accepted => State::Waiting(place.is_due_from(now, since)),
                Stage::Launching => {
                    if let Some(launched) = entry.launched {
                        lane = Some(pools.of_name(launched.pool.as_ref()));
                        found = Some(launched.grant);
                        served.extend(needs.is_some().then(|| (entry.job_id.clone(), launched.services)));
                    }
                    // Of a graph nothing runs.
                    if entry.terms.is_graph { State::Parked } else { State::Running(None) }
                }
                Stage::Parked => State::Parked,
                Stage::Recorded(bytes) => State::Recorded(bytes),
            };
            let place = match place {
                Place::Elsewhere(refusal) if entry.parent.is_some() => Place::Nowhere(refusal.to_string().into()),
                place => place,
            };
            parkings.extend(entry.parking.map(|parking| (entry.job_id.clone(), parking)));
            unwanted.extend(entry.unwanted.then(|| entry.job_id.clone()));
            let job = NewJob {
                parent: entry.parent.map(Box::new),
                needs,
                service: entry.service.map(Box::new),
                lane,
                found,
                since: Some(since),
                attempt: entry.attempt,
                failures: entry.failures,
                deliveries: entry.lease.as_ref().and_then(|lease| lease.deliveries),
                sent: entry.message.as_ref().and_then(|message| sent(message)),
                ..NewJob::new(state, place, resources, entry.terms)
            };
            jobs.insert(entry.job_id.clone(), job);
            if let Some(mut lease) = entry.lease {
                // Should the clock have gone back, the lease still lapses after its length at the latest.
                lease.until = lease.until.min(now + settings.lease);
                jobs.add_lease(&entry.job_id, lease);
            }
        }
        let thrift = Thrift::new(Allowance::new(settings.operations_per_day));
        let mut lifecycle = Self {
            pools,
            refusals: Refusals::default(),
            settings,
            now,
            jobs,
            intake: Intake::default(),
            publisher: Publisher::default(),
            settler: Settler::default(),
            executor: ExecutorView::default(),
            shutdown: Shutdown::default(),
            cancellations: Cancellations::default(),
            file_store: FileStore::default(),
            unfolding: Unfolding::default(),
            services,
            ended: EndedChildren::default(),
            thrift,
            queue_trouble: None,
        };
        served.into_iter().for_each(|(job_id, places)| lifecycle.find_places(&job_id, places));
        lifecycle.find_children(parkings);
        lifecycle.find_graphs();
        unwanted.into_iter().for_each(|job_id| lifecycle.cancel(job_id));
        lifecycle
    }

    /// What follows from an event.
    pub fn step(&mut self, event: Event, now: Duration) -> Step {
        self.now = self.now.max(now);
        self.jobs.pass_time(self.now);
        let mut step = Step::default();
        if self.shutdown.is_over() {
            return step;
        }
        match event {
            Event::Tick => {}
            Event::Cancel(job_id) => self.cancel(job_id),
            Event::Woken => self.intake.woken(&self.settings, self.now),
            Event::Linked(linked) => self.intake.linked(linked, &self.settings, self.now),
            Event::SpentBesides { day, operations, sharers } => {
                self.thrift.allowance.spent_besides(day, operations, sharers, self.now);
            }
            Event::Drain => self.shutdown.drain(self.settings.drain_timeout, self.now),
            Event::HandOver => self.shutdown.hand_over(self.now),
            Event::Stop => self.shutdown.stop(),
            Event::Probed(pool, outcome) => self.probed(pool.as_ref(), outcome, &mut step),
            Event::Pulled(Ok(pulled)) => self.pulled(pulled, &mut step),
            Event::Pulled(Err(failure)) => {
                self.thrift.asked_for = 0;
                self.request_failed(|state| &mut state.intake.pulls, &failure, &mut step);
            }
            Event::Recalled(answers) => self.recalled(answers, &mut step),
            Event::Staged(job_id, staged) => self.staged(&job_id, staged, &mut step),
            Event::Uploaded(run, uploaded) => self.uploaded(&run, uploaded, &mut step),
            Event::Unfolded(run, unfolded) => self.unfolded(&run, unfolded, &mut step),
            Event::Claimed(job_id, claimed) => self.claimed(&job_id, claimed, &mut step),
            Event::Unclaimed(run, outcome) => self.unclaimed(&run, outcome, &mut step),
            Event::Observed(observation) => self.observed(observation, &mut step),
            Event::Room(pool, room) => self.room_is(&pool, room),
            Event::RunWaits(run, why) => self.run_waits(&run, why),
            Event::PoolBroken(pool, problem) => self.pool_broken(&pool, problem, &mut step),
            Event::ExecutorGone(why) => {
                let news = self.executor.is_gone(why, self.now);
                step.effects.extend(news.map(|problem| Effect::Say(Notice::ExecutorTrouble(problem))));
            }
            Event::RunEnded(run, finished) => self.run_ended(&run, finished, &mut step),
            Event::RunCutOff(run, what) => self.run_cut_off(&run, what, &mut step),
            Event::RunRejected(run, why) => self.run_rejected(&run, why, &mut step),
            Event::ServiceReady(run, facts) => self.service_ready(&run, facts, &mut step),
            Event::ServiceGone(run, problem) => self.service_gone(&run, &problem),
            Event::Concluded(run, concluded) => self.concluded(&run, concluded, &mut step),
            Event::PutAway { lease_id, record } => self.put_away(lease_id, record, &mut step),
            Event::PutAwayFailed { lease_id, problem } => {
                self.intake.has_put_away();
                self.settler.give_back([lease_id], self.settings.retry_delay, Duration::ZERO);
                self.all_broken(&problem, &mut step);
            }
            Event::Published(outcome) => self.published(outcome, &mut step),
            Event::Settled(outcome) => self.settled(outcome, &mut step),
        }
        self.advance(&mut step);
        step
    }

    /// When to step with [`Event::Tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.shutdown.is_over() {
            return None;
        }
        let quiet = self.is_quiet();
        let pull = if self.wants_pull() > 0 { self.intake.pulls.next() } else { self.next_day_at() };
        let publish = self.publisher.next(self.jobs.outbox(), quiet);
        let settle = self.settler.next(quiet);
        let unfold = self.unfolding.next().filter(|_| !self.draining());
        let (lapse, upload) = (self.jobs.next_lapse(), self.jobs.next_upload());
        let times = [self.executor.ask_at(), pull, publish, settle, unfold, lapse, upload, self.services.next()];
        let of_pools = self.pools.all().flat_map(|no| self.wake_at_of(no));
        // What is not done although its time has come waits for an event and not for the time.
        times.into_iter().chain(of_pools).chain(self.shutdown.ends()).flatten().filter(|at| *at > self.now).min()
    }

    /// When something is to be done in a pool.
    fn wake_at_of(&self, no: PoolNo) -> [Option<Duration>; 4] {
        let (pool, lane) = (self.pools.get(no), self.jobs.lane(no));
        let begins = self.may_begin(no) || no == self.pools.nowhere();
        [
            pool.probe_at().filter(|_| self.may_probe(no)),
            lane.next_undone().filter(|_| pool.is_ready()),
            lane.next_due().filter(|_| begins),
            pool.trusted_at(),
        ]
    }

    /// How many runs go on.
    pub fn running(&self) -> usize {
        self.jobs.count(Phase::Running)
    }

    /// How many results are owed to the queue.
    pub fn owed(&self) -> usize {
        self.jobs.outbox().len()
    }

    /// How many jobs are ours.
    pub fn held(&self) -> usize {
        self.jobs.len()
    }

    /// What each job does, which attempt it is at, and since when; for people.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, Phase, Option<Attempt>, Duration)> {
        self.jobs.iter().map(|(job_id, job)| (job_id, job.state.phase(), job.attempt, job.since))
    }

    /// What else there is to say of a job: that it is being cancelled, what becomes of its files and outputs, what its
    /// run waits for, or how the last attempt ended in the life of this daemon, where another one follows; for people.
    pub fn remark(&self, job_id: &JobId) -> Option<Cow<'_, str>> {
        let job = self.jobs.get(job_id)?;
        if self.is_cancelled(job_id) && job.state.phase() != Phase::Recorded {
            return Some("it was cancelled, and is being ended".into());
        }
        let waits = || job.waits.as_deref().or(job.last_attempt.as_deref());
        let says = job.says_of_files().or_else(|| job.says_of_children()).or_else(|| self.says_of_services(job));
        says.map(Cow::from).or_else(|| waits().map(Cow::from))
    }

    /// Does the executor have its run, and has not begun it?
    pub fn waits(&self, job_id: &JobId) -> bool {
        self.jobs.get(job_id).is_some_and(|job| job.waits.is_some())
    }

    /// The phase of a job that is held.
    pub fn phase_of(&self, job_id: &JobId) -> Option<Phase> {
        self.jobs.get(job_id).map(|job| job.state.phase())
    }

    /// Which attempt at a job has begun last, or 0.
    pub fn begun(&self, job_id: &JobId) -> u32 {
        self.jobs.get(job_id).map_or(0, crate::table::Job::begun)
    }

    /// The message of a job that is held, if it came in this life of the daemon, there was room for it, and it was not
    /// claimed yet. Else the store has it.
    pub fn message(&self, job_id: &JobId) -> Option<&Arc<JobMessage>> {
        self.jobs.message(job_id)
    }

    /// The same, without its input once that is in the job directory.
    pub fn brief(&self, job_id: &JobId) -> Option<&Arc<JobMessage>> {
        self.jobs.brief(job_id)
    }

    /// What is wrong with the node, while it can run jobs of no pool.
    pub fn node_problem(&self) -> Option<&Problem> {
        let problems: Option<Vec<&Problem>> = self.pools.real().map(|no| self.pools.get(no).problem()).collect();
        problems?.first().copied()
    }

    /// How each pool is, in the order of their names; for people.
    pub fn pools(&self) -> impl Iterator<Item = PoolState<'_>> {
        self.pools.real().filter_map(|no| {
            let (pool, lane) = (self.pools.get(no), self.jobs.lane(no));
            let (served, served_since) = self.could_be_served(no);
            let due_since = lane.first_due().map(|((since, _), _)| since);
            Some(PoolState {
                name: pool.name()?,
                is_ready: pool.is_ready(),
                problem: pool.problem(),
                waiting: [Phase::Waiting, Phase::Staging, Phase::Claiming, Phase::Ready]
                    .into_iter()
                    .map(|phase| lane.count(phase))
                    .sum(),
                stranded: self.stranded(no) + lane.needing_count().saturating_sub(served),
                running: lane.count(Phase::Running),
                held: lane.held_by_runs(),
                capacity: lane.in_use().capacity(),
                hold: pool.hold(),
                waiting_since: due_since.into_iter().chain(served_since).min(),
                room: lane.room_elsewhere(),
            })
        })
    }

    /// The pool in which a job is or is to be; none where the site has no such.
    pub fn pool_of(&self, job_id: &JobId) -> Option<&PoolName> {
        self.pools.get(self.jobs.get(job_id)?.lane).name()
    }

    /// What a job that is about to run, or does, has of its pool.
    pub fn launched(&self, job_id: &JobId) -> Option<Launched> {
        let job = self.jobs.get(job_id)?;
        let grant = job.grant.as_deref().cloned().unwrap_or_else(|| Grant::without_gpus(&job.resources));
        let services = job.needs.as_ref().map(|needs| needs.places.clone()).unwrap_or_default();
        Some(Launched { pool: self.pools.get(job.lane).name().cloned(), grant, services })
    }

    /// Why the executor cannot be reached, while it cannot.
    pub fn executor_problem(&self) -> Option<&Problem> {
        self.executor.trouble()
    }

    /// Why the queue does not answer, while it does not.
    pub fn queue_problem(&self) -> Option<&str> {
        self.queue_trouble.as_deref()
    }

    /// Is a pull of now one that was asked for by [`Event::Woken`]? Then nothing that others have found spares it.
    pub fn is_awake(&self) -> bool {
        self.intake.is_awake(self.now)
    }

    /// Has it come to its end?
    pub fn is_over(&self) -> bool {
        self.shutdown.is_over()
    }

    /// Is nothing new taken any more?
    pub fn draining(&self) -> bool {
        self.shutdown.is_draining()
    }

    /// Is no job taken any more? A pull that the queue holds need not be waited for then.
    pub fn takes_nothing_new(&self) -> bool {
        self.draining() || self.shutdown.is_handing_over()
    }

    /// What has become of jobs since this was asked last, from the first time on.
    pub fn take_changes(&mut self) -> Changes {
        self.jobs.keep_changes();
        self.jobs.take_changes()
    }

    /// What there is to say of children whose records are among these facts, besides the records. Whoever asks what has
    /// become of jobs is to ask this of all facts, too.
    pub fn take_ended(&mut self, facts: &[Fact]) -> EndedChildren {
        self.ended.take(facts)
    }

    /// Checks what must hold in every state; the text says what does not.
    pub fn check(&self) -> Result<(), String> {
        self.jobs.check()?;
        self.check_services()?;
        let acknowledged = self.settler.check()?;
        for (job_id, job) in self.jobs.iter() {
            if let Some(lease) = job.leases.iter().find(|lease| acknowledged.contains(lease.id.as_str())) {
                return Err(format!("lease {} of job {job_id} is acknowledged and kept", lease.id));
            }
        }
        Ok(())
    }

    /// Everything that is possible now, whatever the event was.
    fn advance(&mut self, step: &mut Step) {
        if self.shutdown.is_stopped() {
            return self.leave(step);
        }
        for no in self.pools.all() {
            if self.may_probe(no) && self.pools.get_mut(no).probe(self.now) {
                step.effects.push(Effect::Probe(self.pools.get(no).name().cloned()));
            }
        }
        if self.executor.ask(self.now) {
            step.effects.push(Effect::Observe);
        }
        if self.draining() {
            self.pools.all().for_each(|no| self.give_unstarted_back(no, Duration::ZERO, step));
        }
        self.acknowledge_lapsing();
        self.say_queue_is_back(step);
        self.pools.all().for_each(|no| self.pools.get_mut(no).tick(self.now));
        self.carry_out_cancellations(step);
        self.turn_away(step);
        self.deal_with_refused(step);
        self.conclude_undone(step);
        self.reconcile_done(step);
        self.run_services(step);
        self.begin_runs(step);
        self.begin_staging(step);
        self.begin_uploads(step);
        self.unfold(step);
        self.say_files_are_back(step);
        self.publish_due(step);
        self.say_how_careful(step);
        step.effects.extend(self.settler.begin(self.is_quiet(), self.now));
        let count = self.wants_pull();
        if count > 0 && self.intake.pulls.free(self.now) {
            self.intake.pulls.begin(self.now);
            self.thrift.asked_for = count;
            step.effects.push(Effect::Pull(count));
        }
        self.end(step);
    }

    /// The run of the present attempt of a job that has one.
    pub(crate) fn run_of(&self, job_id: &JobId) -> Option<Run> {
        let attempt = self.jobs.get(job_id)?.attempt?;
        Some(Run { job_id: job_id.clone(), attempt })
    }
}
