//! Work that waits without holding anything: jobs that go on after others, and workflows as one message; by real
//! programs, killed on the way.

mod graphs;
mod rounds;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{Consumer, wait_for};

/// Writes the file of a site.
fn write_site(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("site.toml");
    fs::write(&file, text).expect("a file can be written");
    file
}

/// Waits for the final record of a job.
fn record_of(consumer: &Consumer, job_id: &str, bound: Duration) -> Value {
    wait_for(&format!("the record of {job_id}"), bound, || consumer.record(job_id))
}
