//! What a run prints: it is kept, and its end travels, whatever the job does to its files and pipes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, is_alive, parts, wait_until};

use super::{record_of, script, wait_for_pid, wait_for_record};

fn tail(record: &Value) -> &str {
    record["stderr_tail"].as_str().unwrap_or_default()
}

#[test]
fn a_job_may_have_a_stdout_log_of_its_own() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let record = record_of(&edge, &consumer, "echo mine > stdout.log; echo printed; echo 1 > output.json");
    assert_eq!(record["status"], "completed", "{record}");
    let directory = consumer.job_dir(record["job_id"].as_str().expect("a record names its job"));
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!((read("stdout.log").as_str(), read("stdout.hpc-queue.log").as_str()), ("mine\n", "printed\n"));
}

/// It has taken off all that tells whose it is, beside another run.
#[test]
fn the_tail_is_there_though_a_process_that_cannot_be_found_holds_the_pipes() {
    let prlimit = parts::on_path("prlimit").expect("`prlimit` (of util-linux) is on the PATH");
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut daemon = consumer.start();
    let gate = consumer.home().join("gate");
    let other = format!("echo $$ > pid; until test -e {}; do sleep 0.05; done", gate.display());
    let other = edge.producer().submit(&script(&other));
    wait_for_pid(&consumer.job_dir(&other).join("pid"));

    let hidden = consumer.home().join("hidden.pid");
    let text = format!(
        "(setsid env -i {} --rttime=unlimited:unlimited /bin/sh -c 'echo $$ > {1}; exec /bin/sleep 300' &); \
         until test -s {1}; do sleep 0.01; done; echo why >&2; exit 3",
        prlimit.display(),
        hidden.display()
    );
    let begin = Instant::now();
    let id = edge.producer().submit(&script(&text));
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_eq!((&record["exit_code"], tail(&record)), (&json!(3), "why\n"), "{record}");
    assert!(begin.elapsed() < Duration::from_secs(40), "the end waited for who holds the pipes");
    let hidden = wait_for_pid(&hidden);
    assert!(is_alive(hidden), "it was found after all: this test shows nothing");

    fs::write(&gate, "").expect("the directory of a test can be written to");
    wait_for_record(&consumer, &mut daemon, &other);
    wait_until("the last run to take it with it", PATIENCE, || !is_alive(hidden));
}

#[test]
fn a_tail_of_bytes_that_are_no_text_travels_beside_a_large_output() {
    let edge = Edge::start();
    let record = record_of(
        &edge,
        &Consumer::bare(&edge, SCRIPT),
        "(echo [; seq -s , 1 8900; echo ]) > output.json; head -c 4000 /dev/zero >&2; echo why >&2; exit 3",
    );
    assert!(record["output_bytes"].as_u64().is_some_and(|bytes| bytes > 40_000), "{record}");
    assert!(record["output"].is_array() && tail(&record).ends_with("why\n"), "{record}");
}
