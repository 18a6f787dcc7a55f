//! One allocation: what is known of it, and what follows from that for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::{EndReason, Run};
use protocol::PoolName;
use scaling::Amount;
use serde::{Deserialize, Serialize};

use super::CONNECT_TRIES;
use super::runs::Need;
use crate::{AllocationEnd, Element, Ending, Reason, Shape, State as SlurmState};

/// After so many listings in a row in which Slurm does not name it, it may be gone.
const ABSENT_MIN: u32 = 2;

/// A submission of which nobody knows whether it arrived is looked for after this time. Who submits may take so long.
const UNCLEAR_GRACE: Duration = Duration::from_secs(60);

/// A keeper that has shown no sign of life for so long may be gone, where Slurm does not know its job any more.
const SILENT_WHEN_ABSENT: Duration = Duration::from_secs(60);

/// The same where Slurm says that a node of it failed: Slurm may be wrong, and the node only be cut off.
const SILENT_WHEN_NODE_FAILED: Duration = Duration::from_secs(30);

/// For so long the accounting may say that a job runs which no listing names. A controller that forgot a job leaves it
/// there forever.
const RECORDED_MAX: Duration = Duration::from_secs(600);

/// What is to be begun in an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Runs that come, as many at a time as there are slots.
    Worker {
        /// How many.
        slots: u32,
    },
    /// One run, which stands in its order.
    Once(Run),
}

/// Whether it was submitted, and is to be seen in Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its order is being written.
    Recording,
    /// It is being submitted.
    Submitting,
    /// Nobody knows whether it was, since this time; it is looked for by its name from the other time on.
    Unclear { look_from: Duration },
    /// Slurm has taken it.
    Submitted,
    /// It is over, and what it left was dealt with.
    Ended,
}

/// How far a run is in its allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is to be there, which does not stand on disk yet.
    New,
    /// That is being written.
    Writing,
    /// It stands there, and nobody was told.
    Kept,
    /// Its keeper was told.
    Told,
    /// It has ended.
    Ended,
    /// It is gone, and nobody saw how it ended.
    CutOff(String),
}

/// A run in an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) slots: u32,
    pub(crate) gpus: Vec<u32>,
    pub(crate) progress: Progress,
    /// What it needs, where it was handed over in this life of the daemon. Only then it is known how to begin it.
    pub(crate) need: Option<Need>,
    /// It is to end, and was perhaps not begun.
    pub(crate) ends: Option<EndReason>,
    /// Slurm will never give what its job asks for, in words: it begins nowhere.
    pub(crate) refused: Option<String>,
}

impl Placed {
    /// One slot's worth, and no GPU.
    pub(crate) fn new(progress: Progress, need: Option<Need>) -> Self {
        Self { slots: 1, gpus: Vec::new(), progress, need, ends: None, refused: None }
    }
}

/// What one run has of an allocation, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How many of its slots.
    pub slots: u32,
    /// Which of its GPUs, counted from 0.
    pub gpus: Vec<u32>,
}

/// What the folder of an allocation says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Which keeper has begun there, if one has.
    pub claim: Option<Claim>,
    /// Does it say where it listens?
    pub listens: bool,
    /// What it writes again and again; only that it changes says something.
    pub beat: Option<i64>,
    /// How much time the allocation had left at that, where it is known.
    pub left: Option<Duration>,
    /// Does it take no further run?
    pub stopping: bool,
    /// Has its keeper ended by itself?
    pub ended: bool,
    /// Is its keeper gone, for sure: it was on this machine, and is not there any more?
    pub gone: bool,
    /// What was known of its end when what it left was taken over, if that was done.
    pub closed: Option<Closed>,
}

/// How an allocation ended of which all that is left was taken over. A daemon that dies before it has made anything of
/// that leaves it to the next one, which would else have to guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Its end.
    pub end: AllocationEnd,
    /// Had its keeper ended by itself, so that its journal has all of its runs?
    pub clean: bool,
}

impl Default for Closed {
    /// What earlier versions have closed they said nothing of, so nothing is concluded from what is not there.
    fn default() -> Self {
        Self { end: AllocationEnd::Gone, clean: false }
    }
}

/// Which keeper has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its job in Slurm, as it says itself.
    pub job: Option<Element>,
    /// Its node.
    pub node: String,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) pool: PoolName,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    pub(crate) cost: Amount,
    /// Does the job that it is for ask for more than one that asks for nothing gets?
    pub(crate) asks_more: bool,
    /// What it is asked for with, where it was not found.
    pub(crate) shape: Option<Shape>,
    /// Since when it is as [`Self::stage`] says.
    pub(crate) since: Duration,
    /// What Slurm calls it, as far as that is known.
    pub(crate) element: Option<Element>,
    /// What Slurm said last: where it is, and why it waits.
    pub(crate) row: Option<(SlurmState, Reason)>,
    pub(crate) nodes: String,
    /// Since when it waits for a reason that no time changes.
    pub(crate) hopeless_since: Option<Duration>,
    /// Since when Slurm says that it runs.
    pub(crate) runs_since: Option<Duration>,
    pub(crate) claim: Option<Claim>,
    pub(crate) beat: Option<i64>,
    /// When it was alive for sure: its keeper was heard, or its beat changed.
    pub(crate) alive_at: Option<Duration>,
    /// Is its keeper gone, for sure?
    pub(crate) gone: bool,
    /// When its time is up, by our clock.
    pub(crate) ends_at: Option<Duration>,
    pub(crate) connection: Connection,
    /// Was its keeper ever reached?
    pub(crate) was_reached: bool,
    /// Why it cannot be, while it never was and that was tried often enough.
    pub(crate) unreached: Option<String>,
    /// It takes no further run: it was told so, or says so.
    pub(crate) stopping: bool,
    /// Until then it is given no run: it has refused one.
    pub(crate) refuses_until: Duration,
    /// It is to end, by our word.
    pub(crate) asked_to_end: bool,
    pub(crate) runs: BTreeMap<Run, Placed>,
    /// Has a run ever begun in it?
    pub(crate) had_job: bool,
    pub(crate) idle_since: Option<Duration>,
    /// Is what stands on disk of its runs something else than [`Self::runs`]?
    pub(crate) is_dirty: bool,
    pub(crate) is_writing: bool,
    /// In how many listings in a row it was missing, and since when.
    pub(crate) absent: u32,
    pub(crate) absent_since: Option<Duration>,
    /// What the accounting says of it since it is missing in listings.
    pub(crate) recorded: Recorded,
    /// When its submission was begun, or it was found.
    pub(crate) asked_at: Duration,
    /// How it ended, once that is known.
    pub(crate) over: Option<Over>,
}

/// What the accounting says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It was not asked, or did not answer.
    Unknown,
    /// It does not know it.
    Nothing,
    /// It is over.
    Over(Ending),
    /// It goes on.
    GoesOn,
}

/// A connection to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// There is none, and there were so many vain tries in a row; the next is at this time.
    None {
        tries: u32,
        next: Duration,
    },
    Reaching {
        tries: u32,
    },
    There,
}

/// It is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) end: AllocationEnd,
    /// Its keeper has ended by itself: what it left is all.
    pub(crate) clean: bool,
    pub(crate) closing: Closing,
    pub(crate) tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// What it left is to be read at this time.
    Due(Duration),
    Reading,
}

impl Allocation {
    pub(crate) fn new(pool: PoolName, kind: Kind, cost: Amount, stage: Stage, now: Duration) -> Self {
        Self {
            pool,
            kind,
            stage,
            cost,
            asks_more: false,
            shape: None,
            since: now,
            element: None,
            row: None,
            nodes: String::new(),
            hopeless_since: None,
            runs_since: None,
            claim: None,
            beat: None,
            alive_at: None,
            gone: false,
            ends_at: None,
            connection: Connection::None { tries: 0, next: now },
            was_reached: false,
            unreached: None,
            stopping: false,
            refuses_until: Duration::ZERO,
            asked_to_end: false,
            runs: BTreeMap::new(),
            had_job: false,
            idle_since: None,
            is_dirty: false,
            is_writing: false,
            absent: 0,
            absent_since: None,
            recorded: Recorded::Unknown,
            asked_at: now,
            over: None,
        }
    }

    pub(crate) fn set(&mut self, stage: Stage, now: Duration) {
        self.stage = stage;
        self.since = now;
    }

    /// Nobody knows whether it was submitted; it was begun to be at `asked_at`.
    pub(crate) fn is_unclear(&mut self, now: Duration) {
        self.set(Stage::Unclear { look_from: now + UNCLEAR_GRACE }, now);
    }

    /// Is it there: does a keeper work in it?
    pub(crate) fn is_there(&self) -> bool {
        self.claim.is_some() && self.over.is_none() && self.stage != Stage::Ended
    }

    /// Does it take a part of the quota: is it there, or may it come?
    pub(crate) fn counts(&self) -> bool {
        self.stage != Stage::Ended
    }

    /// Is it on its way? One that runs and has no keeper yet is not there: nothing can begin in it.
    pub(crate) fn is_pending(&self) -> bool {
        self.counts() && self.claim.is_none() && self.over.is_none()
    }

    /// Is something about to come of it by itself? What waits in Slurm behind others is not, nor what needs nobody.
    pub(crate) fn is_moving(&self, now: Duration) -> bool {
        let is_worker = matches!(self.kind, Kind::Worker { .. });
        let begins = match &self.row {
            _ if self.stage != Stage::Submitted || !self.is_pending() => false,
            None => true,
            Some((state, reason)) => !state.is_waiting() || reason.is_none(),
        };
        let is_to_be_reached = |tries| tries == 0 || !self.was_reached && tries < CONNECT_TRIES;
        let is_found =
            self.is_there() && matches!(self.connection, Connection::None { tries, .. } if is_to_be_reached(tries));
        let closes = |over: &Over| match over.closing {
            Closing::Reading => true,
            Closing::Due(at) => at <= now,
        };
        matches!(self.stage, Stage::Recording | Stage::Submitting)
            || matches!(self.connection, Connection::Reaching { .. })
            || self.is_writing
            || is_worker && (begins || is_found)
            || self.stage != Stage::Ended && self.over.as_ref().is_some_and(closes)
    }

    /// May it have been seen by Slurm?
    pub(crate) fn may_be_in_slurm(&self) -> bool {
        matches!(self.stage, Stage::Submitting | Stage::Unclear { .. } | Stage::Submitted)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection == Connection::There
    }

    /// How much time is left.
    pub(crate) fn left(&self, now: Duration) -> Option<Duration> {
        self.ends_at.map(|ends_at| ends_at.saturating_sub(now))
    }

    /// How many slots runs take that have not ended.
    pub(crate) fn taken(&self) -> u32 {
        self.going_on().map(|(_, placed)| placed.slots).sum()
    }

    pub(crate) fn going_on(&self) -> impl Iterator<Item = (&Run, &Placed)> {
        self.runs.iter().filter(|(_, placed)| !matches!(placed.progress, Progress::Ended | Progress::CutOff(_)))
    }

    /// The lowest GPUs that no run of it has.
    pub(crate) fn free_gpus(&self, all: u32) -> Vec<u32> {
        let taken: Vec<u32> = self.going_on().flat_map(|(_, placed)| placed.gpus.iter().copied()).collect();
        (0..all).filter(|gpu| !taken.contains(gpu)).collect()
    }

    /// Notes since when it has nothing to do.
    pub(crate) fn note_idle(&mut self, now: Duration) {
        let idle = self.is_there() && self.going_on().next().is_none();
        self.idle_since = if idle { self.idle_since.or(Some(now)) } else { None };
    }

    fn is_silent_for(&self, patience: Duration, now: Duration) -> bool {
        !self.is_connected() && (self.gone || self.alive_at.is_none_or(|at| at + patience <= now))
    }

    /// Is it to be looked up in the accounting?
    pub(crate) fn is_missed(&self, now: Duration) -> bool {
        self.absent >= ABSENT_MIN
            && self.over.is_none()
            && self.is_silent_for(if self.claim.is_some() { SILENT_WHEN_ABSENT } else { Duration::ZERO }, now)
    }

    /// How it ended, if enough is known to say that it did.
    pub(crate) fn verdict(&self, has_accounting: bool, now: Duration) -> Option<(AllocationEnd, bool)> {
        if self.over.is_some() || !self.may_be_in_slurm() || self.is_connected() {
            return None;
        }
        if let Some((state, reason)) = &self.row
            && self.absent == 0
        {
            let ending = Ending {
                state: Some(state.clone()),
                reason: reason.clone(),
                asked: self.asked_to_end,
                ..Ending::default()
            };
            let over = match state {
                // A keeper that ends well leaves word of it. Where there is none, Slurm tells of one that came second,
                // and the first may go on.
                SlurmState::Completed => self.claim.is_none() || self.is_silent_for(SILENT_WHEN_ABSENT, now),
                // Slurm may say so of a node that it only cannot reach.
                SlurmState::NodeFail => self.is_silent_for(SILENT_WHEN_NODE_FAILED, now),
                // Begun again by somebody: whoever comes then finds that another one was there.
                state if state.is_waiting() => self.claim.is_some() && self.is_silent_for(SILENT_WHEN_ABSENT, now),
                state => state.is_over(),
            };
            return over.then(|| (self.end(&ending), false));
        }
        if !self.is_missed(now) {
            return None;
        }
        if self.asked_to_end && self.claim.is_none() {
            // One of an array that waits goes without a trace when it is cancelled: of the rest Slurm keeps one record.
            return Some((AllocationEnd::Asked, false));
        }
        let long = self.absent_since.is_some_and(|since| since + RECORDED_MAX <= now);
        match &self.recorded {
            Recorded::Over(ending) => Some((self.end(ending), false)),
            Recorded::Nothing => Some((AllocationEnd::Gone, false)),
            Recorded::Unknown if !has_accounting => Some((AllocationEnd::Gone, false)),
            Recorded::Unknown | Recorded::GoesOn => long.then_some((AllocationEnd::Gone, false)),
        }
    }

    /// How it ended of which Slurm says this, and its keeper nothing.
    fn end(&self, ending: &Ending) -> AllocationEnd {
        match AllocationEnd::of(ending) {
            // Up to 22.05 one whose script was killed looks like this in the queue, too.
            AllocationEnd::NotLaunched(_) if self.claim.is_some() => AllocationEnd::Exit(None),
            AllocationEnd::Completed if self.claim.is_some() => AllocationEnd::BegunTwice,
            AllocationEnd::Other(_) if ending.state.as_ref().is_some_and(SlurmState::is_waiting) => {
                AllocationEnd::BegunTwice
            }
            end => end,
        }
    }

    /// It was not in a listing that was asked for at this time.
    pub(crate) fn is_absent_from(&mut self, asked: Duration) {
        let could_be_there = match self.stage {
            Stage::Unclear { look_from } => look_from <= asked,
            Stage::Submitted => self.since < asked,
            _ => false,
        };
        if could_be_there {
            self.absent += 1;
            self.absent_since.get_or_insert(asked);
        }
    }

    /// It was in a listing.
    pub(crate) fn is_listed(&mut self) {
        (self.absent, self.absent_since, self.recorded) = (0, None, Recorded::Unknown);
    }
}
