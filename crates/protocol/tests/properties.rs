//! What comes from outside, as any text whatever and as damaged copies of what is right: reading it ends in a value or
//! in an error, and what was read keeps its meaning.

use proptest::prelude::*;
use protocol::{JobId, JobMessage, JobResult, JobSpec, Kind, NotANumber, ResultMessage, body, hold};

const JOB: &str = r#"{"v":1,"job_id":"a-1","created_at":"2026-01-02T03:04:05.678Z","task":"simulate","input":{"n":[1,2.5e3,"x\u00e9"]},"metadata":{"of":"me"},"time_limit_seconds":60,"name":"n é","pool":"gpu-1","resources":{"cpus":4,"memory":8589934592,"later":1},"retries":2,"rerunnable":false,"later":{"a":1}}"#;
const RESULT: &str = r#"{"v":1,"job_id":"a-1","status":"failed","result_pointer":"file://n/p","exit_code":3,"reason":"exit","task":"t","attempt":2,"runtime":"bare","isolated":false,"host":"n","created_at":"2026-01-02T03:04:05.678Z","output":null,"stderr_tail":"no"}"#;

/// One that is right, with a piece of it cut out and another text in its place.
fn damaged() -> impl Strategy<Value = String> {
    let seed = prop_oneof![Just(JOB), Just(RESULT)];
    let piece = prop_oneof![".{0,3}", Just("null".to_owned()), Just("[[[".to_owned()), Just("1e999".to_owned())];
    (seed, any::<prop::sample::Index>(), 0_usize..12, piece).prop_map(|(text, at, length, piece)| {
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let rest = chars.iter().skip(at + length);
        chars.iter().take(at).copied().chain(piece.chars()).chain(rest.copied()).collect()
    })
}

/// Any JSON value.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Into::into),
        ".*".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(".{0,8}", inner, 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Everything that reads a text from outside.
fn read_all(text: &str) {
    let decoded = body::json_text(text);
    let text = decoded.as_deref().unwrap_or(text);
    let _ = (JobSpec::parse(text).is_ok(), JobResult::parse(text).is_ok(), hold::asked(text));
    let _ = NotANumber::find(text.as_bytes());
    let (kind, job, result) = (Kind::of_text(text), JobMessage::parse(text), ResultMessage::parse(text));
    if let Ok(job) = &job {
        assert_eq!(job.text(), text, "a message is kept as it came");
    }
    assert!(kind != Some(Kind::Result) || job.is_err_and(|error| error.is_result), "{text}");
    assert!(kind != Some(Kind::Job) || result.is_err_and(|error| error.is_job), "{text}");
}

proptest! {
    #[test]
    fn no_text_is_too_odd_to_be_read(text in any::<String>()) {
        read_all(&text);
    }

    #[test]
    fn no_damage_is_too_odd_to_be_read(text in damaged()) {
        read_all(&text);
    }

    #[test]
    fn no_bytes_are_too_odd_to_look_for_a_number(bytes in any::<Vec<u8>>()) {
        let _ = NotANumber::find(&bytes);
    }

    #[test]
    fn what_is_json_has_only_numbers(value in json()) {
        prop_assert_eq!(NotANumber::find(value.to_string().as_bytes()), None);
    }

    #[test]
    fn a_job_arrives_as_it_was_submitted(task in "[a-z]{1,20}", input in json(), retries in prop::option::of(0_u32..=10)) {
        let mut submitted = serde_json::json!({"task": task, "input": &input});
        if let Some(retries) = retries {
            submitted["retries"] = retries.into();
        }
        let spec = JobSpec::parse(&submitted.to_string()).expect("a submission by the rules");
        let sent = JobMessage::new(JobId::from_random([7; 16]), spec, protocol::timestamp_from_millis(1_700_000_000_000));
        let read = JobMessage::parse(sent.text()).expect("what is sent can be read");
        prop_assert_eq!(&read, &sent);
        prop_assert_eq!(read.spec.input.as_str(), input.to_string(), "to the last digit of its numbers");
    }

    #[test]
    fn an_id_is_a_name_of_a_file_or_none(text in "\\PC{0,80}", key in any::<String>(), place in any::<Option<usize>>()) {
        if let Ok(id) = text.parse::<JobId>() {
            prop_assert!(!id.as_str().contains(['/', '.', '\0']) && (1..=JobId::LENGTH_MAX).contains(&id.as_str().len()));
        }
        let id = JobId::from_idempotency_key(&key, place);
        prop_assert_eq!(id.as_str().parse::<JobId>(), Ok(id.clone()));
    }
}
