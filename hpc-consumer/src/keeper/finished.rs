//! How it is written that a run is over: to the daemon, and in the journal.
//!
//! `ended` has only the words of version 1, which every reader knows. What came to be known later stands beside it, in
//! fields of its own, so that an older reader gets the part that it understands.

use lifecycle::EndReason;
use rustix::process::Signal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::run::{Ended, Finished};
use protocol::{Isolation, Launched, Ran, RuntimeKind, Usage, Word as OpenWord};

#[derive(Serialize, Deserialize)]
struct FinishedText {
    ended: EndedText,
    /// Nobody saw how it ended; the text says why. To version 1 it is `stopped`, which counts as cut off there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut_off: Option<String>,
    /// Why its keeper ended it. To version 1 all of these are `stopped`.
    #[serde(default, skip_serializing_if = "Why::is_unsaid")]
    why: Why,
    /// It was killed for want of memory. To version 1 it is SIGKILL.
    #[serde(default, skip_serializing_if = "is_false")]
    memory_limit: bool,
    /// What is known of that besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_passed: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    stdout_tail: String,
    stderr_tail: String,
    started_at_ms: i64,
    finished_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runtime: Option<OpenWord<RuntimeKind>>,
    /// Did the job's own command begin?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<bool>,
    #[serde(default, skip_serializing_if = "is_false")]
    image_lost: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<Box<Isolation>>,
    /// What it was begun as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launched: Option<Box<Launched>>,
    /// Where it was, if that is not where its daemon is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ran: Option<Box<Ran>>,
    /// What it has used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum EndedText {
    Known(Word),
    Unknown(Value),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Exit(i32),
    Signal(i32),
    TimeLimit,
    Stopped,
    NotStarted(String),
}

impl From<&Finished> for FinishedText {
    fn from(finished: &Finished) -> Self {
        let (mut cut_off, mut why, mut memory_passed) = (None, Why::default(), None);
        let word = match &finished.ended {
            Ended::Exit(code) => Word::Exit(*code),
            Ended::Signal(signal) => Word::Signal(*signal),
            Ended::TimeLimit => Word::TimeLimit,
            Ended::MemoryLimit(what) => {
                memory_passed = what.clone();
                Word::Signal(Signal::KILL.as_raw())
            }
            Ended::Stopped(reason) => {
                why = Why(*reason);
                Word::Stopped
            }
            Ended::NotStarted(problem) => Word::NotStarted(problem.clone()),
            Ended::CutOff(what) => {
                cut_off = Some(what.clone());
                Word::Stopped
            }
        };
        Self {
            ended: EndedText::Known(word),
            cut_off,
            why,
            memory_limit: matches!(finished.ended, Ended::MemoryLimit(_)),
            memory_passed,
            stdout_tail: finished.stdout_tail.clone(),
            stderr_tail: finished.stderr_tail.clone(),
            started_at_ms: finished.started_at_ms,
            finished_at_ms: finished.finished_at_ms,
            runtime: finished.runtime.map(OpenWord::from),
            began: finished.began,
            image_lost: finished.image_lost,
            isolation: finished.isolation.clone(),
            launched: finished.launched.clone(),
            ran: finished.ran.clone(),
            usage: finished.usage.clone(),
        }
    }
}

impl From<FinishedText> for Finished {
    fn from(text: FinishedText) -> Self {
        let ended = match (text.cut_off, text.ended) {
            (Some(what), _) => Ended::CutOff(what),
            (None, _) if text.memory_limit => Ended::MemoryLimit(text.memory_passed),
            (None, EndedText::Known(Word::Exit(code))) => Ended::Exit(code),
            (None, EndedText::Known(Word::Signal(signal))) => Ended::Signal(signal),
            (None, EndedText::Known(Word::TimeLimit)) => Ended::TimeLimit,
            (None, EndedText::Known(Word::Stopped)) => Ended::Stopped(text.why.0),
            (None, EndedText::Known(Word::NotStarted(why))) => Ended::NotStarted(why),
            (None, EndedText::Unknown(word)) => {
                Ended::CutOff(format!("it ended in a way that only a newer hpc-consumer understands: {word}"))
            }
        };
        let FinishedText {
            stdout_tail,
            stderr_tail,
            started_at_ms,
            finished_at_ms,
            began,
            image_lost,
            isolation,
            launched,
            ran,
            usage,
            ..
        } = text;
        let runtime = text.runtime.and_then(|runtime| runtime.known());
        Self {
            ended,
            stdout_tail,
            stderr_tail,
            started_at_ms,
            finished_at_ms,
            runtime,
            began,
            image_lost,
            isolation,
            launched,
            ran,
            usage,
        }
    }
}

/// Why a run was ended before its time, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Why(pub(super) EndReason);

/// Each reason and its word. A word that is not among them is one that only a newer program says.
const REASONS: [(EndReason, &str); 9] = [
    (EndReason::NotHeld, "not_held"),
    (EndReason::TakenOver, "taken_over"),
    (EndReason::ExecutorEnds, "executor_ends"),
    (EndReason::AllocationEnds, "allocation_ends"),
    (EndReason::Cancelled, "cancelled"),
    (EndReason::ServiceIdle, "service_idle"),
    (EndReason::ServiceOld, "service_old"),
    (EndReason::ServiceNotReady, "service_not_ready"),
    (EndReason::ServiceGone, "service_gone"),
];

impl Why {
    pub(super) fn is_unsaid(&self) -> bool {
        self.0 == EndReason::Unsaid
    }
}

impl Default for Why {
    fn default() -> Self {
        Self(EndReason::Unsaid)
    }
}

impl From<String> for Why {
    fn from(word: String) -> Self {
        Self(REASONS.iter().find(|(_, known)| *known == word).map_or(EndReason::Unsaid, |(reason, _)| *reason))
    }
}

impl From<Why> for String {
    fn from(why: Why) -> Self {
        REASONS.iter().find(|(reason, _)| *reason == why.0).map_or_else(Self::new, |(_, word)| (*word).to_owned())
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn serialize<S: Serializer>(finished: &Finished, serializer: S) -> Result<S::Ok, S::Error> {
    FinishedText::from(finished).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Finished, D::Error> {
    FinishedText::deserialize(deserializer).map(Finished::from)
}

/// The same for many runs, each with its name.
pub(super) mod listed {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        runs: &[(String, Finished)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(runs.iter().map(|(run, finished)| (run, FinishedText::from(finished))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Finished)>, D::Error> {
        let runs: Vec<(String, FinishedText)> = Vec::deserialize(deserializer)?;
        Ok(runs.into_iter().map(|(run, text)| (run, text.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line(#[serde(with = "super")] Finished);

    fn read(ended: &str, more: &str) -> Ended {
        let line = format!(r#"{{"ended":{ended},"stderr_tail":"","started_at_ms":1,"finished_at_ms":2{more}}}"#);
        serde_json::from_str::<Line>(&line).unwrap().0.ended
    }

    #[test]
    fn what_a_newer_program_says_of_an_end_is_no_reason_to_take_it_for_another_one() {
        assert_eq!(read(r#"{"exit":3}"#, r#","colour":"red","runtime":"podman""#), Ended::Exit(3));
        for unknown in [r#""evicted""#, r#"{"evicted":{"by":"x"}}"#, "7"] {
            let Ended::CutOff(what) = read(unknown, "") else { panic!("{unknown}") };
            assert!(what.contains(unknown) && what.contains("newer"), "{what}");
        }
    }

    #[test]
    fn what_version_1_has_no_word_for_is_cut_off_to_it() {
        let finished = Finished { ended: Ended::CutOff("why".to_owned()), ..Finished::ended_before(EndReason::Unsaid) };
        let text = serde_json::to_value(Line(finished)).unwrap();
        assert_eq!((&text["ended"], &text["cut_off"]), (&"stopped".into(), &"why".into()));
        assert_eq!(read(r#""stopped""#, r#","cut_off":"why""#), Ended::CutOff("why".to_owned()));
        for what in [None, Some("2 of 1".to_owned())] {
            let ended = Ended::MemoryLimit(what);
            let finished = Finished { ended, ..Finished::ended_before(EndReason::Unsaid) };
            let text = serde_json::to_value(Line(finished.clone())).unwrap();
            assert_eq!((&text["ended"]["signal"], &text["memory_limit"]), (&9.into(), &true.into()));
            assert_eq!(serde_json::from_value::<Line>(text).unwrap().0, finished);
        }
    }
}
