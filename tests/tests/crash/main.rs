//! What dies, and what must hold all the same: every accepted job has one final result and no job runs twice at the
//! same time, whichever program is killed, paused or started anew, and whenever.
//!
//! Runs are counted by what the jobs themselves note, in a [`testkit::Ledger`] or a file of their own.

mod chaos;
mod cut_off;
mod drain;
mod lease;
mod machine;
mod node;
mod outage;
mod process_1;
mod recovery;
mod reload;
mod results_dir;
mod round;
mod shared;
mod state;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::send;
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, wait_for, wait_until};

/// How long something may take for which other things must lapse or be looked at again first.
const LONG_PATIENCE: Duration = Duration::from_secs(150);

/// A job for [`testkit::SCRIPT`].
fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

/// A job that notes the process id of its run in `pids`, and has the output 1 once there is a file `gate`.
fn waits_for(gate: &Path, pids: &Path) -> Value {
    let (pids, gate) = (pids.display(), gate.display());
    script(&format!("echo $$ >> {pids}; until test -e {gate}; do sleep 0.05; done; echo 1 > output.json"))
}

/// A job whose first run notes its process id in `pids` and stays, and whose next ones note theirs and have the output
/// 2.
fn stays_once(pids: &Path) -> Value {
    let (pids, first) = (pids.display(), pids.with_extension("first"));
    script(&format!(
        "if mkdir {} 2> again.log; then echo $$ >> {pids}; exec sleep 300; \
         else echo 2 > output.json; echo $$ >> {pids}; fi",
        first.display()
    ))
}

/// The process ids that runs have noted, one a line.
fn pids(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A line is whole once it has its end.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.trim().parse::<u32>().unwrap_or_else(|error| panic!("{line:?}: {error}"))).collect()
}

/// Waits until so many runs have noted themselves, and returns their process ids.
fn wait_for_pids(path: &Path, count: usize) -> Vec<u32> {
    wait_for(&format!("{count} process ids in {}", path.display()), PATIENCE, || {
        let pids = pids(path);
        (pids.len() >= count).then_some(pids)
    })
}

/// Submits a job under a key, once more if it was submitted before: then there are two messages of one job.
fn submit_under_key(edge: &Edge, key: &str, job: &Value) -> String {
    let answer = send(edge.producer().post("/jobs").header("idempotency-key", key).body(job.to_string()));
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = answer.json();
    answer["job_id"].as_str().unwrap_or_else(|| panic!("no job_id in {answer}")).to_owned()
}

/// Waits for the final record of a job while the daemon runs.
fn wait_for_record(consumer: &Consumer, daemon: &mut Process, job_id: &str) -> Value {
    wait_for(&format!("the final record of {job_id}"), LONG_PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(job_id)
    })
}

fn wait_for_backlog(edge: &Edge, queue: Queue, messages: u64) {
    wait_until(&format!("{messages} messages in {queue:?}"), LONG_PATIENCE, || edge.backlog(queue) == messages);
}

/// The bytes of the final record, without the line break at the end of the file.
fn record_text(consumer: &Consumer, job_id: &str) -> String {
    let path = consumer.results_dir().join(format!("{job_id}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    text.trim_end().to_owned()
}

fn assert_completed(record: &Value, attempt: u32) {
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(attempt)), "{record}");
}

/// A record of a job of which nobody knows what it has done, with a sentence for people.
fn assert_lost(record: &Value) {
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("lost")), "{record}");
    assert!(record["message"].as_str().is_some_and(|message| !message.is_empty()), "it does not say why: {record}");
}

/// Puts the id of another boot in place of this one's, wherever it stands in the file.
fn replace_boot_id(path: &Path) {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux tells its boot");
    let (boot_id, other) = (boot_id.trim().as_bytes(), b"00000000-0000-4000-8000-000000000000");
    let mut bytes = fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut found = 0;
    for at in 0..=bytes.len().saturating_sub(boot_id.len()) {
        if bytes[at..].starts_with(boot_id) {
            bytes[at..at + other.len()].copy_from_slice(other);
            found += 1;
        }
    }
    assert!(found > 0 && boot_id.len() == other.len(), "the boot of this machine is not in {}", path.display());
    fs::write(path, bytes).expect("the directory of a test can be written to");
}
