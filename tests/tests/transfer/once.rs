//! What is there already costs one request, however much of it there is: for the laptop, and for the daemon.

use std::collections::BTreeMap;

use serde_json::json;
use testkit::{Consumer, Laptop, Producer, SCRIPT};

use crate::gate::Passed;

use super::*;

/// No byte of a content, and these requests.
fn only(requests: &[(&str, usize)]) -> Passed {
    let requests = requests.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    Passed { requests, put: 0, had: 0 }
}

#[test]
fn files_of_the_laptop_that_are_there_cost_one_request_together() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop =
        Laptop::with_producer(&edge, Producer { url: gate.url(), api_key: edge.setting("API_KEY").to_owned() });
    fs::create_dir(laptop.path("some")).unwrap();
    for (name, size) in [("whole", 5_000), ("parts", 70 * MIB), ("some/a", 1), ("some/b", MIB), ("new", 10)] {
        file(&laptop.path(name), size);
    }
    let submit = |more: &[&str]| {
        let words = ["submit", "--task", "t", "--file", "whole", "--file", "parts", "--file", "some"];
        gate.forget();
        let submitted = laptop.run(&[&words, more].concat());
        assert!(submitted.status.success(), "{submitted:?}");
        gate.passed()
    };
    let first = submit(&[]);
    assert!(first.put > 71 * MIB && first.requests["PUT s3"] == 8, "three as a whole, five parts: {first:?}");
    let again = [("POST files", 1), ("POST jobs", 1)];
    assert_eq!(submit(&[]), only(&again));
    assert_eq!(submit(&["--file", "whole:once/more", "--file", "some:copy"]), only(&again));
    // Beside one that is not there: it alone is sent, and said to be complete.
    let beside = submit(&["--file", "new"]);
    let expected = [("POST files", 2), ("POST jobs", 1), ("PUT s3", 1)];
    assert_eq!((beside.put, beside.requests), (10, only(&expected).requests));
}

#[test]
fn outputs_that_are_there_cost_the_daemon_one_request_and_files_that_it_keeps_none() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    // The link does not pass; all that it tells is found out without it.
    gate.rule(|_, path| (path == "/link").then(|| Act::Answer(503, String::new())));
    let consumer = Consumer::bare(&edge, SCRIPT).set("EDGE_URL", gate.url());
    let temp = tempfile::tempdir().unwrap();
    file(&temp.path().join("brought"), MIB);
    let brought = put(&store_at(&edge.producer().url, &edge), &temp.path().join("brought")).unwrap();
    let run = |script: &str| {
        let job_id = edge.producer().submit(&json!({
            "task": "script",
            "input": script,
            "files": [{"path": "brought", "size": brought.size, "sha256": brought.sha256}],
            "outputs": {"patterns": ["out"]},
        }));
        gate.forget();
        consumer.run_until_idle();
        let record = consumer.record(&job_id).unwrap();
        assert_eq!(record["status"], "completed", "{record}");
        let Passed { requests, put, had } = gate.passed();
        let of_files: BTreeMap<String, usize> =
            requests.into_iter().filter(|(kind, _)| kind.ends_with(" files") || kind.ends_with(" s3")).collect();
        (record["files"].clone(), Passed { requests: of_files, put, had })
    };
    let script = "mkdir out; seq 1000 > out/a; seq 2000 > out/b; head -c 70000000 /dev/zero > out/parts";
    let (left, first) = run(script);
    assert!(first.put > 70_000_000 && first.had == MIB && first.requests["GET files"] == 1, "{first:?}");
    let (again, passed) = run(script);
    assert_eq!((again.as_array().map(Vec::len), &again), (Some(3), &left), "the same content has the same name");
    assert_eq!(passed, only(&[("POST files", 1)]));
    let (more, passed) = run(&format!("{script}; echo new > out/new"));
    assert_eq!(more.as_array().map(Vec::len), Some(4), "{more}");
    assert_eq!((passed.put, passed.requests), (4, only(&[("POST files", 2), ("PUT s3", 1)]).requests));
}
