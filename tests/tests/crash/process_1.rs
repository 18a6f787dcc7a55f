//! The daemon as process 1 of a container: it gets every orphan there is and no signal that it does not ask for.

use std::fs;

use rustix::process::Signal;
use testkit::{
    Consumer, Edge, PATIENCE, Process, Queue, SCRIPT, is_alive, parts, signal, wait_for, wait_until, words_of,
};

use super::{LONG_PATIENCE, assert_completed, script, stays_once, wait_for_backlog, wait_for_pids, wait_for_record};

/// `unshare`, so that what it starts is process 1, has its own `/proc`, and ends with it.
const WORDS: [&str; 6] = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// All that was started by a process, itself included.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(children(member));
        next += 1;
    }
    family
}

/// Has it ended without being waited for by its parent?
fn is_zombie(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false) && !is_alive(pid)
}

#[test]
fn as_process_1_the_daemon_runs_jobs_reaps_orphans_and_drains() {
    let unshare = parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it makes a process 1");
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut probe = testkit::command(&unshare, consumer.home());
    let mut probe = Process::start("unshare", probe.args(WORDS).arg("true"), consumer.home());
    let possible = probe.wait(PATIENCE).success();
    assert!(possible, "`unshare` may not make a PID namespace here, which this test needs: {}", probe.log());

    let mut outer = Process::start("hpc-consumer", &mut consumer.command_within(&unshare, &WORDS), consumer.home());
    let daemon = wait_for("process 1", PATIENCE, || {
        assert!(outer.is_running(), "unshare has ended");
        children(outer.pid()).first().copied()
    });
    let leaves_orphans =
        script("(sh -c 'exec sleep 0.1' &) ; (setsid sh -c 'exec sleep 0.1' &) ; echo 1 > output.json");
    let job = edge.producer().submit(&leaves_orphans);
    assert_completed(&wait_for_record(&consumer, &mut outer, &job), 1);

    // Without its keeper a run is an orphan, and nobody but process 1 can be its parent.
    let noted = consumer.home().join("pids");
    let job = edge.producer().submit(&stays_once(&noted));
    wait_for_pids(&noted, 1);
    let is_keeper = |pid: &u32| words_of(*pid).iter().any(|word| word == "keeper");
    let keeper = family(daemon).into_iter().find(is_keeper).expect("a keeper is running");
    signal(keeper, Signal::KILL);
    assert_completed(&wait_for_record(&consumer, &mut outer, &job), 2);
    wait_until("all that has ended to be reaped", LONG_PATIENCE, || !family(daemon).into_iter().any(is_zombie));
    wait_for_backlog(&edge, Queue::Jobs, 0);

    signal(daemon, Signal::TERM);
    let status = outer.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", outer.log());
    assert!(outer.log().contains("draining"), "{}", outer.log());
    assert_eq!(edge.backlog(Queue::Results), 2);
}
