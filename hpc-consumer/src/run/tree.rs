//! The processes of one run: which they are, and which of them are the job's.
//!
//! The keeper is a subreaper, so every process of its runs descends from it. One belongs to a run when it descends from
//! its first process, is in its group or session, or carries its token, or descends from an orphan that does. An orphan
//! that tells nothing of itself belongs to the last run that ends, because then there is no other that could have left
//! it; until then it is only told of.
//!
//! In a container, what is in a PID namespace of its own is the job's; the rest wraps it: apptainer's own process, and
//! helpers that serve the image. They are not told of signals, and live for as long as the job does.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;
pub(super) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::process::Child;

use super::children;
use super::ending::Seen;
use super::footprint::Watch;
use super::proc::{self, FirstProcess, Namespace, Process, descends};
use super::token::Token;

/// The processes of one run.
pub(super) struct Tree {
    first: FirstProcess,
    token: Token,
    /// Is there a container around the job?
    contained: bool,
    first_ended: bool,
    /// The last look has found that there are no orphans at all.
    no_orphans: bool,
    /// Processes that are not ours to end: they have taken on another user's rights.
    refused: BTreeSet<i32>,
}

impl Tree {
    /// The tree of a child that was started with this token, as the leader of its own process group.
    pub(super) fn of(child: &Child, token: Token, contained: bool) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        let first = FirstProcess { pid, started: proc::started_at(pid) };
        Self { first, token, contained, first_ended: false, no_orphans: false, refused: BTreeSet::new() }
    }

    /// Its first process.
    pub(super) fn first(&self) -> FirstProcess {
        self.first
    }

    /// The watch on the memory that it uses, if there is a limit for that.
    pub(super) fn watch(&self, limit: Option<u64>) -> Watch {
        Watch::new(limit, self.first, self.token)
    }

    /// The first process has ended and is not a child of ours any more.
    pub(super) fn first_has_ended(&mut self) {
        self.first_ended = true;
    }

    /// Sends a signal to processes, each of which may have ended meanwhile.
    pub(super) fn signal(&mut self, signal: Signal, pids: &[i32]) {
        let refused = send(signal, pids);
        if !refused.is_empty() {
            tracing::warn!("processes of a run have another user's rights and are not ours to end: {refused:?}");
            self.refused.extend(refused);
        }
    }

    /// All that is alive of the run.
    pub(super) fn look(&mut self) -> Seen {
        // Once its first process is gone, whatever is left of a run is, or descends from, an orphan of ours.
        self.no_orphans = self.first_ended && children::orphans().is_some_and(|orphans| orphans.is_empty());
        if self.no_orphans || self.first.pid <= 1 {
            return Seen::default();
        }
        let mut seen = Seen::default();
        for pid in self.alive(&proc::processes()) {
            if !self.contained {
                seen.job.push(pid);
                continue;
            }
            match proc::namespace(pid) {
                Namespace::Within => seen.job.push(pid),
                Namespace::Init => seen.init.push(pid),
                Namespace::Ours if pid == self.first.pid => seen.first = Some(pid),
                Namespace::Ours => seen.helpers.push(pid),
            }
        }
        seen
    }

    /// Orphans of which nobody can tell whose they are, for as long as others run.
    pub(super) fn unknown(&self) -> Vec<i32> {
        if self.no_orphans {
            return Vec::new();
        }
        let orphans = children::orphans().unwrap_or_default();
        orphans.into_iter().filter(|&pid| Token::carried_by(pid).is_none()).collect()
    }

    fn alive(&self, processes: &BTreeMap<i32, Process>) -> Vec<i32> {
        // Should the number of the first process have gone to another one meanwhile, it leads nothing of ours.
        let first = processes.get(&self.first.pid);
        let leads = first.is_none_or(|first| first.started == self.first.started);
        let led = |pid: i32, process: &Process| {
            let leader = self.first.pid;
            process.started >= self.first.started
                && (process.group == leader || process.session == leader || descends(processes, pid, |at| at == leader))
        };
        let left: BTreeSet<i32> = match children::orphans() {
            Some(orphans) => {
                let is_last = !children::any_known();
                let is_ours = |pid| Token::carried_by(pid).map_or(is_last, |token| token == self.token);
                orphans.into_iter().filter(|&pid| is_ours(pid)).collect()
            }
            // They have gone elsewhere, and are looked for everywhere.
            None => {
                let young = processes.iter().filter(|(_, process)| process.started >= self.first.started);
                let pids = young.map(|(&pid, _)| pid);
                pids.filter(|&pid| Token::carried_by(pid) == Some(self.token)).collect()
            }
        };
        let is_ours = |pid: i32, process: &Process| {
            (leads && led(pid, process)) || descends(processes, pid, |at| left.contains(&at))
        };
        let alive = processes.iter().filter(|&(pid, process)| !process.zombie && !self.refused.contains(pid));
        alive.filter(|&(&pid, process)| is_ours(pid, process)).map(|(&pid, _)| pid).collect()
    }
}

/// Sends a signal to processes, each of which may have ended meanwhile. Returns those that it may not be sent to.
pub(super) fn send(signal: Signal, pids: &[i32]) -> Vec<i32> {
    let refuses = |pid: i32| Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal) == Err(Errno::PERM));
    pids.iter().copied().filter(|&pid| refuses(pid)).collect()
}
