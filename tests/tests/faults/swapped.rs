//! Settings that swap the two queues, or name one of them twice: found before anything is run or acknowledged.

use reqwest::Method;
use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Process};

/// A daemon with these ids for its two queues.
fn with_ids(edge: &Edge, jobs: &str, results: &str) -> Consumer {
    let consumer = Consumer::bare(edge, "cp input.json output.json");
    consumer.set("CF_JOBS_QUEUE_ID", jobs).set("CF_RESULTS_QUEUE_ID", results)
}

fn ids(edge: &Edge) -> (&str, &str) {
    (edge.setting("CF_JOBS_QUEUE_ID"), edge.setting("CF_RESULTS_QUEUE_ID"))
}

/// The daemon ends by itself with 2 and says this.
fn assert_refused(consumer: &Consumer, sentence: &str) -> Process {
    let mut daemon = consumer.start();
    let status = daemon.wait(PATIENCE);
    assert_eq!(status.code(), Some(2), "{}", daemon.log());
    assert!(daemon.log().contains(sentence), "{}", daemon.log());
    daemon
}

#[test]
fn one_queue_for_both_is_refused() {
    let edge = Edge::start();
    let (jobs, _) = ids(&edge);
    assert_refused(&with_ids(&edge, jobs, jobs), "CF_JOBS_QUEUE_ID and CF_RESULTS_QUEUE_ID are the same queue");
}

#[test]
fn ids_that_are_swapped_are_found_by_the_names_of_the_queues() {
    let edge = Edge::start();
    let (jobs, results) = ids(&edge);
    let swapped = with_ids(&edge, results, jobs);
    assert_refused(&swapped, "swap the two");
    let checked = swapped.ask(&["run", "--check"]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert!(checked.log.contains("swap the two"), "{checked:?}");
    let checked = with_ids(&edge, jobs, results).ask(&["run", "--check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        checked.output.contains("the queue of the jobs is hpc-jobs, that of the results is hpc-results"),
        "{checked:?}"
    );
}

/// A queue that can be pulled from; its id.
fn queue(edge: &Edge, name: &str) -> String {
    let made = edge.api(Method::POST, "", Some(&json!({"queue_name": name}))).json();
    let id = made["result"]["queue_id"].as_str().expect("a queue has an id").to_owned();
    let consumer = json!({"type": "http_pull", "settings": {"max_retries": 100}, "dead_letter_queue": "dead"});
    assert_eq!(edge.api(Method::POST, &format!("/{id}/consumers"), Some(&consumer)).status, 200);
    id
}

#[test]
fn where_names_tell_nothing_a_result_among_the_jobs_does() {
    let edge = Edge::start();
    let (jobs, results) = (queue(&edge, "one"), queue(&edge, "other"));
    let result =
        json!({"v": 1, "job_id": "j1", "task": "echo", "status": "completed", "result_pointer": "file://h/j1"});
    let push = json!({"body": result.to_string(), "content_type": "text"});
    assert_eq!(edge.api(Method::POST, &format!("/{jobs}/messages"), Some(&push)).status, 200);
    let consumer = with_ids(&edge, &jobs, &results);
    assert_refused(&consumer, "CF_JOBS_QUEUE_ID and CF_RESULTS_QUEUE_ID are swapped");
    assert!(consumer.record("j1").is_none() && !consumer.job_dir("j1").exists(), "it was run");
    assert!(consumer.rejected().is_empty(), "it was put away");
    // It is there for whoever it is for, at once.
    let pulled = edge.api(Method::POST, &format!("/{jobs}/messages/pull"), Some(&json!({}))).json();
    assert_eq!(pulled["result"]["messages"][0]["body"], result.to_string());
    let backlog = edge.api(Method::GET, &format!("/{results}/metrics"), None).json();
    assert_eq!(backlog["result"]["backlog_count"], 0);
}

#[test]
fn queues_that_can_lose_jobs_are_told_at_the_start_and_used_all_the_same() {
    let edge = Edge::start();
    let (jobs, results) = ids(&edge);
    let consumer = edge.api(Method::GET, &format!("/{jobs}/consumers"), None).json();
    let id = consumer["result"][0]["consumer_id"].as_str().expect("the queue has a consumer").to_owned();
    let poor = json!({"type": "http_pull", "settings": {"max_retries": 3}});
    assert_eq!(edge.api(Method::PUT, &format!("/{jobs}/consumers/{id}"), Some(&poor)).status, 200);
    let short = json!({"settings": {"message_retention_period": 86_400}});
    assert_eq!(edge.api(Method::PATCH, &format!("/{results}"), Some(&short)).status, 200);
    let consumer = with_ids(&edge, jobs, results);
    let job = edge.producer().submit(&json!({"task": "echo"}));
    let log = consumer.run_until_idle().log();
    assert!(consumer.record(&job).is_some());
    for sentence in ["hpc-jobs can lose jobs: a message is given up after 3 retries", "hpc-results can lose results"] {
        assert_eq!(log.matches(sentence).count(), 1, "{sentence:?}: {log}");
    }
}
