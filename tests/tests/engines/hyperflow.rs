//! HyperFlow, by the function in `examples/hyperflow`: its own graph of Montage, 143 tasks, in containers of two pools.
//!
//! The engine sees no file of the workflow: it submits as a laptop does and waits for results. What jobs make lies in
//! one directory, which both pools bind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::{Consumer, Edge, PATIENCE, Process, command, parts, wait_until};

use super::{example, path_with, records, shown, write_settings, write_site};

/// How many tasks the graph has.
const TASKS: usize = 143;

/// How long the graph may take; on two idle processors it takes half a minute.
const GRAPH_PATIENCE: Duration = Duration::from_secs(240);

/// The files that the graph is for, and their MD5 sums; `tests/cases/README.md` says where those are from.
const MOSAICS: [(&str, &str); 2] = [
    ("mosaic_20130212_013030_8881.fits", "a69fc2f84144d486eb0779ff51c4be6a"),
    ("mosaic_20130212_013030_8881_area.fits", "87cfe520b869efa529044dc3488c3473"),
];

/// A directory for the workflow and one for its files, and Redis, which HyperFlow needs.
struct Montage {
    // Declared first, so that the processes are gone before their directory is.
    _redis: Process,
    _edge: Edge,
    consumer: Consumer,
    home: TempDir,
}

impl Montage {
    /// One that runs this graph.
    fn of_graph(graph: &str) -> Self {
        let edge = Edge::start();
        let home = tempfile::tempdir().expect("a directory can be made");
        let (workflow, data) = (home.path().join("workflow"), home.path().join("data"));
        copy(&parts::workspace().join("tests/cases/montage143/in"), &data);
        copy(&example("hyperflow"), &workflow);
        fs::write(workflow.join("workflow.json"), graph).expect("a file can be written");
        write_settings(&edge, &workflow, "RESULTS_POLL_INTERVAL_SECONDS=0.2");
        let (image, task_runner) = (parts::montage(), parts::task_runner());
        let binds = format!("{}:/data\", \"{}:/usr/local/bin/task-runner:ro", data.display(), task_runner.display());
        let ours = [("/images/montage.sif", shown(&image)), ("/scratch/you/montage:/data", &binds)];
        let site = write_site(&example("hyperflow"), &workflow, &ours);
        let (consumer, redis) = (Consumer::of_site(&edge, &site), start_redis(home.path()));
        Self { _redis: redis, _edge: edge, consumer, home }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Starts the engine as `examples/hyperflow/README.md` says.
    fn engine(&self) -> Process {
        let home = self.home.path();
        let node = parts::on_path("node").expect("Node.js, `node`, is on the PATH");
        let mut engine = command(&node, home);
        engine.env("REDIS_URL", redis_socket(home)).env("WORKFLOW_RUN", "first").env("PATH", path_with(&[]));
        engine.arg(parts::hyperflow().join("bin/hflow.js")).args(["run", "--var=function=hpcQueue"]);
        Process::start("hyperflow", engine.arg(home.join("workflow")), home)
    }

    /// Waits until so many tasks have ended.
    fn wait_for_ended(&self, tasks: usize, daemon: &mut Process, engine: &mut Process) {
        wait_until(&format!("the end of {tasks} tasks"), GRAPH_PATIENCE, || {
            assert!(daemon.is_running() && engine.is_running(), "the daemon or HyperFlow has ended");
            records(&self.consumer).len() >= tasks
        });
    }
}

fn redis_socket(home: &Path) -> PathBuf {
    home.join("redis.sock")
}

fn start_redis(home: &Path) -> Process {
    let socket = redis_socket(home);
    let mut redis = command(&parts::redis(), home);
    redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
    let mut redis = Process::start("redis", &mut redis, home);
    wait_until("the socket of Redis", PATIENCE, || {
        assert!(redis.is_running(), "Redis has ended");
        socket.exists()
    });
    redis
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory of the project can be read") {
        let entry = entry.expect("a directory can be read to its end");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

fn md5_sum(file: &Path) -> String {
    let program = parts::on_path("md5sum").expect("md5sum is on the PATH");
    let output = command(&program, Path::new("/")).arg(file).output().expect("md5sum starts");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn the_mosaic_of_montage_is_the_same_whoever_is_killed_on_the_way() {
    let graph = parts::hyperflow().join("examples/Montage143/workflow.json");
    let montage = Montage::of_graph(&fs::read_to_string(graph).expect("HyperFlow comes with the graph"));
    let mut daemon = montage.consumer.start();
    let mut engine = montage.engine();

    montage.wait_for_ended(20, &mut daemon, &mut engine);
    daemon.kill();
    let mut daemon = montage.consumer.start();
    montage.wait_for_ended(60, &mut daemon, &mut engine);
    // Jobs go on, and the next engine takes them up.
    engine.kill();
    let mut engine = montage.engine();
    let status = engine.wait(GRAPH_PATIENCE);

    assert!(status.success(), "HyperFlow ended with {status}");
    for (name, sum) in MOSAICS {
        assert_eq!(md5_sum(&montage.data().join(name)), sum, "{name}");
    }
    let records = records(&montage.consumer);
    assert_eq!(records.len(), TASKS, "each task is one job, with two engines as well");
    let mut by_pool = BTreeMap::new();
    for record in &records {
        assert_eq!(record["status"], "completed", "{record}");
        assert_eq!((&record["attempt"], &record["isolated"]), (&1.into(), &true.into()), "{record}");
        *by_pool.entry(record["pool"].as_str().unwrap_or_default()).or_insert(0) += 1;
    }
    assert_eq!(by_pool, BTreeMap::from([("fits", 137), ("mosaic", 6)]));
}

#[test]
fn a_task_that_fails_ends_the_engine_with_what_it_said() {
    let process = |line: &str, stdout: Option<&str>, signals: [u8; 2]| {
        let executor = json!({ "executable": "sh", "args": ["-c", line], "stdout": stdout });
        json!({
            "name": "step", "function": "{{function}}", "firingLimit": 1, "config": { "executor": executor },
            "ins": [signals[0]], "outs": [signals[1]],
        })
    };
    let graph = json!({
        "processes": [
            process("echo of the first", Some("said.txt"), [0, 1]),
            process("read line < said.txt; echo \"$line\" >&2; exit 3", None, [1, 2]),
        ],
        "signals": [{ "name": "a", "data": [{}] }, { "name": "b" }, { "name": "c" }],
        "ins": [0],
        "outs": [2],
    });
    let montage = Montage::of_graph(&graph.to_string());
    let _daemon = montage.consumer.start();

    let mut engine = montage.engine();
    let status = engine.wait(PATIENCE);

    assert_eq!(status.code(), Some(1), "HyperFlow ended with {status}");
    let log = engine.log();
    assert!(log.contains("read line") && log.contains("of the first"), "what failed, and what it said: {log}");
    assert_eq!(records(&montage.consumer).len(), 2);
}
