//! `RESULTS_DIR`: another one is not taken while a job runs, what a job leaves in it holds nothing up, and nobody else
//! may read it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, SCRIPT, is_alive, wait_until};

use super::{
    LONG_PATIENCE, assert_completed, pids, record_text, script, wait_for_backlog, wait_for_pids, wait_for_record,
    waits_for,
};

/// Starts a daemon with the same state and another `RESULTS_DIR`.
fn start_with(consumer: &Consumer, results_dir: &Path) -> Process {
    Process::start("hpc-consumer", consumer.command().env("RESULTS_DIR", results_dir), consumer.home())
}

#[test]
fn another_results_dir_is_refused_while_a_job_runs_and_taken_when_none_does() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, gate) = (consumer.home().join("pids"), consumer.home().join("gate"));
    let other = consumer.home().join("other");
    let job = edge.producer().submit(&waits_for(&gate, &noted));
    let mut daemon = consumer.start();
    let run = wait_for_pids(&noted, 1)[0];
    daemon.kill();

    let mut refused = start_with(&consumer, &other);
    let status = refused.wait(PATIENCE);
    let log = refused.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    for path in [&consumer.results_dir(), &other] {
        assert!(log.contains(&path.display().to_string()), "{} is not named: {log}", path.display());
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(is_alive(run), "the job was ended");

    let mut daemon = consumer.start();
    daemon.wait_for_log("runs of an earlier daemon go on", PATIENCE);
    fs::write(&gate, "").unwrap();
    let record = wait_for_record(&consumer, &mut daemon, &job);
    assert_completed(&record, 1);
    assert_eq!(record["output"], 1);
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    let keeper = consumer.keeper_pid().expect("a keeper is running");
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    wait_until("the keeper to be gone", LONG_PATIENCE, || !is_alive(keeper));

    let mut daemon = start_with(&consumer, &other);
    let next = edge.producer().submit(&script("echo 2 > output.json"));
    wait_for_backlog(&edge, Queue::Results, 2);
    assert!(daemon.is_running());
    assert!(other.join(format!("{next}.json")).exists() && consumer.record(&next).is_none());
    assert_eq!(pids(&noted).len(), 1, "the job ran again");
}

#[test]
fn a_directory_that_a_job_has_locked_holds_up_neither_its_next_attempt_nor_other_jobs() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (noted, first) = (consumer.home().join("pids"), consumer.home().join("first"));
    let text = format!(
        "echo $$ >> {}; if mkdir {} 2> again.log; \
         then mkdir -p output.json/locked; echo 1 > output.json/locked/f; chmod 500 output.json/locked; exit 3; \
         else echo 2 > output.json; fi",
        noted.display(),
        first.display()
    );
    let mut locks = script(&text);
    locks["retries"] = json!(1);
    let locks = edge.producer().submit(&locks);
    let other = edge.producer().submit(&script("echo 1 > output.json"));
    let mut daemon = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &other), 1);
    let record = wait_for_record(&consumer, &mut daemon, &locks);
    assert_completed(&record, 2);
    assert_eq!(record["output"], 2);
    assert!(!daemon.log().contains("this node cannot run jobs"), "the node was blamed: {}", daemon.log());
    wait_for_backlog(&edge, Queue::Results, 2);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(pids(&noted).len(), 2);
}

#[test]
fn what_a_job_leaves_is_for_its_owner_alone() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (well, failed) = (script("echo 1 > output.json"), script("exit 3"));
    let jobs = [edge.producer().submit(&well), edge.producer().submit(&failed)];
    consumer.run_until_idle();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for job in &jobs {
        assert!(record_text(&consumer, job).contains(job.as_str()));
        let record = consumer.results_dir().join(format!("{job}.json"));
        assert_eq!((mode(&record), mode(&consumer.job_dir(job))), (0o600, 0o700), "{}", record.display());
    }
    assert_eq!(mode(&consumer.results_dir()), 0o700);
}
