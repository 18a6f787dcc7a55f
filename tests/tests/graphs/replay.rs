//! Workflows that others have run, with programs that sleep as long as those ran, in short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use testkit::{PATIENCE, parts};

use super::graphs::{Case, Task, document};
use super::record_of;

/// How long all tasks of one sleep together, in seconds; the pool has room for two at a time.
const WORK: f64 = 6.0;

/// A task of a trace: for how long it ran, and what it waited for.
struct Traced {
    seconds: f64,
    parents: BTreeSet<String>,
}

fn trace(name: &str) -> BTreeMap<String, Traced> {
    let path = parts::workspace().join("tests/cases/wfcommons").join(name);
    let text = fs::read_to_string(path).expect("it is in the repository");
    let trace: Value = serde_json::from_str(&text).expect("it is JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value["id"].as_str().expect("tasks have ids").to_owned();
    let ran = list(&trace["workflow"]["execution"]["tasks"]);
    let seconds: BTreeMap<String, f64> =
        ran.iter().map(|task| (id(task), task["runtimeInSeconds"].as_f64().expect("each has run"))).collect();
    let specified = list(&trace["workflow"]["specification"]["tasks"]);
    let traced = specified.iter().map(|task| {
        let parents = list(&task["parents"]).iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        (id(task), Traced { seconds: seconds[&id(task)], parents })
    });
    traced.collect()
}

/// When each task of a replay began and ended, in nanoseconds, as it says itself.
fn replayed(trace: &BTreeMap<String, Traced>) -> BTreeMap<String, (u64, u64)> {
    let case = Case::confined();
    let _daemon = case.consumer.start();
    let home = case.home.path().display();
    let scale = WORK / trace.values().map(|task| task.seconds).sum::<f64>();
    let line = |(id, task): (&String, &Traced)| {
        let sleep = format!("sleep {:.4}", task.seconds * scale);
        format!("date +%s%N >> {home}/{id}; {sleep}; date +%s%N >> {home}/{id}")
    };
    let lines: Vec<String> = trace.iter().map(line).collect();
    let parents: Vec<Vec<&str>> =
        trace.values().map(|task| task.parents.iter().map(String::as_str).collect()).collect();
    let tasks: Vec<Task<'_>> = trace
        .keys()
        .zip(&parents)
        .zip(&lines)
        .map(|((id, parents), line)| -> Task<'_> { (id, parents, &[], &[], line) })
        .collect();
    let job_id = case.submit(&document(&tasks));
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    let count = trace.len();
    assert_eq!(record["output"], json!({ "tasks": count, "done": count, "failed": 0, "skipped": 0 }), "{record}");
    let noted = |id: &String| {
        let text = fs::read_to_string(case.home.path().join(id)).expect("it has run");
        let times: Vec<u64> = text.lines().map(|time| time.parse().expect("a time")).collect();
        assert_eq!(times.len(), 2, "{id} has run once: {text}");
        (id.clone(), (times[0], times[1]))
    };
    trace.keys().map(noted).collect()
}

fn assert_no_task_begins_before_its_parents_have_ended(name: &str, tasks: usize, edges: usize) {
    let trace = trace(name);
    let pairs = || trace.iter().flat_map(|(id, task)| task.parents.iter().map(move |parent| (id, parent)));
    assert_eq!((trace.len(), pairs().count()), (tasks, edges), "{name}");
    let noted = replayed(&trace);
    for (id, parent) in pairs() {
        assert!(noted[id].0 >= noted[parent].1, "{name}: {id} began before {parent} had ended: {noted:?}");
    }
    // It used the room that there is: one after the other, no two would overlap.
    let beside = noted.values().any(|(begun, _)| noted.values().any(|(from, to)| from < begun && begun < to));
    assert!(beside, "{name}: {noted:?}");
}

#[test]
fn the_tasks_of_montage_begin_in_the_order_of_the_graph() {
    assert_no_task_begins_before_its_parents_have_ended("montage-chameleon-2mass-005d-001.json", 58, 114);
}

#[test]
fn the_tasks_of_1000genome_begin_in_the_order_of_the_graph() {
    assert_no_task_begins_before_its_parents_have_ended("1000genome-chameleon-2ch-100k-001.json", 52, 76);
}
