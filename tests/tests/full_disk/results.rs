//! The disk of `RESULTS_DIR` is full: a broken node, which runs no jobs, blames none, and resumes by itself.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use testkit::{Edge, PATIENCE, Process, wait_until};

use super::at_once;
use super::disk::{Disk, Left};
use super::jobs::{Jobs, has_record, submit, submit_under_key, wait_for_results};

/// After how long a silent daemon is taken for dead, where none is: for longer than a busy machine holds a heart up.
const CLAIM_STALE: Duration = Duration::from_secs(10);

/// What has not changed for so long stays as it is until the next look at the node, which is seconds away.
const SETTLED: Duration = Duration::from_millis(500);

/// What the daemon says when it has dealt with the end of a run, in one way or another.
const ENDS: [&str; 4] =
    ["job completed", "job failed", "the node failed attempt", "the job has ended; its result waits for the node"];

/// When the disk becomes full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before the daemon has ever run. Then a job comes.
    BeforeTheStart,
    /// While the daemon waits. Then a job comes.
    BeforeTheJob,
    /// While several jobs run, which then write their outputs at the same time.
    WhileJobsRun,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    when: When,
    left: Left,
}

fn count(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

/// Waits until the daemon has met the full disk and no run of its goes on, or until it has done all that it could.
fn wait_until_met(daemon: &mut Process, results: &Path, jobs: &[String]) {
    let mut since = Instant::now();
    wait_until("the full disk to be met", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        let log = daemon.log();
        let broken = log.contains("this node cannot run jobs");
        let at_rest = count(&log, "job starts") == ENDS.iter().map(|end| count(&log, end)).sum::<usize>();
        let done = jobs.iter().all(|job_id| has_record(results, job_id));
        if !(broken && at_rest || done) {
            since = Instant::now();
        }
        since.elapsed() > SETTLED
    });
}

impl Case {
    /// Returns what the daemon and its keeper have said.
    fn run(self) -> String {
        let (edge, jobs) = (Edge::start(), Jobs::new());
        // The heart beats once, and no more: it would need room as well, at any time.
        let consumer = jobs.consumer(&edge).set("CLAIM_STALE_SECONDS", "3600").set("MAX_PARALLEL_JOBS", "3");
        let disk = Disk::over(&consumer, &consumer.results_dir());
        let results = disk.seen(&consumer.results_dir());
        let mut submitted = Vec::new();
        if self.when == When::BeforeTheStart {
            disk.fill(self.left);
        }
        let mut daemon = disk.start(&consumer);
        if self.when != When::BeforeTheStart {
            submitted.push(submit(&edge, 0));
            wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
        }
        if self.when == When::WhileJobsRun {
            jobs.close_gate();
            submitted.extend((1..4).map(|number| submit(&edge, number)));
            wait_for_logs(&results, &submitted);
            disk.fill(self.left);
            jobs.open_gate();
        } else {
            if self.when == When::BeforeTheJob {
                disk.fill(self.left);
            }
            submitted.push(submit(&edge, submitted.len()));
        }
        wait_until_met(&mut daemon, &results, &submitted);
        disk.clear();
        wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
        assert_eq!(jobs.assert_done(&edge, &results, &submitted), submitted.len(), "a result came twice");
        let keeper_log = fs::read_to_string(consumer.state_dir().join("keeper/keeper.log"));
        daemon.log() + &keeper_log.expect("the keeper has a log")
    }
}

/// Waits until all that jobs print at their beginning is on the disk: from then on they hold up at the gate.
fn wait_for_logs(results: &Path, jobs: &[String]) {
    let logs = jobs.iter().flat_map(|job_id| ["stdout.log", "stderr.log"].map(|name| results.join(job_id).join(name)));
    for log in logs {
        let written = || fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
        wait_until(&format!("{}", log.display()), PATIENCE, written);
    }
}

#[test]
fn every_write_in_turn_finds_no_room_and_nothing_is_lost() {
    let mut cases = Vec::new();
    for (when, files, pages) in [(When::BeforeTheStart, 4, 2), (When::BeforeTheJob, 8, 8), (When::WhileJobsRun, 7, 5)] {
        cases.extend((0..files).map(|left| Case { when, left: Left::Files(left) }));
        cases.extend((0..pages).map(|left| Case { when, left: Left::Pages(left) }));
    }
    let said = Mutex::new(String::new());
    at_once(&cases, |case| {
        let log = case.run();
        said.lock().unwrap().push_str(&log);
    });
    // If this fails, some writes take more or less room than they did, and the numbers above miss them.
    let said = said.into_inner().unwrap();
    for (write, words) in [
        ("the probe", "cannot be written: No space left on device"),
        ("the claim", "cannot be made: No space left on device"),
        ("the log of a run", "stdout.log of a run: No space left on device"),
        ("the output", "the node failed attempt"),
        ("the record", "is written into the room that was kept for records: No space left on device"),
    ] {
        assert!(said.contains(words), "in no case {write} found no room");
    }
}

#[test]
fn a_job_is_not_taken_over_because_its_heart_finds_no_room() {
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = || jobs.consumer(&edge).set("CLAIM_STALE_SECONDS", CLAIM_STALE.as_secs().to_string());
    // With its only slot taken it pulls no more, and the second delivery goes to the other one.
    let first = consumer().set("MAX_PARALLEL_JOBS", "1");
    let second = consumer().sharing(&first).set("HPC_QUEUE_LOG", "debug");
    let disk = Disk::over(&first, &first.results_dir());
    jobs.close_gate();
    let mut holder = disk.start(&first);
    let job = submit_under_key(&edge, "full");
    jobs.wait_for_notes(&job, 1);
    let mut other = disk.start(&second);
    assert_eq!(submit_under_key(&edge, "full"), job);
    other.wait_for_log("another daemon holds this job", PATIENCE);

    disk.fill(Left::Pages(0));
    let since = Instant::now();
    wait_until("the claim to be looked at again and again", PATIENCE, || {
        assert!(holder.is_running() && other.is_running());
        assert!(!other.log().contains("is taken over"), "the job was taken from a keeper that lives");
        assert_eq!(jobs.noted(&job), ["begin"]);
        since.elapsed() > CLAIM_STALE * 2
    });
    disk.clear();
    jobs.open_gate();
    let results = disk.seen(&first.results_dir());
    wait_for_results(&edge, &results, std::slice::from_ref(&job), || assert!(holder.is_running()));
    jobs.assert_done(&edge, &results, std::slice::from_ref(&job));
    assert_eq!(jobs.noted(&job), ["begin", "end 0"]);
}
