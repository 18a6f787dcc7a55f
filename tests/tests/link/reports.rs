//! What goes up: how far jobs are, whatever dies in between.

use super::*;

#[test]
fn the_hub_knows_how_far_a_job_is_and_status_says_who_is_linked() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let gate = gates.path().join("gate");
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1").set("SITE_NAME", "alpha");
    let _daemon = start_linked(&consumer);
    let mut job = waits_for(&gate, "echo 1 > output.json");
    job["name"] = json!("draft 3");
    let running = edge.producer().submit(&job);
    let told = wait_for_state(&edge, &running, "running");
    let words = [&told["site"], &told["task"], &told["name"], &told["attempt"], &told["pool"]];
    assert_eq!(words, [&json!("alpha"), &json!("script"), &json!("draft 3"), &json!(1), &json!("default")], "{told}");
    let waiting = edge.producer().submit(&script("exit 3"));
    wait_for_state(&edge, &waiting, "queued");
    let link = link_of(&consumer);
    assert_eq!((&link["site"], &link["trouble"]), (&json!("alpha"), &Value::Null), "{link}");
    let said = consumer.ask(&["status"]);
    assert!(said.output.contains("linked to http://127.0.0.1:") && said.output.contains("as site alpha"), "{said:?}");
    open(&gate);
    let told = wait_for_state(&edge, &running, "completed");
    assert_eq!(told["result"], consumer.record(&running).unwrap(), "the same that comes to the laptop");
    assert_eq!(wait_for_state(&edge, &waiting, "failed")["result"]["exit_code"], 3);
}

#[test]
fn what_became_of_the_last_job_is_told_before_the_daemon_ends() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    for _ in 0..5 {
        let job = edge.producer().submit(&script("true"));
        consumer.run_until_idle();
        let told = hub(&edge, &job, "").json();
        assert_eq!(told["state"], "completed", "{told}");
    }
}

#[test]
fn a_daemon_that_was_killed_tells_everything_when_it_comes_again() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let gate = gates.path().join("gate");
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "2");
    let mut daemon = start_linked(&consumer);
    let jobs: Vec<String> = (0..2).map(|n| edge.producer().submit(&waits_for(&gate, &format!("exit {n}")))).collect();
    for job in &jobs {
        wait_for_state(&edge, job, "running");
    }
    daemon.kill();
    // They end while nobody tells of it.
    open(&gate);
    let _daemon = start_linked(&consumer);
    wait_for_state(&edge, &jobs[0], "completed");
    wait_for_state(&edge, &jobs[1], "failed");
}

#[test]
fn a_hub_that_has_forgotten_everything_is_told_again_and_jobs_go_on_without_it() {
    let (mut edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let gate = gates.path().join("gate");
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let mut daemon = start_linked(&consumer);
    let mut job = waits_for(&gate, "true");
    job["name"] = json!("draft 3");
    let jobs: Vec<String> = (0..2).map(|_| edge.producer().submit(&job)).collect();
    wait_for_state(&edge, &jobs[0], "running");
    // Anew, so that what is known of the jobs comes from its disk.
    daemon.kill();
    let _daemon = start_linked(&consumer);
    edge.kill();
    wait_for_link(&consumer, "unlinked");
    edge.forget_hub();
    edge.restart();
    let told = wait_for_state(&edge, &jobs[0], "running");
    assert_eq!((&told["task"], &told["name"]), (&json!("script"), &json!("draft 3")), "{told}");
    open(&gate);
    for job in &jobs {
        wait_for_state(&edge, job, "completed");
    }
}

#[test]
fn a_wrong_key_is_said_and_keeps_no_job_from_its_end() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("SITE_KEY", "0123456789abcdef0123456789abcdef");
    let daemon = consumer.start();
    let job = edge.producer().submit(&script("true"));
    wait_until("the record of a job", PATIENCE, || consumer.record(&job).is_some());
    wait_until("the trouble to be said", PATIENCE, || {
        link_of(&consumer)["trouble"].as_str().is_some_and(|text| text.contains("check SITE_KEY"))
    });
    let log = daemon.log();
    assert_eq!(log.matches("not linked to the hub").count(), 1, "{log}");
    assert!(!log.contains("0123456789abcdef0123"), "{log}");
}

#[test]
fn two_sites_of_one_name_are_told_so_and_one_without_a_key_does_not_link() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("SITE_NAME", "alpha");
    let _daemon = start_linked(&consumer);
    let other = Consumer::bare(&edge, SCRIPT).set("SITE_NAME", "alpha");
    let _other = other.start();
    wait_until("the trouble to be said", PATIENCE, || {
        link_of(&other)["trouble"].as_str().is_some_and(|text| text.contains("SITE_NAME is alpha here"))
    });
    // Another daemon of the same site has the same directory.
    let same = Consumer::bare(&edge, SCRIPT).set("SITE_NAME", "alpha").sharing(&consumer);
    let _same = start_linked(&same);
    let check = consumer.ask(&["run", "--check"]);
    assert!(check.output.contains("linked to the hub at http://127.0.0.1:"), "{check:?}");
}
