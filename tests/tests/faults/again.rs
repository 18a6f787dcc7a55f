//! Results that somebody asks for once more, and a job that spoils its directory.

use serde_json::json;
use testkit::{Consumer, Edge, Queue, SCRIPT};

use super::{record_of, script};

#[test]
fn a_job_that_has_ended_and_is_submitted_again_is_answered_with_its_result_and_does_not_run() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let began = consumer.home().join("began");
    let mut job = script(&format!("echo once >> {}; echo 7 > output.json", began.display()));
    job["idempotency_key"] = json!("one of mine");
    let id = edge.producer().submit(&job);
    consumer.run_until_idle();
    let taken = edge.pull(Queue::Results);
    assert_eq!(taken.len(), 1, "{taken:?}");

    // Another laptop asks.
    assert_eq!(edge.producer().submit(&job), id);
    consumer.run_until_idle();
    let again = edge.pull(Queue::Results);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(again[0].body, taken[0].body, "the same bytes");
    assert_eq!(edge.backlog(Queue::Jobs), 0);
    assert_eq!(std::fs::read_to_string(began).expect("it ran"), "once\n");
}

#[test]
fn a_result_is_published_once_more_by_hand() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let id = edge.producer().submit(&script("echo 7 > output.json"));
    consumer.run_until_idle();
    let taken = edge.pull(Queue::Results);
    let said = consumer.ask(&["republish", &id]);
    assert_eq!((said.status.code(), said.output.trim()), (Some(0), format!("{id}: published").as_str()), "{said:?}");
    let again = edge.pull(Queue::Results);
    assert_eq!((again.len(), &again[0].body), (1, &taken[0].body));

    let said = consumer.ask(&["republish", "never-was", &id]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(said.output.contains("never-was: there is no final record in"), "{said:?}");
    assert_eq!(edge.pull(Queue::Results).len(), 1, "the other one is published all the same");
}

#[test]
fn a_job_that_replaces_its_own_directory_is_not_taken_for_one_that_was_taken_over() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let record =
        record_of(&edge, &consumer, "d=$PWD; cd ..; mv $d $d.before; mkdir $d; cd $d; sleep 2; echo 7 > output.json");
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    assert_eq!(record["output"], 7, "{record}");
}
