//! A user who may start no more processes and threads (`ulimit -u`), beside daemon, keeper and jobs that run already.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, wait_until};

use crate::{script, wait_for_record};

/// Nobody else's: the system counts all processes and threads of a user.
const USER: u32 = 64_007;

/// Longer than threads of the reactor wait for more to do, if nothing keeps them: 10 s.
const IDLE: Duration = Duration::from_secs(12);

fn give(path: &Path) {
    rustix::fs::chown(path, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)))
        .expect("this test starts programs as another user: run it as root");
}

/// From now on it may start processes and threads only while its user has fewer than so many.
fn limit(pid: u32, count: &str) {
    let mut command = Command::new("prlimit");
    // The soft limit alone, which its user may set up to the hard one.
    command.args(["--pid", &pid.to_string(), &format!("--nproc={count}:")]).uid(USER).gid(USER);
    assert!(command.status().expect("there is prlimit").success());
}

/// As many as may be.
fn unlimited() -> String {
    getrlimit(Resource::Nproc).maximum.map_or_else(|| "unlimited".to_owned(), |count| count.to_string())
}

#[test]
fn with_all_processes_used_up_what_runs_ends_well_and_what_cannot_begin_is_not_failed() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    give(consumer.home());
    let by_user = |words: &[&str]| {
        let usual = consumer.command();
        let mut command = testkit::command(Path::new(usual.get_program()), consumer.home());
        // The file of settings is for root alone.
        command.args(words).envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(edge.settings()).env_remove("ALLOW_ROOT").uid(USER).gid(USER);
        command
    };
    let mut daemon = Process::start("hpc-consumer", &mut by_user(&["run"]), consumer.home());
    let gate = consumer.home().join("gate");
    // It says more than a pipe holds, so it waits for whoever is to read it.
    let printer = script(&format!(
        "echo begun; touch begun; until [ -e {} ]; do sleep 0.05; done; seq 200000; seq 200000 >&2; echo 1 > output.json",
        gate.display()
    ));
    let id = edge.producer().submit(&printer);
    wait_until("the job", PATIENCE, || consumer.job_dir(&id).join("begun").exists());
    let begun = Instant::now();
    let keeper = consumer.keeper_pid().expect("a job has a keeper");
    wait_until("all threads to have been idle", PATIENCE, || begun.elapsed() > IDLE);
    for pid in [daemon.pid(), keeper] {
        limit(pid, "1");
    }

    fs::write(&gate, "").unwrap();
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(1)), "{record}");
    for (name, begin) in [("stdout.log", "begun\n1\n2\n"), ("stderr.log", "1\n2\n")] {
        let log = fs::read_to_string(consumer.job_dir(&id).join(name)).unwrap();
        assert!(log.starts_with(begin) && log.ends_with("199999\n200000\n"), "{name}: {} bytes", log.len());
    }
    let waiting = edge.producer().submit(&script("echo 2 > output.json"));
    daemon.wait_for_log("cannot be started", PATIENCE);
    assert!(consumer.record(&waiting).is_none(), "it is the node's trouble");
    assert_eq!(consumer.keeper_pid(), Some(keeper));
    // What people look at is written on.
    let as_of = || {
        let shown = by_user(&["jobs", "--output", "json"]).output().expect("it can be started");
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
        shown["as_of"].clone()
    };
    let before = as_of();
    wait_until("the daemon to tell it anew", PATIENCE, || as_of() != before);

    for pid in [daemon.pid(), keeper] {
        limit(pid, &unlimited());
    }
    let record = wait_for_record(&consumer, &mut daemon, &waiting);
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(2)), "{record}");
    assert_eq!(consumer.keeper_pid(), Some(keeper));
}
