//! No process stays: one round after the other, as cron would have it.

use serde_json::json;
use testkit::{Consumer, Edge, Queue, SCRIPT, is_alive, wait_until};

use super::{LONG_PATIENCE, assert_completed, wait_for_backlog, wait_for_pids, waits_for};

#[test]
fn rounds_take_jobs_begin_them_and_publish_what_has_ended_meanwhile() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, gate) = (consumer.home().join("pids"), consumer.home().join("gate"));
    let round = || {
        let spoken = consumer.ask(&["tick"]);
        assert!(spoken.status.success(), "{}", spoken.log);
        spoken
    };
    round();
    let producer = edge.producer();
    let long = producer.submit(&waits_for(&gate, &noted));
    let short = producer.submit(&json!({"task": "script", "input": "echo 2 > output.json"}));
    let third = producer.submit(&waits_for(&gate, &noted));
    let log = round().log;
    let first = wait_for_pids(&noted, 1);
    assert!(first.iter().all(|pid| is_alive(*pid)), "it goes on without a daemon");
    assert!(log.contains("hpc-consumer ends"), "{log}");
    // The short one made room, in this round or in the next.
    round();
    let begun = wait_for_pids(&noted, 2);
    assert_completed(&consumer.record(&short).expect("a short job needs no further round"), 1);
    wait_for_backlog(&edge, Queue::Results, 1);
    std::fs::write(&gate, "").expect("the gate opens");
    wait_until("both to end", LONG_PATIENCE, || !begun.iter().any(|pid| is_alive(*pid)));
    assert_eq!(consumer.record(&long), None, "nobody is there to write it");
    round();
    for job in [&long, &third] {
        assert_completed(&consumer.record(job).expect("it is written"), 1);
    }
    wait_for_backlog(&edge, Queue::Results, 3);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(wait_for_pids(&noted, 2).len(), 2, "each was begun once");
}

#[test]
fn a_round_beside_a_daemon_is_refused() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut daemon = consumer.start();
    wait_until("the daemon", LONG_PATIENCE, || consumer.keeper_pid().is_some());
    let spoken = consumer.ask(&["tick"]);
    assert_eq!(spoken.status.code(), Some(1), "{}", spoken.log);
    assert!(daemon.is_running());
    daemon.terminate();
    daemon.wait(LONG_PATIENCE);
}
