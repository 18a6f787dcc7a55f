//! What must be on disk before its consequences leave the process, and what a daemon that starts finds there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::{JobId, JobMessage, PoolName, ServiceName, When};
use site::Grant;

use crate::Attempt;

/// Something that has happened and must not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The job is ours, whatever the queue forgets.
    Accepted {
        /// Which job.
        job_id: JobId,
        /// Its message as JSON.
        message: String,
        /// What the job allows.
        terms: Terms,
        /// Where it came from.
        origin: Origin,
    },
    /// The final record of a job that is not to be run, because it has ended before or is none: it is owed, as the
    /// answer to this delivery.
    Owed(JobId, String, Lease),
    /// A further delivery of a job that we hold.
    Leased(JobId, Lease),
    /// The queue has forgotten the message: nobody else gets it.
    Acknowledged(JobId),
    /// A run is intended, with its name to look for, and with what it has of which pool.
    Launching(JobId, Attempt, Launched),
    /// The attempt is over and does not count as the job's end; the next one may begin.
    Again(JobId, Failures),
    /// The job waits for its children, which are accepted with this.
    Parked(JobId, Parking),
    /// Nobody has used this instance of a service since then. A daemon that leaves says it of each that has no users.
    Idle(JobId, Duration),
    /// Nobody wants a job any more: the one whose child it is has ended.
    Unwanted(JobId),
    /// The final record of the job.
    Recorded(JobId, String),
    /// The result is published, or will never be: the id alone is kept.
    Finished(JobId),
    /// The job is not ours any more: it went back to the queue, or another daemon has taken it over.
    Released(JobId),
}

/// Where a job came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The queue has delivered it.
    Queue(Lease),
    /// Another job has left it behind.
    Parent(Parent),
    /// The daemon runs it as an instance of this service.
    Service(ServiceName),
}

/// Whose child a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which job's.
    pub job_id: JobId,
    /// How far it is from a job that the queue has delivered; 1 for a child of such a one.
    pub generation: u32,
}

/// How far a job is that leaves children behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parking {
    /// How many rounds have ended.
    pub rounds: u32,
    /// How many children there were, in all of them.
    pub children: u32,
    /// How many of them had ended when the last round began.
    pub seen: u32,
    /// For which it waits.
    pub when: When,
}

/// Where a run was launched, and what it has there for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Its pool. None is known of a run that a daemon of an earlier version has launched.
    pub pool: Option<PoolName>,
    /// What no other run has.
    pub grant: Grant,
    /// Which instances of the services that it needs it has a place in.
    pub services: BTreeMap<ServiceName, JobId>,
}

/// What a job allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How often the job is tried again after its task failed.
    pub retries: u32,
    /// May it be started again after an attempt was cut off?
    pub rerunnable: bool,
    /// Are there files that have to be here before it can begin? No store keeps it: its message says it.
    pub needs_files: bool,
    /// Is it a graph of jobs, of which nothing runs itself? What it is does not change when the site's file does.
    pub is_graph: bool,
}

/// A delivery of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What settles it.
    pub id: String,
    /// When the queue delivers the message again, at the earliest; since the Unix epoch.
    pub until: Duration,
    /// How often the message had been delivered, to us or to anybody, this time included; where that is known.
    pub deliveries: Option<u64>,
}

/// How often attempts at a job have failed, by whose fault it was. Each has a budget of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// The task's.
    pub task: u32,
    /// The node's.
    pub node: u32,
    /// The attempt was cut off: the machine or the keeper went down.
    pub cut_off: u32,
}

/// A job as it is remembered on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which job.
    pub job_id: JobId,
    /// How far it is.
    pub stage: Stage,
    /// The last attempt that was launched.
    pub attempt: Option<Attempt>,
    /// Where that was, if it may be running.
    pub launched: Option<Launched>,
    /// What the user said of it, without its input. None where there is no job, or one that cannot be read.
    pub message: Option<Arc<JobMessage>>,
    /// What the job allows.
    pub terms: Terms,
    /// What has failed so far.
    pub failures: Failures,
    /// The last delivery that is not acknowledged.
    pub lease: Option<Lease>,
    /// Whose child it is.
    pub parent: Option<Parent>,
    /// The service that it is an instance of.
    pub service: Option<ServiceName>,
    /// Since when nobody has used it, where it is an instance and an earlier daemon has said it.
    pub idle_since: Option<Duration>,
    /// What it has left behind in earlier rounds.
    pub parking: Option<Parking>,
    /// Does nobody want it any more, because its parent has ended?
    pub unwanted: bool,
    /// Since when it is in its stage, in time since the Unix epoch. It is for people, and no fact tells it.
    pub since: Duration,
}

/// How far a remembered job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its first attempt or the next one.
    Accepted,
    /// Its last attempt may be running.
    Launching,
    /// It waits for its children.
    Parked,
    /// It has its final record, of so many bytes, which is owed to the queue.
    Recorded(usize),
}

/// What is remembered, as a value: the meaning of every [`Fact`], which a store must give it, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// The jobs that are ours, in the order of their acceptance.
    pub entries: Vec<Entry>,
    /// Their messages.
    pub messages: BTreeMap<JobId, String>,
    /// The final records that are owed.
    pub records: BTreeMap<JobId, String>,
    /// Jobs that have ended.
    pub finished: BTreeSet<JobId>,
}

impl Book {
    /// What is remembered of a job that is ours.
    pub fn entry(&self, job_id: &JobId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.job_id == *job_id)
    }

    /// Remembers a fact. A fact about a job that is not ours changes nothing.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Accepted { job_id, message, terms, origin } => {
                self.take(job_id, Stage::Accepted, *terms, origin.clone());
                let brief = JobMessage::parse(message).ok().map(|message| Arc::new(message.without_input()));
                self.change(job_id, |entry| entry.message = brief);
                self.messages.insert(job_id.clone(), message.clone());
            }
            Fact::Owed(job_id, record, lease) => {
                self.take(job_id, Stage::Recorded(record.len()), Terms::default(), Origin::Queue(lease.clone()));
                self.records.insert(job_id.clone(), record.clone());
            }
            Fact::Leased(job_id, lease) => self.change(job_id, |entry| entry.lease = Some(lease.clone())),
            Fact::Acknowledged(job_id) => self.change(job_id, |entry| entry.lease = None),
            Fact::Launching(job_id, attempt, launched) => {
                self.change(job_id, |entry| {
                    entry.stage = Stage::Launching;
                    entry.attempt = Some(*attempt);
                    entry.launched = Some(launched.clone());
                });
                // What was said of them is no more so.
                launched.services.values().for_each(|of| self.change(of, |entry| entry.idle_since = None));
            }
            Fact::Again(job_id, failures) => self.change(job_id, |entry| {
                entry.stage = Stage::Accepted;
                entry.launched = None;
                entry.failures = *failures;
            }),
            Fact::Parked(job_id, parking) => self.change(job_id, |entry| {
                entry.stage = Stage::Parked;
                entry.launched = None;
                entry.parking = Some(*parking);
            }),
            Fact::Idle(job_id, since) => self.change(job_id, |entry| entry.idle_since = Some(*since)),
            Fact::Unwanted(job_id) => self.change(job_id, |entry| entry.unwanted = true),
            Fact::Recorded(job_id, record) => {
                self.change(job_id, |entry| {
                    entry.stage = Stage::Recorded(record.len());
                    entry.launched = None;
                });
                if self.entry(job_id).is_some() {
                    self.records.insert(job_id.clone(), record.clone());
                }
            }
            Fact::Finished(job_id) => {
                self.forget(job_id);
                self.finished.insert(job_id.clone());
            }
            Fact::Released(job_id) => self.forget(job_id),
        }
    }

    fn take(&mut self, job_id: &JobId, stage: Stage, terms: Terms, origin: Origin) {
        self.forget(job_id);
        let (lease, parent, service) = match origin {
            Origin::Queue(lease) => (Some(lease), None, None),
            Origin::Parent(parent) => (None, Some(parent), None),
            Origin::Service(service) => (None, None, Some(service)),
        };
        self.entries.push(Entry {
            job_id: job_id.clone(),
            stage,
            attempt: None,
            launched: None,
            message: None,
            terms,
            failures: Failures::default(),
            lease,
            parent,
            service,
            idle_since: None,
            parking: None,
            unwanted: false,
            since: Duration::ZERO,
        });
    }

    fn change(&mut self, job_id: &JobId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.job_id == *job_id) {
            change(entry);
        }
    }

    fn forget(&mut self, job_id: &JobId) {
        self.entries.retain(|entry| entry.job_id != *job_id);
        self.messages.remove(job_id);
        self.records.remove(job_id);
    }
}
