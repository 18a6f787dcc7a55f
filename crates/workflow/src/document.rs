//! All tasks of a document, and what is asked of them together.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::limits::NAME_CHARS_MAX;
use protocol::{JobSpec, WorkPath};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::draft::Drafts;
use crate::graph::Graph;
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::problem::{Found, of_json};
use crate::{FileNo, Problems, Task, TaskNo, check, hyperflow, wfformat};

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// WfFormat 1.5, of WfCommons.
    WfFormat,
    /// `workflow.json`, of HyperFlow.
    HyperFlow,
}

impl Form {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WfFormat => "WfFormat 1.5",
            Self::HyperFlow => "HyperFlow",
        }
    }
}

/// A workflow: tasks that wait for each other, and the files that they hand on.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    form: Form,
    name: Option<String>,
    tasks: Vec<Task>,
    files: Vec<WorkPath>,
    writers: Vec<Option<TaskNo>>,
    /// Is it read by any task?
    is_read: Vec<bool>,
    pub(crate) graph: Arc<Graph>,
}

/// What tells the forms apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Top<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    schema_version: Option<&'a RawValue>,
    #[serde(borrow)]
    workflow: Option<&'a RawValue>,
    #[serde(borrow, alias = "tasks")]
    processes: Option<&'a RawValue>,
    #[serde(borrow, alias = "data")]
    signals: Option<&'a RawValue>,
}

impl Workflow {
    /// Reads a document of either form, or says all that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut found = Found::default();
        let Some((form, name, drafts)) = read(text, &mut found) else { return Err(found.into_problems()) };
        let checked = check::all(drafts, found)?;
        let mut is_read = vec![false; checked.files.paths.len()];
        checked.tasks.iter().flat_map(|task| &task.inputs).for_each(|file| is_read[file.index()] = true);
        Ok(Self {
            form,
            name,
            tasks: checked.tasks,
            files: checked.files.paths,
            writers: checked.writers,
            is_read,
            graph: Arc::new(checked.graph),
        })
    }

    /// How the document is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What the document calls itself, the beginning of it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// All tasks, in the order of the document; there is at least one.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The numbers of all tasks, in the order of the document.
    pub fn task_nos(&self) -> impl ExactSizeIterator<Item = TaskNo> + use<> {
        (0..self.tasks.len()).map(TaskNo::at)
    }

    /// The task of a number, if there is one.
    pub fn get(&self, task: TaskNo) -> Option<&Task> {
        self.tasks.get(task.index())
    }

    /// The tasks that wait for one, in the order of the document.
    pub fn children(&self, task: TaskNo) -> &[TaskNo] {
        self.graph.children(task)
    }

    /// All tasks, each after all that it waits for.
    pub fn order(&self) -> &[TaskNo] {
        &self.graph.order
    }

    /// All files, by their numbers.
    pub fn files(&self) -> &[WorkPath] {
        &self.files
    }

    /// The path of a file of this workflow.
    ///
    /// # Panics
    ///
    /// Where the number is that of a file of another workflow, and too large.
    pub fn file(&self, file: FileNo) -> &WorkPath {
        &self.files[file.index()]
    }

    /// The task that writes a file; none for a file that has to be brought.
    pub fn writer(&self, file: FileNo) -> Option<TaskNo> {
        self.writers.get(file.index()).copied().flatten()
    }

    /// Does no task read the file? Of those that tasks write, these are what the workflow is for.
    pub fn is_final(&self, file: FileNo) -> bool {
        !self.is_read[file.index()]
    }

    /// The files that have to be there before the first task begins: that are read, and no task writes.
    pub fn brought(&self) -> impl Iterator<Item = &WorkPath> {
        self.files.iter().zip(&self.writers).filter(|(_, writer)| writer.is_none()).map(|(file, _)| file)
    }

    /// The files that tasks write and none reads.
    pub fn results(&self) -> impl Iterator<Item = &WorkPath> {
        self.files.iter().zip(&self.is_read).filter(|(_, is_read)| !**is_read).map(|(file, _)| file)
    }

    /// The folders that the files lie in, each after the one that it lies in, without the directory of the workflow.
    /// Tasks expect them: hardly any program makes the folder of a file that it writes.
    pub fn folders(&self) -> BTreeSet<&str> {
        let of = |path| WorkPath::as_str(path).match_indices('/').map(move |(end, _)| &path.as_str()[..end]);
        self.files.iter().flat_map(of).collect()
    }

    /// The job that a task is ([`Task::job`]).
    pub fn job(&self, task: TaskNo) -> Option<JobSpec> {
        Some(self.get(task)?.job())
    }

    /// The tasks by how many others come one after the other before them at the least, in the order of the document:
    /// with room for all, those of one level run at the same time.
    pub fn levels(&self) -> Vec<Vec<TaskNo>> {
        let count = self.graph.depth.iter().max().map_or(0, |most| *most as usize + 1);
        let mut levels = vec![Vec::new(); count];
        self.task_nos().for_each(|task| levels[self.graph.depth[task.index()] as usize].push(task));
        levels
    }

    /// A longest way from a beginning to an end, in tasks: of several the one that comes first in the document. There
    /// are as many tasks on it as there are levels.
    pub fn critical_path(&self) -> Vec<TaskNo> {
        let first = |tasks: &mut dyn Iterator<Item = TaskNo>| {
            tasks.min_by_key(|task| (std::cmp::Reverse(self.graph.height[task.index()]), *task))
        };
        let mut path: Vec<TaskNo> = first(&mut self.task_nos()).into_iter().collect();
        while let Some(next) = path.last().and_then(|last| first(&mut self.children(*last).iter().copied())) {
            path.push(next);
        }
        path
    }
}

/// Reads what is there of tasks. Where it is nothing, that has been told.
fn read(text: &str, found: &mut Found) -> Option<(Form, Option<String>, Drafts)> {
    if text.len() > DOCUMENT_BYTES_MAX {
        found.say(|| {
            format!("it is {} bytes long, and may be {DOCUMENT_BYTES_MAX}; make several workflows of it", text.len())
        });
        return None;
    }
    const NEITHER: &str = "it is no workflow: WfFormat 1.5 is an object with `schemaVersion` and `workflow`, HyperFlow's \
                           an object with `processes` and `signals`";
    // A byte-order mark is no JSON, and some editors write one.
    let top: Top<'_> = match serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(top) => top,
        Err(error) if error.is_data() => {
            found.say(|| format!("{NEITHER}: {}", of_json(&error)));
            return None;
        }
        Err(error) => {
            found.say(|| format!("it is not JSON: {error}"));
            return None;
        }
    };
    let name = top.name.and_then(|name| serde_json::from_str::<String>(name.get()).ok());
    let name = name.map(|name| name.chars().take(NAME_CHARS_MAX).collect());
    match (top.workflow, top.processes) {
        (Some(_), Some(_)) => {
            found.say(|| {
                "it has `workflow` and `processes`, so that it could be of either form; take one out".to_owned()
            });
            None
        }
        (Some(body), None) => Some((Form::WfFormat, name, wfformat::read(top.schema_version, body, found))),
        (None, Some(processes)) => Some((Form::HyperFlow, name, hyperflow::read(processes, top.signals, found))),
        (None, None) => {
            found.say(|| NEITHER.to_owned());
            None
        }
    }
}
