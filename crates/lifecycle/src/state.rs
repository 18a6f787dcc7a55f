//! One step, and all that is possible after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::JobId;

use crate::outbox::Refusal;
use crate::pauses::Line;
use crate::phases::Phase;
use crate::table::{Jobs, NewJob, State};
use crate::{Effect, Entry, Event, Fact, Lease, Run, Stage};

/// How long a daemon that hands over to the next one waits for what is on its way.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(60);

/// What the life of a job depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many jobs run at the same time.
    pub slots: usize,
    /// How many messages to ask for at most in one pull.
    pub batch_size: usize,
    /// For how long a pull leases its messages.
    pub lease: Duration,
    /// After the first empty pull, how long to the next; it doubles with each further empty pull.
    pub poll_interval: Duration,
    /// The longest time between two pulls of an empty queue.
    pub poll_interval_max: Duration,
    /// How long a job waits, in the queue or here, after a node could not run it.
    pub retry_delay: Duration,
    /// Between two looks at a job that another daemon holds.
    pub claim_patience: Duration,
    /// How long a drain waits for what runs.
    pub drain_timeout: Duration,
    /// Exit once the queue is empty and nothing is left to do?
    pub exit_when_idle: bool,
}

/// What follows from an event: the facts are to be on disk before the effects begin, which [`crate::Pending`] sees to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What must not be forgotten, in order.
    pub facts: Vec<Fact>,
    /// What to do, to be begun in this order; the ends may come in any.
    pub effects: Vec<Effect>,
}

/// The life of all jobs that this daemon holds.
#[derive(Debug)]
pub struct Lifecycle {
    pub(crate) settings: Settings,
    pub(crate) now: Duration,
    pub(crate) jobs: Jobs,
    /// How many runs were found at the start: slots may have become fewer.
    pub(crate) taken_up: usize,
    pub(crate) pull: Line,
    pub(crate) publish: Line,
    pub(crate) settle: Line,
    /// The jobs whose records are on their way.
    pub(crate) publishing: Vec<JobId>,
    /// After a refusal: how many records to send at once.
    pub(crate) publish_at_most: Option<usize>,
    /// Records that were refused when they were sent alone.
    pub(crate) refused: BTreeMap<JobId, Refusal>,
    /// Was the last publication refused?
    pub(crate) publish_refused: bool,
    /// Leases to acknowledge; with the job if it goes on after that.
    pub(crate) acks: VecDeque<(String, Option<JobId>)>,
    pub(crate) retries: VecDeque<(String, Duration)>,
    /// How many of `acks` and `retries` are on their way.
    pub(crate) settling: (usize, usize),
    /// Must the next request to settle not wait for more to come?
    pub(crate) settle_now: bool,
    /// Messages that are no jobs and are being put away.
    pub(crate) putting_away: usize,
    pub(crate) empty_pulls: u32,
    /// Until then the queue hides messages that we gave back.
    pub(crate) returns_until: Duration,
    /// Was it said that the queue does not answer, and not that it does again?
    pub(crate) queue_trouble: bool,
    /// When jobs ended lately, within [`AHEAD`].
    pub(crate) ends: VecDeque<Duration>,
    pub(crate) node: Node,
    /// How long to the next look, should the node break again.
    pub(crate) probe_interval: Duration,
    /// Has a job ended since the node broke last? Until one has, a single one is tried.
    pub(crate) trusted: bool,
    /// When the node is trusted again although no job has ended.
    pub(crate) trust_at: Option<Duration>,
    pub(crate) keeper: Keeper,
    pub(crate) draining_until: Option<Duration>,
    /// Told to hand over: until then what is on its way is waited for.
    pub(crate) handing_over_until: Option<Duration>,
    pub(crate) stopped: bool,
    /// Why the daemon cannot go on.
    pub(crate) fatal: Option<String>,
    pub(crate) over: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
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

/// What is known of the process that holds the runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Is it there, and did it tell of its runs?
    pub(crate) known: bool,
    /// When it was asked, if it is to answer.
    pub(crate) asked: Option<Duration>,
    pub(crate) ask_at: Duration,
    /// Is it to be told when what followed from its incomplete list is on disk?
    pub(crate) to_reconcile: bool,
}

impl Lifecycle {
    /// A daemon that finds this on its disk, in the order of acceptance, and knows nothing of its node yet. Step it
    /// with [`Event::Tick`] to begin.
    pub fn restore(settings: Settings, entries: Vec<Entry>, now: Duration) -> Self {
        // The queue counts from its receipt of the pull and we from its sending, so there is a margin already; this one
        // is for the way of the acknowledgement, with its retries.
        let margin = (settings.lease / 3).min(Duration::from_secs(300));
        let mut jobs = Jobs::new(margin);
        jobs.now = now;
        let mut taken_up = 0;
        for entry in entries {
            let state = match entry.stage {
                Stage::Accepted => State::Waiting(now),
                Stage::Launching => State::Running(None),
                Stage::Recorded(bytes) => State::Recorded(bytes),
            };
            taken_up += usize::from(entry.stage == Stage::Launching);
            // How often it was delivered is not remembered; it could have been to somebody else as well.
            let job = NewJob {
                state,
                since: Some(entry.since.min(now)),
                attempt: entry.attempt,
                terms: entry.terms,
                failures: entry.failures,
                deliveries: u64::MAX,
                sent: None,
            };
            jobs.insert(entry.job_id.clone(), job);
            if let Some(mut lease) = entry.lease {
                // Should the clock have gone back, the lease still lapses after its length at the latest.
                lease.until = lease.until.min(now + settings.lease);
                jobs.add_lease(&entry.job_id, lease);
            }
        }
        Self {
            settings,
            now,
            jobs,
            taken_up,
            pull: Line::default(),
            publish: Line::default(),
            settle: Line::default(),
            publishing: Vec::new(),
            publish_at_most: None,
            refused: BTreeMap::new(),
            publish_refused: false,
            acks: VecDeque::new(),
            retries: VecDeque::new(),
            settling: (0, 0),
            settle_now: false,
            putting_away: 0,
            empty_pulls: 0,
            returns_until: Duration::ZERO,
            queue_trouble: false,
            ends: VecDeque::new(),
            node: Node::Broken { probe_at: Duration::ZERO, problem: None },
            probe_interval: crate::node::PROBE_INTERVAL,
            trusted: true,
            trust_at: None,
            keeper: Keeper { known: false, asked: None, ask_at: Duration::ZERO, to_reconcile: false },
            draining_until: None,
            handing_over_until: None,
            stopped: false,
            fatal: None,
            over: false,
        }
    }

    /// What follows from an event.
    pub fn step(&mut self, event: Event, now: Duration) -> Step {
        self.now = self.now.max(now);
        self.jobs.now = self.now;
        let mut step = Step::default();
        if self.over {
            return step;
        }
        match event {
            Event::Tick => {}
            Event::Drain => {
                self.draining_until.get_or_insert(self.now + self.settings.drain_timeout);
            }
            Event::HandOver => {
                self.handing_over_until.get_or_insert(self.now + HAND_OVER_PATIENCE);
            }
            Event::Stop => self.stopped = true,
            Event::Probed(outcome) => self.probed(outcome, &mut step),
            Event::Pulled(Ok(deliveries)) => self.pulled(deliveries, &mut step),
            Event::Pulled(Err(failure)) => self.failed(|state| &mut state.pull, &failure, &mut step),
            Event::Recalled(answers) => self.recalled(answers, &mut step),
            Event::Claimed(job_id, claimed) => self.claimed(&job_id, claimed, &mut step),
            Event::Unclaimed(run, outcome) => self.unclaimed(&run, outcome, &mut step),
            Event::Observed(observation) => self.observed(observation, &mut step),
            Event::KeeperGone => self.keeper_gone(),
            Event::RunEnded(run) => self.run_ended(&run, &mut step),
            Event::RunCutOff(run, what) => self.run_cut_off(&run, what, &mut step),
            Event::Concluded(run, concluded) => self.concluded(&run, concluded, &mut step),
            Event::PutAway { lease_id, record } => self.put_away(lease_id, record, &mut step),
            Event::PutAwayFailed { lease_id, problem } => {
                self.putting_away -= 1;
                self.retry(vec![Lease { id: lease_id, until: self.now }], self.settings.retry_delay);
                self.node_broken(problem, &mut step);
            }
            Event::Published(outcome) => self.published(outcome, &mut step),
            Event::Settled(outcome) => self.settled(outcome, &mut step),
        }
        self.advance(&mut step);
        step
    }

    /// When to step with [`Event::Tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let probe = match self.node {
            Node::Broken { probe_at, .. } if self.may_probe() => Some(probe_at),
            _ => None,
        };
        let ask = self.keeper.asked.is_none().then_some(self.keeper.ask_at);
        let pull = if self.wants_pull() > 0 { self.pull.next() } else { None };
        let publish = self.publish.next().filter(|_| !self.jobs.outbox().is_empty()).map(|at| {
            let at = if self.may_pass_refused() { Duration::ZERO } else { at };
            at.max(self.publish_at())
        });
        let settle = self.settle.next().filter(|_| self.unsettled()).map(|at| at.max(self.settle_at()));
        let undone = if self.node == Node::Ready { self.jobs.next_undone() } else { None };
        let due = if self.may_begin() { self.jobs.next_due(self.now) } else { None };
        let late = self.draining_until.map(|until| until + crate::ending::SETTLE_PATIENCE);
        let ends = [self.draining_until, late, self.handing_over_until];
        let mut times = vec![probe, ask, pull, publish, settle, due, undone, self.trust_at, self.jobs.next_lapse()];
        times.extend(ends);
        // What is not done although its time has come waits for an event and not for the time.
        times.into_iter().flatten().filter(|at| *at > self.now).min()
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
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, Phase, u32, Duration)> {
        self.jobs.iter().map(|(job_id, job)| (job_id, job.state.phase(), job.attempt, job.since))
    }

    /// The phase of a job that is held.
    pub fn phase_of(&self, job_id: &JobId) -> Option<Phase> {
        self.jobs.get(job_id).map(|job| job.state.phase())
    }

    /// What is wrong with the node, while something is.
    pub fn node_problem(&self) -> Option<&str> {
        match &self.node {
            Node::Broken { problem, .. } | Node::Probing { broken: problem } => problem.as_deref(),
            Node::Ready => None,
        }
    }

    /// Is nothing new taken any more?
    pub fn draining(&self) -> bool {
        self.draining_until.is_some()
    }

    /// Checks what must hold in every state; the text says what does not.
    pub fn check(&self) -> Result<(), String> {
        self.jobs.check()?;
        let running = self.running();
        if running > self.settings.slots.max(self.taken_up) {
            return Err(format!("{running} jobs run in {} slots", self.settings.slots));
        }
        let acknowledged: BTreeSet<&str> = self.acks.iter().map(|(lease, _)| lease.as_str()).collect();
        for (job_id, job) in self.jobs.iter() {
            if let Some(lease) = job.leases.iter().find(|lease| acknowledged.contains(lease.id.as_str())) {
                return Err(format!("lease {} of job {job_id} is acknowledged and kept", lease.id));
            }
        }
        let (acks, retries) = self.settling;
        if acks > self.acks.len() || retries > self.retries.len() {
            return Err("more deliveries are being settled than there are".to_owned());
        }
        Ok(())
    }

    /// Everything that is possible now, whatever the event was.
    fn advance(&mut self, step: &mut Step) {
        if self.stopped {
            return self.leave(step);
        }
        let may_probe = self.may_probe();
        if let Node::Broken { probe_at, problem } = &mut self.node
            && self.now >= *probe_at
            && may_probe
        {
            self.node = Node::Probing { broken: problem.take() };
            step.effects.push(Effect::Probe);
        }
        if self.keeper.asked.is_none() && self.now >= self.keeper.ask_at {
            self.keeper.asked = Some(self.now);
            step.effects.push(Effect::Observe);
        }
        if self.draining() {
            self.give_unstarted_back(Duration::ZERO, step);
        }
        self.acknowledge_lapsing();
        self.say_queue_is_back(step);
        if self.node == Node::Ready && self.trust_at.is_some_and(|at| at <= self.now) {
            (self.trusted, self.trust_at) = (true, None);
        }
        self.conclude_undone(step);
        self.reconcile_done(step);
        self.begin_runs(step);
        self.publish_due(step);
        self.settle_due(step);
        let count = self.wants_pull();
        if count > 0 && self.pull.free(self.now) {
            self.pull.begin(self.now);
            step.effects.push(Effect::Pull(count));
        }
        self.end(step);
    }

    pub(crate) fn free_slots(&self) -> usize {
        self.settings.slots.saturating_sub(self.running())
    }

    pub(crate) fn job_ended(&mut self) {
        self.trusted = true;
        self.probe_interval = crate::node::PROBE_INTERVAL;
        self.ends.push_back(self.now);
        if self.ends.len() > self.settings.batch_size {
            self.ends.pop_front();
        }
    }

    pub(crate) fn run_of(&self, job_id: &JobId) -> Run {
        self.jobs.run(job_id).unwrap_or_else(|| Run { job_id: job_id.clone(), attempt: 0 })
    }
}
