//! A graph of tasks as data: read, checked, and which of them can begin.
//!
//! A document is in one of two forms, which others have made: WfFormat 1.5 of WfCommons with commands, or HyperFlow's
//! `workflow.json`, as far as that is a graph of commands. Both become one [`Workflow`]; [`Progress`] says of it which
//! tasks are ready, and [`Workflow::job`] which job a task is.
//!
//! ```text
//! text ──parse──► Workflow ──new, resume──► Progress ──ready──► begun ──► ended ──► is_over
//!                     └──job──► JobSpec of a child
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `wfformat`, `hyperflow` | the two forms, each read into drafts of tasks |
//! | `list` | lists of a document, as long as they may be |
//! | `draft` | from drafts to tasks: names, files, commands |
//! | `check` | what must hold of all tasks together: no circle, files that are there when they are read |
//! | `graph` | what waits for what, and how long the longest way is |
//! | `task`, `document` | a task; all of them |
//! | `progress`, `resume` | what is ready, and what a second run does not do again |
//! | `problem` | what is wrong with a document, in words |
//!
//! Out of scope: files and their contents, starting jobs, clocks. Every file is a path below one directory, that of the
//! workflow, which the tasks share.
//!
//! Invariants: what [`Workflow::parse`] takes has an order, in which every task comes after all that it waits for; no
//! file is written by two tasks, and who reads one waits for who writes it; no path leads out of the directory. A task
//! is ready only when all that it waits for are done, and ends in exactly one way. All is linear in the document, but
//! for a logarithm and for files that come from far ancestors.

mod check;
mod document;
mod draft;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod graph;
mod hyperflow;
pub mod limits;
mod list;
mod problem;
mod progress;
mod resume;
mod task;
mod wfformat;

pub use document::{Form, Workflow};
pub use problem::{Problem, Problems};
pub use progress::{Ended, Progress, Summary, TaskState};
pub use task::{Command, FileNo, Task, TaskNo};
