//! Workflows as one message: how long they take against what the rule of the pools makes of their traces in virtual
//! time, and a real one against an engine on a laptop that submits each task as a job of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::consumer::{self, Node};
use super::results::Results;
use super::table::{Aim, Row};
use super::{latency, median, pools, ratios, subfolder};
use crate::command;
use crate::processes::{LocalEdge, Process, clear_settings};
use crate::tools::{Kind, Tools};
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

/// So often the mosaic is made in each way.
const MOSAICS: usize = 2;
const TASKS: usize = 143;

/// What a message of up to 64 KB costs: it is written, read and deleted.
const OPERATIONS: usize = 3;

const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, work) in TRACES {
        rows.push(replay(workspace, &subfolder(folder, name)?, name, work)?);
    }
    rows.extend(mosaics(workspace, folder)?);
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
fn task_runner(workspace: &Workspace) -> anyhow::Result<PathBuf> {
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

/// Montage's mosaic of 143 tasks, as one message and by HyperFlow's engine, in turns.
fn mosaics(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &[Kind::Apptainer, Kind::Montage, Kind::HyperFlow, Kind::Redis])?;
    let mosaic = Mosaic { workspace, tools: &tools, runner: task_runner(workspace)? };
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 0..MOSAICS {
        one.push(mosaic.as_one_message(&subfolder(folder, &format!("message-{round}"))?)?);
        many.push(mosaic.by_engine(&subfolder(folder, &format!("engine-{round}"))?)?);
    }
    let seconds = |made: &[Made]| made.iter().map(|made| made.seconds).collect::<Vec<f64>>();
    let messages = |made: &[Made]| made.iter().map(|made| made.messages).max().unwrap_or_default() * OPERATIONS;
    let (of_one, of_many) = (messages(&one), messages(&many));
    let (one, many) = (seconds(&one), seconds(&many));
    Ok(vec![
        Row {
            measure:
                "workflow: Montage's 143 tasks in Apptainer, as one message, against HyperFlow's engine, which submits \
                      each and waits for it: makespan"
                    .to_owned(),
            here: format!("{:.1} s", median(&one)),
            against: format!("{:.1} s", median(&many)),
            ratio: median(&ratios(&one, &many)),
            aim: Aim::Under(1.0),
        },
        Row {
            measure: "workflow: the same: operations of the queues, without pulls that find nothing".to_owned(),
            here: of_one.to_string(),
            against: of_many.to_string(),
            ratio: of_one as f64 / of_many as f64,
            aim: Aim::Under(0.01),
        },
    ])
}

struct Mosaic<'a> {
    workspace: &'a Workspace,
    tools: &'a Tools,
    runner: PathBuf,
}

/// A mosaic that was made.
struct Made {
    seconds: f64,
    /// Jobs and results that went through the queues.
    messages: usize,
}

impl Mosaic<'_> {
    fn inputs(&self) -> PathBuf {
        self.workspace.root.join("tests/cases/montage143")
    }

    /// Two pools of two processors together, and their tasks.
    fn site(&self, folder: &Path, binds: &str, tasks: &str) -> anyhow::Result<PathBuf> {
        let image = self.tools.get(Kind::Montage)?.path.display();
        let runner = self.runner.display();
        let pool = |name: &str| {
            format!(
                "[pool.{name}]\nimage = \"{image}\"\nbinds = [\"{runner}:/usr/local/bin/task-runner:ro\"{binds}]\n\
                 capacity = {{ cpus = 1 }}\n"
            )
        };
        let text = format!("{}default = true\n{}{tasks}", pool("fits"), pool("mosaic"));
        pools::site_file(folder, &text)
    }

    fn start(&self, folder: &Path, site: &Path) -> anyhow::Result<(consumer::Daemon, LocalEdge, Node)> {
        let edge = LocalEdge::start(self.workspace, Profile::Release, folder)?;
        let node = Node::new(folder, "node")?;
        let mut command = node.command(self.workspace, &edge);
        command.env("SITE_FILE", site).env("APPTAINER_BIN", &self.tools.get(Kind::Apptainer)?.path);
        let daemon = node.start(command)?;
        // It is up, and its pools have been looked at.
        let warm = json!({"task": "command", "input": {"argv": ["sh", "-c", ":"]}});
        latency::User::of(&edge)?.job(&warm)?;
        Ok((daemon, edge, node))
    }

    fn as_one_message(&self, folder: &Path) -> anyhow::Result<Made> {
        let tasks = "[task.montage]\nkind = \"workflow\"\npool = \"fits\"\n\
                     [task.command]\nkind = \"command\"\npool = \"fits\"\n\
                     [task.\"mProject*\"]\nkind = \"command\"\npool = \"fits\"\n\
                     [task.\"mDiffFit*\"]\nkind = \"command\"\npool = \"mosaic\"\n\
                     [task.\"m*\"]\nkind = \"command\"\npool = \"fits\"\n";
        let (mut daemon, edge, node) = self.start(folder, &self.site(folder, "", tasks)?)?;
        let begin = Instant::now();
        let mut laptop = self.laptop(&edge, folder);
        laptop.args(["workflow", "run"]).arg(self.inputs().join("workflow.json"));
        laptop.args(["--task", "montage", "--id", "--dir"]).arg(self.inputs().join("in"));
        let job_id = command::capture(&mut laptop)?.trim().to_owned();
        let mut results = Results::of(&edge)?;
        daemon.process.wait_for("the mosaic was there", PATIENCE, |_| {
            thread::sleep(Duration::from_millis(15));
            (results.count().unwrap_or_default() > 0).then_some(())
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        results.take(1)?;
        daemon.stop()?;
        let done = ended(&node, &format!("{job_id}-"))?;
        ensure!(done == TASKS, "{done} tasks have ended, and not {TASKS}");
        Ok(Made { seconds, messages: 2 })
    }

    fn by_engine(&self, folder: &Path) -> anyhow::Result<Made> {
        let (data, flow) = (folder.join("data"), subfolder(folder, "flow")?);
        copy(&self.inputs().join("in"), &data)?;
        copy(&self.workspace.root.join("examples/hyperflow"), &flow)?;
        fs::copy(self.inputs().join("workflow.json"), flow.join("workflow.json"))?;
        // The same pools have the same work.
        let pools = json!({"workDir": "/data", "pools": {"*": "fits", "mDiffFit": "mosaic"}});
        fs::write(flow.join("workflow.config.hpcQueue.json"), pools.to_string())?;
        let binds = format!(", \"{}:/data\"", data.display());
        let tasks = "[task.command]\nkind = \"command\"\npools = [\"fits\", \"mosaic\"]\n";
        let (daemon, edge, node) = self.start(folder, &self.site(folder, &binds, tasks)?)?;
        let before = ended(&node, "")?;
        let socket = folder.join("redis.sock");
        let mut redis = Command::new(&self.tools.get(Kind::Redis)?.path);
        redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).current_dir(folder);
        let mut redis = Process::start("redis", &mut redis, folder)?;
        redis.wait_for("it listened", Duration::from_secs(20), |_| socket.exists().then_some(()))?;
        let node_js = command::on_path("node").context("Node.js, `node`, is not on the PATH")?;
        let laptop = self.laptop(&edge, folder);
        let programs = self.workspace.target.join(Profile::Release.folder());
        let path = std::env::join_paths(
            std::iter::once(programs).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let mut engine = Command::new(node_js);
        engine.envs(laptop.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // Its clients look for their settings where they are started.
        fs::copy(&edge.env_file, folder.join(".env"))?;
        fs::copy(&edge.env_file, flow.join(".env"))?;
        engine
            .env("REDIS_URL", &socket)
            .env("WORKFLOW_RUN", "first")
            .env("PATH", path)
            .current_dir(folder)
            .arg(self.tools.get(Kind::HyperFlow)?.path.join("bin/hflow.js"))
            .args(["run", "--var=function=hpcQueue"])
            .arg(&flow);
        let begin = Instant::now();
        let mut engine = Process::start("hyperflow", &mut engine, folder)?;
        let status = engine.wait(PATIENCE)?;
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(status.success(), "HyperFlow ended with {status}: {}", engine.log());
        daemon.stop()?;
        let jobs = ended(&node, "")? - before;
        ensure!(jobs == TASKS, "{jobs} jobs have ended, and not {TASKS}");
        Ok(Made { seconds, messages: 2 * jobs })
    }

    fn laptop(&self, edge: &LocalEdge, folder: &Path) -> Command {
        let mut laptop = Command::new(self.workspace.program(Profile::Release, "laptop-consumer"));
        clear_settings(&mut laptop);
        laptop.arg("--env-file").arg(&edge.env_file);
        laptop.env("LAPTOP_DATA_DIR", folder.join("laptop")).env("RESULTS_POLL_INTERVAL_SECONDS", "0.2");
        laptop
    }
}

/// How many jobs have a record whose ids begin so.
fn ended(node: &Node, begin: &str) -> anyhow::Result<usize> {
    let names = fs::read_dir(node.results())?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids: BTreeSet<String> = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    Ok(ids.iter().filter(|id| !id.starts_with('.') && id.starts_with(begin)).count())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
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
