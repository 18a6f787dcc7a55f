//! A store that is away, on either side of a run: nobody's fault, and it costs time alone.

use super::*;

/// An address at which nobody listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// What `hpc-consumer jobs` says of a job: its phase, and the line below it.
fn shown(consumer: &Consumer, job_id: &str) -> (String, String) {
    let said = consumer.ask(&["jobs", "--output", "json"]);
    let report: Value = serde_json::from_str(&said.output).unwrap_or_default();
    let jobs = report["jobs"].as_array().cloned().unwrap_or_default();
    let job = jobs.into_iter().find(|job| job["job_id"] == job_id).unwrap_or_default();
    let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
    (text("phase"), text("last_attempt"))
}

#[test]
fn files_are_waited_for_and_the_job_is_cancelled_or_goes_on() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let lost = consumer_at(&edge, &nowhere(), &consumer);
    let content = put(&edge, b"here\n");
    let job = |number: u32| {
        submit(&edge, &format!("cat a > out; : {number}"), json!([at("a", &content)]), json!({"patterns": ["out"]}))
    };
    let (first, second) = (job(1), job(2));
    let plain = submit(&edge, "touch ran", json!(null), json!(null));
    let mut daemon = lost.start();
    assert_eq!(record(&lost, &mut daemon, &plain)["status"], "completed", "it holds up nothing else");
    wait_for("the job to wait for its files", 2 * PATIENCE, || {
        let (phase, why) = shown(&lost, &first);
        (["waiting", "staging"].contains(&phase.as_str())
            && why.contains("it waits for its files: the store of files is away"))
        .then_some(())
    });
    assert!(daemon.log().contains("the store of files is away"), "{}", daemon.log());
    assert!(lost.ask(&["cancel", &first]).status.success());
    let cancelled = record(&lost, &mut daemon, &first);
    assert_eq!(cancelled["reason"], "cancelled", "{cancelled}");
    daemon.kill();
    // The next one is told the right address.
    let mut daemon = consumer.start();
    assert_eq!(record(&consumer, &mut daemon, &second)["status"], "completed");
    assert_eq!(left(&edge, &second)["out"], b"here\n");
    assert_eq!(on_its_way(&consumer), Vec::<String>::new());
}

/// A daemon with the state of another, which is told another address of the edge.
fn consumer_at(edge: &Edge, url: &str, of: &Consumer) -> Consumer {
    scripts(edge).sharing(of).set("STATE_DIR", of.state_dir()).set("EDGE_URL", url)
}

#[test]
fn who_is_not_told_where_the_store_is_says_which_settings_are_missing() {
    let edge = Edge::start();
    let consumer = scripts(&edge).unlinked();
    let job_id = submit(&edge, "cat a", json!([at("a", &put(&edge, b"x"))]), json!(null));
    let mut daemon = consumer.start();
    daemon.wait_for_log("EDGE_URL", PATIENCE);
    assert!(daemon.log().contains("SITE_KEY"));
    assert!(consumer.ask(&["cancel", &job_id]).status.success());
    assert_eq!(record(&consumer, &mut daemon, &job_id)["reason"], "cancelled");
}

#[test]
fn outputs_wait_for_a_store_that_is_away() {
    let mut edge = Edge::start();
    let consumer = scripts(&edge);
    let go = consumer.home().join("go");
    let script =
        format!("while [ ! -e {} ]; do sleep 0.05; done; head -c 3000000 /dev/zero > out; cat a >> out", go.display());
    let files = json!([at("a", &put(&edge, b"end"))]);
    let outputs = json!({"patterns": ["out"]});
    let (job_id, unwanted) =
        (submit(&edge, &script, files.clone(), outputs.clone()), submit(&edge, &script, files, outputs));
    let mut daemon = consumer.start();
    for job_id in [&job_id, &unwanted] {
        wait_for("the job to run", PATIENCE, || consumer.job_dir(job_id).join("job.sh").exists().then_some(()));
    }
    edge.kill();
    fs::write(&go, "").unwrap();
    for job_id in [&job_id, &unwanted] {
        wait_for("its outputs to wait", 2 * PATIENCE, || (shown(&consumer, job_id).0 == "uploading").then_some(()));
    }
    assert!(consumer.record(&job_id).is_none(), "what is announced is complete");
    assert!(consumer.ask(&["cancel", &unwanted]).status.success());
    let cancelled = record(&consumer, &mut daemon, &unwanted);
    assert_eq!(cancelled["reason"], "cancelled", "{cancelled}");
    // It dies as well, and knows what it owes.
    daemon.kill();
    edge.restart();
    let mut daemon = consumer.start();
    assert_eq!(record(&consumer, &mut daemon, &job_id)["status"], "completed");
    assert!(left(&edge, &job_id)["out"].ends_with(b"\0end"));
    assert_eq!(on_its_way(&consumer), Vec::<String>::new());
}
