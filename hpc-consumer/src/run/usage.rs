//! What a run uses: processor time, which its parent learns when its first process has ended, and memory, which is
//! looked at now and then while it runs.
//!
//! Nothing here is a limit: what a run may use is watched by `footprint`, or by the kernel.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::helpers;
use super::proc::{self, FirstProcess};
use crate::blocking;

/// The pause before the first look at the memory of a run, and the longest one between two.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A look goes no further than to so many processes of a run: it must not cost more than the run.
const PROCESSES_MAX: usize = 4_096;

/// The processor time of a run.
pub(super) struct CpuTime {
    first: FirstProcess,
    ended: Option<AsyncFd<OwnedFd>>,
    used: Option<Duration>,
}

impl CpuTime {
    pub(super) fn of(first: FirstProcess) -> Self {
        Self { first, ended: helpers::watch(first.pid), used: None }
    }

    /// Resolves once the first process has ended, and before somebody waits for it: the kernel then still says what it
    /// has used. Where it cannot be watched, nothing is learned.
    pub(super) async fn learn(&mut self) {
        let Some(ended) = &self.ended else { return };
        if ended.readable().await.is_ok() {
            self.used = proc::cpu_time(self.first);
        }
        self.ended = None;
    }

    pub(super) fn used(&self) -> Option<Duration> {
        self.used
    }
}

/// The most memory that a run was seen to have.
pub(super) struct PeakMemory {
    first: FirstProcess,
    next: Instant,
    pause: Duration,
    bytes: Option<u64>,
}

impl PeakMemory {
    pub(super) fn of(first: FirstProcess) -> Self {
        Self { first, next: Instant::now() + PAUSE_FIRST, pause: PAUSE_FIRST, bytes: None }
    }

    /// Resolves after the next look. One that is not awaited to its end is left out.
    pub(super) async fn look(&mut self) {
        tokio::time::sleep_until(self.next).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.next = Instant::now() + self.pause;
        let first = self.first;
        let bytes = blocking(move || resident(first)).await;
        self.bytes = self.bytes.max(bytes);
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

/// What the first process of a run and its descendants have in memory; none once it has ended.
fn resident(first: FirstProcess) -> Option<u64> {
    if !proc::is_running(first) {
        return None;
    }
    let (mut seen, mut to_visit) = (BTreeSet::from([first.pid]), vec![first.pid]);
    let mut bytes = 0_u64;
    while let Some(pid) = to_visit.pop() {
        bytes = bytes.saturating_add(proc::resident(pid).unwrap_or_default());
        for child in proc::children(pid) {
            if seen.len() < PROCESSES_MAX && seen.insert(child) {
                to_visit.push(child);
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::*;

    #[test]
    fn memory_is_that_of_all_that_descend_from_the_first_process() {
        // Below a shell below a shell `tail` keeps what has no line break, for as long as more may come.
        let script = "sh -c '(head -c 64000000 /dev/zero; sleep 60) | tail | wc -c; true'; true";
        let mut child = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let first = FirstProcess { pid, started: proc::started_at(pid) };
        let other = FirstProcess { started: first.started + 1, ..first };
        assert_eq!(resident(other), None, "another process of the same number");
        let begun = std::time::Instant::now();
        while resident(first).unwrap() < 64_000_000 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", resident(first));
            std::thread::yield_now();
        }
        assert!(resident(first).unwrap() < 200_000_000);
        kill_process_group(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(resident(first), None);
    }
}
