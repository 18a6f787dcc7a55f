//! What makes the daemon act, and what it can do: two closed lists.

use std::time::Duration;

use protocol::{FailureClass, JobId};

/// One execution of a job, by the number that fences what it writes. Its text is the name by which a run is found
/// again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Which job.
    pub job_id: JobId,
    /// Which execution of it, from 1.
    pub attempt: u32,
}

impl Run {
    /// Reads what [`std::fmt::Display`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        let (job_id, attempt) = name.rsplit_once('.')?;
        Some(Self { job_id: job_id.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.job_id, self.attempt)
    }
}

/// Everything that can make the daemon act.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The node was looked at: is all there that a job needs?
    Probed(Result<(), String>),
    /// A pull came back.
    Pulled(Result<Vec<Delivery>, Failure>),
    /// Which of the jobs that were asked after have ended before.
    Recalled(Vec<(JobId, bool)>),
    /// The job directory was claimed, or not.
    Claimed(JobId, Claimed),
    /// A claim for a run that was never begun was given up, or could not be.
    Unclaimed(Run, Result<(), String>),
    /// What the keeper knows of runs: all of them.
    Observed(Observation),
    /// The keeper has gone, or cannot be reached.
    KeeperGone,
    /// The processes of a run are gone, and the keeper has written down how it ended.
    RunEnded(Run),
    /// A run was ended by the keeper, which was told to end all, or is gone without a word. The text says what is
    /// known.
    RunCutOff(Run, String),
    /// What a run left behind was dealt with.
    Concluded(Run, Concluded),
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
        problem: String,
    },
    /// A push of results came back.
    Published(Result<(), Failure>),
    /// Acknowledgements and retries came back.
    Settled(Result<(), Failure>),
    /// Take nothing new, finish what runs within a bounded time, then exit.
    Drain,
    /// Take nothing more and exit as soon as nothing is on its way: a new daemon begins at once in our place.
    HandOver,
    /// Exit now. What runs goes on, and is taken up again by the next daemon.
    Stop,
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

/// What became of the claim for a job directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The directory is ours, for this attempt.
    Ours(u32),
    /// The job has its final record, now or since an earlier attempt, here or elsewhere.
    Finished(String),
    /// Another daemon holds the job, and is alive as far as we can tell. Look again later.
    Elsewhere,
    /// The node could not do it; the job is not to blame.
    NodeBroken(String),
}

/// What the keeper, or what is left of an earlier one, tells of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every run that was begun and not yet forgotten.
    pub runs: Vec<(Run, Sighting)>,
    /// Is this all? If not, a run that is missing from the list may have been begun all the same: the machine was
    /// started anew, and what was written last is gone.
    pub complete: bool,
}

/// What is known of a run that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// It goes on.
    Alive,
    /// It has ended, and it is written down how.
    Ended,
    /// It is gone, and nobody saw how it ended. The text says what happened, as far as that is known.
    CutOff(String),
}

/// How the attempt at a job ended, for [`Effect::Conclude`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The keeper knows how.
    Exited,
    /// It cannot be known how: the outcome is `lost`.
    CutOff(String),
    /// The node failed it too often: the outcome is `infrastructure`.
    GivenUp(String),
}

/// What followed from the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concluded {
    /// There is a final record, this one.
    Recorded(String),
    /// The task failed, and it may be tried again.
    TaskFailed,
    /// The node failed, not the job: the run does not count.
    NodeFailed(String),
    /// What the run left behind cannot be dealt with now, because the node is broken. The run itself is over.
    NodeBroken(String),
    /// Another daemon has taken the job over: what this run did does not count.
    TakenOver,
}

/// Everything that the daemon can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look whether the node has all that a job needs.
    Probe,
    /// Reach the keeper, starting one where there is none, and ask it for all runs.
    Observe,
    /// Tell the keeper that what followed from its list is on disk: from now on the list is complete.
    Reconciled,
    /// Ask the queue for up to this many messages.
    Pull(usize),
    /// Look up which of these jobs have ended before.
    Recall(Vec<JobId>),
    /// Claim the directory of a job for its next attempt.
    Claim {
        /// Which job.
        job_id: JobId,
        /// The last attempt of ours that was launched, or 0.
        last_attempt: u32,
        /// May it be started again when an attempt elsewhere was cut off?
        rerunnable: bool,
    },
    /// Give the claim for a run up: it was not begun, or the node failed it.
    Unclaim(Run),
    /// Have the keeper begin a run.
    Start(Run),
    /// Deal with what a run left behind, and write the final record unless the task failed and `may_retry`.
    Conclude {
        /// Which run.
        run: Run,
        /// How it ended.
        ending: Ending,
        /// May the job be tried again if its task failed?
        may_retry: bool,
    },
    /// Have the keeper end a run that is not ours any more.
    End(Run),
    /// Have the keeper forget runs that have ended and are dealt with.
    Forget(Vec<Run>),
    /// Store a message that is no job, and write a final record where it has an id.
    PutAway {
        /// The lease of the message.
        lease_id: String,
        /// Whose job it was meant to be.
        job_id: Option<JobId>,
        /// The body as it came.
        body: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Push the final records of these jobs, at most a batch.
    Publish(Vec<JobId>),
    /// Settle deliveries: forget some, give back others with a delay. At most a batch of both together.
    Settle {
        /// Leases to acknowledge.
        acks: Vec<String>,
        /// Leases to give back, and when the messages may be delivered again.
        retries: Vec<(String, Duration)>,
    },
    /// Tell the person who reads the log.
    Say(Notice),
    /// All is done, or told to: exit.
    Exit,
    /// Nothing will get better by itself: say why and exit.
    Fail(String),
}

/// What a person should know. Each is said once, when it begins, and once when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The node cannot run jobs; nothing is pulled until a probe passes.
    NodeBroken(String),
    /// The node can run jobs again.
    NodeReady,
    /// The queue cannot be reached or refuses; it is tried again.
    QueueTrouble {
        /// What happened.
        what: String,
        /// When it is tried again.
        next_try: Duration,
    },
    /// The queue answers again.
    QueueBack,
    /// The queue will never take this result. Its record stays on the cluster.
    ResultRefused {
        /// Whose result.
        job_id: JobId,
        /// What the queue says.
        what: String,
    },
    /// A job cannot be claimed here, or what it left cannot be dealt with, while the node is well. Others go on.
    HeldUp {
        /// Which job.
        job_id: JobId,
        /// What is wrong.
        problem: String,
        /// When it is tried again.
        next_try: Duration,
    },
    /// Runs of an earlier daemon go on, and are watched again.
    TakenUp {
        /// How many.
        running: usize,
    },
    /// A run was cut off.
    CutOff {
        /// Which run.
        run: Run,
        /// What is known of it.
        what: String,
        /// Is the job started again?
        again: bool,
    },
    /// Another daemon holds a job that was delivered here. Said at each look.
    Elsewhere(JobId),
    /// The daemon exits and leaves something to the next one.
    LeftOver {
        /// Runs that go on.
        running: usize,
        /// Jobs that are ours, do not run and have no result yet.
        waiting: usize,
        /// Results that are stored and not published.
        results: usize,
    },
}
