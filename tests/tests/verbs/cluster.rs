//! `hpc-consumer`.

use std::fs;

use serde_json::json;
use testkit::{Consumer, Edge, SCRIPT};

use crate::{one_runs_and_two_are_held, said, wait_for_status};

#[test]
fn status_is_one_word_for_each_job_while_the_daemon_runs_and_when_it_does_not() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let nobody = consumer.ask(&["status", "j1"]);
    assert_eq!(nobody.status.code(), Some(4), "no daemon was here: {nobody:?}");

    let gate = consumer.home().join("gate");
    let (consumer, daemon, jobs) = one_runs_and_two_are_held(&edge, consumer, &gate);
    let [running, held, cancelled] = jobs;
    assert_eq!(said(&consumer.ask(&["status", &running])), (Some(0), "running\n"));
    consumer.ask(&["cancel", &cancelled[..9]]);
    wait_for_status(&consumer, &cancelled, "cancelled");
    assert_eq!(said(&consumer.ask(&["status", "none"])), (Some(0), "unknown\n"));

    let several = consumer.ask(&["status", &running, &held, "none", &cancelled]);
    let lines = format!("{running}\trunning\n{held}\theld\nnone\tunknown\n{cancelled}\tcancelled\n");
    assert_eq!(said(&several), (Some(0), lines.as_str()));
    let json = consumer.ask(&["status", &held, "--output", "json"]);
    assert_eq!(said(&json), (Some(0), format!("{{\"job_id\":\"{held}\",\"state\":\"held\"}}\n").as_str()));
    // Which job a shortened name means is told beside it.
    let short = consumer.ask(&["status", &running[..8]]);
    assert_eq!(said(&short), (Some(0), "running\n"));
    assert!(short.log.contains(&running), "{}", short.log);

    // Another daemon of the same RESULTS_DIR holds neither, and sees which it has begun.
    let other = Consumer::bare(&edge, SCRIPT).sharing(&consumer);
    let nobody = other.ask(&["status", &running]);
    assert_eq!(nobody.status.code(), Some(4), "{nobody:?}");
    other.run_until_idle();
    assert_eq!(said(&other.ask(&["status", &running])), (Some(0), "running\n"));

    // The state of a daemon that has ended says the same; what was about to begin may have begun.
    drop(daemon);
    assert_eq!(said(&consumer.ask(&["status", &running])), (Some(0), "running\n"));
    let after = consumer.ask(&["status", &held]).output;
    assert!(["held\n", "running\n"].contains(&after.as_str()), "{after}");

    fs::write(gate, "").unwrap();
    consumer.run_until_idle();
    assert_eq!(said(&consumer.ask(&["status", &running])), (Some(0), "completed\n"));
    assert_eq!(said(&consumer.ask(&["status", &held])), (Some(0), "failed\n"));
    edge.producer().submit(&json!({"task": "script", "input": "kill -9 $$"}));
    consumer.run_until_idle();
    let last = consumer.ask(&["status", "last", "--output", "json"]);
    assert!(last.output.contains(r#""reason":"signal""#), "{last:?}");
    let json = consumer.ask(&["status", &held, "--output", "json"]);
    let line = format!("{{\"job_id\":\"{held}\",\"state\":\"failed\",\"reason\":\"exit\"}}\n");
    assert_eq!(said(&json), (Some(0), line.as_str()));

    for wrong in [["status", "../job"], ["status", "--state"]] {
        let spoken = consumer.ask(&wrong);
        assert_eq!(said(&spoken), (Some(2), ""), "{spoken:?}");
    }
}

#[test]
fn a_beginning_of_several_ids_names_none_and_nothing_is_done() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    consumer.run_until_idle();
    let none = consumer.ask(&["status", "last"]);
    assert_eq!((said(&none), none.log.contains("none is the last one")), ((Some(2), ""), true), "{none:?}");
    let ids: Vec<String> = (0..7).map(|n| format!("67995bd{n}-e88f-84f3-982a-a41723a075bc")).collect();
    for id in &ids {
        fs::create_dir(consumer.job_dir(id)).unwrap();
    }
    for verb in ["status", "cancel", "republish"] {
        let spoken = consumer.ask(&[verb, "67995bd"]);
        assert_eq!(said(&spoken), (Some(2), ""), "{verb}: {spoken:?}");
        assert!(spoken.log.contains("the ids of 7 jobs") && spoken.log.contains("and 2 more"), "{}", spoken.log);
    }
    assert!(!consumer.results_dir().join(".cancelled").exists());
}
