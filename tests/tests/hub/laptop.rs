//! `laptop-consumer` with the hub of `local-edge`.

use std::fs;
use std::time::{Duration, Instant};

use protocol::link::{Down, Stream};
use serde_json::{Value, json};
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, Queue, SCRIPT, Spoken, signal, wait_until};

use crate::site::{Site, ended, job};

fn said(spoken: &Spoken) -> (Option<i32>, &str) {
    (spoken.status.code(), spoken.output.as_str())
}

fn result(job_id: &str) -> String {
    format!(
        r#"{{"v":1,"job_id":"{job_id}","status":"completed","result_pointer":"file://login1/{job_id}","attempt":1}}"#
    )
}

fn submit(laptop: &Laptop, task: &str) -> String {
    let submitted = laptop.run(&["submit", "--task", task, "--input", "1", "--id"]);
    assert!(submitted.status.success(), "{submitted:?}");
    submitted.output.trim().to_owned()
}

/// Waits until the hub asks the site for what a job prints, and says from where.
fn tail_of(site: &Site, of: &str) -> i64 {
    site.wait_for("a question for a log", |down| match down {
        Down::Tail { job_id, stream: Stream::Stdout, from } if job_id.as_str() == of => Some(*from),
        _ => None,
    })
}

#[test]
fn any_laptop_sees_how_far_a_job_is() {
    let edge = Edge::start();
    let (here, elsewhere) = (Laptop::new(&edge), Laptop::new(&edge));
    let of_sites = |laptop: &Laptop| laptop.run(&["status", "--output", "text"]).output;
    assert!(of_sites(&here).contains("none was heard of"), "{}", of_sites(&here));
    let id = submit(&here, "script");
    assert_eq!(said(&elsewhere.run(&["status", &id[..8], "--output", "text"])), (Some(0), "queued\n"));
    assert!(of_sites(&here).contains("hpc-jobs  holds 1, the oldest for "), "{}", of_sites(&here));

    let site = Site::link(&edge, "alpha");
    assert!(of_sites(&elsewhere).starts_with("site alpha  linked, 0 running, 12 held\n"), "{}", of_sites(&elsewhere));
    for (number, state) in [(2, "held"), (3, "running")] {
        site.report(number, &[job(&id, state, 1)]);
        for laptop in [&here, &elsewhere] {
            assert_eq!(
                said(&laptop.run(&["status", &id, "--output", "text"])),
                (Some(0), format!("{state}\n").as_str())
            );
        }
    }
    let status = elsewhere.run(&["status", &id]).results();
    assert_eq!(
        (&status[0]["state"], &status[0]["site"], &status[0]["attempt"]),
        (&json!("running"), &json!("alpha"), &json!(1))
    );
    let whole = elsewhere.run(&["status"]).results();
    assert_eq!((&whole[0]["sites"][0]["running"], &whole[0]["pools"]), (&json!(1), &json!([])));
    let listed = elsewhere.run(&["jobs", "--state", "running"]).results();
    assert_eq!(
        (&listed[0]["job_id"], &listed[0]["site"], &listed[0]["task"]),
        (&json!(id), &json!("alpha"), &json!("script"))
    );
    assert_eq!(elsewhere.run(&["list", "--task", "it's; DROP TABLE job"]).results(), [] as [Value; 0]);

    let wrong = here.run(&["status", "--api-key", "wrong"]);
    assert_eq!(said(&wrong), (Some(1), ""));
    assert!(wrong.log.contains("check --api-key"), "{wrong:?}");
}

#[test]
fn what_a_job_prints_is_followed_within_a_second_and_through_a_restart() {
    let mut edge = Edge::start();
    let (here, elsewhere) = (Laptop::new(&edge), Laptop::new(&edge));
    let id = submit(&here, "script");
    let site = Site::link(&edge, "alpha");
    site.report(2, &[job(&id, "running", 1)]);
    let mut logs: Process = elsewhere.start(&["logs", &id[..8], "-f"]);
    assert_eq!(tail_of(&site, &id), -16_384, "nothing is sent while nobody looks");
    // The second piece begins within a character.
    let text = "begun: é\n";
    let bytes = text.as_bytes();
    let cut = text.find('é').unwrap() + 1;
    site.print(&id, 1, 0, &bytes[..cut], false);
    let sent = Instant::now();
    site.print(&id, 1, cut, &bytes[cut..], false);
    wait_until("the first line", PATIENCE, || logs.output() == text);
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());

    drop(site);
    edge.restart();
    let site = Site::link(&edge, "alpha");
    site.report(2, &[job(&id, "running", 1)]);
    assert_eq!(tail_of(&site, &id), i64::try_from(bytes.len()).unwrap(), "it goes on where it was");
    // What a site sends again comes once; 1 MB without a line break comes whole.
    let more = format!("{text}{}\n", "x".repeat(1_000_000));
    site.print(&id, 1, 0, more.as_bytes(), true);
    site.end_stderr(&id, 1);
    site.report(3, &[ended(&id, 1, &result(&id))]);
    assert_eq!(logs.wait(PATIENCE).code(), Some(0), "{}", logs.log());
    assert!(logs.output() == more, "{} bytes of {}", logs.output().len(), more.len());

    let unknown = elsewhere.run(&["logs", "nobody", "-f"]);
    assert_eq!(said(&unknown), (Some(4), ""));
    assert!(unknown.log.contains("hpc-consumer logs nobody --follow"), "{unknown:?}");
}

#[test]
fn an_interrupted_follower_leaves_the_job_alone() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let id = submit(&laptop, "script");
    let site = Site::link(&edge, "alpha");
    site.report(2, &[job(&id, "running", 1)]);
    let mut logs: Process = laptop.start(&["logs", &id, "--follow", "--stream", "stdout"]);
    tail_of(&site, &id);
    signal(logs.pid(), rustix::process::Signal::INT);
    assert_eq!(logs.wait(PATIENCE).code(), Some(130));
    site.wait_for("the end of the looking", |down| matches!(down, Down::Untail { .. }).then_some(()));
    assert_eq!(said(&laptop.run(&["status", &id, "--output", "text"])), (Some(0), "running\n"));
}

#[test]
fn a_job_is_canceled_from_any_laptop_and_what_has_ended_is_said() {
    let edge = Edge::start();
    let (here, elsewhere) = (Laptop::new(&edge), Laptop::new(&edge));
    let [first, second] = [(); 2].map(|()| submit(&here, "script"));
    let site = Site::link(&edge, "alpha");
    site.report(2, &[job(&first, "running", 1), ended(&second, 1, &result(&second))]);
    let canceled = elsewhere.run(&["cancel", &first, &second, "not-seen-yet"]);
    assert_eq!(canceled.status.code(), Some(0), "{canceled:?}");
    assert_eq!(
        canceled.results(),
        [
            json!({"job_id": first, "state": "running", "cancel": "requested"}),
            json!({"job_id": second, "state": "completed", "cancel": "ended"}),
            json!({"job_id": "not-seen-yet", "state": "unknown", "cancel": "requested"}),
        ]
    );
    site.wait_for("word of it", |down| match down {
        Down::Cancel { jobs } if jobs.iter().any(|job| job.as_str() == first) => Some(()),
        _ => None,
    });
    assert_eq!(elsewhere.run(&["cancel", &first]).results()[0]["cancel"], "requested", "again it is the same");
}

#[test]
fn thousands_of_jobs_are_canceled_at_once() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let count = 2_500;
    let jobs: Vec<Value> = (0..100).map(|_| json!({"task": "x", "input": 1})).collect();
    for _ in 0..count / jobs.len() {
        let answer = testkit::http::send(edge.producer().post("/jobs/batch").body(json!({ "jobs": jobs }).to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let other = submit(&laptop, "y");
    let counted = |arguments: &[&str]| laptop.run(&[&["cancel"], arguments].concat());
    wait_until("the hub to know all", PATIENCE, || {
        counted(&["--task", "x"]).log.contains(&format!("this would cancel {count} jobs;"))
    });
    assert_eq!(said(&counted(&["--task", "x", "--yes"])), (Some(0), format!("{{\"jobs\":{count}}}\n").as_str()));
    let none = counted(&["--task", "x", "--state", "queued"]);
    assert_eq!(said(&none), (Some(0), ""), "they are canceled already");
    assert_eq!(said(&counted(&["--all", "--yes"])), (Some(0), "{\"jobs\":1}\n"));
    assert_eq!(laptop.run(&["cancel", &other]).results()[0]["cancel"], "requested");
}

#[test]
fn a_result_that_another_laptop_has_fetched_comes_from_the_hub() {
    let edge = Edge::start();
    let (here, elsewhere) = (Laptop::new(&edge), Laptop::new(&edge));
    let id = submit(&here, "script");
    let site = Site::link(&edge, "alpha");
    site.report(2, &[job(&id, "running", 1)]);
    let mut waiting: Process = elsewhere.start(&["wait", &id[..8]]);
    waiting.wait_for_log(&format!("is the job {id}"), PATIENCE);
    let mut first: Process = here.start(&["wait", "last"]);
    // Whichever of the two gets it, both have it in the end.
    edge.push(Queue::Results, &[&result(&id)]);
    site.report(3, &[ended(&id, 1, &result(&id))]);
    let line = format!("{}\n", result(&id));
    for process in [&mut waiting, &mut first] {
        assert_eq!(process.wait(PATIENCE).code(), Some(0), "{}", process.log());
        assert_eq!(process.output(), line);
    }
    let told = [&waiting, &first].map(|process| process.log().contains("the queue did not give the result"));
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "one of them has it from the hub: {told:?}");
    for laptop in [&here, &elsewhere] {
        assert_eq!(said(&laptop.run(&["show", &id])), (Some(0), line.as_str()));
    }
}

#[test]
fn jobs_on_a_real_site_are_seen_followed_canceled_and_waited_for() {
    let edge = Edge::start();
    let (here, elsewhere) = (Laptop::new(&edge), Laptop::new(&edge));
    let consumer = Consumer::bare(&edge, SCRIPT).set("SITE_NAME", "alpha");
    let _daemon = consumer.start();
    let gate = here.path("gate");
    let script =
        format!("echo begun; until test -e {}; do sleep 0.05; done; echo done; echo 1 > output.json", gate.display());
    let submit = || {
        let submitted = here.run(&["submit", "--task", "script", "--input", &json!(script).to_string(), "--id"]);
        submitted.output.trim().to_owned()
    };
    let [first, second] = [(); 2].map(|()| submit());
    let mut logs: Process = elsewhere.start(&["logs", &first, "-f"]);
    let mut waiting: Process = here.start(&["wait", &first, &second]);
    wait_until("both to run", PATIENCE, || elsewhere.run(&["jobs", "--state", "running"]).results().len() == 2);
    let of_sites = elsewhere.run(&["status", "--output", "text"]).output;
    assert!(of_sites.starts_with("site alpha  linked, 2 running, 0 held\nhpc-jobs    holds nothing\n"), "{of_sites}");
    wait_until("the first line", PATIENCE, || logs.output() == "begun\n");
    assert_eq!(said(&elsewhere.run(&["logs", &second, "--stream", "stdout"])), (Some(0), "begun\n"));

    let canceled = elsewhere.run(&["cancel", &second]).results();
    assert_eq!(canceled, [json!({"job_id": second, "state": "running", "cancel": "requested"})]);
    wait_until("it to be canceled", PATIENCE, || {
        said(&elsewhere.run(&["status", &second, "--output", "text"])) == (Some(0), "cancelled\n")
    });
    fs::write(gate, "").unwrap();
    assert_eq!((logs.wait(PATIENCE).code(), logs.output().as_str()), (Some(0), "begun\ndone\n"), "{}", logs.log());
    assert_eq!(waiting.wait(PATIENCE).code(), Some(3), "one was canceled: {}", waiting.log());
    assert_eq!(waiting.output().lines().count(), 2);
    assert_eq!(elsewhere.run(&["cancel", &second]).results()[0]["cancel"], "ended");
}
