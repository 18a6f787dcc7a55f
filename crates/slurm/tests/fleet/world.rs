//! A model of everything around the fleet: Slurm, the folders of allocations, keepers, and a daemon that dies. It lies,
//! forgets and loses as the real ones were seen to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use lifecycle::{Attempt, Run};
use protocol::PoolName;
use scaling::Amount;
use site::{Resources, Workers};
use slurm::fleet::{
    Claim, Closed, Demand, Effect, Fleet, Found, Kind, Left, Need, Place, PoolDemand, PoolSettings, Seen, Settings,
    Sighted, Told,
};
use slurm::{Answer, Element, Listed, NoAnswer, Reason, Row, State, Submitted};

/// When it all begins, in seconds since 1970.
const BEGIN: u64 = 1_000_000;

/// How long Slurm remembers what has ended.
const REMEMBERED: u64 = 300;

/// How long a worker is idle before it ends.
const IDLE: u64 = 30;

/// What may go wrong, and how often, in a thousand of what may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    pub(crate) daemon_dies: u32,
    pub(crate) answer_lost: u32,
    pub(crate) submission_lost: u32,
    pub(crate) submitted_twice: u32,
    pub(crate) controller_goes: u32,
    pub(crate) controller_comes: u32,
    pub(crate) keeper_dies: u32,
    pub(crate) connection_lost: u32,
    pub(crate) listing_empty: u32,
    pub(crate) look_fails: u32,
}

impl Trouble {
    pub(crate) const NONE: Self = Self {
        daemon_dies: 0,
        answer_lost: 0,
        submission_lost: 0,
        submitted_twice: 0,
        controller_goes: 0,
        controller_comes: 1000,
        keeper_dies: 0,
        connection_lost: 0,
        listing_empty: 0,
        look_fails: 0,
    };
}

/// What is done wrong on purpose, between the fleet and the world. A test that does not see it sees nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// What one listing does not name has ended.
    ConcludesFromAnEmptyAnswer,
    /// A later daemon knows only those allocations of which it finds an id.
    ForgetsTheName,
    /// What waits in Slurm is taken for what is there.
    CountsPendingAsRunning,
}

#[derive(Debug, Clone)]
struct SlurmJob {
    element: Element,
    job_name: String,
    state: State,
    submitted: u64,
    over_at: Option<u64>,
    keeper: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum InJournal {
    Begun,
    Ended,
    CutOff(String),
}

#[derive(Debug, Clone)]
struct Folder {
    pool: PoolName,
    kind: Kind,
    cost: Amount,
    runs: BTreeMap<Run, Place>,
    noted: Option<Element>,
    claim: Option<(usize, Claim)>,
    closed: Option<Closed>,
    ended: bool,
    beat: i64,
    journal: BTreeMap<Run, InJournal>,
}

#[derive(Debug, Clone)]
struct Keeper {
    folder: String,
    alive: bool,
    connected: bool,
    /// The runs that go on, and when they end.
    runs: BTreeMap<Run, u64>,
    slots: usize,
    idle_since: u64,
    stopping: bool,
}

/// What is on its way to the fleet.
#[derive(Debug, Clone)]
enum Reply {
    Recorded(String, Vec<slurm::fleet::Order>),
    Answered(String, Answer),
    Listed(Result<Vec<Row>, String>),
    Looked(Vec<String>),
    Placed(String, BTreeMap<Run, Place>),
    Connect(String),
    Close(String, String, Closed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    Waiting,
    Running,
    Done,
}

#[derive(Debug)]
struct Job {
    pool: PoolName,
    attempt: Attempt,
    state: JobState,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) trouble: Trouble,
    pub(crate) now: u64,
    pub(crate) settings: Settings,
    pub(crate) fleet: Fleet,
    up: bool,
    next_id: u64,
    slurm: Vec<SlurmJob>,
    folders: BTreeMap<String, Folder>,
    keepers: Vec<Keeper>,
    /// Submissions on their way to Slurm.
    arriving: Vec<(u64, String, u32)>,
    replies: Vec<(u64, Reply)>,
    jobs: BTreeMap<String, Job>,
    rooms: BTreeMap<PoolName, usize>,
    begun: BTreeMap<Run, u32>,
    pub(crate) listings: u64,
    pub(crate) submissions: u64,
    pub(crate) cut_offs: u64,
    pub(crate) most_keepers: usize,
    /// How many allocations of a pool waited in Slurm at once.
    pub(crate) most_pending: usize,
    /// Are allocations in Slurm counted, those that wait as well? And does no listing lie twice in a row?
    pub(crate) strict: bool,
    pub(crate) sabotage: Option<Sabotage>,
    last_was_empty: bool,
    pub(crate) said: BTreeSet<String>,
}

pub(crate) fn pool(name: &str) -> PoolName {
    name.parse().unwrap()
}

pub(crate) fn workers(max: u32, slots: u32, once: bool) -> PoolSettings {
    let workers = Workers { min: 0, max, slots, idle: Duration::from_secs(IDLE), pending: 4, weight: 1, once };
    let slot = Resources { cpus: 1, memory: None, gpus: 0, nodes: 1 };
    PoolSettings { workers, slot, time: Some(Duration::from_secs(3_600)) }
}

pub(crate) fn settings(pools: &[(&str, PoolSettings)], allocations: u64) -> Settings {
    Settings {
        prefix: "hpcq-abc".to_owned(),
        seed: 7,
        has_accounting: false,
        quota: scaling::Quota { allocations: Some(allocations), ..scaling::Quota::default() },
        pools: pools.iter().map(|(name, settings)| (pool(name), settings.clone())).collect(),
    }
}

impl World {
    pub(crate) fn new(seed: u64, trouble: Trouble, settings: Settings) -> Self {
        let fleet = Fleet::restore(settings.clone(), Vec::new(), Duration::from_secs(BEGIN));
        Self {
            rng: Rng::with_seed(seed),
            trouble,
            now: BEGIN,
            settings,
            fleet,
            up: true,
            next_id: 1,
            slurm: Vec::new(),
            folders: BTreeMap::new(),
            keepers: Vec::new(),
            arriving: Vec::new(),
            replies: Vec::new(),
            jobs: BTreeMap::new(),
            rooms: BTreeMap::new(),
            begun: BTreeMap::new(),
            listings: 0,
            submissions: 0,
            cut_offs: 0,
            most_keepers: 0,
            most_pending: 0,
            strict: false,
            sabotage: None,
            last_was_empty: false,
            said: BTreeSet::new(),
        }
    }

    pub(crate) fn add_jobs(&mut self, of: &str, count: usize) {
        for _ in 0..count {
            let id = format!("j{}", self.jobs.len());
            let job = Job { pool: pool(of), attempt: Attempt::FIRST, state: JobState::Waiting };
            self.jobs.insert(id, job);
        }
    }

    fn chance(&mut self, of_a_thousand: u32) -> bool {
        self.rng.u32(0..1000) < of_a_thousand
    }

    pub(crate) fn done(&self) -> usize {
        self.jobs.values().filter(|job| job.state == JobState::Done).count()
    }

    pub(crate) fn all_done(&self) -> bool {
        self.done() == self.jobs.len()
    }

    /// Is a person to look?
    pub(crate) fn is_paused(&self) -> bool {
        self.settings.pools.keys().any(|pool| self.fleet.problem(pool).is_some())
    }

    /// Is nothing of it left on the cluster?
    pub(crate) fn is_empty(&self) -> bool {
        self.slurm.iter().all(|job| job.state.is_over()) && self.folders.is_empty()
    }

    pub(crate) fn holding(&self) -> String {
        format!("{:?}\n{:?}\n{:?}\n{:?}", self.fleet.shown(), self.slurm, self.folders, self.fleet.sightings())
    }

    fn clock(&self) -> Duration {
        Duration::from_secs(self.now)
    }

    /// A second passes.
    pub(crate) fn step(&mut self) {
        self.now += 1;
        self.arrive();
        self.schedule();
        self.keep();
        self.go_wrong();
        self.demand();
        let now = self.clock();
        self.fleet.tick(now);
        self.perform();
        self.reply();
        self.start_jobs();
        if self.now.is_multiple_of(60) {
            self.observe(false);
        }
        self.check();
    }

    fn arrive(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.arriving).into_iter().partition(|(at, ..)| *at <= now);
        self.arriving = later;
        let due: Vec<(u64, String, u32)> = due;
        for (_, job_name, count) in due {
            let id = self.next_id;
            self.next_id += 1;
            for index in 0..count {
                let element = Element { job: id, index: (count > 1).then_some(index) };
                let job = SlurmJob {
                    element,
                    job_name: job_name.clone(),
                    state: State::Pending,
                    submitted: now,
                    over_at: None,
                    keeper: None,
                };
                self.slurm.push(job);
            }
        }
    }

    fn schedule(&mut self) {
        if !self.up {
            return;
        }
        for at in 0..self.slurm.len() {
            if self.slurm[at].state == State::Pending && self.rng.u32(0..10) == 0 {
                let name = name_of(&self.slurm[at]);
                self.slurm[at].state = State::Running;
                match self.folders.get_mut(&name) {
                    Some(folder) if folder.claim.is_none() && folder.closed.is_none() => {
                        let keeper = self.keepers.len();
                        let claim = Claim { job: Some(self.slurm[at].element), node: "n1".to_owned() };
                        folder.claim = Some((keeper, claim));
                        let slots = match folder.kind {
                            Kind::Worker { slots } => slots as usize,
                            Kind::Once(_) => 1,
                        };
                        let (runs, idle_since) = (BTreeMap::new(), self.now);
                        let mut new = Keeper {
                            folder: name,
                            alive: true,
                            connected: false,
                            runs,
                            slots,
                            idle_since,
                            stopping: false,
                        };
                        if let Kind::Once(run) = folder.kind.clone() {
                            new.stopping = true;
                            self.begin(&mut new, &run);
                        }
                        self.keepers.push(new);
                        self.slurm[at].keeper = Some(keeper);
                    }
                    // Another one has it, or it is not there any more.
                    _ => self.end_slurm_job(at, State::Completed),
                }
            }
        }
        let now = self.now;
        self.slurm.retain(|job| job.over_at.is_none_or(|over_at| over_at + REMEMBERED > now));
    }

    fn end_slurm_job(&mut self, at: usize, state: State) {
        self.slurm[at].state = state;
        self.slurm[at].over_at = Some(self.now);
    }

    fn begin(&mut self, keeper: &mut Keeper, run: &Run) {
        let folder = self.folders.get_mut(&keeper.folder).unwrap();
        if folder.closed.is_some() || folder.journal.contains_key(run) {
            return;
        }
        folder.journal.insert(run.clone(), InJournal::Begun);
        let ends = self.now + self.rng.u64(1..40);
        keeper.runs.insert(run.clone(), ends);
        *self.begun.entry(run.clone()).or_default() += 1;
    }

    /// Keepers do their work.
    fn keep(&mut self) {
        let pools: Vec<PoolName> = self.settings.pools.keys().cloned().collect();
        for pool in pools {
            let of = |job: &&SlurmJob| self.folders.get(&name_of(job)).is_some_and(|folder| folder.pool == pool);
            let pending = self.slurm.iter().filter(|job| job.state == State::Pending).filter(of).count();
            self.most_pending = self.most_pending.max(pending);
        }
        for at in 0..self.keepers.len() {
            if !self.keepers[at].alive {
                continue;
            }
            let name = self.keepers[at].folder.clone();
            let Some(folder) = self.folders.get_mut(&name) else {
                self.end_keeper(at, State::Failed);
                continue;
            };
            if self.now.is_multiple_of(10) {
                folder.beat += 1;
            }
            let ended: Vec<Run> = self.keepers[at]
                .runs
                .iter()
                .filter(|(_, ends)| **ends <= self.now)
                .map(|(run, _)| run.clone())
                .collect();
            for run in &ended {
                self.keepers[at].runs.remove(run);
                folder.journal.insert(run.clone(), InJournal::Ended);
            }
            if folder.closed.is_some() {
                // Whatever still goes on is ended: the daemon does not count it any more.
                self.end_keeper(at, State::Completed);
                continue;
            }
            if !self.keepers[at].runs.is_empty() {
                self.keepers[at].idle_since = self.now;
            }
            let keeper = &self.keepers[at];
            let idle = keeper.runs.is_empty() && (keeper.stopping || keeper.idle_since + IDLE <= self.now);
            let connected = keeper.connected;
            if connected {
                let now = self.clock();
                for run in &ended {
                    self.fleet.run_ended(&name, run, now);
                }
                self.perform();
            }
            if idle {
                if let Some(folder) = self.folders.get_mut(&name) {
                    folder.ended = true;
                }
                self.end_keeper(at, State::Completed);
            }
        }
        self.most_keepers = self.most_keepers.max(self.keepers.iter().filter(|keeper| keeper.alive).count());
    }

    fn end_keeper(&mut self, at: usize, state: State) {
        let keeper = &mut self.keepers[at];
        keeper.alive = false;
        keeper.runs.clear();
        let (name, connected) = (keeper.folder.clone(), std::mem::take(&mut keeper.connected));
        if let Some(job) = self.slurm.iter().position(|job| job.keeper == Some(at)) {
            self.end_slurm_job(job, state);
        }
        if connected {
            let now = self.clock();
            self.fleet.disconnected(&name, now);
            self.perform();
        }
    }

    fn go_wrong(&mut self) {
        let trouble = self.trouble;
        if self.up && self.chance(trouble.controller_goes) {
            self.up = false;
        } else if !self.up && self.chance(trouble.controller_comes) {
            self.up = true;
        }
        for at in 0..self.keepers.len() {
            if self.keepers[at].alive && self.chance(trouble.keeper_dies) {
                let states = [State::Failed, State::NodeFail, State::Timeout, State::Preempted, State::OutOfMemory];
                let state = states[self.rng.usize(0..states.len())].clone();
                self.end_keeper(at, state);
            } else if self.keepers[at].connected && self.chance(trouble.connection_lost) {
                self.keepers[at].connected = false;
                let (name, now) = (self.keepers[at].folder.clone(), self.clock());
                self.fleet.disconnected(&name, now);
                self.perform();
            }
        }
        if self.chance(trouble.daemon_dies) {
            self.restart();
        }
    }

    /// The daemon dies, and another one comes.
    pub(crate) fn restart(&mut self) {
        self.replies.clear();
        self.keepers.iter_mut().for_each(|keeper| keeper.connected = false);
        let forgets = self.sabotage == Some(Sabotage::ForgetsTheName);
        let known = |folder: &Folder| !forgets || folder.noted.is_some() || folder.claim.is_some();
        let found = self.folders.iter().filter(|(_, folder)| known(folder)).map(|(name, folder)| {
            let mut runs = folder.runs.clone();
            if let Kind::Once(run) = &folder.kind {
                runs.insert(run.clone(), Place { slots: 1, gpus: Vec::new() });
            }
            let (pool, kind, cost) = (folder.pool.clone(), folder.kind.clone(), folder.cost);
            let (element, seen) = (folder.noted, seen(folder));
            Found {
                name: name.clone(),
                pool,
                kind,
                runs,
                cost,
                asks_more: false,
                element,
                hopeless_since: None,
                refused: None,
                seen,
            }
        });
        self.settings.seed += 1;
        self.rooms.clear();
        self.fleet = Fleet::restore(self.settings.clone(), found.collect(), self.clock());
        self.observe(true);
        self.perform();
    }

    fn demand(&mut self) {
        let mut demand = Demand::default();
        for job in self.jobs.values().filter(|job| job.state != JobState::Done) {
            let of: &mut PoolDemand = demand.pools.entry(job.pool.clone()).or_default();
            of.backlog += 1;
            of.mean_run = Some(20.0);
            of.waiting_since = Some(Duration::from_secs(BEGIN));
        }
        let now = self.clock();
        self.fleet.demand(demand, now);
        self.perform();
    }

    fn start_jobs(&mut self) {
        let mut starts = Vec::new();
        for (name, slots) in &self.rooms {
            let running = self.jobs.values().filter(|job| job.pool == *name && job.state == JobState::Running).count();
            let waiting = self.jobs.iter().filter(|(_, job)| job.pool == *name && job.state == JobState::Waiting);
            starts.extend(waiting.take(slots.saturating_sub(running)).map(|(id, _)| id.clone()));
        }
        for id in starts {
            self.start(&id);
        }
    }

    fn start(&mut self, id: &str) {
        let job = self.jobs.get_mut(id).unwrap();
        job.state = JobState::Running;
        let run = Run { job_id: id.parse().unwrap(), attempt: job.attempt };
        let resources = Resources { cpus: 1, memory: None, gpus: 0, nodes: 1 };
        let need = Need { pool: job.pool.clone(), resources, limit: Duration::from_secs(60) };
        let now = self.clock();
        self.fleet.start(run, need, now);
        self.perform();
    }

    /// As `lifecycle` compares what runs with what it has.
    fn observe(&mut self, _first: bool) {
        let sightings: BTreeMap<Run, Sighted> = self.fleet.sightings().into_iter().collect();
        let running: Vec<String> =
            self.jobs.iter().filter(|(_, job)| job.state == JobState::Running).map(|(id, _)| id.clone()).collect();
        for id in &running {
            let run = Run { job_id: id.parse().unwrap(), attempt: self.jobs[id].attempt };
            match sightings.get(&run) {
                Some(Sighted::Queued | Sighted::Alive) => {}
                Some(Sighted::Ended) => self.ended(&run),
                Some(Sighted::CutOff(_)) => self.cut_off(&run),
                None => self.start(id),
            }
        }
        for (run, sighted) in sightings {
            if !self.holds(&run) {
                let now = self.clock();
                match sighted {
                    Sighted::Queued | Sighted::Alive => self.fleet.end(&run, lifecycle::EndReason::NotHeld, now),
                    Sighted::Ended | Sighted::CutOff(_) => self.fleet.forget(&[run], now),
                }
                self.perform();
            }
        }
    }

    fn holds(&self, run: &Run) -> bool {
        let job = &self.jobs[run.job_id.as_str()];
        job.state == JobState::Running && job.attempt == run.attempt
    }

    fn ended(&mut self, run: &Run) {
        if self.holds(run) {
            self.jobs.get_mut(run.job_id.as_str()).unwrap().state = JobState::Done;
        }
        let now = self.clock();
        self.fleet.forget(std::slice::from_ref(run), now);
        self.perform();
    }

    fn cut_off(&mut self, run: &Run) {
        if self.holds(run) {
            self.cut_offs += 1;
            let job = self.jobs.get_mut(run.job_id.as_str()).unwrap();
            (job.state, job.attempt) = (JobState::Waiting, job.attempt.next());
        }
        let now = self.clock();
        self.fleet.forget(std::slice::from_ref(run), now);
        self.perform();
    }

    fn perform(&mut self) {
        for effect in self.fleet.take_effects() {
            self.carry_out(effect);
        }
    }

    fn later(&mut self, seconds: std::ops::Range<u64>, reply: Reply) {
        let at = self.now + self.rng.u64(seconds);
        self.replies.push((at, reply));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Record { job, orders } => {
                // What dies meanwhile has made some of them.
                let made = self.rng.usize(0..=orders.len());
                orders[..made].iter().for_each(|order| self.make(order));
                self.later(0..3, Reply::Recorded(job, orders));
            }
            Effect::Submit { job, count, .. } => self.submit(job, count),
            Effect::Note { name, element, .. } => {
                if self.rng.bool()
                    && let Some(folder) = self.folders.get_mut(&name)
                {
                    folder.noted = Some(element);
                }
            }
            Effect::List { .. } => {
                self.listings += 1;
                if !self.up {
                    return self.later(9..11, Reply::Listed(Err("it is away".to_owned())));
                }
                let lies = self.chance(self.trouble.listing_empty) && !(self.strict && self.last_was_empty);
                self.last_was_empty = lies;
                let mut rows = if lies { Vec::new() } else { self.rows() };
                if self.sabotage == Some(Sabotage::ConcludesFromAnEmptyAnswer) {
                    let lacks = |job: &&SlurmJob| !rows.iter().any(|row| row.element == job.element);
                    let lacking: Vec<Row> = self.slurm.iter().filter(lacks).map(row).collect();
                    rows.extend(lacking.into_iter().map(|row| Row { state: State::Failed, ..row }));
                }
                self.later(0..2, Reply::Listed(Ok(rows)));
            }
            Effect::Cancel { job, element } => {
                let is = |one: &SlurmJob| one.job_name == job && one.element == element && !one.state.is_over();
                if let Some(at) = self.slurm.iter().position(is) {
                    match self.slurm[at].keeper {
                        Some(keeper) => self.end_keeper(keeper, State::Cancelled { by: Some(1) }),
                        // Of what waits of an array there is one record.
                        None if element.index.is_some() => drop(self.slurm.remove(at)),
                        None => self.end_slurm_job(at, State::Cancelled { by: Some(1) }),
                    }
                }
            }
            Effect::Look(names) => self.later(0..2, Reply::Looked(names)),
            Effect::Connect(name) => self.later(0..2, Reply::Connect(name)),
            Effect::Place(name, runs) => {
                if self.rng.bool()
                    && let Some(folder) = self.folders.get_mut(&name)
                {
                    folder.runs = runs.clone();
                }
                self.later(0..2, Reply::Placed(name, runs));
            }
            Effect::Start { name, run, .. } => {
                let Some(at) = self.keeper_of(&name).filter(|at| self.keepers[*at].connected) else { return };
                let mut keeper = self.keepers[at].clone();
                if keeper.stopping || keeper.runs.len() >= keeper.slots {
                    let now = self.clock();
                    self.fleet.not_begun(&name, &run, keeper.stopping, now);
                    return self.perform();
                }
                self.begin(&mut keeper, &run);
                self.keepers[at] = keeper;
            }
            Effect::End { name, run, .. } => {
                if let Some(at) = self.keeper_of(&name)
                    && self.keepers[at].runs.contains_key(&run)
                {
                    self.keepers[at].runs.insert(run, self.now);
                }
            }
            Effect::Forget(name, runs) => {
                if let Some(folder) = self.folders.get_mut(&name) {
                    runs.iter().for_each(|run| drop(folder.journal.remove(run)));
                }
            }
            Effect::Stop(name) => {
                if let Some(at) = self.keeper_of(&name) {
                    self.keepers[at].stopping = true;
                }
            }
            Effect::Close { name, what, closed } => self.later(0..3, Reply::Close(name, what, closed)),
            Effect::Remove(name) => drop(self.folders.remove(&name)),
            Effect::Ended(run) => self.ended(&run),
            Effect::CutOff(run, _) => self.cut_off(&run),
            Effect::Room(name, room) => drop(self.rooms.insert(name, room.slots)),
            Effect::Observe => self.observe(false),
            Effect::Say(notice) => {
                let said = format!("{notice:?}");
                self.said.insert(said.split(['(', ' ']).next().unwrap_or_default().to_owned());
            }
            Effect::Rejected(..) => unreachable!("nothing is refused"),
            Effect::Waits(..) | Effect::Broken(..) | Effect::Log(_) => {}
        }
    }

    fn keeper_of(&self, name: &str) -> Option<usize> {
        self.keepers.iter().position(|keeper| keeper.folder == name && keeper.alive)
    }

    fn make(&mut self, order: &slurm::fleet::Order) {
        let folder = Folder {
            pool: order.pool.clone(),
            kind: order.kind.clone(),
            cost: order.cost,
            runs: BTreeMap::new(),
            noted: None,
            claim: None,
            closed: None,
            ended: false,
            beat: 0,
            journal: BTreeMap::new(),
        };
        self.folders.entry(order.name.clone()).or_insert(folder);
    }

    fn submit(&mut self, job: String, count: u32) {
        self.submissions += 1;
        let id = self.next_id;
        let arrives = self.up && !self.chance(self.trouble.submission_lost);
        if arrives {
            let at = self.now;
            self.arriving.push((at, job.clone(), count));
            self.arrive();
            if self.chance(self.trouble.submitted_twice) {
                let later = at + self.rng.u64(1..20);
                self.arriving.push((later, job.clone(), count));
            }
        }
        let answer = if arrives && !self.chance(self.trouble.answer_lost) {
            Answer::Submitted(Submitted { job: id, cluster: None })
        } else {
            Answer::Unclear("it was not heard".to_owned())
        };
        self.later(0..12, Reply::Answered(job, answer));
    }

    fn rows(&self) -> Vec<Row> {
        self.slurm.iter().map(row).collect()
    }

    fn reply(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.replies).into_iter().partition(|(at, _)| *at <= now);
        self.replies = later;
        let due: Vec<(u64, Reply)> = due;
        for (_, reply) in due {
            let now = self.clock();
            match reply {
                Reply::Recorded(job, orders) => {
                    orders.iter().for_each(|order| self.make(order));
                    self.fleet.recorded(&job, Ok(()), now);
                }
                Reply::Answered(job, answer) => self.fleet.answered(&job, answer, now),
                Reply::Listed(Ok(rows)) => {
                    self.fleet.listed(Ok(Listed { rows, unread: Vec::new() }), None, now);
                }
                Reply::Listed(Err(why)) => self.fleet.listed(Err(NoAnswer(why)), None, now),
                Reply::Looked(names) => {
                    let mut looks = Vec::new();
                    for name in names {
                        if !self.chance(self.trouble.look_fails)
                            && let Some(folder) = self.folders.get(&name)
                        {
                            let mut seen = seen(folder);
                            if self.sabotage == Some(Sabotage::CountsPendingAsRunning) && seen.claim.is_none() {
                                let waits = |job: &&SlurmJob| name_of(job) == name && job.state == State::Pending;
                                let claim = |job: &SlurmJob| Claim { job: Some(job.element), node: "n1".to_owned() };
                                seen.claim = self.slurm.iter().find(waits).map(claim);
                            }
                            looks.push((name.clone(), seen));
                        }
                    }
                    self.fleet.looked(looks, now);
                }
                Reply::Placed(name, runs) => {
                    if let Some(folder) = self.folders.get_mut(&name) {
                        folder.runs = runs;
                    }
                    self.fleet.placed(&name, Ok(()), now);
                }
                Reply::Connect(name) => self.connect(&name),
                Reply::Close(name, what, closed) => self.close(&name, &what, closed),
            }
            self.perform();
        }
    }

    fn connect(&mut self, name: &str) {
        let now = self.clock();
        let Some(at) = self.keeper_of(name) else { return self.fleet.disconnected(name, now) };
        self.keepers[at].connected = true;
        let (mut told, folder) = (Told::default(), &self.folders[name]);
        for (run, state) in &folder.journal {
            match state {
                InJournal::Begun => told.alive.push(run.clone()),
                InJournal::Ended => told.ended.push(run.clone()),
                InJournal::CutOff(what) => told.cut_off.push((run.clone(), what.clone())),
            }
        }
        self.fleet.connected(name, told, now);
    }

    fn close(&mut self, name: &str, what: &str, closed: Closed) {
        let now = self.clock();
        let lives = self.keeper_of(name).is_some();
        let Some(folder) = self.folders.get_mut(name) else { return };
        if lives {
            return self.fleet.closed(name, Err("a keeper has the lock".to_owned()), now);
        }
        folder.closed = Some(closed);
        let mut left = Left::default();
        for (run, state) in &mut folder.journal {
            if *state == InJournal::Begun {
                *state = InJournal::CutOff(what.to_owned());
            }
            match state {
                InJournal::Begun => {}
                InJournal::Ended => left.ended.push(run.clone()),
                InJournal::CutOff(what) => left.cut_off.push((run.clone(), what.clone())),
            }
        }
        self.fleet.closed(name, Ok(left), now);
    }

    fn check(&self) {
        for (run, times) in &self.begun {
            assert!(*times == 1, "run {run} was begun {times} times at {}", self.now - BEGIN);
        }
        let mut alive = BTreeSet::new();
        for keeper in self.keepers.iter().filter(|keeper| keeper.alive) {
            for run in keeper.runs.keys() {
                assert!(alive.insert(run.job_id.clone()), "two runs of {} go on at {}", run.job_id, self.now - BEGIN);
            }
        }
        let quota = self.settings.quota.allocations.unwrap() as usize;
        let there = self.keepers.iter().filter(|keeper| keeper.alive).count();
        assert!(there <= quota, "{there} keepers are at work, and the quota is {quota}, at {}", self.now - BEGIN);
        for (name, pool) in &self.settings.pools {
            let mine = self
                .keepers
                .iter()
                .filter(|one| one.alive && self.folders.get(&one.folder).is_some_and(|f| f.pool == *name));
            assert!(mine.count() <= pool.workers.max as usize, "more than {} workers of {name}", pool.workers.max);
        }
        if self.strict {
            self.check_slurm(quota);
        }
    }

    /// What waits takes its part of the quota, too.
    fn check_slurm(&self, quota: usize) {
        let there: Vec<&SlurmJob> = self.slurm.iter().filter(|job| !job.state.is_over()).collect();
        assert!(there.len() <= quota, "{} are in Slurm, and the quota is {quota}: {there:?}", there.len());
        for (name, pool) in &self.settings.pools {
            let mine = |job: &&&SlurmJob| self.folders.get(&name_of(job)).is_some_and(|folder| folder.pool == *name);
            let pending = there.iter().filter(|job| job.state == State::Pending).filter(mine).count();
            assert!(pending <= pool.workers.pending as usize, "{pending} of {name} wait in Slurm");
        }
    }
}

fn row(job: &SlurmJob) -> Row {
    Row {
        element: job.element,
        job_name: job.job_name.clone(),
        state: job.state.clone(),
        submitted: i64::try_from(job.submitted).ok(),
        started: None,
        ends: None,
        nodes: if job.state == State::Running { "n1".to_owned() } else { String::new() },
        reason: Reason::parse("Priority"),
    }
}

fn name_of(job: &SlurmJob) -> String {
    match job.element.index {
        Some(index) => format!("{}_{index}", job.job_name),
        None => job.job_name.clone(),
    }
}

fn seen(folder: &Folder) -> Seen {
    Seen {
        claim: folder.claim.as_ref().map(|(_, claim)| claim.clone()),
        listens: folder.claim.is_some() && matches!(folder.kind, Kind::Worker { .. }),
        beat: folder.claim.as_ref().map(|_| folder.beat),
        left: folder.claim.as_ref().map(|_| Duration::from_secs(3_000)),
        stopping: false,
        ended: folder.ended,
        gone: false,
        closed: folder.closed.clone(),
    }
}
