//! The tasks, with their times and bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::JobId;

use crate::effect::ViewStage;
use crate::{Entry, QpuName, Question, Stage, TaskId};

/// What a task is counted with besides its payload or result, so that many small ones are bounded as well.
pub(crate) const OVERHEAD: u64 = 512;

/// The longest message that is kept of an end, in bytes.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// It has a result.
    Completed,
    /// It will never have one.
    Failed,
    /// Its job did not want it any more, or the vendor has ended it.
    Cancelled,
    /// Nobody can say what became of it. It may have been paid for, and is not tried again.
    Lost,
}

impl EndKind {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Cancelled, Self::Lost];

    /// The word that clients see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// How a task ended, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How.
    pub kind: EndKind,
    /// Why that is not as it should be.
    pub message: Option<String>,
    /// What came of it, as JSON.
    pub result: Option<String>,
}

impl End {
    pub(crate) fn new(kind: EndKind, message: Option<String>, result: Option<String>) -> Self {
        let message = message.map(|mut message| {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message
        });
        Self { kind, message, result }
    }

    /// How much room it takes.
    pub fn bytes(&self) -> u64 {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len) as u64;
        length(&self.message) + length(&self.result)
    }
}

/// A task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: JobId,
    pub(crate) qpu: QpuName,
    /// By which of two came first.
    pub(crate) order: u64,
    pub(crate) bytes: u64,
    pub(crate) key: Option<(String, String)>,
    pub(crate) state: State,
    pub(crate) cancel: bool,
    pub(crate) forsaken: bool,
    pub(crate) fetched: Option<Duration>,
    /// How often nobody could say whether the vendor has taken it.
    pub(crate) unknown: u32,
    /// When something is to be done about it.
    due: Option<Duration>,
}

/// How far a task is.
#[derive(Debug)]
pub(crate) enum State {
    Queued,
    Submitting(Dialogue),
    Running(String, Dialogue),
    Ended(EndKind, Option<String>),
}

/// Where we are with a vendor about one task.
#[derive(Debug)]
pub(crate) struct Dialogue {
    /// The question that has no answer yet.
    pub(crate) asking: Option<(u64, Question)>,
    /// What is asked when its time comes.
    pub(crate) next: Next,
    /// Questions in a row without an answer.
    pub(crate) silent: u32,
    /// Questions in a row that were refused.
    pub(crate) refused: u32,
    /// When there was an answer last.
    pub(crate) heard: Duration,
    /// When the vendor was first found not to have it. From then on it has its time to show it.
    pub(crate) looked: Option<Duration>,
    /// How long until the next question.
    pub(crate) interval: Duration,
    /// The vendor was asked to cancel it, and that came to nothing.
    pub(crate) cancel_tried: bool,
    /// The vendor was told to cancel it, or does not take that.
    pub(crate) cancel_told: bool,
}

/// What is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Find,
    Status,
    Result,
    Cancel,
}

impl Dialogue {
    pub(crate) fn new(next: Next, interval: Duration, now: Duration) -> Self {
        let (asking, looked, cancel_tried, cancel_told) = (None, None, false, false);
        Self { asking, next, silent: 0, refused: 0, heard: now, looked, interval, cancel_tried, cancel_told }
    }
}

impl Task {
    pub(crate) fn new(entry: &Entry, order: u64, state: State) -> Self {
        Self {
            job: entry.job.clone(),
            qpu: entry.qpu.clone(),
            order,
            bytes: entry.bytes + OVERHEAD,
            key: entry.key.clone(),
            state,
            cancel: entry.cancel,
            forsaken: entry.forsaken,
            fetched: entry.fetched,
            unknown: 0,
            due: None,
        }
    }

    pub(crate) fn dialogue(&mut self) -> Option<&mut Dialogue> {
        match &mut self.state {
            State::Submitting(dialogue) | State::Running(_, dialogue) => Some(dialogue),
            State::Queued | State::Ended(..) => None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(..))
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Submitting(_) | State::Running(..))
    }

    pub(crate) fn is_unwanted(&self) -> bool {
        self.cancel || self.forsaken
    }

    pub(crate) fn view(&self, before: usize) -> ViewStage {
        match &self.state {
            State::Queued => ViewStage::Queued { before },
            State::Submitting(_) => ViewStage::Submitting,
            State::Running(..) => ViewStage::Running,
            State::Ended(kind, message) => ViewStage::Ended(*kind, message.clone()),
        }
    }
}

/// How much of what is bounded somebody has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) tasks: usize,
    pub(crate) bytes: u64,
}

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Table {
    tasks: BTreeMap<TaskId, Task>,
    keys: BTreeMap<(JobId, String), TaskId>,
    timers: BTreeSet<(Duration, TaskId)>,
    of_jobs: BTreeMap<JobId, Held>,
    all: Held,
}

impl Table {
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// What is counted of a task is changed by the functions below.
    pub(crate) fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.tasks.iter()
    }

    pub(crate) fn insert(&mut self, id: TaskId, task: Task) {
        self.count(&task.job, usize::from(!task.has_ended()), task.bytes);
        if let (Some((key, _)), false) = (&task.key, task.forsaken) {
            self.keys.insert((task.job.clone(), key.clone()), id.clone());
        }
        self.tasks.insert(id, task);
    }

    pub(crate) fn remove(&mut self, id: &TaskId) -> Option<Task> {
        self.set_due(id, None);
        let task = self.tasks.remove(id)?;
        self.uncount(&task.job, usize::from(!task.has_ended()), task.bytes);
        self.drop_key(&task);
        Some(task)
    }

    /// The task has ended, and holds so many bytes now.
    pub(crate) fn end(&mut self, id: &TaskId, end: &End) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (job, before, after) = (task.job.clone(), task.bytes, end.bytes() + OVERHEAD);
        task.state = State::Ended(end.kind, end.message.clone());
        task.bytes = after;
        self.uncount(&job, 1, before);
        self.count(&job, 0, after);
    }

    /// The job of this task has ended.
    pub(crate) fn forsake(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.forsaken = true;
        let key = task.key.take().map(|(key, _)| (task.job.clone(), key));
        key.map(|key| self.keys.remove(&key));
    }

    pub(crate) fn by_key(&self, job: &JobId, key: &str) -> Option<(&TaskId, &Task)> {
        let id = self.keys.get(&(job.clone(), key.to_owned()))?;
        Some((id, self.tasks.get(id)?))
    }

    pub(crate) fn set_due(&mut self, id: &TaskId, due: Option<Duration>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut task.due, due) {
            self.timers.remove(&(before, id.clone()));
        }
        if let Some(due) = due {
            self.timers.insert((due, id.clone()));
        }
    }

    /// When something is to be done next.
    pub(crate) fn first_due(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes a task whose time has come.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<TaskId> {
        let (due, id) = self.timers.first()?;
        if *due > now {
            return None;
        }
        let id = id.clone();
        self.set_due(&id, None);
        Some(id)
    }

    pub(crate) fn held(&self, job: &JobId) -> Held {
        self.of_jobs.get(job).copied().unwrap_or_default()
    }

    pub(crate) fn held_by_all(&self) -> Held {
        self.all
    }

    fn count(&mut self, job: &JobId, tasks: usize, bytes: u64) {
        let of_job = self.of_jobs.entry(job.clone()).or_default();
        for held in [of_job, &mut self.all] {
            held.tasks += tasks;
            held.bytes += bytes;
        }
    }

    fn uncount(&mut self, job: &JobId, tasks: usize, bytes: u64) {
        let Some(of_job) = self.of_jobs.get_mut(job) else { return };
        for held in [&mut *of_job, &mut self.all] {
            held.tasks -= tasks;
            held.bytes -= bytes;
        }
        if *of_job == Held::default() {
            self.of_jobs.remove(job);
        }
    }

    fn drop_key(&mut self, task: &Task) {
        if let Some((key, _)) = &task.key {
            self.keys.remove(&(task.job.clone(), key.clone()));
        }
    }

    /// Is all that is counted as the tasks are?
    pub(crate) fn is_sound(&self) -> bool {
        let mut of_jobs = BTreeMap::<JobId, Held>::new();
        let mut all = Held::default();
        for task in self.tasks.values() {
            for held in [of_jobs.entry(task.job.clone()).or_default(), &mut all] {
                held.tasks += usize::from(!task.has_ended());
                held.bytes += task.bytes;
            }
        }
        let timers = self.tasks.iter().filter_map(|(id, task)| Some((task.due?, id.clone())));
        of_jobs == self.of_jobs && all == self.all && timers.collect::<BTreeSet<_>>() == self.timers
    }
}

/// How far a remembered task is, at the time when a broker begins.
pub(crate) fn restored(entry: &Entry, interval: Duration, now: Duration) -> State {
    match &entry.stage {
        Stage::Queued => State::Queued,
        Stage::Submitting => State::Submitting(Dialogue::new(Next::Find, interval, now)),
        Stage::Running(vendor_id) => {
            let next = if entry.cancel || entry.forsaken { Next::Cancel } else { Next::Status };
            State::Running(vendor_id.clone(), Dialogue::new(next, interval, now))
        }
        Stage::Ended(end) => State::Ended(end.kind, end.message.clone()),
    }
}
