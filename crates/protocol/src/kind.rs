//! Which kind of message a text plainly is, whatever queue it was found in.
//!
//! With the ids of the two queues swapped, a daemon would run each result as a job, and a laptop would put each job
//! away. A reader therefore looks for the marks of the other kind first, and a message that has them proves that the
//! settings are wrong. Only what is beyond doubt counts: what has the marks of both kinds, or of none, is of no kind.

use crate::fields::Fields;

/// A kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It belongs into `hpc-jobs`.
    Job,
    /// It belongs into `hpc-results`: a result, or an event of the system that this one replaces.
    Result,
}

impl Kind {
    /// The kind of the message in a JSON text (see [`crate::body::json_text`]), where it is plain.
    pub fn of_text(text: &str) -> Option<Self> {
        Self::of(&Fields::find(text).ok()?)
    }

    pub(crate) fn of(fields: &Fields<'_>) -> Option<Self> {
        // Every result has both; an event has a state and says what it is. A job's `input` is never in either.
        let of_result = fields.has("status") && (fields.has("result_pointer") || fields.has("event_type"));
        let of_job = fields.has("job_id") && (fields.has("task") || fields.has("input"));
        if of_result && !fields.has("input") {
            Some(Self::Result)
        } else if of_job && !["status", "result_pointer", "event_type"].iter().any(|name| fields.has(name)) {
            Some(Self::Job)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_has_a_kind() {
        for (text, kind) in [
            (r#"{"v":1,"job_id":"j","task":"a","input":{},"created_at":"x"}"#, Some(Kind::Job)),
            (r#"{"job_id":"j","input":{"command":"ls"}}"#, Some(Kind::Job)),
            (r#"{"job_id":"j","task":"a"}"#, Some(Kind::Job)),
            (
                r#"{"v":1,"job_id":"j","status":"failed","result_pointer":"p","task":"a","attempt":1}"#,
                Some(Kind::Result),
            ),
            (r#"{"job_id":"j","status":"completed","result_pointer":"","event_type":"completed"}"#, Some(Kind::Result)),
            (r#"{"event_type":"heartbeat","status":"alive","hostname":"n"}"#, Some(Kind::Result)),
            // The marks of both, or too few of one.
            (r#"{"job_id":"j","task":"a","input":{},"status":"x","result_pointer":"p"}"#, None),
            (r#"{"job_id":"j","task":"a","status":"urgent"}"#, None),
            (r#"{"job_id":"j"}"#, None),
            (r#"{"task":"a","input":{}}"#, None),
            (r#"{"job_id":"j","status":"completed","result_pointer":null}"#, None),
            ("{}", None),
            ("[]", None),
            ("hello", None),
        ] {
            assert_eq!(Kind::of_text(text), kind, "{text}");
        }
    }
}
