//! What must be on disk before its consequences leave the process, and what a broker that starts finds there.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::JobId;

use crate::{End, QpuName, TaskId};

/// Something that has happened and must not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The job may submit.
    JobOpened(JobId),
    /// The job has ended. What of its tasks is at no vendor is forgotten; the others are nobody's any more.
    JobEnded(JobId),
    /// The task is ours.
    Queued {
        /// Which one.
        id: TaskId,
        /// Whose it is.
        job: JobId,
        /// Where it is to run.
        qpu: QpuName,
        /// What is to run there.
        payload: String,
        /// The client's own name of it, with a hash of its content.
        key: Option<(String, String)>,
    },
    /// The vendor is about to be asked to take it, under its tag.
    Submitting(TaskId),
    /// It is surely not there: it waits again, in its old place.
    Returned(TaskId),
    /// The vendor has it, under this id.
    Running(TaskId, String),
    /// Its job does not want it any more.
    Cancel(TaskId),
    /// It has ended. Its payload is not needed any more.
    Ended(TaskId, End),
    /// Its result was handed out at this time.
    Fetched(TaskId, Duration),
    /// Nothing of it is needed any more.
    Forgotten(TaskId),
}

/// A task as it is remembered on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which task.
    pub id: TaskId,
    /// Whose it is, or was.
    pub job: JobId,
    /// Where it is to run.
    pub qpu: QpuName,
    /// How long its payload is, in bytes; of one that has ended, its result.
    pub bytes: u64,
    /// The client's own name of it, with a hash of its content.
    pub key: Option<(String, String)>,
    /// How far it is.
    pub stage: Stage,
    /// Its job does not want it any more.
    pub cancel: bool,
    /// Its job has ended.
    pub forsaken: bool,
    /// When its result was handed out first.
    pub fetched: Option<Duration>,
}

/// How far a remembered task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn.
    Queued,
    /// The vendor may have it.
    Submitting,
    /// The vendor has it, under this id.
    Running(String),
    /// It has ended. On disk lies its result; in an [`Entry`] only its length counts.
    Ended(End),
}

/// What is remembered, as a value: the meaning of every [`Fact`], which a store must give it, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Jobs that may submit.
    pub jobs: BTreeSet<JobId>,
    /// The tasks, in the order in which they came.
    pub entries: Vec<Entry>,
}

impl Book {
    /// What is remembered of a task.
    pub fn entry(&self, id: &TaskId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// Remembers a fact. A fact about a task that is not ours changes nothing.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::JobOpened(job) => {
                self.jobs.insert(job.clone());
            }
            Fact::JobEnded(job) => {
                self.jobs.remove(job);
                self.entries.retain_mut(|entry| {
                    let of_it = entry.job == *job;
                    entry.forsaken |= of_it;
                    !of_it || matches!(entry.stage, Stage::Submitting | Stage::Running(_))
                });
            }
            Fact::Queued { id, job, qpu, payload, key } => self.entries.push(Entry {
                id: id.clone(),
                job: job.clone(),
                qpu: qpu.clone(),
                bytes: payload.len() as u64,
                key: key.clone(),
                stage: Stage::Queued,
                cancel: false,
                forsaken: false,
                fetched: None,
            }),
            Fact::Submitting(id) => self.change(id, |entry| entry.stage = Stage::Submitting),
            Fact::Returned(id) => self.change(id, |entry| entry.stage = Stage::Queued),
            Fact::Running(id, vendor_id) => self.change(id, |entry| entry.stage = Stage::Running(vendor_id.clone())),
            Fact::Cancel(id) => self.change(id, |entry| entry.cancel = true),
            Fact::Ended(id, end) => self.change(id, |entry| {
                entry.bytes = end.bytes();
                entry.stage = Stage::Ended(end.clone());
            }),
            Fact::Fetched(id, at) => self.change(id, |entry| entry.fetched = Some(*at)),
            Fact::Forgotten(id) => self.entries.retain(|entry| entry.id != *id),
        }
    }

    fn change(&mut self, id: &TaskId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == *id) {
            change(entry);
        }
    }
}
