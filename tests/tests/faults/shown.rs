//! What `hpc-consumer status` and `jobs` show: which daemon it is, how fresh that is, and why a job is tried again.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, wait_until};

use super::{wait_for_pid, wait_for_record};

#[test]
fn a_retry_is_said_with_its_reason_and_the_log_of_the_attempt_before_stays() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gate = consumer.home().join("gate");
    let text = format!(
        "echo why $$; if test -e once; then until test -e {}; do sleep 0.05; done; else touch once; exit 3; fi",
        gate.display()
    );
    let id = edge.producer().submit(&json!({"task": "fragile", "input": text, "retries": 2}));
    let mut daemon = consumer.start();
    let what = "attempt 1 failed: the task ended with exit code 3; attempt 2 follows (retry 1 of 2)";
    wait_until("the second attempt to be shown with what became of the first", PATIENCE, || {
        let shown = consumer.ask(&["jobs"]).output;
        let row = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.first() == Some(&id.as_str()) && words[1] == "running" && words.ends_with(&["2", "fragile"])
        };
        shown.lines().zip(shown.lines().skip(1)).any(|(line, next)| row(line) && next == format!("  {what}"))
    });
    assert!(daemon.log().contains(what), "{}", daemon.log());

    let shown = consumer.ask(&["status"]).output;
    for row in [
        format!("state in      {}", consumer.state_dir().display()),
        format!("results in    {}", consumer.results_dir().display()),
        "runtime       bare: sh -c ".to_owned(),
        "jobs from     hpc-jobs (".to_owned(),
        "results to    hpc-results (".to_owned(),
    ] {
        assert!(shown.lines().any(|line| line.starts_with(&row)), "{row}: {shown}");
    }
    fs::write(&gate, "").expect("the directory of a test can be written to");
    wait_for_record(&consumer, &mut daemon, &id);
    let log = |name: &str| fs::read_to_string(consumer.job_dir(&id).join(name)).unwrap_or_default();
    let (first, second) = (log("stdout.attempt-1.log"), log("stdout.log"));
    assert!(first.starts_with("why ") && second.starts_with("why ") && first != second, "{first:?} {second:?}");
}

/// Its only slot is taken, so it has nothing to do, not even to pull.
#[test]
fn what_an_idle_daemon_tells_is_fresh_and_a_restarted_one_knows_the_tasks_of_its_jobs() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let shown = || -> Value {
        let output = consumer.ask(&["jobs", "--output", "json"]).output;
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
    };
    let job = edge.producer().submit(&json!({"task": "long", "input": "echo $$ > pid; exec sleep 300"}));
    let mut daemon = consumer.start();
    wait_for_pid(&consumer.job_dir(&job).join("pid"));
    daemon.kill();
    let stopped = shown();
    assert_eq!((&stopped["daemon"], &stopped["jobs"][0]["task"]), (&json!("stopped"), &json!("long")), "{stopped}");
    assert_eq!(stopped["results_dir"], json!(consumer.results_dir()), "{stopped}");

    let _daemon = consumer.start();
    wait_until("the task to be learned from the state", PATIENCE, || {
        let shown = shown();
        shown["daemon"] == "running" && shown["jobs"][0]["task"] == "long"
    });
    let before = shown()["as_of"].clone();
    wait_until("the daemon to tell it anew", Duration::from_secs(20), || shown()["as_of"] != before);
}
