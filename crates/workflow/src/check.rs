//! What must hold of all tasks together, so that they are a workflow.

use std::collections::HashMap;

use crate::draft::{Draft, Drafts, Files};
use crate::graph::Graph;
use crate::problem::{Found, listed, shown};
use crate::{FileNo, Problems, Task, TaskNo};

/// Tasks that are a workflow.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) tasks: Vec<Task>,
    pub(crate) files: Files,
    /// Who writes each file.
    pub(crate) writers: Vec<Option<TaskNo>>,
    pub(crate) graph: Graph,
}

/// Makes a workflow of drafts, or says all that is wrong, after what was found before.
pub(crate) fn all(drafts: Drafts, mut found: Found) -> Result<Checked, Problems> {
    let mut drafts = drafts.all;
    if drafts.is_empty() && found.is_empty() {
        found.say(|| "the workflow has no tasks; there is nothing to run".to_owned());
    }
    let mut files = Files::default();
    let mut tasks: Vec<Task> = drafts.iter_mut().map(|draft| draft.task(&mut files, &mut found)).collect();
    let writers = writers(&tasks, &files, &mut found);
    for (path, outer) in files.within_files() {
        found.say(|| {
            let (path, outer) = (shown(path.as_str()), shown(outer.as_str()));
            format!("the file {path} lies within {outer}, which is a file as well; call one of them otherwise")
        });
    }
    for (at, parents) in parents(&drafts, &tasks, &writers, &mut found).into_iter().enumerate() {
        tasks[at].parents = parents;
    }
    let parents: Vec<Vec<TaskNo>> = tasks.iter().map(|task| task.parents.clone()).collect();
    let graph = match Graph::new(&parents) {
        Ok(graph) => {
            check_far_reads(&tasks, &files, &writers, &graph, &mut found);
            Some(graph)
        }
        Err(circles) => {
            for circle in circles {
                found.say(|| in_words(&circle, &tasks));
            }
            None
        }
    };
    found.into_result()?;
    let graph = graph.expect("a circle has been told");
    Ok(Checked { tasks, files, writers, graph })
}

fn in_words(circle: &[TaskNo], tasks: &[Task]) -> String {
    match circle {
        [task] => format!("the task {} waits for itself", shown(&tasks[task.index()].id)),
        circle => {
            let names = circle.iter().map(|task| tasks[task.index()].id.as_str());
            format!("these tasks wait for each other in a circle: {}", listed(names))
        }
    }
}

fn writers(tasks: &[Task], files: &Files, found: &mut Found) -> Vec<Option<TaskNo>> {
    let mut writers: Vec<Option<TaskNo>> = vec![None; files.paths.len()];
    for (at, task) in tasks.iter().enumerate() {
        for file in &task.outputs {
            match writers[file.index()] {
                None => writers[file.index()] = Some(TaskNo::at(at)),
                Some(other) => found.of(&task.id, || {
                    let (file, other) = (shown(files.paths[file.index()].as_str()), shown(&tasks[other.index()].id));
                    format!("it writes {file}, and {other} writes it as well; a file is of one task")
                }),
            }
        }
    }
    writers
}

/// The parents of each task, sorted.
fn parents(drafts: &[Draft], tasks: &[Task], writers: &[Option<TaskNo>], found: &mut Found) -> Vec<Vec<TaskNo>> {
    let mut numbers: HashMap<&str, TaskNo> = HashMap::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        if numbers.insert(&task.id, TaskNo::at(at)).is_some() {
            found.of(&task.id, || "its id is that of an earlier task, too; give each its own".to_owned());
        }
    }
    let mut parents: Vec<Vec<TaskNo>> = vec![Vec::new(); tasks.len()];
    if drafts.iter().all(|draft| draft.parents.is_none() && draft.children.is_none()) {
        for (list, (task, at)) in parents.iter_mut().zip(tasks.iter().zip(0..)) {
            // A task that reads what it writes has been told of.
            let others =
                task.inputs.iter().filter_map(|file| writers[file.index()]).filter(|writer| writer.index() != at);
            list.extend(others);
        }
    } else {
        // As child and parent, sorted.
        let mut edges = |of: fn(&Draft) -> &Option<Vec<String>>, kind: &str| {
            let mut edges = Vec::new();
            for (at, (draft, task)) in drafts.iter().zip(tasks).enumerate() {
                for other in of(draft).iter().flatten() {
                    match numbers.get(other.as_str()) {
                        Some(other) => edges.push((TaskNo::at(at), *other)),
                        None => found.of(&task.id, || {
                            format!("its {kind} {} is no task of the workflow; add that, or take it out", shown(other))
                        }),
                    }
                }
            }
            edges
        };
        let mut by_child = edges(|draft| &draft.parents, "parent");
        let by_parent = edges(|draft| &draft.children, "child").into_iter();
        let mut by_parent: Vec<_> = by_parent.map(|(parent, child)| (child, parent)).collect();
        by_child.sort_unstable();
        by_parent.sort_unstable();
        contradictions(drafts, tasks, [&by_child, &by_parent], found);
        for (child, parent) in by_child.into_iter().chain(by_parent) {
            parents[child.index()].push(parent);
        }
    }
    for list in &mut parents {
        list.sort_unstable();
        list.dedup();
    }
    parents
}

/// Edges, each as child and parent, that only one of the two says, although the other says its own.
fn contradictions(
    drafts: &[Draft],
    tasks: &[Task],
    [by_child, by_parent]: [&[(TaskNo, TaskNo)]; 2],
    found: &mut Found,
) {
    let id = |task: &TaskNo| &tasks[task.index()].id;
    for edge @ (child, parent) in by_child {
        if drafts[parent.index()].children.is_some() && by_parent.binary_search(edge).is_err() {
            found.of(id(child), || {
                let parent = shown(id(parent));
                format!(
                    "its parents have {parent}, and the children of {parent} do not have it; make both say the same"
                )
            });
        }
    }
    for edge @ (child, parent) in by_parent {
        if drafts[child.index()].parents.is_some() && by_child.binary_search(edge).is_err() {
            found.of(id(parent), || {
                let child = shown(id(child));
                format!("its children have {child}, and the parents of {child} do not have it; make both say the same")
            });
        }
    }
}

/// What is read has to be there: whoever reads a file that a task writes waits for that task, if only through others.
fn check_far_reads(tasks: &[Task], files: &Files, writers: &[Option<TaskNo>], graph: &Graph, found: &mut Found) {
    let mut far: Vec<(TaskNo, TaskNo, FileNo)> = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        let written = task.inputs.iter().filter_map(|file| Some((writers[file.index()]?, *file)));
        let others = written.filter(|(writer, _)| writer.index() != at && task.parents.binary_search(writer).is_err());
        far.extend(others.map(|(writer, file)| (writer, TaskNo::at(at), file)));
    }
    far.sort_unstable();
    let mut distinct: Vec<TaskNo> = far.iter().map(|(writer, ..)| *writer).collect();
    distinct.dedup();
    let mut far = far.as_slice();
    // A bit for each of so many writers: one way through the graph finds the descendants of all of them.
    for together in distinct.chunks(u64::BITS as usize) {
        if found.is_full() {
            return;
        }
        let mut is_below = vec![0_u64; graph.len()];
        let mut own = vec![0_u64; graph.len()];
        together.iter().zip(0..).for_each(|(writer, bit)| own[writer.index()] = 1 << bit);
        for task in &graph.order {
            let parents = graph.parents(*task).iter().map(|parent| parent.index());
            is_below[task.index()] = parents.fold(0, |bits, parent| bits | is_below[parent] | own[parent]);
        }
        let end = far.partition_point(|(writer, ..)| Some(writer) <= together.last());
        let (now, later) = far.split_at(end);
        for (writer, reader, file) in now {
            if is_below[reader.index()] & own[writer.index()] == 0 {
                let (id, writer) = (&tasks[reader.index()].id, shown(&tasks[writer.index()].id));
                found.of(id, || {
                    let file = shown(files.paths[file.index()].as_str());
                    format!("it reads {file}, which {writer} writes, and does not wait for that; add {writer} to its parents")
                });
            }
        }
        far = later;
    }
}
