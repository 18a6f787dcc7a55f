//! The queue service is away: what is owed waits on disk, through restarts, and is published once it is back.

use std::fs;

use serde_json::Value;
use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT, wait_until};

use super::{
    LONG_PATIENCE, assert_completed, pids, record_text, wait_for_backlog, wait_for_pids, wait_for_record, waits_for,
};

/// How many results are owed, as `hpc-consumer status` says.
fn owed(consumer: &Consumer) -> u64 {
    let spoken = consumer.ask(&["status", "--output", "json"]);
    assert!(spoken.status.success(), "{spoken:?}");
    let status: Value = serde_json::from_str(&spoken.output).unwrap_or_else(|error| panic!("{error}: {spoken:?}"));
    status["counts"]["owed"].as_u64().unwrap_or_else(|| panic!("no counts.owed in {status}"))
}

#[test]
fn a_result_is_owed_through_an_outage_and_published_once_with_the_same_bytes() {
    let mut edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, gate) = (consumer.home().join("pids"), consumer.home().join("gate"));
    let job = edge.producer().submit(&waits_for(&gate, &noted));
    let mut daemon = consumer.start();
    wait_for_pids(&noted, 1);
    edge.kill();
    fs::write(&gate, "").unwrap();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    let record = record_text(&consumer, &job);
    // The file is there before the daemon has noted that it is.
    wait_until("the result is owed", PATIENCE, || owed(&consumer) == 1);
    for _ in 0..2 {
        daemon.wait_for_log("next try in", PATIENCE);
        daemon.kill();
        assert_eq!(owed(&consumer), 1);
        daemon = consumer.start();
    }
    daemon.wait_for_log("next try in", PATIENCE);
    edge.restart();
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    daemon.terminate();
    assert!(daemon.wait(LONG_PATIENCE).success());
    assert_eq!(owed(&consumer), 0);
    consumer.run_until_idle();

    assert_eq!(edge.backlog(Queue::Results), 1, "the result was published again");
    let published = edge.pull(Queue::Results);
    assert_eq!(published.iter().map(|result| &result.body).collect::<Vec<_>>(), [&record]);
    assert_eq!(record_text(&consumer, &job), record);
    assert_eq!(pids(&noted).len(), 1, "the job ran again");
}
