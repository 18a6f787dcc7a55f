//! `hpc-consumer`.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, signal, wait_until};

use crate::{one_runs_and_two_are_held, said, script, wait_for_status, waits_for};

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

#[test]
fn wait_prints_each_record_and_ends_as_the_jobs_did() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    assert_eq!(consumer.ask(&["wait", "j1"]).status.code(), Some(4), "no daemon was here");
    let gate = consumer.home().join("gate");
    let submit = |job| edge.producer().submit(&job);
    let (good, bad) = (submit(waits_for(&gate, "echo [1] > output.json")), submit(script("exit 3")));
    let _daemon = consumer.start();
    wait_for_status(&consumer, &bad, "failed");
    let failed = consumer.ask(&["wait", &bad]);
    let record = fs::read_to_string(consumer.results_dir().join(format!("{bad}.json"))).unwrap();
    assert_eq!(said(&failed), (Some(3), record.as_str()), "the record as it is");

    let over = consumer.ask(&["wait", &bad, &good, "--timeout", "300ms"]);
    assert_eq!(said(&over), (Some(75), record.as_str()), "{over:?}");
    assert!(over.log.contains(&format!("1 of 2 jobs have not ended yet, for example {good}")), "{over:?}");

    let mut interrupted = consumer.start_asking(&["wait", &good]);
    wait_until("it to listen for signals", PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", interrupted.pid())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
        caught.is_some_and(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 0b10 != 0))
    });
    signal(interrupted.pid(), Signal::INT);
    assert_eq!(interrupted.wait(PATIENCE).code(), Some(130), "{}", interrupted.log());

    let mut waits = consumer.start_asking(&["wait", &good[..8], "--output", "text"]);
    fs::write(gate, "").unwrap();
    assert!(waits.wait(PATIENCE).success(), "{}", waits.log());
    let text = waits.output();
    assert!(text.starts_with(&format!("{good}  completed  script")) && text.ends_with("\n  [1]\n"), "{text}");
    assert!(consumer.ask(&["wait", &good]).status.success());
    for wrong in [vec!["wait"], vec!["wait", "../j"], vec!["wait", "j", "--timeout", "soon"]] {
        let spoken = consumer.ask(&wrong);
        assert_eq!(said(&spoken), (Some(2), ""), "{spoken:?}");
    }
}

#[test]
fn logs_are_passed_on_each_on_its_stream_and_followed_through_all_attempts() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gate = consumer.home().join("gate");
    let text = format!(
        "if test -e once; then echo second; echo oops >&2; exit 3; fi; touch once; printf first; \
         until test -e {}; do sleep 0.05; done; echo ' ends'; exit 3",
        gate.display()
    );
    let mut job = script(&text);
    job["retries"] = json!(1);
    let job = edge.producer().submit(&job);
    let _daemon = consumer.start();
    wait_for_status(&consumer, &job, "running");
    let mut followed = consumer.start_asking(&["logs", &job, "-f"]);
    wait_until("what was printed so far", PATIENCE, || followed.output() == "first");
    wait_until("it to be there for all", PATIENCE, || said(&consumer.ask(&["logs", &job])) == (Some(0), "first"));
    fs::write(gate, "").unwrap();
    assert!(followed.wait(PATIENCE).success(), "{}", followed.log());
    assert_eq!((followed.output(), followed.log()), ("first ends\nsecond\n".to_owned(), "oops\n".to_owned()));

    // What is there afterwards is what the last attempt has printed.
    let both = consumer.ask(&["logs", "last"]);
    assert_eq!((said(&both), both.log.ends_with("oops\n")), ((Some(0), "second\n"), true), "{both:?}");
    let one = consumer.ask(&["logs", &job, "--stream", "stderr"]);
    assert_eq!((said(&one), one.log.as_str()), ((Some(0), ""), "oops\n"), "{one:?}");
    fs::remove_dir_all(consumer.job_dir(&job)).unwrap();
    let tails = consumer.ask(&["logs", &job]);
    assert_eq!(said(&tails), (Some(0), "second\n"), "{tails:?}");

    for (words, code, says) in [
        (vec!["logs", "none"], 4, "nothing is known of the job none here"),
        (vec!["logs", "none", "--follow"], 4, "nothing is known"),
        (vec!["logs"], 2, "JOB"),
        (vec!["logs", &job, "--stream", "output"], 2, "stdout"),
    ] {
        let spoken = consumer.ask(&words);
        assert_eq!(said(&spoken), (Some(code), ""), "{spoken:?}");
        assert!(spoken.log.contains(says), "{spoken:?}");
    }
}

#[test]
fn a_job_that_puts_something_else_in_place_of_its_log_shows_nothing_of_others() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    fs::write(consumer.home().join("secret"), "of another program").unwrap();
    let secret = consumer.home().join("secret").display().to_string();
    // Its logs are open by then, and are not made anew.
    let text = format!(
        "echo printed; echo too >&2; until test -s stdout.log -a -s stderr.log; do sleep 0.05; done; \
         rm stdout.log stderr.log; ln -s {secret} stdout.log; mkfifo stderr.log"
    );
    let job = edge.producer().submit(&script(&text));
    consumer.run_until_idle();
    let logs = consumer.ask(&["logs", &job]);
    assert_eq!(said(&logs), (Some(1), ""), "{logs:?}");
    assert!(logs.log.contains("put something else in place of its stdout.log"), "{logs:?}");
}

#[test]
fn jobs_are_listed_by_what_is_asked_for() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gate = consumer.home().join("gate");
    let (consumer, _daemon, jobs) = one_runs_and_two_are_held(&edge, consumer, &gate);
    let [running, held, cancelled] = &jobs;
    let listed = |arguments: &[&str]| {
        let spoken = consumer.ask(&[&["jobs", "--output", "json"], arguments].concat());
        assert!(spoken.status.success(), "{spoken:?}");
        let report: Value = serde_json::from_str(&spoken.output).unwrap();
        let jobs = report["jobs"].as_array().expect("there is a list").iter();
        let mut jobs: Vec<(String, String)> =
            jobs.map(|job| ["job_id", "state"].map(|name| job[name].as_str().unwrap().to_owned()).into()).collect();
        jobs.sort();
        jobs
    };
    let expected = |jobs: &[(&String, &str)]| {
        let mut jobs: Vec<_> = jobs.iter().map(|(id, state)| ((*id).clone(), (*state).to_owned())).collect();
        jobs.sort();
        jobs
    };
    let all = [(running, "running"), (held, "held"), (cancelled, "held")];
    assert_eq!(listed(&[]), expected(&all));
    assert_eq!(listed(&["--state", "running"]), expected(&all[..1]));
    assert_eq!(listed(&["--state", "held", "--task", "script"]), expected(&all[1..]));
    assert_eq!(listed(&["--task", "echo"]), []);
    assert_eq!(listed(&["--name", "draft 3"]), []);
    assert_eq!(listed(&["--since", "1h", "--limit", "2"]).len(), 2);

    // Those that have ended are listed where they are asked for.
    consumer.ask(&["cancel", cancelled]);
    wait_for_status(&consumer, cancelled, "cancelled");
    fs::write(&gate, "").unwrap();
    wait_for_status(&consumer, running, "completed");
    wait_for_status(&consumer, held, "failed");
    let ended = [(running, "completed"), (held, "failed"), (cancelled, "cancelled")];
    wait_until("their results to be published", PATIENCE, || listed(&[]).is_empty());
    assert_eq!(listed(&["--state", "completed,failed,cancelled"]), expected(&ended));
    assert_eq!(listed(&["--state", "failed", "--since", "1h"]), expected(&ended[1..2]));
    assert_eq!(listed(&["--state", "cancelled", "--since", "1ms"]), []);
    assert_eq!(listed(&["--state", "completed", "--name", "draft 3"]), []);
    let text = consumer.ask(&["list", "--state", "completed"]).output;
    assert!(text.contains(&format!("{running}  completed  ")) && !text.contains(held), "{text}");
    for wrong in ["--state=canceled", "--since=yesterday", "--limit=0", "--pool=GPU"] {
        assert_eq!(said(&consumer.ask(&["jobs", wrong])), (Some(2), ""), "{wrong}");
    }
}

#[test]
fn what_ended_long_ago_goes_and_nothing_that_is_owed_or_young() {
    let mut edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gate = consumer.home().join("gate");
    let [done, failed, young] =
        ["echo 1 > output.json", "exit 3", "true"].map(|text| edge.producer().submit(&script(text)));
    consumer.run_until_idle();
    let owed = edge.producer().submit(&waits_for(&gate, "true"));
    let _daemon = consumer.start();
    wait_for_status(&consumer, &owed, "running");
    // Its result cannot be published any more.
    edge.kill();
    fs::write(&gate, "").unwrap();
    wait_until("the end of the job", PATIENCE, || consumer.record(&owed).is_some());
    wait_until("the result to be owed", PATIENCE, || consumer.ask(&["jobs"]).output.contains(&owed));
    let record = |job: &str| consumer.results_dir().join(format!("{job}.json"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 86_400);
    for job in [&done, &failed, &owed] {
        fs::File::options().append(true).open(record(job)).unwrap().set_modified(long_ago).unwrap();
    }
    let purge = |more: &[&str]| consumer.ask(&[&["purge", "--older-than", "30d"], more].concat());
    let left = || [&done, &failed, &young, &owed].map(|job| (record(job).exists(), consumer.job_dir(job).exists()));
    let (all, gone) = ((true, true), (false, false));

    let asked = purge(&[]);
    assert_eq!(said(&asked), (Some(2), ""), "{asked:?}");
    assert!(asked.log.contains("this would remove the directories and records of 2 jobs from "), "{asked:?}");
    assert_eq!(left(), [all; 4]);
    let purged = purge(&["--state", "failed", "--yes"]);
    assert_eq!(said(&purged), (Some(0), "the directories and records of 1 job are removed\n"), "{purged:?}");
    assert_eq!(left(), [all, gone, all, all]);
    assert!(purge(&["--yes"]).status.success());
    assert_eq!(left(), [gone, gone, all, all]);
    let trash = fs::read_dir(consumer.results_dir().join(".trash")).unwrap().count();
    assert_eq!(trash, 0, "what was thrown away is gone");
    assert_eq!(said(&purge(&["--yes"])), (Some(0), ""));

    // What another daemon owes is not known.
    fs::write(consumer.results_dir().join(".owners/another.json"), "").unwrap();
    let shared = consumer.ask(&["purge", "--older-than", "2h", "--yes"]);
    assert_eq!(said(&shared), (Some(2), ""), "{shared:?}");
    assert!(shared.log.contains("several daemons") && shared.log.contains("--older-than 15d"), "{shared:?}");
    for wrong in [&["--older-than", "1m"][..], &["--older-than", "30d", "--state", "running"], &[]] {
        assert_eq!(consumer.ask(&[&["purge"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}
