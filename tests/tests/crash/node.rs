//! A node that passes its probe and fails its jobs, with many jobs waiting: it touches few of them and fails none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use testkit::http::send;
use testkit::{Consumer, Edge, Queue, wait_until};

use super::{LONG_PATIENCE, wait_for_backlog};

const JOBS: usize = 100;
const SLOTS: usize = 4;

/// How many jobs are claimed besides those that fill the slots, at most.
const AHEAD: usize = 8;

#[test]
fn a_broken_node_touches_few_of_the_jobs_that_wait_and_fails_none() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("my-task");
    let put = |text: &str| {
        let aside = home.path().join("aside");
        fs::write(&aside, text).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(aside, &program).unwrap();
    };
    // It is there and may be executed, so the probe is content, and cannot be started all the same.
    put("#!/nonexistent/sh\n");
    let consumer =
        Consumer::bare(&edge, &format!("'{}'", program.display())).set("MAX_PARALLEL_JOBS", SLOTS.to_string());
    let jobs: Vec<Value> = (0..JOBS).map(|number| json!({"task": "count", "input": number})).collect();
    let answer = send(edge.producer().post("/jobs/batch").body(json!({"jobs": jobs}).to_string()));
    assert_eq!(answer.status, 202, "{answer:?}");

    let mut daemon = consumer.start();
    // The second time is seconds later, when the next look at the node has let it try again.
    wait_until("the node to be called broken for the second time", LONG_PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        daemon.log().matches("this node cannot run jobs").count() >= 2
    });
    let tried = daemon.log().matches("job starts").count();
    assert!(tried <= SLOTS + AHEAD, "{tried} jobs were tried on a node that fails each");
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (JOBS as u64, 0));

    put("#!/bin/sh\necho 1 > output.json\n");
    wait_for_backlog(&edge, Queue::Results, JOBS as u64);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    let results = edge.pull(Queue::Results);
    assert_eq!(results.len(), JOBS);
    for result in results {
        let result: Value = serde_json::from_str(&result.body).expect("a result is JSON");
        assert_eq!((&result["status"], &result["output"]), (&json!("completed"), &json!(1)), "{result}");
    }
}
