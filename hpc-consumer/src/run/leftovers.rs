//! What is left of runs whose keeper has died: their processes have no parent that watches them any more.
//!
//! A process is killed only when it is proven to be of such a run: it is the first process, known by its number and
//! the time of its start, or in its group or session, or it carries the marks of the run in its environment, or it
//! descends from such a process. Numbers alone prove nothing: they may be another program's by now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::tree::{self, FirstProcess, LOOK_INTERVAL, Process, Signal};

/// How long killing may take; a process that hangs in the kernel does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A run whose keeper has died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// Variables that its processes were started with.
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
    let marks: Vec<Vec<Vec<u8>>> = runs.iter().map(|run| tree::as_in_environ(&run.marks)).collect();
    // Once it was seen alive, its number is not given to another process while its group or session lives.
    let roots = alive_roots(&tree::processes(), runs);
    let end = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let found = find(&tree::processes(), &roots, &marks, dead);
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
        tree::send(Signal::KILL, &found);
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
    marks: &[Vec<Vec<u8>>],
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
    let proven = alive.iter().filter(|&&(pid, process)| led(pid, process) || of_dead(process) || is_marked(pid, marks));
    let proven: BTreeSet<i32> = proven.map(|&(pid, _)| pid).collect();
    let ours = alive.iter().map(|&(pid, _)| pid);
    ours.filter(|&pid| tree::descends(processes, pid, |at| proven.contains(&at))).collect()
}

/// Does the process carry all marks of one of the runs?
fn is_marked(pid: i32, runs: &[Vec<Vec<u8>>]) -> bool {
    let environment = tree::environment(pid);
    let variables: BTreeSet<&[u8]> = tree::variables(&environment).collect();
    runs.iter().any(|marks| !marks.is_empty() && marks.iter().all(|mark| variables.contains(mark.as_slice())))
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
        FirstProcess { pid, started: tree::started_at(pid) }
    }

    #[tokio::test]
    async fn only_what_is_proven_to_be_of_a_dead_run_is_killed() {
        let mark = |text: &str| vec![("HPC_QUEUE_TEST_MARK".to_owned(), format!("{text}-{}", std::process::id()))];
        let (by_number, by_mark, reused) = (mark("a"), mark("b"), mark("c"));
        let mut children = [&by_number, &by_mark, &reused].map(|mark| sleeping(&mark[0].1));
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
