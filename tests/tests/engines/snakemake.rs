//! Snakemake, by the profile and the three programs in `examples/snakemake`.
//!
//! It runs where the files are, on the cluster's login node: it submits as a laptop does, and asks the daemon's files
//! how far jobs are. Each of its jobs starts Snakemake again, so the pool has no container here.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::{Consumer, Edge, PATIENCE, Process, command, parts, signal, wait_for, wait_until};

use super::{example, path_with, records, shown, write_settings, write_site};

/// A directory that login node and compute nodes share, and all that runs there.
struct Cluster {
    edge: Edge,
    consumer: Consumer,
    shared: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let edge = Edge::start();
        let shared = tempfile::tempdir().expect("a directory can be made");
        let task_runner = parts::task_runner();
        let ours = [("/home/you/hpc-queue/bin/task-runner", shown(&task_runner))];
        let site = write_site(&example("snakemake"), shared.path(), &ours);
        let consumer = Consumer::of_site(&edge, &site);
        let sources = consumer.home().join(".cache/snakemake");
        fs::create_dir_all(&sources).expect("a directory can be made");
        let writable = ["/tmp", shown(shared.path()), shown(&sources)].join(",");
        let consumer = consumer.set("BARE_WRITABLE", writable);
        Self { edge, consumer, shared }
    }

    /// The directory of the workflow, with this file of its rules.
    fn workflow(&self, snakefile: &str) -> PathBuf {
        let directory = self.shared.path().join("workflow");
        fs::create_dir(&directory).expect("a directory can be made");
        fs::write(directory.join("Snakefile"), snakefile).expect("a file can be written");
        write_settings(&self.edge, &directory, &format!("STATE_DIR={}", self.consumer.state_dir().display()));
        directory
    }

    /// Starts Snakemake in the directory as `examples/snakemake/README.md` says.
    fn snakemake(&self, directory: &Path) -> Process {
        let (example, home) = (example("snakemake"), self.shared.path().join("home"));
        fs::create_dir_all(&home).expect("a directory can be made");
        let mut snakemake = command(&parts::snakemake(), &home);
        snakemake.env("PATH", path_with(&[&example])).current_dir(directory);
        Process::start("snakemake", snakemake.args(["-m", "snakemake", "--profile"]).arg(example), &home)
    }
}

#[test]
fn the_workflow_of_the_example_runs_on_the_cluster() {
    let cluster = Cluster::new();
    let _daemon = cluster.consumer.start();
    let snakefile = fs::read_to_string(example("snakemake").join("Snakefile")).expect("the example has a workflow");
    let directory = cluster.workflow(&snakefile);

    let mut snakemake = cluster.snakemake(&directory);
    let status = snakemake.wait(PATIENCE * 2);

    assert!(status.success(), "Snakemake ended with {status}");
    let pi = fs::read_to_string(directory.join("pi.txt")).expect("the workflow has its result");
    let pi: f64 = pi.trim().parse().unwrap_or_else(|error| panic!("{error}: {pi:?}"));
    assert!((pi - std::f64::consts::PI).abs() < 0.02, "{pi}");
    let records = records(&cluster.consumer);
    assert_eq!(records.len(), 4, "three jobs throw and one adds: {records:?}");
    assert!(records.iter().all(|record| record["status"] == "completed"), "{records:?}");
}

#[test]
fn a_rule_that_fails_fails_the_workflow_and_nothing_follows() {
    let cluster = Cluster::new();
    let _daemon = cluster.consumer.start();
    let directory = cluster.workflow(
        "rule end:\n    input: 'made'\n    output: 'end'\n    shell: 'touch {output}'\n\
         rule make:\n    output: 'made'\n    shell: 'exit 3'\n",
    );

    let mut snakemake = cluster.snakemake(&directory);
    let status = snakemake.wait(PATIENCE * 2);

    assert!(!status.success(), "Snakemake ended well");
    assert!(!directory.join("end").exists());
    let records = records(&cluster.consumer);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["status"], "failed", "{records:?}");
    let job_id = records[0]["job_id"].as_str().expect("a record has an id");
    assert!(snakemake.log().contains(job_id), "Snakemake names the job that failed");
}

#[test]
fn jobs_of_a_workflow_that_is_interrupted_are_cancelled() {
    let cluster = Cluster::new();
    let _daemon = cluster.consumer.start();
    let directory =
        cluster.workflow("rule make:\n    output: 'made'\n    shell: 'touch started; sleep 600; touch {output}'\n");

    let mut snakemake = cluster.snakemake(&directory);
    wait_until("the job's start", PATIENCE, || directory.join("started").exists());
    // As Ctrl-C does.
    signal(snakemake.pid(), Signal::INT);

    let status = snakemake.wait(PATIENCE);
    assert!(!status.success(), "Snakemake ended well");
    let record = wait_for("the record of the job", PATIENCE, || records(&cluster.consumer).pop());
    assert_eq!((&record["status"], &record["reason"]), (&"failed".into(), &"cancelled".into()), "{record}");
}
