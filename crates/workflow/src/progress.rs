//! How far a workflow is: which tasks are ready, and what becomes of the others when one has ended.
//!
//! Invariants: a task is ready when all that it waits for are done, and not before. Each task ends in exactly one way:
//! done, failed or skipped. A task is skipped when one that it waits for, if only through others, has failed, and for
//! no other reason. Over all calls together the edges are gone through once, and a ready task costs a logarithm.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::graph::Graph;
use crate::{TaskNo, Workflow};

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Something that it waits for is not done.
    Waiting,
    /// It can begin.
    Ready,
    /// It has begun, and has not ended.
    Begun,
    /// It has ended well.
    Done,
    /// It has ended, and not well.
    Failed,
    /// It will not begin: something that it waits for has failed.
    Skipped,
}

impl TaskState {
    /// Has it ended, or will it never begin?
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped)
    }
}

/// How a task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well: its outputs are there.
    Done,
    /// Not well.
    Failed,
}

/// How many tasks are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// [`TaskState::Waiting`].
    pub waiting: usize,
    /// [`TaskState::Ready`].
    pub ready: usize,
    /// [`TaskState::Begun`].
    pub begun: usize,
    /// [`TaskState::Done`].
    pub done: usize,
    /// [`TaskState::Failed`].
    pub failed: usize,
    /// [`TaskState::Skipped`].
    pub skipped: usize,
}

impl Summary {
    fn of(&mut self, state: TaskState) -> &mut usize {
        match state {
            TaskState::Waiting => &mut self.waiting,
            TaskState::Ready => &mut self.ready,
            TaskState::Begun => &mut self.begun,
            TaskState::Done => &mut self.done,
            TaskState::Failed => &mut self.failed,
            TaskState::Skipped => &mut self.skipped,
        }
    }
}

/// How far a workflow is. It follows from which tasks have begun and how they have ended, and need not be kept:
/// [`Workflow::order`] is an order in which these can be told again.
#[derive(Debug, Clone)]
pub struct Progress {
    graph: Arc<Graph>,
    states: Vec<TaskState>,
    /// For how many tasks each one waits yet.
    waits: Vec<u32>,
    /// The ready ones: those with the longest way to an end first, then in the order of the document.
    ready: BTreeSet<(Reverse<u32>, TaskNo)>,
    summary: Summary,
}

impl Progress {
    /// Nothing has begun.
    pub fn new(workflow: &Workflow) -> Self {
        Self::of(workflow, |_| false)
    }

    /// Some tasks are done, and all others are yet to be. For a task of these it is waited for those of them alone.
    pub fn of(workflow: &Workflow, is_done: impl Fn(TaskNo) -> bool) -> Self {
        let graph = workflow.graph.clone();
        let mut progress = Self {
            states: vec![TaskState::Waiting; graph.len()],
            waits: vec![0; graph.len()],
            ready: BTreeSet::new(),
            summary: Summary { waiting: graph.len(), ..Summary::default() },
            graph,
        };
        for task in workflow.task_nos() {
            if is_done(task) {
                progress.put(task, TaskState::Done);
                continue;
            }
            let waits = progress.graph.parents(task).iter().filter(|parent| !is_done(**parent)).count();
            progress.waits[task.index()] =
                u32::try_from(waits).expect("a task waits for tasks, which have u32 numbers");
            if waits == 0 {
                progress.put(task, TaskState::Ready);
            }
        }
        progress
    }

    /// The tasks that can begin. Those with the longest way to an end come first, counted in tasks: what they hold up
    /// takes longest, however many run at a time, so that a late one of them makes the whole late. The order is the
    /// same on every try.
    pub fn ready(&self) -> impl Iterator<Item = TaskNo> {
        self.ready.iter().map(|(_, task)| *task)
    }

    /// The first of them.
    pub fn first_ready(&self) -> Option<TaskNo> {
        self.ready().next()
    }

    /// A ready task has begun. `false` says that it is none, and that nothing has changed.
    pub fn begun(&mut self, task: TaskNo) -> bool {
        let is_ready = self.state(task) == Some(TaskState::Ready);
        if is_ready {
            self.put(task, TaskState::Begun);
        }
        is_ready
    }

    /// A task that had begun, or was ready to, has ended. `false` says that it is no such task, as when its end is told
    /// a second time, and that nothing has changed.
    pub fn ended(&mut self, task: TaskNo, how: Ended) -> bool {
        if !matches!(self.state(task), Some(TaskState::Ready | TaskState::Begun)) {
            return false;
        }
        let graph = self.graph.clone();
        match how {
            Ended::Done => {
                self.put(task, TaskState::Done);
                for child in graph.children(task) {
                    // One that is done from before, or skipped because of another, waits for nothing.
                    if self.states[child.index()] != TaskState::Waiting {
                        continue;
                    }
                    self.waits[child.index()] -= 1;
                    if self.waits[child.index()] == 0 {
                        self.put(*child, TaskState::Ready);
                    }
                }
            }
            Ended::Failed => {
                self.put(task, TaskState::Failed);
                let mut below = vec![task];
                while let Some(task) = below.pop() {
                    for child in graph.children(task) {
                        if self.states[child.index()] == TaskState::Waiting {
                            self.put(*child, TaskState::Skipped);
                            below.push(*child);
                        }
                    }
                }
            }
        }
        true
    }

    /// Where a task is, if the workflow has it.
    pub fn state(&self, task: TaskNo) -> Option<TaskState> {
        self.states.get(task.index()).copied()
    }

    /// Has every task ended, or will never begin?
    pub fn is_over(&self) -> bool {
        self.summary.waiting + self.summary.ready + self.summary.begun == 0
    }

    /// How many tasks are where.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    fn put(&mut self, task: TaskNo, state: TaskState) {
        let before = std::mem::replace(&mut self.states[task.index()], state);
        *self.summary.of(before) -= 1;
        *self.summary.of(state) += 1;
        let key = (Reverse(self.graph.height[task.index()]), task);
        if state == TaskState::Ready {
            self.ready.insert(key);
        } else if before == TaskState::Ready {
            self.ready.remove(&key);
        }
    }
}
