//! The world around a lease: a disk, a vendor, clients, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use lease::{
    Answer, Ask, Book, Effect, EndKind, Event, Fact, Fault, FaultKind, Lease, Limits, Lookup, Phase, Qpu, QpuName,
    Question, Reply, Settings, Stage, Submission, TaskId, ViewStage, permitted,
};
use protocol::JobId;

pub(crate) const MAX_IN_FLIGHT: usize = 3;
const SETTLE: Duration = Duration::from_secs(5);
const JOBS: [&str; 3] = ["a", "b", "c"];

/// What may go wrong.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) lookup: Lookup,
    pub(crate) crashes: bool,
    pub(crate) faults: bool,
}

/// A task at the vendor.
struct AtVendor {
    tag: String,
    payload: String,
    ready_at: Duration,
    /// A look by its tag finds it from here on.
    shown_at: Duration,
    cancelled: bool,
}

#[derive(Default)]
pub(crate) struct Vendor {
    tasks: BTreeMap<String, AtVendor>,
    /// How many tasks of each tag it has taken, and charges for.
    pub(crate) paid: BTreeMap<String, usize>,
    pub(crate) lookups: usize,
}

impl Vendor {
    fn active(&self, now: Duration) -> usize {
        self.tasks.values().filter(|task| !task.cancelled && task.ready_at > now).count()
    }
}

/// What comes at its time.
enum Coming {
    /// The vendor hears a question, and the answer, if there is one, follows.
    Heard(Ask, String),
    Answer(TaskId, u64, Answer),
}

pub(crate) struct World {
    plan: Plan,
    rng: Rng,
    pub(crate) now: Duration,
    lease: Lease,
    disk: Book,
    payloads: BTreeMap<TaskId, String>,
    pub(crate) vendor: Vendor,
    coming: Vec<(Duration, Coming)>,
    /// The adapter of a broker that has died may live up to here, and the next one asks nothing before.
    locked_until: Duration,
    ends: BTreeMap<TaskId, EndKind>,
    /// Tasks of which nobody could know at some time whether the vendor has them.
    pub(crate) vague: BTreeSet<TaskId>,
    accepted: Vec<(JobId, TaskId)>,
    /// Tasks of the second job that were submitted since the first one waits for its turn.
    passed: BTreeMap<(JobId, JobId), BTreeSet<TaskId>>,
    request: u64,
    pub(crate) crashes: usize,
    calm: bool,
}

fn settings(plan: Plan) -> Settings {
    let qpu = Qpu {
        max_in_flight: MAX_IN_FLIGHT,
        lookup: plan.lookup,
        settle: SETTLE,
        poll: (Duration::from_secs(1), Duration::from_secs(10)),
        give_up: Duration::from_secs(86_400),
    };
    let limits = Limits {
        tasks_of_job: 10,
        bytes_of_job: 100_000,
        tasks: 20,
        bytes: 200_000,
        keep: Duration::from_secs(600),
        keep_fetched: Duration::from_secs(60),
    };
    Settings { qpus: BTreeMap::from([("qpu".parse::<QpuName>().unwrap(), qpu)]), limits }
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let disk = Book::default();
        let mut world = Self {
            lease: Lease::restore(settings(plan), &disk, Duration::ZERO),
            plan,
            rng: Rng::with_seed(seed),
            now: Duration::from_secs(1),
            disk,
            payloads: BTreeMap::new(),
            vendor: Vendor::default(),
            coming: Vec::new(),
            locked_until: Duration::ZERO,
            ends: BTreeMap::new(),
            vague: BTreeSet::new(),
            accepted: Vec::new(),
            passed: BTreeMap::new(),
            request: 0,
            crashes: 0,
            calm: false,
        };
        world.event(Event::Tick);
        world
    }

    /// Something happens, at random; or time passes.
    pub(crate) fn act(&mut self) {
        self.request += 1;
        match self.rng.u32(0..100) {
            0..=1 => {
                let job = self.some_job();
                self.event(Event::OpenJob(self.request, job));
            }
            2 if self.rng.u32(0..4) == 0 => {
                let job = self.some_job();
                self.event(Event::EndJob(self.request, job));
            }
            3..=9 => self.submit(),
            10 if !self.accepted.is_empty() => {
                let (job, id) = self.accepted[self.rng.usize(0..self.accepted.len())].clone();
                self.event(Event::Cancel(self.request, job, id));
            }
            11 if self.plan.crashes => self.crash(),
            _ => self.pass(),
        }
    }

    /// Nothing goes wrong any more, until all that was submitted has ended.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
        for _ in 0..100_000 {
            let open = |entry: &lease::Entry| !matches!(entry.stage, Stage::Ended(_));
            if !self.disk.entries.iter().any(open) {
                return;
            }
            self.pass();
        }
        panic!("these never end: {:?}", self.disk.entries);
    }

    fn some_job(&mut self) -> JobId {
        JOBS[self.rng.usize(0..JOBS.len())].parse().unwrap()
    }

    fn submit(&mut self) {
        let id = TaskId::from_random(std::array::from_fn(|_| self.rng.u8(..)));
        let job = self.some_job();
        let payload = format!("payload of {id}");
        self.payloads.insert(id.clone(), payload.clone());
        let qpu = "qpu".parse().unwrap();
        let submission = Submission { id, job, qpu, payload, key: None, digest: String::new() };
        self.event(Event::Submit(self.request, Box::new(submission)));
    }

    /// Time passes up to the next thing that comes.
    fn pass(&mut self) {
        let first = self.coming.iter().map(|(at, _)| *at).min();
        let until = first.into_iter().chain(self.lease.wake_at()).min().unwrap_or(self.now);
        let step = Duration::from_millis(self.rng.u64(1..2_000));
        self.now = self.now.max(until.min(self.now + step));
        let due: Vec<_> = self.coming.extract_if(.., |(at, _)| *at <= self.now).collect();
        for (_, coming) in due {
            match coming {
                Coming::Heard(ask, payload) => self.heard(&ask, payload),
                Coming::Answer(id, number, answer) => self.event(Event::Answered(id, number, answer)),
            }
        }
        self.event(Event::Tick);
    }

    /// One step, and a crash at any point of it.
    fn event(&mut self, event: Event) {
        let shown = format!("{event:?}");
        let step = self.lease.step(event, self.now);
        self.lease.check().unwrap_or_else(|why| panic!("{why} after {shown}"));
        if self.plan.crashes && !self.calm && self.rng.u32(0..2_000) == 0 {
            return self.crash();
        }
        for fact in &step.facts {
            if let Fact::Ended(id, end) = fact {
                let before = self.ends.insert(id.clone(), end.kind);
                assert_eq!(before, None, "{id} has ended twice");
                let expected = (end.kind == EndKind::Completed).then(|| format!("result of {}", self.payloads[id]));
                assert_eq!(end.result, expected, "the result is that of the task");
            }
            self.watch_turns(fact);
            self.disk.apply(fact);
        }
        for effect in step.effects {
            permitted(&effect, &self.disk).unwrap();
            if self.plan.crashes && !self.calm && self.rng.u32(0..300) == 0 {
                return self.crash();
            }
            match effect {
                Effect::Ask(ask) => {
                    let payload = self.payloads[&ask.task].clone();
                    let at = self.soon(1_000).max(self.locked_until);
                    self.coming.push((at, Coming::Heard(ask, payload)));
                }
                Effect::Reply(_, Reply::Accepted(id)) => {
                    let job = self.disk.entry(&id).unwrap().job.clone();
                    self.accepted.push((job, id));
                }
                Effect::Ended(id) if self.rng.bool() => {
                    let job = self.disk.entry(&id).unwrap().job.clone();
                    let view = self.lease.task(&job, &id).unwrap();
                    assert!(matches!(view.stage, ViewStage::Ended(..)));
                    self.event(Event::Fetched(id));
                }
                Effect::Reply(..) | Effect::Ended(_) | Effect::Say(_) => {}
            }
        }
    }

    /// No job is passed by another one more than once for each turn of its own. Tasks that the vendor did not take come
    /// again before their turn, as many as were in flight.
    fn watch_turns(&mut self, fact: &Fact) {
        let waits = |job: &JobId| {
            let mut of_job = self.disk.entries.iter().filter(|entry| entry.job == *job);
            of_job.any(|entry| entry.stage == Stage::Queued)
        };
        match fact {
            Fact::Queued { job, .. } if !waits(job) => self.passed.retain(|(waiting, _), _| waiting != job),
            Fact::Returned(id) => {
                let job = &self.disk.entry(id).unwrap().job;
                if !waits(job) {
                    self.passed.retain(|(waiting, _), _| waiting != job);
                }
            }
            Fact::Submitting(id) => {
                let job = &self.disk.entry(id).unwrap().job;
                self.passed.retain(|(waiting, _), _| waiting != job);
                let bound = if self.plan.faults { 1 + MAX_IN_FLIGHT } else { 1 };
                for other in JOBS.map(|name| name.parse::<JobId>().unwrap()) {
                    if other != *job && waits(&other) {
                        let passed = self.passed.entry((other.clone(), job.clone())).or_default();
                        passed.insert(id.clone());
                        assert!(passed.len() <= bound, "{other} waits, and {job} goes before with {passed:?}");
                    }
                }
            }
            _ => {}
        }
    }

    fn soon(&mut self, millis: u64) -> Duration {
        self.now + Duration::from_millis(self.rng.u64(0..millis))
    }

    /// The broker dies. What was on its way to the vendor may still get there, as long as its adapter lives.
    fn crash(&mut self) {
        self.crashes += 1;
        // The turns begin anew.
        self.passed.clear();
        let coming = std::mem::take(&mut self.coming);
        for (_, coming) in coming {
            if let Coming::Heard(ask, payload) = coming
                && self.rng.bool()
            {
                let at = self.soon(30_000);
                self.locked_until = self.locked_until.max(at);
                self.coming.push((at, Coming::Heard(ask, payload)));
            }
        }
        // One that asks after a death of its own broker has the lock before.
        self.coming.sort_by_key(|(at, _)| *at);
        for entry in &self.disk.entries {
            if entry.stage == Stage::Submitting {
                self.vague.insert(entry.id.clone());
            }
        }
        self.now += Duration::from_secs(self.rng.u64(0..10));
        self.lease = Lease::restore(settings(self.plan), &self.disk, self.now);
        self.lease.check().unwrap();
        self.event(Event::Tick);
    }

    /// The vendor hears a question. Its answer may be wrong, late, come twice, or never; then the adapter ends the
    /// wait.
    fn heard(&mut self, ask: &Ask, payload: String) {
        let bad = self.plan.faults && !self.calm && self.rng.u32(0..5) == 0;
        let kind = match self.rng.u32(0..4) {
            0 => FaultKind::Busy,
            1 => FaultKind::Unreachable,
            _ => FaultKind::Unknown,
        };
        let retry_after = self.rng.bool().then(|| Duration::from_secs(self.rng.u64(0..90)));
        let fault = |kind| Answer::Fault(Fault { kind, retry_after, message: "as the dice fell".to_owned() });
        let answer = if bad && kind != FaultKind::Unknown {
            fault(kind)
        } else {
            // Of what is unknown, half was done.
            let done = !bad || self.rng.bool();
            let answer = if done { self.done(ask, payload) } else { fault(kind) };
            let is_vague = bad && ask.question == Question::Submit;
            if is_vague {
                self.vague.insert(ask.task.clone());
            }
            match self.rng.u32(0..3) {
                _ if !bad => answer,
                0 => of_somebody_else(answer, fault(FaultKind::Unknown)),
                _ => fault(FaultKind::Unknown),
            }
        };
        for _ in 0..if bad { 2 } else { 1 } {
            let at = self.soon(3_000);
            self.coming.push((at, Coming::Answer(ask.task.clone(), ask.number, answer.clone())));
        }
    }

    fn done(&mut self, ask: &Ask, payload: String) -> Answer {
        let tag = ask.task.tag();
        let now = self.now;
        match &ask.question {
            Question::Submit => {
                if self.vendor.active(now) >= MAX_IN_FLIGHT {
                    // What is lost may still be there.
                    assert_eq!(self.plan.lookup, Lookup::Unreliable, "more is in flight than may be");
                    let message = "full".to_owned();
                    return Answer::Fault(Fault { kind: FaultKind::Busy, retry_after: None, message });
                }
                let vendor_id = format!("v{}", self.vendor.tasks.len());
                let ready_at = now + Duration::from_millis(self.rng.u64(10..20_000));
                let shown_at = now + if self.plan.faults { SETTLE.mul_f64(self.rng.f64()) } else { Duration::ZERO };
                let task = AtVendor { tag: tag.clone(), payload, ready_at, shown_at, cancelled: false };
                self.vendor.tasks.insert(vendor_id.clone(), task);
                *self.vendor.paid.entry(tag.clone()).or_default() += 1;
                Answer::Taken { vendor_id, tag: self.rng.bool().then_some(tag) }
            }
            Question::Find => {
                self.vendor.lookups += 1;
                let found = self.vendor.tasks.iter().find(|(_, task)| task.tag == tag && task.shown_at <= now);
                // One that cannot be relied upon shows not all that it has.
                let hidden = self.plan.lookup == Lookup::Unreliable && self.rng.bool();
                match found {
                    Some((vendor_id, task)) if !hidden => {
                        Answer::Found { vendor_id: vendor_id.clone(), tag: task.tag.clone() }
                    }
                    _ => Answer::NotFound,
                }
            }
            Question::Status(vendor_id) => {
                let task = &self.vendor.tasks[vendor_id];
                assert_eq!(task.tag, tag, "asked of somebody else's");
                let phase = match task {
                    AtVendor { cancelled: true, .. } => Phase::Cancelled,
                    AtVendor { ready_at, .. } if *ready_at > now => Phase::Active,
                    _ => Phase::Completed,
                };
                Answer::Status { phase, tag: Some(tag), message: None }
            }
            Question::Result(vendor_id) => {
                let result = format!("result of {}", self.vendor.tasks[vendor_id].payload);
                Answer::Result { result, tag: self.rng.bool().then_some(tag) }
            }
            Question::Cancel(vendor_id) => {
                let task = self.vendor.tasks.get_mut(vendor_id).unwrap();
                assert_eq!(task.tag, tag, "cancelled somebody else's");
                task.cancelled |= task.ready_at > now;
                Answer::Cancelling
            }
        }
    }

    pub(crate) fn paid_twice(&self) -> usize {
        self.vendor.paid.values().filter(|times| **times > 1).count()
    }

    fn count(&self, kind: EndKind) -> usize {
        self.ends.values().filter(|end| **end == kind).count()
    }

    pub(crate) fn lost(&self) -> usize {
        self.count(EndKind::Lost)
    }

    pub(crate) fn failed(&self) -> usize {
        self.count(EndKind::Failed)
    }

    pub(crate) fn completed(&self) -> usize {
        self.count(EndKind::Completed)
    }
}

/// The same answer as of another task, where it says whose it is.
fn of_somebody_else(answer: Answer, otherwise: Answer) -> Answer {
    let foreign = "hpc-queue-of-another-site".to_owned();
    match answer {
        Answer::Taken { .. } => Answer::Taken { vendor_id: "x".to_owned(), tag: Some(foreign) },
        Answer::Found { .. } => Answer::Found { vendor_id: "x".to_owned(), tag: foreign },
        Answer::Status { .. } => Answer::Status { phase: Phase::Completed, tag: Some(foreign), message: None },
        Answer::Result { .. } => Answer::Result { result: "somebody else's".to_owned(), tag: Some(foreign) },
        _ => otherwise,
    }
}
