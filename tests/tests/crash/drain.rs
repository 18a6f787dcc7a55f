//! Asked to end: bounded, with nothing held back that others could run, and without harm to what runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::{block_on, send};
use testkit::{Edge, Ledger, PATIENCE, Queue, is_alive, wait_until};

use super::{LONG_PATIENCE, assert_completed, wait_for_backlog, wait_for_record};

/// How many short jobs; some are running when the daemon is asked to end, the others are not.
const SHORT: usize = 120;

/// The number of the job in a message.
fn number(body: &str) -> usize {
    let job: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let number = job["input"]["number"].as_u64().unwrap_or_else(|| panic!("no number in {job}"));
    usize::try_from(number).expect("a small number")
}

#[test]
fn a_drain_is_bounded_gives_back_what_has_not_begun_and_leaves_the_rest_running() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    // The lease is the longest there is: what is not given back is not seen again in this test.
    let consumer = ledger.bare(&edge).set("MAX_PARALLEL_JOBS", "20").set("DRAIN_TIMEOUT_SECONDS", "3");
    let long = edge.producer().submit(&Ledger::gated_job(0));
    let mut daemon = consumer.start();
    wait_until("the long job to run", PATIENCE, || ledger.runs(0).begun == 1);
    let short: Vec<Value> = (1..=SHORT).map(|number| Ledger::job(number, Duration::from_millis(200))).collect();
    for batch in short.chunks(60) {
        let answer = send(edge.producer().post("/jobs/batch").body(json!({"jobs": batch}).to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    wait_until("a short job to run", PATIENCE, || (1..=SHORT).any(|number| ledger.runs(number).begun == 1));

    let asked = Instant::now();
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success(), "a drain is no failure: {}", daemon.log());
    let took = asked.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(15)).contains(&took), "it drained for {took:?}, not for 3 s");
    let run = ledger.runs(0);
    assert!(run.ended == 0 && is_alive(run.pids[0]), "the long job did not go on: {run:?}");

    let mut leases = Vec::new();
    let mut back = BTreeSet::new();
    // More than one pull can give.
    for _ in 0..2 {
        for delivery in edge.pull(Queue::Jobs) {
            assert!(back.insert(number(&delivery.body)), "a job came back twice");
            leases.push((delivery.lease_id, Duration::ZERO));
        }
    }
    for number in 1..=SHORT {
        let begun = ledger.runs(number).begun;
        assert_eq!(
            begun + usize::from(back.contains(&number)),
            1,
            "job {number} has begun {begun} times; back: {back:?}"
        );
    }
    assert!(!back.is_empty(), "all jobs had begun; this test shows nothing");
    for batch in leases.chunks(100) {
        block_on(edge.queues().settle(edge.queue_id(Queue::Jobs), &[], batch)).expect("messages can be given back");
    }

    ledger.open_gate();
    consumer.run_until_idle();
    assert_completed(&consumer.record(&long).expect("a record"), 1);
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (0, SHORT as u64 + 1));
    for number in 0..=SHORT {
        let runs = ledger.runs(number);
        assert_eq!((runs.begun, runs.ended), (1, 1), "job {number}: {runs:?}");
    }
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_and_not_its_run() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.bare(&edge).set("DRAIN_TIMEOUT_SECONDS", "600");
    let job = edge.producer().submit(&Ledger::gated_job(0));
    let mut daemon = consumer.start();
    wait_until("the job to run", PATIENCE, || ledger.runs(0).begun == 1);
    daemon.terminate();
    daemon.wait_for_log("draining", PATIENCE);
    assert!(daemon.is_running(), "it did not wait for its job");
    daemon.terminate();
    let status = daemon.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", daemon.log());
    let run = ledger.runs(0);
    assert!(run.ended == 0 && is_alive(run.pids[0]), "{run:?}");

    let mut daemon = consumer.start();
    ledger.open_gate();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(ledger.runs(0).begun, 1);
}

#[test]
fn a_keeper_that_is_told_to_end_ends_its_runs_and_the_next_start_runs_them_again() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.bare(&edge);
    let job = edge.producer().submit(&Ledger::gated_job(0));
    let mut daemon = consumer.start();
    wait_until("the job to run", PATIENCE, || ledger.runs(0).begun == 1);
    daemon.kill();
    let keeper = consumer.keeper_pid().expect("a keeper is running");
    let run = ledger.runs(0).pids[0];
    testkit::signal(keeper, rustix::process::Signal::TERM);
    wait_until("the keeper and its run to be gone", LONG_PATIENCE, || !is_alive(keeper) && !is_alive(run));
    assert_eq!(consumer.record(&job), None);
    assert!(!consumer.keeper_file().exists(), "it says who the keeper is, and there is none");

    ledger.open_gate();
    let mut daemon = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 2);
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    let runs = ledger.runs(0);
    assert_eq!((runs.begun, runs.ended), (2, 1), "{runs:?}");
}

#[test]
fn a_keeper_without_runs_goes_with_its_daemon() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.bare(&edge);
    let job = edge.producer().submit(&Ledger::job(0, Duration::ZERO));
    let mut daemon = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    let keeper = consumer.keeper_pid().expect("a keeper is running");
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    wait_until("the keeper to be gone", LONG_PATIENCE, || !is_alive(keeper));
    assert!(!consumer.keeper_file().exists(), "it says who the keeper is, and there is none");
}
