//! Workflows as one message: how long they take against what the rule of the pools makes of their traces in virtual
//! time, and a real one against other ways to run it (`mosaic`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::consumer::Node;
use super::table::{Aim, Row};
use super::{latency, mosaic, pools, subfolder};
use crate::command;
use crate::processes::{LocalEdge, clear_settings};
use crate::workspace::{Profile, Workspace, musl_target};

/// The traces, each with how many seconds its tasks sleep together.
const TRACES: [(&str, f64); 4] = [
    ("montage-chameleon-2mass-005d-001", 40.0),
    ("montage-chameleon-2mass-01d-001", 60.0),
    ("1000genome-chameleon-2ch-100k-001", 40.0),
    ("epigenomics-chameleon-hep-1seq-50k-001", 40.0),
];

/// So many of these sleep at a time.
const SLOTS: usize = 8;

/// By how much a trace may take longer than in virtual time.
const REPLAY_AIM: f64 = 1.3;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, work) in TRACES {
        rows.push(replay(workspace, &subfolder(folder, name)?, name, work)?);
    }
    rows.extend(mosaic::measure(workspace, folder)?);
    Ok(rows)
}

/// A trace whose tasks sleep: with the times of it, shortened, and as a document.
struct Trace {
    shortened: Value,
    document: Value,
    tasks: usize,
}

impl Trace {
    fn of(text: &str, work: f64) -> anyhow::Result<Self> {
        let mut trace: Value = serde_json::from_str(text)?;
        let specified = trace["workflow"]["specification"]["tasks"].as_array().cloned().context("there are tasks")?;
        let ran = trace["workflow"]["execution"]["tasks"].as_array_mut().context("there are run times")?;
        let total: f64 = ran.iter().filter_map(|task| task["runtimeInSeconds"].as_f64()).sum();
        let mut commands = Vec::new();
        for task in ran {
            let seconds = task["runtimeInSeconds"].as_f64().context("a task has no run time")? * work / total;
            task["runtimeInSeconds"] = json!(seconds);
            let arguments = json!([format!("{seconds:.4}")]);
            commands.push(json!({"id": task["id"], "command": {"program": "sleep", "arguments": arguments}}));
        }
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for task in &specified {
            for parent in task["parents"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                children.entry(parent).or_default().push(task["id"].as_str().unwrap_or_default());
            }
        }
        let task = |task: &Value| {
            let id = task["id"].as_str().unwrap_or_default();
            let children = children.get(id).cloned().unwrap_or_default();
            json!({"id": id, "name": id, "parents": task["parents"], "children": children})
        };
        let tasks: Vec<Value> = specified.iter().map(task).collect();
        let count = tasks.len();
        let document = json!({
            "name": "a trace", "schemaVersion": "1.5",
            "workflow": {"specification": {"tasks": tasks}, "execution": {"tasks": commands}},
        });
        Ok(Self { shortened: trace, document, tasks: count })
    }
}

/// One trace, by the daemon and in virtual time.
fn replay(workspace: &Workspace, folder: &Path, name: &str, work: f64) -> anyhow::Result<Row> {
    let text = fs::read_to_string(workspace.root.join("tests/cases/wfcommons").join(format!("{name}.json")))?;
    let trace = Trace::of(&text, work)?;
    let runner = task_runner(workspace)?;
    let site = pools::site_file(
        folder,
        &format!(
            "[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncapacity = {{ cpus = {SLOTS} }}\n\
             [task.flow]\nkind = \"workflow\"\npool = \"cpu\"\n\
             [task.\"*\"]\nkind = \"command\"\npool = \"cpu\"\ncommand = [\"{}\", \"command\"]\n",
            runner.display()
        ),
    )?;
    let shortened = folder.join("trace.json");
    fs::write(&shortened, trace.shortened.to_string())?;
    let mut simulate = Command::new(workspace.program(Profile::Release, "hpc-consumer"));
    simulate.args(["scaling", "simulate"]).arg(&shortened).arg("--site").arg(&site);
    simulate.args(["--start", "0.001s", "--interval", "1s", "--output", "json"]);
    clear_settings(&mut simulate);
    let told: Value = serde_json::from_str(&command::capture(&mut simulate)?)?;
    let virtual_seconds = told["makespan_seconds"].as_f64().context("the simulation tells no makespan")?;

    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    let mut command = node.command(workspace, &edge);
    command.env("SITE_FILE", &site);
    let mut daemon = node.start(command)?;
    // It is up, and its pool is ready.
    latency::User::of(&edge)?.job(&json!({"task": "true", "input": {"argv": ["true"]}}))?;
    let seconds = latency::User::of(&edge)?.job(&json!({"task": "flow", "input": trace.document}))?;
    daemon.runs()?;
    daemon.stop()?;
    Ok(Row {
        measure: format!(
            "workflow: {name}, {} tasks that sleep, {SLOTS} at a time, against the simulation",
            trace.tasks
        ),
        here: format!("{seconds:.2} s"),
        against: format!("{virtual_seconds:.2} s"),
        ratio: seconds / virtual_seconds,
        aim: Aim::Under(REPLAY_AIM),
    })
}

/// The static task runner, which is built where it is not there.
pub(super) fn task_runner(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let path = workspace.target.join(musl_target()).join("release/task-runner");
    if !path.exists() {
        command::run(workspace.cargo("build").args([
            "--release",
            "--package",
            "task-runner",
            "--target",
            &musl_target(),
        ]))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_sleeps_for_as_long_as_it_is_told_in_all() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/wfcommons");
        for (name, work) in TRACES {
            let text = fs::read_to_string(root.join(format!("{name}.json"))).unwrap();
            let Trace { document, tasks, .. } = Trace::of(&text, work).unwrap();
            let commands = document["workflow"]["execution"]["tasks"].as_array().unwrap();
            let slept: f64 = commands
                .iter()
                .map(|task| task["command"]["arguments"][0].as_str().unwrap().parse::<f64>().unwrap())
                .sum();
            assert!(commands.len() == tasks && (slept - work).abs() < 0.1, "{name}: {slept}");
        }
    }
}
