//! What the machine does to a daemon: a disk that does not sync, a clock that is set to another time, a power cut that
//! takes files with it. And what `hpc-consumer jobs` shows, with a daemon and without one.
//!
//! A library that is preloaded into the daemon, `shim.c` of the testkit, makes its disk and its clock misbehave.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT, compile_shared, is_alive, wait_until};

use super::{
    LONG_PATIENCE, assert_completed, pids, replace_boot_id, script, stays_once, wait_for_backlog, wait_for_pids,
    wait_for_record, waits_for,
};

/// A consumer whose machine obeys the files `no-sync` and `clock-offset` in its home directory.
fn on_a_machine_of_its_own(edge: &Edge) -> Consumer {
    let consumer = Consumer::bare(edge, SCRIPT).set("VISIBILITY_TIMEOUT_MS", "3000");
    let library = consumer.home().join("shim.so");
    compile_shared(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shim.c"), &library);
    consumer.set("LD_PRELOAD", library)
}

/// Its programs look all the time, so the file is whole at any moment.
fn set_clock(consumer: &Consumer, seconds: i64) {
    let aside = consumer.home().join("clock-offset.new");
    fs::write(&aside, seconds.to_string()).expect("the offset can be written");
    fs::rename(aside, consumer.home().join("clock-offset")).expect("the offset can be put in place");
}

#[test]
fn a_disk_that_does_not_sync_stops_the_daemon_and_loses_nothing() {
    let edge = Edge::start();
    let consumer = on_a_machine_of_its_own(&edge);
    let (ran, no_sync) = (consumer.home().join("ran"), consumer.home().join("no-sync"));
    let submit = || edge.producer().submit(&script(&format!("echo $$ >> {}; echo 1 > output.json", ran.display())));
    let mut daemon = consumer.start();
    let first = submit();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &first), 1);
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);

    fs::write(&no_sync, "").unwrap();
    let second = submit();
    let status = daemon.wait(PATIENCE);
    let log = daemon.log();
    assert_eq!(status.code(), Some(1), "it does not know what the disk has, and went on: {log}");
    assert!(log.contains("the state of the daemon cannot be stored") && log.contains("disk I/O error"), "{log}");
    assert_eq!((consumer.record(&second), pids(&ran).len()), (None, 1), "a job began that was not accepted");
    assert_eq!(edge.backlog(Queue::Jobs), 1, "what was not stored was acknowledged");

    fs::remove_file(no_sync).unwrap();
    let mut daemon = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &second), 1);
    wait_for_backlog(&edge, Queue::Results, 2);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(pids(&ran).len(), 2, "a job ran again");
}

#[test]
fn a_clock_that_is_set_by_hours_loses_nothing_and_runs_nothing_twice() {
    let edge = Edge::start();
    let consumer = on_a_machine_of_its_own(&edge);
    let (noted, gate) = (consumer.home().join("pids"), consumer.home().join("gate"));
    let job = edge.producer().submit(&waits_for(&gate, &noted));
    let mut daemon = consumer.start();
    wait_for_pids(&noted, 1);
    // Under a daemon at work: it reckons the lease all the same.
    set_clock(&consumer, -3_600);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    // Between two starts: back, far ahead, and right again.
    for offset in [-7_200, 86_400, 0] {
        daemon.kill();
        set_clock(&consumer, offset);
        daemon = consumer.start();
        daemon.wait_for_log("runs of an earlier daemon go on", PATIENCE);
        let next = edge.producer().submit(&script("echo 1 > output.json"));
        assert_completed(&wait_for_record(&consumer, &mut daemon, &next), 1);
    }
    fs::write(&gate, "").unwrap();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    assert_eq!(pids(&noted).len(), 1, "the job ran again");
    // A daemon may have been killed after it had published a result and before it had stored that.
    let results: BTreeSet<String> = edge.pull(Queue::Results).into_iter().map(|result| result.body).collect();
    assert_eq!(results.len(), 4, "not one result of each job: {results:?}");
}

/// Record files are not synced: after a power cut they may be missing or empty.
#[test]
fn records_that_a_power_cut_took_are_made_again_byte_for_byte() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let submit = |number: u32| edge.producer().submit(&script(&format!("echo {number} > output.json")));
    let jobs = [submit(0), submit(1), submit(2)];
    let mut daemon = consumer.start();
    for job in &jobs {
        assert_completed(&wait_for_record(&consumer, &mut daemon, job), 1);
    }
    let keeper = consumer.keeper_pid().expect("a keeper is running");
    wait_for_backlog(&edge, Queue::Results, 3);
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    wait_until("the keeper to be gone", LONG_PATIENCE, || !is_alive(keeper));
    let paths = jobs.each_ref().map(|job| consumer.results_dir().join(format!("{job}.json")));
    let before = paths.each_ref().map(|path| fs::read(path).unwrap());

    replace_boot_id(&consumer.state_dir().join("state.db"));
    fs::remove_file(&paths[0]).unwrap();
    fs::write(&paths[1], "").unwrap();
    let mut daemon = consumer.start();
    for (path, before) in paths.iter().zip(&before) {
        wait_until(&format!("{} as it was", path.display()), LONG_PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended");
            fs::read(path).is_ok_and(|bytes| bytes == *before)
        });
    }
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    assert_eq!(edge.backlog(Queue::Results), 3, "a result was published again");
}

#[test]
fn jobs_are_shown_with_a_daemon_and_without_one() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let noted = consumer.home().join("pids");
    let job = edge.producer().submit(&stays_once(&noted));
    let mut daemon = consumer.start();
    wait_for_pids(&noted, 1);
    let shown = || -> Value {
        let spoken = consumer.ask(&["jobs", "--output", "json"]);
        assert!(spoken.status.success(), "{spoken:?}");
        serde_json::from_str(&spoken.output).unwrap_or_else(|error| panic!("{error}: {spoken:?}"))
    };
    let runs = |shown: &Value| {
        let first = &shown["jobs"][0];
        first["job_id"] == job.as_str() && first["phase"] == "running" && first["attempt"] == 1
    };
    // What a daemon tells is up to a moment old.
    wait_until("the job to be shown by the daemon", PATIENCE, || {
        let shown = shown();
        shown["daemon"] == "running" && runs(&shown)
    });
    daemon.kill();
    let state = || ["state.db", "state.db-wal"].map(|name| fs::read(consumer.state_dir().join(name)).ok());
    let before = state();
    let seen = shown();
    assert!(seen["daemon"] == "stopped" && runs(&seen), "{seen}");
    assert!(state() == before, "to look at the state has changed it");
}
