//! The programs, and what is done to them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Plan, Runtime, millis, random};
use crate::{Consumer, Edge, Ledger, Process, Queue};

/// For how long a daemon drains.
const DRAIN: Duration = Duration::from_secs(2);

/// How much longer than [`DRAIN`] it may take to end: its requests are disturbed as well.
const DRAIN_MARGIN: Duration = Duration::from_secs(20);

/// How many lines of the log of a daemon are shown that ended as it should not.
const LAST_LINES: usize = 10;

/// By how much the clock of `local-edge` jumps ahead, in milliseconds, and how often under one plan of faults. Leases
/// of a short chaos lapse at once by it, and none lasts much longer when the clock is right again.
const CLOCK_JUMP_MS: u64 = 6_000;
const CLOCK_JUMPS: u64 = 3;

/// Where these draw their numbers; jobs draw from streams with their own, small numbers.
const STREAM: u64 = u64::MAX - 1;

/// All programs of one chaos.
#[derive(Debug)]
pub(super) struct Victims {
    // In this order: processes end before the directories go that they use.
    nodes: [Node; 2],
    edge: Edge,
    results: TempDir,
    seed: u64,
    random: Rng,
    kills: BTreeMap<&'static str, u64>,
    drains: u64,
    injected: BTreeMap<String, u64>,
    problems: Vec<String>,
    left_in_queue: u64,
}

#[derive(Debug)]
struct Node {
    daemon: Process,
    consumer: Consumer,
    name: &'static str,
}

impl Victims {
    pub(super) fn start(plan: &Plan, ledger: &Ledger) -> Self {
        let edge = Edge::start_with(&["--faults"]);
        let results = tempfile::tempdir().expect("a directory can be made");
        let node = |name| {
            let consumer = match plan.runtime {
                Runtime::Bare => ledger.bare(&edge),
                Runtime::Apptainer => ledger.apptainer(&edge),
            };
            let consumer = consumer
                .set("RESULTS_DIR", results.path())
                .set("MAX_PARALLEL_JOBS", plan.slots.to_string())
                .set("VISIBILITY_TIMEOUT_MS", plan.lease.as_millis().to_string())
                .set("CLAIM_STALE_SECONDS", "5")
                .set("DRAIN_TIMEOUT_SECONDS", DRAIN.as_secs().to_string());
            Node { daemon: consumer.start(), consumer, name }
        };
        let nodes = [node("daemon 1"), node("daemon 2")];
        let victims = Self {
            nodes,
            edge,
            results,
            seed: plan.seed,
            random: random(plan.seed, STREAM),
            kills: BTreeMap::from([("daemon 1", 0), ("daemon 2", 0), ("local-edge", 0)]),
            drains: 0,
            injected: BTreeMap::new(),
            problems: Vec::new(),
            left_in_queue: 0,
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

    /// Waits a while, ends one program, waits again and starts it anew.
    pub(super) fn strike(&mut self) {
        thread::sleep(millis(&mut self.random, 200..=1_000));
        let (victim, deed, down) = (self.random.u32(..3), self.random.u32(..100), millis(&mut self.random, 0..=800));
        // Even a short chaos kills each of them; then the dice decide.
        let (victim, deed) = match self.kills() {
            kills @ 0..3 => (kills, 0),
            _ => (u64::from(victim), deed),
        };
        match victim {
            0 => self.strike_node(0, deed, down),
            1 => self.strike_node(1, deed, down),
            _ => self.kill_edge(down),
        }
    }

    fn strike_node(&mut self, index: usize, deed: u32, down: Duration) {
        let node = &mut self.nodes[index];
        if let Some(status) = node.daemon.wait_within(Duration::ZERO) {
            self.problems.push(node.ended(status, "by itself"));
        } else if deed < 75 {
            node.daemon.kill();
            *self.kills.entry(node.name).or_default() += 1;
        } else {
            self.drains += 1;
            self.problems.extend(node.drain(deed >= 92));
        }
        thread::sleep(down);
        node.daemon = node.consumer.start();
    }

    fn kill_edge(&mut self, down: Duration) {
        self.count_injected();
        self.edge.kill();
        *self.kills.entry("local-edge").or_default() += 1;
        thread::sleep(down);
        self.edge.restart();
        self.set_faults();
    }

    /// A plan lives as long as the server, so each one gets its own.
    fn set_faults(&self) {
        let number = self.kills.get("local-edge").copied().unwrap_or_default();
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
                None => self.problems.extend(node.drain(false)),
            }
        }
        self.count_injected();
    }
}

impl Node {
    /// Drains the daemon, and tells if that did not go as it should.
    fn drain(&mut self, impatiently: bool) -> Option<String> {
        self.daemon.terminate();
        if impatiently {
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
