//! Messages in the queues that are not ours.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, Laptop, Queue, SCRIPT};

use super::{assert_failed, record_of};

/// Bodies that are pushed as text, and what the log says of each.
fn texts() -> Vec<(String, &'static str)> {
    let of_id = |id: Value| {
        json!({"job_id": id, "task": "script", "input": "echo ran > ../ran; echo 1 > output.json"}).to_string()
    };
    vec![
        ("hello".to_owned(), "its body is not JSON"),
        ("\u{0}\u{1}\u{2}".to_owned(), "its body is not JSON"),
        (r#"{"job_id":"half"#.to_owned(), "its body is not JSON"),
        ("[]".to_owned(), "it is no job object"),
        ("{}".to_owned(), "it has no `job_id`"),
        (of_id(json!(7)), "its `job_id` is invalid"),
        (of_id(json!("")), "its `job_id` is invalid"),
        (of_id(json!("..")), "its `job_id` is invalid"),
        (of_id(json!("../escaped")), "its `job_id` is invalid"),
        (of_id(json!("a/b")), "its `job_id` is invalid"),
        (of_id(json!("/tmp/escaped")), "its `job_id` is invalid"),
        (of_id(json!("a\u{0}b")), "its `job_id` is invalid"),
        (of_id(json!("x".repeat(10_000))), "its `job_id` is invalid"),
        (of_id(json!(".probe-1")), "its `job_id` is invalid"),
        (json!({"v": 99, "job_id": "of-the-future", "task": "script"}).to_string(), "it is of version 99"),
        (json!({"job_id": "without-task"}).to_string(), "`task` is missing"),
        (json!({"job_id": "wrong-task", "task": ["echo"]}).to_string(), "`task` must be a string"),
    ]
}

#[test]
fn messages_that_are_no_jobs_are_kept_answered_where_possible_and_gone() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let texts = texts();
    edge.push(Queue::Jobs, &texts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>());
    // What only JavaScript's own serialization could read, and bytes that are no text at all.
    edge.push_by_binding("v8", b"\xff\x0f\x6f\x22\x06job_id\x22\x02v8\x7b\x01");
    edge.push_by_binding("bytes", b"\xff\xfe\x00\x01");
    let messages = texts.len() as u64 + 2;
    assert_eq!(edge.backlog(Queue::Jobs), messages);

    // One good job among them is not held up.
    let good = record_of(&edge, &consumer, "echo 1 > output.json");
    assert_eq!((&good["status"], &good["output"]), (&json!("completed"), &json!(1)));
    assert_eq!(edge.backlog(Queue::Jobs), 0, "all are acknowledged");

    // A copy of each, with the reason.
    let copies: Vec<Value> =
        consumer.rejected().values().map(|copy| serde_json::from_slice(copy).expect("a copy is JSON")).collect();
    assert_eq!(copies.len() as u64, messages, "{copies:?}");
    for (text, problem) in &texts {
        let copy = copies.iter().find(|copy| copy["body"] == text.as_str());
        let copy = copy.unwrap_or_else(|| panic!("no copy of {text:?}"));
        assert!(copy["problem"].as_str().is_some_and(|said| said.contains(problem)), "{copy}");
    }

    // A result where an id can be read, and only there.
    let results = Laptop::new(&edge).take_results();
    let mut failed = BTreeSet::new();
    for result in results.iter().filter(|result| **result != good) {
        assert_failed(result, "rejected", "");
        assert_eq!(result["attempt"], 0, "{result}");
        let id = result["job_id"].as_str().unwrap();
        assert_eq!(consumer.record(id).as_ref(), Some(result));
        assert!(!consumer.job_dir(id).exists(), "a rejected job has no directory");
        failed.insert(id.to_owned());
    }
    assert_eq!(failed, BTreeSet::from(["of-the-future", "without-task", "wrong-task"].map(str::to_owned)));
    assert_eq!(results.len(), failed.len() + 1);

    // No path came of an id.
    let names = |path: &std::path::Path| -> BTreeSet<String> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("hpc-consumer.") && !name.starts_with('.')).collect()
    };
    assert_eq!(names(consumer.home()), BTreeSet::from(["results".to_owned(), "state".to_owned()]));
    let good_id = good["job_id"].as_str().unwrap();
    let mut expected: BTreeSet<String> = failed.iter().map(|id| format!("{id}.json")).collect();
    expected.extend([good_id.to_owned(), format!("{good_id}.json"), "_rejected".to_owned()]);
    assert_eq!(names(&consumer.results_dir()), expected);
    assert!(!fs::exists("/tmp/escaped").unwrap());

    // Nothing of it comes back, not even in the dead letters.
    let again = consumer.run_until_idle();
    assert!(!again.log().contains("rejected"), "{}", again.log());
    assert_eq!(consumer.rejected().len() as u64, messages);
    assert_eq!(Laptop::new(&edge).take_results(), Vec::<Value>::new());
}

#[test]
fn every_rejection_is_one_line_in_the_log() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    edge.push(Queue::Jobs, &["one\nINFO forged line", "two\u{1b}[31m"]);
    let log = consumer.run_until_idle().log();
    assert_eq!(log.lines().filter(|line| line.contains("rejected")).count(), 2, "{log}");
    assert!(!log.lines().any(|line| line.starts_with("INFO forged")), "a message forged a line: {log}");
    assert!(!log.contains("\u{1b}[31m"), "a message colored the log: {log}");
}

#[test]
fn a_job_whose_place_is_taken_harms_nothing() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let elsewhere = consumer.home().join("elsewhere");
    fs::create_dir_all(consumer.results_dir().join("thesis")).unwrap();
    fs::write(consumer.results_dir().join("thesis/chapter-1.txt"), "all of my work").unwrap();
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, consumer.results_dir().join("link")).unwrap();
    for id in ["thesis", "link"] {
        let job = json!({"job_id": id, "task": "script", "input": "echo 1 > output.json"});
        edge.push(Queue::Jobs, &[&job.to_string()]);
    }
    consumer.run_until_idle();
    for id in ["thesis", "link"] {
        assert_failed(&consumer.record(id).expect("a record"), "rejected", "is there already");
    }
    let thesis = consumer.results_dir().join("thesis");
    assert_eq!(fs::read_to_string(thesis.join("chapter-1.txt")).unwrap(), "all of my work");
    assert_eq!(fs::read_dir(thesis).unwrap().count(), 1);
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn the_laptop_passes_over_what_is_no_result() {
    let edge = Edge::start();
    let good = json!({"v": 1, "job_id": "good", "status": "completed", "result_pointer": "file://node/good.json"});
    let path = json!({"v": 1, "job_id": "../escaped", "status": "completed", "result_pointer": "x"}).to_string();
    edge.push(Queue::Results, &["hello", "{}", &path, &good.to_string(), "[]"]);
    let laptop = Laptop::new(&edge);
    let spoken = laptop.run(&["tail", "--until-idle"]);
    let ids: Vec<Value> = spoken.results().iter().map(|result| result["job_id"].clone()).collect();
    assert_eq!(ids, [json!("good")], "{spoken:?}");
    assert!(!spoken.log.is_empty(), "what was passed over is told");
    assert_eq!(edge.backlog(Queue::Results), 0, "and gone");
    assert_eq!(laptop.take_results(), Vec::<Value>::new());
}
