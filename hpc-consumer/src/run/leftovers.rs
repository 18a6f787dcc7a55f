//! What is left of runs whose keeper has died: their processes have no parent that watches them any more.
//!
//! A process is killed only when it is proven to be of such a run: it is the first process, known by its number and the
//! time of its start, or in its group or session, or it carries the token of the run (or, if an earlier version has
//! begun it, all of its marks in the environment), or it descends from such a process. Numbers alone prove nothing:
//! they may be another program's by now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::proc::{self, FirstProcess, Process};
use super::token::Token;
use super::tree::{Signal, send};

/// How long killing may take; a process that hangs in the kernel does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks: a process may start another between a look and the signal.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A run whose keeper has died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// What its processes were started with, its token among it.
    pub(crate) marks: Vec<(String, String)>,
    /// Its first process, if it is known and can be still the same one.
    pub(crate) first: Option<FirstProcess>,
}

/// Kills what is left of all these runs. They are looked for together: a look at every process takes its time.
///
/// All runs of a keeper are in its session, `dead`: also one whose first process it had no time to write down, and a
/// container, which carries no marks.
pub(crate) async fn kill_leftovers(runs: &[Leftover], dead: Option<FirstProcess>) {
    if runs.is_empty() && dead.is_none() {
        return;
    }
    let marks = Marks::of(runs);
    // Once it was seen alive, its number is not given to another process while its group or session lives.
    let roots = alive_roots(&proc::processes(), runs);
    let end = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let found = find(&proc::processes(), &roots, &marks, dead);
        if found.is_empty() {
            return;
        }
        if Instant::now() > end {
            tracing::warn!("some processes of earlier runs do not end although they were killed: {found:?}");
            return;
        }
        if !told {
            tracing::warn!("processes of earlier runs are killed: {found:?}");
            told = true;
        }
        send(Signal::KILL, &found);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn alive_roots(processes: &BTreeMap<i32, Process>, runs: &[Leftover]) -> BTreeSet<i32> {
    let same = |first: &FirstProcess| {
        first.pid > 1 && processes.get(&first.pid).is_some_and(|process| process.started == first.started)
    };
    runs.iter().filter_map(|run| run.first).filter(same).map(|first| first.pid).collect()
}

fn find(
    processes: &BTreeMap<i32, Process>,
    roots: &BTreeSet<i32>,
    marks: &Marks,
    dead: Option<FirstProcess>,
) -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_pid();
    let is_alive = |pid: i32, process: &Process| pid > 1 && pid != own && !process.zombie;
    let alive: Vec<(i32, &Process)> = processes
        .iter()
        .map(|(&pid, process)| (pid, process))
        .filter(|&(pid, process)| is_alive(pid, process))
        .collect();
    let led = |pid: i32, process: &Process| [pid, process.group, process.session].iter().any(|id| roots.contains(id));
    // A session keeps its number for as long as one of its processes lives. Its leader must be gone: it is the keeper.
    let of_dead = |process: &Process| {
        dead.is_some_and(|dead| {
            let gone = processes.get(&dead.pid).is_none_or(|leader| leader.zombie);
            process.session == dead.pid && process.started >= dead.started && gone
        })
    };
    let proven = alive.iter().filter(|&&(pid, process)| led(pid, process) || of_dead(process) || marks.are_on(pid));
    let proven: BTreeSet<i32> = proven.map(|&(pid, _)| pid).collect();
    let ours = alive.iter().map(|&(pid, _)| pid);
    ours.filter(|&pid| proc::descends(processes, pid, |at| proven.contains(&at))).collect()
}

/// What proves of a process that it is of one of these runs.
struct Marks {
    tokens: BTreeSet<Token>,
    /// Of each run that has no token: variables as they stand in an environment, all of which must be there.
    variables: Vec<Vec<Vec<u8>>>,
}

impl Marks {
    fn of(runs: &[Leftover]) -> Self {
        let (mut tokens, mut variables) = (BTreeSet::new(), Vec::new());
        for run in runs.iter().filter(|run| !run.marks.is_empty()) {
            match Token::among(&run.marks) {
                Some(token) => drop(tokens.insert(token)),
                None => {
                    variables.push(run.marks.iter().map(|(name, value)| format!("{name}={value}").into()).collect())
                }
            }
        }
        Self { tokens, variables }
    }

    fn are_on(&self, pid: i32) -> bool {
        if !self.tokens.is_empty() && Token::carried_by(pid).is_some_and(|token| self.tokens.contains(&token)) {
            return true;
        }
        if self.variables.is_empty() {
            return false;
        }
        let environment = proc::environment(pid);
        let carried: BTreeSet<&[u8]> = proc::variables(&environment).collect();
        self.variables.iter().any(|marks| marks.iter().all(|mark| carried.contains(mark.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::process::{Child, Command};

    use super::*;

    fn sleeping(mark: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").env("HPC_QUEUE_TEST_MARK", mark).stdin(Stdio::null()).kill_on_drop(true);
        command.process_group(0).spawn().unwrap()
    }

    fn first(child: &Child) -> FirstProcess {
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        FirstProcess { pid, started: proc::started_at(pid) }
    }

    #[tokio::test]
    async fn a_token_alone_proves_whose_a_process_is() {
        let (token, other) = (Token::new(), Token::new());
        let mut ours = token.on_what_is_started(|| sleeping("ours"));
        let mut others = other.on_what_is_started(|| sleeping("others"));
        kill_leftovers(&[Leftover { marks: vec![token.mark()], first: None }], None).await;
        assert!(!ours.wait().await.unwrap().success());
        assert!(others.try_wait().unwrap().is_none());
    }

    #[tokio::test]
    async fn only_what_is_proven_to_be_of_a_dead_run_is_killed() {
        let mark = |text: &str| vec![("HPC_QUEUE_TEST_MARK".to_owned(), format!("{text}-{}", std::process::id()))];
        let (by_number, by_mark, reused) = (mark("a"), mark("b"), mark("c"));
        let started = |mark: &[(String, String)]| Token::new().on_what_is_started(|| sleeping(&mark[0].1));
        let mut children = [&by_number, &by_mark, &reused].map(|mark| started(mark));
        let reused_number = FirstProcess { started: 0, ..first(&children[2]) };
        let runs = [
            Leftover { marks: Vec::new(), first: Some(first(&children[0])) },
            Leftover { marks: by_mark, first: None },
            Leftover { marks: mark("of no process"), first: Some(reused_number) },
        ];
        kill_leftovers(&runs, None).await;
        assert!(!children[0].wait().await.unwrap().success() && !children[1].wait().await.unwrap().success());
        assert!(children[2].try_wait().unwrap().is_none(), "its number was known, and not its start");
    }
}
