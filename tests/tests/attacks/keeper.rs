//! The socket of the keeper: who gets as far as to it.

use std::fs;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, wait_for};

use crate::attacker::{ATTACKER, Tool, VICTIM, by, give};

/// A daemon of the victim with a job that goes on, and what was set besides.
fn with_a_job(edge: &Edge, consumer: &Consumer) -> Process {
    give(consumer.home(), VICTIM);
    let mut command = consumer.command();
    // The file of settings is for root alone.
    let program = command.get_program().to_owned();
    let set: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = testkit::command(std::path::Path::new(&program), consumer.home());
    command.envs(set).envs(edge.settings()).arg("run");
    let mut daemon = Process::start("hpc-consumer", by(VICTIM, &mut command), consumer.home());
    let id = edge.producer().submit(&json!({"task": "script", "input": "touch begun; sleep 600"}));
    wait_for("the job", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.job_dir(&id).join("begun").exists().then_some(())
    });
    daemon
}

/// Rows 2 and 7: the abstract name was reached by everyone who shares the network of the machine, a container too.
#[test]
fn nobody_finds_an_abstract_socket_and_another_user_gets_to_none() {
    let edge = Edge::start();
    let tool = Tool::new();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let _daemon = with_a_job(&edge, &consumer);
    let keeper = consumer.keeper_pid().expect("a job has a keeper");
    let sockets = fs::read_to_string("/proc/net/unix").expect("the system tells of its sockets");
    let held = fs::read_dir(format!("/proc/{keeper}/fd")).expect("root may look");
    let inodes: Vec<String> = held
        .filter_map(|entry| {
            fs::read_link(entry.ok()?.path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .map(|inode| format!(" {} ", inode.trim_end_matches(']')))
        .collect();
    let own: Vec<&str> = sockets.lines().filter(|line| inodes.iter().any(|inode| line.contains(inode))).collect();
    assert!(own.iter().any(|line| line.ends_with("/socket")), "it listens: {own:?}");
    assert!(!own.iter().any(|line| line.contains('@')), "an abstract socket: {own:?}");

    let socket = consumer.state_dir().join("keeper/socket");
    let path = socket.to_str().expect("it is plain");
    let (had, said) = tool.run(ATTACKER, &["reach", path]);
    assert!(!had && said.contains("Permission denied"), "{said}");
    // Open to all, it is the directory that keeps them out; and then it is the keeper that does.
    for directory in [consumer.home().to_owned(), consumer.state_dir(), consumer.state_dir().join("keeper")] {
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("root may");
    }
    fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("root may");
    let (had, said) = tool.run(ATTACKER, &["reach", path]);
    assert!(had, "so the attack is one: {said}");
    let log = consumer.state_dir().join("keeper/keeper.log");
    wait_for("the keeper to say so", PATIENCE, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains(&format!("uid {ATTACKER}, that is not"))).then_some(())
    });
    assert_eq!(consumer.keeper_pid(), Some(keeper));
}

/// Where a path is longer than the address of a socket may be.
#[test]
fn a_state_directory_far_below_works() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let deep = (0..6).fold(consumer.home().to_owned(), |path, _| path.join("d".repeat(60)));
    let consumer = consumer.set("STATE_DIR", deep);
    let _daemon = with_a_job(&edge, &consumer);
    assert!(consumer.state_dir().join("keeper/socket").exists());
}
