//! Two daemons on one queue and one `RESULTS_DIR`: a job is run by one of them, and by the other only when the first
//! gives no sign of life.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use testkit::{Consumer, Edge, Ledger, PATIENCE, Queue, SCRIPT, is_alive, signal, wait_until};

use super::{
    LONG_PATIENCE, assert_completed, pids, record_text, script, stays_once, submit_under_key, wait_for_backlog,
    wait_for_pids, wait_for_record,
};

/// After how long a silent daemon is taken for dead, where none is: for longer than a busy machine holds a heart up.
const CLAIM_STALE: Duration = Duration::from_secs(10);

/// A daemon that takes nothing over from one that lives.
fn patient(ledger: &Ledger, edge: &Edge) -> Consumer {
    ledger.bare(edge).set("CLAIM_STALE_SECONDS", CLAIM_STALE.as_secs().to_string())
}

#[test]
fn of_two_daemons_one_runs_a_job_though_both_get_it() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let first = patient(&ledger, &edge).set("VISIBILITY_TIMEOUT_MS", "5000");
    let second = patient(&ledger, &edge).set("VISIBILITY_TIMEOUT_MS", "5000").sharing(&first);
    let mut daemons = [first.start(), second.start()];
    let submit = |number: usize| {
        submit_under_key(&edge, &format!("job-{number}"), &Ledger::job(number, Duration::from_millis(300)))
    };
    let jobs: Vec<String> = (0..40).map(submit).collect();
    // Each once more: the edge keeps nothing, so there are two messages of each job.
    assert_eq!((0..40).map(submit).collect::<Vec<_>>(), jobs);
    for job in &jobs {
        assert_completed(&wait_for_record(&first, &mut daemons[0], job), 1);
    }
    wait_for_backlog(&edge, Queue::Jobs, 0);
    for daemon in &mut daemons {
        daemon.terminate();
        assert!(daemon.wait(PATIENCE).success());
    }
    for number in 0..jobs.len() {
        let runs = ledger.runs(number);
        assert_eq!((runs.begun, runs.ended), (1, 1), "job {number}: {runs:?}");
    }
    // Either may have published it, and each has the same to say.
    let results = edge.pull(Queue::Results);
    for job in &jobs {
        let record = record_text(&first, job);
        let of_job: Vec<&String> =
            results.iter().map(|result| &result.body).filter(|body| body.contains(job)).collect();
        assert!(!of_job.is_empty() && of_job.iter().all(|body| **body == record), "{record}: {of_job:?}");
    }
    assert!(daemons.iter().all(|daemon| daemon.log().contains("job starts")), "one of them ran nothing");
}

#[test]
fn a_paused_daemon_whose_keeper_lives_keeps_its_job() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let first = patient(&ledger, &edge);
    let second = patient(&ledger, &edge).sharing(&first).set("HPC_QUEUE_LOG", "debug");
    let job = submit_under_key(&edge, "paused", &Ledger::gated_job(0));
    let mut paused = first.start();
    wait_until("the job to run", PATIENCE, || ledger.runs(0).begun == 1);
    signal(paused.pid(), Signal::STOP);
    // It waits for one more job at the queue, and nobody can see that it stands still.
    edge.producer().submit(&Ledger::job(1, Duration::ZERO));

    let mut other = second.start();
    assert_eq!(submit_under_key(&edge, "paused", &Ledger::gated_job(0)), job);
    other.wait_for_log(&job, PATIENCE);
    let since = Instant::now();
    wait_until("the claim to be looked at again and again", PATIENCE, || {
        assert_eq!(ledger.runs(0).begun, 1, "the job was taken over from a keeper that lives");
        assert!(other.is_running());
        since.elapsed() > CLAIM_STALE * 2
    });
    signal(paused.pid(), Signal::CONT);
    ledger.open_gate();
    assert_completed(&wait_for_record(&first, &mut paused, &job), 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert_eq!(ledger.runs(0).begun, 1);
    let record = record_text(&first, &job);
    let results: Vec<_> = edge.pull(Queue::Results).into_iter().filter(|result| result.body.contains(&job)).collect();
    assert!(!results.is_empty() && results.iter().all(|result| result.body == record), "{record}: {results:?}");
}

#[test]
fn a_node_that_was_paused_whole_cannot_overwrite_the_result_of_its_successor() {
    let edge = Edge::start();
    let consumer = || Consumer::bare(&edge, SCRIPT).set("VISIBILITY_TIMEOUT_MS", "3000");
    let first = consumer();
    let second = consumer().sharing(&first);
    let noted = first.home().join("pids");
    let job_text = stays_once(&noted);
    let job = submit_under_key(&edge, "stale", &job_text);
    let mut paused = first.start();
    let run = wait_for_pids(&noted, 1)[0];
    let keeper = first.keeper_pid().expect("a keeper is running");
    let whole_node = [paused.pid(), keeper, run];
    for pid in whole_node {
        signal(pid, Signal::STOP);
    }

    let mut other = second.start();
    assert_eq!(submit_under_key(&edge, "stale", &job_text), job);
    let record = wait_for_record(&second, &mut other, &job);
    assert_completed(&record, 2);
    assert_eq!(record["output"], 2);
    let text = record_text(&second, &job);

    for pid in whole_node {
        signal(pid, Signal::CONT);
    }
    wait_until("the run that does not count to be gone", LONG_PATIENCE, || !is_alive(run));
    wait_for_backlog(&edge, Queue::Jobs, 0);
    // It goes on with other work, and has nothing left to say of this job.
    other.terminate();
    assert!(other.wait(PATIENCE).success());
    let next = edge.producer().submit(&script("echo 3 > output.json"));
    assert_completed(&wait_for_record(&first, &mut paused, &next), 1);
    paused.terminate();
    assert!(paused.wait(PATIENCE).success());

    assert_eq!(record_text(&first, &job), text, "the record was written again");
    assert_eq!(pids(&noted).len(), 2);
    let output = fs::read_to_string(first.job_dir(&job).join("output.json")).expect("the output of the second run");
    assert_eq!(output.trim(), "2");
    for result in edge.pull(Queue::Results) {
        let result: Value = serde_json::from_str(&result.body).expect("a result is JSON");
        assert!(result["job_id"] != job.as_str() || result == record, "{result}");
    }
}
