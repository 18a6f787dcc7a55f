//! Faults that people met in systems of this kind, and what must come of them here. Each is brought about with real
//! programs, as it was reported.

mod again;
mod begin;
mod cancel;
mod container_environment;
mod hold;
mod idle;
mod inherited;
mod logs;
mod process_limit;
mod settings;
mod shown;
mod signals;
mod swapped;
mod trees;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, wait_for};

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

/// Runs one script to its end and returns its final record.
fn record_of(edge: &Edge, consumer: &Consumer, text: &str) -> Value {
    let id = edge.producer().submit(&script(text));
    consumer.run_until_idle();
    consumer.record(&id).expect("the job has its record")
}

/// Waits until a process has noted its number in this file.
fn wait_for_pid(path: &Path) -> u32 {
    wait_for(&format!("a process id in {}", path.display()), PATIENCE, || {
        fs::read_to_string(path).ok()?.strip_suffix('\n')?.trim().parse().ok()
    })
}
