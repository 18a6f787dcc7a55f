//! `doctor --fix` on servers that keep what they are told: what is missing is made, what is there stays, and nothing is
//! done twice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Cloudflare, Consumer, Edge, PATIENCE, Permission, Plan, Process, Queue, SCRIPT, Spoken, command, parts};

/// What else the daemon needs.
const NODE: &str = "RUNTIME=bare\nCONTAINER_CMD=true\nRESULTS_DIR=results\nSTATE_DIR=state\n";

/// Runs a program in a directory of its own with these settings.
fn run(program: &str, words: &[&str], settings: &str) -> Spoken {
    let home: TempDir = tempfile::tempdir().expect("a directory can be made");
    let file = home.path().join("a.env");
    fs::write(&file, settings).expect("the directory of a test can be written to");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    let mut command = command(&parts::program(program), home.path());
    command.args(words).args(["--env-file", "a.env"]);
    let mut process = Process::start(program, &mut command, home.path());
    let status = process.wait(PATIENCE);
    Spoken { status, output: process.output(), log: process.log() }
}

fn doctor(cloudflare: &Cloudflare, token: Permission, more: &str, words: &[&str]) -> Spoken {
    let settings = format!("{NODE}{}{more}", cloudflare.settings(token));
    run("hpc-consumer", &[&["doctor"], words].concat(), &settings)
}

/// The lines that belong into the settings file.
fn told_settings(spoken: &Spoken) -> String {
    spoken.log.lines().filter(|line| line.starts_with("CF_")).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn an_empty_account_gets_its_queues_and_nothing_twice() {
    let cloudflare = Cloudflare::start(Plan::Paid);
    // Nobody can be asked, so nothing is done.
    let asked = doctor(&cloudflare, Permission::Edit, "", &["--fix"]);
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    assert!(asked.log.contains("make the queue hpc-jobs\n") && cloudflare.changes().is_empty(), "{asked:?}");
    let fixed = doctor(&cloudflare, Permission::Edit, "", &["--fix", "--yes"]);
    let jobs = cloudflare.queue("hpc-jobs").expect("it was made");
    assert_eq!(jobs["settings"]["message_retention_period"], 1_209_600, "{jobs}");
    let consumer = &jobs["consumers"][0];
    assert_eq!((&consumer["type"], &consumer["settings"]["max_retries"]), (&json!("http_pull"), &json!(100)));
    assert_eq!(consumer["dead_letter_queue"], "hpc-jobs-dlq");
    let results = cloudflare.queue("hpc-results").expect("it was made");
    assert_eq!(results["consumers"][0]["settings"]["max_retries"], 100);
    assert!(cloudflare.queue("hpc-jobs-dlq").is_some_and(|queue| queue["consumers"] == json!([])));
    // The ids are not in the settings yet, and are told.
    assert_eq!(fixed.status.code(), Some(1), "{fixed:?}");
    let told = told_settings(&fixed);
    assert!(told.contains(&format!("CF_JOBS_QUEUE_ID={}\n", jobs["queue_id"].as_str().unwrap_or_default())), "{told}");
    let changes = cloudflare.changes();
    let again = doctor(&cloudflare, Permission::Edit, &told, &["--fix", "--yes"]);
    assert_eq!((again.status.code(), cloudflare.changes()), (Some(0), changes), "{again:?}");
    assert!(again.log.contains("nothing is missing"), "{again:?}");
    // The laptop finds the same.
    let settings = cloudflare.settings(Permission::Edit) + &told;
    let laptop = run("laptop-consumer", &["doctor", "--fix", "--yes"], &settings);
    assert!(laptop.status.success() && laptop.log.contains("nothing is missing"), "{laptop:?}");
}

#[test]
fn what_is_there_is_changed_only_where_it_loses_messages() {
    let cloudflare = Cloudflare::start(Plan::Free);
    let settings = json!({"batch_size": 7, "max_retries": 3, "retry_delay": 5, "visibility_timeout_ms": 60_000});
    let consumer = json!({"type": "http_pull", "dead_letter_queue": "", "settings": settings});
    let jobs = cloudflare.add("my-jobs", Some(consumer));
    cloudflare.add("hpc-jobs", None);
    let more = format!("CF_JOBS_QUEUE_ID={jobs}\n");
    let fixed = doctor(&cloudflare, Permission::Edit, &more, &["--fix", "--yes"]);
    let changed = cloudflare.queue("my-jobs").expect("it is there");
    let expected = json!({"batch_size": 7, "max_retries": 100, "retry_delay": 5, "visibility_timeout_ms": 60_000});
    assert_eq!(changed["consumers"][0]["settings"], expected, "{fixed:?}");
    assert_eq!(changed["consumers"][0]["dead_letter_queue"], "hpc-jobs-dlq");
    assert_eq!(cloudflare.queue("hpc-jobs").expect("it is there")["consumers"], json!([]), "it is not meant");
    // The free plan keeps messages for a day, whatever is asked for; that stays a warning.
    assert!(fixed.log.contains("not done: have the queue my-jobs keep messages for 14 days"), "{fixed:?}");
    let more = more + &told_settings(&fixed);
    let well = doctor(&cloudflare, Permission::Edit, &more, &[]);
    assert!(well.status.success() && well.output.contains("after 24 hours is deleted"), "{well:?}");
}

#[test]
fn a_token_that_may_only_read_changes_nothing_and_is_told() {
    let cloudflare = Cloudflare::start(Plan::Paid);
    let jobs = cloudflare.add("hpc-jobs", None);
    let more = format!("CF_JOBS_QUEUE_ID={jobs}\n");
    let refused = doctor(&cloudflare, Permission::Read, &more, &["--fix", "--yes", "--output", "json"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let report: Value = serde_json::from_str(&refused.output).expect("one line of JSON");
    let checks = report["checks"].as_array().expect("a list");
    let is = |check: &Value, name: &str, text: &str| {
        check["check"] == name && check["text"].as_str().is_some_and(|found| found.contains(text))
    };
    assert!(checks.iter().any(|check| is(check, "token", "may read the queues and not change them")), "{report}");
    assert!(checks.iter().any(|check| is(check, "fix", "make the queue hpc-jobs-dlq")), "{report}");
    assert!(report["ok"] == false && cloudflare.queue("hpc-jobs-dlq").is_none());
}

#[test]
fn a_queue_of_local_edge_that_lost_its_consumer_is_mended_and_jobs_run() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let id = edge.queue_id(Queue::Jobs);
    let well = consumer.ask(&["doctor"]);
    assert!(well.status.success(), "{well:?}");
    let consumers = edge.api(Method::GET, &format!("/{id}/consumers"), None).json();
    let consumer_id = consumers["result"][0]["consumer_id"].as_str().expect("it has one").to_owned();
    let deleted = edge.api(Method::DELETE, &format!("/{id}/consumers/{consumer_id}"), None);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let broken = consumer.ask(&["doctor"]);
    assert!(broken.output.contains("it has no HTTP pull consumer"), "{broken:?}");
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let fixed = consumer.ask(&["doctor", "--fix", "--yes"]);
    assert!(fixed.status.success(), "{fixed:?}");
    let job = edge.producer().submit(&json!({"task": "script", "input": "echo [1] > output.json"}));
    consumer.run_until_idle();
    assert_eq!(consumer.record(&job).expect("it has ended")["status"], "completed");
}
