//! A mistake that is taken back: jobs that are cancelled before they come, while they wait, and while they run.

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT};

use super::{script, wait_for_pid, wait_for_record};

fn cancel(consumer: &Consumer, ids: &[&str]) -> String {
    let said = consumer.ask(&[&["cancel"], ids].concat());
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    said.output
}

#[test]
fn jobs_are_cancelled_in_whatever_they_do_and_each_has_its_result() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let pid = consumer.home().join("pid");
    let mut runs = script(&format!(
        "trap 'echo {{}} > output.json; exit 0' TERM; echo $$ > {}; while :; do sleep 0.1; done",
        pid.display()
    ));
    runs["retries"] = json!(3);
    let running = edge.producer().submit(&runs);
    let mut daemon = consumer.start();
    let first = wait_for_pid(&pid);
    let waiting = edge.producer().submit(&script("echo never > output.json"));

    let said = cancel(&consumer, &[&running, &waiting, "not-here-yet"]);
    assert!(said.contains(&format!("{running}: is cancelled\n")), "{said}");
    assert!(said.contains("not-here-yet: is cancelled; nothing of it is here yet"), "{said}");
    let record = wait_for_record(&consumer, &mut daemon, &running);
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("cancelled")), "{record}");
    assert_eq!((&record["attempt"], &record["output"]), (&json!(1), &json!({})), "it keeps what it wrote: {record}");
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "its process is gone");
    let record = wait_for_record(&consumer, &mut daemon, &waiting);
    assert_eq!((&record["reason"], &record["attempt"]), (&json!("cancelled"), &json!(0)), "{record}");

    // It comes at last, to a daemon that was started anew.
    daemon.terminate();
    daemon.wait(PATIENCE);
    edge.push(Queue::Jobs, &[r#"{"v":1,"job_id":"not-here-yet","task":"script","input":"echo never > output.json"}"#]);
    consumer.run_until_idle();
    let record = consumer.record("not-here-yet").expect("it has its record");
    assert_eq!((&record["reason"], &record["attempt"]), (&json!("cancelled"), &json!(0)), "{record}");

    let results = edge.pull(Queue::Results);
    assert_eq!(results.len(), 3, "{results:?}");
    assert_eq!(edge.backlog(Queue::Jobs), 0);
    let said = cancel(&consumer, &[&running]);
    assert_eq!(said, format!("{running}: has ended already (failed, cancelled)\n"));
}

#[test]
fn a_job_that_is_cancelled_while_no_daemon_runs_is_ended_by_the_next_one() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let pid = consumer.home().join("pid");
    let id = edge.producer().submit(&script(&format!("echo $$ > {}; sleep 600", pid.display())));
    let mut daemon = consumer.start();
    wait_for_pid(&pid);
    daemon.kill();
    cancel(&consumer, &[&id]);
    let mut daemon = consumer.start();
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_eq!(record["reason"], "cancelled", "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("while it ran")), "{record}");
}

#[test]
fn where_no_daemon_has_run_nothing_can_be_cancelled_and_the_setting_is_named() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let said = consumer.ask(&["cancel", "j1"]);
    assert_eq!(said.status.code(), Some(4), "{said:?}");
    assert!(said.log.contains("STATE_DIR"), "{said:?}");
}
