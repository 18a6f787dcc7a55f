//! `STATE_DIR/view.json`: what a daemon that lives says of itself, for `hpc-consumer jobs` and `status` (`show`).
//!
//! It is written aside and renamed, so that a reader finds it whole: soon after a change, at most once a second, and
//! every [`REFRESH`] without one. It is not what the daemon remembers: nothing is decided by it, and it may be missing
//! or old.
//!
//! The fields of version 1 stay. Others come, which older readers pass over; those that an older writer did not know
//! are empty.

use std::io;
use std::path::Path;
use std::time::Duration;

use allowance::{Care, State};
use files::Durability;
use lifecycle::Phase;
use protocol::{JobId, JobSpec, JobState, PoolName, ServiceName, Timestamp, link, timestamp_from_millis};
use serde::{Deserialize, Serialize};

use crate::link::LinkView;

const VIEW: &str = "view.json";

/// That of a hundred thousand jobs is smaller.
const BYTES_MAX: u64 = 100_000_000;

/// The version of the view.
pub(crate) const VERSION: u64 = 1;

/// How old the view of a daemon that lives can be: by this a reader tells one that is idle from one that hangs.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);

/// What a daemon tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) v: u64,
    pub(crate) written_at: Timestamp,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) state: DaemonState,
    /// Why the node cannot run jobs, if it cannot.
    pub(crate) node: Option<String>,
    pub(crate) slots: usize,
    /// How each pool is.
    #[serde(default)]
    pub(crate) pools: Vec<PoolView>,
    /// How each service is.
    #[serde(default)]
    pub(crate) services: Vec<ServiceView>,
    pub(crate) counts: Counts,
    pub(crate) jobs: Vec<JobView>,
    /// Why the queue does not answer, if it does not.
    pub(crate) queue_trouble: Option<String>,
    /// Since when the oldest result is owed.
    pub(crate) owed_since: Option<Timestamp>,
    /// How the link to the hub is, where there is to be one.
    #[serde(default)]
    pub(crate) link: Option<LinkView>,
    /// How it is with the day's operations of the queues, where there is an end to them.
    #[serde(default)]
    pub(crate) operations: Option<OperationsView>,
    #[serde(flatten)]
    pub(crate) about: About,
}

/// What of the day's operations of the queues is spent, by all daemons of one `RESULTS_DIR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperationsView {
    /// How many they may spend a day.
    pub(crate) limit: u64,
    pub(crate) spent: u64,
    /// How many it will be at the end of the day, if it goes on as it did.
    pub(crate) forecast: u64,
    pub(crate) care: CareView,
    /// When the next day begins.
    pub(crate) resets_at: Timestamp,
}

/// How careful a daemon is with what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CareView {
    None,
    /// It asks an empty queue more rarely.
    Slow,
    /// It takes no jobs until the next day.
    Stop,
}

impl OperationsView {
    pub(crate) fn of(state: State, now: Duration) -> Self {
        let State { limit, spent, forecast, care } = state;
        let care = match care {
            Care::None => CareView::None,
            Care::Slow => CareView::Slow,
            Care::Stop => CareView::Stop,
        };
        Self { limit, spent, forecast, care, resets_at: timestamp(allowance::next_day(now)) }
    }
}

/// Which daemon it is: what it was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    /// Of the program.
    pub(crate) version: Option<String>,
    pub(crate) results_dir: Option<String>,
    /// What jobs run in: the kind of runtime, its image where it has one, and the command of every job.
    pub(crate) runtime: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) command: Option<String>,
    /// The address of the API of the queues.
    pub(crate) queues_url: Option<String>,
    pub(crate) jobs_queue: Option<Queue>,
    pub(crate) results_queue: Option<Queue>,
}

/// A queue of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) id: String,
    /// Where the service tells it.
    pub(crate) name: Option<String>,
}

/// What a daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DaemonState {
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

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolView {
    pub(crate) pool: PoolName,
    /// Can jobs begin in it?
    pub(crate) ready: bool,
    /// Why they cannot, where that is known.
    pub(crate) problem: Option<String>,
    /// Since when they can, or cannot, as this daemon has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// Accepted, and not begun.
    pub(crate) held: usize,
    pub(crate) running: usize,
    /// How many may be held; without, there is no bound.
    pub(crate) hold: Option<usize>,
    pub(crate) capacity: Amount,
    pub(crate) in_use: Amount,
    /// How many allocations it has and should have, where it lives in Slurm, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allocations: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) want: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// These allocations, and how each is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slurm: Vec<AllocationView>,
}

/// An allocation of Slurm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AllocationView {
    pub(crate) name: String,
    pub(crate) slurm_job_id: Option<String>,
    pub(crate) node: Option<String>,
    /// How far it is, in words.
    pub(crate) state: String,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceView {
    pub(crate) service: ServiceName,
    /// How many instances there are at least and at most, and for how many jobs each; none of a service that the site's
    /// file has no more.
    pub(crate) min: Option<u32>,
    pub(crate) max: Option<u32>,
    pub(crate) users_each: Option<u32>,
    /// How many jobs wait for it.
    pub(crate) waiting: usize,
    /// How the last instance ended, while instances do not last, and when the next is tried.
    pub(crate) problem: Option<String>,
    pub(crate) next_try: Option<Timestamp>,
    pub(crate) instances: Vec<InstanceView>,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceView {
    /// Its job.
    pub(crate) instance: JobId,
    /// As [`lifecycle::Phase::name`] says it, and since when that is so.
    pub(crate) phase: Option<String>,
    pub(crate) since: Option<Timestamp>,
    /// The name of its node, once that is known.
    pub(crate) node: Option<String>,
    /// Since when it can be used.
    pub(crate) ready_since: Option<Timestamp>,
    /// How many jobs use it.
    pub(crate) users: usize,
    /// Why it is there, or why it cannot be used yet, or why it ends.
    pub(crate) why: String,
}

/// So much of what a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) cpus: u64,
    /// In bytes, where it is counted.
    pub(crate) memory: Option<u64>,
    pub(crate) gpus: u64,
}

impl From<link::Amount> for Amount {
    fn from(link::Amount { cpus, memory, gpus }: link::Amount) -> Self {
        Self { cpus, memory, gpus }
    }
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
    #[serde(default)]
    pub(crate) task: Option<String>,
    /// What its user calls it.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Where it is or is to be.
    #[serde(default)]
    pub(crate) pool: Option<PoolName>,
    /// How the last attempt ended, where another one follows.
    #[serde(default)]
    pub(crate) last_attempt: Option<String>,
    /// Does its run wait for a place, which its executor has for it one day?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) waits: bool,
    /// The allocation that its run is in, or is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allocation: Option<AllocationView>,
}

/// What people know a job by besides its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) task: String,
    pub(crate) name: Option<String>,
}

impl Called {
    pub(crate) fn of(spec: &JobSpec) -> Self {
        Self { task: spec.task.clone(), name: spec.name.clone() }
    }
}

impl JobView {
    /// How far the job is, in the word of the contract; nothing where its record says it.
    pub(crate) fn state(&self) -> Option<JobState> {
        if self.waits {
            return Some(JobState::Held);
        }
        let phase = Phase::ALL.into_iter().find(|phase| phase.name() == self.phase);
        // Whatever it waits for by the word of another version.
        phase.map_or(Some(JobState::Held), Phase::state)
    }

    /// With the words for it that are known.
    pub(crate) fn called(self, called: Option<Called>) -> Self {
        let (task, name) = called.map(|Called { task, name }| (task, name)).unzip();
        Self { task, name: name.flatten(), ..self }
    }
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
    let bytes = files::read_own(&state_dir.join(VIEW), BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|view: &View| view.v == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_word() {
        use JobState::{Held, Queued, Running, Unknown};
        let state = |phase: &str| {
            let json = format!(r#"{{"job_id":"j","phase":"{phase}","attempt":0,"since":null}}"#);
            serde_json::from_str::<JobView>(&json).unwrap().state()
        };
        for (phase, word) in [
            (Phase::Asked, Some(Unknown)),
            (Phase::Waiting, Some(Held)),
            (Phase::Staging, Some(Held)),
            (Phase::Claiming, Some(Held)),
            (Phase::Ready, Some(Held)),
            (Phase::Running, Some(Running)),
            (Phase::Ending, Some(Running)),
            (Phase::Uploading, Some(Running)),
            (Phase::Parked, Some(Held)),
            (Phase::Returning, Some(Queued)),
            (Phase::Recorded, None),
        ] {
            assert_eq!(state(phase.name()), word, "{}", phase.name());
        }
        assert_eq!(state("staging"), Some(Held), "of a newer version");
    }
}
