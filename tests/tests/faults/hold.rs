//! With `local-edge` nobody polls: a job begins when it is submitted, and nobody waits for a pull that waits.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Queue, wait_for, wait_until};

/// A daemon that would look at an empty queue once in ten minutes, where it has to look.
fn patient(edge: &Edge) -> Consumer {
    Consumer::bare(edge, "cp input.json output.json")
        .set("POLL_INTERVAL_SECONDS", "600")
        .set("POLL_INTERVAL_MAX_SECONDS", "600")
}

#[test]
fn an_idle_daemon_takes_a_job_and_brings_its_result_at_once() {
    let edge = Edge::start();
    let consumer = patient(&edge);
    let mut daemon = consumer.start();
    // More than one: the first may find a daemon that has not looked yet, and the second one that has just looked.
    for number in 1..=3 {
        let job = edge.producer().submit(&json!({"task": "echo"}));
        wait_for("the record", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended");
            consumer.record(&job)
        });
        wait_until("the result", PATIENCE, || edge.backlog(Queue::Results) == number);
        wait_until("the job to be settled", PATIENCE, || edge.backlog(Queue::Jobs) == 0);
    }
}

#[test]
fn a_drain_does_not_wait_for_a_pull_that_waits() {
    let edge = Edge::start();
    let consumer = patient(&edge).set("DRAIN_TIMEOUT_SECONDS", "600");
    let mut daemon = consumer.start();
    // Once a job has come and gone, the next pull waits.
    edge.producer().submit(&json!({"task": "echo"}));
    wait_until("the result", PATIENCE, || edge.backlog(Queue::Results) == 1);
    wait_until("the job to be settled", PATIENCE, || edge.backlog(Queue::Jobs) == 0);
    let begun = Instant::now();
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "it ended after {:?}", begun.elapsed());
    // What comes now is for the next daemon, and is not leased to the connection of the one that has gone.
    let job = edge.producer().submit(&json!({"task": "echo"}));
    consumer.run_until_idle();
    assert!(consumer.record(&job).is_some());
}

#[test]
fn an_edge_that_stops_does_not_wait_for_it_either_and_its_next_start_is_found() {
    let mut edge = Edge::start();
    let consumer = patient(&edge).set("POLL_INTERVAL_SECONDS", "0.1");
    let mut daemon = consumer.start();
    edge.producer().submit(&json!({"task": "echo"}));
    wait_until("the result", PATIENCE, || edge.backlog(Queue::Results) == 1);
    edge.restart();
    let job = edge.producer().submit(&json!({"task": "echo"}));
    wait_for("the record", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(&job)
    });
}
