//! `STATE_DIR/view.json`: what a daemon that lives says of itself, for `hpc-consumer jobs` and `status` (`show`).
//!
//! It is written aside and renamed, so that a reader finds it whole, at most once a second. It is not what the daemon
//! remembers: nothing is decided by it, and it may be missing or old.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use files::Durability;
use protocol::{JobId, Timestamp, timestamp_from_millis};
use serde::{Deserialize, Serialize};

const VIEW: &str = "view.json";

/// The version of the view.
pub(crate) const VERSION: u64 = 1;

/// What a daemon tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) v: u64,
    pub(crate) written_at: Timestamp,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) state: State,
    /// Why the node cannot run jobs, if it cannot.
    pub(crate) node: Option<String>,
    pub(crate) slots: usize,
    pub(crate) counts: Counts,
    pub(crate) jobs: Vec<JobView>,
    /// Why the queue does not answer, if it does not.
    pub(crate) queue_trouble: Option<String>,
    /// Since when the oldest result is owed.
    pub(crate) owed_since: Option<Timestamp>,
}

/// What a daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Running,
    Draining,
    Ended,
}

/// How many jobs are how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Accepted, and not begun.
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    /// The run is over, and there is no record yet.
    pub(crate) ending: usize,
    /// Results that the queue does not have yet.
    pub(crate) owed: usize,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobView {
    pub(crate) job_id: JobId,
    /// As [`lifecycle::Phase::name`] says it.
    pub(crate) phase: String,
    pub(crate) attempt: u32,
    /// Since when it is in its phase.
    pub(crate) since: Option<Timestamp>,
}

/// Replaces the view. It need not outlive a reboot, so it costs no sync.
pub(crate) fn write(state_dir: &Path, view: &View) -> io::Result<()> {
    files::replace(&state_dir.join(VIEW), &serde_json::to_vec(view)?, Durability::Cached).map(drop)
}

/// A time since the Unix epoch, as it is shown.
pub(crate) fn timestamp(since_epoch: Duration) -> Timestamp {
    timestamp_from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// The view, if there is one that can be read.
pub(crate) fn read(state_dir: &Path) -> Option<View> {
    let bytes = fs::read(state_dir.join(VIEW)).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|view: &View| view.v == VERSION)
}
