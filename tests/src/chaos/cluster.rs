//! A real Slurm with pools in it, and what is done to it.
//!
//! Who dies is known by the name of the allocation: a run notes in which one it was (see [`allocation_number`]), and
//! the keeper of each has its name in its command line. So what a death excuses is told for each run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::slurm::{Cluster, Slurm, VERSIONS};
use crate::{Consumer, Edge, Ledger, allocation_number, is_alive, words_of};

/// The pool whose jobs have an allocation each.
pub(super) const ONCE: &str = "once";

/// How many nodes there are.
const NODES: usize = 3;

/// A controller that is killed may not have written down what it took within so long, and has what it does not know
/// ended when the node tells of it.
const UNWRITTEN: Duration = Duration::from_secs(15);
const ORPHANS_END_WITHIN: Duration = Duration::from_secs(120);

/// What the daemon may say that cut off a run, of all rows of the table in docs/slurm.md: this chaos does nothing that
/// leads to another.
const ENDS: [&str; 7] = [
    "its keeper was killed by signal 9",
    "its keeper did not end well",
    "was lost with a node of it",
    "could not be launched",
    "is gone: Slurm does not know it any more",
    // Seen: a controller that was killed begins what it has forgotten to have begun.
    "ended without a word of its keeper",
    // Seen as well: what it has forgotten its nodes end, and a keeper that is told so ends its runs.
    "ended with the Slurm job that it ran in",
];

/// The cluster.
#[derive(Debug)]
pub(super) struct Site {
    slurm: Slurm,
    /// In which of its nodes the daemon of that place is down.
    down: Vec<bool>,
}

/// A keeper in an allocation.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Its process.
    pub(super) pid: u32,
    /// What its runs note.
    pub(super) number: usize,
    /// Where it is.
    node: Option<String>,
}

impl Site {
    /// One of several nodes, of a version that the seed decides.
    pub(super) fn start(seed: u64) -> Self {
        let version = VERSIONS[usize::from(seed % 2 == 1)];
        // Nodes that are down for a moment are not given up; those that are killed are, when they come back.
        Self { slurm: Cluster::new(version).nodes(NODES).start(), down: vec![false; NODES] }
    }

    /// A daemon that has two pools there: one of workers, and one in which each job has its own allocation.
    pub(super) fn consumer(&self, edge: &Edge, ledger: &Ledger) -> Consumer {
        let path = self.slurm.directory().join("site.toml");
        let pool = |name: &str, more: &str, workers: &str| {
            let words = ledger.words_in_allocations();
            format!(
                "[pool.{name}]\nruntime = \"bare\"\ncommand = {words:?}\nwhere = \"slurm\"\n\
                 slot = {{ cpus = 1, memory = \"50MiB\" }}\nslurm = {{ time = \"60m\" }}\nworkers = {{ {workers} }}\n{more}\n"
            )
        };
        let workers = pool("cpu", "default = true", "max = 3, slots = 3, idle = \"3s\"");
        let text = workers + &pool(ONCE, "", "max = 3, once = true");
        fs::write(&path, text).expect("the directory of a test can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let consumer = Consumer::of_site(edge, &path).set("BARE_WRITABLE", ledger.writable());
        self.slurm.environment().into_iter().fold(consumer, |consumer, (name, value)| consumer.set(name, value))
    }

    /// The version of it.
    pub(super) fn version(&self) -> &'static str {
        self.slurm.version()
    }

    /// Kills the daemon of a node; what it has started goes on.
    pub(super) fn kill_slurmd(&mut self, node: usize) {
        self.slurm.kill_daemon_of(&self.slurm.nodes()[node]);
        self.down[node] = true;
    }

    /// Kills a node with all that is on it. Returns the keepers that were there.
    pub(super) fn kill_node(&mut self, node: usize, state_dir: &Path) -> Vec<Held> {
        let name = self.slurm.nodes()[node].clone();
        let held: Vec<Held> =
            keepers(state_dir).into_iter().filter(|held| held.node.as_ref().is_none_or(|at| *at == name)).collect();
        self.slurm.kill_node(&name);
        self.down[node] = true;
        held
    }

    /// Kills the controller. Returns the numbers of the allocations that it may have forgotten.
    pub(super) fn kill_controller(&self, state_dir: &Path) -> Vec<usize> {
        let young = |folder: &PathBuf| {
            let written = fs::metadata(folder.join("order.json")).and_then(|metadata| metadata.modified());
            written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < UNWRITTEN))
        };
        self.slurm.stop_controller(Signal::KILL);
        folders(state_dir).iter().filter(|folder| young(folder)).filter_map(|folder| number_of(folder)).collect()
    }

    /// For how long such an allocation may come to its end by that.
    pub(super) fn forgotten_for() -> Duration {
        ORPHANS_END_WITHIN
    }

    pub(super) fn start_controller(&self) {
        self.slurm.start_controller();
    }

    /// Starts the daemons of nodes that are down.
    pub(super) fn start_nodes(&mut self) {
        for (name, down) in self.slurm.nodes().iter().zip(&mut self.down) {
            if std::mem::take(down) {
                self.slurm.start_node(name);
            }
        }
    }

    /// What is there of allocations, as Slurm says it; none is an empty text.
    pub(super) fn allocations(&self) -> String {
        let states = "PENDING,RUNNING,COMPLETING,SUSPENDED,CONFIGURING";
        self.slurm.ask("squeue", &["-h", "-r", "-t", states, "-o", "%i %j %T %N %r"])
    }
}

/// The keepers in allocations that live.
pub(super) fn keepers(state_dir: &Path) -> Vec<Held> {
    let held = |folder: PathBuf| {
        let claim: Value = serde_json::from_str(&fs::read_to_string(folder.join("claim")).ok()?).ok()?;
        let pid = claim["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
        // The numbers of processes come again.
        let is_it = is_alive(pid) && words_of(pid).iter().any(|word| Path::new(word) == folder);
        let number = number_of(&folder)?;
        is_it.then(|| Held { pid, number, node: node_of(pid) })
    };
    folders(state_dir).into_iter().filter_map(held).collect()
}

/// The end of an allocation of which a line tells; none if it is not one that this chaos leads to.
pub(super) fn end_in(line: &str) -> Option<&'static str> {
    ENDS.into_iter().find(|end| line.contains(end))
}

fn folders(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir.join("slurm")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn number_of(folder: &Path) -> Option<usize> {
    folder.file_name()?.to_str().map(allocation_number)
}

/// On which node a process is, as Slurm has told it.
fn node_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let name = variables.find_map(|variable| variable.strip_prefix(b"SLURMD_NODENAME="))?;
    Some(String::from_utf8_lossy(name).into_owned())
}
