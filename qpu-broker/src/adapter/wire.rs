//! What is said to an adapter, and what it answers: a line of JSON each.

use std::time::Duration;

use lease::{Answer, Ask, Fault, FaultKind, Phase, Question};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A question.
#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// An answer. What is not known of it is left alone.
#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    ok: bool,
    error: Option<Failure>,
    vendor_id: Option<String>,
    tag: Option<String>,
    found: Option<bool>,
    status: Option<String>,
    message: Option<String>,
    result: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Failure {
    kind: String,
    retry_after_seconds: Option<f64>,
    #[serde(default)]
    message: String,
}

/// The line of a question.
pub(super) fn request(ask: &Ask, payload: Option<&str>) -> String {
    let (op, vendor_id) = match &ask.question {
        Question::Submit => ("submit", None),
        Question::Find => ("find", None),
        Question::Status(id) => ("status", Some(id.as_str())),
        Question::Result(id) => ("result", Some(id.as_str())),
        Question::Cancel(id) => ("cancel", Some(id.as_str())),
    };
    // What is told of a task by the vendor's id, the vendor says, or nobody.
    let tag = matches!(ask.question, Question::Submit | Question::Find).then(|| ask.task.tag());
    let payload: Option<&RawValue> = payload.and_then(|payload| serde_json::from_str(payload).ok());
    let request = Request { id: ask.number, op, tag, vendor_id, payload };
    let mut line = serde_json::to_string(&request).expect("a request holds only texts, numbers and JSON");
    line.push('\n');
    line
}

/// An answer to this question.
pub(super) fn answer(question: &Question, line: &str) -> Answer {
    let response: Response = match serde_json::from_str(line) {
        Ok(response) => response,
        Err(error) => return fault(FaultKind::Unknown, &format!("the adapter's answer cannot be read: {error}")),
    };
    if let Some(Failure { kind, retry_after_seconds, message }) = response.error {
        let kind = match kind.as_str() {
            "busy" => FaultKind::Busy,
            "refused" => FaultKind::Refused,
            "unreachable" => FaultKind::Unreachable,
            _ => FaultKind::Unknown,
        };
        let retry_after = retry_after_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        return Answer::Fault(Fault { kind, retry_after, message });
    }
    let Response { ok, vendor_id, tag, found, status, message, result, .. } = response;
    let phase = status.as_deref().and_then(phase);
    let answer = match (question, vendor_id, found, phase, result) {
        _ if !ok => None,
        (Question::Submit, Some(vendor_id), ..) => Some(Answer::Taken { vendor_id, tag }),
        (Question::Find, Some(vendor_id), Some(true), ..) => tag.map(|tag| Answer::Found { vendor_id, tag }),
        (Question::Find, _, Some(false), ..) => Some(Answer::NotFound),
        (Question::Status(_), _, _, Some(phase), _) => Some(Answer::Status { phase, tag, message }),
        (Question::Result(_), .., Some(result)) => Some(Answer::Result { result: result.get().to_owned(), tag }),
        (Question::Cancel(_), ..) => Some(Answer::Cancelling),
        _ => None,
    };
    answer.unwrap_or_else(|| fault(FaultKind::Unknown, "the adapter's answer lacks what was asked for (docs/lease.md)"))
}

fn phase(word: &str) -> Option<Phase> {
    Some(match word {
        "queued" | "running" => Phase::Active,
        "completed" => Phase::Completed,
        "failed" => Phase::Failed,
        "cancelled" => Phase::Cancelled,
        _ => return None,
    })
}

/// There is no answer.
pub(super) fn fault(kind: FaultKind, message: &str) -> Answer {
    Answer::Fault(Fault { kind, retry_after: None, message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use lease::TaskId;

    use super::*;

    fn v() -> String {
        "v".to_owned()
    }

    #[test]
    fn a_question_is_one_line_with_the_payload_as_it_came() {
        let task = TaskId::from_random([1; 16]);
        let ask = |question| Ask { task: task.clone(), qpu: "q".parse().unwrap(), number: 7, question };
        let tag = task.tag();
        let line = request(&ask(Question::Submit), Some("{\"shots\":  1.50}"));
        assert_eq!(
            line,
            format!("{{\"id\":7,\"op\":\"submit\",\"tag\":\"{tag}\",\"payload\":{{\"shots\":  1.50}}}}\n")
        );
        assert_eq!(request(&ask(Question::Find), None), format!("{{\"id\":7,\"op\":\"find\",\"tag\":\"{tag}\"}}\n"));
        let line = request(&ask(Question::Status("v\"1".to_owned())), None);
        assert_eq!(line, "{\"id\":7,\"op\":\"status\",\"vendor_id\":\"v\\\"1\"}\n");
    }

    #[test]
    fn an_answer_is_one_to_what_was_asked_or_none() {
        let taken = Answer::Taken { vendor_id: v(), tag: None };
        assert_eq!(answer(&Question::Submit, r#"{"ok":true,"vendor_id":"v","new":[]}"#), taken);
        let found = Answer::Found { vendor_id: v(), tag: "t".to_owned() };
        assert_eq!(answer(&Question::Find, r#"{"ok":true,"found":true,"vendor_id":"v","tag":"t"}"#), found);
        assert_eq!(answer(&Question::Find, r#"{"ok":true,"found":false}"#), Answer::NotFound);
        let result = Answer::Result { result: "{\"a\": 1.0}".to_owned(), tag: None };
        assert_eq!(answer(&Question::Result(v()), r#"{"ok":true,"result":{"a": 1.0}}"#), result);
        assert_eq!(answer(&Question::Cancel(v()), r#"{"ok":true}"#), Answer::Cancelling);
        let status = Answer::Status { phase: Phase::Active, tag: None, message: None };
        assert_eq!(answer(&Question::Status(v()), r#"{"ok":true,"status":"queued"}"#), status);
        let busy = Fault { kind: FaultKind::Busy, retry_after: Some(Duration::from_millis(1_500)), message: v() };
        let line = r#"{"error":{"kind":"busy","retry_after_seconds":1.5,"message":"v"}}"#;
        assert_eq!(answer(&Question::Submit, line), Answer::Fault(busy));
        for (question, line) in [
            (Question::Submit, r#"{"ok":true}"#),
            (Question::Submit, r#"{"ok":false,"vendor_id":"v"}"#),
            (Question::Submit, r#"{"vendor_id":"v"}"#),
            (Question::Submit, r#"{"ok":true,"vendor_id":7}"#),
            (Question::Submit, "null"),
            (Question::Submit, r#"{"error":{"kind":"odd","retry_after_seconds":-1}}"#),
            // Whether it is not there must be said, and not be left out; and whose it is.
            (Question::Find, r#"{"ok":true}"#),
            (Question::Find, r#"{"ok":true,"vendor_id":null}"#),
            (Question::Find, r#"{"ok":true,"found":true,"vendor_id":"v"}"#),
            (Question::Status(v()), r#"{"ok":true,"status":"odd"}"#),
            (Question::Result(v()), r#"{"ok":true}"#),
            (Question::Cancel(v()), "{}"),
        ] {
            let answer = answer(&question, line);
            let unknown = matches!(&answer, Answer::Fault(fault) if fault.kind == FaultKind::Unknown);
            assert!(unknown, "{line}: {answer:?}");
        }
    }
}
