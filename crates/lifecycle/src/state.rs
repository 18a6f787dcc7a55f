//! The state and its one function.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::{FailureClass, JobId, JobMessage, limits};

use crate::pauses::{Line, Verdict};
use crate::{Delivery, Effect, Event, Failure, Notice, RunEnd};

/// Between two looks at a broken node. It doubles each time that a node which passed its probe breaks again without
/// having finished a job: a probe cannot see everything, and each try takes a delivery from a job.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time between two looks at a broken node.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// How many jobs may wait for their record or its publication before no more are taken: each is kept in memory.
const OWED_MAX: usize = 1_000;

/// How long a daemon that was told to stop still tries to hand over what it owes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What the life of a job depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many jobs run at the same time.
    pub slots: usize,
    /// How many messages to ask for at most in one pull.
    pub batch_size: usize,
    /// After the first empty pull, how long to the next; it doubles with each further empty pull.
    pub poll_interval: Duration,
    /// The longest time between two pulls of an empty queue.
    pub poll_interval_max: Duration,
    /// How long a job waits in the queue after a node could not run it.
    pub retry_delay: Duration,
    /// Exit once the queue is empty and nothing is left to do?
    pub exit_when_idle: bool,
}

/// The life of all jobs that this daemon holds.
#[derive(Debug)]
pub struct Lifecycle {
    settings: Settings,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs whose record is to be published, in order. The first `publishing` of them are on their way.
    outbox: VecDeque<JobId>,
    publishing: usize,
    /// After a refusal: how many records to send at once, until the outbox is empty.
    publish_at_most: Option<usize>,
    acks: VecDeque<String>,
    retries: VecDeque<(String, Duration)>,
    /// How many of `acks` and `retries` are on their way.
    settling: (usize, usize),
    /// Messages that are no jobs and are being put away.
    putting_away: usize,
    pull: Line,
    publish: Line,
    settle: Line,
    node: Node,
    empty_pulls: u32,
    /// How long to the next look, should the node break again.
    probe_interval: Duration,
    /// Has a job ended since the node broke last? Until one has, a single one is tried.
    trusted: bool,
    draining: bool,
    /// Told to stop: exit at this time, whatever is owed.
    stop_at: Option<Duration>,
    /// Why the daemon cannot go on, once all that runs has ended.
    fatal: Option<String>,
    over: bool,
}

#[derive(Debug)]
struct Job {
    /// Every lease that the queue gave us for this job and that is not settled.
    leases: Vec<String>,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// It has a slot.
    Running,
    /// Its processes are gone, and its record is being written.
    Ending,
    Recorded(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Probing {
        broken: Option<String>,
    },
    Ready,
    /// `problem` is what was said of it; nothing at the start.
    Broken {
        probe_at: Duration,
        problem: Option<String>,
    },
}

impl Lifecycle {
    /// A daemon that holds nothing and knows nothing of its node yet. Step it with [`Event::Tick`] to begin.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            jobs: BTreeMap::new(),
            outbox: VecDeque::new(),
            publishing: 0,
            publish_at_most: None,
            acks: VecDeque::new(),
            retries: VecDeque::new(),
            settling: (0, 0),
            putting_away: 0,
            pull: Line::default(),
            publish: Line::default(),
            settle: Line::default(),
            node: Node::Broken { probe_at: Duration::ZERO, problem: None },
            empty_pulls: 0,
            probe_interval: PROBE_INTERVAL,
            trusted: true,
            draining: false,
            stop_at: None,
            fatal: None,
            over: false,
        }
    }

    /// What follows from an event. Effects are to be begun in their order; they may end in any.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Drain => self.draining = true,
            Event::Stop => {
                self.draining = true;
                self.stop_at.get_or_insert(now + STOP_PATIENCE);
            }
            Event::Probed(outcome) => self.probed(outcome, now, &mut effects),
            Event::Pulled(Ok(deliveries)) => self.pulled(deliveries, now, &mut effects),
            Event::Pulled(Err(failure)) => self.failed(|state| &mut state.pull, &failure, now, &mut effects),
            Event::RunExited(job_id) => {
                if let Some(job) = self.jobs.get_mut(&job_id)
                    && job.phase == Phase::Running
                {
                    job.phase = Phase::Ending;
                }
            }
            Event::RunEnded(job_id, end) => self.run_ended(job_id, end, now, &mut effects),
            Event::PutAway { lease_id, record } => self.put_away(lease_id, record),
            Event::PutAwayFailed { lease_id, problem } => {
                self.putting_away -= 1;
                self.retries.push_back((lease_id, self.settings.retry_delay));
                self.node_broken(problem, now, &mut effects);
            }
            Event::Published(Ok(())) => {
                self.back(|state| &mut state.publish, &mut effects);
                self.published();
            }
            Event::Published(Err(failure)) => {
                if failure.class == FailureClass::Refused {
                    self.refused(&failure, &mut effects);
                }
                self.publishing = 0;
                self.failed(|state| &mut state.publish, &failure, now, &mut effects);
            }
            Event::Settled(Ok(())) => {
                self.back(|state| &mut state.settle, &mut effects);
                let (acks, retries) = std::mem::take(&mut self.settling);
                self.acks.drain(..acks);
                self.retries.drain(..retries);
            }
            Event::Settled(Err(failure)) => {
                let (acks, retries) = std::mem::take(&mut self.settling);
                if failure.class == FailureClass::Refused {
                    // These leases will never be taken. Their messages come again, and the records answer them.
                    self.acks.drain(..acks);
                    self.retries.drain(..retries);
                }
                self.failed(|state| &mut state.settle, &failure, now, &mut effects);
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// When to step with [`Event::Tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let probe = match self.node {
            Node::Broken { probe_at, .. } if !self.draining => Some(probe_at),
            _ => None,
        };
        let pull = if self.may_pull() { self.pull.next() } else { None };
        let publish = if self.outbox.is_empty() { None } else { self.publish.next() };
        let settle = if self.unsettled() { self.settle.next() } else { None };
        [probe, pull, publish, settle, self.stop_at].into_iter().flatten().min()
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.jobs.values().filter(|job| job.phase == Phase::Running).count()
    }

    /// How many jobs run or have no record yet.
    fn unrecorded(&self) -> usize {
        self.jobs.values().filter(|job| !matches!(job.phase, Phase::Recorded(_))).count()
    }

    /// How many results are owed to the queue.
    pub fn owed(&self) -> usize {
        self.outbox.len()
    }

    /// Checks what must hold in every state; the text says what does not.
    pub fn check(&self) -> Result<(), String> {
        let running = self.running();
        if running > self.settings.slots {
            return Err(format!("{running} jobs run in {} slots", self.settings.slots));
        }
        for (job_id, job) in &self.jobs {
            let owed = self.outbox.iter().filter(|owed| *owed == job_id).count();
            let expected = usize::from(matches!(job.phase, Phase::Recorded(_)));
            if owed != expected {
                return Err(format!("job {job_id} is {owed} times in the outbox, not {expected}"));
            }
            if let Some(lease) = job.leases.iter().find(|lease| self.acks.contains(lease)) {
                return Err(format!("lease {lease} of job {job_id} is acknowledged before its result is published"));
            }
        }
        if let Some(unknown) = self.outbox.iter().find(|job_id| !self.jobs.contains_key(job_id)) {
            return Err(format!("job {unknown} is in the outbox and not held"));
        }
        if self.settling.0 > self.acks.len() || self.settling.1 > self.retries.len() {
            return Err("more deliveries are being settled than there are".to_owned());
        }
        Ok(())
    }

    /// Everything that is possible now, whatever the event was.
    fn advance(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.over {
            return;
        }
        if let Node::Broken { probe_at, problem } = &mut self.node
            && now >= *probe_at
            && !self.draining
        {
            self.node = Node::Probing { broken: problem.take() };
            effects.push(Effect::Probe);
        }
        if !self.outbox.is_empty() && self.publish.free(now) {
            let records = self.batch_to_publish();
            self.publishing = records.len();
            self.publish.busy = true;
            effects.push(Effect::Publish(records));
        }
        if self.unsettled() && self.settle.free(now) {
            let acks = self.acks.len().min(limits::BATCH_COUNT_MAX);
            let retries = self.retries.len().min(limits::BATCH_COUNT_MAX - acks);
            self.settling = (acks, retries);
            self.settle.busy = true;
            effects.push(Effect::Settle {
                acks: self.acks.iter().take(acks).cloned().collect(),
                retries: self.retries.iter().take(retries).cloned().collect(),
            });
        }
        if self.may_pull() && self.pull.free(now) {
            self.pull.busy = true;
            let most = if self.trusted { self.settings.batch_size } else { 1 };
            effects.push(Effect::Pull(self.free_slots().min(most)));
        }
        self.end(now, effects);
    }

    /// Is it time to exit? What runs is never left alone: it has no other parent.
    fn end(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let all_recorded = self.unrecorded() == 0 && self.putting_away == 0 && !self.pull.busy;
        if !all_recorded {
            return;
        }
        let nothing_left = self.jobs.is_empty() && !self.unsettled();
        let told_to_end = self.draining || (self.settings.exit_when_idle && self.empty_pulls > 0);
        let tried = |line: &Line, nothing_owed: bool| nothing_owed || (!line.busy && line.in_trouble());
        let all_tried = tried(&self.publish, self.outbox.is_empty()) && tried(&self.settle, !self.unsettled());
        let hopeless = (self.fatal.is_some() && all_tried) || self.stop_at.is_some_and(|stop_at| now >= stop_at);
        if (nothing_left && told_to_end) || hopeless {
            self.over = true;
            if !self.outbox.is_empty() || self.unsettled() {
                effects.push(Effect::Say(Notice::LeftOver { results: self.outbox.len() }));
            }
            effects.push(match self.fatal.take() {
                Some(why) => Effect::Fail(why),
                None => Effect::Exit,
            });
        }
    }

    fn free_slots(&self) -> usize {
        self.settings.slots.saturating_sub(self.running())
    }

    fn may_pull(&self) -> bool {
        self.node == Node::Ready
            && !self.draining
            && !self.over
            && self.free_slots() > 0
            && (self.trusted || self.unrecorded() == 0)
            && self.putting_away == 0
            && self.jobs.len() < self.settings.slots + OWED_MAX
    }

    fn unsettled(&self) -> bool {
        !self.acks.is_empty() || !self.retries.is_empty()
    }

    fn batch_to_publish(&self) -> Vec<String> {
        let mut bytes = 0;
        let record = |job_id: &JobId| match &self.jobs[job_id].phase {
            Phase::Recorded(record) => record.clone(),
            Phase::Running | Phase::Ending => unreachable!("only recorded jobs enter the outbox"),
        };
        let mut count = 0;
        let fits = |record: &String| {
            bytes += record.len() + limits::MESSAGE_METADATA_BYTES;
            count += 1;
            // One record always goes: should it be too large, the queue says so.
            count == 1 || bytes <= limits::BATCH_BYTES_MAX
        };
        let most = self.publish_at_most.unwrap_or(limits::BATCH_COUNT_MAX);
        self.outbox.iter().take(most).map(record).take_while(fits).collect()
    }

    /// The queue will never take these records as they are. Which of them is to blame shows when they are sent one by
    /// one; that one is given up, so that the others can go on. Its record stays on the disk.
    fn refused(&mut self, failure: &Failure, effects: &mut Vec<Effect>) {
        if self.publishing != 1 {
            self.publish_at_most = Some(1);
            return;
        }
        self.publishing = 1;
        if let Some(job_id) = self.outbox.front() {
            let (job_id, what) = (job_id.clone(), failure.what.clone());
            effects.push(Effect::Say(Notice::ResultRefused { job_id, what }));
        }
        self.published();
    }

    fn pulled(&mut self, deliveries: Vec<Delivery>, now: Duration, effects: &mut Vec<Effect>) {
        self.back(|state| &mut state.pull, effects);
        if deliveries.is_empty() {
            let doublings = self.empty_pulls.min(16);
            self.empty_pulls = self.empty_pulls.saturating_add(1);
            let pause = self.settings.poll_interval.saturating_mul(1 << doublings);
            self.pull.not_before = now + pause.min(self.settings.poll_interval_max.max(self.settings.poll_interval));
            return;
        }
        self.empty_pulls = 0;
        // Jobs first: a stray message with the id of one of them must not take its place.
        let mut strays = Vec::new();
        for delivery in deliveries {
            match parse(&delivery.body) {
                Ok(message) => self.delivered(delivery.lease_id, message, effects),
                Err(problem) => strays.push((delivery, problem)),
            }
        }
        for (delivery, (job_id, problem)) in strays {
            let job_id = job_id.filter(|job_id| !self.jobs.contains_key(job_id));
            self.putting_away += 1;
            effects.push(Effect::PutAway { lease_id: delivery.lease_id, job_id, body: delivery.body, problem });
        }
    }

    fn delivered(&mut self, lease_id: String, message: JobMessage, effects: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.get_mut(&message.job_id) {
            job.leases.push(lease_id);
        } else if self.node != Node::Ready {
            self.retries.push_back((lease_id, self.settings.retry_delay));
        } else if self.draining || self.free_slots() == 0 {
            // Pulled before we knew, or more than was asked for; others may have room.
            self.retries.push_back((lease_id, Duration::ZERO));
        } else {
            let job = Job { leases: vec![lease_id], phase: Phase::Running };
            self.jobs.insert(message.job_id.clone(), job);
            effects.push(Effect::Run(Box::new(message)));
        }
    }

    fn run_ended(&mut self, job_id: JobId, end: RunEnd, now: Duration, effects: &mut Vec<Effect>) {
        match end {
            RunEnd::Recorded(record) => {
                self.trusted = true;
                self.probe_interval = PROBE_INTERVAL;
                if let Some(job) = self.jobs.get_mut(&job_id) {
                    job.phase = Phase::Recorded(record);
                    self.outbox.push_back(job_id);
                }
            }
            RunEnd::NodeBroken(problem) => {
                self.give_back(&job_id, self.settings.retry_delay);
                self.node_broken(problem, now, effects);
            }
            RunEnd::Stopped => self.give_back(&job_id, Duration::ZERO),
        }
    }

    fn give_back(&mut self, job_id: &JobId, delay: Duration) {
        if let Some(job) = self.jobs.remove(job_id) {
            // It comes back after its delay: the queue is not empty.
            self.empty_pulls = 0;
            self.retries.extend(job.leases.into_iter().map(|lease| (lease, delay)));
        }
    }

    fn put_away(&mut self, lease_id: String, record: Option<(JobId, String)>) {
        self.putting_away -= 1;
        match record {
            Some((job_id, record)) => match self.jobs.get_mut(&job_id) {
                Some(job) => job.leases.push(lease_id),
                None => {
                    let job = Job { leases: vec![lease_id], phase: Phase::Recorded(record) };
                    self.jobs.insert(job_id.clone(), job);
                    self.outbox.push_back(job_id);
                }
            },
            None => self.acks.push_back(lease_id),
        }
    }

    fn published(&mut self) {
        for job_id in self.outbox.drain(..std::mem::take(&mut self.publishing)) {
            if let Some(job) = self.jobs.remove(&job_id) {
                self.acks.extend(job.leases);
            }
        }
        if self.outbox.is_empty() {
            self.publish_at_most = None;
        }
    }

    fn probed(&mut self, outcome: Result<(), String>, now: Duration, effects: &mut Vec<Effect>) {
        let Node::Probing { broken } = &mut self.node else { return };
        let known = broken.take();
        match outcome {
            Ok(()) => {
                self.node = Node::Ready;
                if known.is_some() {
                    effects.push(Effect::Say(Notice::NodeReady));
                }
            }
            Err(problem) => {
                if known.as_ref() != Some(&problem) {
                    effects.push(Effect::Say(Notice::NodeBroken(problem.clone())));
                }
                self.node = Node::Broken { probe_at: now + PROBE_INTERVAL, problem: Some(problem) };
            }
        }
    }

    fn node_broken(&mut self, problem: String, now: Duration, effects: &mut Vec<Effect>) {
        if self.node == Node::Ready {
            self.node = Node::Broken { probe_at: now + self.probe_interval, problem: Some(problem.clone()) };
            self.probe_interval = (self.probe_interval * 2).min(PROBE_INTERVAL_MAX);
            self.trusted = false;
            effects.push(Effect::Say(Notice::NodeBroken(problem)));
        }
    }

    fn back(&mut self, line: impl Fn(&mut Self) -> &mut Line, effects: &mut Vec<Effect>) {
        if line(self).succeeded() {
            effects.push(Effect::Say(Notice::QueueBack));
        }
    }

    fn failed(
        &mut self,
        line: impl Fn(&mut Self) -> &mut Line,
        failure: &Failure,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        match line(self).failed(failure, now) {
            Verdict::Again { said: true, .. } => {}
            Verdict::Again { pause, said: false } => {
                effects.push(Effect::Say(Notice::QueueTrouble { what: failure.what.clone(), next_try: pause }));
            }
            Verdict::Never => {
                // What runs is worth more than a quick exit: it is ended by nobody and still gets its record.
                self.draining = true;
                self.fatal = Some(failure.what.clone());
                if self.unrecorded() > 0 {
                    let (what, running) = (failure.what.clone(), self.unrecorded());
                    effects.push(Effect::Say(Notice::CannotGoOn { what, running }));
                }
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
