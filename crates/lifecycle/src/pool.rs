//! A pool, but for its jobs: how far ahead these are taken, how many may wait, and whether the node is well for them.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::PoolName;

use crate::Problem;

/// How far ahead jobs are pulled: as many as have ended within this time lately. A queue of jobs of a second is pulled
/// two at a time; one of jobs that take a millisecond, in batches. Nobody else waits longer than this for a job that
/// waits here.
pub const AHEAD: Duration = Duration::from_secs(2);

/// Between two looks at a broken node. It doubles each time that a node which passed its probe breaks again without
/// having finished a job: a probe cannot see everything, and each try takes an attempt from a job.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time between two looks at a broken node.
pub(crate) const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// How many jobs in a row may meet a trouble that a look at the node does not confirm, before it is put down to the
/// node: a look cannot see everything, and a broken node must not give one job after another back.
const DOUBTS_MAX: u32 = 3;

/// What jobs of one kind of capacity are taken for, and its health. What they use of it is in their [`Lane`].
///
/// [`Lane`]: crate::lane::Lane
#[derive(Debug)]
pub(crate) struct Pool {
    /// None of what stands for jobs that are in no pool.
    name: Option<PoolName>,
    /// How many accepted jobs may wait.
    hold: usize,
    /// How many jobs ahead at most.
    ahead_max: usize,
    /// When jobs ended lately, within [`AHEAD`].
    ends: VecDeque<Duration>,
    health: Health,
    /// How long to the next look, should the node break again.
    probe_interval: Duration,
    trust: Trust,
    /// How often in a row a job met what may be the node's trouble.
    doubts: u32,
}

#[derive(Debug)]
enum Health {
    /// It is being looked at. What was wrong with it before is nothing at the start.
    Probing(Option<Problem>),
    /// It was ready, and is being looked at because a job has met a trouble.
    Doubted,
    Ready,
    /// What is wrong is nothing at the start.
    Broken {
        probe_at: Duration,
        problem: Option<Problem>,
    },
}

/// Has a job ended since the node broke last? Until one has, a single one is tried.
#[derive(Debug, PartialEq, Eq)]
enum Trust {
    Full,
    /// One job at a time. With a time, it is trusted again then although no job has ended: a job of days must not keep
    /// all other slots empty for as long.
    OneJob(Option<Duration>),
}

/// What follows when a job meets what may be its own trouble, or the node's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The node is to be looked at.
    Probe,
    /// It is the node, as far as can be told.
    Broken,
    /// It is being looked at, or known to be broken.
    None,
}

/// What a look at the node has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It is well; `again` when it was known to be broken.
    Ready {
        again: bool,
    },
    /// It is broken in a way that was not known yet.
    Broken(Problem),
}

impl Pool {
    pub(crate) fn new(name: PoolName, hold: usize, ahead_max: usize) -> Self {
        Self {
            name: Some(name),
            hold,
            ahead_max,
            ends: VecDeque::new(),
            health: Health::Broken { probe_at: Duration::ZERO, problem: None },
            probe_interval: PROBE_INTERVAL,
            trust: Trust::Full,
            doubts: 0,
        }
    }

    /// What stands for jobs that are in no pool. Nothing begins there; only what has ended is dealt with, and its node
    /// counts as well until that fails.
    pub(crate) fn nowhere() -> Self {
        Self {
            name: None,
            hold: 0,
            ahead_max: 0,
            ends: VecDeque::new(),
            health: Health::Ready,
            probe_interval: PROBE_INTERVAL,
            trust: Trust::Full,
            doubts: 0,
        }
    }

    pub(crate) fn name(&self) -> Option<&PoolName> {
        self.name.as_ref()
    }

    /// How many accepted jobs may wait.
    pub(crate) fn hold(&self) -> usize {
        self.hold
    }

    /// How many jobs may wait here besides those that fill the free slots.
    pub(crate) fn ahead(&self, now: Duration) -> usize {
        let recent = self.ends.iter().filter(|end| **end + AHEAD > now).count();
        recent.min(self.ahead_max)
    }

    /// A job could be claimed, which says that the node can do that.
    pub(crate) fn job_claimed(&mut self) {
        self.doubts = 0;
    }

    /// A job came to its own end, which says that the node is well.
    pub(crate) fn job_ended(&mut self, now: Duration) {
        self.is_well();
        self.ends.push_back(now);
        if self.ends.len() > self.ahead_max {
            self.ends.pop_front();
        }
    }

    /// A job does what it is to do here.
    pub(crate) fn is_well(&mut self) {
        self.doubts = 0;
        self.trust = Trust::Full;
        self.probe_interval = PROBE_INTERVAL;
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.health, Health::Ready)
    }

    /// May all slots be filled, and not just one?
    pub(crate) fn is_trusted(&self) -> bool {
        self.trust == Trust::Full
    }

    /// When it is trusted again whatever happens.
    pub(crate) fn trusted_at(&self) -> Option<Duration> {
        match self.trust {
            Trust::OneJob(at) => at,
            Trust::Full => None,
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.is_ready() && self.trusted_at().is_some_and(|at| at <= now) {
            self.trust = Trust::Full;
        }
    }

    /// What is wrong with the node, while something is.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match &self.health {
            Health::Broken { problem, .. } | Health::Probing(problem) => problem.as_ref(),
            Health::Doubted | Health::Ready => None,
        }
    }

    /// When the node is to be looked at.
    pub(crate) fn probe_at(&self) -> Option<Duration> {
        match self.health {
            Health::Broken { probe_at, .. } => Some(probe_at),
            Health::Probing(_) | Health::Doubted | Health::Ready => None,
        }
    }

    /// Begins to look at it, if it is time.
    pub(crate) fn probe(&mut self, now: Duration) -> bool {
        match &mut self.health {
            Health::Broken { probe_at, problem } if now >= *probe_at => {
                self.health = Health::Probing(problem.take());
                true
            }
            _ => false,
        }
    }

    /// The node was looked at.
    pub(crate) fn probed(&mut self, outcome: Result<(), Problem>, now: Duration) -> Change {
        let known = match std::mem::replace(&mut self.health, Health::Ready) {
            Health::Probing(known) => known,
            Health::Doubted => {
                let Err(problem) = outcome else { return Change::Ready { again: false } };
                self.doubts = 0;
                self.broke(problem.clone(), now);
                return Change::Broken(problem);
            }
            other => {
                self.health = other;
                return Change::None;
            }
        };
        match outcome {
            Ok(()) => {
                if let Trust::OneJob(at) = &mut self.trust {
                    *at = Some(now + PROBE_INTERVAL_MAX);
                }
                Change::Ready { again: known.is_some() }
            }
            Err(problem) => {
                let news = (known.as_ref() != Some(&problem)).then(|| problem.clone());
                self.health = Health::Broken { probe_at: now + PROBE_INTERVAL, problem: Some(problem) };
                news.map_or(Change::None, Change::Broken)
            }
        }
    }

    /// A job met what may be its own trouble, or the node's.
    pub(crate) fn doubt(&mut self) -> Doubt {
        if !self.is_ready() {
            return Doubt::None;
        }
        self.doubts += 1;
        if self.doubts > DOUBTS_MAX {
            self.doubts = 0;
            return Doubt::Broken;
        }
        self.health = Health::Doubted;
        Doubt::Probe
    }

    /// The node was met broken. Is that news?
    pub(crate) fn broke(&mut self, problem: Problem, now: Duration) -> bool {
        if !self.is_ready() {
            return false;
        }
        self.health = Health::Broken { probe_at: now + self.probe_interval, problem: Some(problem) };
        self.probe_interval = (self.probe_interval * 2).min(PROBE_INTERVAL_MAX);
        self.trust = Trust::OneJob(None);
        true
    }
}
