//! The table "bad input", row by row, against the running programs: whatever comes, each job ends once and says how,
//! nothing is lost, nothing loops, nothing hangs, and nothing outside of its directory is touched.
//!
//! What the edges refuse is in `contract.rs`.

mod messages;
mod node;
mod outputs;
mod queue;
mod runs;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, wait_for};

/// How long a daemon may take that looks at its trouble again only now and then.
const LONG_PATIENCE: Duration = Duration::from_secs(150);

/// A job for [`testkit::SCRIPT`].
fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

/// Submits one script, runs everything there is, and returns the job's final record.
fn record_of(edge: &Edge, consumer: &Consumer, text: &str) -> Value {
    let id = edge.producer().submit(&script(text));
    consumer.run_until_idle();
    consumer.record(&id).unwrap_or_else(|| panic!("no record of {id}: {text}"))
}

/// Waits for the final record of a job while the daemon runs.
fn wait_for_record(consumer: &Consumer, daemon: &mut Process, job_id: &str) -> Value {
    wait_for(&format!("the final record of {job_id}"), LONG_PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(job_id)
    })
}

/// Waits until the queue holds so many messages.
fn wait_for_backlog(edge: &Edge, queue: Queue, messages: u64) {
    wait_for(&format!("{messages} messages in {queue:?}"), PATIENCE, || {
        (edge.backlog(queue) == messages).then_some(())
    });
}

/// A record of a job that failed for this reason, with a sentence for people.
fn assert_failed(record: &Value, reason: &str, sentence: &str) {
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!(reason)), "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains(sentence)), "no {sentence:?}: {record}");
}
