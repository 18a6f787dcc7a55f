//! What may be at once, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::QpuName;

/// What a broker offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The machines.
    pub qpus: BTreeMap<QpuName, Qpu>,
    /// What may be held.
    pub limits: Limits,
}

/// How one machine is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qpu {
    /// How many tasks may be at the vendor.
    pub max_in_flight: usize,
    /// What it means that the vendor does not find a tag.
    pub lookup: Lookup,
    /// For so long after it has taken a task, the vendor may not show it yet.
    pub settle: Duration,
    /// Between two questions how far a task is: so long at first, growing up to the second.
    pub poll: (Duration, Duration),
    /// A task of which nothing could be heard for so long is lost.
    pub give_up: Duration,
}

/// What it means that the vendor does not find a tag, once it had the time to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// There is no such task.
    Reliable,
    /// Nothing.
    Unreliable,
}

/// What may be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tasks of one job that have not ended.
    pub tasks_of_job: usize,
    /// Bytes of payloads and results of one job.
    pub bytes_of_job: u64,
    /// Tasks of all jobs that have not ended.
    pub tasks: usize,
    /// Bytes of all jobs.
    pub bytes: u64,
    /// How long a result is kept that nobody fetches.
    pub keep: Duration,
    /// How long one is kept that was fetched: whoever fetched it may not have got it.
    pub keep_fetched: Duration,
}
