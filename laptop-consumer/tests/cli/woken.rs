//! Waiting with a hub: the queue is looked at when a job has ended, and rarely otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hub_server::{Reply, Step, brief, sites, status};
use crate::laptop::{Laptop, Running, Spoken, wait_until};

/// For so long it is watched that nobody looks. Without a hub there are four looks in it and more.
const WATCHED: Duration = Duration::from_secs(3);

fn result(job_id: &str, status: &str) -> String {
    format!(r#"{{"v":1,"job_id":"{job_id}","status":"{status}","result_pointer":"file://node1/{job_id}"}}"#)
}

fn pulls(laptop: &Laptop) -> usize {
    laptop.server.requests("pull").len()
}

/// Something that a test lets happen.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn opens(&self) -> Step {
        let gate = self.clone();
        Step::Until(Box::new(move || gate.is_open()))
    }
}

/// A hub with a job, `j1`, that runs until the gate is open; this is what it says then.
fn runs_until(laptop: &Laptop, gate: &Gate, ended: &Value) {
    let (gate, ended) = (gate.clone(), ended.clone());
    laptop.server.set_hub(move |request| {
        let (gate, ended) = (gate.clone(), ended.clone());
        match request.asked.as_str() {
            "GET /jobs/j1?wait=60" => Reply::Later(Box::new(move || gate.is_open().then(|| Reply::json(&ended)))),
            "GET /jobs/j1" if gate.is_open() => Reply::json(&ended),
            "GET /jobs/j1" => Reply::json(&status("j1", "running")),
            "GET /sites" => Reply::json(&sites()),
            _ => Reply::problem(404, "unknown_job"),
        }
    });
}

fn start(laptop: &Laptop, arguments: &[&str]) -> Running {
    Running::start(laptop.command(arguments).env("RESULTS_POLL_INTERVAL_SECONDS", "0.5"))
}

/// Waits until the hub was asked this.
fn wait_until_asked(laptop: &Laptop, what: &str) {
    wait_until(what, || laptop.server.asked().iter().any(|asked| asked == what));
}

/// How often the queue was looked at while nothing happened.
fn looks_meanwhile(laptop: &Laptop) -> usize {
    let (start, before) = (Instant::now(), pulls(laptop));
    wait_until("some time", || start.elapsed() >= WATCHED);
    pulls(laptop) - before
}

fn assert_came(spoken: &Spoken, job_ids: &[&str]) {
    assert_eq!(
        (spoken.code, spoken.job_ids()),
        (Some(0), job_ids.iter().map(|id| (*id).to_owned()).collect()),
        "{spoken:?}"
    );
}

#[test]
fn who_waits_for_a_job_is_woken_by_its_end_and_looks_rarely_before() {
    let laptop = Laptop::new();
    let gate = Gate::default();
    runs_until(&laptop, &gate, &status("j1", "completed"));
    let waiting = start(&laptop, &["wait", "j1"]);
    wait_until_asked(&laptop, "GET /jobs/j1?wait=60");
    // A look may be under way.
    let looks = looks_meanwhile(&laptop);
    assert!(looks <= 1, "{looks} looks");
    laptop.server.push(result("j1", "completed"));
    gate.open();
    let ended = Instant::now();
    assert_came(&waiting.end(), &["j1"]);
    assert!(ended.elapsed() < Duration::from_secs(10), "{:?}", ended.elapsed());
    assert!(pulls(&laptop) <= 4, "{} looks", pulls(&laptop));
}

#[test]
fn a_result_that_another_laptop_has_fetched_is_taken_from_the_hub() {
    let laptop = Laptop::new();
    let gate = Gate::default();
    gate.open();
    let mut ended = status("j1", "completed");
    ended["result"] = serde_json::from_str(&result("j1", "completed")).unwrap();
    runs_until(&laptop, &gate, &ended);
    let begun = Instant::now();
    let spoken = start(&laptop, &["wait", "j1"]).end();
    assert_came(&spoken, &["j1"]);
    assert!(begun.elapsed() >= Duration::from_secs(10), "the queue has its time: {:?}", begun.elapsed());
    assert!(spoken.stderr.contains("the queue did not give the result of the job j1"), "{}", spoken.stderr);
    let stored: Value = serde_json::from_str(&laptop.stored("j1").unwrap()).unwrap();
    assert_eq!(stored, ended["result"]);
    assert_eq!(laptop.run(&["show", "j1"]).code, Some(0));
    // It may come by the queue all the same.
    laptop.server.push(stored.to_string());
    let spoken = laptop.run(&["pull"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), laptop.server.backlog()), (Some(0), "", 0), "{spoken:?}");
    assert!(!laptop.path("data").join("conflicting").read_dir().unwrap().any(|_| true));
}

#[test]
fn what_the_hub_has_as_a_result_and_is_none_of_the_job_is_not_used() {
    let laptop = Laptop::new();
    let gate = Gate::default();
    gate.open();
    let mut ended = status("j1", "completed");
    ended["result"] = serde_json::from_str(&result("j9", "completed")).unwrap();
    runs_until(&laptop, &gate, &ended);
    let spoken = start(&laptop, &["wait", "j1", "--timeout", "13"]).end();
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(75), ""), "{spoken:?}");
    assert!(spoken.stderr.contains("the hub has a result of j9 as that of the job j1"), "{}", spoken.stderr);
    assert!(laptop.stored("j1").is_none() && laptop.stored("j9").is_none());
}

#[test]
fn a_hub_that_goes_away_or_does_not_know_the_job_is_done_without() {
    let laptop = Laptop::new();
    let gate = Gate::default();
    let gone = gate.clone();
    laptop.server.set_hub(move |request| {
        let gone = gone.clone();
        match request.asked.as_str() {
            "GET /jobs/j1?wait=60" => Reply::Later(Box::new(move || gone.is_open().then_some(Reply::HangUp))),
            "GET /jobs/j1" if !gone.is_open() => Reply::json(&status("j1", "running")),
            "GET /jobs/j2" => Reply::problem(404, "unknown_job"),
            _ => Reply::HangUp,
        }
    });
    let waiting = start(&laptop, &["wait", "j1"]);
    wait_until_asked(&laptop, "GET /jobs/j1?wait=60");
    gate.open();
    let looks = looks_meanwhile(&laptop);
    assert!(looks >= 3, "{looks} looks without a hub");
    laptop.server.push(result("j1", "completed"));
    let spoken = waiting.end();
    assert_came(&spoken, &["j1"]);
    assert!(spoken.stderr.contains("going on without the hub"), "{}", spoken.stderr);

    let waiting = start(&laptop, &["wait", "j2"]);
    wait_until_asked(&laptop, "GET /jobs/j2");
    let looks = looks_meanwhile(&laptop);
    assert!(looks >= 3, "{looks} looks for a job that the hub does not know");
    laptop.server.push(result("j2", "completed"));
    let spoken = waiting.end();
    assert_came(&spoken, &["j2"]);
    assert_eq!(spoken.stderr, "", "it is no trouble");
}

#[test]
fn a_job_that_waits_in_the_queue_is_told_of_only_if_a_site_is_linked() {
    for linked in [true, false] {
        let laptop = Laptop::new();
        laptop.server.set_hub(move |request| match request.asked.as_str() {
            "GET /jobs/j1?wait=60" => Reply::Silence,
            "GET /jobs/j1" => Reply::json(&status("j1", "queued")),
            "GET /sites" => {
                let mut sites = sites();
                sites["sites"][0]["linked"] = json!(linked);
                Reply::json(&sites)
            }
            _ => Reply::problem(404, "unknown_job"),
        });
        let _waiting = start(&laptop, &["wait", "j1"]);
        wait_until_asked(&laptop, "GET /jobs/j1?wait=60");
        let looks = looks_meanwhile(&laptop);
        assert_eq!(looks <= 1, linked, "{looks} looks");
    }
}

#[test]
fn tail_and_who_waits_for_several_hear_of_everything() {
    let laptop = Laptop::new();
    let [first, second, third] = [(); 3].map(|()| Gate::default());
    let (opened, renewed, last) = (first.clone(), second.clone(), third.clone());
    let count = AtomicUsize::new(0);
    laptop.server.set_hub(move |request| match request.asked.as_str() {
        "GET /events" => {
            let begin = Step::Send(b": everything from now on\n\n".to_vec());
            Reply::Stream(match count.fetch_add(1, Ordering::SeqCst) {
                // Renewed, as an object of the edge is.
                0 => vec![begin, opened.opens(), Step::event("job", "", &brief("j1", "completed")), renewed.opens()],
                1 => vec![begin, last.opens(), Step::event("job", "", &brief("j2", "completed")), Step::Hold],
                _ => vec![begin, Step::Hold],
            })
        }
        "GET /jobs/j3" => Reply::json(&status("j3", "completed")),
        "GET /jobs/j4" => Reply::json(&status("j4", "running")),
        "GET /sites" => Reply::json(&sites()),
        _ => Reply::problem(404, "unknown_job"),
    });
    let tail = start(&laptop, &["tail"]);
    wait_until_asked(&laptop, "GET /sites");
    let looks = looks_meanwhile(&laptop);
    assert!(looks <= 2, "{looks} looks");
    laptop.server.push(result("j1", "completed"));
    first.open();
    wait_until("the first result", || laptop.stored("j1").is_some());
    second.open();
    wait_until("the second stream", || {
        laptop.server.asked().iter().filter(|asked| *asked == "GET /events").count() == 2
    });
    laptop.server.push(result("j2", "completed"));
    third.open();
    wait_until("the second result", || laptop.stored("j2").is_some());
    let looks = looks_meanwhile(&laptop);
    assert!(looks <= 1, "what is owed has come: {looks} looks");

    // What had ended before is asked for. The other program looks, and is told to.
    laptop.server.push(result("j3", "completed"));
    let waiting = start(&laptop, &["wait", "j3", "j4", "--timeout", "20"]);
    wait_until("the third result", || laptop.stored("j3").is_some());
    laptop.server.push(result("j4", "completed"));
    laptop.run(&["pull"]);
    assert_came(&waiting.end(), &["j3", "j4"]);
    tail.interrupt();
    assert_came(&tail.end(), &["j1", "j2", "j3", "j4"]);
}

#[test]
fn a_submission_that_is_waited_for_is_woken_too() {
    let laptop = Laptop::new();
    let id = protocol::JobId::from_idempotency_key("k", None).to_string();
    let gate = Gate::default();
    let (ended, known) = (gate.clone(), id.clone());
    laptop.server.set_hub(move |request| {
        let (ended, known) = (ended.clone(), known.clone());
        let path = request.asked.trim_start_matches("GET ").to_owned();
        if path == format!("/jobs/{known}?wait=60") {
            let end = move || ended.is_open().then(|| Reply::json(&status(&known, "completed")));
            return Reply::Later(Box::new(end));
        }
        assert_eq!(path, format!("/jobs/{known}"));
        Reply::json(&status(&known, "held"))
    });
    let submit = ["submit", "--task", "t", "--idempotency-key", "k", "--wait"];
    let waiting = start(&laptop, &submit);
    wait_until_asked(&laptop, &format!("GET /jobs/{id}?wait=60"));
    let looks = looks_meanwhile(&laptop);
    assert!(looks <= 1, "{looks} looks");
    laptop.server.push(result(&id, "completed"));
    gate.open();
    assert_came(&waiting.end(), &[&id]);
}
