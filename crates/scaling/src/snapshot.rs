//! What a decision is made of: all that is known of the pools at one moment.
//!
//! It is written into a log, and decided again from there, so every later field has a default.

use serde::{Deserialize, Serialize};

/// The pools at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, in seconds since the Unix epoch.
    pub at: f64,
    /// What all pools together may have.
    #[serde(default)]
    pub quota: Quota,
    /// The pools.
    pub pools: Vec<PoolState>,
}

/// So much of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Processors.
    #[serde(default)]
    pub cpus: u64,
    /// Memory, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// GPUs.
    #[serde(default)]
    pub gpus: u64,
}

/// What all pools together may have; no bound where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u64>,
    /// Allocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<u64>,
}

/// A pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolState {
    /// Its name.
    pub name: String,
    /// It has so many allocations at least.
    #[serde(default)]
    pub min: u64,
    /// And so many at most.
    pub max: u64,
    /// How many jobs run in one allocation at a time; at least one.
    pub slots: u64,
    /// What one allocation takes of the quota.
    #[serde(default)]
    pub cost: Amount,
    /// How much its work counts beside that of others.
    #[serde(default = "one")]
    pub weight: f64,
    /// How many allocations may wait in the batch system at a time.
    pub pending_max: u64,
    /// After how many seconds without a job a worker ends.
    pub idle: f64,
    /// Jobs that are held and have not ended; those that run are among them.
    pub backlog: u64,
    /// The mean run time of its last jobs, in seconds, once enough of them ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_run: Option<f64>,
    /// Since when the first of its jobs waits that do not run, as [`Snapshot::at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<f64>,
    /// Allocations that wait in the batch system.
    #[serde(default)]
    pub pending: u64,
    /// Allocations that are there.
    #[serde(default)]
    pub workers: Vec<Worker>,
    /// How the last ones came out.
    #[serde(default)]
    pub history: History,
}

/// An allocation that is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Since when it has no job; absent while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<f64>,
    /// How many seconds of its wall time are left, where it has any bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<f64>,
}

/// How the last allocations of a pool came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Submissions in a row that the batch system refused.
    #[serde(default)]
    pub refused: u32,
    /// Allocations in a row that died before their first job.
    #[serde(default)]
    pub died: u32,
    /// When the last of these was, as [`Snapshot::at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl PoolState {
    /// All allocations, those that wait as well.
    pub fn have(&self) -> u64 {
        self.workers.len() as u64 + self.pending
    }
}

impl Quota {
    /// How many more allocations of this cost there is room for beside so much, as far as it matters.
    pub(crate) fn has_room(&self, used: &Used, cost: &Amount) -> bool {
        let fits = |limit: Option<u64>, used: u64, more: u64| limit.is_none_or(|limit| used + more <= limit);
        fits(self.cpus, used.amount.cpus, cost.cpus)
            && fits(self.memory, used.amount.memory, cost.memory)
            && fits(self.gpus, used.amount.gpus, cost.gpus)
            && fits(self.allocations, used.allocations, 1)
    }

    /// The largest part of any bounded resource that so many allocations of this cost take. Where nothing is bounded
    /// that they take, their number.
    pub(crate) fn share(&self, count: u64, cost: &Amount) -> f64 {
        let part = |limit: Option<u64>, each: u64| limit.map(|limit| count as f64 * each as f64 / limit.max(1) as f64);
        let parts = [
            part(self.cpus, cost.cpus),
            part(self.memory, cost.memory),
            part(self.gpus, cost.gpus),
            part(self.allocations, 1),
        ];
        let largest = parts.into_iter().flatten().fold(0.0, f64::max);
        if largest > 0.0 { largest } else { count as f64 }
    }
}

/// What is taken of a quota.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    amount: Amount,
    allocations: u64,
}

impl Used {
    pub(crate) fn add(&mut self, count: u64, cost: &Amount) {
        self.amount.cpus += count * cost.cpus;
        self.amount.memory += count * cost.memory;
        self.amount.gpus += count * cost.gpus;
        self.allocations += count;
    }
}
