//! A job that fills the disk of `RESULTS_DIR`, again and again: it fails, others go on, and nobody has to delete
//! anything. And the room that is kept for records and for the state.

use std::fs;
use std::path::Path;
use std::slice::from_ref;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT, wait_until};

use super::disk::{Disk, Left};
use super::jobs::{Jobs, submit, wait_for_results};

fn record(results: &Path, job_id: &str) -> Value {
    let text = fs::read_to_string(results.join(format!("{job_id}.json"))).expect("the job has its record");
    serde_json::from_str(&text).expect("a record is JSON")
}

#[test]
fn a_job_that_fills_the_disk_each_time_fails_and_others_go_on() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("CLAIM_STALE_SECONDS", "3600");
    let disk = Disk::over(&consumer, &consumer.results_dir());
    let results = disk.seen(&consumer.results_dir());
    let (begun, full) = (consumer.home().join("begun"), consumer.home().join("full"));
    let submit = |script: String| edge.producer().submit(&json!({"task": "script", "input": script}));
    let greedy = submit(format!(
        "echo begin >> {}; echo so far; mkdir deep; cat /dev/zero > deep/large; touch {}; exit 3",
        begun.display(),
        full.display()
    ));
    // It runs beside it, and then writes to a full disk, or to one with room again.
    let beside = submit(format!("while ! test -e {}; do sleep 0.02; done; echo 2 > output.json", full.display()));
    let mut daemon = disk.start(&consumer);
    let submitted = [greedy.clone(), beside.clone()];
    wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));

    let failed = record(&results, &greedy);
    let seen = (&failed["status"], &failed["reason"], &failed["exit_code"], &failed["attempt"]);
    assert_eq!(seen, (&json!("failed"), &json!("disk_full"), &json!(3), &json!(3)), "{failed}");
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("filled the disk in 3 attempts in a row: its directory held "), "{message}");
    assert_eq!(fs::read_to_string(&begun).unwrap().lines().count(), 3);
    let left = results.join(&greedy);
    assert!(!left.join("deep").exists(), "what filled the disk is still there");
    assert_eq!(fs::read_to_string(left.join("stdout.log")).unwrap(), "so far\n");
    assert_eq!(record(&results, &beside)["output"], json!(2));
    let messages = edge.pull(Queue::Results);
    for job_id in &submitted {
        let text = fs::read_to_string(results.join(format!("{job_id}.json"))).unwrap();
        assert!(messages.iter().any(|message| message.body == text.trim_end()), "no result of {job_id}");
    }

    let after = submit("echo 3 > output.json".to_owned());
    wait_for_results(&edge, &results, from_ref(&after), || assert!(daemon.is_running(), "the daemon has ended"));
    assert_eq!(record(&results, &after)["output"], json!(3));
}

#[test]
fn a_job_that_has_its_output_needs_no_room_for_its_record() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("CLAIM_STALE_SECONDS", "3600");
    let disk = Disk::over(&consumer, &consumer.results_dir());
    let results = disk.seen(&consumer.results_dir());
    let (closed, begun) = (consumer.home().join("closed"), consumer.home().join("begun"));
    fs::write(&closed, "").unwrap();
    let text = format!(
        "echo 2 > output.json; echo begin >> {}; while test -e {}; do sleep 0.02; done",
        begun.display(),
        closed.display()
    );
    let job = edge.producer().submit(&json!({"task": "script", "input": text}));
    let mut daemon = disk.start(&consumer);
    wait_until("the job to run", PATIENCE, || begun.exists());
    let reserve = || fs::read_dir(results.join(".reserve")).ok()?.next()?.ok()?.path().read_dir().ok();
    wait_until("room to be kept", PATIENCE, || reserve().is_some_and(|spares| spares.count() == 32));
    disk.fill(Left::Pages(0));
    fs::remove_file(&closed).unwrap();
    wait_for_results(&edge, &results, from_ref(&job), || assert!(daemon.is_running(), "the daemon has ended"));
    let log = daemon.log();
    assert!(log.contains("is written into the room that was kept for records"), "it found other room: {log}");
    let messages = edge.pull(Queue::Results);
    let text = fs::read_to_string(results.join(format!("{job}.json"))).unwrap();
    assert_eq!(messages.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), [text.trim_end()]);
    assert_eq!(record(&results, &job)["output"], json!(2));
    assert_eq!(reserve().unwrap().count(), 31);

    disk.clear();
    let after = edge.producer().submit(&json!({"task": "script", "input": "echo 3 > output.json"}));
    wait_for_results(&edge, &results, from_ref(&after), || assert!(daemon.is_running(), "the daemon has ended"));
    wait_until("room to be kept again", PATIENCE, || reserve().is_some_and(|spares| spares.count() == 32));
}

#[test]
fn what_runs_ends_with_its_result_while_the_disk_of_the_state_is_full() {
    const JOBS: usize = 3;
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = jobs.consumer(&edge).set("MAX_PARALLEL_JOBS", JOBS.to_string());
    let disk = Disk::of_size(32, &consumer, &consumer.state_dir());
    let results = consumer.results_dir();
    jobs.close_gate();
    let submitted: Vec<String> = (0..JOBS).map(|number| submit(&edge, number)).collect();
    let mut daemon = disk.start(&consumer);
    submitted.iter().for_each(|job_id| jobs.wait_for_notes(job_id, 1));
    disk.fill(Left::Pages(0));
    jobs.open_gate();
    wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
    assert_eq!(jobs.assert_done(&edge, &results, &submitted), JOBS, "a result came twice");
}
