//! What the rule of `scaling` is told of each pool, and what is done of what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::{Room, Run};
use protocol::PoolName;
use scaling::{Amount, History, Logged, PoolDecision, PoolState, Snapshot, Worker};
use site::Held;

use super::allocation::{Allocation, Placed, Progress, Stage};
use super::{Effect, Fleet, Kind, Notice, Order, PoolSettings, held};
use crate::{Element, Shape};

/// Between two decisions at the least, and at the most while anything is there.
const DECIDE_MIN: Duration = Duration::from_secs(1);
const DECIDE_MAX: Duration = Duration::from_secs(60);

/// For so long more allocations wait than are wanted, before those are cancelled.
const SURPLUS_MAX: Duration = Duration::from_secs(30);

/// One submission is of no more than this: sites bound the size of an array, mostly to a thousand.
const ARRAY_MAX: u64 = 500;

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// Of each pool.
    pub pools: BTreeMap<PoolName, PoolDemand>,
    /// What pools on this node have taken of the quota.
    pub here: Held,
    /// May nothing new be begun, because the daemon is about to end?
    pub closed: bool,
}

/// What there is to do in a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolDemand {
    /// Jobs that are held and have not ended; those that run are among them.
    pub backlog: usize,
    /// Since when the first of them waits that may begin.
    pub waiting_since: Option<Duration>,
    /// How long its last jobs ran, in seconds.
    pub mean_run: Option<f64>,
}

/// An allocation that is to be asked for: with the run that it is for, where it is for one.
type Wanted = (Kind, Shape, Option<(Run, super::Need)>);

impl Demand {
    pub(crate) fn is_any(&self) -> bool {
        self.pools.values().any(|pool| pool.backlog > 0)
    }
}

/// What is remembered of a pool.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) history: History,
    pub(crate) last_failure: Option<String>,
    /// Nothing is submitted for it before this time.
    pub(crate) not_before: Duration,
    /// Why nothing can begin in it until a person has looked.
    pub(crate) broken: Option<String>,
    /// How many it should have, and why.
    pub(crate) want: u64,
    pub(crate) why: String,
    /// Since when more wait than are wanted.
    surplus_since: Option<Duration>,
    room: Room,
}

/// An allocation, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownAllocation {
    /// What we call it.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// What Slurm calls it.
    pub element: Option<Element>,
    /// Where it is.
    pub nodes: String,
    /// How far it is, in words.
    pub state: String,
    /// The runs in it that have not ended.
    pub runs: Vec<Run>,
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// What an allocation of this shape takes.
fn cost(shape: &Shape) -> Amount {
    let nodes = u64::from(shape.nodes);
    Amount {
        cpus: nodes * u64::from(shape.cpus),
        memory: nodes.saturating_mul(shape.memory.unwrap_or(0)),
        gpus: nodes * u64::from(shape.gpus),
    }
}

impl Fleet {
    /// What there is to do by now.
    pub fn demand(&mut self, demand: Demand, now: Duration) {
        self.pass(now);
        if self.demand != demand {
            self.demand = demand;
            self.decide_soon();
            self.advance();
        }
    }

    /// Is this what there is to do already?
    pub fn is_demand(&self, demand: &Demand) -> bool {
        self.demand == *demand
    }

    /// What Slurm calls an allocation, and where it is.
    pub fn place_of(&self, name: &str) -> Option<(Option<Element>, String)> {
        self.allocations.get(name).map(|one| (one.element, one.nodes.clone()))
    }

    /// Is it for one run, which has all of it?
    pub fn is_for_one(&self, name: &str) -> bool {
        self.allocations.get(name).is_some_and(|one| matches!(one.kind, Kind::Once(_)))
    }

    /// Why nothing can begin in a pool, while a person has to look.
    pub fn problem(&self, pool: &PoolName) -> Option<&str> {
        self.pools.get(pool)?.broken.as_deref()
    }

    /// All allocations that have not ended, for people.
    pub fn shown(&self) -> Vec<ShownAllocation> {
        let shown = self.allocations.iter().filter(|(_, one)| one.counts());
        shown
            .map(|(name, one)| ShownAllocation {
                name: name.clone(),
                pool: one.pool.clone(),
                element: one.element,
                nodes: one.nodes.clone(),
                state: state_of(one),
                runs: one.going_on().map(|(run, _)| run.clone()).collect(),
            })
            .collect()
    }

    pub(crate) fn decide_soon(&mut self) {
        self.decide_at = self.decide_at.min(self.decided_at + DECIDE_MIN);
    }

    pub(crate) fn decide(&mut self) {
        if self.decide_at > self.now {
            return;
        }
        (self.decided_at, self.decide_at) = (self.now, self.now + DECIDE_MAX);
        if self.allocations.is_empty() && !self.demand.is_any() {
            self.pools.values_mut().for_each(|pool| pool.want = 0);
        }
        let snapshot = self.snapshot();
        let logged = Logged::decide(snapshot);
        let names: Vec<PoolName> = self.settings.pools.keys().cloned().collect();
        let mut news = false;
        for (name, decided) in names.iter().zip(&logged.decision.pools) {
            let before = self.pools.get(name).map(|pool| pool.want);
            let acted = self.carry_out(name, decided);
            news |= acted || before != Some(decided.want);
        }
        if news {
            self.push(Effect::Log(Box::new(logged)));
        }
    }

    /// What is known, as the rule is told it.
    fn snapshot(&self) -> Snapshot {
        let mut quota = self.settings.quota;
        let least = |name: &PoolName, pool: &PoolSettings| {
            self.waiting.iter().filter(|(_, need)| need.pool == *name).map(|(run, need)| need.time(run, pool)).min()
        };
        let mut pools = Vec::new();
        // What is there and takes nothing new has its part of the quota, and is none of those that are wanted.
        let mut beside =
            Held { cpus: self.demand.here.cpus, memory: self.demand.here.memory, gpus: self.demand.here.gpus };
        let mut allocations_beside = 0;
        for (name, pool) in &self.settings.pools {
            let state = self.pools.get(name);
            let least = least(name, pool);
            let mut workers = Vec::new();
            let (mut pending, mut aside) = (0, 0);
            for (allocation, one) in self.allocations.iter().filter(|(_, one)| one.pool == *name && one.counts()) {
                let once = matches!(one.kind, Kind::Once(_));
                let ends =
                    one.over.is_some() || one.stopping || (!once && one.is_connected() && !self.is_open(one, least));
                if self.is_aside(one) {
                    // It has its place, and is in nobody's way.
                    aside += 1;
                    beside = beside + held([one.cost].into_iter());
                    allocations_beside += 1;
                } else if one.is_pending() {
                    pending += 1;
                } else if ends {
                    beside = beside + held([one.cost].into_iter());
                    allocations_beside += 1;
                } else {
                    let idle_since = one.idle_since.filter(|_| one.is_connected() && !once).map(seconds);
                    let left = one.left(self.now).map(seconds);
                    workers.push(Worker { name: allocation.clone(), idle_since, left });
                }
            }
            let demand = self.demand.pools.get(name).cloned().unwrap_or_default();
            pools.push(PoolState {
                name: name.to_string(),
                min: if pool.workers.once || self.demand.closed { 0 } else { u64::from(pool.workers.min) },
                max: u64::from(pool.workers.max).saturating_sub(aside),
                slots: if pool.workers.once { 1 } else { u64::from(pool.workers.slots) },
                cost: cost(&pool.usual()),
                weight: f64::from(pool.workers.weight),
                pending_max: u64::from(pool.workers.pending),
                idle: seconds(pool.workers.idle),
                backlog: (demand.backlog as u64).saturating_sub(aside),
                mean_run: demand.mean_run,
                waiting_since: demand.waiting_since.map(seconds),
                pending,
                workers,
                history: state.map(|state| state.history).unwrap_or_default(),
            });
        }
        // Of pools that the site's file does not have any more, too.
        let strange =
            self.allocations.values().filter(|one| one.counts() && !self.settings.pools.contains_key(&one.pool));
        for one in strange {
            beside = beside + held([one.cost].into_iter());
            allocations_beside += 1;
        }
        for (limit, taken) in [
            (&mut quota.cpus, beside.cpus),
            (&mut quota.memory, beside.memory),
            (&mut quota.gpus, beside.gpus),
            (&mut quota.allocations, allocations_beside),
        ] {
            *limit = limit.map(|limit| limit.saturating_sub(taken));
        }
        Snapshot { at: seconds(self.now), quota, pools }
    }

    /// Does what was decided for a pool. Was there anything to do?
    fn carry_out(&mut self, name: &PoolName, decided: &PoolDecision) -> bool {
        let (hopeless, aside) = (self.hopeless(name), self.aside(name));
        let away = self.poll.trouble().map(str::to_owned);
        let unclear =
            self.allocations.values().any(|one| one.pool == *name && matches!(one.stage, Stage::Unclear { .. }));
        let Some(pool) = self.pools.get_mut(name) else { return false };
        pool.want = decided.want;
        pool.why = decided.why.to_string();
        if let Some(why) = &away {
            pool.why.push_str(&format!("; nothing is submitted while Slurm does not answer: {why}"));
        } else if let (Some(why), true) =
            (&pool.last_failure, pool.history.failed_at.is_some() || pool.not_before > self.now)
        {
            pool.why.push_str(&format!("; the last failure: {why}"));
        }
        if let Some(hopeless) = hopeless.as_ref().or(aside.as_ref()) {
            pool.why.push_str(&format!("; {hopeless}"));
        }
        let for_good = decided.why.pause.filter(|pause| pause.is_for_good());
        let broken = hopeless.or_else(|| {
            let last = pool.last_failure.clone().unwrap_or_default();
            for_good.map(|_| {
                format!("{}; the last failure: {last}; when that is mended, have the daemon read its settings anew (SIGHUP)", decided.why)
            })
        });
        let news = broken.is_some() && pool.broken.is_none();
        pool.broken.clone_from(&broken);
        let may_start = pool.not_before <= self.now && away.is_none() && broken.is_none() && !unclear;
        if let Some(why) = broken.filter(|_| news) {
            self.push(Effect::Say(Notice::Hopeless(name.clone(), why.clone())));
            self.push(Effect::Broken(name.clone(), why));
        }
        let mut acted = false;
        if may_start && !self.demand.closed && decided.start > 0 {
            acted |= self.intend(name, decided.start.min(ARRAY_MAX), &decided.why.to_string());
        }
        for worker in &decided.stop {
            if let Some(allocation) = self.allocations.get_mut(worker).filter(|one| !one.stopping) {
                allocation.stopping = true;
                allocation.asked_to_end = true;
                self.push(Effect::Stop(worker.clone()));
                self.push(Effect::Say(Notice::Scaled(format!("the worker {worker} is to end: {}", decided.why))));
                acted = true;
            }
        }
        acted | self.cancel_surplus(name, decided)
    }

    /// Allocations that wait although nothing is left for them to do.
    fn cancel_surplus(&mut self, name: &PoolName, decided: &PoolDecision) -> bool {
        let backlog = self.demand.pools.get(name).map_or(0, |demand| demand.backlog);
        let now = self.now;
        let waits = |one: &Allocation| {
            one.pool == *name && one.is_pending() && matches!(one.kind, Kind::Worker { .. }) && !one.asked_to_end
        };
        let surplus = backlog == 0 && decided.want == 0 && self.allocations.values().any(waits);
        let Some(pool) = self.pools.get_mut(name) else { return false };
        pool.surplus_since = if surplus { pool.surplus_since.or(Some(now)) } else { None };
        let Some(since) = pool.surplus_since else { return false };
        if since + SURPLUS_MAX > now {
            self.decide_at = self.decide_at.min(since + SURPLUS_MAX);
            return false;
        }
        let mut unwanted = Vec::new();
        for (name, one) in self.allocations.iter_mut().filter(|(_, one)| waits(one)) {
            if one.stage == Stage::Submitted {
                // The next listing that shows it has it cancelled; should it begin before, it begins nothing.
                (one.asked_to_end, one.stopping) = (true, true);
                unwanted.push(name.clone());
            }
        }
        let acted = !unwanted.is_empty();
        for name in unwanted {
            self.push(Effect::Say(Notice::Scaled(format!(
                "the allocation {name} is cancelled before it began: nothing is left for it to do"
            ))));
        }
        if acted {
            self.poll.soon(now);
        }
        acted
    }

    /// Asks for allocations. Nothing above the quota, whatever was decided.
    fn intend(&mut self, name: &PoolName, count: u64, why: &str) -> bool {
        let Some(pool) = self.settings.pools.get(name).cloned() else { return false };
        let mut wanted: Vec<Wanted> = Vec::new();
        if pool.workers.once {
            let mut rest = std::collections::VecDeque::new();
            for (run, need) in std::mem::take(&mut self.waiting) {
                if need.pool == *name && (wanted.len() as u64) < count {
                    wanted.push((Kind::Once(run.clone()), pool.shape(Some(&need)), Some((run, need))));
                } else {
                    rest.push_back((run, need));
                }
            }
            self.waiting = rest;
        } else {
            let slots = pool.workers.slots;
            wanted.extend((0..count).map(|_| (Kind::Worker { slots }, pool.shape(None), None)));
        }
        // Runs differ; workers are alike, and asked for together.
        let batches: Vec<Vec<_>> =
            if pool.workers.once { wanted.into_iter().map(|one| vec![one]).collect() } else { vec![wanted] };
        let mut acted = false;
        for mut batch in batches {
            while !batch.is_empty() && !self.has_room(batch.iter().map(|(_, shape, _)| cost(shape))) {
                if let Some((_, _, Some(run))) = batch.pop() {
                    // In its turn, once there is room.
                    self.waiting.push_front(run);
                }
            }
            if !batch.is_empty() {
                self.record(name, batch);
                acted = true;
            }
        }
        if acted {
            self.push(Effect::Say(Notice::Scaled(why.to_owned())));
        }
        acted
    }

    fn has_room(&self, more: impl ExactSizeIterator<Item = Amount>) -> bool {
        let quota = &self.settings.quota;
        let mine = self.allocations.values().filter(|one| one.counts());
        let count = mine.clone().count() + more.len();
        let all = held(mine.map(|one| one.cost)) + held(more) + self.demand.here;
        let fits = |limit: Option<u64>, taken: u64| limit.is_none_or(|limit| taken <= limit);
        fits(quota.cpus, all.cpus)
            && fits(quota.memory, all.memory)
            && fits(quota.gpus, all.gpus)
            && fits(quota.allocations, count as u64)
    }

    fn record(&mut self, pool: &PoolName, batch: Vec<Wanted>) {
        let job = self.next_name(pool);
        let many = batch.len() > 1;
        let mut orders = Vec::new();
        for (index, (kind, shape, run)) in batch.into_iter().enumerate() {
            let name = if many { format!("{job}_{index}") } else { job.clone() };
            let cost = cost(&shape);
            let mut allocation = Allocation::new(pool.clone(), kind.clone(), cost, Stage::Recording, self.now);
            allocation.shape = Some(shape);
            if let Some((run, need)) = run {
                let slot = self.settings.pools.get(pool).map(|pool| &pool.slot);
                allocation.asks_more = slot.is_some_and(|slot| need.asks_for_more_than(slot));
                let gpus = (0..need.resources.gpus).collect();
                allocation.runs.insert(run, Placed { gpus, ..Placed::new(Progress::Kept, Some(need)) });
            }
            let asks_more = allocation.asks_more;
            orders.push(Order { name: name.clone(), pool: pool.clone(), kind, cost, asks_more });
            self.allocations.insert(name, allocation);
        }
        self.push(Effect::Record { job, orders });
    }

    /// A name that no other submission has had: letters, digits and dashes.
    fn next_name(&mut self, pool: &PoolName) -> String {
        let pool: String = pool.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = format!("{}-{pool}-{:x}-{}", self.settings.prefix, self.settings.seed, self.next_no);
        self.next_no += 1;
        name
    }

    /// Tells what each pool has, where that has changed.
    pub(crate) fn tell_rooms(&mut self) {
        let mut rooms = Vec::new();
        for (name, settings) in &self.settings.pools {
            let mine = self.allocations.values().filter(|one| one.pool == *name && one.counts());
            let Some(pool) = self.pools.get(name) else { continue };
            let room = Room {
                slots: self.slots_of(name, settings),
                held: held(mine.clone().map(|one| one.cost)),
                allocations: mine.count(),
                want: usize::try_from(pool.want).unwrap_or(usize::MAX),
                why: pool.why.clone(),
            };
            if room != pool.room {
                rooms.push((name.clone(), room));
            }
        }
        for (name, room) in rooms {
            if let Some(pool) = self.pools.get_mut(&name) {
                pool.room = room.clone();
            }
            self.push(Effect::Room(name, room));
        }
    }
}

/// How far an allocation is, in words.
fn state_of(one: &Allocation) -> String {
    if let Some(over) = &one.over {
        return format!("over: it {}", over.end);
    }
    if one.claim.is_some() {
        return if one.stopping { "ending".to_owned() } else { "running".to_owned() };
    }
    match (&one.stage, &one.row) {
        (Stage::Recording | Stage::Submitting, _) => "being submitted".to_owned(),
        (Stage::Unclear { .. }, _) => "perhaps submitted".to_owned(),
        (_, Some((state, reason))) if state.is_waiting() => format!("pending: {}", reason.in_words()),
        (_, Some((state, _))) => format!("starting: {state}"),
        (_, None) => "submitted".to_owned(),
    }
}
