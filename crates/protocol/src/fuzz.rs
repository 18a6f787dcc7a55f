//! What must hold of whatever arrives in a queue, for the fuzzer and the property tests.
//!
//! What was read and is written is the same text, and what is written anew is read as the same.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use crate::{Address, InvalidJob, JobMessage, JobResult, JobSpec, Json, Kind, NotANumber, ResultMessage, body};

/// Reads bytes as the body of a message in either queue.
pub fn message(bytes: &[u8]) {
    let is_json = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
    assert!(!is_json || NotANumber::find(bytes).is_none(), "JSON has numbers alone");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(inner) = body::json_text(text) {
        assert!(Json::parse(&inner).is_ok(), "it is JSON");
        job(&inner);
        result(&inner);
    }
    job(text);
    result(text);
    submission(text);
    address(text);
}

/// The same of what a service leaves behind.
fn address(text: &str) {
    let Ok(read) = Address::parse(text) else { return };
    let written = serde_json::to_string(&read).expect("it holds only strings and numbers");
    assert_eq!(Address::parse(&written).expect("what is written is read"), read);
}

fn job(text: &str) {
    let Ok(read) = JobMessage::parse(text) else { return };
    assert_eq!(read.text(), text, "it is kept as it came");
    assert_ne!(Kind::of_text(text), Some(Kind::Result), "no result is run as a job");
    let now = crate::timestamp_from_millis(1_795_223_727_123);
    let mut spec = read.spec.clone();
    let again = JobMessage::parse(JobMessage::new(read.job_id.clone(), spec.clone(), now).text());
    spec.idempotency_key = None;
    let again = again.expect("what is written is read");
    assert_eq!((again.job_id, again.created_at, again.spec), (read.job_id, Some(now), spec));
}

fn result(text: &str) {
    let read = JobResult::parse(text);
    if let Ok(ResultMessage::Result(result)) = ResultMessage::parse(text) {
        assert_eq!(read.as_ref().ok(), Some(&*result), "it is the same to both readers");
    }
    let Ok(read) = read else { return };
    // Times lose what is below a millisecond, and only that.
    let written = read.to_json();
    let again = JobResult::parse(&written).expect("what is written is read");
    assert_eq!(again.to_json(), written);
    assert_eq!((&again.job_id, &again.status, &again.output), (&read.job_id, &read.status, &read.output));
}

fn submission(text: &str) {
    match JobSpec::parse(text) {
        Ok(spec) => {
            let written = serde_json::to_string(&spec).expect("it holds only strings, numbers and JSON");
            assert_eq!(JobSpec::parse(&written).expect("what is written is read"), spec);
        }
        Err(InvalidJob::NotJson(_)) => {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "it is told for what it is");
        }
        Err(error) => assert!(Json::parse(text).is_ok() && !error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The names and values that are of interest, rightly and wrongly combined.
    const NAMES: [&str; 23] = [
        "needs",
        "port",
        "scheme",
        "facts",
        "v",
        "job_id",
        "task",
        "input",
        "metadata",
        "name",
        "pool",
        "runtime",
        "resources",
        "time_limit_seconds",
        "retries",
        "rerunnable",
        "idempotency_key",
        "status",
        "result_pointer",
        "attempt",
        "started_at",
        "output",
        "event_type",
    ];
    const VALUES: [&str; 23] = [
        "8080",
        "[\"a\", {\"service\": \"b\", \"n\": {\"min\": 1.50}, \"of\": \"x\"}]",
        "[{\"service\": \"b\", \"n\": 18446744073709551616}]",
        "{\"qubits\": 32, \"kind\": \"a\", \"noise\": false}",
        "[\"a\", \"a\"]",
        "1",
        "null",
        "\"j1\"",
        "\"completed\"",
        "{ \"a\": [1.50, NaN] }",
        "{ \"a\" : [1.50] }",
        "[]",
        "{\"cpus\": 4, \"memory\": \"2 GiB\", \"later\": 1}",
        "{\"memory\": 8589934592, \"gpus\": null}",
        "true",
        "-1",
        "1e400",
        "100",
        "\"\\u0000\"",
        "\"2026-11-21T01:15:27.123456Z\"",
        "\"\\ud83d\"",
        "\"failed\"",
        "18446744073709551616",
    ];

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("message", message);
    }

    proptest! {
        #[test]
        fn whatever_arrives_holds(bytes in any::<Vec<u8>>()) {
            message(&bytes);
        }

        #[test]
        fn whatever_looks_like_a_message_holds(
            fields in proptest::collection::vec((0..NAMES.len(), 0..VALUES.len()), 0..10),
            cut in 0..200_usize,
        ) {
            let fields: Vec<String> =
                fields.iter().map(|&(name, value)| format!("\"{}\": {}", NAMES[name], VALUES[value])).collect();
            let text = format!("{{{}}}", fields.join(", "));
            message(text.as_bytes());
            message(&text.as_bytes()[..cut.min(text.len())]);
        }
    }
}
