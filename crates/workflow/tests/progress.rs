//! Workflows of any shape, of which tasks end as they like.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use workflow::{Ended, Progress, TaskNo, TaskState, Workflow};

/// A workflow in which each task reads the file of each that it waits for.
fn workflow(parents: &[BTreeSet<usize>]) -> Workflow {
    let id = |task: &usize| format!("t{task}");
    let file = |task: &usize| format!("f{task}");
    let task = |(at, parents): (usize, &BTreeSet<usize>)| {
        let (ids, files): (Vec<String>, Vec<String>) = parents.iter().map(|parent| (id(parent), file(parent))).unzip();
        json!({"id": id(&at), "name": "t", "parents": ids, "inputFiles": files, "outputFiles": [file(&at)]})
    };
    let tasks: Vec<Value> = parents.iter().enumerate().map(task).collect();
    let executed: Vec<Value> =
        (0..parents.len()).map(|at| json!({"id": id(&at), "command": {"program": "p"}})).collect();
    let document = json!({"schemaVersion": "1.5", "workflow": {
        "specification": {"tasks": tasks}, "execution": {"tasks": executed}}});
    Workflow::parse(&document.to_string()).expect("it is a workflow")
}

/// What each task waits for, in an order of the document that says nothing.
fn parents() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    (1..40_usize).prop_flat_map(|count| {
        let edges = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..count * 3);
        (Just(()).prop_map(move |()| (0..count).collect::<Vec<_>>()).prop_shuffle(), edges).prop_map(
            move |(places, edges)| {
                let mut parents = vec![BTreeSet::new(); count];
                for (one, other) in edges {
                    let (one, other) = (one.index(count), other.index(count));
                    if one != other {
                        parents[places[one.max(other)]].insert(places[one.min(other)]);
                    }
                }
                parents
            },
        )
    })
}

fn all_below(workflow: &Workflow, task: TaskNo) -> BTreeSet<TaskNo> {
    let mut below = BTreeSet::new();
    let mut next = vec![task];
    while let Some(task) = next.pop() {
        next.extend(workflow.children(task).iter().filter(|child| below.insert(**child)));
    }
    below
}

proptest! {
    #[test]
    fn each_task_begins_after_its_parents_and_ends_in_one_way(
        parents in parents(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1), any::<bool>()), 200),
    ) {
        let workflow = workflow(&parents);
        let mut progress = Progress::new(&workflow);
        let (mut begun, mut failed, mut done) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut steps = steps.into_iter().cycle();
        while !progress.is_over() {
            let ready: Vec<TaskNo> = progress.ready().collect();
            for task in &ready {
                let waits_for = &workflow.get(*task).unwrap().parents;
                prop_assert!(waits_for.iter().all(|parent| done.contains(parent)), "{task:?} is ready too early");
            }
            // None is held back either.
            for task in workflow.task_nos() {
                let could = workflow.get(task).unwrap().parents.iter().all(|parent| done.contains(parent));
                let is_new = !begun.contains(&task) && !done.contains(&task) && !failed.contains(&task);
                prop_assert_eq!(could && is_new, ready.contains(&task), "{:?}", task);
            }
            let (which, fails, begins) = steps.next().unwrap();
            if (begins || begun.is_empty()) && !ready.is_empty() {
                let task = ready[which.index(ready.len())];
                prop_assert!(progress.begun(task) && !progress.begun(task));
                begun.push(task);
            } else {
                let task = begun.swap_remove(which.index(begun.len()));
                let how = if fails { Ended::Failed } else { Ended::Done };
                prop_assert!(progress.ended(task, how));
                prop_assert!(!progress.ended(task, Ended::Done) && !progress.ended(task, Ended::Failed));
                if fails { failed.insert(task) } else { done.insert(task) };
            }
            let summary = progress.summary();
            let all = [summary.waiting, summary.ready, summary.begun, summary.done, summary.failed, summary.skipped];
            prop_assert_eq!(all.iter().sum::<usize>(), parents.len());
        }
        let lost: BTreeSet<TaskNo> = failed.iter().flat_map(|task| all_below(&workflow, *task)).collect();
        for task in workflow.task_nos() {
            let expected = match (done.contains(&task), failed.contains(&task), lost.contains(&task)) {
                (true, false, false) => TaskState::Done,
                (false, true, false) => TaskState::Failed,
                (false, false, true) => TaskState::Skipped,
                other => panic!("{task:?}: {other:?}"),
            };
            prop_assert_eq!(progress.state(task), Some(expected));
        }

        // What is known of the ends makes the same progress.
        let mut again = Progress::new(&workflow);
        for task in workflow.order() {
            let how = if failed.contains(task) { Ended::Failed } else { Ended::Done };
            prop_assert_eq!(again.ended(*task, how), !lost.contains(task));
        }
        prop_assert_eq!(again.summary(), progress.summary());
    }

    #[test]
    fn a_second_run_does_what_is_missing_and_nothing_else(
        parents in parents(),
        done in prop::collection::vec(prop::bool::weighted(0.8), 40),
        there in prop::collection::vec(prop::bool::weighted(0.7), 40),
    ) {
        let workflow = workflow(&parents);
        let number = |path: &str| path[1..].parse::<usize>().unwrap();
        let mut progress =
            Progress::resume(&workflow, |task| done[task.index()], |path| there[number(path.as_str())]);
        let runs: BTreeSet<TaskNo> =
            workflow.task_nos().filter(|task| progress.state(*task) != Some(TaskState::Done)).collect();
        for task in workflow.task_nos() {
            let was_done = |task: TaskNo| done[task.index()];
            let above = workflow.task_nos().filter(|above| all_below(&workflow, *above).contains(&task));
            let must = !was_done(task) || above.into_iter().any(|above| !was_done(above));
            let children = workflow.children(task);
            let is_missed = !there[task.index()] && (children.is_empty() || children.iter().any(|child| runs.contains(child)));
            prop_assert_eq!(must || is_missed, runs.contains(&task), "{:?}", task);
        }
        // It can be done, and whoever runs has what it reads.
        let mut present: BTreeSet<usize> = (0..parents.len()).filter(|at| there[*at]).collect();
        while let Some(task) = progress.first_ready() {
            let inputs = &workflow.get(task).unwrap().inputs;
            let is_there = |file: &workflow::FileNo| present.contains(&number(workflow.file(*file).as_str()));
            prop_assert!(inputs.iter().all(is_there), "{task:?} has nothing to read");
            prop_assert!(progress.begun(task) && progress.ended(task, Ended::Done));
            present.insert(task.index());
        }
        prop_assert_eq!(progress.summary().done, parents.len());
        prop_assert!(workflow.task_nos().all(|task| !workflow.children(task).is_empty() || present.contains(&task.index())));
    }
}

#[test]
fn the_longest_way_goes_first_and_then_the_order_of_the_document() {
    let parents = [vec![], vec![], vec![], vec![2], vec![3], vec![0]];
    let workflow = workflow(&parents.map(BTreeSet::from_iter));
    let ready: Vec<usize> = Progress::new(&workflow).ready().map(TaskNo::index).collect();
    assert_eq!(ready, [2, 0, 1]);
    let levels: Vec<Vec<usize>> =
        workflow.levels().iter().map(|level| level.iter().map(|task| task.index()).collect()).collect();
    assert_eq!(levels, [vec![0, 1, 2], vec![3, 5], vec![4]]);
    let path: Vec<usize> = workflow.critical_path().iter().map(|task| task.index()).collect();
    assert_eq!(path, [2, 3, 4]);
}

#[test]
fn what_is_not_there_changes_nothing() {
    let workflow = workflow(&[BTreeSet::new(), BTreeSet::from([0])]);
    let mut progress = Progress::new(&workflow);
    assert!(!progress.begun(TaskNo::new(7)) && !progress.ended(TaskNo::new(7), Ended::Done));
    assert!(!progress.begun(TaskNo::new(1)) && !progress.ended(TaskNo::new(1), Ended::Failed), "it waits");
    assert_eq!((progress.summary().ready, progress.summary().waiting), (1, 1));
    assert_eq!(progress.state(TaskNo::new(7)), None);
}
