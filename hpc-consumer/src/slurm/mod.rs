//! Allocations of Slurm as a place where runs happen: the shell around [`slurm::fleet`].
//!
//! ```text
//! STATE_DIR/slurm/
//!   NAME/             an allocation: what it is to do, what its keeper says (keeper::allocation), which runs it has
//!   scaling.jsonl     what was decided of how many there should be, and of what
//! ```
//!
//! [`Slurm`] carries the effects of the fleet out and tells it what came of them. [`folders`] has the files,
//! [`commands`] the programs of Slurm, [`log`] the log of decisions; [`accounts`] asks what runs have used.
//!
//! Out of scope: what is concluded from what (`slurm::fleet`), how many allocations there should be (`scaling`), what
//! happens in an allocation (`keeper`).
//!
//! Invariants: what the fleet says is done in its order where that matters: an order is on disk before it is asked for,
//! and a run stands in its allocation before it is told. Nothing here waits for Slurm.

mod accounts;
mod commands;
mod folders;
mod log;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{EndReason, Event, Lifecycle, Observation, Run, Sighting};
use protocol::PoolName;
use site::{Site, Where};
use slurm::fleet::{self, Demand, Effect, Fleet, Kind, Left, Need, Place, PoolDemand, ShownAllocation, Sighted, Told};
use slurm::{Answer, Request, Shape};
use tokio::sync::Notify;

use self::accounts::Accounts;
pub(crate) use self::commands::Commands;
use self::folders::Folders;
use self::log::Log;
use crate::events::Events;
use crate::executor::seen;
use crate::job::StartLine;
use crate::keeper::{self, Keeper, NotBegun, Said};
use crate::process::Clock;
use crate::{blocking, lock};

/// Of so many of the last runs of a pool the mean time is known.
const RUNS_LATELY: usize = 50;

/// So many of them tell something.
const RUNS_MIN: usize = 5;

/// The pools of a site that live in Slurm.
#[derive(Clone)]
pub(crate) struct Slurm(Arc<Shared>);

struct Shared {
    site: Arc<Site>,
    folders: Folders,
    log: Log,
    commands: Commands,
    accounts: Accounts,
    /// What the keepers of allocations do besides their runs.
    settings: keeper::Settings,
    /// This program, where compute nodes find it.
    program: PathBuf,
    events: Events,
    clock: Clock,
    wake: Notify,
    /// Asks for all runs of all places.
    observe: OnceLock<Box<dyn Fn() + Send + Sync>>,
    state: Mutex<State>,
}

struct State {
    fleet: Fleet,
    /// How runs are begun, until they are forgotten.
    lines: HashMap<Run, StartLine>,
    /// How runs have ended, until they are forgotten.
    finished: HashMap<Run, Box<lifecycle::Finished>>,
    keepers: HashMap<String, Keeper>,
    connected: HashSet<String>,
    /// What the GPUs of an allocation are called there.
    gpus: HashMap<String, Vec<String>>,
    /// How long the last runs took, in seconds.
    lately: BTreeMap<PoolName, VecDeque<f64>>,
    /// The same as an earlier daemon knew it.
    before: BTreeMap<PoolName, f64>,
}

impl std::fmt::Debug for Slurm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slurm").finish_non_exhaustive()
    }
}

/// Has a site pools that live in Slurm?
pub(crate) fn has_pools(site: &Site) -> bool {
    site.pools.values().any(|pool| matches!(pool.place, Where::Slurm { .. }))
}

impl Slurm {
    /// The allocations of this state, with those that an earlier daemon has left. `owner` tells its jobs in Slurm from
    /// those of other daemons.
    pub(crate) async fn open(
        state_dir: &Path,
        site: Arc<Site>,
        owner: &str,
        settings: keeper::Settings,
        commands: Commands,
        events: Events,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let folders = Folders::of(state_dir).with_context(|| format!("{} cannot be used", state_dir.display()))?;
        let log = Log::in_directory(folders.root());
        let (found, before) = {
            let (folders, log) = (folders.clone(), log.clone());
            blocking(move || Ok::<_, anyhow::Error>((folders.restore()?, log.mean_runs()))).await?
        };
        if !found.is_empty() {
            let count = program::counted(found.len(), "allocation");
            tracing::info!("taking up what an earlier daemon left in Slurm: {count}");
        }
        let own: String = owner.chars().filter(char::is_ascii_alphanumeric).take(6).collect();
        let fleet_settings = fleet::Settings::of(
            &site,
            format!("hpcq-{}", own.to_ascii_lowercase()),
            clock.wall().as_secs(),
            commands.may_have_accounting(),
        );
        let fleet = Fleet::restore(fleet_settings, found, clock.now());
        let program = std::env::current_exe().context("this program cannot be found")?;
        let state = State {
            fleet,
            lines: HashMap::new(),
            finished: HashMap::new(),
            keepers: HashMap::new(),
            connected: HashSet::new(),
            gpus: HashMap::new(),
            lately: BTreeMap::new(),
            before,
        };
        let shared = Shared {
            site,
            folders,
            log,
            commands,
            accounts: Accounts::default(),
            settings,
            program,
            events,
            clock,
            wake: Notify::new(),
            observe: OnceLock::new(),
            state: Mutex::new(state),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Begins to work, for as long as this process lives. `observe` asks for all runs of all places.
    pub(crate) fn begin(&self, observe: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.observe.set(Box::new(observe));
        let slurm = self.clone();
        tokio::spawn(async move {
            loop {
                slurm.with(Fleet::tick);
                let at = lock(&slurm.0.state).fleet.wake_at();
                let pause = at.map_or(Duration::MAX, |at| at.saturating_sub(slurm.0.clock.now()));
                tokio::select! {
                    () = slurm.0.wake.notified() => {}
                    () = tokio::time::sleep(pause), if pause < Duration::MAX => {}
                }
            }
        });
    }

    /// Tells the fleet something, and does what follows.
    fn with(&self, tell: impl FnOnce(&mut Fleet, Duration)) {
        let effects = {
            let mut state = lock(&self.0.state);
            tell(&mut state.fleet, self.0.clock.now());
            let effects = state.fleet.take_effects();
            effects.into_iter().filter_map(|effect| self.at_once(&mut state, effect)).collect::<Vec<_>>()
        };
        effects.into_iter().for_each(|effect| self.perform(effect));
    }

    /// The same from elsewhere: the next look at the time may be another one by now.
    fn tell(&self, tell: impl FnOnce(&mut Fleet, Duration)) {
        self.with(tell);
        self.0.wake.notify_one();
    }

    /// Does what only says something, in the order in which it was said. Returns what is to be done.
    fn at_once(&self, state: &mut State, effect: Effect) -> Option<Effect> {
        let events = &self.0.events;
        match effect {
            Effect::Ended(run) => {
                if let Some(finished) = state.finished.get(&run) {
                    events.send(Event::RunEnded(run, finished.clone()));
                }
            }
            Effect::CutOff(run, what) => events.send(Event::RunCutOff(run, what)),
            Effect::Rejected(run, why) => events.send(Event::RunRejected(run, why)),
            Effect::Waits(run, why) => events.send(Event::RunWaits(run, why)),
            Effect::Room(pool, room) => events.send(Event::Room(pool, room)),
            Effect::Broken(pool, why) => events.send(Event::PoolBroken(pool, why.into())),
            Effect::Say(notice) if notice.is_warning() => tracing::warn!("{notice}"),
            Effect::Say(notice) => tracing::info!("{notice}"),
            Effect::Start { name, run, gpus } => {
                if let (Some(keeper), Some(line)) = (state.keepers.get(&name), state.lines.get(&run)) {
                    let called = state.gpus.get(&name).map_or(&[][..], Vec::as_slice);
                    let gpus = gpus.iter().map(|gpu| called.get(*gpu as usize).cloned().unwrap_or(gpu.to_string()));
                    keeper.start(line.clone().with_gpus(&gpus.collect::<Vec<_>>()));
                }
            }
            Effect::Forget(name, runs) => {
                if let Some(keeper) = state.keepers.get(&name) {
                    keeper.forget(&runs);
                }
            }
            Effect::End { name, run, why } if state.connected.contains(&name) => {
                if let Some(keeper) = state.keepers.get(&name) {
                    keeper.end(&run, why);
                }
            }
            Effect::Stop(name) => {
                if let Some(keeper) = state.keepers.get(&name).filter(|_| state.connected.contains(&name)) {
                    keeper.stop();
                }
                return Some(Effect::Stop(name));
            }
            Effect::Remove(name) => {
                state.keepers.remove(&name);
                state.connected.remove(&name);
                state.gpus.remove(&name);
                return Some(Effect::Remove(name));
            }
            Effect::Record { job, orders } => {
                let orders = orders.into_iter().filter_map(|order| Some((self.of_keeper(state, &order)?, order)));
                let orders: Vec<_> = orders.map(|(of_keeper, order)| (order, of_keeper)).collect();
                self.record(job, orders);
            }
            effect => return Some(effect),
        }
        None
    }

    /// What the keeper of an allocation is to do.
    fn of_keeper(&self, state: &State, order: &fleet::Order) -> Option<keeper::Order> {
        let (name, pool, settings) = (order.name.clone(), order.pool.clone(), self.0.settings.clone());
        Some(match &order.kind {
            Kind::Worker { slots } => {
                let Where::Slurm { workers, .. } = &self.0.site.pools.get(&pool)?.place else { return None };
                keeper::Order::worker(name, pool, *slots, workers.idle, settings)
            }
            Kind::Once(run) => keeper::Order::once(name, pool, state.lines.get(run)?.clone(), settings),
        })
    }

    fn record(&self, job: String, orders: Vec<(fleet::Order, keeper::Order)>) {
        let (slurm, folders) = (self.clone(), self.0.folders.clone());
        tokio::spawn(async move {
            let squeue = slurm.0.commands.squeue();
            let mut orders = orders;
            orders.iter_mut().for_each(|(_, of_keeper)| of_keeper.squeue.clone_from(&squeue));
            let outcome = blocking(move || folders.record(&orders)).await.map_err(|error| format!("{error:#}"));
            slurm.tell(|fleet, now| fleet.recorded(&job, outcome, now));
        });
    }

    /// Begins what takes a while.
    fn perform(&self, effect: Effect) {
        let (slurm, folders) = (self.clone(), self.0.folders.clone());
        match effect {
            Effect::Submit { job, count, pool, shape } => drop(tokio::spawn(async move {
                let answer = slurm.submit(&job, count, &pool, &shape).await;
                slurm.tell(|fleet, now| fleet.answered(&job, answer, now));
            })),
            Effect::Note { name, element, hopeless_since, refused } => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = folders.note(&name, element, hopeless_since, refused) {
                    tracing::warn!("what Slurm says of the allocation {name} cannot be written down: {error}");
                }
            })),
            Effect::List { records_of } => drop(tokio::spawn(async move {
                let commands = &slurm.0.commands;
                let listing = commands.queue().await;
                let records = match records_of.is_empty() {
                    true => None,
                    false => Some(commands.records(&records_of).await),
                };
                slurm.tell(|fleet, now| fleet.listed(listing, records, now));
            })),
            Effect::Cancel { job, element } => drop(tokio::spawn(async move {
                if let Err(error) = slurm.0.commands.cancel(&job, element).await {
                    tracing::warn!(
                        "the Slurm job {element}, called {job}, cannot be cancelled, which is tried again: {error}"
                    );
                }
            })),
            Effect::Look(names) => drop(tokio::spawn(async move {
                let looked = blocking(move || {
                    let looks = names.into_iter().map(|name| {
                        let look = folders.look(&name);
                        (name, look)
                    });
                    looks.collect::<Vec<_>>()
                });
                slurm.looked(looked.await);
            })),
            Effect::Connect(name) => drop(tokio::spawn(async move { slurm.connect(name).await })),
            Effect::Place(name, runs) => self.place(name, runs),
            Effect::End { name, run, why } => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = keeper::end_run(&folders.of_name(&name), &run, why) {
                    tracing::warn!("the run {run} in the allocation {name} cannot be told to end: {error}");
                }
            })),
            Effect::Stop(name) => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = keeper::stop(&folders.of_name(&name)) {
                    tracing::warn!("the allocation {name} cannot be told to end: {error}");
                }
            })),
            Effect::Close { name, what, closed } => drop(tokio::spawn(async move {
                let folder = folders.of_name(&name);
                let outcome = match keeper::left(&folder, &what, closed).await {
                    Ok(said) => Ok(slurm.left(&name, slurm.with_usage(&name, said).await)),
                    Err(error) => Err(format!("{error:#}")),
                };
                slurm.tell(|fleet, now| fleet.closed(&name, outcome, now));
            })),
            Effect::Remove(name) => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = folders.remove(&name) {
                    tracing::warn!(
                        "the folder of the allocation {name} cannot be removed, which the next start tries again: {error}"
                    );
                }
            })),
            Effect::Observe => {
                if let Some(observe) = self.0.observe.get() {
                    observe();
                }
            }
            Effect::Log(logged) => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = slurm.0.log.write(&logged) {
                    tracing::warn!("the log of scaling cannot be written: {error}");
                }
            })),
            // These are done at once.
            Effect::Record { .. }
            | Effect::Start { .. }
            | Effect::Forget(..)
            | Effect::Ended(_)
            | Effect::CutOff(..)
            | Effect::Rejected(..)
            | Effect::Waits(..)
            | Effect::Room(..)
            | Effect::Broken(..)
            | Effect::Say(_) => {}
        }
    }

    async fn submit(&self, job: &str, count: u32, pool: &PoolName, shape: &Shape) -> Answer {
        let Some(Where::Slurm { slurm, .. }) = self.0.site.pools.get(pool).map(|pool| &pool.place) else {
            return Answer::Refused("the site's file has no such pool in Slurm".to_owned());
        };
        let (folder, program) = (self.0.folders.of_name(job), &self.0.program);
        let (Some(folder), Some(program)) = (folder.to_str(), program.to_str()) else {
            return Answer::Refused("the path of STATE_DIR or of this program is no text that Slurm takes".to_owned());
        };
        self.0.commands.submit(&Request { slurm, shape, name: job, folder, program, count }).await
    }

    fn looked(&self, looked: Vec<(String, io::Result<keeper::Look>)>) {
        let mut seen = Vec::new();
        for (name, look) in looked {
            match look {
                Ok(look) => {
                    let what = folders::seen(&look);
                    if let Some(capacity) = look.capacity {
                        lock(&self.0.state).gpus.entry(name.clone()).or_insert(capacity.gpus);
                    }
                    seen.push((name, what));
                }
                // It tells nothing then; Slurm tells whether it goes on.
                Err(error) => tracing::debug!("the folder of the allocation {name} cannot be read: {error}"),
            }
        }
        self.tell(|fleet, now| fleet.looked(seen, now));
    }

    fn place(&self, name: String, runs: BTreeMap<Run, Place>) {
        let (slurm, folders) = (self.clone(), self.0.folders.clone());
        tokio::spawn(async move {
            let of = name.clone();
            let outcome = blocking(move || folders.place(&of, &runs)).await.map_err(|error| error.to_string());
            slurm.tell(|fleet, now| fleet.placed(&name, outcome, now));
        });
    }

    /// Reaches the keeper of a worker, and hears it until it has gone.
    async fn connect(&self, name: String) {
        let keeper = Keeper::of_allocation(self.0.folders.of_name(&name), self.0.settings.clone());
        lock(&self.0.state).keepers.insert(name.clone(), keeper.clone());
        let (slurm, of) = (self.clone(), name.clone());
        let said = move |said| slurm.heard(&of, said);
        if let Err(error) = keeper.observe(said).await {
            tracing::debug!("the keeper of the allocation {name} cannot be reached, which is tried again: {error:#}");
            lock(&self.0.state).connected.remove(&name);
            self.tell(|fleet, now| fleet.unreached(&name, format!("{error:#}"), now));
        }
    }

    fn gone(&self, name: &str) {
        lock(&self.0.state).connected.remove(name);
        self.tell(|fleet, now| fleet.disconnected(name, now));
    }

    fn heard(&self, name: &str, said: Said) {
        match said {
            Said::Runs { alive, ended, cut_off, .. } => {
                let Left { ended, cut_off } = self.keep(name, ended, cut_off);
                lock(&self.0.state).connected.insert(name.to_owned());
                self.tell(|fleet, now| fleet.connected(name, Told { alive, ended, cut_off }, now));
            }
            Said::Ended(run, finished) => {
                let Left { ended, cut_off } = self.keep(name, vec![(run, finished)], Vec::new());
                for run in ended {
                    self.tell(|fleet, now| fleet.run_ended(name, &run, now));
                }
                for (run, what) in cut_off {
                    self.tell(|fleet, now| fleet.run_cut_off(name, &run, what, now));
                }
            }
            Said::NotBegun(run, why) => {
                self.tell(|fleet, now| fleet.not_begun(name, &run, why == NotBegun::EndsSoon, now));
            }
            Said::Gone => self.gone(name),
        }
    }

    /// What a keeper that is gone has left.
    fn left(&self, name: &str, said: Said) -> Left {
        let Said::Runs { alive, ended, cut_off, .. } = said else { return Left::default() };
        let mut left = self.keep(name, ended, cut_off);
        left.cut_off.extend(alive.into_iter().map(|run| (run, "its keeper is gone".to_owned())));
        left
    }

    /// With what Slurm knows that a run has used which had all of an allocation. Its keeper sees one of its nodes.
    async fn with_usage(&self, name: &str, said: Said) -> Said {
        let is_for_one = lock(&self.0.state).fleet.is_for_one(name);
        match said {
            Said::Runs { alive, mut ended, cut_off, complete } if is_for_one && !ended.is_empty() => {
                if let Some(usage) = self.0.accounts.usage_of(name, &self.0.commands).await {
                    for (_, finished) in &mut ended {
                        finished.usage = finished.usage.take().unwrap_or_default().and(usage.clone()).known();
                    }
                }
                Said::Runs { alive, ended, cut_off, complete }
            }
            said => said,
        }
    }

    /// Keeps how runs have ended until they are forgotten.
    fn keep(&self, name: &str, ended: Vec<(Run, crate::run::Finished)>, cut_off: Vec<(Run, String)>) -> Left {
        let mut state = lock(&self.0.state);
        let place = state.fleet.place_of(name);
        let mut left = Left { ended: Vec::new(), cut_off };
        for (run, finished) in ended {
            match seen(finished) {
                Ok(mut finished) => {
                    if let (None, Some((element, node))) = (&finished.ran, &place) {
                        let slurm_job_id = element.map(|element| element.to_string());
                        finished.ran = Some(Box::new(protocol::Ran { node: node.clone(), slurm_job_id }));
                    }
                    if let Some(launched) = &finished.launched {
                        let took = finished.finished_at_ms.saturating_sub(finished.started_at_ms).max(0);
                        let lately = state.lately.entry(launched.pool.clone()).or_default();
                        lately.push_back(took as f64 / 1_000.0);
                        if lately.len() > RUNS_LATELY {
                            lately.pop_front();
                        }
                    }
                    state.finished.insert(run.clone(), Box::new(finished));
                    left.ended.push(run);
                }
                Err(what) => left.cut_off.push((run, what)),
            }
        }
        left
    }

    /// Is a run of one of these pools?
    pub(crate) fn has(&self, pool: &PoolName) -> bool {
        matches!(self.0.site.pools.get(pool).map(|pool| &pool.place), Some(Where::Slurm { .. }))
    }

    /// Has a run begun in an allocation of its pool.
    pub(crate) fn start(&self, line: StartLine, need: Need) {
        let run = line.run.clone();
        lock(&self.0.state).lines.insert(run.clone(), line);
        self.tell(|fleet, now| fleet.start(run, need, now));
    }

    /// Has a run ended, if it is in one of these pools.
    pub(crate) fn end(&self, run: &Run, why: EndReason) {
        self.tell(|fleet, now| fleet.end(run, why, now));
    }

    /// Has runs forgotten that have ended, if they are of these pools.
    pub(crate) fn forget(&self, runs: &[Run]) {
        {
            let mut state = lock(&self.0.state);
            for run in runs {
                state.lines.remove(run);
                state.finished.remove(run);
            }
        }
        self.tell(|fleet, now| fleet.forget(runs, now));
    }

    /// All runs of these pools, beside those of the others.
    pub(crate) fn observed(&self, mut observation: Observation) -> Observation {
        let state = lock(&self.0.state);
        for (run, sighted) in state.fleet.sightings() {
            let sighting = match sighted {
                Sighted::Queued => Sighting::Queued,
                Sighted::Alive => Sighting::Alive,
                Sighted::CutOff(what) => Sighting::CutOff(what),
                Sighted::Ended => match state.finished.get(&run) {
                    Some(finished) => Sighting::Ended(finished.clone()),
                    None => continue,
                },
            };
            observation.runs.push((run, sighting));
        }
        observation
    }

    /// Why nothing can begin in a pool until a person has looked, if that is so.
    pub(crate) fn problem(&self, pool: &PoolName) -> Option<String> {
        if let Some(missing) = self.0.commands.missing().filter(|_| self.has(pool)) {
            return Some(missing);
        }
        lock(&self.0.state).fleet.problem(pool).map(str::to_owned)
    }

    /// What there is to do by now.
    pub(crate) fn demand(&self, lifecycle: &Lifecycle) {
        let mut demand = Demand { closed: lifecycle.takes_nothing_new(), ..Demand::default() };
        for pool in lifecycle.pools() {
            if pool.room.is_none() {
                demand.here = demand.here + pool.held;
                continue;
            }
            // What waits for the store of files would find an allocation that waits for it.
            let backlog = pool.waiting - pool.stranded + pool.running;
            let waiting_since = pool.waiting_since;
            demand.pools.insert(pool.name.clone(), PoolDemand { backlog, waiting_since, mean_run: None });
        }
        let state = lock(&self.0.state);
        for (name, pool) in &mut demand.pools {
            let lately = state.lately.get(name).filter(|lately| lately.len() >= RUNS_MIN);
            let mean = lately.map(|lately| lately.iter().sum::<f64>() / lately.len() as f64);
            pool.mean_run = mean.or_else(|| state.before.get(name).copied());
        }
        if state.fleet.is_demand(&demand) {
            return;
        }
        drop(state);
        self.tell(|fleet, now| fleet.demand(demand, now));
    }

    /// Is nothing on its way, so that only time or Slurm's queue can change anything?
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.0.state).fleet.is_settled()
    }

    /// All allocations, for people.
    pub(crate) fn shown(&self) -> Vec<ShownAllocation> {
        lock(&self.0.state).fleet.shown()
    }
}
