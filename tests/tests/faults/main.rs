//! Faults that people met in systems of this kind, and what must come of them here. Each is brought about with real
//! programs, as it was reported.

mod hold;
mod inherited;
mod swapped;

use serde_json::{Value, json};
use testkit::{Consumer, PATIENCE, Process, wait_for};

/// A job for [`testkit::SCRIPT`].
fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

/// Waits for the final record of a job while the daemon runs.
fn wait_for_record(consumer: &Consumer, daemon: &mut Process, job_id: &str) -> Value {
    wait_for(&format!("the final record of {job_id}"), PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(job_id)
    })
}
