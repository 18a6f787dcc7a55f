//! The allocations of all pools, and the runs in them, as a state machine: what has happened in, what is to be done
//! out.
//!
//! ```text
//! intended ─► recorded ─► submitted ─► pending ─► there ─► over ─► closed ─► forgotten
//!  (by the     (order on   (or unclear:             (a keeper  (its keeper   (what it left is read,
//!   rule)       disk)       looked for               has the    or Slurm      and nothing more begins
//!                           by its name)             claim)     says it)      there)
//! ```
//!
//! What holds, whatever dies and whenever:
//! 1. An order is on disk before its allocation is asked for, and the name of each is its own. A submission of which
//!    nobody knows whether it arrived is looked for by that name, and asked for again only under another one.
//! 2. A run stands in one allocation at a time: it is on disk there before it is told, and goes on to another one only
//!    when the first was closed, so that nothing begins there any more, and its journal says that nothing did.
//! 3. Nothing is concluded from an answer that failed, or from one that does not name something once. What is gone was
//!    missing in two listings, has shown no sign of life, and the accounting, where there is one, says nothing else.
//! 4. Nothing is submitted while Slurm does not answer, nor above the quota or a maximum; what waits counts as it does.
//! 5. What is called by a name of ours and is in no record is cancelled, and nothing else is.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `allocation` | one allocation: what is known of it, and when that is enough to say that it is over |
//! | `effect` | what is to be done, and what there is to say |
//! | `hopeless` | what waits in Slurm for what no time changes: whose matter that is, and what follows |
//! | `poll` | when Slurm is asked |
//! | `pools` | what the rule of `scaling` is told of each pool, and what it says |
//! | `runs` | which allocation a run is in |
//!
//! Out of scope: how any of this is done, clocks and randomness. `now` is the time since the Unix epoch, by a clock
//! that never goes back. Clocks of other machines are not looked at.

mod allocation;
mod effect;
mod hopeless;
mod poll;
mod pools;
mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use lifecycle::Run;
use protocol::PoolName;
use site::{Held, Resources, Site, Where, Workers};

use self::allocation::{Allocation, Closing, Connection, Over, Placed, Progress, Recorded, Stage};
pub use self::allocation::{Claim, Closed, Kind, Place, Seen};
use self::effect::UNREACHED;
pub use self::effect::{Effect, Notice, Order};
use self::poll::Poll;
use self::pools::Pool;
pub use self::pools::{Demand, PoolDemand, ShownAllocation};
pub use self::runs::{Need, Sighted};
use crate::{
    Accounted, AllocationEnd, Answer, Element, Ending, Listed, Listing, NoAnswer, NoRecords, Row, Shape,
    State as SlurmState, answer,
};

/// Between two looks into the folders of allocations that may come, or that run one run.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// Between two looks into all folders.
const LOOK: Duration = Duration::from_secs(10);

/// Between two tries to read what an allocation has left.
const CLOSE_PAUSE: Duration = Duration::from_secs(5);

/// So many of these are made before a person is told.
const CLOSE_TRIES: u32 = 6;

/// Between two tries to reach a keeper: doubled up to the second.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Before what is cancelled and still there is cancelled once more.
const CANCEL_AGAIN: Duration = Duration::from_secs(60);

/// For so long Slurm may say that an allocation goes on whose keeper has ended by itself.
const PARTED: Duration = Duration::from_secs(300);

/// Slurm says for so long that an allocation runs, and nobody has begun there, before a person is told.
const UNCLAIMED_MAX: Duration = Duration::from_secs(120);

/// What an allocation for one run lasts longer than that may: for its begin, and for what its keeper keeps at the end.
const SPARE: Duration = Duration::from_secs(600);

/// After so many vain tries in a row to reach a keeper that nobody has reached yet, it counts as one that cannot be.
const CONNECT_TRIES: u32 = 3;

/// After a submission that was refused for the moment.
const NOT_NOW: Duration = Duration::from_secs(60);

/// What the fleet depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the name of each allocation of this daemon begins: letters, digits and dashes.
    pub prefix: String,
    /// A number that no earlier life of this daemon had, as the time: no name is given twice.
    pub seed: u64,
    /// Is there an accounting that can be asked? Where there is a `sacct`, only its first answer tells.
    pub has_accounting: bool,
    /// What all pools together may have.
    pub quota: scaling::Quota,
    /// The pools that live in Slurm.
    pub pools: BTreeMap<PoolName, PoolSettings>,
}

/// A pool that lives in Slurm.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// How many allocations it has.
    pub workers: Workers,
    /// What a job gets that asks for nothing.
    pub slot: Resources,
    /// How long an allocation lasts, where it is said.
    pub time: Option<Duration>,
}

impl Settings {
    /// Those of a site.
    pub fn of(site: &Site, prefix: String, seed: u64, has_accounting: bool) -> Self {
        let pools = site.pools.iter().filter_map(|(name, pool)| match &pool.place {
            Where::Here(_) => None,
            Where::Slurm { slurm, workers } => {
                let (workers, slot) = (workers.clone(), Resources::of(&pool.slot));
                Some((name.clone(), PoolSettings { workers, slot, time: slurm.time }))
            }
        });
        let quota = scaling::Quota {
            cpus: site.quota.cpus.map(u64::from),
            memory: site.quota.memory.map(protocol::Memory::bytes),
            gpus: site.quota.gpus.map(u64::from),
            allocations: site.quota.allocations.map(u64::from),
        };
        Self { prefix, seed, has_accounting, quota, pools: pools.collect() }
    }
}

impl PoolSettings {
    /// What an allocation is asked for with: for a run that needs this, or a worker. One that is for a run lasts no
    /// longer than that may, so that Slurm finds a place for it sooner.
    pub(crate) fn shape(&self, once: Option<&Need>) -> Shape {
        match once {
            Some(need) => {
                Shape::of_job(&need.resources, self.time.map(|time| time.min(need.limit.saturating_add(SPARE))))
            }
            None => {
                let Resources { cpus, memory, gpus, .. } = self.slot;
                Shape::of_worker(&site::Slot { cpus, memory, gpus }, self.workers.slots, self.time)
            }
        }
    }

    /// The same of a worker, or for a run that asks for nothing.
    pub(crate) fn usual(&self) -> Shape {
        if self.workers.once { Shape::of_job(&self.slot, self.time) } else { self.shape(None) }
    }
}

/// An allocation that an earlier daemon has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// What is begun there.
    pub kind: Kind,
    /// The runs that stand in it.
    pub runs: BTreeMap<Run, Place>,
    /// What it takes of the quota.
    pub cost: scaling::Amount,
    /// See [`Order::asks_more`].
    pub asks_more: bool,
    /// What Slurm calls it, where the daemon came to write that down.
    pub element: Option<Element>,
    /// Since when it waits in Slurm for what no time changes, as it was noted: not each start of a daemon begins that
    /// time anew, of which each round of `tick` is one.
    pub hopeless_since: Option<Duration>,
    /// Slurm will never give what its job asks for, in words, and it was cancelled for that: the job is rejected as
    /// soon as nothing can begin there, whoever sees that.
    pub refused: Option<String>,
    /// What its folder says.
    pub seen: Seen,
}

/// What an allocation has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Runs that have ended.
    pub ended: Vec<Run>,
    /// Runs that were begun, and nobody saw how they ended; with what is known of it.
    pub cut_off: Vec<(Run, String)>,
}

/// What the keeper of a worker says of its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// They go on.
    pub alive: Vec<Run>,
    /// They have ended.
    pub ended: Vec<Run>,
    /// They are gone, and nobody saw how they ended.
    pub cut_off: Vec<(Run, String)>,
}

/// All allocations, and the runs in them.
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    now: Duration,
    allocations: BTreeMap<String, Allocation>,
    pools: BTreeMap<PoolName, Pool>,
    /// Runs that are in no allocation, in the order in which they came.
    waiting: VecDeque<(Run, Need)>,
    /// What was said of each run that waits.
    said: BTreeMap<Run, String>,
    poll: Poll,
    look_at: Duration,
    look_all_at: Duration,
    is_looking: bool,
    demand: Demand,
    decide_at: Duration,
    decided_at: Duration,
    next_no: u64,
    /// When what a run waits for is said next.
    say_at: Duration,
    /// When what is not wanted was cancelled last.
    cancelled: BTreeMap<String, Duration>,
    /// When what somebody has begun in was parted from: Slurm takes a while to see that it is over.
    parted: BTreeMap<String, Duration>,
    /// What was said, and is not said again before it is over.
    complaints: BTreeSet<String>,
    effects: VecDeque<Effect>,
}

impl Fleet {
    /// The fleet that an earlier daemon has left.
    pub fn restore(settings: Settings, found: Vec<Found>, now: Duration) -> Self {
        let pools = settings.pools.keys().map(|name| (name.clone(), Pool::default())).collect();
        let mut fleet = Self {
            settings,
            now,
            allocations: BTreeMap::new(),
            pools,
            waiting: VecDeque::new(),
            said: BTreeMap::new(),
            poll: Poll::new(now),
            look_at: now,
            look_all_at: now,
            is_looking: false,
            demand: Demand::default(),
            decide_at: now,
            decided_at: Duration::ZERO,
            next_no: 1,
            say_at: now,
            cancelled: BTreeMap::new(),
            parted: BTreeMap::new(),
            complaints: BTreeSet::new(),
            effects: VecDeque::new(),
        };
        for found in found {
            let mut allocation = Allocation::new(found.pool, found.kind, found.cost, Stage::Submitted, now);
            if found.element.is_none() {
                // Whoever submitted it may still be at it.
                allocation.is_unclear(now);
            }
            allocation.element = found.element;
            // What comes only yet, by the clock of who noted it, was noted by one that went wrong, or goes wrong now.
            allocation.hopeless_since = found.hopeless_since.filter(|since| *since <= now);
            allocation.asks_more = found.asks_more;
            for (run, Place { slots, gpus }) in found.runs {
                let refused = found.refused.clone();
                allocation.runs.insert(run, Placed { slots, gpus, refused, ..Placed::new(Progress::Told, None) });
            }
            allocation.asked_to_end = found.refused.is_some();
            allocation.had_job = !allocation.runs.is_empty() && found.seen.claim.is_some();
            fleet.allocations.insert(found.name.clone(), allocation);
            fleet.see(&found.name, found.seen);
        }
        fleet.advance();
        fleet
    }

    /// What is to be done, in this order, since this was asked last.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.effects.drain(..).collect()
    }

    /// When to call [`Self::tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let busy = !self.allocations.is_empty() || !self.waiting.is_empty();
        let soon = busy.then(|| self.now + LOOK_SOON);
        let decide = (busy || self.demand.is_any()).then_some(self.decide_at);
        let ask = self.poll.next().filter(|_| self.poll.trouble().is_some() && self.demand.is_any());
        soon.into_iter().chain(decide).chain(ask).min()
    }

    /// Is nothing on its way, so that only time, Slurm's queue or news from elsewhere can change anything?
    pub fn is_settled(&self) -> bool {
        let has_asked = self.allocations.is_empty() || self.poll.has_heard();
        let decides = self.decide_at <= self.now + LOOK_SOON && (self.demand.is_any() || !self.allocations.is_empty());
        let moves = self.allocations.values().any(|one| one.is_moving(self.now));
        has_asked && !self.is_looking && !decides && !moves
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.pass(now);
        self.advance();
    }

    fn pass(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Says something that is not said again until [`Self::is_over`].
    fn complain(&mut self, about: String, notice: Notice) {
        if self.complaints.insert(about) {
            self.push(Effect::Say(notice));
        }
    }

    fn is_over(&mut self, about: &str) -> bool {
        self.complaints.remove(about)
    }

    /// An order of a submission, and with it all of them, is on disk, or cannot be written.
    pub fn recorded(&mut self, job: &str, outcome: Result<(), String>, now: Duration) {
        self.pass(now);
        let names = self.names_of(job, &Stage::Recording);
        match outcome {
            Ok(()) => {
                for name in &names {
                    if let Some(allocation) = self.allocations.get_mut(name) {
                        allocation.set(Stage::Submitting, now);
                        allocation.asked_at = now;
                    }
                }
                let first = names.first().and_then(|name| self.allocations.get(name));
                let first = first.and_then(|first| Some((first.shape.clone()?, first.pool.clone())));
                if let Some((shape, pool)) = first {
                    self.push(Effect::Submit { job: job.to_owned(), count: names.len() as u32, pool, shape });
                }
            }
            Err(why) => {
                self.complain("record".to_owned(), Notice::CannotRecord(why));
                self.give_up(&names);
                self.decide_at = now + NOT_NOW;
            }
        }
        self.advance();
    }

    /// The names of a submission's allocations that are so far.
    fn names_of(&self, job: &str, stage: &Stage) -> Vec<String> {
        let mut names: Vec<String> = self
            .allocations
            .iter()
            .filter(|(name, allocation)| split(name).0 == job && allocation.stage == *stage)
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_by_key(|name| split(name).1);
        names
    }

    /// What sbatch has said of a submission.
    pub fn answered(&mut self, job: &str, answer: Answer, now: Duration) {
        self.pass(now);
        let names = self.names_of(job, &Stage::Submitting);
        let Some(pool) = names.first().map(|name| self.allocations[name].pool.clone()) else { return };
        match answer {
            Answer::Submitted(submitted) => {
                for name in &names {
                    let element = Element { job: submitted.job, index: split(name).1 };
                    if let Some(allocation) = self.allocations.get_mut(name) {
                        allocation.set(Stage::Submitted, now);
                        allocation.element = Some(element);
                    }
                    self.note(name);
                }
                if let Some(pool) = self.pools.get_mut(&pool) {
                    pool.history.refused = 0;
                }
                self.is_over(&format!("submit {pool}"));
            }
            Answer::Refused(why) if let Some((name, run)) = self.asks_too_much(&names, &why) => {
                if let Some(allocation) = self.allocations.get_mut(&name) {
                    // The run stays in it until the daemon has dealt with it, and says to forget it.
                    allocation.set(Stage::Ended, now);
                }
                self.rejects(run, format!("Slurm refuses what the job asks for by its resources: {why}"));
            }
            Answer::Refused(why) => {
                if let Some(pool) = self.pools.get_mut(&pool) {
                    pool.history.refused += 1;
                    pool.history.failed_at = Some(now.as_secs_f64());
                    pool.last_failure = Some(why.clone());
                }
                self.push(Effect::Say(Notice::Refused(pool, why)));
                self.give_up(&names);
            }
            Answer::NotNow(why) => {
                if let Some(pool) = self.pools.get_mut(&pool) {
                    pool.not_before = now + NOT_NOW;
                    pool.last_failure = Some(why.clone());
                }
                self.complain(format!("submit {pool}"), Notice::NotNow(pool, why));
                self.give_up(&names);
            }
            Answer::Unclear(why) => {
                for name in &names {
                    if let Some(allocation) = self.allocations.get_mut(name) {
                        allocation.is_unclear(now);
                    }
                }
                self.push(Effect::Say(Notice::Unclear(job.to_owned(), why)));
            }
        }
        self.poll.soon(now);
        self.advance();
    }

    /// The run whose own allocation was refused, if that is no matter of its site: it asks for more than one that asks
    /// for nothing gets in its pool.
    fn asks_too_much(&self, names: &[String], why: &str) -> Option<(String, Run)> {
        let name = names.first().filter(|_| !answer::is_of_site(why))?;
        let allocation = self.allocations.get(name)?;
        let Kind::Once(run) = &allocation.kind else { return None };
        allocation.runs.get(run).filter(|placed| placed.ends.is_none())?;
        allocation.asks_more.then(|| (name.clone(), run.clone()))
    }

    /// Allocations that were never asked for.
    fn give_up(&mut self, names: &[String]) {
        for name in names {
            if let Some(allocation) = self.allocations.get_mut(name) {
                allocation.set(Stage::Ended, self.now);
                for (run, placed) in std::mem::take(&mut allocation.runs) {
                    self.again(name, run, placed);
                }
            }
        }
    }

    /// Slurm's listing of all that is ours, or why there is none; and the same of the accounting, where it was asked.
    pub fn listed(
        &mut self,
        listing: Result<Listing, NoAnswer>,
        records: Option<Result<Listed<Accounted>, NoRecords>>,
        now: Duration,
    ) {
        self.pass(now);
        match listing {
            Err(NoAnswer(why)) => {
                let (_, news) = self.poll.answered(Some(why.clone()), false, now);
                if news {
                    self.push(Effect::Say(Notice::Away(why)));
                }
            }
            Ok(listing) => {
                let (changed, missing) = self.take_listing(&listing);
                let (asked, news) = self.poll.answered(None, changed, now);
                if news {
                    self.push(Effect::Say(Notice::Back));
                }
                for name in missing {
                    if let Some(allocation) = self.allocations.get_mut(&name) {
                        allocation.is_absent_from(asked);
                        if allocation.absent == 1 {
                            // Another one tells soon whether that is so.
                            self.poll.soon(now);
                        }
                    }
                }
            }
        }
        match records {
            Some(Ok(records)) => self.take_records(&records),
            Some(Err(NoRecords::NotKept)) => self.settings.has_accounting = false,
            // An accounting that does not answer is none that knows nothing.
            Some(Err(NoRecords::NoAnswer(_))) | None => {}
        }
        self.advance();
    }

    /// Has it written down what Slurm says of an allocation.
    fn note(&mut self, name: &str) {
        let Some(one) = self.allocations.get(name) else { return };
        let Some(element) = one.element else { return };
        let refused = one.runs.values().find_map(|placed| placed.refused.clone());
        self.push(Effect::Note { name: name.to_owned(), element, hopeless_since: one.hopeless_since, refused });
    }

    /// Takes the rows in. Returns whether there was news in them, and the names of ours that are not among them.
    fn take_listing(&mut self, listing: &Listing) -> (bool, Vec<String>) {
        let mut changed = false;
        let mut missing: BTreeSet<String> = self.allocations.keys().cloned().collect();
        for row in &listing.rows {
            let name = row.name();
            match self.allocations.get_mut(&name) {
                Some(allocation) if allocation.stage == Stage::Ended => {
                    missing.remove(&name);
                }
                Some(allocation) => {
                    missing.remove(&name);
                    let hopeless_before = allocation.hopeless_since;
                    changed |= take_row(allocation, row, self.now);
                    let hopeless_since = allocation.hopeless_since;
                    let may_go = allocation.asked_to_end && allocation.is_pending() && !row.state.is_over();
                    if may_go && allocation.element == Some(row.element) {
                        self.cancel(&name, row.element);
                    }
                    if hopeless_since != hopeless_before {
                        self.note(&name);
                    }
                }
                None => self.is_nobodys(&name, row),
            }
        }
        missing.retain(|name| !listing.may_hold(split(name).0));
        (changed, missing.into_iter().collect())
    }

    /// A job that may be called by a name of ours, and is in no record.
    fn is_nobodys(&mut self, name: &str, row: &Row) {
        let ours = name.strip_prefix(&self.settings.prefix).is_some_and(|rest| rest.starts_with('-'));
        if !ours || row.state.is_over() {
            return;
        }
        if self.parted.get(name).is_some_and(|at| *at + PARTED > self.now) {
            return;
        }
        if !self.cancelled.contains_key(name) {
            self.push(Effect::Say(Notice::Nobodys(name.to_owned(), row.element)));
        }
        self.cancel(name, row.element);
    }

    /// Has Slurm end what a listing has just shown by this name. As long as listings show it, that is tried again.
    fn cancel(&mut self, name: &str, element: Element) {
        if self.cancelled.get(name).is_none_or(|at| *at + CANCEL_AGAIN <= self.now) {
            self.cancelled.insert(name.to_owned(), self.now);
            self.push(Effect::Cancel { job: split(name).0.to_owned(), element });
        }
    }

    fn take_records(&mut self, records: &Listed<Accounted>) {
        let missed: Vec<String> =
            self.allocations.iter().filter(|(_, one)| one.is_missed(self.now)).map(|(name, _)| name.clone()).collect();
        for name in missed {
            if records.may_hold(split(&name).0) {
                continue;
            }
            // The same id may stand there with another name; and the same name twice, when it was begun again.
            let rows: Vec<&Accounted> = records.rows.iter().filter(|row| row.name() == name).collect();
            let recorded = match rows.last() {
                None => Recorded::Nothing,
                Some(row) if row.state.is_over() => Recorded::Over(Ending {
                    state: Some(row.state.clone()),
                    exit: row.exit,
                    asked: self.allocations[&name].asked_to_end,
                    ..Ending::default()
                }),
                Some(_) => Recorded::GoesOn,
            };
            if let Some(allocation) = self.allocations.get_mut(&name) {
                allocation.recorded = recorded;
            }
        }
    }

    /// What folders say; those that could not be read are not among them.
    pub fn looked(&mut self, seen: Vec<(String, Seen)>, now: Duration) {
        self.pass(now);
        self.is_looking = false;
        for (name, seen) in seen {
            self.see(&name, seen);
        }
        self.advance();
    }

    fn see(&mut self, name: &str, seen: Seen) {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(name).filter(|one| one.counts() && one.over.is_none()) else {
            return;
        };
        if let Some(claim) = seen.claim
            && allocation.claim.is_none()
        {
            allocation.element = allocation.element.or(claim.job);
            allocation.nodes.clone_from(&claim.node);
            allocation.claim = Some(claim);
            // What Slurm said is of the time before it began.
            allocation.row = None;
            allocation.alive_at = Some(now);
            allocation.set(Stage::Submitted, now);
            allocation.is_listed();
            if allocation.asked_to_end {
                // It was faster than its cancellation, which is of what waits.
                self.effects.push_back(Effect::Stop(name.to_owned()));
            }
            self.decide_at = self.decide_at.min(self.decided_at + LOOK_SOON);
            if let Kind::Once(run) = &allocation.kind {
                allocation.had_job = true;
                let run = run.clone();
                if let Some(placed) = allocation.runs.get_mut(&run).filter(|one| one.progress == Progress::Kept) {
                    placed.progress = Progress::Told;
                }
                self.waits_no_more(&run);
            }
        }
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        if seen.beat.is_some() && seen.beat != allocation.beat {
            allocation.beat = seen.beat;
            allocation.alive_at = Some(now);
            allocation.ends_at = seen.left.map(|left| now + left);
        }
        allocation.stopping |= seen.stopping;
        let is_news = seen.gone && !allocation.gone;
        allocation.gone = seen.gone;
        if is_news {
            // Slurm may say why.
            self.poll.soon(now);
        }
        if let Some(Closed { end, clean }) = seen.closed {
            // An earlier daemon came so far, and may have told nobody.
            self.ends(name, end, clean || seen.ended);
        } else if seen.ended && !allocation.is_connected() {
            let end = if allocation.asked_to_end { AllocationEnd::Asked } else { AllocationEnd::Completed };
            self.ends(name, end, true);
        } else if seen.listens
            && matches!(allocation.kind, Kind::Worker { .. })
            && let Connection::None { tries, next } = allocation.connection
            && next <= now
        {
            allocation.connection = Connection::Reaching { tries };
            self.push(Effect::Connect(name.to_owned()));
        }
    }

    /// It is over, as far as can be told: what it left is to be read.
    fn ends(&mut self, name: &str, end: AllocationEnd, clean: bool) {
        let now = self.now;
        if let Some(allocation) = self.allocations.get_mut(name).filter(|one| one.over.is_none()) {
            allocation.over = Some(Over { end, clean, closing: Closing::Due(now), tries: 0 });
        }
    }

    /// The keeper of a worker says what runs there.
    pub fn connected(&mut self, name: &str, told: Told, now: Duration) {
        self.pass(now);
        if let Some(allocation) = self.allocations.get_mut(name).filter(|one| one.over.is_none()) {
            allocation.connection = Connection::There;
            (allocation.was_reached, allocation.unreached) = (true, None);
            allocation.alive_at = Some(now);
            self.take_told(name, told);
            self.is_over(&unreached(name));
        }
        self.advance();
    }

    /// There is no connection to the keeper of a worker, or no more.
    pub fn disconnected(&mut self, name: &str, now: Duration) {
        self.pass(now);
        if let Some(allocation) = self.allocations.get_mut(name) {
            let tries = match allocation.connection {
                Connection::There => {
                    allocation.alive_at = Some(now);
                    0
                }
                Connection::Reaching { tries } | Connection::None { tries, .. } => tries + 1,
            };
            let pause = CONNECT_PAUSE.saturating_mul(1 << tries.min(10)).min(CONNECT_PAUSE_MAX);
            allocation.connection = Connection::None { tries, next: now + pause };
            self.look_at = now;
            self.poll.soon(now);
        }
        self.advance();
    }

    /// The keeper of a worker could not be reached, for this reason.
    pub fn unreached(&mut self, name: &str, why: String, now: Duration) {
        self.disconnected(name, now);
        if let Some(allocation) = self.allocations.get_mut(name).filter(|one| !one.was_reached)
            && matches!(allocation.connection, Connection::None { tries, .. } if tries >= CONNECT_TRIES)
        {
            allocation.unreached = Some(why.clone());
            let nodes = allocation.nodes.clone();
            self.complain(unreached(name), Notice::Unreached(name.to_owned(), nodes, why));
        }
    }

    /// What an allocation has left, and nothing more begins there; or why that cannot be said yet.
    pub fn closed(&mut self, name: &str, outcome: Result<Left, String>, now: Duration) {
        self.pass(now);
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        let Some(over) = allocation.over.as_mut().filter(|over| over.closing == Closing::Reading) else { return };
        match outcome {
            Err(why) => {
                over.tries += 1;
                over.closing = Closing::Due(now + CLOSE_PAUSE);
                if over.tries == CLOSE_TRIES {
                    self.push(Effect::Say(Notice::CannotClose(name.to_owned(), why)));
                }
            }
            Ok(left) => self.close(name, left),
        }
        self.advance();
    }

    fn close(&mut self, name: &str, left: Left) {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        let Some(Over { end, clean, .. }) = allocation.over.clone() else { return };
        allocation.set(Stage::Ended, now);
        allocation.connection = Connection::None { tries: 0, next: now };
        let claimed = allocation.claim.is_some();
        // What a node wrote last before it was lost need not have come to any disk.
        let is_lost = matches!(end, AllocationEnd::NodeFailed | AllocationEnd::Gone | AllocationEnd::BegunTwice);
        let may_lack = !clean && claimed && is_lost;
        let (pool, had_job) = (allocation.pool.clone(), allocation.had_job);
        let said = end.sentence(allocation.element, &allocation.nodes, None);
        // It could be of no use, and the next one would be of none either.
        let by_itself = matches!(end, AllocationEnd::Completed | AllocationEnd::TimeLimit);
        let unreached = allocation.unreached.clone().filter(|_| by_itself && !had_job);
        let said = match &unreached {
            Some(why) => format!("{said}, and its keeper could not be reached from here ({why}); {UNREACHED}"),
            None => said,
        };
        let mut runs = std::mem::take(&mut allocation.runs);
        let mut kept = BTreeMap::new();
        for (run, progress) in left
            .ended
            .into_iter()
            .map(|run| (run, Progress::Ended))
            .chain(left.cut_off.into_iter().map(|(run, what)| (run, Progress::CutOff(what))))
        {
            // A run that nobody has a record of was given up by everybody who had.
            if let Some(placed) = runs.remove(&run) {
                let news = placed.progress != progress;
                kept.insert(run.clone(), Placed { progress: progress.clone(), ..placed });
                if news {
                    self.run_is_over(run, progress);
                }
            }
        }
        for (run, placed) in runs {
            match placed.progress {
                Progress::Ended | Progress::CutOff(_) => drop(kept.insert(run, placed)),
                Progress::Told if may_lack && !self.stands_elsewhere(name, &run) => {
                    let progress = Progress::CutOff(format!("{said}, and nothing tells whether the run had begun"));
                    kept.insert(run.clone(), Placed { progress: progress.clone(), ..placed });
                    self.run_is_over(run, progress);
                }
                Progress::New | Progress::Writing | Progress::Kept | Progress::Told => self.again(name, run, placed),
            }
        }
        if let Some(allocation) = self.allocations.get_mut(name) {
            allocation.runs.extend(kept);
        }
        let unused = unreached.is_some() || !claimed && !clean && end == AllocationEnd::Completed;
        let failed = end.is_failure_of_pool(had_job) || unused;
        let say_failure = failed || !matches!(end, AllocationEnd::Completed | AllocationEnd::Asked);
        if let Some(pool) = self.pools.get_mut(&pool) {
            if failed {
                pool.history.died += 1;
                pool.history.failed_at = Some(now.as_secs_f64());
                pool.last_failure = Some(said.clone());
            } else if had_job {
                pool.history.died = 0;
            }
        }
        if say_failure {
            let element = self.allocations.get(name).and_then(|one| one.element);
            self.push(Effect::Say(Notice::Ended { name: name.to_owned(), element, what: said, unclaimed: !claimed }));
        }
        self.poll.soon(now);
        // What it had of the quota, and the runs that it had not begun, are another one's now.
        self.decide_soon();
    }

    /// Everything that is possible now.
    fn advance(&mut self) {
        self.judge();
        self.place();
        self.write_places();
        self.close_due();
        self.forget_ended();
        self.look();
        self.list();
        self.decide();
        self.tell_rooms();
        self.say_waits();
    }

    fn judge(&mut self) {
        let has_accounting = self.settings.has_accounting;
        let mut over = Vec::new();
        let mut unclaimed = Vec::new();
        for (name, allocation) in &mut self.allocations {
            allocation.note_idle(self.now);
            if let Some((end, clean)) = allocation.verdict(has_accounting, self.now) {
                over.push((name.clone(), end, clean));
            } else if allocation.is_pending()
                && allocation.runs_since.is_some_and(|since| since + UNCLAIMED_MAX <= self.now)
            {
                unclaimed.push((name.clone(), allocation.element, allocation.nodes.clone()));
            }
        }
        over.into_iter().for_each(|(name, end, clean)| self.ends(&name, end, clean));
        self.end_unwanted();
        self.judge_hopeless();
        for (name, element, nodes) in unclaimed {
            self.complain(format!("unclaimed {name}"), Notice::Unclaimed(name, element, nodes));
        }
    }

    /// An allocation for a run that is to end before it began has nothing left to do.
    fn end_unwanted(&mut self) {
        let unwanted = |one: &Allocation| {
            matches!(one.kind, Kind::Once(_))
                && one.is_pending()
                && matches!(one.stage, Stage::Submitted | Stage::Unclear { .. })
                && one.runs.values().all(|placed| placed.ends.is_some())
        };
        let mut names = Vec::new();
        for (name, one) in self.allocations.iter_mut().filter(|(_, one)| unwanted(one)) {
            one.asked_to_end = true;
            names.push((name.clone(), one.element));
        }
        for (name, element) in names {
            if let Some(element) = element {
                self.push(Effect::Cancel { job: split(&name).0.to_owned(), element });
            }
            self.ends(&name, AllocationEnd::Asked, false);
        }
    }

    fn close_due(&mut self) {
        let mut due = Vec::new();
        for (name, allocation) in &mut self.allocations {
            let (element, nodes) = (allocation.element, &allocation.nodes);
            if let Some(over) = allocation.over.as_mut().filter(|_| allocation.stage != Stage::Ended)
                && matches!(over.closing, Closing::Due(at) if at <= self.now)
            {
                over.closing = Closing::Reading;
                let closed = Closed { end: over.end.clone(), clean: over.clean };
                due.push((name.clone(), over.end.sentence(element, nodes, None), closed));
            }
        }
        due.into_iter().for_each(|(name, what, closed)| self.push(Effect::Close { name, what, closed }));
    }

    /// What nobody asks for any more goes.
    fn forget_ended(&mut self) {
        let ended = |one: &Allocation| one.stage == Stage::Ended && one.runs.is_empty() && !one.is_writing;
        let names: Vec<String> =
            self.allocations.iter().filter(|(_, one)| ended(one)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if self.allocations.remove(&name).is_some_and(|one| one.claim.is_some()) {
                self.parted.retain(|_, at| *at + PARTED > self.now);
                self.parted.insert(name.clone(), self.now);
            }
            self.is_over(&format!("unclaimed {name}"));
            self.is_over(&unreached(&name));
            self.is_over(&hopeless::aside_of(&name));
            self.push(Effect::Remove(name));
        }
    }

    /// Looks into folders: often where something is to begin or to end there that is not heard otherwise.
    fn look(&mut self) {
        if self.is_looking || self.look_at > self.now {
            return;
        }
        let all = self.look_all_at <= self.now;
        let soon = |one: &Allocation| match one.connection {
            Connection::There => false,
            Connection::None { .. } | Connection::Reaching { .. } => one.may_be_in_slurm(),
        };
        let wanted = |one: &&Allocation| one.may_be_in_slurm() && one.over.is_none();
        let names: Vec<String> = self
            .allocations
            .iter()
            .filter(|(_, one)| wanted(one) && (all || soon(one)))
            .map(|(name, _)| name.clone())
            .collect();
        self.look_at = self.now + LOOK_SOON;
        if all {
            self.look_all_at = self.now + LOOK;
        }
        if !names.is_empty() {
            self.is_looking = true;
            self.push(Effect::Look(names));
        }
    }

    fn list(&mut self) {
        let any = self.allocations.values().any(Allocation::may_be_in_slurm);
        // While it does not answer nothing is submitted, so somebody has to ask whether it does again.
        let waits = self.poll.trouble().is_some() && (self.demand.is_any() || !self.waiting.is_empty());
        if !(any || waits) || !self.poll.is_due(self.now) {
            return;
        }
        self.poll.ask(self.now);
        let missed = self.allocations.iter().filter(|(_, one)| self.settings.has_accounting && one.is_missed(self.now));
        let jobs: BTreeSet<String> = missed.map(|(name, _)| split(name).0.to_owned()).collect();
        self.push(Effect::List { records_of: jobs.into_iter().collect() });
    }
}

/// Takes in what Slurm says of an allocation. Is it news?
fn take_row(allocation: &mut Allocation, row: &Row, now: Duration) -> bool {
    let claimed_by_another =
        allocation.claim.as_ref().and_then(|claim| claim.job).is_some_and(|job| job != row.element);
    if claimed_by_another {
        // Whoever came second ends by itself. What counts is the one that is at work.
        return false;
    }
    allocation.is_listed();
    allocation.element = Some(row.element);
    if matches!(allocation.stage, Stage::Unclear { .. } | Stage::Submitting) {
        allocation.set(Stage::Submitted, now);
    }
    if !row.nodes.is_empty() {
        allocation.nodes.clone_from(&row.nodes);
    }
    let hopeless = row.state.is_waiting() && row.reason.hopeless().is_some();
    allocation.hopeless_since = if hopeless { allocation.hopeless_since.or(Some(now)) } else { None };
    let runs = matches!(row.state, SlurmState::Running);
    allocation.runs_since = if runs { allocation.runs_since.or(Some(now)) } else { None };
    let said = Some((row.state.clone(), row.reason.clone()));
    let changed = allocation.row.as_ref().map(|(state, _)| state) != Some(&row.state);
    allocation.row = said;
    changed
}

/// That a keeper cannot be reached is said once.
fn unreached(name: &str) -> String {
    format!("unreached {name}")
}

/// The name of a submission, and the place in it, of an allocation.
fn split(name: &str) -> (&str, Option<u32>) {
    name.rsplit_once('_').map_or((name, None), |(job, index)| (job, index.parse().ok()))
}

/// What allocations take of the quota.
fn held(amounts: impl Iterator<Item = scaling::Amount>) -> Held {
    amounts.fold(Held::default(), |sum, one| sum + Held { cpus: one.cpus, memory: one.memory, gpus: one.gpus })
}
