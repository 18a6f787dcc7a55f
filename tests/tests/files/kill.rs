//! SIGKILL of the daemon at random moments while files come and go: they come and go once more, and the job runs once.

use std::time::Duration;

use super::*;

/// How much comes, and goes.
const SIZE: usize = 20 * MB;

/// How far a job is, as its files show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Far {
    NotHere,
    /// Its files are on their way.
    Fetched,
    /// It has its directory, or is about to.
    Claimed,
    /// Its outputs are on their way.
    Sent,
    Recorded,
}

fn far(consumer: &Consumer, job_id: &str) -> Far {
    let on_its_way = on_its_way(consumer);
    let is_there = |folder: &str| on_its_way.iter().any(|name| name.starts_with(folder));
    if consumer.record(job_id).is_some() {
        Far::Recorded
    } else if is_there(".uploads") {
        Far::Sent
    } else if is_there(".staging") || consumer.job_dir(job_id).exists() {
        Far::Claimed
    } else if is_there(".cache") {
        Far::Fetched
    } else {
        Far::NotHere
    }
}

#[test]
fn a_daemon_that_is_killed_at_random_goes_on_where_it_was() {
    let edge = Edge::start();
    // What was pulled and not accepted comes again soon.
    let consumer = scripts(&edge).set("VISIBILITY_TIMEOUT_MS", "5000");
    let ledger = consumer.home().join("ledger");
    let big = random(SIZE);
    let content = put(&edge, &big);
    let script = format!(
        "echo ran >> {}; cp in/big out; echo changed >> out; mkdir many; for i in $(seq 300); do echo $i > many/$i; done",
        ledger.display()
    );
    let job_id = submit(&edge, &script, json!([at("in/big", &content)]), json!({"patterns": ["out", "many"]}));
    let mut met = Vec::new();
    for wanted in [Far::Fetched, Far::Fetched, Far::Claimed, Far::Claimed, Far::Sent, Far::Sent, Far::Sent, Far::Sent] {
        let mut daemon = consumer.start();
        wait_for("it to go on", PATIENCE, || (far(&consumer, &job_id) >= wanted).then_some(()));
        let ended = daemon.wait_within(Duration::from_millis(fastrand::u64(..400)));
        assert!(ended.is_none(), "it ended by itself: {}", daemon.log());
        daemon.kill();
        met.push(far(&consumer, &job_id));
    }
    eprintln!("killed when it was here: {met:?}");
    let mut daemon = consumer.start();
    let record = record(&consumer, &mut daemon, &job_id);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    assert_eq!(fs::read_to_string(&ledger).unwrap(), "ran\n", "it ran once");
    let left = left(&edge, &job_id);
    assert_eq!(left.len(), 301);
    assert!(left["out"][..SIZE] == big[..] && left["out"].ends_with(b"changed\n"));
    assert_eq!(left["many/300"], b"300\n");
    wait_for("nothing to be left", PATIENCE, || on_its_way(&consumer).is_empty().then_some(()));
}

#[test]
fn what_a_dead_daemon_has_left_of_files_goes() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    // As of one that died in the middle, and of one that is no more.
    let first = submit(&edge, "true", json!(null), json!(null));
    consumer.run_until_idle();
    let results = consumer.results_dir();
    let owner = names(&results.join(".owners")).pop().unwrap().replace(".json", "");
    for owner in [owner.as_str(), "nobody"] {
        fs::create_dir_all(results.join(".staging").join(owner).join("j1/data")).unwrap();
        fs::write(results.join(".staging").join(owner).join("j1/data/x"), "x").unwrap();
    }
    let over = results.join(".uploads").join(format!("{first}.1"));
    fs::create_dir_all(&over).unwrap();
    fs::write(over.join("files-1.tar"), "x").unwrap();
    let _daemon = consumer.start();
    wait_for("nothing to be left", PATIENCE, || on_its_way(&consumer).is_empty().then_some(()));
}
