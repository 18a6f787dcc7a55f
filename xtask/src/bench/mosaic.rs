//! Montage's mosaic of 143 tasks in containers, in four ways: as one message, as 143 jobs that a user submits one by
//! one, and by HyperFlow's engine, which has hpc-queue run each task or has workers of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::consumer::{Daemon, Node};
use super::results::Results;
use super::table::{Aim, Row};
use super::workflows::task_runner;
use super::{latency, median, pools, ratios, subfolder};
use crate::command;
use crate::processes::{LocalEdge, Process, clear_settings};
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};

/// So often it is made in each way: of two, one that something disturbs would count for half.
const ROUNDS: usize = 3;
const TASKS: usize = 143;

/// What a message of up to 64 KB costs: it is written, read and deleted.
const OPERATIONS: usize = 3;

const PATIENCE: Duration = Duration::from_secs(300);
/// How long between two looks at the queue of results.
const LOOK: Duration = Duration::from_millis(15);

/// A function for HyperFlow with a worker in each pool: a container that stays, and runs one command after the other.
const WORKERS: &str = r#"
const { spawn } = require("node:child_process");
const { createInterface } = require("node:readline");
const { PROGRAM, IMAGE, DATA } = process.env;
const workers = {};
function worker(pool) {
  const options = ["exec", "--no-privs", "--bind", `${DATA}:/data`, "--pwd", "/data", IMAGE, "sh"];
  const shell = spawn(PROGRAM, options, { stdio: ["pipe", "pipe", "inherit"] });
  const waiting = [];
  createInterface({ input: shell.stdout }).on("line", (line) => waiting.shift()(line));
  return (argv, then) => {
    waiting.push(then);
    shell.stdin.write(`${argv.map((word) => `'${word}'`).join(" ")} </dev/null >/dev/null; echo $?\n`);
  };
}
exports.own = (ins, outs, context, done) => {
  const { executable, args } = context.executor;
  const pool = executable === "mDiffFit" ? "mosaic" : "fits";
  (workers[pool] ??= worker(pool))([executable, ...args], (code) => {
    if (code !== "0") process.exit(1);
    done(null, outs);
  });
};
"#;

/// Makes it in each way, in turns.
pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &[Kind::Apptainer, Kind::Montage, Kind::HyperFlow, Kind::Redis])?;
    let mosaic = Mosaic { workspace, tools: &tools, runner: task_runner(workspace)? };
    let (mut message, mut single, mut engine, mut workers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let place = |way: &str| subfolder(folder, &format!("{way}-{round}"));
        message.push(mosaic.as_one_message(&place("message")?)?);
        single.push(mosaic.one_by_one(&place("single")?)?);
        engine.push(mosaic.by_engine(&place("engine")?)?);
        workers.push(mosaic.by_workers_of_the_engine(&place("workers")?)?);
    }
    let row = |against: &str, others: &[f64], aim: Aim| Row {
        measure: format!("workflow: makespan of Montage's 143 tasks in Apptainer, as one message, against {against}"),
        here: format!("{:.1} s", median(&message)),
        against: format!("{:.1} s", median(others)),
        ratio: median(&ratios(&message, others)),
        aim,
    };
    // A job and its result are a message each.
    let (of_one, of_all) = (2 * OPERATIONS, 2 * OPERATIONS * TASKS);
    Ok(vec![
        row("143 single submissions, each when its results are there", &single, Aim::Under(1.0)),
        row("HyperFlow's engine that has each submitted", &engine, Aim::Under(1.0)),
        row("HyperFlow's engine with a container that stays in each pool", &workers, Aim::None),
        Row {
            measure:
                "workflow: the same against single submissions: operations of the queues, without pulls that find \
                      nothing"
                    .to_owned(),
            here: of_one.to_string(),
            against: of_all.to_string(),
            ratio: of_one as f64 / of_all as f64,
            aim: Aim::Under(0.01),
        },
    ])
}

struct Mosaic<'a> {
    workspace: &'a Workspace,
    tools: &'a Tools,
    runner: PathBuf,
}

/// A task of HyperFlow's graph.
struct Task {
    argv: Vec<String>,
    /// The tasks that write what it reads.
    waits_for: BTreeSet<usize>,
}

/// Which pool has the work of a program; in all ways the same.
fn pool_of(program: &str) -> &'static str {
    if program == "mDiffFit" { "mosaic" } else { "fits" }
}

impl Mosaic<'_> {
    fn inputs(&self) -> PathBuf {
        self.workspace.root.join("tests/cases/montage143")
    }

    fn tool(&self, kind: Kind) -> anyhow::Result<&Path> {
        Ok(&self.tools.get(kind)?.path)
    }

    /// Two pools of one processor each, and their tasks.
    fn site(&self, folder: &Path, binds: &str, tasks: &str) -> anyhow::Result<PathBuf> {
        let (image, runner) = (self.tool(Kind::Montage)?.display(), self.runner.display());
        let pool = |name: &str| {
            format!(
                "[pool.{name}]\nimage = \"{image}\"\nbinds = [\"{runner}:/usr/local/bin/task-runner:ro\"{binds}]\n\
                 capacity = {{ cpus = 1 }}\n"
            )
        };
        pools::site_file(folder, &format!("{}default = true\n{}{tasks}", pool("fits"), pool("mosaic")))
    }

    fn start(&self, folder: &Path, site: &Path) -> anyhow::Result<(Daemon, LocalEdge, Node)> {
        let edge = LocalEdge::start(self.workspace, Profile::Release, folder)?;
        let node = Node::new(folder, "node")?;
        let mut command = node.command(self.workspace, &edge);
        command.env("SITE_FILE", site).env("APPTAINER_BIN", self.tool(Kind::Apptainer)?);
        let daemon = node.start(command)?;
        // It is up, and its pools have been looked at.
        let warm = json!({"task": "command", "input": {"argv": ["sh", "-c", ":"]}});
        latency::User::of(&edge)?.job(&warm)?;
        Ok((daemon, edge, node))
    }

    /// The same for jobs that find the files of the workflow in `data`, in whichever pool they name.
    fn start_with(&self, folder: &Path, data: &Path) -> anyhow::Result<(Daemon, LocalEdge, Node)> {
        copy(&self.inputs().join("in"), data)?;
        let tasks = "[task.command]\nkind = \"command\"\npools = [\"fits\", \"mosaic\"]\n";
        self.start(folder, &self.site(folder, &format!(", \"{}:/data\"", data.display()), tasks)?)
    }

    /// The seconds from the call of `workflow run`, which brings the images, until the result is in the queue.
    fn as_one_message(&self, folder: &Path) -> anyhow::Result<f64> {
        let tasks = "[task.montage]\nkind = \"workflow\"\npool = \"fits\"\n\
                     [task.command]\nkind = \"command\"\npool = \"fits\"\n\
                     [task.mDiffFit]\nkind = \"command\"\npool = \"mosaic\"\n\
                     [task.\"m*\"]\nkind = \"command\"\npool = \"fits\"\n";
        let (mut daemon, edge, node) = self.start(folder, &self.site(folder, "", tasks)?)?;
        let begin = Instant::now();
        let mut laptop = self.laptop(&edge, folder);
        laptop.args(["workflow", "run"]).arg(self.inputs().join("workflow.json"));
        laptop.args(["--task", "montage", "--id", "--dir"]).arg(self.inputs().join("in"));
        let job_id = command::capture(&mut laptop)?.trim().to_owned();
        let mut results = Results::of(&edge)?;
        daemon.process.wait_for("the mosaic was there", PATIENCE, |_| {
            thread::sleep(LOOK);
            (results.count().unwrap_or_default() > 0).then_some(())
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        results.take(1)?;
        daemon.stop()?;
        all_have_ended(ended(&node, &format!("{job_id}-"))?)?;
        Ok(seconds)
    }

    /// The seconds of a user who submits each task as soon as the results of those that it waits for are there.
    fn one_by_one(&self, folder: &Path) -> anyhow::Result<f64> {
        let tasks = tasks(&fs::read_to_string(self.inputs().join("workflow.json"))?)?;
        let (mut daemon, edge, node) = self.start_with(folder, &folder.join("data"))?;
        let before = ended(&node, "")?;
        let mut user = latency::User::of(&edge)?;
        let (mut under_way, mut done) = (BTreeMap::new(), BTreeSet::new());
        let begin = Instant::now();
        while done.len() < tasks.len() {
            for (place, task) in tasks.iter().enumerate() {
                if !under_way.values().any(|one| *one == place)
                    && !done.contains(&place)
                    && task.waits_for.is_subset(&done)
                {
                    let argv: Vec<&str> = ["sh", "-c", r#"cd /data && exec "$0" "$@""#]
                        .into_iter()
                        .chain(task.argv.iter().map(String::as_str))
                        .collect();
                    let job = json!({"task": "command", "pool": pool_of(&task.argv[0]), "input": {"argv": argv}});
                    under_way.insert(user.submit(&job)?, place);
                }
            }
            let arrived = user.take()?;
            if arrived.is_empty() {
                ensure!(begin.elapsed() < PATIENCE, "{} of {} tasks have ended", done.len(), tasks.len());
                daemon.runs()?;
                thread::sleep(LOOK);
            }
            done.extend(arrived.iter().filter_map(|job_id| under_way.remove(job_id)));
        }
        let seconds = begin.elapsed().as_secs_f64();
        daemon.stop()?;
        all_have_ended(ended(&node, "")? - before)?;
        Ok(seconds)
    }

    /// The seconds of the engine, with the function of the example, which submits by `laptop-consumer`.
    fn by_engine(&self, folder: &Path) -> anyhow::Result<f64> {
        let (data, flow) = (folder.join("data"), subfolder(folder, "flow")?);
        copy(&self.workspace.root.join("examples/hyperflow"), &flow)?;
        let pools = json!({"workDir": "/data", "pools": {"*": "fits", "mDiffFit": pool_of("mDiffFit")}});
        fs::write(flow.join("workflow.config.hpcQueue.json"), pools.to_string())?;
        let (daemon, edge, node) = self.start_with(folder, &data)?;
        let before = ended(&node, "")?;
        // Its clients look for their settings where they are started.
        fs::copy(&edge.env_file, folder.join(".env"))?;
        fs::copy(&edge.env_file, flow.join(".env"))?;
        let programs = self.workspace.target.join(Profile::Release.folder());
        let path = std::env::join_paths(
            std::iter::once(programs).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let laptop = self.laptop(&edge, folder);
        let seconds = self.engine(folder, &flow, "hpcQueue", |engine| {
            engine.envs(laptop.get_envs().filter_map(|(name, value)| Some((name, value?))));
            engine.env("WORKFLOW_RUN", "first").env("PATH", path);
        })?;
        daemon.stop()?;
        all_have_ended(ended(&node, "")? - before)?;
        Ok(seconds)
    }

    /// The seconds of the engine without hpc-queue.
    fn by_workers_of_the_engine(&self, folder: &Path) -> anyhow::Result<f64> {
        let (data, flow) = (folder.join("data"), subfolder(folder, "flow")?);
        copy(&self.inputs().join("in"), &data)?;
        fs::write(flow.join("functions.js"), WORKERS)?;
        let (apptainer, image) = (self.tool(Kind::Apptainer)?, self.tool(Kind::Montage)?);
        let seconds = self.engine(folder, &flow, "own", |engine| {
            engine.env("PROGRAM", apptainer).env("IMAGE", image).env("DATA", &data);
        })?;
        let made = fs::read_dir(&data)?.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".jpg"));
        ensure!(made, "there is no picture in {}", data.display());
        Ok(seconds)
    }

    /// The seconds of HyperFlow's engine for the graph, by this function.
    fn engine(
        &self,
        folder: &Path,
        flow: &Path,
        function: &str,
        set: impl FnOnce(&mut Command),
    ) -> anyhow::Result<f64> {
        fs::copy(self.inputs().join("workflow.json"), flow.join("workflow.json"))?;
        let socket = folder.join("redis.sock");
        let mut redis = Command::new(self.tool(Kind::Redis)?);
        redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).current_dir(folder);
        let mut redis = Process::start("redis", &mut redis, folder)?;
        redis.wait_for("it listened", Duration::from_secs(20), |_| socket.exists().then_some(()))?;
        let node_js = command::on_path("node").context("Node.js, `node`, is not on the PATH")?;
        let mut engine = Command::new(node_js);
        engine.env("REDIS_URL", &socket).current_dir(folder).arg(self.tool(Kind::HyperFlow)?.join("bin/hflow.js"));
        engine.arg("run").arg(format!("--var=function={function}")).arg(flow);
        set(&mut engine);
        let begin = Instant::now();
        let mut engine = Process::start("hyperflow", &mut engine, folder)?;
        let status = engine.wait(PATIENCE)?;
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(status.success(), "HyperFlow ended with {status}: {}", engine.log());
        Ok(seconds)
    }

    fn laptop(&self, edge: &LocalEdge, folder: &Path) -> Command {
        let mut laptop = Command::new(self.workspace.program(Profile::Release, "laptop-consumer"));
        clear_settings(&mut laptop);
        laptop.arg("--env-file").arg(&edge.env_file);
        laptop.env("LAPTOP_DATA_DIR", folder.join("laptop")).env("RESULTS_POLL_INTERVAL_SECONDS", "0.2");
        laptop
    }
}

/// The tasks of HyperFlow's graph.
fn tasks(graph: &str) -> anyhow::Result<Vec<Task>> {
    let graph: Value = serde_json::from_str(graph)?;
    let processes = graph["processes"].as_array().context("the graph has no processes")?;
    let ports = |process: &Value, side: &str| -> Vec<u64> {
        process[side].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let written = processes
        .iter()
        .enumerate()
        .flat_map(|(place, process)| ports(process, "outs").into_iter().map(move |signal| (signal, place)));
    let writers: BTreeMap<u64, usize> = written.collect();
    let task = |process: &Value| {
        let executor = &process["config"]["executor"];
        let words = std::iter::once(&executor["executable"]).chain(executor["args"].as_array().into_iter().flatten());
        let argv: Vec<String> = words.filter_map(Value::as_str).map(str::to_owned).collect();
        ensure!(!argv.is_empty(), "a process has no program: {process}");
        Ok(Task {
            argv,
            waits_for: ports(process, "ins").iter().filter_map(|signal| writers.get(signal)).copied().collect(),
        })
    };
    processes.iter().map(task).collect()
}

/// How many jobs have a record whose ids begin so.
fn ended(node: &Node, begin: &str) -> anyhow::Result<usize> {
    let names = fs::read_dir(node.results())?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids: BTreeSet<String> = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    Ok(ids.iter().filter(|id| !id.starts_with('.') && id.starts_with(begin)).count())
}

fn all_have_ended(jobs: usize) -> anyhow::Result<()> {
    ensure!(jobs == TASKS, "{jobs} tasks have ended, and not {TASKS}");
    Ok(())
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
    fn the_graph_has_its_tasks_and_those_that_they_wait_for() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/montage143/workflow.json");
        let tasks = tasks(&fs::read_to_string(path).unwrap()).unwrap();
        let of = |program: &str| tasks.iter().filter(|task| task.argv[0] == program).collect::<Vec<_>>();
        assert_eq!((tasks.len(), of("mProjectPP").len(), of("mDiffFit").len()), (TASKS, 32, 73));
        assert!(of("mProjectPP").iter().all(|task| task.waits_for.is_empty()));
        assert!(of("mDiffFit").iter().all(|task| task.waits_for.len() == 2));
        assert_eq!(of("mConcatFit")[0].waits_for.len(), 73);
    }
}
