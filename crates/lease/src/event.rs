//! What happens: a closed list.

use std::time::Duration;

use protocol::JobId;

use crate::{QpuName, TaskId};

/// Somebody who waits for a [`crate::Reply`]. The number is the caller's.
pub type RequestId = u64;

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The process has begun, or a time has come ([`crate::Lease::wake_at`]).
    Tick,
    /// A job may submit from now on.
    OpenJob(RequestId, JobId),
    /// A job has ended: its tasks are cancelled and forgotten.
    EndJob(RequestId, JobId),
    /// A job submits a task.
    Submit(RequestId, Box<Submission>),
    /// A job does not want a task any more.
    Cancel(RequestId, JobId, TaskId),
    /// The result of a task was handed out.
    Fetched(TaskId),
    /// The answer to the question of this number.
    Answered(TaskId, u64, Answer),
}

/// A task that a job submits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The id that it gets.
    pub id: TaskId,
    /// Whose it is.
    pub job: JobId,
    /// Where it is to run.
    pub qpu: QpuName,
    /// What is to run there, as JSON.
    pub payload: String,
    /// By what the client knows it: with the same key and the same content, it is the same task.
    pub key: Option<String>,
    /// A hash of its content, to compare contents by.
    pub digest: String,
}

/// What a vendor answers, as its adapter has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has taken the task.
    Taken {
        /// By what the vendor knows it.
        vendor_id: String,
        /// The tag that it keeps, where it says so.
        tag: Option<String>,
    },
    /// A task that it has found by its tag.
    Found {
        /// By what the vendor knows it.
        vendor_id: String,
        /// The tag that it keeps.
        tag: String,
    },
    /// It finds no task of this tag.
    NotFound,
    /// How far the task is.
    Status {
        /// How far.
        phase: Phase,
        /// The tag that it keeps, where it says so.
        tag: Option<String>,
        /// What it says of it.
        message: Option<String>,
    },
    /// What came of it.
    Result {
        /// As JSON.
        result: String,
        /// The tag that it keeps, where it says so.
        tag: Option<String>,
    },
    /// It will be cancelled, or is.
    Cancelling,
    /// None of these.
    Fault(Fault),
}

/// How far a task is at the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits or runs.
    Active,
    /// It has a result.
    Completed,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it means.
    pub kind: FaultKind,
    /// When to ask again, if the vendor says so.
    pub retry_after: Option<Duration>,
    /// What was said.
    pub message: String,
}

/// What it means that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Surely nothing was done; later it may be.
    Busy,
    /// Surely nothing was done, and never will be.
    Refused,
    /// The vendor was surely not reached.
    Unreachable,
    /// Nobody can say what was done.
    Unknown,
}
