//! Many jobs from one file, the same jobs again, and what is taken out of the inbox.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::laptop::{Laptop, Running, Spoken, finish};
use crate::server::Fault;

const SWEEP: [&str; 5] = ["submit", "--task", "t", "--from", "sweep.csv"];

/// The jobs that the edge was sent, batch by batch.
fn sent(laptop: &Laptop) -> Vec<Vec<Value>> {
    let jobs = |body: &str| {
        let body: Value = serde_json::from_str(body).expect("a batch is JSON");
        body["jobs"].as_array().expect("it has jobs").clone()
    };
    laptop.server.requests("batch").iter().map(|request| jobs(&request.body)).collect()
}

fn inputs(batch: &[Value]) -> Vec<Value> {
    batch.iter().map(|job| job["input"].clone()).collect()
}

fn ids(spoken: &Spoken) -> Vec<String> {
    spoken.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn the_lines_of_a_file_are_jobs_and_the_same_command_again_sends_only_what_is_new() {
    let laptop = Laptop::new();
    fs::write(laptop.path("sweep.csv"), "steps,seed,note\n10,1,a\n10,1,a\n20,007,\n").unwrap();
    let first = laptop.run(&[&SWEEP[..], &["--name", "mine", "--id"]].concat());
    assert_eq!((first.code, ids(&first).len()), (Some(0), 3), "{first:?}");
    let batches = sent(&laptop);
    let a = json!({"steps": 10, "seed": 1, "note": "a"});
    assert_eq!(inputs(&batches[0]), [a.clone(), a, json!({"steps": 20, "seed": "007"})]);
    assert!(batches[0].iter().all(|job| job["name"] == "mine"), "{batches:?}");
    let keys: std::collections::HashSet<&str> =
        batches[0].iter().map(|job| job["idempotency_key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 3, "equal lines are jobs of their own");

    let again = laptop.run(&[&SWEEP[..], &["--name", "mine", "--id"]].concat());
    assert_eq!((again.code, ids(&again)), (Some(0), ids(&first)), "{again:?}");
    assert!(again.stderr.contains("3 of 3 lines were submitted before"), "{}", again.stderr);
    assert_eq!(sent(&laptop).len(), 1, "nothing is sent twice");

    fs::write(laptop.path("sweep.csv"), "steps,seed,note\n5,1,a\n10,1,a\n10,1,a\n20,007,\n").unwrap();
    let longer = laptop.run(&[&SWEEP[..], &["--name", "mine"]].concat());
    assert_eq!(longer.code, Some(0), "{longer:?}");
    assert_eq!(inputs(&sent(&laptop)[1]), [json!({"steps": 5, "seed": 1, "note": "a"})]);
    let states = longer.results();
    let of = |line: u64| states.iter().find(|state| state["line"] == line).unwrap()["status"].clone();
    assert_eq!([of(2), of(3), of(5)], ["queued", "known", "known"]);

    // On purpose they are other jobs.
    for other in [["--idempotency-key", "again"], ["--name", "other"]] {
        let spoken = laptop.run(&[&SWEEP[..], &other[..], &["--id"]].concat());
        assert!(spoken.code == Some(0) && ids(&spoken).iter().all(|id| !ids(&first).contains(id)), "{spoken:?}");
    }
    assert_eq!(sent(&laptop).len(), 4);
}

#[test]
fn what_was_cut_off_goes_on_and_each_job_is_one() {
    let laptop = Laptop::new();
    let lines: String = (0..250).map(|number| format!("{number}\n")).collect();
    fs::write(laptop.path("many.jsonl"), lines).unwrap();
    let submit = ["submit", "--task", "t", "--from", "many.jsonl", "--id"];
    let gone = json!({"code": "queue_full", "detail": "the day is used up", "retryable": true});
    // The first batch is answered, and the second is not.
    laptop.server.order_after("batch", 1, Fault::Answer(429, "retry-after: 3600\r\n", gone.to_string()));
    let cut = laptop.run(&submit);
    assert_eq!((cut.code, ids(&cut).len()), (Some(75), 100), "{cut:?}");
    assert!(cut.stderr.contains("100 of 250 jobs are in the queue; the same command sends the rest"), "{}", cut.stderr);
    let rest = laptop.run(&submit);
    assert_eq!((rest.code, ids(&rest).len()), (Some(0), 250), "{rest:?}");
    let batches = sent(&laptop);
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 100, 50]);
    assert_eq!(batches[1], batches[2], "what was not answered is sent again as it was");
    assert_eq!(laptop.names("submitted").len(), 250);
}

#[test]
fn nothing_is_sent_before_all_lines_are_right() {
    let laptop = Laptop::new();
    let large = format!("1\n\"{}\"\n", "x".repeat(130_000));
    for (name, content, says) in [
        ("a.csv", "a,b\n1,2\n3\n", "--from a.csv: line 3 has 1 field,"),
        ("a.ndjson", "1\n\n{\n", "--from a.ndjson: line 3 is not JSON"),
        ("b.ndjson", &large, "--from b.ndjson: line 2 is a job of 130"),
        ("a.txt", "1\n", "--from a.txt: its name ends with"),
        ("c.csv", "a\n", "no line with an input"),
    ] {
        fs::write(laptop.path(name), content).unwrap();
        let spoken = laptop.run(&["submit", "--task", "t", "--from", name]);
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(2), ""), "{spoken:?}");
        assert!(spoken.stderr.contains(says), "{says}: {}", spoken.stderr);
    }
    fs::write(laptop.path("latin.csv"), b"a\n1\n\xe9\n").unwrap();
    for (arguments, says) in [
        (vec!["--from", "latin.csv"], "line 3 is not UTF-8"),
        (vec!["--from", "none.csv"], "it cannot be read"),
        (vec!["--from", "-", "--input", "1"], "cannot be used with"),
    ] {
        let spoken = laptop.run(&[vec!["submit", "--task", "t"], arguments].concat());
        assert!(spoken.code == Some(2) && spoken.stderr.contains(says), "{says}: {spoken:?}");
    }
    assert!(laptop.server.requests("batch").is_empty() && laptop.server.requests("jobs").is_empty());
}

#[test]
fn what_the_edge_refuses_is_told_with_its_line_and_all_else_is_submitted() {
    let laptop = Laptop::new();
    let mut running = Running::start(laptop.command(&["submit", "--task", "t", "--from", "-"]).stdin(Stdio::piped()));
    running.give(b"1\n\n\"refuse\"\n[2]\n");
    let spoken = running.end();
    assert_eq!((spoken.code, spoken.results().len()), (Some(1), 2), "{spoken:?}");
    assert!(spoken.stderr.contains("line 3: the edge refused the job: as ordered"), "{}", spoken.stderr);
    assert_eq!(inputs(&sent(&laptop)[0]), [json!(1), json!("refuse"), json!([2])]);
}

#[test]
fn all_results_of_a_file_can_be_waited_for() {
    let laptop = Laptop::new();
    fs::write(laptop.path("sweep.csv"), "n\n1\n2\n").unwrap();
    let jobs = ids(&laptop.run(&[&SWEEP[..], &["--id"]].concat()));
    for (id, status) in jobs.iter().zip(["completed", "failed"]) {
        laptop.server.push(json!({"job_id": id, "status": status, "result_pointer": "file://n/x"}).to_string());
    }
    let waited = laptop.run(&[&SWEEP[..], &["--wait"]].concat());
    let (mut came, mut expected) = (waited.job_ids(), jobs);
    came.sort();
    expected.sort();
    assert_eq!((waited.code, came), (Some(3), expected), "{waited:?}");
}

#[test]
fn a_job_is_sent_again_as_it_was_and_of_those_that_failed_each_once() {
    let laptop = Laptop::new();
    let submit = |name: &str| {
        let words = ["submit", "--task", "t", "--input", "{\"a\":1.50}", "--retries", "2", "--id", "--name", name];
        laptop.run(&words).stdout.trim().to_owned()
    };
    let jobs = ["one", "two", "three"].map(submit);
    for (id, status) in jobs.iter().zip(["failed", "completed", "failed"]) {
        let result =
            json!({"job_id": id, "status": status, "reason": "exit", "task": "t", "result_pointer": "file://n/x"});
        laptop.server.push(result.to_string());
    }
    assert_eq!(laptop.run(&["pull"]).code, Some(0));

    let again = laptop.run(&["rerun", &jobs[1][..8]]);
    assert_eq!((again.code, &again.results()[0]["rerun_of"]), (Some(0), &json!(jobs[1])), "{again:?}");
    let job = &sent(&laptop)[0][0];
    let fields = [&job["task"], &job["input"]["a"], &job["retries"], &job["name"]];
    assert_eq!(fields, [&json!("t"), &json!(1.50), &json!(2), &json!("two")], "{job}");
    assert!(laptop.server.requests("batch")[0].body.contains("1.50"), "numbers keep their digits");
    assert_ne!(again.job_ids()[0], jobs[1], "it is a new job");
    assert_ne!(laptop.run(&["rerun", &jobs[1]]).job_ids(), again.job_ids(), "whoever asks twice gets two");

    let failed = laptop.run(&["rerun", "--failed", "--name", "one"]);
    assert_eq!((failed.code, failed.results().len()), (Some(0), 1), "{failed:?}");
    let failed = laptop.run(&["rerun", "--failed"]);
    assert_eq!((failed.code, &failed.results()[0]["rerun_of"]), (Some(0), &json!(jobs[2])), "{failed:?}");
    assert!(failed.stderr.contains("1 more have failed and were submitted again since"), "{}", failed.stderr);
    let none = laptop.run(&["rerun", "--failed"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""), "{none:?}");
    assert_eq!(sent(&laptop).len(), 4);

    for (arguments, code) in [(vec!["rerun"], 2), (vec!["rerun", "nobodys"], 4), (vec!["rerun", "--since", "1h"], 2)] {
        assert_eq!(laptop.run(&arguments).code, Some(code), "{arguments:?}");
    }
}

#[test]
fn the_output_of_a_job_comes_alone_and_whole() {
    let laptop = Laptop::new();
    for (id, fields) in [
        ("j1", json!({"status": "completed", "output": {"mean": 1.5}})),
        ("j2", json!({"status": "completed"})),
        ("j3", json!({"status": "failed", "reason": "exit"})),
        ("j4", json!({"status": "completed", "output_bytes": 90_000})),
        ("j5", json!({"status": "failed", "reason": "cancelled", "output": [1]})),
    ] {
        let mut result = json!({"job_id": id, "result_pointer": "file://n/x"});
        result.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        laptop.server.push(result.to_string());
    }
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    let spoken = laptop.run(&["output", "j1"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "{\"mean\":1.5}\n", ""));
    fs::write(laptop.path("out.json"), "something longer that was here before").unwrap();
    let spoken = laptop.run(&["output", "j1", "-o", "out.json"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(0), ""), "{spoken:?}");
    assert_eq!(fs::read_to_string(laptop.path("out.json")).unwrap(), "{\"mean\":1.5}\n");
    let spoken = laptop.run(&["output", "j5"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(3), "[1]\n"));
    for (job, code, says) in [
        ("j2", 4, "has left no output.json; next: `laptop-consumer logs j2`"),
        ("j3", 3, "next: `laptop-consumer show j3`"),
        ("j4", 4, "90000 bytes, stayed on the cluster, at file://n/x"),
        ("j6", 4, "has no result yet; next: `laptop-consumer wait j6`"),
    ] {
        let spoken = laptop.run(&["output", job]);
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(code), ""), "{spoken:?}");
        assert!(spoken.stderr.contains(says), "{says}: {}", spoken.stderr);
    }
    // What is no plain file is not replaced.
    std::os::unix::fs::symlink("out.json", laptop.path("link")).unwrap();
    for place in ["link", "data", "/dev/null"] {
        assert_eq!(laptop.run(&["output", "j1", "-o", place]).code, Some(2), "{place}");
    }
}

#[test]
fn results_go_from_the_inbox_by_what_they_are_and_nothing_without_a_yes() {
    let laptop = Laptop::new();
    for (id, status, day) in [("old", "completed", 1), ("bad", "failed", 1), ("new", "completed", 29)] {
        let finished =
            if day == 1 { "2020-01-01T00:00:00Z".to_owned() } else { protocol::Timestamp::now().to_string() };
        let result = json!({"job_id": id, "status": status, "result_pointer": "x", "finished_at": finished});
        laptop.server.push(result.to_string());
    }
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    let open = laptop.run(&["submit", "--task", "t", "--id"]).stdout.trim().to_owned();

    let asked = laptop.run(&["purge", "--older-than", "30d"]);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    assert!(asked.stderr.contains("this would remove the results of 2 jobs from "), "{}", asked.stderr);
    assert_eq!(laptop.names("results").len(), 3);

    let purged = laptop.run(&["purge", "--older-than", "30d", "--state", "failed", "--yes"]);
    assert_eq!((purged.code, purged.results()), (Some(0), vec![json!({"jobs": 1})]), "{purged:?}");
    assert_eq!(laptop.names("results"), ["new.json", "old.json"]);
    assert_eq!(laptop.run(&["purge", "--older-than", "30d", "--yes"]).code, Some(0));
    assert_eq!((laptop.names("results"), laptop.names("submitted").len()), (vec!["new.json".to_owned()], 1));
    // All that have ended, and no other.
    assert_eq!(laptop.run(&["purge", "--all", "--yes"]).code, Some(0));
    assert_eq!((laptop.names("results").len(), laptop.names("submitted").len()), (0, 1));
    // By its name, whatever it is.
    assert_eq!(laptop.run(&["purge", &open, "--yes"]).code, Some(0));
    assert_eq!(laptop.names("submitted").len(), 0);
    assert_eq!(laptop.run(&["wait", "--all"]).code, Some(0), "it is waited for no more");

    for wrong in [vec!["purge"], vec!["purge", "--state", "running"], vec!["purge", "j1", "--all"]] {
        assert_eq!(laptop.run(&wrong).code, Some(2), "{wrong:?}");
    }
    assert!(finish(&mut laptop.command(&["purge", "nothing", "--yes"])).stderr.contains("nothing is here of the job"));
}
