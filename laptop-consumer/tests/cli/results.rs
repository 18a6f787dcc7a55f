//! Fetching, keeping and showing results.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::laptop::{Laptop, Running, finish, wait_until};
use crate::server::{Fault, QUEUE};

/// The arguments with a lease that a test can wait for.
fn with_short_lease<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--visibility-timeout-ms", "1000"]].concat()
}

fn result(job_id: &str, output: &str) -> String {
    format!(
        r#"{{"v":1,"job_id":"{job_id}","status":"completed","result_pointer":"file://node1/{job_id}/output.json","output":{output}}}"#
    )
}

#[test]
fn of_duplicates_the_first_is_kept_and_printed_once() {
    let laptop = Laptop::new();
    for _ in 0..2 {
        laptop.server.push(result("j1", "1"));
    }
    let spoken = laptop.run(&["pull"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(0), format!("{}\n", result("j1", "1")).as_str()));
    assert_eq!(laptop.stored("j1"), Some(result("j1", "1")));
    assert_eq!(laptop.server.backlog(), 0);

    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&["tail", "--until-idle"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "", ""));
    assert_eq!((laptop.stored("j1"), laptop.server.backlog()), (Some(result("j1", "1")), 0));
    assert!(laptop.names("conflicting").is_empty());
}

#[test]
fn another_result_of_a_job_is_kept_aside_and_told() {
    let laptop = Laptop::new();
    laptop.server.push(result("j1", "1"));
    laptop.run(&["pull"]);
    for is_first in [true, false] {
        laptop.server.push(result("j1", "2"));
        let spoken = laptop.run(&["pull"]);
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(0), ""), "{spoken:?}");
        assert_eq!(spoken.stderr.contains("another result of the job j1"), is_first, "{}", spoken.stderr);
        assert_eq!((laptop.stored("j1"), laptop.server.backlog()), (Some(result("j1", "1")), 0));
        let [name] = laptop.names("conflicting").try_into().expect("there is one");
        assert_eq!(fs::read_to_string(laptop.path("data").join("conflicting").join(&name)).unwrap(), result("j1", "2"));
        let shown = laptop.run(&["show", "j1"]);
        assert_eq!(shown.stdout, format!("{}\n", result("j1", "1")));
        assert!(shown.stderr.contains(&name), "{}", shown.stderr);
    }
}

#[test]
fn a_result_is_stored_byte_for_byte_and_printed_on_one_line() {
    let laptop = Laptop::new();
    let text = r#"{ "v": 1, "job_id": "j1",
      "status": "completed", "result_pointer": "file:///x", "output": 12345678901234567890.10, "later": true }
    "#;
    laptop.server.push(text);
    let line = r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file:///x","output":12345678901234567890.10,"later":true}"#;
    assert_eq!(laptop.run(&["tail", "--until-idle"]).stdout, format!("{line}\n"));
    assert_eq!(laptop.stored("j1").as_deref(), Some(text));
    assert_eq!(laptop.run(&["show", "j1"]).stdout, format!("{line}\n"));
    let human = laptop.run(&["show", "j1", "--output", "human"]).stdout;
    assert_eq!(human, "j1  completed\n  12345678901234567890.10\n");
}

#[test]
fn messages_that_are_no_results_are_kept_whole_and_acknowledged() {
    let laptop = Laptop::new();
    let garbage = [
        "hello",
        "\u{0}\u{ff}\u{fffd}",
        "",
        "{}",
        "[]",
        r#"{"v":1,"job_id":"../../evil","status":"completed","result_pointer":"x"}"#,
        r#"{"v":1,"job_id":"j1","result_pointer":"x"}"#,
    ];
    for body in garbage {
        laptop.server.push(body);
    }
    laptop.server.push(result("j2", "2"));
    let spoken = laptop.run(&["tail", "--until-idle"]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j2".to_owned()]), "{spoken:?}");
    assert_eq!(laptop.server.backlog(), 0);
    assert_eq!(laptop.names("results"), ["j2.json"]);
    let kept: BTreeSet<String> = laptop
        .names("rejected")
        .iter()
        .map(|name| fs::read_to_string(laptop.path("data").join("rejected").join(name)).unwrap())
        .collect();
    assert_eq!(kept, garbage.map(str::to_owned).into());
    assert_eq!(spoken.stderr.matches("is no result").count(), garbage.len(), "{}", spoken.stderr);
    assert!(!laptop.path("evil.json").exists());
}

#[test]
fn a_result_of_a_newer_version_is_kept_and_its_words_are_printed() {
    let laptop = Laptop::new();
    let text = r#"{"v":2,"job_id":"j1","status":"parked","result_pointer":"x","reason":"preempted\u001b","runtime":"vm","needs":["j0"]}"#;
    laptop.server.push(text);
    let spoken = laptop.run(&["tail", "--until-idle"]);
    assert_eq!((spoken.code, spoken.stdout, spoken.stderr.as_str()), (Some(0), format!("{text}\n"), ""));
    assert_eq!((laptop.stored("j1").as_deref(), laptop.server.backlog()), (Some(text), 0));
    let shown = laptop.run(&["show", "j1", "--output", "human"]);
    assert!(shown.stdout.starts_with("j1  parked (preempted\\u{1b})\n"), "{}", shown.stdout);
    assert_eq!(shown.code, Some(3), "what is not known to be a success is none");
}

#[test]
fn heartbeats_of_the_original_system_are_stored_quietly_and_are_nobodys_result() {
    let laptop = Laptop::new();
    let heartbeat = r#"{"event_type": "heartbeat", "status": "alive", "hostname": "n1"}"#;
    let log = r#"{"event_type": "log", "job_id": "j1", "status": "running", "result_pointer": "", "line": "x"}"#;
    let result = r#"{"event_type": "completed", "job_id": "j1", "status": "completed", "result_pointer": "/x"}"#;
    for body in [heartbeat, log, result] {
        laptop.server.push(body);
    }
    let spoken = laptop.run(&["tail", "--until-idle"]);
    assert_eq!((spoken.code, spoken.job_ids(), spoken.stderr.as_str()), (Some(0), vec!["j1".to_owned()], ""));
    assert_eq!((laptop.stored("j1").as_deref(), laptop.server.backlog()), (Some(result), 0));
    assert_eq!((laptop.names("events").len(), laptop.names("rejected").len()), (2, 0));
}

#[test]
fn what_cannot_be_stored_is_not_acknowledged_and_comes_again() {
    let laptop = Laptop::new();
    let in_the_way = laptop.path("data").join("results").join("j1.json");
    fs::create_dir_all(&in_the_way).unwrap();
    laptop.server.push(result("j2", "2"));
    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&with_short_lease(&["pull"]));
    assert_eq!((spoken.code, spoken.job_ids()), (Some(1), vec!["j2".to_owned()]), "{spoken:?}");
    assert!(spoken.stderr.contains("j1.json"), "{}", spoken.stderr);
    assert_eq!(laptop.server.backlog(), 1, "j2 is stored and acknowledged, j1 is neither");

    fs::remove_dir(&in_the_way).unwrap();
    let spoken = laptop.run(&["wait", "j1", "--timeout", "30"]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
    assert_eq!(laptop.server.backlog(), 0);
}

#[test]
fn without_a_place_to_store_nothing_is_pulled() {
    let laptop = Laptop::new();
    fs::write(laptop.path("data"), "a file").unwrap();
    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&["pull"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(1), ""));
    assert!(spoken.stderr.contains("data"), "{}", spoken.stderr);
    assert!(laptop.server.requests("pull").is_empty());
}

#[test]
fn results_are_shown_also_when_they_cannot_be_acknowledged() {
    let laptop = Laptop::new();
    for _ in 0..4 {
        laptop.server.order("ack", Fault::api(500, 15_000));
    }
    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&with_short_lease(&["pull"]));
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
    assert!(spoken.stderr.contains("could not be acknowledged"), "{}", spoken.stderr);
    assert_eq!((laptop.server.requests("ack").len(), laptop.server.backlog()), (4, 1));

    // It comes again, and is dropped.
    let spoken = laptop.run(&with_short_lease(&["tail", "--until-idle"]));
    assert_eq!((spoken.code, spoken.stdout.as_str(), laptop.server.backlog()), (Some(0), "", 0), "{spoken:?}");
}

#[test]
fn until_idle_waits_for_a_lease_to_lapse_but_not_for_ever() {
    let laptop = Laptop::new();
    laptop.server.push_leased(result("j1", "1"), Duration::from_millis(500));
    laptop.server.push_leased(result("j2", "2"), Duration::from_secs(3600));
    let spoken = laptop.run(&with_short_lease(&["tail", "--until-idle"]));
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
    assert!(spoken.stderr.contains("holds 1 more"), "{}", spoken.stderr);
}

#[test]
fn until_idle_tells_a_person_that_there_was_nothing() {
    let laptop = Laptop::new();
    for (output, note) in [("human", "no results\n"), ("json", "")] {
        let spoken = laptop.run(&["tail", "--until-idle", "--output", output]);
        assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "", note), "{output}");
    }
    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&["tail", "--until-idle", "--output", "human"]);
    assert_eq!((spoken.stdout.as_str(), spoken.stderr.as_str()), ("j1  completed\n  1\n", ""));
}

#[test]
fn a_queue_that_cannot_be_reached_is_named_by_its_host_and_the_cause() {
    let laptop = Laptop::new();
    // A port that was free a moment ago, and that nobody listens on.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = laptop.command(&["wait", "j1", "--timeout", "0.1"]);
    let spoken = finish(command.env("CF_API_BASE_URL", format!("http://{address}/client/v4")));
    assert_eq!(spoken.code, Some(75), "{spoken:?}");
    let says = format!(
        "pull from queue {QUEUE}: http://{address} cannot be reached: Connection refused (os error 111); trying again"
    );
    assert!(spoken.stderr.contains(&says), "{}", spoken.stderr);
}

#[test]
fn errors_that_will_not_pass_end_the_program_with_advice() {
    for (status, code, exit, says) in [
        (401, 10_000, 1, "CF_QUEUES_API_TOKEN"),
        (403, 10_106, 1, "CF_QUEUES_API_TOKEN"),
        (404, 10_104, 1, "the queue id"),
        (400, 10_026, 1, "as ordered"),
        (409, 0, 75, "paused"),
        (429, 10_253, 75, "allowance"),
    ] {
        let laptop = Laptop::new();
        laptop.server.order("pull", Fault::api(status, code));
        let spoken = laptop.run(&["pull"]);
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(exit), ""), "{status} {code}: {spoken:?}");
        assert!(spoken.stderr.contains(says), "{status} {code}: {}", spoken.stderr);
        assert_eq!(laptop.server.requests("pull").len(), 1, "{status} {code}");
    }
}

#[test]
fn errors_that_pass_are_sat_out() {
    let laptop = Laptop::new();
    laptop.server.order("pull", Fault::api(500, 15_000));
    laptop.server.order("pull", Fault::HangUp);
    laptop.server.order("pull", Fault::Answer(200, "", "<html>Sign in to the Wi-Fi</html>".to_owned()));
    laptop.server.order("pull", Fault::Answer(429, "retry-after: 1\r\n", String::new()));
    laptop.server.order("pull", Fault::api(405, 0));
    laptop.server.push(result("j1", "1"));
    let spoken = laptop.run(&["wait", "j1"]);
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
    assert_eq!(laptop.server.requests("pull").len(), 6);
    assert_eq!(spoken.stderr.matches("answers again").count(), 1, "{}", spoken.stderr);
}

#[test]
fn waiting_stores_the_results_of_others_and_prints_its_own() {
    let laptop = Laptop::new();
    laptop.server.push(result("other", "0"));
    let spoken = laptop.run(&["wait", "j1", "--timeout", "0.3"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(75), ""), "{spoken:?}");
    assert!(spoken.stderr.contains("wait j1"), "{}", spoken.stderr);
    assert_eq!((laptop.stored("other"), laptop.server.backlog()), (Some(result("other", "0")), 0));

    let spoken = laptop.run(&["show", "j1"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(4), ""));
    assert!(spoken.stderr.contains("wait j1"), "{}", spoken.stderr);

    laptop.server.push(r#"{"v":1,"job_id":"j1","status":"failed","result_pointer":"x","reason":"exit","exit_code":2}"#);
    assert_eq!(laptop.run(&["wait", "j1"]).code, Some(3));
    // From here on the inbox is enough.
    let mut offline = laptop.command(&["wait", "j1"]);
    assert_eq!(finish(offline.env_remove("CF_ACCOUNT_ID").env_remove("CF_QUEUES_API_TOKEN")).code, Some(3));
    assert_eq!(laptop.run(&["show", "j1"]).code, Some(3));
}

#[test]
fn tail_runs_until_it_is_interrupted() {
    let laptop = Laptop::new();
    let running = Running::start(&mut laptop.command(&["tail"]));
    for job_id in ["j1", "j2"] {
        laptop.server.push(result(job_id, "1"));
        wait_until("the acknowledgement", || laptop.server.backlog() == 0);
    }
    running.interrupt();
    // What was acknowledged is printed, even if the signal comes in between.
    let spoken = running.end();
    assert_eq!(spoken.code, Some(0), "{spoken:?}");
    assert_eq!(spoken.stdout, format!("{}\n{}\n", result("j1", "1"), result("j2", "1")));
}

#[test]
fn tail_ends_quietly_when_nobody_reads_on() {
    let laptop = Laptop::new();
    let running = Running::start_unread(&mut laptop.command(&["tail"]));
    laptop.server.push(result("j1", "1"));
    let spoken = running.end();
    assert_eq!((spoken.code, spoken.stderr.as_str()), (Some(0), ""));
    assert_eq!((laptop.stored("j1"), laptop.server.backlog()), (Some(result("j1", "1")), 0));
}

#[test]
fn two_programs_may_share_an_inbox() {
    let laptop = Laptop::new();
    let ids: Vec<String> = (0..60).map(|number| format!("job-{number}")).collect();
    for id in ids.iter().chain(&ids) {
        laptop.server.push(result(id, "1"));
    }
    let spoken: Vec<_> = thread::scope(|scope| {
        let laptop = &laptop;
        let programs: Vec<_> =
            (0..2).map(|_| scope.spawn(move || laptop.run(&["tail", "--until-idle", "--batch-size", "7"]))).collect();
        programs.into_iter().map(|program| program.join().unwrap()).collect()
    });
    let mut printed: Vec<String> = spoken.iter().flat_map(|spoken| spoken.job_ids()).collect();
    printed.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(printed, expected, "each result is printed once: {spoken:?}");
    assert!(spoken.iter().all(|spoken| spoken.code == Some(0)), "{spoken:?}");
    assert_eq!((laptop.names("results").len(), laptop.server.backlog()), (expected.len(), 0));
}

#[test]
fn a_missing_setting_is_named_with_its_flag() {
    let laptop = Laptop::new();
    for (variable, flag) in [
        ("CF_ACCOUNT_ID", "--cf-account-id"),
        ("CF_RESULTS_QUEUE_ID", "--cf-results-queue-id"),
        ("CF_QUEUES_API_TOKEN", "--token-file"),
    ] {
        for value in [None, Some("")] {
            let mut command = laptop.command(&["pull"]);
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
            let spoken = finish(&mut command);
            assert_eq!(spoken.code, Some(2), "{variable}: {spoken:?}");
            assert!(spoken.stderr.contains(variable) && spoken.stderr.contains(flag), "{}", spoken.stderr);
        }
    }
    let mut command = laptop.command(&["pull"]);
    command.env("CF_API_BASE_URL", "ftp://x");
    let spoken = finish(&mut command);
    assert_eq!(spoken.code, Some(2));
    assert!(spoken.stderr.contains("CF_API_BASE_URL"), "{}", spoken.stderr);
}

#[test]
fn settings_come_from_the_file_that_is_named_and_empty_ones_are_defaults() {
    let laptop = Laptop::new();
    fs::write(laptop.path("my.env"), "CF_ACCOUNT_ID=0123456789abcdef0123456789abcdef\nRESULTS_BATCH_SIZE=\n").unwrap();
    laptop.server.push(result("j1", "1"));
    let mut command = laptop.command(&["pull", "--env-file", "my.env"]);
    let spoken = finish(command.env_remove("CF_ACCOUNT_ID"));
    assert_eq!((spoken.code, spoken.job_ids()), (Some(0), vec!["j1".to_owned()]), "{spoken:?}");
    let pulls = laptop.server.requests("pull");
    let asked: serde_json::Value = serde_json::from_str(&pulls[0].body).unwrap();
    assert_eq!(asked, json!({"batch_size": 100, "visibility_timeout_ms": 60_000}));

    fs::write(laptop.path("bad.env"), "# the token\nCF_QUEUES_API_TOKEN=my secret token\n").unwrap();
    let mut command = laptop.command(&["pull", "--env-file", "bad.env"]);
    let spoken = finish(command.env_remove("CF_QUEUES_API_TOKEN"));
    assert_eq!(spoken.code, Some(2));
    assert!(
        spoken.stderr.contains("CF_QUEUES_API_TOKEN from bad.env line 2 ") && !spoken.stderr.contains("secret"),
        "{}",
        spoken.stderr
    );

    let spoken = laptop.run(&["pull", "--env-file", "no-such.env"]);
    assert_eq!(spoken.code, Some(2));
    assert!(spoken.stderr.contains("no-such.env"), "{}", spoken.stderr);
}

#[test]
fn jobs_in_the_queue_of_results_are_given_back_and_the_settings_to_swap_are_named() {
    let laptop = Laptop::new();
    laptop.server.push(result("j1", "1"));
    for job_id in ["j2", "j3"] {
        laptop.server.push(format!(r#"{{"v":1,"job_id":"{job_id}","task":"echo","input":{{"a":1}}}}"#));
    }
    for arguments in [vec!["pull"], vec!["tail"], vec!["tail", "--until-idle"], vec!["wait", "j9"]] {
        let spoken = laptop.run(&arguments);
        assert_eq!(spoken.code, Some(2), "{arguments:?}: {spoken:?}");
        let settings = ["CF_RESULTS_QUEUE_ID", "CF_JOBS_QUEUE_ID"];
        assert!(settings.iter().all(|name| spoken.stderr.contains(name)), "{}", spoken.stderr);
        // The next one sees them at once: they are not leased any more.
        assert_eq!(laptop.server.backlog(), 2, "the result is acknowledged, the jobs are not");
    }
    assert!(laptop.stored("j1").is_some() && laptop.names("rejected").is_empty());
}

#[test]
fn canceling_says_what_does_it_and_asks_nobody() {
    let laptop = Laptop::new();
    let id = "67995bdb-e88f-84f3-982a-a41723a075bc";
    let spoken = laptop.run(&["cancel", id, "j2"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(4), ""));
    assert!(spoken.stderr.trim_end().ends_with(&format!("hpc-consumer cancel {id} j2")), "{spoken:?}");
    assert_eq!(laptop.run(&["cancel", "last"]).code, Some(2), "nothing was submitted");
    assert_eq!(laptop.run(&["cancel"]).code, Some(2));
    assert!(laptop.server.requests("jobs").is_empty());
}
