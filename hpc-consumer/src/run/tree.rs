//! The processes of one run, found in `/proc`.
//!
//! A process belongs to the run when it descends from its first process, is in its process group or session, or
//! carries the run's marks in its environment. The last catches what has left by double fork and `setsid`. A process
//! that has also replaced its environment is told from those of other runs only once no other run is alive (in a
//! container there is no such process: the kernel ends a PID namespace whole).

use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::Child;

use super::children;

/// Killing needs more than one look: a process may start another between the look and the signal.
const LOOKS_MAX: u32 = 200;

/// Between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The first process of a run. Its number alone may be given to another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstProcess {
    pub(crate) pid: i32,
    /// In clock ticks since the machine started.
    pub(crate) started: u64,
}

/// The processes of one run.
pub(super) struct Tree {
    root: i32,
    /// When the first process started; nothing of the run is older.
    started: u64,
    /// Variables that every process of the run was started with, as they stand in `/proc/PID/environ`.
    marks: Vec<Vec<u8>>,
}

/// A line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) zombie: bool,
    /// In clock ticks since the machine started.
    pub(super) started: u64,
}

impl Tree {
    /// The tree of a child that was started as the leader of its own process group.
    pub(super) fn of(child: &Child, marks: &[(String, String)]) -> Self {
        let root = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        Self { root, started: started_at(root), marks: as_in_environ(marks) }
    }

    /// Its first process.
    pub(super) fn first(&self) -> FirstProcess {
        FirstProcess { pid: self.root, started: self.started }
    }

    /// Sends a signal to every process of the run.
    pub(super) fn signal(&self, signal: Signal) {
        send(signal, &self.alive());
    }

    /// Kills every process of the run, and those that they start meanwhile, until none is left.
    pub(super) async fn kill_until_gone(&self) {
        for _ in 0..LOOKS_MAX {
            // Once its first process is gone, whatever is left of a run is, or descends from, an orphan of ours.
            if children::orphans().is_some_and(|orphans| orphans.is_empty()) {
                return;
            }
            if self.alive().is_empty() {
                return;
            }
            self.signal(Signal::KILL);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        tracing::warn!("some processes of a run do not end: {:?}", self.alive());
    }

    fn alive(&self) -> Vec<i32> {
        if self.root <= 1 {
            return Vec::new();
        }
        let processes = processes();
        // Should the number of the first process have gone to another one meanwhile, it leads nothing of ours.
        let reused = processes.get(&self.root).is_some_and(|root| root.started != self.started);
        let led = |pid: i32, process: &Process| {
            let known = process.group == self.root
                || process.session == self.root
                || descends(&processes, pid, |at| at == self.root);
            known && process.started >= self.started
        };
        let alive = processes.iter().filter(|(_, process)| !process.zombie);
        let orphans = if children::any_known() { None } else { children::orphans() }.unwrap_or_default();
        let left_over = |pid| descends(&processes, pid, |at| orphans.contains(&at));
        let ours =
            alive.filter(|&(&pid, process)| (!reused && led(pid, process)) || self.is_marked(pid) || left_over(pid));
        ours.map(|(&pid, _)| pid).collect()
    }

    fn is_marked(&self, pid: i32) -> bool {
        if self.marks.is_empty() {
            return false;
        }
        let environment = environment(pid);
        let variables: Vec<&[u8]> = variables(&environment).collect();
        self.marks.iter().all(|mark| variables.contains(&mark.as_slice()))
    }
}

/// Does this very process run? One that has ended and only waits to be noticed does not.
pub(crate) fn is_running(first: FirstProcess) -> bool {
    process(first.pid).is_some_and(|process| !process.zombie && process.started == first.started)
}

/// When a process started, in clock ticks since the machine did; 0 when there is no such process.
pub(crate) fn started_at(pid: i32) -> u64 {
    process(pid).map_or(0, |process| process.started)
}

/// Sends a signal to processes, each of which may have ended meanwhile.
pub(super) fn send(signal: Signal, pids: &[i32]) {
    for pid in pids.iter().filter_map(|&pid| Pid::from_raw(pid)) {
        let _ = kill_process(pid, signal);
    }
}

pub(super) fn as_in_environ(marks: &[(String, String)]) -> Vec<Vec<u8>> {
    marks.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

/// The environment that a process was started with. One that cannot be read is of another user, and so not ours.
pub(super) fn environment(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

pub(super) fn variables(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    environment.split(|byte| *byte == 0)
}

/// Is the process, or one that it descends from, among the roots?
pub(super) fn descends(processes: &BTreeMap<i32, Process>, mut pid: i32, is_root: impl Fn(i32) -> bool) -> bool {
    // Bounded, because the parents were read one after the other and may not be a tree.
    for _ in 0..processes.len() {
        if is_root(pid) {
            return true;
        }
        match processes.get(&pid) {
            Some(process) if process.parent > 1 => pid = process.parent,
            _ => return false,
        }
    }
    false
}

/// Every process of the machine that can be seen.
pub(super) fn processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state parent group session …`; the name may hold anything, closing brackets too.
fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // The start is field 22, and the session was field 6.
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { parent, group, session, zombie: matches!(state, "Z" | "X"), started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let process = parse_stat("12 (a) S 9) ) Z 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 5000").unwrap();
        assert_eq!((process.parent, process.group, process.session, process.zombie), (1, 2, 3, true));
        assert_eq!(process.started, 4711);
        assert!(parse_stat("12 (a) S").is_none());
    }
}
