//! What is to be done: a closed list; and what of it may leave the process.

use std::time::Duration;

use protocol::JobId;

use crate::fact::{Book, Stage};
use crate::table::EndKind;
use crate::{QpuName, RequestId, TaskId};

/// Everything that is to be done. Where an effect names a task, the disk has its payload and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the vendor of a machine. It ends in exactly one [`crate::Event::Answered`].
    Ask(Ask),
    /// Answer a request.
    Reply(RequestId, Reply),
    /// A task has ended: whoever waits for that is to be told.
    Ended(TaskId),
    /// Tell the person who reads the log.
    Say(String),
}

/// A question to a vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Of which task.
    pub task: TaskId,
    /// At which machine.
    pub qpu: QpuName,
    /// No other question of this life has this number.
    pub number: u64,
    /// What.
    pub question: Question,
}

/// What a vendor can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// To take the task, under its tag.
    Submit,
    /// Whether it has a task of this tag.
    Find,
    /// How far it is, by the vendor's id.
    Status(String),
    /// What came of it.
    Result(String),
    /// To cancel it.
    Cancel(String),
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// The task of this id is held.
    Accepted(TaskId),
    /// The task is so far, once its end was asked for.
    Task(View),
    /// Nothing was done.
    Refused(Refusal),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The job is not known: it has ended.
    NoJob,
    /// The job has no such task.
    NoTask,
    /// There is no such machine.
    NoQpu,
    /// Another task of the job has this key.
    KeyTaken,
    /// As many tasks as may be, or as many bytes.
    Full {
        /// Of the job, or of all jobs?
        of_job: bool,
        /// Bytes, or tasks?
        bytes: bool,
        /// How many may be.
        limit: u64,
        /// When to come again.
        retry_after: Duration,
    },
    /// So many bytes will never be taken.
    TooLarge {
        /// How many may be.
        limit: u64,
    },
}

/// How far a task is, for its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Which task.
    pub id: TaskId,
    /// Where it runs.
    pub qpu: QpuName,
    /// How far it is.
    pub stage: ViewStage,
    /// Was its end asked for?
    pub cancelling: bool,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewStage {
    /// So many tasks of the same job go before it.
    Queued {
        /// How many.
        before: usize,
    },
    /// It is being given to the vendor, or is looked up there.
    Submitting,
    /// The vendor has it.
    Running,
    /// It has ended, and why that was not as it should be.
    Ended(EndKind, Option<String>),
}

impl ViewStage {
    /// The word that clients see. Whether the vendor has been asked already is nothing that they could act on.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } | Self::Submitting => "queued",
            Self::Running => "running",
            Self::Ended(kind, _) => kind.word(),
        }
    }
}

/// How a machine is used at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Tasks that wait for it.
    pub queued: usize,
    /// Of how many jobs these are.
    pub jobs: usize,
    /// Tasks that are at the vendor, or may be.
    pub in_flight: usize,
    /// How many may be.
    pub max_in_flight: usize,
    /// Why nothing is submitted at the moment, and for how long.
    pub trouble: Option<(String, Duration)>,
}

/// May this effect leave the process, for what is on disk?
pub fn permitted(effect: &Effect, book: &Book) -> Result<(), String> {
    let stage = |task: &TaskId| book.entry(task).map(|entry| &entry.stage);
    let well = match effect {
        Effect::Ask(Ask { task, question, .. }) => match question {
            Question::Submit | Question::Find => stage(task) == Some(&Stage::Submitting),
            Question::Status(id) | Question::Result(id) | Question::Cancel(id) => {
                stage(task) == Some(&Stage::Running(id.clone()))
            }
        },
        Effect::Reply(_, Reply::Accepted(task)) => stage(task).is_some(),
        Effect::Reply(_, Reply::Task(view)) => match (&view.stage, stage(&view.id)) {
            (ViewStage::Ended(..), Some(Stage::Ended(_))) => true,
            (ViewStage::Ended(..), _) | (_, None) => false,
            (_, Some(_)) => !view.cancelling || book.entry(&view.id).is_some_and(|entry| entry.cancel),
        },
        Effect::Ended(task) => matches!(stage(task), Some(Stage::Ended(_))),
        Effect::Reply(..) | Effect::Say(_) => true,
    };
    if well { Ok(()) } else { Err(format!("{effect:?} is not covered by what is on disk")) }
}

/// Whose task it is, and only then which: so nobody hears of another job's.
pub(crate) fn is_of(owner: &JobId, forsaken: bool, job: &JobId) -> bool {
    owner == job && !forsaken
}
