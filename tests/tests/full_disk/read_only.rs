//! The disk of `RESULTS_DIR` becomes read-only under a job, as a file system does that has met an error: a broken node.
//! A program that ignores that its output was not written ends well all the same, and is not believed.

use std::fs;
use std::slice::from_ref;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT, wait_until};

use super::disk::Disk;
use super::jobs::{has_record, wait_for_results};

#[test]
fn a_run_whose_output_a_read_only_disk_did_not_take_has_not_completed() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("VISIBILITY_TIMEOUT_MS", "3000");
    let disk = Disk::over(&consumer, &consumer.results_dir());
    let results = disk.seen(&consumer.results_dir());
    let (closed, begun) = (consumer.home().join("closed"), consumer.home().join("begun"));
    fs::write(&closed, "").unwrap();
    let text = format!(
        "echo begin >> {}; while test -e {}; do sleep 0.02; done; echo 2 > output.json; true",
        begun.display(),
        closed.display()
    );
    let runs = || fs::read_to_string(&begun).unwrap_or_default().lines().count();
    let job = edge.producer().submit(&json!({"task": "script", "input": text}));
    let mut daemon = disk.start(&consumer);
    wait_until("the job to run", PATIENCE, || runs() == 1);
    disk.remount("ro");
    fs::remove_file(&closed).unwrap();
    daemon.wait_for_log("this node cannot run jobs", PATIENCE);
    assert!(daemon.log().contains("Read-only file system"), "it does not say why: {}", daemon.log());
    assert!(!has_record(&results, &job));
    assert_eq!(edge.backlog(Queue::Results), 0, "a result of a job that has none yet");

    disk.remount("rw");
    wait_for_results(&edge, &results, from_ref(&job), || assert!(daemon.is_running(), "the daemon has ended"));
    let record = fs::read_to_string(results.join(format!("{job}.json"))).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(2)), "{record}");
    assert_eq!((runs(), edge.backlog(Queue::Results)), (2, 1));
}
