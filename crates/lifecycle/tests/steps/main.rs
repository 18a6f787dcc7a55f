//! The rules of the lifecycle, one small history each: events in, facts and effects out, and nothing unexpected left
//! over.
//!
//! What holds in every history is checked after every step, by [`Daemon::step`]: the state is sound, each effect has on
//! disk what it needs, a restart would find each job as far as it is, and the time to wake is not over.
//!
//! Out of scope: crashes, several daemons and the real queue; the simulation has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{
    Attempt, Book, Claimed, Concluded, Delivery, Effect, EndReason, Ending, Event, Fact, Failure, Failures, Fatal,
    FilledDisk, Finished, Launched, Lease, Lifecycle, Notice, Observation, Origin, Parent, Parking, Phase, Problem,
    Pulled, Recalled, Round, Run, RunEnd, Settings, Share, Sighting, Stage, Staged, Step, Terms, Unfolded, Uploaded,
    permitted,
};
use protocol::{FailureClass, JobId, PoolName};
use site::{Defaults, Grant, Runtime, Site, SiteFile, Where};

mod cancel;
mod commits;
mod delivery;
mod disk;
mod ending;
mod execution;
mod node;
mod parking;
mod pools;
mod report;
mod restart;
mod results;
mod round;
mod services;
mod thrift;
mod transfers;
mod turns;
mod unfolding;
mod wake;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// When all histories begin, since the Unix epoch.
const START: Duration = Duration::from_secs(1_000_000);

/// A lease is acknowledged early when a third of it is left: 40 seconds after the pull.
const EARLY_ACK: Duration = Duration::from_secs(40);

fn settings() -> Settings {
    Settings {
        site: site(2),
        default_task: None,
        batch_size: 100,
        lease: 60 * SECOND,
        poll_interval: SECOND,
        poll_interval_max: 8 * SECOND,
        linked_poll_interval: 600 * SECOND,
        operations_per_day: None,
        retry_delay: 60 * SECOND,
        claim_patience: 20 * SECOND,
        drain_timeout: 30 * SECOND,
        exit_when_idle: false,
        life: "a1".to_owned(),
    }
}

fn slots(slots: usize) -> Settings {
    Settings { site: site(slots), ..settings() }
}

/// A site without a file, with so many slots.
fn site(slots: usize) -> Arc<Site> {
    Arc::new(Site::from_settings(&site::Settings {
        runtime: Runtime::Bare,
        image: None,
        command: vec!["true".to_owned()],
        binds: Vec::new(),
        arguments: Vec::new(),
        slots: u32::try_from(slots).expect("the tests have few slots"),
        defaults: Defaults { time_limit: 100 * SECOND, grace: SECOND, log_max: 1_000, network: false, cpus: 4 },
    }))
}

fn cpus(pool: &site::Pool) -> usize {
    match &pool.place {
        Where::Here(capacity) => capacity.cpus as usize,
        Where::Slurm { .. } => 0,
    }
}

/// A lifecycle with its disk and its clock.
struct Daemon {
    state: Lifecycle,
    book: Book,
    now: Duration,
}

impl Daemon {
    /// A daemon that finds this on its disk.
    fn restore(settings: Settings, facts: &[Fact]) -> Self {
        let mut book = Book::default();
        facts.iter().for_each(|fact| book.apply(fact));
        book.entries.iter_mut().for_each(|entry| entry.since = START);
        Self { state: Lifecycle::restore(settings, book.entries.clone(), START), book, now: START }
    }

    /// A daemon whose node is ready, whose keeper has no runs, and whose first pull is on its way.
    fn pulling(settings: Settings) -> Self {
        let count: usize = settings.site.pools.values().map(cpus).sum();
        let count = count.min(settings.batch_size);
        let mut daemon = Self::restore(settings, &[]);
        assert_eq!(daemon.step(Event::Tick).effects, [probe(), Effect::Observe]);
        assert_eq!(daemon.step(observed(&[])).effects, []);
        assert_eq!(daemon.step(looked(Ok(()))).effects, [Effect::Pull(count)]);
        daemon
    }

    fn step(&mut self, event: Event) -> Step {
        let step = self.state.step(event, self.now);
        self.state.check().expect("the invariants hold after every step");
        step.facts.iter().for_each(|fact| self.book.apply(fact));
        for effect in &step.effects {
            permitted(effect, &self.book).expect("what an effect needs is on disk before it");
        }
        self.check_what_a_restart_finds();
        if let Some(at) = self.state.wake_at() {
            assert!(at > self.now, "it wants to wake at {at:?}, and it is {:?} already", self.now);
        }
        step
    }

    fn check_what_a_restart_finds(&self) {
        let mut held = 0;
        for (job_id, phase, attempt, ..) in self.state.jobs().filter(|job| job.1 != Phase::Asked) {
            held += 1;
            let entry = self.book.entry(job_id).expect("a job that is ours is remembered");
            let agrees = match phase {
                // Until its next round is launched a job is parked on disk.
                Phase::Waiting | Phase::Claiming if entry.parking.is_some() => {
                    matches!(entry.stage, Stage::Accepted | Stage::Parked)
                }
                Phase::Asked | Phase::Waiting | Phase::Staging | Phase::Claiming | Phase::Returning => {
                    entry.stage == Stage::Accepted
                }
                // A graph is launched once, and parked for as long as it has anything to do.
                Phase::Parked => matches!(entry.stage, Stage::Parked | Stage::Launching),
                Phase::Ending if entry.parking.is_some() => !matches!(entry.stage, Stage::Recorded(_)),
                // A job that could not even be claimed was not launched when it is given up.
                // What is cancelled while it waits, or rejected, likewise; and an instance that is in the way.
                Phase::Ending
                    if entry.failures.node == 30
                        || entry.terms.needs_files
                        || entry.service.is_some()
                        || self.state.is_cancelled(job_id)
                        || self.state.pool_of(job_id).is_none() =>
                {
                    !matches!(entry.stage, Stage::Recorded(_))
                }
                Phase::Ready | Phase::Running | Phase::Ending | Phase::Uploading => entry.stage == Stage::Launching,
                Phase::Recorded => matches!(entry.stage, Stage::Recorded(_)),
            };
            // A claim that failed counts as an attempt, and is not on disk: a restart claims anew whatever stands.
            let claim_failed =
                entry.stage != Stage::Launching && (entry.attempt, attempt) == (None, Some(Attempt::FIRST));
            assert!(
                agrees && (entry.attempt == attempt || claim_failed),
                "{job_id} is {phase:?} in attempt {attempt:?}: {entry:?}"
            );
        }
        assert_eq!(self.book.entries.len(), held, "a job that is remembered is ours");
    }

    /// Time passes, and nothing happens.
    fn tick(&mut self, pause: Duration) -> Vec<Effect> {
        self.now += pause;
        self.step(Event::Tick).effects
    }

    fn phase(&self, job_id: &str) -> Option<Phase> {
        self.state.phase_of(&id(job_id))
    }

    /// When it wants to be woken, from now.
    fn sleeps(&self) -> Option<Duration> {
        self.state.wake_at().map(|at| at - self.now)
    }

    /// Delivers a job and accepts it.
    fn accept(&mut self, delivery: Delivery) -> Step {
        let text = protocol::body::json_text(&delivery.body).expect("the tests deliver JSON");
        let job_id = protocol::JobMessage::parse(&text).expect("the tests deliver jobs").job_id;
        self.step(Event::Pulled(Ok(vec![delivery].into())));
        self.step(Event::Recalled(vec![(job_id, Recalled::New)]))
    }

    /// Has a job delivered and started, as its first attempt.
    fn start(&mut self, job_id: &str, delivery: Delivery) {
        self.accept(delivery);
        let step = self.step(claimed(job_id, 1));
        assert!(step.effects.contains(&Effect::Start(run(job_id, 1))), "{job_id} is started: {step:?}");
    }

    /// The first attempt of a job ends, and its record is written.
    fn finish(&mut self, job_id: &str) -> Step {
        self.step(ended(job_id, 1));
        self.step(recorded(job_id, 1))
    }

    /// Lets all go well until it does what is wanted, and says how long that took.
    fn until(&mut self, wanted: impl Fn(&Effect) -> bool) -> Duration {
        let begun = self.now;
        // An hour has 450 pulls of an empty queue.
        for _ in 0..1_000 {
            self.now = self.state.wake_at().expect("it has something to wait for");
            let mut effects = VecDeque::from(self.step(Event::Tick).effects);
            let mut found = false;
            while let Some(effect) = effects.pop_front() {
                found |= wanted(&effect);
                if let Some(event) = self.answer(&effect).filter(|_| !wanted(&effect)) {
                    effects.extend(self.step(event).effects);
                }
            }
            if found {
                return self.now - begun;
            }
        }
        panic!("it never does what is wanted");
    }

    fn answer(&self, effect: &Effect) -> Option<Event> {
        let alive = |(job_id, phase, attempt, _): (&JobId, Phase, Option<Attempt>, Duration)| {
            let run = Run { job_id: job_id.clone(), attempt: attempt? };
            (phase == Phase::Running).then_some((run, Sighting::Alive))
        };
        match effect {
            Effect::Probe(_) => Some(looked(Ok(()))),
            Effect::Observe => {
                let runs = self.state.jobs().filter_map(alive).collect();
                Some(Event::Observed(Observation { runs, complete: true }))
            }
            Effect::Pull(_) => Some(Event::Pulled(Ok(Pulled::default()))),
            Effect::Settle { .. } => Some(Event::Settled(Ok(()))),
            Effect::Publish(_) => Some(Event::Published(Ok(()))),
            _ => None,
        }
    }
}

fn id(text: &str) -> JobId {
    text.parse().expect("the tests use valid ids")
}

fn ids(texts: &[&str]) -> Vec<JobId> {
    texts.iter().map(|text| id(text)).collect()
}

fn number(attempt: u32) -> Attempt {
    Attempt::new(attempt).expect("attempts are counted from 1")
}

fn run(job_id: &str, attempt: u32) -> Run {
    Run { job_id: id(job_id), attempt: number(attempt) }
}

fn launch(job_id: &str, attempt: u32) -> Fact {
    let grant = Grant { cpus: 1, ..Grant::default() };
    let services = BTreeMap::new();
    Fact::Launching(id(job_id), number(attempt), Launched { pool: Some(PoolName::default()), grant, services })
}

/// A look at the one pool.
fn probe() -> Effect {
    Effect::Probe(Some(PoolName::default()))
}

/// The one pool was looked at.
fn looked(outcome: Result<(), Problem>) -> Event {
    Event::Probed(Some(PoolName::default()), outcome)
}

/// A run that ended with exit code 0.
fn finished() -> Box<Finished> {
    let (end, stdout_tail, stderr_tail) = (RunEnd::Exit(0), String::new(), String::new());
    Box::new(Finished {
        end,
        stdout_tail,
        stderr_tail,
        started_at_ms: 1,
        finished_at_ms: 2,
        runtime: None,
        began: None,
        image_lost: false,
        isolation: None,
        launched: None,
        ran: None,
        usage: None,
    })
}

/// It was seen how it ended.
fn seen() -> Ending {
    Ending::Finished(finished())
}

fn body(job_id: &str) -> String {
    format!(r#"{{"v":1,"job_id":"{job_id}","task":"echo","input":null}}"#)
}

fn job(job_id: &str, lease: &str) -> Delivery {
    Delivery { lease_id: lease.to_owned(), body: body(job_id), deliveries: 1 }
}

/// The job may be with another daemon as well.
fn second_delivery(job_id: &str, lease: &str) -> Delivery {
    Delivery { deliveries: 2, ..job(job_id, lease) }
}

fn with_fields(job_id: &str, lease: &str, fields: &str) -> Delivery {
    let body = format!(r#"{{"v":1,"job_id":"{job_id}","task":"echo","input":null,{fields}}}"#);
    Delivery { body, ..job(job_id, lease) }
}

/// A lease that was pulled at the start.
fn lease(lease: &str) -> Lease {
    Lease { id: lease.to_owned(), until: START + 60 * SECOND, deliveries: Some(1) }
}

fn accepted(job_id: &str, with_lease: &str) -> Fact {
    accepted_with(job_id, lease(with_lease))
}

fn accepted_with(job_id: &str, lease: Lease) -> Fact {
    let terms = Terms { retries: 0, rerunnable: true, needs_files: false, is_graph: false };
    Fact::Accepted { job_id: id(job_id), message: body(job_id), terms, origin: Origin::Queue(lease) }
}

fn pulled(deliveries: &[Delivery]) -> Event {
    Event::Pulled(Ok(deliveries.to_vec().into()))
}

/// None of the jobs has ended before.
fn recalled(job_ids: &[&str]) -> Event {
    Event::Recalled(job_ids.iter().map(|job_id| (id(job_id), Recalled::New)).collect())
}

fn claimed(job_id: &str, attempt: u32) -> Event {
    Event::Claimed(id(job_id), Claimed::Ours(number(attempt)))
}

fn ended(job_id: &str, attempt: u32) -> Event {
    Event::RunEnded(run(job_id, attempt), finished())
}

fn record(job_id: &str) -> String {
    format!("record of {job_id}")
}

fn recorded(job_id: &str, attempt: u32) -> Event {
    Event::Concluded(run(job_id, attempt), Concluded::Recorded(record(job_id)))
}

fn task_failed(job_id: &str, attempt: u32) -> Event {
    Event::Concluded(run(job_id, attempt), Concluded::TaskFailed("exit code 3".to_owned()))
}

/// All that the keeper knows.
fn observed(runs: &[(Run, Sighting)]) -> Event {
    Event::Observed(Observation { runs: runs.to_vec(), complete: true })
}

fn failure(class: FailureClass) -> Failure {
    Failure { class, what: "it failed".to_owned(), jitter: 1.0 }
}

fn trouble(pause: Duration) -> Effect {
    Effect::Say(Notice::QueueTrouble { what: "it failed".to_owned(), next_try: pause })
}

fn broken(what: &str) -> Effect {
    Effect::Say(Notice::NodeBroken(None, what.into()))
}

/// A claim after this attempt, or after none if that is 0.
fn claim(job_id: &str, last_attempt: u32) -> Effect {
    let last_attempt = Attempt::new(last_attempt);
    Effect::Claim { job_id: id(job_id), last_attempt, rerunnable: true, round: Round::FIRST }
}

fn cancel(job_id: &str) -> Event {
    Event::Cancel(id(job_id))
}

fn conclude(job_id: &str, attempt: u32, ending: Ending) -> Effect {
    Effect::Conclude { run: run(job_id, attempt), ending, may_retry: false }
}

fn forget(job_id: &str, attempt: u32) -> Effect {
    Effect::Forget(vec![run(job_id, attempt)])
}

fn publish(job_ids: &[&str]) -> Effect {
    Effect::Publish(ids(job_ids))
}

fn acks(leases: &[&str]) -> Effect {
    Effect::Settle { acks: leases.iter().map(ToString::to_string).collect(), retries: vec![] }
}

fn back(leases: &[&str], delay: Duration) -> Effect {
    let retries = leases.iter().map(|lease| (lease.to_string(), delay)).collect();
    Effect::Settle { acks: vec![], retries }
}

fn only(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> Vec<Effect> {
    effects.iter().filter(|effect| wanted(effect)).cloned().collect()
}

fn is_pull(effect: &Effect) -> bool {
    matches!(effect, Effect::Pull(_))
}

fn is_claim(effect: &Effect) -> bool {
    matches!(effect, Effect::Claim { .. })
}

fn is_publish(effect: &Effect) -> bool {
    matches!(effect, Effect::Publish(_))
}

fn is_settle(effect: &Effect) -> bool {
    matches!(effect, Effect::Settle { .. })
}

#[test]
fn a_job_is_run_published_acknowledged_and_forgotten() {
    let mut daemon = Daemon::pulling(settings());
    let step = daemon.step(pulled(&[job("a", "L1")]));
    let wanted = vec![Effect::Recall(ids(&["a"])), Effect::Pull(1)];
    assert_eq!(step, Step { facts: vec![], effects: wanted }, "one slot will be taken, one is asked for");
    let step = daemon.step(recalled(&["a"]));
    assert_eq!(step, Step { facts: vec![accepted("a", "L1")], effects: vec![claim("a", 0)] });
    let step = daemon.step(claimed("a", 1));
    let start = vec![Effect::Start(run("a", 1))];
    assert_eq!(step, Step { facts: vec![launch("a", 1)], effects: start });
    let step = daemon.step(ended("a", 1));
    assert_eq!(step, Step { facts: vec![], effects: vec![conclude("a", 1, seen())] });
    let step = daemon.step(recorded("a", 1));
    let facts = vec![Fact::Recorded(id("a"), record("a"))];
    assert_eq!(step, Step { facts, effects: vec![forget("a", 1), publish(&["a"])] });
    let step = daemon.step(Event::Published(Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Finished(id("a"))], effects: vec![acks(&["L1"])] });
    assert_eq!(daemon.step(Event::Settled(Ok(()))), Step::default());
    assert_eq!((daemon.state.held(), daemon.state.running(), daemon.state.owed()), (0, 0, 0));
    assert!(daemon.book.finished.contains(&id("a")), "its id is remembered");
}
