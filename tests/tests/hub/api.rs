//! The API of the hub as its description has it, asked by a program that nobody here wrote, and by hand where that one
//! would wait for ever.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::{Answer, block_on, client, send};
use testkit::{Edge, Process, command, parts, wait_until};

use crate::report::report;

/// How long all questions of Schemathesis may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// The operations that it does not ask, of those that are described: see `clients/schemathesis.toml`.
const NOT_ASKED: usize = 1;

/// A server whose hub knows a job in each state, each by the name of its state.
fn edge_with_jobs() -> Edge {
    let edge = Edge::start();
    let result = json!({"job_id": "ended", "status": "completed", "stdout_tail": "it has \u{1b}[31mended\n"});
    report(
        &edge,
        &[
            json!({"job_id": "ended", "state": "completed", "attempt": 1, "task": "script", "result": result}),
            json!({"job_id": "failed", "state": "failed", "attempt": 2, "task": "script", "name": "a\u{0}b"}),
            json!({"job_id": "runs", "state": "running", "attempt": 1, "task": "script", "pool": "cpu"}),
            json!({"job_id": "held", "state": "held", "attempt": 0, "task": "script", "pool": "cpu"}),
        ],
    );
    edge
}

fn request(edge: &Edge, method: Method, target: &str) -> reqwest::RequestBuilder {
    let producer = edge.producer();
    client().request(method, format!("{}{target}", producer.url)).header("x-api-key", &producer.api_key)
}

fn get(edge: &Edge, target: &str) -> Answer {
    send(request(edge, Method::GET, target))
}

fn description(edge: &Edge) -> Value {
    let answer = send(client().get(format!("{}/openapi.json", edge.producer().url)));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

#[test]
fn schemathesis_finds_no_failing_check() {
    let edge = edge_with_jobs();
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut schemathesis = command(&parts::schemathesis(), home.path());
    schemathesis.args(["-m", "schemathesis.cli", "--config-file"]);
    schemathesis.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/schemathesis.toml"));
    // From a file, because it does not ask for a description where it has it from.
    schemathesis.arg("run").arg(parts::workspace().join("crates/edge/openapi.json"));
    schemathesis.args(["--url", &edge.producer().url, "--checks", "all", "--no-color"]);
    for key in ["API_KEY", "SITE_KEY"] {
        schemathesis.env(key, edge.setting(key));
    }
    schemathesis.env("PYTHONUTF8", "1");
    let mut process = Process::start("schemathesis", &mut schemathesis, home.path());
    let status = process.wait(PATIENCE);
    assert!(status.success(), "Schemathesis ended with {status}");

    // It has asked all that there is.
    let paths = description(&edge)["paths"].take();
    let operations: usize = paths.as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    let output = process.output();
    let tested = output.lines().find_map(|line| line.trim().strip_prefix("Tested: ")).expect("it says how many");
    assert_eq!(tested.trim(), (operations - NOT_ASKED).to_string(), "{output}");
    println!("{}", output.lines().filter(|line| line.contains("generated")).collect::<String>());
}

#[test]
fn the_description_needs_no_key() {
    let edge = Edge::start();
    let file = std::fs::read_to_string(parts::workspace().join("crates/edge/openapi.json")).unwrap();
    assert_eq!(description(&edge), serde_json::from_str::<Value>(&file).unwrap());
    assert_eq!(send(client().head(format!("{}/openapi.json", edge.producer().url))).status, 200);
}

#[test]
fn odd_times_to_wait_are_bounded() {
    let edge = edge_with_jobs();
    let begun = Instant::now();
    for (target, status) in [
        ("/jobs/ended?wait=1e9", 200),
        ("/jobs/ended?wait=inf", 200),
        ("/jobs/runs?wait=-1e308", 200),
        ("/jobs/runs?wait=NaN", 200),
        ("/jobs/runs?wait=1e-320", 200),
        ("/jobs/runs?wait=", 200),
        ("/jobs/runs?wait=0x10", 400),
        ("/jobs/runs?wait=%00", 400),
        ("/jobs/runs?wait=1&wait=soon", 400),
        ("/jobs/runs?wait=%ff", 400),
        ("/jobs/nobody?wait=0", 404),
    ] {
        let answer = get(&edge, target);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "something has waited for a minute");
}

/// Reads a stream until a text has come, and lets go of it. `None`: it has ended before that.
fn read_until(request: reqwest::RequestBuilder, text: &str) -> Option<String> {
    block_on(async {
        let mut response = request.send().await.expect("it is answered");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut read = String::new();
        while let Some(piece) = response.chunk().await.expect("the stream is whole") {
            read.push_str(std::str::from_utf8(&piece).expect("a piece is UTF-8"));
            if read.contains(text) {
                return Some(read);
            }
        }
        None
    })
}

#[test]
fn streams_are_what_is_described() {
    let edge = edge_with_jobs();
    let events = edge.producer();
    let listening = std::thread::spawn(move || {
        let request = client().get(format!("{}/events", events.url)).header("x-api-key", &events.api_key);
        read_until(request, r#""job_id":"new""#)
    });
    // Until it listens, it is told again.
    let mut attempt = 0;
    wait_until("an event in the stream", testkit::PATIENCE, || {
        attempt += 1;
        report(&edge, &[json!({"job_id": "new", "state": "running", "attempt": attempt})]);
        listening.is_finished()
    });
    let read = listening.join().unwrap().expect("it has no end");
    assert!(read.contains("event: job\ndata: {"), "{read:?}");

    // Control characters travel as they are in JSON, and as text in what is read as text.
    let log = read_until(request(&edge, Method::GET, "/jobs/ended/logs?follow=1&stream=stdout"), "event: end").unwrap();
    assert!(log.contains(r#""text":"it has \u001b[31mended\n""#), "{log:?}");
    assert!(log.ends_with("event: end\ndata: {\"state\":\"completed\"}\n\n"), "{log:?}");
    let text = get(&edge, "/jobs/ended/logs?stream=stdout").body;
    assert!(text.starts_with("it has ") && !text.contains('\u{1b}'), "{text:?}");
    for from in ["-9223372036854775808", "9223372036854775807"] {
        assert_eq!(get(&edge, &format!("/jobs/ended/logs?from={from}")).status, 200, "{from}");
    }
    let far = "1.18446744073709551615.18446744073709551615";
    let resumed = request(&edge, Method::GET, "/jobs/ended/logs?follow=1").header("last-event-id", far);
    assert!(read_until(resumed, "event: end").is_some());
}

#[test]
fn what_is_asked_in_another_way_is_refused_with_what_would_do() {
    let edge = edge_with_jobs();
    for (method, target, allow) in [
        (Method::HEAD, "/jobs", "GET, POST"),
        (Method::OPTIONS, "/jobs/held", "GET"),
        (Method::DELETE, "/jobs/held", "GET"),
        (Method::GET, "/jobs/held/cancel", "POST"),
        (Method::TRACE, "/sites", "GET"),
        (Method::PUT, "/openapi.json", "GET"),
    ] {
        let answer = send(request(&edge, method.clone(), target));
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let cancel = request(&edge, Method::POST, "/jobs/cancel").header("content-type", content_type);
        let answer = send(cancel.body(r#"{"state":"held"}"#));
        assert_eq!((answer.status, &answer.json()["code"]), (415, &json!("unsupported_media_type")), "{answer:?}");
    }
    for (target, ids) in [
        ("/jobs?name=a%00b", vec!["failed"]),
        ("/jobs?task=%f0%9f%a6%80", vec![]),
        ("/jobs?task=script&after=-9223372036854775808", vec![]),
        ("/jobs?limit=18446744073709551615&state=held", vec!["held"]),
    ] {
        let answer = get(&edge, target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let found: Vec<Value> =
            answer.json()["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].clone()).collect();
        assert_eq!(found, ids, "{target}");
    }
}
