//! Trees that a job makes where a file should be.

use std::process::Command;

use serde_json::json;
use testkit::{Consumer, Edge, SCRIPT};

use super::{script, wait_for_record};

/// A directory in place of the output, with as many levels as a process makes in a moment. No path is that long.
const DEEP: &str = "mkdir output.json; cd output.json; \
                    python3 -c 'import os; [(os.mkdir(chr(100)), os.chdir(chr(100))) for _ in range(18000)]'";

#[test]
fn a_tree_in_place_of_the_output_is_the_jobs_failure_and_holds_up_no_other_job() {
    let edge = Edge::start();
    // In memory, if there is such a place: so many directories take a busy disk a minute.
    let results = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let consumer = Consumer::bare(&edge, SCRIPT).set("RESULTS_DIR", results.path());
    let poison = edge.producer().submit(&json!({"task": "script", "input": DEEP, "retries": 1}));
    let mut daemon = consumer.start();
    let record = wait_for_record(&consumer, &mut daemon, &poison);
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("output")), "{record}");
    assert_eq!(record["attempt"], 2, "the second attempt began after the tree of the first was removed: {record}");
    let healthy = edge.producer().submit(&script("echo 1 > output.json"));
    assert_eq!(wait_for_record(&consumer, &mut daemon, &healthy)["status"], "completed");
    // The directory of a test is removed as a daemon must not do it.
    let removed = Command::new("rm").arg("-rf").arg(consumer.job_dir(&poison)).status().expect("rm can be started");
    assert!(removed.success());
}
