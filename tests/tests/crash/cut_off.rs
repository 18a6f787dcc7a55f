//! The keeper dies, or the machine: its runs are over. A job that may is started again, another one is `lost`, and no
//! process of the run before is left.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, Process, Queue, SCRIPT, is_alive, signal, wait_until};

use super::{
    LONG_PATIENCE, assert_completed, assert_lost, pids, replace_boot_id, script, stays_once, wait_for_backlog,
    wait_for_pids, wait_for_record,
};

fn kill_keeper(consumer: &Consumer) {
    signal(consumer.keeper_pid().expect("a keeper is running"), Signal::KILL);
}

/// Everything is gone at once.
fn power_cut(consumer: &Consumer, daemon: &mut Process, runs: &[u32]) {
    daemon.kill();
    kill_keeper(consumer);
    for &pid in runs {
        signal(pid, Signal::KILL);
    }
    wait_until("all processes to be gone", LONG_PATIENCE, || {
        consumer.keeper_pid().is_none() && !runs.iter().any(|&pid| is_alive(pid))
    });
}

fn journal(consumer: &Consumer) -> PathBuf {
    consumer.keeper_file().with_file_name("journal")
}

/// The machine says that it was started anew since the keeper wrote. What counts is the first line of the journal.
fn another_boot(consumer: &Consumer) {
    replace_boot_id(&consumer.keeper_file());
    replace_boot_id(&journal(consumer));
}

fn not_rerunnable(mut job: Value) -> Value {
    job["rerunnable"] = json!(false);
    job
}

#[test]
fn a_job_whose_keeper_was_killed_starts_again_and_nothing_of_its_first_run_is_left() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, again, gate) =
        (consumer.home().join("pids"), consumer.home().join("again"), consumer.home().join("gate"));
    // The first run has a child in another session.
    let text = format!(
        "if mkdir {first} 2> again.log; \
         then setsid sh -c 'echo $$ >> {noted}; exec sleep 300' & echo $$ >> {noted}; exec sleep 300; \
         else echo $$ >> {again}; until test -e {gate}; do sleep 0.05; done; echo 2 > output.json; fi",
        first = consumer.home().join("first").display(),
        noted = noted.display(),
        again = again.display(),
        gate = gate.display()
    );
    let job = edge.producer().submit(&script(&text));
    let mut daemon = consumer.start();
    let first_run = wait_for_pids(&noted, 2);
    let keeper = consumer.keeper_pid();
    kill_keeper(&consumer);
    wait_for_pids(&again, 1);
    for pid in first_run {
        assert!(!is_alive(pid), "process {pid} of the first attempt runs beside the second");
    }
    assert_ne!(consumer.keeper_pid(), keeper);
    fs::write(&gate, "").unwrap();
    let record = wait_for_record(&consumer, &mut daemon, &job);
    assert_completed(&record, 2);
    assert_eq!(record["output"], 2);
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!((pids(&noted).len(), pids(&again).len()), (2, 1));
}

#[test]
fn a_job_that_may_not_run_again_is_lost_with_its_keeper() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let noted = consumer.home().join("pids");
    let job = edge.producer().submit(&not_rerunnable(stays_once(&noted)));
    let mut daemon = consumer.start();
    let run = wait_for_pids(&noted, 1);
    kill_keeper(&consumer);
    let record = wait_for_record(&consumer, &mut daemon, &job);
    assert_lost(&record);
    assert_eq!(record["attempt"], 1);
    assert!(!is_alive(run[0]), "the run outlived its job");
    // The daemon goes on under a new keeper.
    let next = edge.producer().submit(&script("echo 1 > output.json"));
    assert_completed(&wait_for_record(&consumer, &mut daemon, &next), 1);
    wait_for_backlog(&edge, Queue::Results, 2);
    assert_eq!(pids(&noted).len(), 1, "the job ran again");
}

/// A machine that lost its power under two runs and was started anew, without a daemon so far.
struct AfterAReboot {
    edge: Edge,
    consumer: Consumer,
    /// Where the runs of a job that may start again note themselves, and those of one that may not.
    may: PathBuf,
    may_not: PathBuf,
    rerun: String,
    lost: String,
}

impl AfterAReboot {
    fn new() -> Self {
        let edge = Edge::start();
        let consumer = Consumer::bare(&edge, SCRIPT);
        let (may, may_not) = (consumer.home().join("may"), consumer.home().join("may-not"));
        let rerun = edge.producer().submit(&stays_once(&may));
        let lost = edge.producer().submit(&not_rerunnable(stays_once(&may_not)));
        let mut daemon = consumer.start();
        let runs = [wait_for_pids(&may, 1)[0], wait_for_pids(&may_not, 1)[0]];
        power_cut(&consumer, &mut daemon, &runs);
        another_boot(&consumer);
        Self { edge, consumer, may, may_not, rerun, lost }
    }
}

#[test]
fn after_a_reboot_jobs_start_again_or_are_lost() {
    let AfterAReboot { edge, consumer, may, may_not, rerun, lost } = AfterAReboot::new();
    let mut daemon = consumer.start();
    daemon.wait_for_log("was started anew while it ran", LONG_PATIENCE);
    let record = wait_for_record(&consumer, &mut daemon, &rerun);
    assert_completed(&record, 2);
    assert_eq!(record["output"], 2);
    assert_lost(&wait_for_record(&consumer, &mut daemon, &lost));
    wait_for_backlog(&edge, Queue::Results, 2);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!((pids(&may).len(), pids(&may_not).len()), (2, 1));
}

/// Nothing of the journal is synced: after a power cut the disk may have its first line alone.
#[test]
fn a_run_that_the_journal_has_lost_in_a_power_cut_is_not_taken_for_never_begun() {
    let AfterAReboot { edge, consumer, may, may_not, rerun, lost } = AfterAReboot::new();
    let text = fs::read_to_string(journal(&consumer)).unwrap();
    let first_line = text.split_inclusive('\n').next().expect("it has a first line");
    fs::write(journal(&consumer), first_line).unwrap();

    // The list stays incomplete until all that follows from it is settled, also for the daemon after the next.
    let mut daemon = consumer.start();
    daemon.wait_for_log("nothing tells whether it was", LONG_PATIENCE);
    daemon.kill();
    let mut daemon = consumer.start();
    let record = wait_for_record(&consumer, &mut daemon, &rerun);
    // One more if the daemon was killed between storing a launch and telling the keeper: nothing tells of that either.
    assert!(record["status"] == "completed" && record["attempt"].as_u64() >= Some(2), "{record}");
    assert_lost(&wait_for_record(&consumer, &mut daemon, &lost));
    // Or three: the daemon that was killed may have published one of them just before.
    // Its acknowledgement may have died with it: then the message comes again when its lease lapses, in 12 hours.
    wait_until("both results", LONG_PATIENCE, || edge.backlog(Queue::Results) >= 2);
    assert_eq!((pids(&may).len(), pids(&may_not).len()), (2, 1));
}
