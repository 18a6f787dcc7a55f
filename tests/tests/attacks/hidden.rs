//! A job is a process of the user whose daemon runs it: what it may read and take of our programs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, command, parts, wait_for};

use crate::attacker::{Tool, VICTIM, by, give};

/// A process that the system hides from its own user has files in `/proc` that are root's.
fn is_hidden(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}/environ")).expect("the process runs").uid() == 0
}

fn soft_core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("it is a limit");
    line.split_whitespace().next().expect("it has a value").to_owned()
}

/// Row 2: through a descriptor of the keeper a job in a container had the whole file system, and the daemon's
/// environment holds the token.
#[test]
fn a_job_takes_no_descriptor_and_reads_no_memory_of_daemon_and_keeper() {
    let edge = Edge::start();
    let tool = Tool::new();
    let consumer = Consumer::bare(&edge, SCRIPT);
    give(consumer.home(), VICTIM);
    let mut wrapped = command(&parts::on_path("sh").expect("there is a shell"), consumer.home());
    let daemon = consumer.command();
    // The site lets cores of 1 MB be written.
    wrapped.args(["-c", "ulimit -Sc 2048; exec \"$0\" \"$@\""]).arg(daemon.get_program());
    // The file of settings is for root alone.
    wrapped.arg("run").envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?)))).envs(edge.settings());
    let mut daemon = Process::start("hpc-consumer", by(VICTIM, &mut wrapped), consumer.home());
    let script = "echo $$ > pid; ulimit -Sc > core; sleep 600";
    let id = edge.producer().submit(&json!({"task": "script", "input": script}));
    let job: u32 = wait_for("the job", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        fs::read_to_string(consumer.job_dir(&id).join("core")).ok().filter(|text| text.ends_with('\n'))?;
        fs::read_to_string(consumer.job_dir(&id).join("pid")).ok()?.trim().parse().ok()
    });
    let keeper = consumer.keeper_pid().expect("a job has a keeper");
    for (name, pid) in [("daemon", daemon.pid()), ("keeper", keeper)] {
        let (had, said) = tool.run(VICTIM, &["steal", &pid.to_string()]);
        assert!(!had, "{name}: {said}");
        assert!(is_hidden(pid) && soft_core_limit(pid) == "0", "{name}");
    }
    // The same on what does not hide, so that it is no proof of an attack that never works.
    let (had, said) = tool.run(VICTIM, &["steal", &job.to_string()]);
    assert!(had && !is_hidden(job), "a job is an ordinary process: {said}");
    let core = fs::read_to_string(consumer.job_dir(&id).join("core")).expect("the job wrote it");
    assert_eq!(core.trim(), "2048", "a job has the limit that the site gave");
}

/// The key and the token stand in the memory of local-edge and of the laptop's programs, too.
#[test]
fn the_edge_and_the_laptop_hide_as_well() {
    let edge = Edge::start();
    let home = tempfile::tempdir().expect("a directory can be made");
    give(home.path(), VICTIM);
    let mut serve = command(&parts::program("local-edge"), home.path());
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    let mut server = Process::start("local-edge", by(VICTIM, &mut serve), home.path());
    server.wait_for_log("listens on", PATIENCE);
    let mut tail = command(&parts::program("laptop-consumer"), home.path());
    tail.envs(edge.settings()).args(["--log", "debug", "tail"]).stdin(Stdio::null());
    let laptop = Process::start("laptop-consumer", by(VICTIM, &mut tail), home.path());
    let inbox = home.path().join(".local/share/hpc-queue");
    wait_for("the inbox", PATIENCE, || inbox.exists().then_some(()));
    for (name, pid) in [("local-edge", server.pid()), ("laptop-consumer", laptop.pid())] {
        assert!(is_hidden(pid) && soft_core_limit(pid) == "0", "{name}");
    }
}
