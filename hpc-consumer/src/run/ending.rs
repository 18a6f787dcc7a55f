//! How the whole tree of a run comes to its end: which signal goes to whom, and when. A decision alone: what happens is
//! told to it with the time at which it did, and it answers what is to be done; processes and clocks are elsewhere.
//!
//! ```text
//! running ──the first process ended──────────────────────────► killing ──► closing ──► over
//!    │  ╰──a warning is due: one signal to the job                ▲           │
//!    ╰──time limit, or told to end──► asked ──its grace is over───┤           ▼
//!                                       ╰────nothing of it left───╯        sweeping ──► over
//! ```
//!
//! Invariants: a process of the job gets each of these signals once at most, and SIGTERM with all others that were
//! there at that moment. The grace is the whole tree's, not that of its first process. What wraps the job gets no
//! signal before the job's own processes are gone.

use std::time::Duration;

use rustix::process::Signal;

/// How long what wraps a job may take to end once the job's own processes are gone: to unmount an image.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks, at first and at most.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// After how long it is said that processes do not end although they were killed: they hang in the kernel.
const STUBBORN: Duration = Duration::from_secs(30);

/// What is alive of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The job's own processes. Without a container that is all of them.
    pub(super) job: Vec<i32>,
    /// The first process of the container's namespace, which is the runtime's.
    pub(super) init: Vec<i32>,
    /// The first process of the run, where that is the runtime's. It hands signals on to the job's first process.
    pub(super) first: Option<i32>,
    /// What else the runtime has started, to serve the image.
    pub(super) helpers: Vec<i32>,
}

/// A signal that a job gets before its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) signal: Signal,
    /// How long before.
    pub(crate) before: Duration,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Time has passed.
    Time,
    /// It is told to end within this time. It may be told again, with less time.
    Told(Duration),
    /// The first process has ended.
    FirstEnded,
    /// What a look, which was ordered, has found.
    Seen(Seen),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Look what is alive, and tell it at once.
    Look,
    Signal(Signal, Vec<i32>),
    /// Tell a person that these do not end.
    Say(Vec<i32>),
}

/// Why a run was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    TimeLimit,
    Told,
}

/// The end of one run. All times are since its begin.
#[derive(Debug)]
pub(super) struct Ending {
    time: Duration,
    grace: Duration,
    warning: Option<Warning>,
    phase: Phase,
    cause: Option<Cause>,
    first_ended: bool,
    /// The signal that goes to the job with the next look.
    to_send: Option<Signal>,
    sent: Vec<Signal>,
    look_at: Duration,
    pause: Duration,
    /// When it is to be said that something does not end.
    say_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The whole tree was asked to end, and has until then.
    Asked(Duration),
    /// The job's own processes are killed until none is left.
    Killing,
    /// What wraps the job ends by itself until then.
    Closing(Duration),
    /// It is killed as well.
    Sweeping,
    Over,
}

impl Ending {
    /// Of a run that may take so long, and then has this grace.
    pub(super) fn new(time: Duration, grace: Duration, warning: Option<Warning>) -> Self {
        Self {
            time,
            grace,
            warning,
            phase: Phase::Running,
            cause: None,
            first_ended: false,
            to_send: None,
            sent: Vec::new(),
            look_at: Duration::ZERO,
            pause: LOOK_MIN,
            say_at: None,
        }
    }

    /// Has it ended, and all of it?
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Why it was ended, if it was.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// When it wants to be told the time, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running => Some(self.warns_at().unwrap_or(self.time)),
            // Its first process says when it ends.
            Phase::Asked(until) if !self.first_ended => Some(until),
            Phase::Asked(until) | Phase::Closing(until) => Some(until.min(self.look_at)),
            Phase::Killing | Phase::Sweeping => Some(self.look_at),
            Phase::Over => None,
        }
    }

    /// What is to be done now that this happens.
    pub(super) fn step(&mut self, event: Event, now: Duration) -> Vec<Order> {
        match event {
            Event::Time => self.time_passed(now),
            Event::Told(grace) => {
                self.cause.get_or_insert(Cause::Told);
                self.ask(grace, now)
            }
            Event::FirstEnded => {
                self.first_ended = true;
                if self.phase == Phase::Running {
                    self.enter(Phase::Killing, now);
                }
                vec![Order::Look]
            }
            Event::Seen(seen) => self.seen(&seen, now),
        }
    }

    fn time_passed(&mut self, now: Duration) -> Vec<Order> {
        match self.phase {
            Phase::Running if now >= self.time => {
                self.cause = Some(Cause::TimeLimit);
                self.ask(self.grace, now)
            }
            Phase::Running if self.warns_at().is_some_and(|at| now >= at) => {
                self.to_send = self.warning.take().map(|warning| warning.signal);
                vec![Order::Look]
            }
            Phase::Asked(until) if now >= until => {
                self.enter(Phase::Killing, now);
                vec![Order::Look]
            }
            Phase::Asked(_) if !self.first_ended => Vec::new(),
            Phase::Asked(_) | Phase::Killing | Phase::Closing(_) | Phase::Sweeping if now >= self.look_at => {
                vec![Order::Look]
            }
            _ => Vec::new(),
        }
    }

    /// It is to end within this time.
    fn ask(&mut self, grace: Duration, now: Duration) -> Vec<Order> {
        let until = now.saturating_add(grace);
        match self.phase {
            Phase::Running | Phase::Asked(_) if grace.is_zero() => self.enter(Phase::Killing, now),
            Phase::Running => {
                self.to_send = Some(Signal::TERM);
                self.enter(Phase::Asked(until), now);
            }
            Phase::Asked(before) => {
                self.phase = Phase::Asked(before.min(until));
                return Vec::new();
            }
            _ => return Vec::new(),
        }
        vec![Order::Look]
    }

    fn seen(&mut self, seen: &Seen, now: Duration) -> Vec<Order> {
        let mut orders = self.signal(seen);
        let job_is_gone = seen.job.is_empty() && seen.init.is_empty();
        match self.phase {
            Phase::Asked(_) if self.first_ended && job_is_gone => self.enter(Phase::Killing, now),
            Phase::Closing(_) if !job_is_gone => self.enter(Phase::Killing, now),
            _ => {}
        }
        if self.phase == Phase::Killing && job_is_gone {
            self.enter(Phase::Closing(now + CLOSING_PATIENCE), now);
        }
        let is_all_gone = job_is_gone && self.first_ended && seen.first.is_none() && seen.helpers.is_empty();
        match self.phase {
            Phase::Closing(_) | Phase::Sweeping if is_all_gone => {
                self.phase = Phase::Over;
                return orders;
            }
            Phase::Closing(until) if now >= until => self.enter(Phase::Sweeping, now),
            _ => {}
        }
        let killed: Vec<i32> = match self.phase {
            // The kernel ends a namespace with its first process.
            Phase::Killing => seen.job.iter().chain(&seen.init).copied().collect(),
            Phase::Sweeping => seen.all().collect(),
            _ => Vec::new(),
        };
        if !killed.is_empty() {
            if self.say_at.is_some_and(|at| now >= at) {
                self.say_at = None;
                orders.push(Order::Say(killed.clone()));
            }
            orders.push(Order::Signal(Signal::KILL, killed));
        }
        self.look_at = now + self.pause;
        self.pause = (self.pause * 2).min(LOOK_MAX);
        orders
    }

    /// The signal that waits for a look. Each goes out once.
    fn signal(&mut self, seen: &Seen) -> Vec<Order> {
        let Some(signal) = self.to_send.take() else { return Vec::new() };
        let to = seen.addressees();
        let mut orders = Vec::new();
        if to.is_empty() {
            return orders;
        }
        if !self.sent.contains(&signal) {
            self.sent.push(signal);
            orders.push(Order::Signal(signal, to.clone()));
        }
        // One that was stopped hears of it only when it goes on.
        orders.push(Order::Signal(Signal::CONT, to));
        orders
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        if matches!(phase, Phase::Killing | Phase::Sweeping) {
            self.to_send = None;
            self.say_at = Some(now + STUBBORN);
        }
        self.phase = phase;
        self.pause = LOOK_MIN;
    }

    fn warns_at(&self) -> Option<Duration> {
        self.warning.map(|warning| self.time.saturating_sub(warning.before))
    }
}

impl Seen {
    fn all(&self) -> impl Iterator<Item = i32> {
        self.job.iter().chain(&self.init).chain(&self.first).chain(&self.helpers).copied()
    }

    /// Who is to hear of a signal: every process of the job; or, where they cannot be told from the runtime's because
    /// the container has no PID namespace or none yet, the runtime's first process, which hands it on.
    fn addressees(&self) -> Vec<i32> {
        if self.job.is_empty() { self.first.into_iter().collect() } else { self.job.clone() }
    }
}

#[cfg(test)]
mod tests;
