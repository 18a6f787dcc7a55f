//! Whom the edge tells of a job, as a submission says it.
//!
//! Out of scope: which addresses are called, and how (`edge`).

use serde::{Deserialize, Serialize};

use crate::fields::{Fields, Unknown};
#[cfg(feature = "schema")]
use crate::limits;
use crate::{InvalidJob, JobState, Word};

/// An address, and what it is told of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Callback {
    /// Where to call.
    #[serde(deserialize_with = "rules::url")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = limits::CALLBACK_URL_BYTES_MAX), regex(pattern = "^[!-~]+$")))]
    pub url: String,
    /// When: each state at most once. The three in which a job ends when this is absent.
    #[serde(default, deserialize_with = "rules::events", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(min = 1, max = limits::CALLBACK_EVENTS_MAX), extend("items" = {"enum": Self::EVENTS}))
    )]
    pub events: Option<Vec<Word<JobState>>>,
    /// In which form; the standard one when this is absent.
    #[serde(default, deserialize_with = "rules::format", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<CallbackFormat>"))]
    pub format: Option<Word<CallbackFormat>>,
    /// A text that forms with a place for it carry back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// What the body of a call looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CallbackFormat {
    /// `{type, timestamp, data}`, with all that the hub knows of the job.
    Standard,
    /// The events of NoETL's worker.
    Noetl,
}

impl Callback {
    /// The states that can be told.
    pub const EVENTS: [JobState; 5] =
        [JobState::Held, JobState::Running, JobState::Completed, JobState::Failed, JobState::Cancelled];

    /// Is the address told when a job is so far?
    pub fn is_told(&self, state: JobState) -> bool {
        match &self.events {
            Some(events) => events.iter().any(|event| *event == state),
            None => state.has_ended(),
        }
    }

    /// Reads an object. The error is the end of a sentence about the field that it is the value of.
    pub(crate) fn read(text: &str, strict: bool) -> Result<Self, String> {
        let unknown = if strict { Unknown::RefusedIn("callback") } else { Unknown::Passed };
        let fields = Fields::find(text)
            .map_err(|_| r#"must be an object such as {"url": "https://…", "events": ["completed"]}"#.to_owned())?;
        let callback: Self = fields.read(unknown).map_err(|error| match error {
            InvalidJob::Field { field, problem } => format!("has `{field}`, which {problem}"),
            other => other.to_string(),
        })?;
        let is_event = |event: &Word<JobState>| event.known().is_some_and(|event| Self::EVENTS.contains(&event));
        if strict && callback.events.as_ref().is_some_and(|events| events.is_empty() || !events.iter().all(is_event)) {
            let events = Self::EVENTS.map(JobState::as_str).join(", ");
            return Err(format!("has `events`, which must be a list of one or more of: {events}"));
        }
        if strict && callback.format.as_ref().is_some_and(|format| format.known().is_none()) {
            return Err("has `format`, which must be standard or noetl".to_owned());
        }
        Ok(callback)
    }
}

mod rules {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer};

    use super::CallbackFormat;
    use crate::{JobState, Word, limits};

    pub(super) fn url<'de, D: Deserializer<'de>>(given: D) -> Result<String, D::Error> {
        let url = String::deserialize(given).map_err(|_| D::Error::custom("must be a string"))?;
        let max = limits::CALLBACK_URL_BYTES_MAX;
        if url.is_empty() || url.len() > max || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(D::Error::custom(format!("must be 1 to {max} characters that a URL can have")));
        }
        Ok(url)
    }

    pub(super) fn format<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Word<CallbackFormat>>, D::Error> {
        Word::deserialize(given).map(Some).map_err(|_| D::Error::custom("must be a word"))
    }

    pub(super) fn events<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Vec<Word<JobState>>>, D::Error> {
        let events: Vec<Word<JobState>> =
            Vec::deserialize(given).map_err(|_| D::Error::custom("must be a list of words"))?;
        if events.len() > limits::CALLBACK_EVENTS_MAX {
            return Err(D::Error::custom(format!("must have {} words at the most", limits::CALLBACK_EVENTS_MAX)));
        }
        Ok(Some(events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_unless_other_states_are_named() {
        let told = |text: &str| {
            let callback = Callback::read(text, true).unwrap();
            JobState::ALL.into_iter().filter(|state| callback.is_told(*state)).collect::<Vec<_>>()
        };
        let ends = [JobState::Completed, JobState::Failed, JobState::Cancelled];
        assert_eq!(told(r#"{"url":"https://a.example/x"}"#), ends);
        assert_eq!(told(r#"{"url":"https://a.example/x","events":null}"#), ends);
        assert_eq!(told(r#"{"url":"x","events":["running"]}"#), [JobState::Running]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("7", "must be an object such as"),
            ("{}", "has `url`, which is missing"),
            (r#"{"url":""}"#, "has `url`, which must be 1 to 2000 characters"),
            (r#"{"url":"https://a b"}"#, "has `url`"),
            (r#"{"url":7}"#, "has `url`, which must be a string"),
            (
                r#"{"url":"x","event":[]}"#,
                "has `event`, which is no field of callback; the fields are url, events, format, reference",
            ),
            (r#"{"url":"x","events":[]}"#, "a list of one or more of: held, running, completed, failed, cancelled"),
            (r#"{"url":"x","events":["done"]}"#, "has `events`"),
            (r#"{"url":"x","events":["queued"]}"#, "has `events`"),
            (r#"{"url":"x","format":"xml"}"#, "has `format`, which must be standard or noetl"),
            (r#"{"url":"x","events":"completed"}"#, "has `events`, which must be a list of words"),
        ] {
            let error = Callback::read(text, true).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(Callback::read(r#"{"url":"x","events":["parked"],"secret":1}"#, false).is_ok(), "of a newer version");
    }
}
