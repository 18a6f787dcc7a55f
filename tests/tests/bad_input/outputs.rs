//! What a task leaves behind: an `output.json` that is anything but a small file of JSON, and floods of text.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, Laptop, PATIENCE, SCRIPT, wait_until};

use super::{assert_failed, record_of, script, wait_for_record};

#[test]
fn no_output_is_said() {
    let edge = Edge::start();
    let record = record_of(&edge, &Consumer::bare(&edge, SCRIPT), "true");
    assert_eq!(record["status"], "completed", "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("output.json")), "{record}");
    assert!(record.get("output").is_none() && record.get("output_bytes").is_none(), "{record}");
}

#[test]
fn output_that_is_no_json_is_a_failure_of_the_task() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    for text in ["echo hello > output.json", ": > output.json", "printf '{' > output.json", "echo 1 2 > output.json"] {
        let record = record_of(&edge, &consumer, text);
        assert_failed(&record, "output", "not JSON");
        assert!(record.get("output").is_none(), "{record}");
    }
}

#[test]
fn links_are_not_followed() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let secret = consumer.home().join("secret.json");
    fs::write(&secret, r#"{"secret":"s3cret"}"#).unwrap();
    let to_secret = format!("ln -s {} output.json", secret.display());
    for text in
        ["ln -s /etc/passwd output.json", "ln -s /dev/zero output.json", "ln -s output.json output.json", &to_secret]
    {
        let record = record_of(&edge, &consumer, text);
        assert_failed(&record, "output", "symbolic link");
        let text = record.to_string();
        assert!(!text.contains("root:") && !text.contains("s3cret"), "{text}");
    }
    for result in Laptop::new(&edge).take_results() {
        assert!(!result.to_string().contains("s3cret"), "{result}");
    }
}

#[test]
fn fifos_directories_and_sockets_neither_hang_nor_pass() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    for text in ["mkfifo output.json", "mkdir output.json"] {
        assert_failed(&record_of(&edge, &consumer, text), "output", "not a regular file");
    }
    // A shell makes no sockets, so one is moved into place.
    let socket = consumer.home().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let record = record_of(&edge, &consumer, &format!("mv {} output.json", socket.display()));
    assert_failed(&record, "output", "not a regular file");
    // Logs of the job's own making are not opened either.
    let record = record_of(&edge, &consumer, "rm -f stdout.log; mkfifo stdout.log; echo 1 > output.json");
    assert_eq!(record["status"], "completed", "{record}");
}

#[test]
fn a_large_output_stays_on_the_cluster_and_the_result_says_where() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let record = record_of(&edge, &consumer, "(printf [0; printf ',%s' $(seq 1 20000); printf ]) > output.json");
    let path = consumer.job_dir(record["job_id"].as_str().unwrap()).join("output.json");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<Vec<u32>>(&text).unwrap().len(), 20_001);
    assert_eq!((&record["status"], &record["output_bytes"]), (&json!("completed"), &json!(text.len())), "{record}");
    assert!(record.get("output").is_none(), "{record}");
    assert!(record["result_pointer"].as_str().is_some_and(|uri| uri.ends_with("/output.json")), "{record}");
    assert_eq!(Laptop::new(&edge).take_results(), [record]);
}

#[test]
fn a_gigabyte_of_output_costs_the_daemon_no_memory() {
    let edge = Edge::start();
    // With a link it goes to the store of files.
    let consumer = Consumer::bare(&edge, SCRIPT).unlinked();
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&script("truncate -s 1G output.json"));
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_eq!(record["output_bytes"], 1_u64 << 30, "{record}");
    assert!(record.get("output").is_none(), "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("1073741824 bytes")), "{record}");
    let peak = daemon.peak_resident_bytes();
    assert!(peak < 64_000_000, "{peak} bytes were resident");
}

#[test]
fn a_flood_of_text_is_bounded_on_disk_and_in_memory() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("OUTPUT_LOG_BYTES_MAX", "10000");
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&script(
        "echo first; yes | head -c 100000000; echo last; yes | head -c 100000000 >&2; echo why >&2; exit 4",
    ));
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_failed(&record, "exit", "4");
    for name in ["stdout.log", "stderr.log"] {
        let log = fs::read_to_string(consumer.job_dir(&id).join(name)).unwrap();
        assert!((9_000..11_000).contains(&log.len()), "{name} has {} bytes", log.len());
        assert!(log.contains("left out"), "{name} does not say that it is not whole");
    }
    let stdout = fs::read_to_string(consumer.job_dir(&id).join("stdout.log")).unwrap();
    assert!(stdout.starts_with("first\n") && stdout.ends_with("last\n"), "beginning and end are kept");
    let tail = record["stderr_tail"].as_str().unwrap();
    assert!(tail.len() <= 4_096 && tail.ends_with("why\n"), "{tail:?}");
    let peak = daemon.peak_resident_bytes();
    assert!(peak < 64_000_000, "{peak} bytes were resident");
}

#[test]
fn text_that_is_not_utf8_and_control_characters_reach_the_laptop_as_json() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    // JSON escapes each zero with six characters, and each byte that is no text becomes three.
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&script("head -c 2000 /dev/urandom >&2; head -c 2000 /dev/zero >&2; exit 1"));
    let record = wait_for_record(&consumer, &mut daemon, &id);
    wait_until("the result to be published", PATIENCE, || edge.backlog(testkit::Queue::Results) == 1);
    let results: Vec<Value> = Laptop::new(&edge).take_results();
    assert_eq!(results, [record]);
}
