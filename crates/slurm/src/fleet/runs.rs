//! Which allocation a run is in, and what it waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::{EndReason, Run};
use protocol::{Memory, PoolName};
use scaling::Room;
use site::Resources;

use super::allocation::{Connection, Place, Placed, Progress, Stage};
use super::{Effect, Fleet, Kind, PoolSettings, Told};

/// How much longer than its own limit the time of an allocation must be for a run to begin there.
const MARGIN: Duration = Duration::from_secs(130);

/// How long a worker that has refused a run is given none.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What a run needs of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The pool that it is of.
    pub pool: PoolName,
    /// What it has for itself.
    pub resources: Resources,
    /// How long it may run.
    pub limit: Duration,
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighted {
    /// It has not begun.
    Queued,
    /// It goes on, as far as can be told.
    Alive,
    /// It has ended.
    Ended,
    /// It is gone, and nobody saw how it ended.
    CutOff(String),
}

impl Need {
    /// How many slots of a worker it takes.
    fn slots(&self, pool: &PoolSettings) -> u32 {
        let of = |asked: u64, slot: u64| asked.div_ceil(slot.max(1));
        let (asked, slot) = (self.resources.held(), pool.slot.held());
        let memory = if slot.memory > 0 { of(asked.memory, slot.memory) } else { 0 };
        let gpus = if slot.gpus > 0 { of(asked.gpus, slot.gpus) } else { 0 };
        let slots = of(asked.cpus, slot.cpus).max(memory).max(gpus).max(1);
        u32::try_from(slots).unwrap_or(u32::MAX).min(pool.workers.slots)
    }

    /// Is it more than this, of anything?
    pub(crate) fn asks_for_more_than(&self, slot: &Resources) -> bool {
        let Resources { cpus, memory, gpus, nodes } = self.resources;
        let bytes = |memory: Option<Memory>| memory.map_or(0, Memory::bytes);
        cpus > slot.cpus || bytes(memory) > bytes(slot.memory) || gpus > slot.gpus || nodes > slot.nodes
    }

    /// How much time an allocation must have left for it. A run that may take as long as an allocation lasts begins in
    /// the first half of one; where that was not enough, only in a new one.
    pub(crate) fn time(&self, run: &Run, pool: &PoolSettings) -> Duration {
        let wanted = self.limit + MARGIN;
        let Some(time) = pool.time.filter(|time| wanted > *time) else { return wanted };
        if run.attempt.get() == 1 { time / 2 } else { time - (time / 10).max(MARGIN).min(time / 2) }
    }
}

impl Fleet {
    /// Has a run begun in an allocation of its pool. One that is known is not begun again.
    pub fn start(&mut self, run: Run, need: Need, now: Duration) {
        self.pass(now);
        let known = self.allocation_of(&run).is_some() || self.waiting.iter().any(|(other, _)| *other == run);
        if !known {
            self.decide_soon();
            self.waiting.push_back((run, need));
            self.advance();
        }
    }

    /// Has a run ended.
    pub fn end(&mut self, run: &Run, why: EndReason, now: Duration) {
        self.pass(now);
        let before = self.waiting.len();
        self.waiting.retain(|(other, _)| other != run);
        if self.waiting.len() < before {
            self.said.remove(run);
            self.push(Effect::CutOff(run.clone(), why.to_string()));
        } else if let Some(name) = self.allocation_of(run) {
            self.end_in(&name, run, why);
        }
        self.advance();
    }

    fn end_in(&mut self, name: &str, run: &Run, why: EndReason) {
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        let is_worker = matches!(allocation.kind, Kind::Worker { .. });
        let Some(placed) = allocation.runs.get_mut(run) else { return };
        match placed.progress {
            Progress::Ended | Progress::CutOff(_) => {}
            Progress::New | Progress::Writing | Progress::Kept if is_worker => {
                // Nobody was told of it.
                allocation.runs.remove(run);
                allocation.is_dirty = true;
                self.push(Effect::CutOff(run.clone(), why.to_string()));
            }
            Progress::New | Progress::Writing | Progress::Kept | Progress::Told => {
                placed.ends = Some(why);
                self.push(Effect::End { name: name.to_owned(), run: run.clone(), why });
            }
        }
    }

    /// Has runs forgotten that have ended.
    pub fn forget(&mut self, runs: &[Run], now: Duration) {
        self.pass(now);
        let mut told: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        for run in runs {
            self.said.remove(run);
            // After a crash on its way from one allocation to another it may stand in both.
            for (name, allocation) in &mut self.allocations {
                if allocation.runs.remove(run).is_some() {
                    allocation.is_dirty = true;
                    if allocation.is_connected() {
                        told.entry(name.clone()).or_default().push(run.clone());
                    }
                }
            }
        }
        told.into_iter().for_each(|(name, runs)| self.push(Effect::Forget(name, runs)));
        self.advance();
    }

    /// The runs of a worker are written down, or could not be.
    pub fn placed(&mut self, name: &str, outcome: Result<(), String>, now: Duration) {
        self.pass(now);
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        allocation.is_writing = false;
        let written: Vec<Run> = allocation
            .runs
            .iter()
            .filter(|(_, one)| one.progress == Progress::Writing)
            .map(|(run, _)| run.clone())
            .collect();
        match outcome {
            Ok(()) => {
                for run in written {
                    if let Some(placed) = allocation.runs.get_mut(&run) {
                        placed.progress = Progress::Kept;
                    }
                }
                self.tell_kept(name);
                self.is_over("place");
            }
            Err(why) => {
                allocation.is_dirty = true;
                allocation.refuses_until = now + REFUSED_FOR;
                for run in written {
                    if let Some(placed) = self.allocations.get_mut(name).and_then(|one| one.runs.remove(&run)) {
                        self.again(name, run, placed);
                    }
                }
                self.complain("place".to_owned(), super::Notice::CannotRecord(why));
            }
        }
        self.advance();
    }

    /// Tells a keeper of the runs that stand on disk for it.
    fn tell_kept(&mut self, name: &str) {
        let Some(allocation) = self.allocations.get_mut(name).filter(|one| one.is_connected()) else { return };
        let mut told = Vec::new();
        for (run, placed) in &mut allocation.runs {
            if placed.progress == Progress::Kept && placed.need.is_some() {
                placed.progress = Progress::Told;
                told.push((run.clone(), placed.gpus.clone()));
            }
        }
        allocation.had_job |= !told.is_empty();
        for (run, gpus) in told {
            self.waits_no_more(&run);
            self.push(Effect::Start { name: name.to_owned(), run, gpus });
        }
    }

    /// A run of a worker has ended.
    pub fn run_ended(&mut self, name: &str, run: &Run, now: Duration) {
        self.pass(now);
        self.alive(name);
        if let Some(placed) = self.allocations.get_mut(name).and_then(|one| one.runs.get_mut(run))
            && placed.progress != Progress::Ended
        {
            placed.progress = Progress::Ended;
            self.run_is_over(run.clone(), Progress::Ended);
        }
        self.advance();
    }

    /// A run of a worker is gone, and nobody saw how it ended.
    pub fn run_cut_off(&mut self, name: &str, run: &Run, what: String, now: Duration) {
        self.pass(now);
        self.alive(name);
        if let Some(placed) = self.allocations.get_mut(name).and_then(|one| one.runs.get_mut(run))
            && !matches!(placed.progress, Progress::Ended | Progress::CutOff(_))
        {
            placed.progress = Progress::CutOff(what.clone());
            self.run_is_over(run.clone(), Progress::CutOff(what));
        }
        self.advance();
    }

    /// A worker has not begun a run, and nobody will there. `for_good`: it will begin no other one.
    pub fn not_begun(&mut self, name: &str, run: &Run, for_good: bool, now: Duration) {
        self.pass(now);
        self.alive(name);
        if let Some(allocation) = self.allocations.get_mut(name) {
            allocation.stopping |= for_good;
            allocation.refuses_until = now + REFUSED_FOR;
            if allocation.runs.get(run).is_some_and(|placed| placed.progress == Progress::Told)
                && let Some(placed) = allocation.runs.remove(run)
            {
                allocation.is_dirty = true;
                self.again(name, run.clone(), placed);
            }
        }
        self.advance();
    }

    fn alive(&mut self, name: &str) {
        if let Some(allocation) = self.allocations.get_mut(name) {
            allocation.alive_at = Some(self.now);
        }
    }

    /// What a keeper says first, or when it is asked: all its runs.
    pub(crate) fn take_told(&mut self, name: &str, told: Told) {
        let Some(allocation) = self.allocations.get_mut(name) else { return };
        allocation.had_job |= !(told.alive.is_empty() && told.ended.is_empty() && told.cut_off.is_empty());
        let unknown = |progress| Placed::new(progress, None);
        let mut missing: Vec<Run> = allocation.runs.keys().cloned().collect();
        let mut over = Vec::new();
        for run in told.alive {
            missing.retain(|other| *other != run);
            allocation.runs.entry(run).or_insert_with(|| unknown(Progress::Told)).progress = Progress::Told;
        }
        let ended = told.ended.into_iter().map(|run| (run, Progress::Ended));
        for (run, progress) in ended.chain(told.cut_off.into_iter().map(|(run, what)| (run, Progress::CutOff(what)))) {
            missing.retain(|other| *other != run);
            let placed = allocation.runs.entry(run.clone()).or_insert_with(|| unknown(Progress::Told));
            if placed.progress != progress {
                placed.progress = progress.clone();
                over.push((run, progress));
            }
        }
        let mut again = Vec::new();
        for run in missing {
            match allocation.runs.get_mut(&run) {
                // It was told on an earlier connection, and did not arrive.
                Some(placed) if placed.progress == Progress::Told && placed.need.is_some() => {
                    placed.progress = Progress::Kept;
                }
                Some(placed) if placed.progress == Progress::Told => {
                    if let Some(placed) = allocation.runs.remove(&run) {
                        allocation.is_dirty = true;
                        again.push((run, placed));
                    }
                }
                // What is written or kept is told as soon as it can be; what has ended is forgotten there already.
                _ => {}
            }
        }
        over.into_iter().for_each(|(run, progress)| self.run_is_over(run, progress));
        again.into_iter().for_each(|(run, placed)| self.again(name, run, placed));
        self.tell_kept(name);
    }

    /// The daemon is told how a run came out.
    pub(crate) fn run_is_over(&mut self, run: Run, progress: Progress) {
        self.said.remove(&run);
        self.push(match progress {
            Progress::CutOff(what) => Effect::CutOff(run, what),
            _ => Effect::Ended(run),
        });
        self.decide_soon();
    }

    /// A run was not begun in an allocation, and will not be there: it goes on to another one, if it is to begin at
    /// all.
    pub(crate) fn again(&mut self, name: &str, run: Run, placed: Placed) {
        if self.stands_elsewhere(name, &run) {
            return;
        }
        match (placed.ends, placed.refused.clone(), placed.need) {
            // Until they are forgotten these stay where they are.
            (Some(why), _, need) => {
                let progress = Progress::CutOff(why.to_string());
                let placed = Placed { progress: progress.clone(), need, ..placed };
                if let Some(allocation) = self.allocations.get_mut(name) {
                    allocation.runs.insert(run.clone(), placed);
                }
                self.run_is_over(run, progress);
            }
            (None, Some(why), need) => {
                if let Some(allocation) = self.allocations.get_mut(name) {
                    allocation.runs.insert(run.clone(), Placed { need, ..placed });
                }
                self.rejects(run, why);
            }
            (None, None, Some(need)) => {
                self.decide_soon();
                self.waiting.push_front((run, need));
            }
            (None, None, None) => self.push(Effect::Observe),
        }
    }

    /// All runs that are known.
    pub fn sightings(&self) -> Vec<(Run, Sighted)> {
        let waiting = self.waiting.iter().map(|(run, _)| (run.clone(), Sighted::Queued));
        let placed = self.allocations.values().flat_map(|allocation| {
            let queued = matches!(allocation.kind, Kind::Once(_)) && allocation.claim.is_none();
            allocation.runs.iter().map(move |(run, placed)| {
                let sighted = match &placed.progress {
                    Progress::Ended => Sighted::Ended,
                    Progress::CutOff(what) => Sighted::CutOff(what.clone()),
                    _ if queued => Sighted::Queued,
                    Progress::New | Progress::Writing | Progress::Kept => Sighted::Queued,
                    Progress::Told => Sighted::Alive,
                };
                (run.clone(), sighted)
            })
        });
        waiting.chain(placed).collect()
    }

    /// Does a run stand in another allocation than this? It did not come to be taken out here before a daemon ended.
    pub(crate) fn stands_elsewhere(&self, name: &str, run: &Run) -> bool {
        self.allocations.iter().any(|(other, one)| other != name && one.runs.contains_key(run))
    }

    /// The allocation in which a run is.
    pub fn allocation_of(&self, run: &Run) -> Option<String> {
        self.allocations.iter().find(|(_, one)| one.runs.contains_key(run)).map(|(name, _)| name.clone())
    }

    /// Finds a worker for each run that waits for one.
    pub(crate) fn place(&mut self) {
        for (run, need) in std::mem::take(&mut self.waiting) {
            match self.worker_for(&run, &need) {
                Some((name, slots, gpus)) => {
                    let placed = Placed { slots, gpus, ..Placed::new(Progress::New, Some(need)) };
                    if let Some(allocation) = self.allocations.get_mut(&name) {
                        allocation.runs.insert(run, placed);
                        allocation.idle_since = None;
                    }
                }
                None => self.waiting.push_back((run, need)),
            }
        }
    }

    fn worker_for(&self, run: &Run, need: &Need) -> Option<(String, u32, Vec<u32>)> {
        let pool = self.settings.pools.get(&need.pool).filter(|pool| !pool.workers.once)?;
        let (slots, asked) = (need.slots(pool), need.resources.gpus as usize);
        let mut rooms = Vec::new();
        for (name, allocation) in &self.allocations {
            let Kind::Worker { slots: all } = allocation.kind else { continue };
            let open = allocation.pool == need.pool
                && allocation.is_there()
                && allocation.is_connected()
                && !allocation.stopping
                && allocation.refuses_until <= self.now;
            let taken = allocation.taken();
            if !open || taken + slots > all {
                continue;
            }
            let gpus = allocation.free_gpus(all.saturating_mul(pool.slot.gpus));
            if gpus.len() >= asked {
                let left = allocation.left(self.now).map(|left| left.as_secs_f64());
                rooms.push((name, gpus, Room { jobs: u64::from(taken), slots: u64::from(all), left }));
            }
        }
        let only: Vec<Room> = rooms.iter().map(|(_, _, room)| *room).collect();
        let at = scaling::place(&only, need.time(run, pool).as_secs_f64())?;
        let (name, gpus, _) = &rooms[at];
        Some(((*name).clone(), slots, gpus[..asked].to_vec()))
    }

    /// Has written down what changed of the runs of workers, if something waits for that.
    pub(crate) fn write_places(&mut self) {
        let mut effects = Vec::new();
        for (name, allocation) in &mut self.allocations {
            let new = allocation.runs.values().any(|placed| placed.progress == Progress::New);
            // What a worker that is gone has left is written down when it is forgotten: a later daemon finds it.
            let shrank = allocation.is_dirty && allocation.stage == Stage::Ended && !allocation.runs.is_empty();
            let is_worker = matches!(allocation.kind, Kind::Worker { .. });
            if !is_worker || allocation.is_writing || !(new || shrank) {
                continue;
            }
            (allocation.is_dirty, allocation.is_writing) = (false, true);
            let mut all = BTreeMap::new();
            for (run, placed) in &mut allocation.runs {
                if placed.progress == Progress::New {
                    placed.progress = Progress::Writing;
                }
                all.insert(run.clone(), Place { slots: placed.slots, gpus: placed.gpus.clone() });
            }
            effects.push(Effect::Place(name.clone(), all));
        }
        effects.into_iter().for_each(|effect| self.push(effect));
    }

    pub(crate) fn waits_no_more(&mut self, run: &Run) {
        if self.said.remove(run).is_some() {
            self.push(Effect::Waits(run.clone(), None));
        }
    }

    /// Says what runs wait for, when that has changed.
    pub(crate) fn say_waits(&mut self) {
        if self.say_at > self.now {
            return;
        }
        self.say_at = self.now + Duration::from_secs(1);
        let mut waits: Vec<(Run, String)> = Vec::new();
        for (run, need) in &self.waiting {
            let once = self.settings.pools.get(&need.pool).is_some_and(|pool| pool.workers.once);
            let what = if once { "it waits for an allocation" } else { "it waits for a worker with time enough" };
            let pool = self.pools.get(&need.pool).map(|pool| pool.why.as_str()).filter(|why| !why.is_empty());
            waits.push((run.clone(), pool.map_or(what.to_owned(), |why| format!("{what}: {why}"))));
        }
        for allocation in self.allocations.values().filter(|one| one.is_pending()) {
            let Kind::Once(run) = &allocation.kind else { continue };
            let what = match (&allocation.stage, &allocation.row) {
                (Stage::Recording | Stage::Submitting, _) => "it is being submitted to Slurm".to_owned(),
                (Stage::Unclear { .. }, _) => "whether it was submitted to Slurm is being found out".to_owned(),
                (_, Some((state, reason))) if state.is_waiting() => format!("it waits in Slurm: {}", reason.in_words()),
                (_, Some((state, _))) => format!("it is about to begin: Slurm says {state}"),
                (_, None) => "it waits in Slurm".to_owned(),
            };
            if allocation.runs.contains_key(run) {
                waits.push((run.clone(), what));
            }
        }
        for (run, what) in waits {
            if self.said.get(&run) != Some(&what) {
                self.said.insert(run.clone(), what.clone());
                self.push(Effect::Waits(run, Some(what)));
            }
        }
    }

    /// How many slots' worth of runs of a pool there is place for: in workers that are open, and what those that are
    /// not have taken.
    pub(crate) fn slots_of(&self, name: &PoolName, pool: &PoolSettings) -> usize {
        let waiting = self.waiting.iter().filter(|(_, need)| need.pool == *name);
        if pool.workers.once {
            let most = self.settings.quota.allocations.unwrap_or(u64::MAX).min(u64::from(pool.workers.max));
            return usize::try_from(most).unwrap_or(usize::MAX);
        }
        let queued: u32 = waiting.clone().map(|(_, need)| need.slots(pool)).sum();
        let least = waiting.map(|(run, need)| need.time(run, pool)).min();
        let workers = self.allocations.values().filter(|one| one.pool == *name && one.counts());
        let slots = workers.map(|one| {
            let Kind::Worker { slots } = one.kind else { return 0 };
            if self.is_open(one, least) { slots } else { one.taken() }
        });
        (slots.sum::<u32>() + queued) as usize
    }

    /// Can runs that need so much time at the least begin in a worker?
    pub(crate) fn is_open(&self, one: &super::Allocation, least: Option<Duration>) -> bool {
        let enough = match (one.left(self.now), least) {
            (Some(left), Some(least)) => left >= least,
            (Some(left), None) => left > MARGIN,
            (None, _) => true,
        };
        one.is_there() && matches!(one.connection, Connection::There) && !one.stopping && enough
    }
}
