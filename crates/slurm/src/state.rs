//! The states of a job of Slurm, and its exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum State {
    /// It waits.
    Pending,
    /// Its nodes are being made ready.
    Configuring,
    /// It runs.
    Running,
    /// It is stopped, and will go on.
    Suspended,
    /// It is ending.
    Completing,
    /// Somebody has had it begin again: it waits, or will.
    Requeued,
    /// It ended with exit code 0.
    Completed,
    /// It ended in another way.
    Failed,
    /// A person or a program ended it.
    Cancelled {
        /// The user who did, by number, where it is known.
        by: Option<u32>,
    },
    /// Its time was up.
    Timeout,
    /// A node of it was lost.
    NodeFail,
    /// Its nodes were given to another.
    Preempted,
    /// Its nodes could not be made ready.
    BootFail,
    /// It could no longer end in time.
    Deadline,
    /// It used more memory than it had.
    OutOfMemory,
    /// Anything else, as Slurm wrote it: a job that is there, whatever it does.
    Unknown(String),
}

impl State {
    /// Reads a state as `squeue` and `sacct` write it.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        // A user without a name is a number; sacct has it so in every version.
        let by = || rest.strip_prefix("by ").and_then(|user| user.parse().ok());
        match word.trim_end_matches('+') {
            "PENDING" => Self::Pending,
            "CONFIGURING" => Self::Configuring,
            "RUNNING" => Self::Running,
            "SUSPENDED" | "STOPPED" => Self::Suspended,
            "COMPLETING" | "STAGE_OUT" => Self::Completing,
            "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => Self::Requeued,
            "COMPLETED" => Self::Completed,
            "FAILED" => Self::Failed,
            "CANCELLED" => Self::Cancelled { by: by() },
            "TIMEOUT" => Self::Timeout,
            "NODE_FAIL" => Self::NodeFail,
            "PREEMPTED" => Self::Preempted,
            "BOOT_FAIL" => Self::BootFail,
            "DEADLINE" => Self::Deadline,
            "OUT_OF_MEMORY" => Self::OutOfMemory,
            _ => Self::Unknown(text.to_owned()),
        }
    }

    /// Has the job ended? What is not known has not.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled { .. } | Self::Timeout | Self::NodeFail => true,
            Self::Preempted | Self::BootFail | Self::Deadline | Self::OutOfMemory => true,
            Self::Pending | Self::Configuring | Self::Running | Self::Suspended | Self::Completing => false,
            Self::Requeued | Self::Unknown(_) => false,
        }
    }

    /// Does it wait for nodes?
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Pending | Self::Requeued)
    }
}

impl From<String> for State {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        state.to_string()
    }
}

/// As Slurm writes it.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Pending => "PENDING",
            Self::Configuring => "CONFIGURING",
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Completing => "COMPLETING",
            Self::Requeued => "REQUEUED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled { by: None } => "CANCELLED",
            Self::Cancelled { by: Some(user) } => return write!(f, "CANCELLED by {user}"),
            Self::Timeout => "TIMEOUT",
            Self::NodeFail => "NODE_FAIL",
            Self::Preempted => "PREEMPTED",
            Self::BootFail => "BOOT_FAIL",
            Self::Deadline => "DEADLINE",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::Unknown(text) => text,
        };
        f.write_str(word)
    }
}

/// How the script of a job ended, as Slurm writes it: `3:0` is an exit code, `0:9` a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode {
    /// The exit code.
    pub code: i32,
    /// The signal; 0 where it was none.
    pub signal: i32,
}

impl ExitCode {
    /// Reads it.
    pub fn parse(text: &str) -> Option<Self> {
        let (code, signal) = text.trim().split_once(':')?;
        Some(Self { code: code.parse().ok()?, signal: signal.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_are_written() {
        for text in [
            "PENDING",
            "CONFIGURING",
            "RUNNING",
            "SUSPENDED",
            "COMPLETING",
            "REQUEUED",
            "COMPLETED",
            "FAILED",
            "CANCELLED",
            "CANCELLED by 1000",
            "TIMEOUT",
            "NODE_FAIL",
            "PREEMPTED",
            "BOOT_FAIL",
            "DEADLINE",
            "OUT_OF_MEMORY",
        ] {
            let state = State::parse(text);
            assert!(!matches!(state, State::Unknown(_)), "{text}");
            assert_eq!(state.to_string(), text);
        }
        assert_eq!(State::parse("CANCELLED by 0"), State::Cancelled { by: Some(0) });
        assert_eq!(State::parse("CANCELLED+"), State::Cancelled { by: None });
    }

    #[test]
    fn what_is_not_known_is_there() {
        for text in ["", "EXPEDITING", "RESIZING", "SIGNALING", "REVOKED", "WHATEVER ELSE"] {
            let state = State::parse(text);
            assert_eq!((state.is_over(), state.to_string().as_str()), (false, text));
        }
    }

    #[test]
    fn exit_codes_have_two_parts() {
        assert_eq!(ExitCode::parse("3:0"), Some(ExitCode { code: 3, signal: 0 }));
        assert_eq!(ExitCode::parse("0:125"), Some(ExitCode { code: 0, signal: 125 }));
        assert_eq!(ExitCode::parse("768"), None);
    }
}
