//! What a second run of a workflow need not do again.

use protocol::WorkPath;

use crate::{FileNo, Progress, TaskNo, Workflow};

impl Progress {
    /// A workflow that was run before in the same directory: what is missing is to be done, and nothing else.
    ///
    /// `done` says of a task that it has ended well before, `there` of a file that it is there.
    ///
    /// - A task counts as done if it is said to be and all that it waits for count as done. What stands behind a task
    ///   that is yet to be done is done again, for what it was made of may become another.
    /// - Of these a task runs again whose output is not there, if a task that is to run reads that file, or if no task
    ///   at all reads it, because then it is what the workflow is for. What lies between and is needed by nobody any
    ///   more may be missing: who has removed large files on the way does not pay for them.
    /// - What was made from a file that is made again stays: the same task makes the same of the same.
    pub fn resume(workflow: &Workflow, done: impl Fn(TaskNo) -> bool, there: impl Fn(&WorkPath) -> bool) -> Self {
        let tasks = workflow.tasks();
        let mut is_done = vec![false; tasks.len()];
        for task in workflow.order() {
            let parents = &tasks[task.index()].parents;
            is_done[task.index()] = parents.iter().all(|parent| is_done[parent.index()]) && done(*task);
        }
        let mut is_needed = vec![false; workflow.files().len()];
        // Whoever reads a file comes before who writes it.
        for task in workflow.order().iter().rev() {
            let (at, task) = (task.index(), &tasks[task.index()]);
            let is_missed =
                |file: FileNo| (is_needed[file.index()] || workflow.is_final(file)) && !there(workflow.file(file));
            if is_done[at] && task.outputs.iter().copied().any(is_missed) {
                is_done[at] = false;
            }
            if !is_done[at] {
                task.inputs.iter().for_each(|file| is_needed[file.index()] = true);
            }
        }
        Self::of(workflow, |task| is_done[task.index()])
    }
}
