//! A real node: its files and its executor from `hpc-consumer`, and its keeper, a process of that program.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hpc_consumer::node::{Node, Settings};
use lifecycle::{Effect, Event, Run};
use protocol::{JobId, JobMessage};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use serde_json::Value;
use testkit::{PATIENCE, Process, command, parts, signal};
use tokio::runtime::Runtime;

use crate::plan::{Time, duration};

/// What every job runs: it ends when it is told to, and as it is told to.
const SCRIPT: &str = r#"read -r code < "$GATES/$HPC_QUEUE_RUN"; exit "$code""#;

/// How often a keeper shows that it is alive, and looks after its claims.
const BEAT: Duration = Duration::from_millis(10);

pub(super) struct RealNode {
    home: PathBuf,
    settings: Settings,
    /// What all nodes share, wherever this one sees it.
    shared: PathBuf,
    keeper: Option<Process>,
    daemon: Option<(Runtime, Node)>,
    gates: Vec<File>,
}

impl RealNode {
    /// Node number `n` of those in this directory, with the store behind this edge.
    pub(super) fn new(temp: &Path, n: usize, stale: Time, edge: (String, String)) -> Self {
        let (home, shared) = (temp.join(format!("node{n}")), temp.join("shared"));
        for directory in [&home.join("gates"), &home.join("empty"), &shared] {
            fs::create_dir_all(directory).unwrap();
        }
        let settings = Settings {
            state_dir: home.join("state"),
            results_dir: home.join("results"),
            owner: owner(n),
            stale: duration(stale),
            beat: BEAT,
            command: ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
            environment: vec![("GATES".into(), home.join("gates").into())],
            edge,
        };
        fs::create_dir(&settings.state_dir).unwrap();
        let mut node = Self { home, settings, shared, keeper: None, daemon: None, gates: Vec::new() };
        node.see_results(true);
        node
    }

    /// Has it see what all share, or an empty directory in its place.
    pub(super) fn see_results(&mut self, sees: bool) {
        let (seen, new) = (if sees { self.shared.clone() } else { self.home.join("empty") }, self.home.join("new"));
        symlink(seen, &new).unwrap();
        fs::rename(new, &self.settings.results_dir).unwrap();
    }

    pub(super) fn start_daemon(&mut self) {
        // On a thread of its own, so that what is said to the keeper arrives while the test waits for it.
        let reactor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = Node::new(self.settings.clone());
        reactor.block_on(node.clean());
        self.daemon = Some((reactor, node));
    }

    /// It dies, and its connections with it.
    pub(super) fn kill_daemon(&mut self) {
        if let Some((reactor, node)) = self.daemon.take() {
            drop(node);
            reactor.shutdown_background();
        }
    }

    fn daemon(&mut self) -> &mut (Runtime, Node) {
        self.daemon.as_mut().expect("only a daemon that lives does anything")
    }

    pub(super) fn carry_out(&mut self, effect: Effect, job: &JobMessage, at: Instant) -> Option<Event> {
        if matches!(effect, Effect::Stage(_)) {
            // The world has no cache: all comes from the store.
            let _ = fs::remove_dir_all(self.shared.join(".cache"));
        }
        let (reactor, node) = self.daemon();
        reactor.block_on(node.carry_out(effect, job, at))
    }

    pub(super) fn final_record(&mut self, job_id: &JobId) -> Option<String> {
        let (reactor, node) = self.daemon();
        reactor.block_on(node.final_record(job_id))
    }

    /// What the keeper says next, if it does within this time.
    pub(super) fn hear(&mut self, within: Duration) -> Option<Event> {
        let (reactor, node) = self.daemon.as_mut()?;
        reactor.block_on(async { tokio::time::timeout(within, node.hear()).await }).ok().flatten()
    }

    /// Starts a keeper, and waits until it can be reached.
    pub(super) fn start_keeper(&mut self) {
        let program = parts::program("hpc-consumer");
        let mut command = command(&program, &self.home);
        let keeper =
            Process::start("keeper", command.args(["keeper", "--state-dir"]).arg(&self.settings.state_dir), &self.home);
        let (pid, card) = (keeper.pid(), self.settings.state_dir.join("keeper/keeper.json"));
        soon("the keeper that was started", || {
            let card: Option<Value> = serde_json::from_str(&fs::read_to_string(&card).unwrap_or_default()).ok();
            card.is_some_and(|card| card["pid"] == pid)
        });
        self.keeper = Some(keeper);
    }

    pub(super) fn signal_keeper(&self, what: Signal) {
        if let Some(keeper) = &self.keeper {
            signal(keeper.pid(), what);
        }
    }

    pub(super) fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.kill();
        }
    }

    /// It has nothing more to do, and ends by itself.
    pub(super) fn wait_for_end_of_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.wait(PATIENCE);
        }
    }

    /// Waits until its heart has beaten once more since it was this.
    pub(super) fn wait_for_beat(&self, last: &str) {
        soon("a beat of the heart", || self.heart() != last);
    }

    /// What the keeper wrote last to show that it is alive.
    pub(super) fn heart(&self) -> String {
        let path = self.shared.join(".owners").join(format!("{}.json", self.settings.owner));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until the keeper has written this down of a run: that it `began`, or its `end`.
    pub(super) fn wait_for_line(&self, kind: &str, run: &Run) {
        let (path, line) = (self.settings.state_dir.join("keeper/journal"), format!(r#"{{"{kind}":{{"run":"{run}","#));
        soon("a run in the journal", || fs::read_to_string(&path).is_ok_and(|journal| journal.contains(&line)));
    }

    /// Makes the gate at which a run waits to be told how to end.
    pub(super) fn make_gate(&mut self, run: &Run) {
        let path = self.gate(run);
        match mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            // That of an attempt with the same number, which was never begun.
            Err(rustix::io::Errno::EXIST) => {}
            made => made.unwrap(),
        }
        // Both ends, so that what is written waits for whoever reads.
        let gate = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        self.gates.push(gate.into());
    }

    /// Has a run end with this code.
    pub(super) fn end_run(&self, run: &Run, code: i32) {
        let mut gate = File::options().read(true).write(true).open(self.gate(run)).unwrap();
        writeln!(gate, "{code}").unwrap();
    }

    fn gate(&self, run: &Run) -> PathBuf {
        self.home.join("gates").join(run.to_string())
    }

    /// As after a sudden end of the machine: the journal is of another boot, and these runs are not in it.
    pub(super) fn tear_journal(&self, lost: &[Run]) {
        let path = self.settings.state_dir.join("keeper/journal");
        let Ok(journal) = fs::read_to_string(&path) else { return };
        let mut kept = String::new();
        for line in journal.lines() {
            let mut fields: Value = serde_json::from_str(line).unwrap();
            if let Some(keeper) = fields.get_mut("keeper") {
                keeper["boot_id"] = "an earlier one".into();
            }
            let is_of = |run: &Run| {
                let name = run.to_string();
                ["begin", "began", "end", "cut_off"].iter().any(|kind| fields[kind]["run"] == name.as_str())
            };
            if !lost.iter().any(is_of) {
                kept.push_str(&format!("{fields}\n"));
            }
        }
        fs::write(path, kept).unwrap();
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        self.kill_daemon();
        // A run that has not opened its gate finds none any more; the others end.
        let _ = fs::remove_dir_all(self.home.join("gates"));
        for gate in &mut self.gates {
            let _ = gate.write_all(b"0\n");
        }
        self.kill_keeper();
    }
}

/// A door before the edge, which is shut while the store of files is away.
pub(super) struct Door {
    address: String,
    is_open: Arc<AtomicBool>,
    passing: Arc<Mutex<Vec<TcpStream>>>,
}

impl Door {
    pub(super) fn before(edge: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_open, passing) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (edge, open, streams) = (edge.to_owned(), Arc::clone(&is_open), Arc::clone(&passing));
        thread::spawn(move || {
            for from in listener.incoming().flatten() {
                // Under the lock, so that none gets through while it is being shut.
                let mut streams = streams.lock().unwrap();
                if !open.load(Ordering::Relaxed) {
                    continue;
                }
                let to = TcpStream::connect(&edge).unwrap();
                for (mut from, mut to) in [(&from, &to), (&to, &from)].map(|(from, to)| (copy_of(from), copy_of(to))) {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                streams.extend([from, to]);
            }
        });
        Self { address, is_open, passing }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set_open(&self, is_open: bool) {
        let mut passing = self.passing.lock().unwrap();
        self.is_open.store(is_open, Ordering::Relaxed);
        if !is_open {
            passing.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

fn copy_of(stream: &TcpStream) -> TcpStream {
    stream.try_clone().unwrap()
}

/// Waits for what takes a few milliseconds, thousands of times.
fn soon(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whose claims are those of node number `n`.
pub(super) fn owner(n: usize) -> String {
    format!("owner{n}")
}

/// Who holds a job for which attempt, as the files say it.
pub(super) fn claim_in(temp: &Path, job_id: &JobId) -> Option<(Option<String>, u64)> {
    let directory = temp.join("shared").join(job_id.as_str());
    let meta: Value = serde_json::from_str(&fs::read_to_string(directory.join("meta.json")).ok()?).unwrap();
    let owner = meta["owner"].as_str().unwrap_or_default().to_owned();
    Some((Some(owner).filter(|owner| !owner.is_empty()), meta["attempt"].as_u64().unwrap_or_default()))
}

/// Are the files of a job beside its directory, for node number `n`?
pub(super) fn is_staged(temp: &Path, n: usize, job_id: &JobId) -> bool {
    temp.join("shared/.staging").join(owner(n)).join(job_id.as_str()).exists()
}

/// What is in the file that a job has brought.
pub(super) fn brought(temp: &Path, job_id: &JobId) -> Option<String> {
    fs::read_to_string(temp.join("shared").join(job_id.as_str()).join("in")).ok()
}

/// Is the final record of a job there?
pub(super) fn has_record(temp: &Path, job_id: &JobId) -> bool {
    temp.join("shared").join(format!("{job_id}.json")).exists()
}
