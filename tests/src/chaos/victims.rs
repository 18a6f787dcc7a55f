//! The programs, and what is done to them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::{self, Site};
use super::deaths::Deaths;
use super::{Plan, Runtime, contents, millis, random, services};
use crate::http::{client, send};
use crate::{Consumer, Edge, Ledger, Process, Queue, is_alive, signal};

/// For how long a daemon drains.
const DRAIN: Duration = Duration::from_secs(2);

/// How much longer than [`DRAIN`] it may take to end: its requests are disturbed as well.
const DRAIN_MARGIN: Duration = Duration::from_secs(20);

/// How long a daemon may be without a keeper, and a killed keeper there.
const KEEPER_PATIENCE: Duration = Duration::from_secs(20);

/// How long a keeper without a run is spared.
const RUN_PATIENCE: Duration = Duration::from_millis(500);

/// How long the hub may be behind, once nothing goes wrong any more: a link that was lost comes back within a minute,
/// and what a daemon that was killed had not come to tell is asked for each minute, once it is a minute old. Where no
/// WebSocket got through, each word takes half a minute.
const HUB_PATIENCE: Duration = Duration::from_secs(180);

/// How many lines of the log of a daemon are shown that ended as it should not.
const LAST_LINES: usize = 10;

/// By how much the clock of `local-edge` jumps ahead, in milliseconds, and how often under one plan of faults. Leases
/// of a short chaos lapse at once by it, and none lasts much longer when the clock is right again.
const CLOCK_JUMP_MS: u64 = 6_000;
const CLOCK_JUMPS: u64 = 3;

/// Their names among the victims.
const EDGE: &str = "local-edge";
const ALLOCATED: &str = "keepers in allocations";
const SLURMD: &str = "slurmd alone";
const NODE: &str = "nodes";
const CONTROLLER: &str = "slurmctld";
const INSTANCE: &str = "instances of a service";

/// How long one waits for files to be on their way, to strike in the middle of it.
const TRANSFER_PATIENCE: Duration = Duration::from_millis(300);

/// How long a cluster may have allocations when there is nothing to do any more: what was lost is found out by and by.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(240);

/// How long one waits for an allocation that has runs.
const ALLOCATED_PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than the daemon parts of a cluster are down.
const CLUSTER_DOWN: u32 = 4;

/// Where these draw their numbers; jobs draw from streams with their own, small numbers.
const STREAM: u64 = u64::MAX - 1;

/// All programs of one chaos.
#[derive(Debug)]
pub(super) struct Victims<'a> {
    // In this order: processes end before the directories go that they use.
    cluster: Option<Site>,
    nodes: Vec<Node>,
    edge: Edge,
    /// What looks like an instance of a service and is none, where there are services.
    stranger: Option<Process>,
    has_ended_the_stranger: bool,
    results: TempDir,
    ledger: &'a Ledger,
    seed: u64,
    random: Rng,
    kills: BTreeMap<&'static str, u64>,
    struck: usize,
    drains: u64,
    /// How often the hub was made to forget.
    wipes: u64,
    deaths: Deaths,
    injected: BTreeMap<String, u64>,
    problems: Vec<String>,
    left_in_queue: u64,
    known_to_hub: usize,
    /// How many strikes hit files on their way.
    amid_transfers: u64,
    has_files: bool,
}

#[derive(Debug)]
struct Node {
    daemon: Process,
    consumer: Consumer,
    name: &'static str,
    keeper: &'static str,
    /// What the jobs note of it.
    number: usize,
}

/// What is done to a program.
#[derive(Debug, Clone, Copy)]
enum Deed {
    KillDaemon(usize),
    DrainDaemon(usize, Patience),
    KillKeeper(usize),
    /// Nobody is left then to start another one, and nobody to take over what it kept.
    KillDaemonAndKeeper(usize),
    /// While the next daemon reaches for it, or finds out what it has.
    KillKeeperOfNextDaemon(usize),
    KillEdge,
    /// With or without users.
    KillInstance,
    /// Kills it, and its hub knows nothing any more.
    WipeHub,
    /// One that has runs.
    KillAllocated,
    /// Its jobs go on.
    KillSlurmd(usize),
    /// With all that is on it.
    KillNode(usize),
    KillController,
}

/// Of who ends a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Patient,
    Impatient,
}

/// Even a short chaos does each of these; then the dice decide.
const OPENING: [Deed; 8] = [
    Deed::KillKeeper(0),
    Deed::KillInstance,
    Deed::KillDaemonAndKeeper(1),
    Deed::KillKeeperOfNextDaemon(0),
    Deed::KillDaemon(1),
    Deed::KillEdge,
    Deed::KillKeeper(1),
    Deed::WipeHub,
];

/// The same of a chaos with a cluster.
const OPENING_OF_CLUSTER: [Deed; 8] = [
    Deed::KillAllocated,
    Deed::KillDaemon(0),
    Deed::KillSlurmd(0),
    Deed::KillController,
    Deed::KillNode(1),
    Deed::KillEdge,
    Deed::KillAllocated,
    Deed::WipeHub,
];

impl Deed {
    fn draw_for_cluster(random: &mut Rng) -> Self {
        let (node, dice) = (random.usize(..3), random.u32(..100));
        match dice {
            0..35 => Self::KillDaemon(0),
            35..40 => Self::DrainDaemon(0, Patience::Patient),
            40..43 => Self::DrainDaemon(0, Patience::Impatient),
            43..58 => Self::KillAllocated,
            58..68 => Self::KillSlurmd(node),
            68..74 => Self::KillNode(node),
            74..86 => Self::KillController,
            86..97 => Self::KillEdge,
            _ => Self::WipeHub,
        }
    }

    /// Does it hit files on their way, when there are some?
    fn hits_transfers(self) -> bool {
        matches!(self, Self::KillDaemon(_) | Self::KillDaemonAndKeeper(_) | Self::KillEdge)
    }

    fn draw(random: &mut Rng) -> Self {
        let (victim, dice) = (random.usize(..3), random.u32(..100));
        match dice {
            _ if victim == 2 && dice < 25 => Self::WipeHub,
            _ if victim == 2 => Self::KillEdge,
            // A job that takes long must come to its end, so these are seldom.
            0..6 => Self::KillKeeper(victim),
            6..10 => Self::KillDaemonAndKeeper(victim),
            10..14 => Self::KillKeeperOfNextDaemon(victim),
            14..22 => Self::KillInstance,
            22..80 => Self::KillDaemon(victim),
            80..93 => Self::DrainDaemon(victim, Patience::Patient),
            _ => Self::DrainDaemon(victim, Patience::Impatient),
        }
    }
}

impl<'a> Victims<'a> {
    pub(super) fn start(plan: &Plan, ledger: &'a Ledger) -> Self {
        let edge = Edge::start_with(&["--faults"]);
        let results = tempfile::tempdir().expect("a directory can be made");
        let cluster = (plan.runtime == Runtime::Slurm).then(|| Site::start(plan.seed));
        let node = |number, name, keeper| {
            let consumer = match (plan.runtime, &cluster) {
                (_, Some(cluster)) => cluster.consumer(&edge, ledger),
                (Runtime::Apptainer, None) => ledger.apptainer_node(&edge, number),
                (Runtime::Bare | Runtime::Slurm, None) => ledger.site_node(&edge, number, plan.slots),
            };
            let consumer = consumer
                .set("RESULTS_DIR", results.path())
                .set("MAX_PARALLEL_JOBS", plan.slots.to_string())
                .set("VISIBILITY_TIMEOUT_MS", plan.lease.as_millis().to_string())
                // Longer than a node is ever without a keeper. Beyond that two runs at a time are possible, by design.
                .set("CLAIM_STALE_SECONDS", "10")
                .set("DRAIN_TIMEOUT_SECONDS", DRAIN.as_secs().to_string());
            Node { daemon: consumer.start(), consumer, name, keeper, number }
        };
        let mut nodes = vec![node(1, "daemon 1", "keeper 1")];
        let mut names = vec![EDGE, nodes[0].name];
        if cluster.is_some() {
            names.extend([ALLOCATED, SLURMD, NODE, CONTROLLER]);
        } else {
            nodes.push(node(2, "daemon 2", "keeper 2"));
            names.extend([nodes[1].name, nodes[0].keeper, nodes[1].keeper]);
        }
        names.extend(plan.has_services().then_some(INSTANCE));
        let kills: BTreeMap<&'static str, u64> = names.into_iter().map(|victim| (victim, 0)).collect();
        let victims = Self {
            cluster,
            nodes,
            edge,
            stranger: plan.has_services().then(|| ledger.stranger()),
            has_ended_the_stranger: false,
            results,
            ledger,
            seed: plan.seed,
            random: random(plan.seed, STREAM),
            kills,
            struck: 0,
            drains: 0,
            wipes: 0,
            deaths: Deaths::default(),
            injected: BTreeMap::new(),
            problems: Vec::new(),
            left_in_queue: 0,
            known_to_hub: 0,
            amid_transfers: 0,
            has_files: plan.files_percent > 0,
        };
        victims.set_faults();
        victims
    }

    pub(super) fn edge(&self) -> &Edge {
        &self.edge
    }

    pub(super) fn results_dir(&self) -> &Path {
        self.results.path()
    }

    /// From here on nobody is answered.
    pub(super) fn end_edge(&mut self) {
        self.edge.kill();
    }

    /// How many times something was killed.
    pub(super) fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    pub(super) fn kills_by_victim(&self) -> &BTreeMap<&'static str, u64> {
        &self.kills
    }

    pub(super) fn drains(&self) -> u64 {
        self.drains
    }

    /// How often the hub was made to forget.
    pub(super) fn wipes(&self) -> u64 {
        self.wipes
    }

    /// Waits until the hub has heard of the end of all that it knows, and tells of what it shows that is not so.
    pub(super) fn check_hub(&mut self) {
        let open = || self.hub_jobs("state=unknown,queued,held,running");
        let end = Instant::now() + HUB_PATIENCE;
        while !open().is_empty() && Instant::now() < end {
            thread::sleep(Duration::from_millis(200));
        }
        let all = self.hub_jobs("");
        let wrong: Vec<String> = all.iter().filter_map(|job| self.is_wrong(job)).collect();
        self.known_to_hub = all.len();
        if let Some(first) = wrong.first() {
            self.problems.push(format!("the hub shows {} of {} jobs as they are not: {first}", wrong.len(), all.len()));
        }
    }

    /// How many jobs the hub knew at the end.
    pub(super) fn known_to_hub(&self) -> usize {
        self.known_to_hub
    }

    /// Does the hub show a job in another way than its record tells it?
    fn is_wrong(&self, job: &Value) -> Option<String> {
        let (id, state) = (job["job_id"].as_str()?, job["state"].as_str()?);
        let record = fs::read_to_string(self.results.path().join(format!("{id}.json"))).ok()?;
        let told = protocol::JobResult::parse(&record).map(|result| protocol::JobState::of(&result)).ok()?;
        (told.as_str() != state).then(|| format!("{id} is {told}, and not {state}"))
    }

    /// All jobs that the hub lists.
    fn hub_jobs(&self, filter: &str) -> Vec<Value> {
        let producer = self.edge.producer();
        let (mut jobs, mut after) = (Vec::new(), String::new());
        loop {
            let url = format!("{}/jobs?limit=500&{filter}&after={after}", producer.url);
            let page = send(client().get(url).header("x-api-key", &producer.api_key)).json();
            jobs.extend(page["jobs"].as_array().cloned().unwrap_or_default());
            match page["after"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return jobs,
            }
        }
    }

    /// Was a program ended that no daemon has started?
    pub(super) fn has_ended_the_stranger(&self) -> bool {
        self.has_ended_the_stranger
    }

    /// How many strikes hit files on their way.
    pub(super) fn amid_transfers(&self) -> u64 {
        self.amid_transfers
    }

    /// The version of Slurm that there is.
    pub(super) fn slurm_version(&self) -> Option<&'static str> {
        self.cluster.as_ref().map(Site::version)
    }

    /// Waits until the cluster has no allocation of ours any more, and tells of those that stay.
    pub(super) fn check_cluster(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let end = Instant::now() + CLUSTER_PATIENCE;
        loop {
            let left = cluster.allocations();
            if left.is_empty() {
                return;
            }
            if Instant::now() > end {
                let problem = format!("allocations stay in Slurm although nothing is to be done:\n{left}");
                return self.problems.push(problem);
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// When keepers died.
    pub(super) fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    pub(super) fn injected(&self) -> &BTreeMap<String, u64> {
        &self.injected
    }

    /// What a program did that it never should, whatever happens to it.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// How many messages of jobs were in the queue at the end.
    pub(super) fn left_in_queue(&self) -> u64 {
        self.left_in_queue
    }

    /// The log files of all daemons.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let mut logs = Vec::new();
        for node in &self.nodes {
            let entries = fs::read_dir(node.consumer.home()).expect("the directory of a test can be read");
            let paths = entries.map(|entry| entry.expect("a directory can be read to its end").path());
            logs.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")));
        }
        logs.sort();
        logs
    }

    /// Waits a while, ends one program or two, waits again and starts anew what does not start by itself.
    pub(super) fn strike(&mut self) {
        thread::sleep(millis(&mut self.random, 200..=1_000));
        let (drawn, opening) = match &self.cluster {
            None => (Deed::draw(&mut self.random), &OPENING[..]),
            Some(_) => (Deed::draw_for_cluster(&mut self.random), &OPENING_OF_CLUSTER[..]),
        };
        let (down, amid) = (millis(&mut self.random, 0..=800), self.random.bool());
        let deed = opening.get(self.struck).copied().unwrap_or(drawn);
        self.struck += 1;
        if self.has_files && deed.hits_transfers() {
            let are_some = || contents::are_on_their_way(self.results.path()).then_some(());
            let patience = if amid { TRANSFER_PATIENCE } else { Duration::ZERO };
            self.amid_transfers += u64::from(within(patience, are_some).is_some());
        }
        match deed {
            Deed::KillAllocated => self.kill_allocated(),
            Deed::KillSlurmd(_) | Deed::KillNode(_) | Deed::KillController => self.strike_cluster(deed, down),
            Deed::KillEdge => self.kill_edge(down),
            Deed::KillInstance => self.kill_instance(),
            Deed::WipeHub => {
                self.wipes += 1;
                self.kill_edge_and(down, Edge::forget_hub);
            }
            Deed::KillKeeper(node) => self.kill_keeper(node, self.find_keeper(node)),
            Deed::KillDaemon(node) => self.replace_daemon(node, down, Self::kill_daemon),
            Deed::DrainDaemon(node, patience) => {
                self.replace_daemon(node, down, |victims, node| victims.drain_daemon(node, patience));
            }
            Deed::KillDaemonAndKeeper(node) => self.replace_daemon(node, down, |victims, node| {
                // Looked for first: without its daemon there will be none, should there be none now.
                let keeper = victims.find_keeper(node);
                victims.kill_daemon(node);
                victims.kill_keeper(node, keeper);
            }),
            Deed::KillKeeperOfNextDaemon(node) => {
                self.replace_daemon(node, down, Self::kill_daemon);
                thread::sleep(millis(&mut self.random, 0..=300));
                self.kill_keeper(node, self.find_keeper(node));
            }
        }
    }

    /// Ends a daemon in some way, waits, and starts it anew.
    fn replace_daemon(&mut self, node: usize, down: Duration, end: impl FnOnce(&mut Self, usize)) {
        match self.nodes[node].daemon.wait_within(Duration::ZERO) {
            Some(status) => self.problems.push(self.nodes[node].ended(status, "by itself")),
            None => end(self, node),
        }
        thread::sleep(down);
        let node = &mut self.nodes[node];
        node.daemon = node.consumer.start();
    }

    fn kill_daemon(&mut self, node: usize) {
        self.nodes[node].daemon.kill();
        self.count_kill(self.nodes[node].name);
    }

    fn drain_daemon(&mut self, node: usize, patience: Patience) {
        self.drains += 1;
        self.problems.extend(self.nodes[node].drain(patience));
    }

    /// The process id of a keeper, which is there or about to be started by its daemon.
    fn find_keeper(&self, node: usize) -> Option<u32> {
        within(KEEPER_PATIENCE, || self.nodes[node].consumer.keeper_pid())
    }

    fn kill_keeper(&mut self, node: usize, pid: Option<u32>) {
        let Node { keeper, number, .. } = self.nodes[node];
        let Some(pid) = pid else {
            return self.problems.push(format!("{keeper} was not there within {KEEPER_PATIENCE:?}"));
        };
        // Most shall cut off a run, and at any moment of it.
        within(RUN_PATIENCE, || has_runs(pid).then_some(()));
        thread::sleep(millis(&mut self.random, 0..=20));
        self.deaths.note(number, now());
        signal(pid, Signal::KILL);
        self.count_kill(keeper);
        if within(KEEPER_PATIENCE, || (!is_alive(pid)).then_some(())).is_none() {
            self.problems.push(format!("{keeper}, process {pid}, was killed and is there after {KEEPER_PATIENCE:?}"));
        }
    }

    /// Kills an instance of a service, with its users connected to it or not; nothing if there is none.
    fn kill_instance(&mut self) {
        if self.stranger.is_none() {
            return;
        }
        let all = || Some(services::there(self.ledger)).filter(|all| !all.is_empty());
        let Some(there) = within(services::PATIENCE, all) else { return };
        // Most shall have users, and at any moment of them.
        let used = || Some(services::with_users(self.ledger)).filter(|all| !all.is_empty());
        let all = within(services::USER_PATIENCE, used).unwrap_or(there);
        let instance = &all[self.random.usize(..all.len())];
        thread::sleep(millis(&mut self.random, 0..=50));
        // The numbers of processes come again.
        if services::there(self.ledger).contains(instance) {
            self.deaths.note_instance(instance.node, now());
            signal(instance.pid, Signal::KILL);
            self.count_kill(INSTANCE);
        }
    }

    /// Kills the keeper of an allocation while it has runs; nothing if there is none. One without runs would be taken
    /// for what its pool is to blame for, and the pool would pause.
    fn kill_allocated(&mut self) {
        let state_dir = self.nodes[0].consumer.state_dir();
        let busy = || {
            let mut all = cluster::keepers(&state_dir);
            all.retain(|held| has_runs(held.pid));
            (!all.is_empty()).then_some(all)
        };
        let Some(all) = within(ALLOCATED_PATIENCE, busy) else { return };
        let held = &all[self.random.usize(..all.len())];
        thread::sleep(millis(&mut self.random, 0..=20));
        self.deaths.note(held.number, now());
        signal(held.pid, Signal::KILL);
        self.count_kill(ALLOCATED);
    }

    fn strike_cluster(&mut self, deed: Deed, down: Duration) {
        let state_dir = self.nodes[0].consumer.state_dir();
        let Some(cluster) = &mut self.cluster else { return };
        let victim = match deed {
            Deed::KillSlurmd(node) => {
                cluster.kill_slurmd(node);
                SLURMD
            }
            Deed::KillNode(node) => {
                let at = now();
                let held = cluster.kill_node(node, &state_dir);
                held.iter().for_each(|held| self.deaths.note_within(held.number, at, now()));
                NODE
            }
            _ => {
                for number in cluster.kill_controller(&state_dir) {
                    self.deaths.note_within(number, now(), now() + Site::forgotten_for());
                }
                CONTROLLER
            }
        };
        thread::sleep(down * CLUSTER_DOWN);
        match victim {
            CONTROLLER => cluster.start_controller(),
            _ => cluster.start_nodes(),
        }
        self.count_kill(victim);
    }

    fn count_kill(&mut self, victim: &'static str) {
        *self.kills.entry(victim).or_default() += 1;
    }

    fn kill_edge(&mut self, down: Duration) {
        self.kill_edge_and(down, |_| {});
    }

    fn kill_edge_and(&mut self, down: Duration, then: impl FnOnce(&Edge)) {
        self.count_injected();
        self.edge.kill();
        then(&self.edge);
        self.count_kill(EDGE);
        thread::sleep(down);
        self.edge.restart();
        self.set_faults();
    }

    /// A plan lives as long as the server, so each one gets its own.
    fn set_faults(&self) {
        let number = self.kills.get(EDGE).copied().unwrap_or_default();
        self.edge.set_faults(Some(&faults(random(self.seed, number).u64(..))));
    }

    fn count_injected(&mut self) {
        for (fault, count) in self.edge.injected_faults() {
            *self.injected.entry(fault).or_default() += count;
        }
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn calm_down(&mut self) {
        self.edge.set_faults(None);
        if self.cluster.is_some() {
            // A person would: a pool pauses whose allocations have died before they did anything.
            self.replace_daemon(0, Duration::ZERO, Self::kill_daemon);
        }
    }

    /// Waits until all that is still in the queue of jobs was settled; leases that nobody knows must lapse first.
    pub(super) fn settle(&mut self, lease: Duration) {
        let ahead = Duration::from_millis(CLOCK_JUMP_MS * CLOCK_JUMPS);
        let end = Instant::now() + lease + ahead + Duration::from_secs(30);
        loop {
            self.left_in_queue = self.edge.backlog(Queue::Jobs);
            if self.left_in_queue == 0 || Instant::now() > end {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the daemons as a person does.
    pub(super) fn end(&mut self) {
        for node in &mut self.nodes {
            match node.daemon.wait_within(Duration::ZERO) {
                Some(status) => self.problems.push(node.ended(status, "by itself")),
                None => self.problems.extend(node.drain(Patience::Patient)),
            }
        }
        self.has_ended_the_stranger = self.stranger.as_mut().is_some_and(|stranger| !stranger.is_running());
        self.count_injected();
    }
}

impl Node {
    /// Drains the daemon, and tells if that did not go as it should.
    fn drain(&mut self, patience: Patience) -> Option<String> {
        self.daemon.terminate();
        if patience == Patience::Impatient {
            thread::sleep(Duration::from_millis(50));
            self.daemon.terminate();
        }
        let Some(status) = self.daemon.wait_within(DRAIN + DRAIN_MARGIN) else {
            self.daemon.kill();
            return Some(format!("{} did not end within {:?} of SIGTERM", self.name, DRAIN + DRAIN_MARGIN));
        };
        // One that has just been started may not listen to signals yet, and is killed by this one.
        let killed = status.signal() == Some(Signal::TERM.as_raw());
        (!status.success() && !killed).then(|| self.ended(status, "on SIGTERM"))
    }

    fn ended(&self, status: ExitStatus, how: &str) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
        format!("{} ended {how} with {status}:\n    {last}", self.name)
    }
}

/// What is found within this time, if anything is.
fn within<T>(bound: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() > bound {
            return found;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Is a process the parent of others?
fn has_runs(keeper: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{keeper}/task")) else { return false };
    let children = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    children.flatten().any(|children| !children.is_empty())
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A plan in which every kind of trouble comes now and then.
fn faults(seed: u64) -> Value {
    json!({"seed": seed, "rules": [
        {"fault": "delay", "milliseconds": 150, "probability": 0.05},
        {"fault": "drop_request", "probability": 0.02},
        {"fault": "drop_response", "probability": 0.03},
        {"fault": "too_many_requests", "probability": 0.01},
        {"fault": "server_error", "probability": 0.01},
        {"fault": "server_error", "status": 502, "done": true, "probability": 0.01},
        {"fault": "garbage", "probability": 0.01},
        {"fault": "garbage", "done": true, "probability": 0.01},
        {"fault": "duplicate_delivery", "probability": 0.1},
        {"fault": "reorder", "probability": 0.3},
        {"fault": "disk_full", "probability": 0.01},
        // A daemon that is told so looks again after half a minute, so this comes seldom.
        {"fault": "paused", "operations": ["pull"], "probability": 0.003, "count": 3},
        // Messages of jobs that run or wait come to the other daemon as well.
        {"fault": "clock_jump", "milliseconds": CLOCK_JUMP_MS, "probability": 0.003, "count": CLOCK_JUMPS},
    ]})
}
