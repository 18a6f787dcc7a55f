//! Runs: one execution of a job, what is seen of it, and how it ended. What is said here holds for every executor, be
//! it a keeper on this node or one in an allocation of a batch system.

use std::fmt;
use std::num::NonZeroU32;

use protocol::{Isolation, JobId, Launched, Ran, RuntimeKind, Usage};

/// The number of an execution of a job, from 1. It fences what the execution writes: a later one never takes the
/// traces of an earlier one for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(NonZeroU32);

impl Attempt {
    /// The first one.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// An attempt by its number; 0 is none.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one after the last one, if there was any.
    pub fn after(last: Option<Self>) -> Self {
        last.map_or(Self::FIRST, Self::next)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One execution of a job. Its text is the name by which a run is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Which job.
    pub job_id: JobId,
    /// Which execution of it.
    pub attempt: Attempt,
}

impl Run {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        let (job_id, attempt) = name.rsplit_once('.')?;
        Some(Self { job_id: job_id.parse().ok()?, attempt: Attempt::new(attempt.parse().ok()?)? })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job_id, self.attempt)
    }
}

/// What an executor, or what is left of an earlier one, tells of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// Every run that was begun and not yet forgotten.
    pub runs: Vec<(Run, Sighting)>,
    /// Is this all? If not, a run that is missing from the list may have been begun all the same: the machine was
    /// started anew, and what was written last is gone.
    pub complete: bool,
}

/// What is known of a run that was handed to an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// It was taken, and waits for its place to run.
    Queued,
    /// It goes on.
    Alive,
    /// It has ended, and it is written down how.
    Ended(Box<Finished>),
    /// It is gone, and nobody saw how it ended. The text says what happened, as far as that is known.
    CutOff(String),
}

/// A run that is over: how it ended, and what else is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub end: RunEnd,
    /// The end of what it wrote to its standard output.
    pub stdout_tail: String,
    /// The end of what it wrote to its standard error.
    pub stderr_tail: String,
    /// When it began and when it was over, in milliseconds since the Unix epoch.
    pub started_at_ms: i64,
    /// See above.
    pub finished_at_ms: i64,
    /// What it ran in, where a process was started. The settings may be others by the time that the result is made.
    pub runtime: Option<RuntimeKind>,
    /// Did the job's own command begin, after all that wraps it was set up? None where nothing tells.
    pub began: Option<bool>,
    /// What its container was started from was written to in place while it ran, or the process ended that serves it.
    pub image_lost: bool,
    /// What kept it from the rest of its node, where that is known.
    pub isolation: Option<Box<Isolation>>,
    /// What it was begun as, where a site's file says it.
    pub launched: Option<Box<Launched>>,
    /// Where it was, if that is not where its daemon is.
    pub ran: Option<Box<Ran>>,
    /// What it has used, as far as that is known.
    pub usage: Option<Usage>,
}

impl Finished {
    /// Did it end by itself, and not well? Only then does it matter how the node was.
    pub fn has_failed(&self) -> bool {
        match self.end {
            RunEnd::Exit(code) => code != 0,
            RunEnd::Signal(_) => true,
            RunEnd::TimeLimit | RunEnd::MemoryLimit(_) | RunEnd::EndedBy(_) | RunEnd::NotStarted(_) => false,
        }
    }
}

/// How a run ended, as it was seen. Whose fault that was is decided elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// By itself, with this exit code.
    Exit(i32),
    /// By a signal from elsewhere: the job itself, the kernel, a person.
    Signal(i32),
    /// It ran longer than it was allowed to, and was ended.
    TimeLimit,
    /// The kernel killed it, or a part of it without which it could not go on, because memory was used up; or else it
    /// was ended for passing its own limit, and the text says by how much.
    MemoryLimit(Option<String>),
    /// Its executor was told to end it, and did.
    EndedBy(EndReason),
    /// Its command could not be started at all; the text says why.
    NotStarted(String),
}

/// Why an executor ends a run before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The job is not held here any more.
    NotHeld,
    /// Another daemon has taken the job over.
    TakenOver,
    /// The executor was told to end, with all its runs.
    ExecutorEnds,
    /// The allocation that it ran in ends: its time is over, or Slurm was told to end it.
    AllocationEnds,
    /// A person does not want the job any more.
    Cancelled,
    /// It is an instance of a service, and no job has needed it for as long as it waits for one.
    ServiceIdle,
    /// It is one, and near the end of its longest life.
    ServiceOld,
    /// It is one, and could not be used in time.
    ServiceNotReady,
    /// It is one, and cannot be used, or not any more.
    ServiceGone,
    /// It was not said, or not in words that are known here.
    Unsaid,
}

impl EndReason {
    /// Is it one of those for which an instance of a service is ended?
    pub fn is_of_service(self) -> bool {
        matches!(self, Self::ServiceIdle | Self::ServiceOld | Self::ServiceNotReady | Self::ServiceGone)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHeld => "it was ended because the job is not held here any more",
            Self::TakenOver => "it was ended because another daemon has taken the job over",
            Self::ExecutorEnds => "it was ended with its keeper, which was told to end all runs",
            Self::AllocationEnds => "it was ended with the Slurm job that it ran in",
            Self::Cancelled => "it was ended because the job was cancelled",
            Self::ServiceIdle => "the instance was ended because no job needs it",
            Self::ServiceOld => "the instance was ended because it is near the end of its longest life",
            Self::ServiceNotReady => "the instance was ended because it was not ready in time",
            Self::ServiceGone => "the instance was ended because it does not do what an instance of a service has to",
            Self::Unsaid => "its keeper ended it, and did not say why",
        })
    }
}
