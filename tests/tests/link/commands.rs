//! What comes down: the bell, cancellations, and the wish to see what a job prints.

use std::time::Instant;

use super::*;

#[test]
fn an_idle_daemon_begins_a_job_as_soon_as_it_is_submitted_and_looks_hardly_ever() {
    let (edge, gate) = (Edge::start(), tempfile::tempdir().unwrap());
    let front = Front::before(&edge.address());
    let consumer = seldom(&edge, &front);
    let _daemon = start_linked(&consumer);
    wait_for_quiet(&front);
    let before = pulls(&front);
    for n in 0..3 {
        let began = gate.path().join(n.to_string());
        let submitted = Instant::now();
        edge.producer().submit(&script(&format!("touch {}", began.display())));
        wait_until("the job to begin", PATIENCE, || began.exists());
        // Nobody would have looked for minutes. It takes a tenth of a second where nothing else goes on.
        assert!(submitted.elapsed() < Duration::from_secs(5), "{:?}", submitted.elapsed());
    }
    wait_for_quiet(&front);
    let asked = pulls(&front) - before;
    assert!((3..=15).contains(&asked), "{asked} pulls for three jobs");
}

#[test]
fn a_job_is_cancelled_before_it_comes_while_it_waits_while_it_runs_and_after_its_end() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let submit = |job: &Value| edge.producer().submit(job);
    // Nobody has taken it.
    let early = submit(&script("touch never"));
    assert_eq!(cancel(&edge, &early).status, 202);
    let running = submit(&waits_for(&gates.path().join("never"), "true"));
    let _daemon = start_linked(&consumer);
    wait_for_state(&edge, &early, "cancelled");
    wait_for_state(&edge, &running, "running");
    let waiting = submit(&script("touch never"));
    for job in [&waiting, &running, &running] {
        assert_eq!(cancel(&edge, job).status, 202);
    }
    for job in [&waiting, &running] {
        wait_until("the record of a job", PATIENCE, || consumer.record(job).is_some());
        let record = consumer.record(job).unwrap();
        assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("cancelled")), "{record}");
        wait_for_state(&edge, job, "cancelled");
    }
    assert!(!consumer.job_dir(&waiting).join("never").exists());
    let ended = submit(&script("echo 7 > output.json"));
    let told = wait_for_state(&edge, &ended, "completed");
    assert_eq!(told["result"]["output"], 7, "{told}");
    let answer = cancel(&edge, &ended);
    assert_eq!((answer.status, &answer.json()["cancel"]), (200, &json!("ended")));
    assert_eq!(consumer.record(&ended).unwrap()["status"], "completed");
}

#[test]
fn a_thousand_jobs_are_cancelled_at_once() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let never = waits_for(&gates.path().join("never"), "true");
    let mut jobs = Vec::new();
    for _ in 0..10 {
        let answer = send(edge.producer().post("/jobs/batch").body(json!({"jobs": vec![&never; 100]}).to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = answer.json();
        jobs.extend(answer["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned()));
    }
    let _daemon = start_linked(&consumer);
    wait_until("a job to run", PATIENCE, || jobs.iter().any(|job| consumer.job_dir(job).join("stdout.log").exists()));
    let answer = send(edge.producer().post("/jobs/cancel").body(json!({"task": "script"}).to_string()));
    assert_eq!((answer.status, &answer.json()["jobs"]), (202, &json!(1_000)), "{answer:?}");
    wait_until("all to be cancelled", 2 * PATIENCE, || jobs.iter().all(|job| consumer.record(job).is_some()));
    for job in &jobs {
        let record = consumer.record(job).unwrap();
        assert_eq!(record["reason"], "cancelled", "{record}");
    }
    wait_for_state(&edge, &jobs[999], "cancelled");
}

/// Server-sent events, as they come.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    fn of(edge: &Edge, path: &str) -> Self {
        let producer = edge.producer();
        let request = client().get(format!("{}{path}", producer.url)).header("x-api-key", producer.api_key);
        let response =
            testkit::http::block_on(async { request.timeout(2 * PATIENCE).send().await }).expect("it is answered");
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// Reads on until this is there.
    fn until(&mut self, words: &str) {
        let read = async {
            while !self.text.contains(words) {
                let chunk = self.response.chunk().await.expect("it goes on");
                let Some(chunk) = chunk else { panic!("it ends without {words}: {}", self.text) };
                self.text.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        let read = testkit::http::block_on(async { tokio::time::timeout(PATIENCE, read).await });
        assert!(read.is_ok(), "{words} does not come: {}", self.text);
    }
}

#[test]
fn what_a_job_prints_is_followed_while_it_runs_from_attempt_to_attempt() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let consumer = Consumer::bare(&edge, SCRIPT);
    let _daemon = start_linked(&consumer);
    let (first, second) = (gates.path().join("first"), gates.path().join("second"));
    let wait = |gate: &Path| format!("until test -e {}; do sleep 0.05; done", gate.display());
    let text = format!(
        "if test -e again; then echo second; {}; echo the-end; echo wrong >&2; else touch again; echo one; {}; echo two; exit 3; fi",
        wait(&second),
        wait(&first)
    );
    let job = edge.producer().submit(&json!({"task": "script", "input": text, "retries": 1}));
    let mut events = Events::of(&edge, &format!("/jobs/{job}/logs?follow=1&from=0"));
    events.until("one");
    assert!(!events.text.contains("two"), "{}", events.text);
    let opened = Instant::now();
    open(&first);
    events.until("two");
    let delay = opened.elapsed();
    assert!(delay < Duration::from_secs(5), "{delay:?}");
    events.until("second");
    open(&second);
    events.until("the-end");
    events.until("wrong");
    events.until("event: end");
    // What has ended is told as well, whole.
    let past = hub(&edge, &job, "/logs?stream=stderr");
    assert_eq!((past.status, past.body.as_str()), (200, "wrong\n"));
}

#[test]
fn a_line_of_30_megabytes_that_ends_in_half_a_character_is_followed_to_its_end() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let consumer = Consumer::bare(&edge, SCRIPT);
    let daemon = start_linked(&consumer);
    let gate = gates.path().join("gate");
    let job = edge.producer().submit(&script(&format!(
        "printf begin; until test -e {}; do sleep 0.05; done; head -c 30000000 /dev/zero | tr '[:cntrl:]' x; \
         printf é | head -c 1",
        gate.display()
    )));
    let laptop = Laptop::new(&edge);
    let mut follower = laptop.start(&["logs", &job, "--follow", "--from", "0", "--stream", "stdout"]);
    wait_until("its beginning", PATIENCE, || follower.output() == "begin");
    open(&gate);
    assert_eq!(follower.wait(2 * PATIENCE).code(), Some(0), "{}", follower.log());
    // As much as `OUTPUT_LOG_BYTES_MAX` keeps of it, and where something was left out is said.
    let text = follower.output();
    let (printed, lines) = (text.matches('x').count(), text.lines().count());
    assert!((15_000_000..18_000_000).contains(&printed) && lines < 5, "{printed} bytes of it in {lines} lines");
    assert!(text.starts_with("beginx") && text.contains("left out") && text.ends_with("x\u{fffd}"));
    for (name, peak) in [("daemon", daemon.peak_resident_bytes()), ("edge", edge.peak_resident_bytes())] {
        assert!(peak < 100_000_000, "the {name} had {peak} bytes resident");
    }
}
