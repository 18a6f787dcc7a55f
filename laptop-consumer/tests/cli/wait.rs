//! Waiting: for many jobs, together with other programs of the inbox, and until a person has enough of it.

use std::fs;
use std::time::{Duration, Instant};

use protocol::JobId;

use crate::laptop::{Laptop, Running, wait_until};

fn result(job_id: &str, status: &str) -> String {
    format!(r#"{{"v":1,"job_id":"{job_id}","status":"{status}","result_pointer":"file://node1/{job_id}"}}"#)
}

/// The program with an interval, in seconds.
fn start(laptop: &Laptop, arguments: &[&str], interval: &str) -> Running {
    Running::start(laptop.command(arguments).env("RESULTS_POLL_INTERVAL_SECONDS", interval))
}

fn pulls(laptop: &Laptop) -> usize {
    laptop.server.requests("pull").len()
}

#[test]
fn the_results_of_many_jobs_are_waited_for_and_printed_once_each() {
    let laptop = Laptop::new();
    laptop.server.push(result("j2", "failed"));
    laptop.server.push(result("other", "completed"));
    laptop.server.push(result("j1", "completed"));
    let list = "# mine\nj2\n\n{\"status\":\"queued\",\"job_id\":\"j1\"}\n{\"jobs\":[{\"job_id\":\"j2\"}]}\n";
    fs::write(laptop.path("jobs"), list).unwrap();
    for arguments in [vec!["wait", "j1", "j2", "j1"], vec!["wait", "@jobs"]] {
        let spoken = laptop.run(&arguments);
        let mut ids = spoken.job_ids();
        ids.sort();
        assert_eq!((spoken.code, ids), (Some(3), vec!["j1".to_owned(), "j2".to_owned()]), "{spoken:?}");
    }
    let spoken = laptop.run(&["wait", "j1", "j3", "j4", "--timeout", "0.5"]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(75), vec!["j1".to_owned()]), "{spoken:?}");
    assert!(spoken.stderr.contains("2 of 3 results are not here yet"), "{}", spoken.stderr);

    fs::write(laptop.path("jobs"), "j1\nj 2\n").unwrap();
    for (arguments, says) in [
        (vec!["wait", "@jobs"], "line 2"),
        (vec!["wait", "@none"], "none"),
        (vec!["wait"], "--all"),
        (vec!["wait", "@"], "job id"),
    ] {
        let spoken = laptop.run(&arguments);
        assert!(spoken.code == Some(2) && spoken.stderr.contains(says), "{arguments:?}: {spoken:?}");
    }
}

#[test]
fn jobs_that_were_submitted_here_are_known_by_short_names_and_all_together() {
    let laptop = Laptop::new();
    let ids = ["a", "b", "c"].map(|key| JobId::from_idempotency_key(key, None).to_string());
    assert_eq!(laptop.run(&["wait", "--all"]).code, Some(0), "there is nothing to wait for");
    assert_eq!(laptop.run(&["show", "last"]).code, Some(2));
    for key in ["a", "b", "c"] {
        assert_eq!(laptop.run(&["submit", "--task", "t", "--idempotency-key", key]).code, Some(0));
    }
    laptop.server.push(result(&ids[2], "completed"));
    let spoken = laptop.run(&["wait", "last"]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec![ids[2].clone()]), "{spoken:?}");
    let spoken = laptop.run(&["show", &ids[2][..8]]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec![ids[2].clone()]), "{spoken:?}");
    assert!(spoken.stderr.contains(&ids[2]), "the whole id is told: {}", spoken.stderr);

    let waiting = Running::start(&mut laptop.command(&["wait", "--all"]));
    for id in &ids[..2] {
        laptop.server.push(result(id, "completed"));
    }
    let spoken = waiting.end();
    let mut printed = spoken.job_ids();
    printed.sort();
    let mut expected = ids[..2].to_vec();
    expected.sort();
    assert_eq!((spoken.code, printed), (Some(0), expected), "{spoken:?}");
    assert_eq!(laptop.run(&["wait", "--all"]).stdout, "");
}

#[test]
fn many_programs_look_as_often_as_one() {
    let laptop = Laptop::new();
    let start_time = Instant::now();
    let ids: Vec<String> = (0..12).map(|number| format!("j{number}")).collect();
    let waiting: Vec<Running> = ids.iter().map(|id| start(&laptop, &["wait", id], "60")).collect();
    wait_until("some looks", || pulls(&laptop) >= 3);
    for id in &ids {
        laptop.server.push(result(id, "completed"));
    }
    for (running, id) in waiting.into_iter().zip(&ids) {
        let spoken = running.end();
        assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec![id.clone()]), "{spoken:?}");
    }
    // One program alone looks at once, and never sooner again than after half a second.
    let most = 1 + (start_time.elapsed().as_millis() / 500) as usize;
    assert!(pulls(&laptop) <= most, "{} looks, {most} at the most", pulls(&laptop));
}

#[test]
fn the_next_program_looks_when_the_one_that_looked_is_killed() {
    let laptop = Laptop::new();
    let first = Running::start(&mut laptop.command(&["tail"]));
    wait_until("a look", || pulls(&laptop) > 0);
    let second = Running::start(&mut laptop.command(&["wait", "j1"]));
    drop(first);
    laptop.server.push(result("j1", "completed"));
    let spoken = second.end();
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
}

#[test]
fn who_waits_has_a_slow_tail_look_at_once_and_tail_prints_what_others_fetch() {
    let laptop = Laptop::new();
    let tail = start(&laptop, &["tail"], "3600");
    wait_until("the first look", || pulls(&laptop) == 1);
    laptop.server.push(result("j1", "completed"));
    let spoken = start(&laptop, &["wait", "j1", "--timeout", "30"], "3600").end();
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");

    laptop.server.push(result("j2", "completed"));
    laptop.run(&["pull"]);
    assert!(laptop.stored("j2").is_some());
    tail.interrupt();
    let spoken = tail.end();
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned(), "j2".to_owned()]), "{spoken:?}");
}

#[test]
fn ctrl_c_ends_the_waiting_and_says_that_the_job_goes_on() {
    let laptop = Laptop::new();
    let job_id = JobId::from_idempotency_key("k", None);
    for arguments in [vec!["submit", "--task", "t", "--idempotency-key", "k", "--wait"], vec!["wait", job_id.as_str()]]
    {
        let before = pulls(&laptop);
        let running = Running::start(&mut laptop.command(&arguments));
        wait_until("a look", || pulls(&laptop) > before);
        let asked = Instant::now();
        running.interrupt();
        let spoken = running.end();
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(130), ""), "{spoken:?}");
        let says = format!("the job {job_id} goes on; `laptop-consumer wait {job_id}`");
        assert!(spoken.stderr.contains(&says), "{}", spoken.stderr);
        assert!(asked.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn status_is_one_word_of_what_this_machine_can_know() {
    let laptop = Laptop::new();
    let said = |arguments: &[&str]| {
        let spoken = laptop.run(arguments);
        (spoken.code, spoken.stdout)
    };
    let word = |text: &str| (Some(0), format!("{text}\n"));
    assert_eq!(said(&["status", "j1"]), word("unknown"));
    assert_eq!(said(&["status", "last"]), (Some(2), String::new()));
    let submitted = laptop.run(&["submit", "--task", "t", "--id"]).stdout.trim().to_owned();
    assert_eq!(said(&["status", &submitted]), word("queued"));
    assert_eq!(said(&["status", "last"]), word("queued"));
    assert_eq!(said(&["status", &submitted[..8]]), word("queued"));

    laptop.server.push(result(&submitted, "completed"));
    laptop.server.push(result("j1", "failed"));
    laptop.server.push(result("j2", "failed").replace("}", r#","reason":"cancelled"}"#));
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    assert_eq!(said(&["status", &submitted]), word("completed"));
    assert_eq!(said(&["status", "j1"]), word("failed"));
    let lines = format!("{submitted}\tcompleted\nj2\tcancelled\nj3\tunknown");
    assert_eq!(said(&["status", &submitted, "j2", "j3"]), word(&lines));
    fs::write(laptop.path("jobs"), "j2\n").unwrap();
    assert_eq!(said(&["status", "@jobs"]), word("j2\tcancelled"), "a list has lines, however short it is");
    let json = said(&["status", "j2", "--output", "json"]);
    assert_eq!(json, word(r#"{"job_id":"j2","state":"cancelled","reason":"cancelled"}"#));
    assert_eq!(said(&["status"]), (Some(4), String::new()), "it takes a hub");
    assert_eq!(said(&["status", "../j1"]), (Some(2), String::new()));
}

#[test]
fn jobs_that_were_submitted_here_or_have_a_result_here_are_listed() {
    let laptop = Laptop::new();
    let listed = |arguments: &[&str]| {
        let spoken = laptop.run(&[&["jobs", "--output", "json"], arguments].concat());
        assert_eq!(spoken.code, Some(0), "{spoken:?}");
        spoken.job_ids()
    };
    let nothing = laptop.run(&["jobs"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""), "{nothing:?}");
    assert!(nothing.stderr.contains("no jobs"), "{nothing:?}");
    let submit = |more: &[&str]| {
        let spoken = laptop.run(&[&["submit", "--id", "--task", "simulate"], more].concat());
        spoken.stdout.trim().to_owned()
    };
    let first = submit(&["--name", "draft 3", "--pool", "gpu"]);
    let second = submit(&[]);
    let mut ended = result("j1", "failed");
    ended.insert_str(ended.len() - 1, r#","task":"echo","reason":"exit","finished_at":"2020-11-21T01:15:27.123Z""#);
    laptop.server.push(ended);
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    assert_eq!(listed(&[])[0], "j1", "the oldest stands first");
    assert_eq!(listed(&[]).len(), 3);
    assert_eq!(listed(&["--name", "draft 3"]), [first.as_str()]);
    assert_eq!(listed(&["--pool", "gpu", "--task", "simulate"]), [first.as_str()]);
    assert_eq!(listed(&["--state", "queued"]).len(), 2);
    assert_eq!(listed(&["--state", "failed"]), ["j1"]);
    assert_eq!(listed(&["--state", "completed,cancelled"]), [""; 0]);
    assert_eq!(listed(&["--since", "1h"]).len(), 2);
    assert_eq!(listed(&["--limit", "2"]).len(), 2);
    assert!(!listed(&["--limit", "2"]).contains(&"j1".to_owned()));
    let lines = laptop.run(&["list", "--output", "json"]).results();
    assert_eq!(
        (&lines[0]["state"], &lines[0]["reason"], &lines[0]["name"]),
        (&"failed".into(), &"exit".into(), &serde_json::Value::Null)
    );
    let text = laptop.run(&["list", "--output", "text"]).stdout;
    assert!(text.starts_with("JOB ID ") && text.contains("failed (exit)") && text.contains(&second), "{text}");
    assert!(text.contains("POOL") && text.contains("draft 3"), "{text}");
    for wrong in ["--state=done", "--since=ever", "--limit=0"] {
        assert_eq!(laptop.run(&["jobs", wrong]).code, Some(2), "{wrong}");
    }
    // A file that somebody has put there hides none of the others.
    fs::write(laptop.path("data").join("results").join("junk.json"), "x").unwrap();
    assert_eq!(listed(&["--state", "queued"]).len(), 2);
}
