//! The link between a daemon and the hub of its edge, on real programs: what goes up, and what comes down.

mod commands;
mod proxy;
mod reports;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::{Answer, client, send};
use testkit::{Consumer, Edge, Front, Laptop, PATIENCE, Process, SCRIPT, wait_for, wait_until};

/// Longer than any test waits for a job: who looks as seldom is woken, or the test fails.
const SELDOM: &str = "10m";

/// A job for [`testkit::SCRIPT`].
fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

/// A job that prints that it has begun, and ends once there is a file `gate`.
fn waits_for(gate: &Path, then: &str) -> Value {
    script(&format!("echo begun; until test -e {}; do sleep 0.05; done; {then}", gate.display()))
}

/// A daemon that looks at its queue next to never unless it is woken, and a queue that holds no pull.
fn seldom(edge: &Edge, front: &Front) -> Consumer {
    front.hold_nothing();
    Consumer::bare(edge, SCRIPT)
        .set("CF_API_BASE_URL", format!("http://{}/client/v4", front.address()))
        .set("POLL_INTERVAL_SECONDS", SELDOM)
        .set("POLL_INTERVAL_MAX_SECONDS", SELDOM)
}

/// What the hub says of a job.
fn hub(edge: &Edge, job: &str, more: &str) -> Answer {
    let producer = edge.producer();
    send(client().get(format!("{}/jobs/{job}{more}", producer.url)).header("x-api-key", producer.api_key))
}

/// Waits until the hub says that a job is so far, and returns all that it says.
fn wait_for_state(edge: &Edge, job: &str, state: &str) -> Value {
    let mut seen = Value::Null;
    let what = format!("the hub to say that {job} is {state}");
    wait_for(&what, PATIENCE, || {
        let answer = hub(edge, job, "");
        seen = if answer.status == 200 { answer.json() } else { json!(answer.status) };
        (seen["state"] == state).then(|| seen.clone())
    })
}

fn cancel(edge: &Edge, job: &str) -> Answer {
    send(edge.producer().post(&format!("/jobs/{job}/cancel")))
}

/// What `status` says of the link.
fn link_of(consumer: &Consumer) -> Value {
    let spoken = consumer.ask(&["status", "--output", "json"]);
    serde_json::from_str::<Value>(&spoken.output).unwrap_or_default()["link"].clone()
}

/// Starts a daemon and waits for its link.
fn start_linked(consumer: &Consumer) -> Process {
    let daemon = consumer.start();
    wait_for_link(consumer, "linked");
    daemon
}

fn wait_for_link(consumer: &Consumer, state: &str) {
    wait_until(&format!("the link to be {state}"), PATIENCE, || link_of(consumer)["state"] == state);
}

/// How often the queue of jobs was asked.
fn pulls(front: &Front) -> usize {
    front.statuses("/pull").len()
}

/// Waits until nobody asks the queue any more, but for the safety net.
fn wait_for_quiet(front: &Front) {
    let mut before = (0, std::time::Instant::now());
    wait_until("the queue to be left alone", PATIENCE, || {
        let now = pulls(front);
        if now != before.0 {
            before = (now, std::time::Instant::now());
        }
        // The last look after a wake is 4 s after it.
        now > 0 && before.1.elapsed() > Duration::from_secs(5)
    });
}

fn open(gate: &Path) {
    fs::write(gate, "").expect("the directory of a test can be written to");
}
