//! What makes the daemon act, and what it can do: two closed lists.

use std::time::Duration;

use protocol::{FailureClass, JobId, JobMessage};

/// Everything that can make the daemon act.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The node was looked at: is all there that a job needs?
    Probed(Result<(), String>),
    /// A pull came back.
    Pulled(Result<Vec<Delivery>, Failure>),
    /// The processes of a run are gone; what it left behind is being read and recorded.
    RunExited(JobId),
    /// A run ended, and what it left behind was dealt with.
    RunEnded(JobId, RunEnd),
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
    /// Take nothing new, finish what runs, then exit.
    Drain,
    /// The same, but what runs is being ended, and what is owed is tried for a short time only.
    Stop,
}

/// A message as the queue hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What settles it.
    pub lease_id: String,
    /// Its body as it came.
    pub body: String,
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

/// How a run ended, as far as the queue is concerned. Whether the job failed is in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// There is a final record, now or since an earlier run.
    Recorded(String),
    /// The node could not run the job; the job is not to blame.
    NodeBroken(String),
    /// The run was stopped before its end, because the daemon stops.
    Stopped,
}

/// Everything that the daemon can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look whether the node has all that a job needs.
    Probe,
    /// Ask the queue for up to this many messages.
    Pull(usize),
    /// Run the job to its end and write its final record.
    Run(Box<JobMessage>),
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
    /// Push these final records, at most a batch.
    Publish(Vec<String>),
    /// Settle deliveries: forget some, give back others with a delay. At most a batch of both together.
    Settle {
        /// Leases to acknowledge.
        acks: Vec<String>,
        /// Leases to give back, and when the messages may be delivered again.
        retries: Vec<(String, Duration)>,
    },
    /// Tell the person who reads the log.
    Say(Notice),
    /// All is done: exit.
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
    /// Nothing more is taken, and the daemon exits when what runs has ended.
    CannotGoOn {
        /// What happened.
        what: String,
        /// How many jobs run.
        running: usize,
    },
    /// The daemon exits with results that are not published or deliveries that are not settled. The records are on the
    /// disk; they are published when their messages are delivered again.
    LeftOver {
        /// How many results.
        results: usize,
    },
}
