//! What must hold of whatever is asked of the edge, for the fuzzer and the property tests.
//!
//! What is admitted is read by those who pull it, and fits into the queue; the answer tells the same ids.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use protocol::{JobMessage, limits, timestamp_from_millis};
use serde_json::Value;

use crate::{Config, Decision, Head, Pending, Response, Route, Secret, Sent, route};

/// The key of the edge that is asked.
const API_KEY: &str = "key";

/// Reads bytes as a request: method, path with its query, content type, length, API key and idempotency key on a line
/// each, which is empty where there is none, and then the body.
pub fn request(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.splitn(7, |byte| *byte == b'\n').collect();
    let line =
        |at: usize| parts.get(at).and_then(|part| std::str::from_utf8(part).ok()).filter(|text| !text.is_empty());
    let (path, query) = line(1).unwrap_or_default().split_once('?').unwrap_or((line(1).unwrap_or_default(), ""));
    let head = Head {
        method: line(0).unwrap_or_default(),
        path,
        query,
        content_type: line(2),
        content_length: line(3).and_then(|text| text.parse::<u64>().ok()),
        api_key: line(4),
        idempotency_key: line(5),
        ..Head::default()
    };
    let body = parts.get(6).copied().unwrap_or_default();
    assert!(
        matches!(route(&head, &Config { hub: true, ..Config::default() }), Route::Answer(_)),
        "without a key nobody may submit"
    );
    let first = ask(&head, body);
    if let Some(first) = &first {
        assert_eq!(head.api_key, Some(API_KEY), "a stranger has something admitted");
        let again = ask(&head, body).expect("it was admitted before");
        assert_eq!(first.messages(), again.messages(), "the same request is the same jobs");
    }
    if let Some(pending) = first {
        admitted(pending);
    }
}

/// What is to be sent, if anything.
fn ask(head: &Head<'_>, body: &[u8]) -> Option<Pending> {
    let config = Config { api_key: Secret::new(API_KEY), hub: true, ..Config::default() };
    let admission = match route(head, &config) {
        Route::Answer(response) => {
            answer(&response);
            return None;
        }
        Route::Hub(opening) => {
            assert_eq!(head.api_key, Some(API_KEY), "a stranger asks the hub");
            let request = opening.with_body(body);
            if let Err(problem) = request {
                answer(&problem.response());
            }
            return None;
        }
        Route::Link => panic!("without a key no site may link"),
        Route::ReadBody(admission) => admission,
    };
    let mut minted = 0;
    let mut mint = || {
        minted += 1;
        [minted; 16]
    };
    match admission.admit(body, timestamp_from_millis(1_795_223_727_123), &mut mint) {
        Decision::Answer(response) => {
            answer(&response);
            assert!(response.status >= 400, "nothing was admitted");
            None
        }
        Decision::Enqueue(pending) => Some(pending),
    }
}

fn admitted(pending: Pending) {
    let messages = pending.messages().to_vec();
    assert!((1..=limits::BATCH_COUNT_MAX).contains(&messages.len()));
    let mut size = 0;
    let ids = messages.iter().map(|message| {
        assert!(message.len() <= limits::MESSAGE_BODY_BYTES_MAX && !message.contains('\n'));
        size += message.len() + limits::MESSAGE_METADATA_BYTES;
        let job = JobMessage::parse(message).expect("what is admitted is read");
        assert_eq!(job.text(), message);
        job.job_id.to_string()
    });
    let ids: Vec<String> = ids.collect();
    assert!(messages.len() == 1 || size <= limits::BATCH_BYTES_MAX);
    let Sent::Answer(response) = pending.sent() else { return };
    assert_eq!(response.status, 202);
    let told = answer(&response);
    let jobs = told["jobs"].as_array().cloned().unwrap_or_else(|| vec![told.clone()]);
    let queued: Vec<String> = jobs.iter().filter_map(|job| job["job_id"].as_str()).map(str::to_owned).collect();
    assert_eq!(queued, ids, "the answer tells what was sent");
}

fn answer(response: &Response) -> Value {
    assert!((200..600).contains(&response.status) && !response.headers.is_empty());
    if response.headers.iter().any(|(name, value)| *name == "content-type" && value.starts_with("text/html")) {
        return Value::Null;
    }
    let body: Value = serde_json::from_str(&response.body).expect("an answer is JSON, or the page");
    assert!(body.is_object());
    body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        (0..words.len()).prop_map(move |at| words[at])
    }

    /// A job, as a rule a good one.
    fn job() -> impl Strategy<Value = String> {
        let field = one_of(&[
            "\"input\": { \"a\": [1.0, \"\\n\"] }",
            "\"metadata\": {}",
            "\"retries\": 3",
            "\"retries\": 101",
            "\"rerunnable\": false",
            "\"idempotency_key\": \"k\"",
            "\"idempotency_key\": \"\"",
            "\"input\": \"é\u{2028}\"",
            "\"time_limit_seconds\": 0",
            "\"inputs\": 1",
            "\"task\": null",
        ]);
        proptest::collection::vec(field, 0..3).prop_map(|fields| {
            format!("{{{}}}", ["\"task\": \"a\""].into_iter().chain(fields).collect::<Vec<_>>().join(",\n"))
        })
    }

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("edge_request", request);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered(bytes in any::<Vec<u8>>()) {
            request(&bytes);
            request(&[b"POST\n/jobs\napplication/json\n\nkey\n\n".as_slice(), &bytes].concat());
        }

        #[test]
        fn what_is_admitted_is_read_and_fits(
            is_batch in any::<bool>(),
            key in one_of(&["", "k", "\u{7f}", "a longer key"]),
            api_key in one_of(&["key", "key", "key", "guess", ""]),
            jobs in proptest::collection::vec(job(), 0..4),
            repeated in 1..60_usize,
        ) {
            let (path, body) = if is_batch {
                let jobs: Vec<String> = jobs.iter().cycle().take(jobs.len() * repeated).cloned().collect();
                ("/jobs/batch", format!("{{\"jobs\": [{}]}}", jobs.join(",")))
            } else {
                ("/jobs", jobs.concat())
            };
            request(format!("POST\n{path}\napplication/json\n\n{api_key}\n{key}\n{body}").as_bytes());
        }
    }
}
