//! `local-edge` as Cloudflare's own clients see it: a check that nobody here wrote. The scripts in `clients/` call the
//! SDKs and print what they saw, as one line of JSON.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Edge, PATIENCE, Process, command, parts};

/// `clients/<name>`
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a client against a `local-edge` and returns what it saw.
fn run(edge: &Edge, program: &Path, script_name: &str, more: &[&Path]) -> Value {
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut client = command(program, home.path());
    client.arg(script(script_name));
    client.args(["CF_API_BASE_URL", "CF_ACCOUNT_ID", "CF_QUEUES_API_TOKEN"].map(|name| edge.setting(name))).args(more);
    let mut process = Process::start("client", &mut client, home.path());
    let status = process.wait(PATIENCE);
    assert!(status.success(), "the client ended with {status}");
    serde_json::from_str(&process.output()).expect("the client prints one line of JSON")
}

/// What every client is to see. `as_json` is how the body of a JSON message comes back.
fn assert_seen(seen: &Value, queue: &str, as_json: [&str; 2]) {
    println!("client version {}", seen["version"]);
    let own = json!(["hpc-jobs", "hpc-jobs-dlq", "hpc-results"]);
    let mut first = [json!([as_json[0], 1]), json!([as_json[1], 1]), json!(["as text", 1]), json!(["bulk text", 1])];
    first.sort_by(|a, b| a[0].as_str().cmp(&b[0].as_str()));
    for (name, expected) in [
        ("names", own.clone()),
        ("created", json!([queue, 0, 0])),
        ("got", json!(queue)),
        ("edited", json!(3600)),
        ("consumer", json!(["http_pull", "hpc-jobs-dlq", 5])),
        ("consumers", json!(["http_pull"])),
        ("backlog", json!(5)),
        ("first", json!(first)),
        ("message", json!(true)),
        ("leased", json!(0)),
        ("settled", json!([3, 1])),
        ("second", json!([["as text", 2]])),
        // What was delayed by ten minutes is still there.
        ("end", json!([1, 1])),
        ("gone", json!(["NotFoundError", 404])),
        ("names_after", own),
    ] {
        assert_eq!(seen[name], expected, "{name} in {seen}");
    }
    assert!(seen["peeked"].as_u64() >= Some(4), "{seen}");
    assert!(matches!(seen["stranger"][1].as_u64(), Some(401 | 403)), "{seen}");
}

#[test]
fn cloudflares_python_sdk_lists_pushes_pulls_acks_and_retries() {
    let edge = Edge::start_with(&["--json-bodies", "plain"]);
    let seen = run(&edge, &parts::python(), "sdk.py", &[]);
    assert_seen(&seen, "by-python", [r#"{"as":"json"}"#, r#"["bulk",1]"#]);
}

#[test]
fn cloudflares_typescript_sdk_lists_pushes_pulls_acks_and_retries() {
    let edge = Edge::start_with(&["--json-bodies", "base64"]);
    let node = parts::on_path("node").expect("Node.js, `node`, is on the PATH");
    let seen = run(&edge, &node, "sdk.mjs", &[&parts::node_tools()]);
    // The same two bodies, base64-encoded.
    assert_seen(&seen, "by-typescript", ["eyJhcyI6Impzb24ifQ==", "WyJidWxrIiwxXQ=="]);
}
