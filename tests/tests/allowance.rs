//! A day's allowance of operations that is used up, on real parts: no job is taken that could not be paid for, those
//! that were taken have their results, a new start remembers what was spent; and Prometheus is shown all of it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, wait_until};

/// A day of a hundred, of which a daemon has half.
const PER_DAY: &str = "100";

/// At the end of a day there would be a new allowance in the middle of the test.
const NEEDED: u64 = 240;

fn not_around_midnight() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let left = 86_400 - now % 86_400;
    if left < NEEDED {
        thread::sleep(Duration::from_secs(left + 1));
    }
}

fn completed(consumer: &Consumer, jobs: &[String]) -> usize {
    jobs.iter().filter(|id| consumer.record(id).is_some_and(|record| record["status"] == "completed")).count()
}

/// The value of a sample in a file for Prometheus.
fn sample(file: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn stops_taking(daemon: &mut Process) {
    daemon.wait_for_log("no more are taken until 00:00 UTC", PATIENCE);
}

#[test]
fn a_daemon_takes_no_more_than_the_day_allows_and_publishes_what_it_has() {
    not_around_midnight();
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, "true").unlinked().set("OPS_PER_DAY", PER_DAY).set("MAX_PARALLEL_JOBS", "30");
    let metrics = consumer.home().join("hpc-queue.prom");
    let consumer = consumer.set("METRICS_FILE", &metrics);
    let jobs: Vec<String> = (0..30).map(|_| edge.producer().submit(&json!({"task": "t"}))).collect();
    let mut daemon = consumer.start();
    stops_taking(&mut daemon);
    // A job is three operations here; for each that is under way there has to be more.
    wait_until("as many jobs as fifty operations are good for", PATIENCE, || completed(&consumer, &jobs) >= 14);
    // It is written every second.
    let told = "a job costs 3 here, and 6 in all; no jobs are taken until ";
    wait_until("the status to say so", PATIENCE, || {
        let status = consumer.ask(&["status"]);
        status.output.contains("of 50 today (UTC)") && status.output.contains(told)
    });
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    let done = completed(&consumer, &jobs);
    assert!((14..=16).contains(&done), "{done}");
    let ended = sample(&metrics, "hpc_queue_jobs_ended_total{status=\"completed\"}");
    assert_eq!((ended, sample(&metrics, "hpc_queue_up")), (Some(done as f64), Some(0.0)));
    assert_eq!(sample(&metrics, "hpc_queue_operations_used_up"), Some(1.0));
    let spent = sample(&metrics, "hpc_queue_operations_spent").expect("it is shown");
    assert!(spent <= 50.0 && spent >= 3.0 * done as f64, "{spent}");

    let mut daemon = consumer.start();
    stops_taking(&mut daemon);
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    assert_eq!(completed(&consumer, &jobs), done, "it remembers what was spent");
    let paid = consumer.set("OPS_PER_DAY", "none");
    paid.run_until_idle();
    assert_eq!(completed(&paid, &jobs), 30, "nothing is lost");
}

#[test]
fn a_laptop_takes_no_more_than_the_day_allows() {
    not_around_midnight();
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, "true");
    let jobs: Vec<String> = (0..30).map(|_| edge.producer().submit(&json!({"task": "t"}))).collect();
    consumer.run_until_idle();
    let laptop = Laptop::new(&edge);
    // A third of a hundred: a result is two operations, and there has to be enough for the largest.
    let mut came = 0;
    let last = loop {
        let pulled = laptop.run(&["pull", "--ops-per-day", PER_DAY]);
        if !pulled.status.success() {
            break pulled;
        }
        came += pulled.output.lines().count();
        assert!(came <= 16, "it goes on and on");
    };
    assert!((12..=16).contains(&came), "{came}");
    assert_eq!(last.status.code(), Some(75), "{last:?}");
    assert!(last.log.contains("of 33 operations that may be spent here a day"), "{last:?}");
    let pulled = laptop.run(&["pull", "--ops-per-day", "none"]);
    assert_eq!(came + pulled.output.lines().count(), jobs.len(), "{pulled:?}");
}
