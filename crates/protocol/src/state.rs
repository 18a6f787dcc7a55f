//! How far a job is, in one word: what `status` of every program prints, and what lists are filtered by.
//!
//! The words are a contract with scripts and workflow engines: they stay, and no other comes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{JobResult, Reason, Status};

/// How far a job is, as far as who is asked can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing is known of it here.
    Unknown,
    /// It is in the queue, or nothing else is known of it than that it was put there.
    Queued,
    /// A daemon has taken it, and it has not begun.
    Held,
    /// It runs, or what it left is being collected.
    Running,
    /// It has ended and did what it was meant to do.
    Completed,
    /// It has ended and did not.
    Failed,
    /// A person did not want it any more, and it has ended.
    Cancelled,
}

/// A word that is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a state is one of: {}", JobState::ALL.map(JobState::as_str).join(", "))]
pub struct InvalidJobState;

impl JobState {
    /// Every one, in the order in which a job meets them.
    pub const ALL: [Self; 7] =
        [Self::Unknown, Self::Queued, Self::Held, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// That of a job with this result.
    pub fn of(result: &JobResult) -> Self {
        match result.status.known() {
            Some(Status::Completed) => Self::Completed,
            _ if result.reason == Some(Reason::Cancelled.into()) => Self::Cancelled,
            // An end of which only a newer version knows is no success that we know of.
            Some(Status::Failed) | None => Self::Failed,
        }
    }

    /// Has the job ended? Then this is its state for good.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = InvalidJobState;

    fn from_str(text: &str) -> Result<Self, InvalidJobState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(InvalidJobState)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_format_unchanged() {
        // Scripts and workflow engines compare with these.
        let words = ["unknown", "queued", "held", "running", "completed", "failed", "cancelled"];
        assert_eq!(JobState::ALL.map(JobState::as_str), words);
        for state in JobState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        assert!("canceled".parse::<JobState>().is_err_and(|error| error.to_string().contains("failed, cancelled")));
    }

    #[test]
    fn a_result_says_which() {
        for (status, reason, state) in [
            ("completed", "", JobState::Completed),
            ("failed", r#","reason":"exit""#, JobState::Failed),
            ("failed", r#","reason":"cancelled""#, JobState::Cancelled),
            ("failed", r#","reason":"a newer one""#, JobState::Failed),
            ("preempted", "", JobState::Failed),
        ] {
            let result = JobResult::parse(&format!(r#"{{"job_id":"j","status":"{status}"{reason}}}"#)).unwrap();
            assert_eq!(JobState::of(&result), state, "{status} {reason}");
            assert!(state.has_ended());
        }
    }
}
