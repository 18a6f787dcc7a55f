//! Runs that end badly, run too long, or look for what is not theirs.

use std::fs;

use serde_json::json;
use testkit::{Consumer, Edge, Laptop, PATIENCE, Queue, SCRIPT, is_alive, wait_for};

use super::{assert_failed, record_of, script, wait_for_record};

#[test]
fn exit_codes_and_signals_are_told_with_the_end_of_stderr() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let runs = consumer.home().join("runs");
    let failing = format!("echo run >> {}; echo some progress; echo boom >&2; exit 7", runs.display());
    let record = record_of(&edge, &consumer, &failing);
    assert_failed(&record, "exit", "7");
    assert_eq!((&record["exit_code"], &record["stderr_tail"]), (&json!(7), &json!("boom\n")), "{record}");
    assert_eq!(
        fs::read_to_string(consumer.job_dir(record["job_id"].as_str().unwrap()).join("stdout.log")).unwrap(),
        "some progress\n"
    );

    let record = record_of(&edge, &consumer, "kill -s KILL $$");
    assert_failed(&record, "signal", "9");
    assert_eq!((&record["signal"], record.get("exit_code")), (&json!(9), None), "{record}");

    // A job that fails has failed: it is not run again, and not in the dead letters.
    consumer.run_until_idle();
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!((edge.backlog(Queue::Jobs), Laptop::new(&edge).take_results().len()), (0, 2));
}

#[test]
fn output_of_a_failed_run_is_kept_and_travels() {
    let edge = Edge::start();
    let record = record_of(&edge, &Consumer::bare(&edge, SCRIPT), "echo 12 > output.json; exit 1");
    assert_failed(&record, "exit", "1");
    assert_eq!(record["output"], 12, "a partial result may be all that a user wants: {record}");
}

/// A run that means to stay: it ignores SIGTERM, and so do a child in another session and an orphan. Each leaves its
/// process id in a file.
const STUBBORN: &str = "trap '' TERM; echo $$ > main.pid; \
     setsid sh -c 'echo $$ > session.pid; exec sleep 300' & \
     (setsid sh -c 'echo $$ > orphan.pid; exec sleep 300' &) ; \
     (sh -c 'echo $$ > double.pid; exec sleep 300' &) ; \
     sleep 300";

fn assert_ends_whole(consumer: &Consumer, edge: &Edge, job: &serde_json::Value) {
    let mut daemon = consumer.start();
    let id = edge.producer().submit(job);
    let pids = ["main", "session", "orphan", "double"].map(|name| {
        let path = consumer.job_dir(&id).join(format!("{name}.pid"));
        wait_for(&format!("{}", path.display()), PATIENCE, || {
            fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok()
        })
    });
    let record = wait_for_record(consumer, &mut daemon, &id);
    assert_failed(&record, "time_limit", "time limit of 2 s");
    // The end is announced when it is one.
    for pid in pids {
        assert!(!is_alive(pid), "process {pid} of {pids:?} outlived its job");
    }
    // And the slot is free again.
    let next = edge.producer().submit(&script("echo 1 > output.json"));
    assert_eq!(wait_for_record(consumer, &mut daemon, &next)["status"], "completed");
}

#[test]
fn the_time_limit_ends_the_whole_tree_of_processes() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("JOB_TIME_LIMIT_SECONDS", "2").set("MAX_PARALLEL_JOBS", "1");
    assert_ends_whole(&consumer, &edge, &script(STUBBORN));
}

#[test]
fn a_job_may_ask_for_less_time() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("JOB_TIME_LIMIT_SECONDS", "3600").set("MAX_PARALLEL_JOBS", "1");
    let job = json!({"task": "script", "input": STUBBORN, "time_limit_seconds": 2});
    assert_ends_whole(&consumer, &edge, &job);
}

#[test]
fn a_polite_run_has_its_grace() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("JOB_TIME_LIMIT_SECONDS", "1").set("JOB_KILL_GRACE_SECONDS", "30");
    let record = record_of(&edge, &consumer, "trap 'echo 7 > output.json; exit 0' TERM; while :; do sleep 0.05; done");
    assert_failed(&record, "time_limit", "1 s");
    assert_eq!(record["output"], 7, "what it saved in its grace is kept: {record}");
}

#[test]
fn what_a_run_leaves_behind_in_the_background_ends_with_it() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let record = record_of(
        &edge,
        &consumer,
        "setsid sh -c 'echo $$ > left.pid; exec sleep 300' & until test -s left.pid; do sleep 0.01; done; echo 1 > output.json",
    );
    assert_eq!(record["status"], "completed", "{record}");
    let left = fs::read_to_string(consumer.job_dir(record["job_id"].as_str().unwrap()).join("left.pid")).unwrap();
    assert!(!is_alive(left.trim().parse().unwrap()));
}

#[test]
fn what_hides_from_its_run_is_found_all_the_same() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    // Another session, a parent that is gone, and nothing in its environment that tells whose it was.
    let hidden = "(setsid env -i /bin/sh -c 'echo $$ > hidden.pid; exec /bin/sleep 300' &) ; \
         until test -s hidden.pid; do sleep 0.01; done; echo 1 > output.json";
    let record = record_of(&edge, &consumer, hidden);
    assert_eq!(record["status"], "completed", "{record}");
    let hidden = fs::read_to_string(consumer.job_dir(record["job_id"].as_str().unwrap()).join("hidden.pid")).unwrap();
    assert!(!is_alive(hidden.trim().parse().unwrap()));
}

#[test]
fn the_command_is_split_as_a_shell_does_and_runs_without_one_in_a_clean_environment() {
    let edge = Edge::start();
    let command = r#"sh -c 'env > "$WORK_DIR/env.txt"; pwd > pwd.txt; printf "%s|" "$0" "$@" > arguments.txt' "a name" 'x  y' $HOME a\ b ''"#;
    let consumer = Consumer::bare(&edge, command).set("SECRET_OF_THE_DAEMON", "s3cret");
    // A login shell would run this.
    for profile in [".profile", ".bash_profile", ".bashrc"] {
        fs::write(consumer.home().join(profile), format!("touch {}/profile-was-read\n", consumer.home().display()))
            .unwrap();
    }
    let record = record_of(&edge, &consumer, "");
    let id = record["job_id"].as_str().unwrap();
    let directory = consumer.job_dir(id);
    let file = |name: &str| fs::read_to_string(directory.join(name)).unwrap();

    // No shell means that $HOME is a word like any other.
    assert_eq!(file("arguments.txt"), "a name|x  y|$HOME|a b||");
    assert_eq!(file("pwd.txt").trim(), directory.canonicalize().unwrap().to_str().unwrap());
    let environment = file("env.txt");
    for variable in [format!("JOB_ID={id}"), format!("WORK_DIR={}", directory.display())] {
        assert!(environment.lines().any(|line| line == variable), "no {variable}: {environment}");
    }
    let secrets =
        ["s3cret", "SECRET_OF_THE_DAEMON", edge.setting("CF_QUEUES_API_TOKEN"), edge.setting("API_KEY"), "CF_"];
    for secret in secrets {
        assert!(!environment.contains(secret), "{secret:?} reached the job: {environment}");
    }
    assert!(!consumer.home().join("profile-was-read").exists());
}

#[test]
fn a_command_that_cannot_be_split_is_told_at_the_start() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, "sh -c 'never closed");
    let mut daemon = consumer.start();
    assert!(!daemon.wait(PATIENCE).success());
    assert!(daemon.log().contains("CONTAINER_CMD"), "{}", daemon.log());
}

#[test]
fn a_job_that_ruins_its_own_directory_ends_all_the_same() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let record = record_of(&edge, &consumer, "rm -rf ./* ; echo 1 > output.json");
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(1)), "{record}");
    // Nothing at its place any more: no output, and that is said.
    let record = record_of(&edge, &consumer, "rm -rf $WORK_DIR");
    assert_eq!(record["status"], "completed", "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("output.json")), "{record}");
}
