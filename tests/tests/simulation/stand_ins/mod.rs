//! The stand-ins of the simulation are held against the real thing: the same operations, drawn at random, on two nodes
//! of the world ([`crate::files`], [`crate::keeper`]) and on two real ones in a temporary directory, with real keepers
//! and real processes. After each of them what became of it is compared, in the types of `lifecycle`, and what stands
//! in `RESULTS_DIR`.
//!
//! The store of files is that of a real `local-edge`, which all histories share, behind a door of each that is shut
//! while the store is away. What has come stays in no cache, of which the world knows nothing.
//!
//! Time is the world's: it passes only when an operation says so, and then every heart that can beat has beaten. How a
//! run ends is drawn, and told to both. Texts for people are not compared, and final records by what they say of the
//! job; each of them must stay the same from then on.
//!
//! Out of scope: a full disk, and runs that are killed without a word, which only a container's runtime brings about.

mod carry_out;
mod draw;
#[expect(clippy::unwrap_used, reason = "all of it is test")]
mod real;
mod same;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use lifecycle::{Entry, Fact, Failures, Finished, Run, RunEnd};
use protocol::JobId;
use testkit::Edge;
use testkit::files::{Asked as _, Content};

use self::draw::Operation;
use self::real::{Door, RealNode};
use crate::plan::{Job, Plan, SECOND, START};
use crate::sites::Asks;
use crate::transfers::{CONTENT, SPOILED, Wants};
use crate::world::World;

/// How many histories there are, and how many operations in each.
const HISTORIES: u64 = 96;
const OPERATIONS: usize = 60;

/// How many of them are told at the same time.
const AT_ONCE: usize = 4;

/// What must have come of some operation.
const OUTCOMES: [&str; 23] = [
    "Ours(Attempt(1))",
    "Ours(Attempt(3))",
    "Elsewhere",
    "cannot be claimed",
    "has ended: lost",
    "given up: true",
    "given up: false",
    "goes on",
    "was cut off",
    "was not started",
    "EndedBy",
    "recorded: completed",
    "recorded: lost",
    "recorded: infrastructure",
    "failed by the node",
    "cannot be concluded",
    "was taken over",
    "files: here",
    "files: refused",
    "files: away",
    "has outputs to send",
    "outputs: sent",
    "outputs: away",
];

/// Two nodes share the files.
const NODES: usize = 2;

/// Fine, or what differs.
type Same<T = ()> = Result<T, String>;

/// What a daemon knows of a run that was launched.
#[derive(Debug, Clone)]
enum Known {
    /// It is not begun.
    Ready,
    Begun,
    /// How it ended, in the world and for real.
    Ended(Box<Finished>, Box<Finished>),
    CutOff,
}

/// What a daemon knows that lives.
#[derive(Debug, Default)]
struct Daemon {
    /// Has a probe passed? Before that nothing is taken.
    ready: bool,
    connected: bool,
    /// Is the keeper to be told that its list is complete?
    incomplete: bool,
    runs: BTreeMap<Run, Known>,
    /// Runs that the keeper has and nobody needs, and whether they go on.
    strays: BTreeMap<Run, bool>,
    /// Runs of which it was said that their outputs are to be sent.
    to_upload: BTreeSet<Run>,
}

struct Pair<'a> {
    temp: &'a Path,
    door: Door,
    world: World,
    real: Vec<RealNode>,
    daemons: Vec<Option<Daemon>>,
    begun: Instant,
    rng: Rng,
    /// The final records, in the world and for real.
    records: BTreeMap<JobId, (String, String)>,
    /// Jobs that a daemon has lost from its state.
    lost: Vec<JobId>,
    /// What is to happen next, before anything is drawn.
    next: Vec<Operation>,
    history: Vec<String>,
}

/// How many jobs there are.
const JOBS: usize = 8;

/// A job that may be retried or not, may be run again or not, one whose message cannot be read, and such with files:
/// which are there, are gone, or are something else.
fn job(no: usize) -> Job {
    let all = Wants::ALL;
    let (retries, rerunnable, readable, wants) = [
        (0, true, true, Wants::NOTHING),
        (2, false, true, Wants::NOTHING),
        (1, false, true, Wants::NOTHING),
        (0, true, false, Wants::NOTHING),
        (1, true, true, all),
        (0, false, true, all),
        (0, true, true, Wants::GONE),
        (0, true, true, Wants::WRONG),
    ][no];
    let job_id = format!("job{no}").parse().expect("it is a short word");
    Job { job_id, lasts: SECOND, retries, rerunnable, readable, asks: Asks::NOTHING, wants, sent: vec![START] }
}

impl<'a> Pair<'a> {
    fn new(temp: &'a Path, seed: u64, edge: &Edge) -> Self {
        let plan = Plan::still(NODES, 10, (0..JOBS).map(job).collect());
        let door = Door::before(&edge.address());
        let store = (door.url(), edge.setting("SITE_KEY").to_owned());
        let real = (0..NODES).map(|n| RealNode::new(temp, n, plan.stale, store.clone())).collect();
        Self {
            temp,
            door,
            real,
            daemons: (0..NODES).map(|_| None).collect(),
            begun: Instant::now(),
            rng: Rng::with_seed(seed),
            records: BTreeMap::new(),
            lost: Vec::new(),
            next: Vec::new(),
            history: Vec::new(),
            world: World::still(plan),
        }
    }

    fn run(&mut self) -> Same {
        // As every daemon begins: RESULTS_DIR is there then.
        for n in 0..NODES {
            for first in [Operation::DaemonComes(n), Operation::Probe(n), Operation::Observe(n)] {
                self.happen(first)?;
            }
        }
        for _ in 0..OPERATIONS {
            let next = self.next.pop().unwrap_or_else(|| self.draw());
            self.happen(next)?;
        }
        Ok(())
    }

    fn happen(&mut self, operation: Operation) -> Same {
        self.history.push(format!("{operation:?}"));
        self.carry_out(operation)?;
        for n in 0..NODES {
            let (said, heard) = (self.world.said_to(n), self.real[n].hear(Duration::ZERO));
            if let Some(first) = said.first() {
                return Err(format!("the keeper of the world says to {n}, and nobody asked: {first:?}"));
            }
            if let Some(heard) = heard {
                return Err(format!("the real keeper says to {n}, and that of the world does not: {heard:?}"));
            }
        }
        self.same_files()
    }

    fn note(&mut self, what: &str) {
        if let Some(last) = self.history.last_mut() {
            last.push_str(" => ");
            last.push_str(what);
        }
    }

    fn daemon(&mut self, n: usize) -> &mut Daemon {
        self.daemons[n].as_mut().expect("only a daemon that lives does anything")
    }

    fn is_connected(&self, n: usize) -> bool {
        self.daemons[n].as_ref().is_some_and(|daemon| daemon.connected)
    }

    fn number(&self, job_id: &JobId) -> usize {
        self.world.plan.jobs.iter().position(|job| job.job_id == *job_id).expect("it was submitted")
    }

    fn failures(&self, n: usize, run: &Run) -> Failures {
        self.world.nodes[n].book.entry(&run.job_id).map(|entry| entry.failures).unwrap_or_default()
    }

    fn is_fact(&mut self, n: usize, fact: Fact) {
        self.world.nodes[n].book.apply(&fact);
    }
}

fn run_of(entry: &Entry) -> Option<Run> {
    Some(Run { job_id: entry.job_id.clone(), attempt: entry.attempt? })
}

/// A run that was ended before its time was cut off.
fn ended(world: Box<Finished>, real: Box<Finished>) -> Known {
    if matches!(world.end, RunEnd::EndedBy(_)) { Known::CutOff } else { Known::Ended(world, real) }
}

/// One history; a difference ends the test with all that happened before it.
fn history(seed: u64, edge: &Edge) -> Vec<String> {
    let temp = tempfile::tempdir().expect("a directory can be made");
    let mut pair = Pair::new(temp.path(), seed, edge);
    if let Err(what) = pair.run() {
        let history = pair.history.join("\n");
        panic!("{history}\nseed {seed}: {what}\nto see it again: HPC_QUEUE_STAND_IN_SEEDS={seed}");
    }
    pair.history
}

/// `HPC_QUEUE_STAND_IN_SEEDS=7` tells one of them again.
#[test]
fn the_stand_ins_do_as_the_real_files_and_the_real_keeper_do() {
    let edge = Edge::start();
    edge.put_all(&Content::of(CONTENT));
    let spoiled = Content::of(SPOILED);
    edge.put_all(&spoiled);
    let piece = edge.piece_of(&spoiled.sha256).expect("the store has it as one piece");
    fs::write(piece, SPOILED.replace('s', "S")).expect("it can be written to");
    if let Ok(seed) = std::env::var("HPC_QUEUE_STAND_IN_SEEDS") {
        println!("{}", history(seed.parse().expect("HPC_QUEUE_STAND_IN_SEEDS is a number"), &edge).join("\n"));
        return;
    }
    // They mostly wait for processes.
    let told: Vec<String> = std::thread::scope(|scope| {
        let edge = &edge;
        let tell = move |seed| history(seed, edge);
        let some = |first| move || (first..HISTORIES).step_by(AT_ONCE).flat_map(tell).collect::<Vec<_>>();
        let threads: Vec<_> = (0..AT_ONCE as u64).map(|first| scope.spawn(some(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it tells what differs")).collect()
    });
    let count = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    println!("{} operations: {:?}", told.len(), OUTCOMES.map(|outcome| (outcome, count(outcome))));
    // What never happens proves nothing.
    for outcome in OUTCOMES {
        assert!(count(outcome) > 0, "in no history: {outcome}");
    }
}
