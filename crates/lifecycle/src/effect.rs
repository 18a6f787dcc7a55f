//! What the daemon can be told to do: a closed list, and what is said to the person who reads its log.

use std::time::Duration;

use protocol::{JobId, PoolName, ServiceName};

use crate::{Attempt, EndReason, Ending, Problem, Run};

/// Everything that the daemon can be told to do. Where an effect names a job, [`crate::Lifecycle`] may know its
/// message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look whether the node has all that jobs of this pool need; where none is named, what all jobs need.
    Probe(Option<PoolName>),
    /// Reach the executor, starting one where there is none, and ask it for all runs.
    Observe,
    /// Tell the executor that what followed from its list is on disk: from now on the list is complete.
    Reconciled,
    /// Ask the queue for up to this many messages.
    Pull(usize),
    /// Look up which of these jobs have ended before, and their final records.
    Recall(Vec<JobId>),
    /// Have the files of a job ready for its claim, and begin anew where that was begun before.
    Stage(JobId),
    /// The files of a job are not needed here: stop fetching them, and remove what is there. Once this is performed,
    /// nothing is heard any more of what was told before it.
    Unstage(JobId),
    /// Claim the directory of a job for its next attempt. Its files, if it has any, are ready and move into it.
    Claim {
        /// Which job.
        job_id: JobId,
        /// The last attempt of ours that was launched.
        last_attempt: Option<Attempt>,
        /// May it be started again when an attempt elsewhere was cut off?
        rerunnable: bool,
        /// Which round it is, and what the job finds in it.
        round: Round,
    },
    /// Give the claim for a run up: it was not begun, or the node failed it.
    Unclaim(Run),
    /// Look what there is to do of a job that is a graph.
    Unfold {
        /// Its only execution, of which nothing runs.
        run: Run,
        /// Those of its tasks that have begun, by the ids of their jobs.
        alive: Vec<JobId>,
        /// How many more may.
        room: usize,
    },
    /// Have the executor begin a run.
    Start(Run),
    /// The run of an instance of a service goes on, in this process or since before it: look whether it can be used,
    /// publish it then, and see that it goes on being so. What does that already goes on.
    Serve(Run),
    /// An instance of a service takes no jobs any more: stop looking, and withdraw what was published. Once this is
    /// performed, nothing is heard of it but its end.
    Withdraw(Run),
    /// Deal with what a run left behind, and write the final record unless the task failed and `may_retry`.
    Conclude {
        /// Which run.
        run: Run,
        /// How it ended.
        ending: Ending,
        /// May the job be tried again if its task failed?
        may_retry: bool,
    },
    /// Send the outputs of a run that is over to the store of files, and go on where that was begun before.
    Upload(Run),
    /// The outputs of a run are not wanted any more: stop sending them. Once this is performed, nothing is heard of it.
    StopUpload(Run),
    /// Have the executor end a run.
    End(Run, EndReason),
    /// Have the executor forget runs that have ended and are dealt with.
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
    Fail(Fatal),
}

/// An execution of a job that goes on after its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Counted from 1.
    pub number: u32,
    /// How many children there are: the results of those that have ended are put into the directory.
    pub children: u32,
}

impl Round {
    /// That of a job that has left no children yet.
    pub const FIRST: Self = Self { number: 1, children: 0 };
}

/// Why the daemon cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// The queue refuses, and will not change its mind.
    Refused(String),
    /// What came from a queue proves that the settings are wrong.
    WrongSettings(String),
}

/// What a person should know. Each is said once, when it begins, and once when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The day's allowance of operations of the queues has to be spent with care, or nothing is left of it to take
    /// anything with.
    Allowance {
        /// How it is.
        state: allowance::State,
        /// How long it is until the next.
        resets_in: Duration,
    },
    /// The node cannot run jobs of this pool, or where none is named any at all; nothing is pulled for them until a
    /// probe passes.
    NodeBroken(Option<PoolName>, Problem),
    /// The node can run them again.
    NodeReady(Option<PoolName>),
    /// A job is for a pool that this site does not have: it stays in the queue for another. Said once for each pool.
    NoSuchPool {
        /// The first such job.
        job_id: JobId,
        /// Which pool, and which there are.
        what: String,
    },
    /// More jobs have come for a pool than may wait in it; these stay in the queue. Said once until one may wait again.
    Full {
        /// The pool.
        pool: PoolName,
        /// How many wait in it.
        hold: usize,
    },
    /// The executor cannot be reached; it is tried again.
    ExecutorTrouble(Problem),
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
        problem: Problem,
        /// When it is tried again.
        next_try: Duration,
    },
    /// The store of files cannot be reached, or fails: this job is the first that waits for it. What waits is tried
    /// again for as long as it takes.
    FilesTrouble {
        /// Which job.
        job_id: JobId,
        /// What is wrong.
        problem: Problem,
        /// When it is tried again.
        next_try: Duration,
    },
    /// No job waits for that any more.
    FilesBack,
    /// Instances of a service end before they can be used, or soon after: more are tried after growing pauses, and the
    /// jobs that need it wait.
    ServiceFails {
        /// Which.
        service: ServiceName,
        /// How the last one has ended.
        problem: String,
        /// When the next is tried.
        next_try: Duration,
    },
    /// One of them can be used again.
    ServiceBack(ServiceName),
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
    /// The task failed, and the job is tried again.
    TriedAgain {
        /// The run that failed.
        run: Run,
        /// How, and what follows.
        what: String,
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
