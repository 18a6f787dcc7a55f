//! The daemon dies and its runs go on: the next one takes them up.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, Ledger, Queue, SCRIPT, is_alive, wait_until};

use super::{LONG_PATIENCE, assert_completed, pids, script, wait_for_backlog, wait_for_pids, wait_for_record};

const RUNS: usize = 10;

/// Kills the daemon amid ten runs. The ten go on, are watched by the next daemon, and none is started again.
fn assert_ten_runs_survive(edge: &Edge, ledger: &Ledger, consumer: &Consumer) {
    let producer = edge.producer();
    let jobs: Vec<String> = (0..RUNS).map(|number| producer.submit(&Ledger::gated_job(number))).collect();
    let mut first = consumer.start();
    wait_until("ten jobs to run", LONG_PATIENCE, || (0..RUNS).all(|number| ledger.runs(number).begun == 1));
    let keeper = consumer.keeper_pid();
    assert!(keeper.is_some(), "runs have no keeper");
    first.kill();

    // One more job runs to its end under the next daemon: it is at work, and knows what it must know.
    let mut second = consumer.start();
    let next = producer.submit(&Ledger::job(RUNS, Duration::ZERO));
    assert_completed(&wait_for_record(consumer, &mut second, &next), 1);
    for number in 0..RUNS {
        let runs = ledger.runs(number);
        assert_eq!((runs.begun, runs.ended), (1, 0), "job {number}: {runs:?}");
    }
    assert_eq!(consumer.keeper_pid(), keeper, "the runs have another keeper");

    ledger.open_gate();
    for (number, job) in jobs.iter().enumerate() {
        let record = wait_for_record(consumer, &mut second, job);
        assert_completed(&record, 1);
        assert_eq!(record["output"]["number"], json!(number), "{record}");
    }
    wait_for_backlog(edge, Queue::Results, RUNS as u64 + 1);
    wait_for_backlog(edge, Queue::Jobs, 0);
    for number in 0..=RUNS {
        let runs = ledger.runs(number);
        assert_eq!((runs.begun, runs.ended, runs.overlapping), (1, 1, 0), "job {number}: {runs:?}");
    }
}

#[test]
fn ten_runs_survive_the_daemon() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.bare(&edge).set("MAX_PARALLEL_JOBS", (RUNS + 1).to_string());
    assert_ten_runs_survive(&edge, &ledger, &consumer);
}

#[test]
fn ten_containers_survive_the_daemon() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.apptainer(&edge).set("MAX_PARALLEL_JOBS", (RUNS + 1).to_string());
    assert_ten_runs_survive(&edge, &ledger, &consumer);
}

#[test]
fn how_a_run_ended_is_known_though_no_daemon_was_there() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, gate) = (consumer.home().join("pids"), consumer.home().join("gate"));
    let text = |end: &str| {
        let (noted, gate) = (noted.display(), gate.display());
        script(&format!("echo $$ >> {noted}; until test -e {gate}; do sleep 0.05; done; echo 5 > output.json; {end}"))
    };
    let producer = edge.producer();
    let (exits, killed) = (producer.submit(&text("exit 7")), producer.submit(&text("kill -s KILL $$")));
    let mut first = consumer.start();
    let running = wait_for_pids(&noted, 2);
    first.kill();
    fs::write(&gate, "").unwrap();
    wait_until("both runs to end", LONG_PATIENCE, || !running.iter().any(|&pid| is_alive(pid)));
    assert_eq!(consumer.record(&exits), None);

    let mut second = consumer.start();
    let record = wait_for_record(&consumer, &mut second, &exits);
    let seen = |record: &Value| ["reason", "exit_code", "signal", "attempt", "output"].map(|name| record[name].clone());
    assert_eq!(seen(&record), [json!("exit"), json!(7), Value::Null, json!(1), json!(5)], "{record}");
    let record = wait_for_record(&consumer, &mut second, &killed);
    assert_eq!(seen(&record), [json!("signal"), Value::Null, json!(9), json!(1), json!(5)], "{record}");
    wait_for_backlog(&edge, Queue::Results, 2);
    assert_eq!(pids(&noted).len(), 2, "a run was repeated");
}

#[test]
fn a_daemon_that_is_killed_again_and_again_takes_its_run_up_each_time() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    // One that is killed when its result is published and its message not yet acknowledged leaves that to the lease.
    let consumer = ledger.bare(&edge).set("VISIBILITY_TIMEOUT_MS", "10000");
    let job = edge.producer().submit(&Ledger::gated_job(0));
    let mut daemon = consumer.start();
    wait_until("the job to run", LONG_PATIENCE, || ledger.runs(0).begun == 1);
    for _ in 0..3 {
        daemon.kill();
        daemon = consumer.start();
        daemon.wait_for_log("runs of an earlier daemon go on", LONG_PATIENCE);
    }
    // And once more when the run has ended and nobody may have taken note of it yet.
    ledger.open_gate();
    wait_until("the run to end", LONG_PATIENCE, || ledger.runs(0).ended == 1);
    daemon.kill();
    daemon = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(ledger.runs(0).begun, 1);
}
