//! The direct children of this process: those that it started, and orphans of theirs.
//!
//! The keeper is a subreaper: a process of a run whose parent has ended becomes the keeper's child, not that of the
//! system's first process, even after a double fork and `setsid`. So one look at the list of children tells whether
//! an ended run has left anything behind, without looking at every process of the machine.
//!
//! Invariant: every child that the keeper starts is announced ([`Known`]) before anything else happens on the thread
//! that starts it. The kernel keeps a list for each thread, an orphan goes to that of the main thread, and so does a
//! child whose own thread has ended. What is a child of the main thread and was not announced is an orphan.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::proc;

/// Between two looks for orphans that have ended.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// How often each number was announced; a number may be given to a new child while its last bearer is still announced.
static KNOWN: Mutex<BTreeMap<i32, u32>> = Mutex::new(BTreeMap::new());

/// A child that was started here, announced for as long as this lives.
#[derive(Debug)]
pub(super) struct Known(i32);

/// Is this process the parent of its orphans?
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// Makes this process the parent of its orphans.
pub(super) fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

impl Known {
    /// Announces a child.
    pub(super) fn new(child: &Child) -> Self {
        let number = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        *known().entry(number).or_default() += 1;
        Self(number)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut known = known();
        if let Some(count) = known.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.0);
            }
        }
    }
}

/// Is anything that was started here still running?
pub(super) fn any_known() -> bool {
    !known().is_empty()
}

/// The orphans of ended parents, or `None` where they are not ours or the kernel does not list children. Those that
/// have ended are reaped.
pub(super) fn orphans() -> Option<Vec<i32>> {
    if !ADOPTS.load(Ordering::Relaxed) {
        return None;
    }
    let own = getpid().as_raw_nonzero();
    let children = proc::children_of_thread(own.get()).ok()?;
    let known = known();
    let orphans = children.split_whitespace().filter_map(|number| number.parse().ok());
    Some(orphans.filter(|number| !known.contains_key(number)).filter(|&number| !reaped(number)).collect())
}

/// Reaps orphans as they end, for as long as this process lives.
///
/// Nobody else does: the keeper is the parent of whatever a job leaves, and process 1 of a container that of all.
pub(super) fn reap_for_ever() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            drop(orphans());
            // Thousands may end in a second, and each look at the list takes its time.
            tokio::time::sleep(REAP_PAUSE).await;
        }
    });
    Ok(())
}

/// Was this an ended process that only waited for us to notice?
fn reaped(number: i32) -> bool {
    let Some(pid) = Pid::from_raw(number) else { return true };
    matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_)) | Err(_))
}

fn known() -> MutexGuard<'static, BTreeMap<i32, u32>> {
    crate::lock(&KNOWN)
}
