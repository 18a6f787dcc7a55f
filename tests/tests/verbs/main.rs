//! The verbs that scripts and workflow engines stand on, as `docs/verbs.md` promises them: words, exit codes, and what
//! is on which stream. On the cluster and on the laptop.

mod cluster;
mod day;
mod laptop;
mod migrating;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, Spoken, wait_until};

/// A job for [`testkit::SCRIPT`].
fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

/// A job that prints that it has begun, and ends once there is a file `gate`.
fn waits_for(gate: &Path, then: &str) -> Value {
    script(&format!("echo begun; echo so far >&2; until test -e {}; do sleep 0.05; done; {then}", gate.display()))
}

/// A daemon with one place, a job that has it until there is a file `gate`, and two more that wait for it: their first
/// attempts had places of a daemon that had three.
fn one_runs_and_two_are_held(edge: &Edge, consumer: Consumer, gate: &Path) -> (Consumer, Process, [String; 3]) {
    let consumer = consumer.set("MAX_PARALLEL_JOBS", "3");
    let other_gate = gate.with_extension("other");
    let mut fails = waits_for(&other_gate, "exit 3");
    fails["retries"] = json!(1);
    let submit = |job: &Value| edge.producer().submit(job);
    let jobs = [submit(&waits_for(gate, "echo 1 > output.json")), submit(&fails), submit(&fails)];
    let daemon = consumer.start();
    for job in &jobs {
        wait_for_status(&consumer, job, "running");
    }
    drop(daemon);
    let consumer = consumer.set("MAX_PARALLEL_JOBS", "1");
    let daemon = consumer.start();
    fs::write(other_gate, "").expect("the directory of a test can be written to");
    for job in &jobs[1..] {
        wait_for_status(&consumer, job, "held");
    }
    (consumer, daemon, jobs)
}

/// The exit code and standard output of what was said.
fn said(spoken: &Spoken) -> (Option<i32>, &str) {
    (spoken.status.code(), spoken.output.as_str())
}

/// Waits until the status of a job is this word.
fn wait_for_status(consumer: &Consumer, job: &str, word: &str) {
    wait_until(&format!("{job} to be {word}"), PATIENCE, || {
        said(&consumer.ask(&["status", job])) == (Some(0), &format!("{word}\n"))
    });
}
