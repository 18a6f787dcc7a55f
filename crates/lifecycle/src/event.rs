//! What makes the daemon act: a closed list, and what the events carry.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Continuation, Facts, FailureClass, JobId, PoolName};
use site::Held;

use crate::{Attempt, Finished, Observation, Run, Share, Unfolded};

/// Everything that can make the daemon act.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The node was looked at: is all there that jobs of this pool need, or where none is named, what all jobs need?
    Probed(Option<PoolName>, Result<(), Problem>),
    /// A pull came back.
    Pulled(Result<Pulled, Failure>),
    /// What is remembered of the jobs that were asked after.
    Recalled(Vec<(JobId, Recalled)>),
    /// The files of a job are ready, or not.
    Staged(JobId, Staged),
    /// The job directory was claimed, or not.
    Claimed(JobId, Claimed),
    /// A claim for a run that was never begun was given up, or could not be.
    Unclaimed(Run, Result<(), Problem>),
    /// What the executor knows of runs: all of them.
    Observed(Observation),
    /// What a pool has that lives in a batch system.
    Room(PoolName, Room),
    /// A run that the executor has taken waits there for this, or waits no more. The text is for people.
    RunWaits(Run, Option<String>),
    /// Nothing more can begin in a pool for this reason; a look tells when it can again.
    PoolBroken(PoolName, Problem),
    /// The executor has gone, or cannot be reached for this reason.
    ExecutorGone(Option<Problem>),
    /// The processes of a run are gone, and it is written down how it ended.
    RunEnded(Run, Box<Finished>),
    /// A run is gone without a word. The text says what is known.
    RunCutOff(Run, String),
    /// A run will begin nowhere, and nothing of it ever ran: what its job asks for cannot be had. The text says why.
    RunRejected(Run, String),
    /// An instance of a service can be used, and is published, with what it says of itself.
    ServiceReady(Run, Facts),
    /// An instance of a service cannot be used, or not any more: what it says of itself is no good, or it does not
    /// answer.
    ServiceGone(Run, Problem),
    /// What a run left behind was dealt with.
    Concluded(Run, Concluded),
    /// What there is to do of a job that is a graph.
    Unfolded(Run, Unfolded),
    /// The outputs of a run are in the store of files, or not.
    Uploaded(Run, Uploaded),
    /// A message that is no job was put away; with the final record where it has one that is owed to its user.
    PutAway {
        /// The lease of the message.
        lease_id: String,
        /// The job and its final record.
        record: Option<(JobId, String)>,
    },
    /// A message that is no job could not be put away.
    PutAwayFailed {
        /// The lease of the message.
        lease_id: String,
        /// What went wrong.
        problem: Problem,
    },
    /// A push of results came back.
    Published(Result<(), Failure>),
    /// Acknowledgements and retries came back.
    Settled(Result<(), Failure>),
    /// A person does not want this job any more, whether it is held here or may come one day.
    Cancel(JobId),
    /// Somebody says that there may be something in the queue.
    Woken,
    /// There is somebody who says so whenever there is, or there is no more.
    Linked(bool),
    /// Operations that were spent on a day by others who share the allowance, and by this daemon before its start.
    SpentBesides {
        /// The number of the day since the epoch.
        day: u64,
        /// How many.
        operations: u64,
        /// How many others there are.
        sharers: u64,
    },
    /// Take nothing new, finish what runs within a bounded time, then exit.
    Drain,
    /// Take nothing more and exit as soon as nothing is on its way: a new daemon begins at once in our place.
    HandOver,
    /// Exit now. What runs goes on, and is taken up again by the next daemon.
    Stop,
}

/// What a pool has that lives in a batch system, as its executor tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// For how many slots' worth of runs there is place, in what is there or may come.
    pub slots: usize,
    /// What its allocations take of what all pools share.
    pub held: Held,
    /// How many allocations it has, those that wait as well.
    pub allocations: usize,
    /// How many it should have.
    pub want: usize,
    /// Why so many, in a sentence for a person.
    pub why: String,
}

/// What a pull brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// The messages.
    pub deliveries: Vec<Delivery>,
    /// How long the queue held the pull before it leased them, or found none; `None` if it answered at once.
    pub held: Option<Duration>,
    /// Was the queue not asked, because another daemon has just found it empty?
    pub spared: bool,
}

impl From<Vec<Delivery>> for Pulled {
    /// Of a pull that was answered at once.
    fn from(deliveries: Vec<Delivery>) -> Self {
        Self { deliveries, held: None, spared: false }
    }
}

/// What is remembered of a job that was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing: it is new.
    New,
    /// It has ended before; its final record, if that is still there.
    Ended(Option<String>),
}

/// A message as the queue hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What settles it.
    pub lease_id: String,
    /// Its body as it came.
    pub body: String,
    /// How often the message was delivered, this time included.
    pub deliveries: u64,
}

/// A request to the queue service that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What can be done about it.
    pub class: FailureClass,
    /// What happened, for the log.
    pub what: String,
    /// A random number from 0 to 1, which spreads the next tries of many daemons.
    pub jitter: f64,
}

/// What is wrong with a node: the error as it was met, until a person reads it. Two are the same problem when they read
/// the same.
#[derive(Debug, Clone)]
pub struct Problem(Arc<dyn Error + Send + Sync>);

impl Problem {
    /// The error, to be looked at.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.into().into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl PartialEq for Problem {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Problem {}

/// What became of the files that a job needs before it can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    /// They are all here.
    Ready,
    /// They will never be, by no fault of this node or the store: one is gone, or is not what the job says. The text
    /// says why.
    Refused(String),
    /// The store, or the way to it, or the disk here, does not do it now; the job is not to blame.
    Away(Problem),
}

/// What became of the outputs of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uploaded {
    /// They are all in the store, and what is there is written down beside the job.
    Done,
    /// The store, or the way to it, or the disk here, does not do it now.
    Away(Problem),
}

/// What became of the claim for a job directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The directory is ours, for this attempt.
    Ours(Attempt),
    /// The job has its final record, now or since an earlier attempt, here or elsewhere.
    Finished(String),
    /// Another daemon holds the job, and is alive as far as we can tell. Look again later.
    Elsewhere,
    /// The node could not do it; the job is not to blame.
    NodeBroken(Problem),
}

/// How the attempt at a job ended, for [`crate::Effect::Conclude`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was seen how.
    Finished(Box<Finished>),
    /// It cannot be known how: the outcome is `lost`.
    CutOff(String),
    /// The node failed it too often: the outcome is `infrastructure`.
    GivenUp(Problem),
    /// No pool takes it, or its files or resources cannot be had, and nothing of it runs: the outcome is `rejected`.
    /// The text says why.
    Rejected(String),
    /// It was cancelled while nothing of it ran, after this attempt or before the first: the outcome is `cancelled`.
    Cancelled(Option<Attempt>),
    /// It filled the disk of its directory, whose bulk goes.
    FilledDisk(Box<FilledDisk>),
    /// It has ended well and asks for children that it cannot have: the outcome is `output`. The text says why, and
    /// goes on after the name of the file.
    Unparkable(Box<Finished>, String),
}

/// A run that filled the disk, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledDisk {
    /// How it ended.
    pub finished: Finished,
    /// How the full disk was met.
    pub problem: Problem,
    /// What the job has of the disk.
    pub share: Share,
    /// In how many attempts in a row it has done this.
    pub times: u32,
    /// May it be tried again? Otherwise the outcome is `disk_full`.
    pub again: bool,
}

/// What followed from the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concluded {
    /// There is a final record, this one.
    Recorded(String),
    /// The task has ended well, and goes on after these jobs.
    Parks(Continuation),
    /// The task failed, and it may be tried again. The text says how, for a person.
    TaskFailed(String),
    /// The node failed, not the job: the run does not count.
    NodeFailed(Problem),
    /// The same, and the disk took nothing when the run was over. Nothing of what the job left has been touched.
    DiskFull(Problem, Share),
    /// The task failed, and an instance of a service that it needs has ended before that: the run does not count, and
    /// the node is well.
    ServiceFailed(Problem),
    /// What the run left behind cannot be dealt with now, because the node is broken. The run itself is over.
    NodeBroken(Problem),
    /// Another daemon has taken the job over: what this run did does not count.
    TakenOver,
    /// There will be a record once the outputs of the run are in the store of files: they are not there yet. Nobody
    /// wants those of a job that was cancelled or rejected.
    ToUpload,
}
