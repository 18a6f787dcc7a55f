//! Exit codes: one table for all programs, so that a script can tell what to do next; and the end of every `main`.

use std::fmt::Display;
use std::process::{ExitCode, Termination};

use protocol::{JobResult, JobState};

use crate::style::say_error;

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all is well.
    Ok,
    /// 1: something failed that the program has no better word for.
    Unexpected,
    /// 2: the arguments or settings are wrong (clap's own code as well).
    Usage,
    /// 3: the job failed; everything around it worked.
    JobFailed,
    /// 4: what was asked for is not there.
    NotFound,
    /// 75: try again later (EX_TEMPFAIL of sysexits.h).
    TryLater,
    /// The exit code of a command that was run elsewhere, and is passed on.
    Command(u8),
    /// 130: Ctrl-C ended what was not done (128 and the number of the signal, as shells count).
    Interrupted,
}

impl Exit {
    /// How a program ends that was asked for this result.
    pub fn of(result: &JobResult) -> Self {
        if JobState::of(result) == JobState::Completed { Self::Ok } else { Self::JobFailed }
    }

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::JobFailed => 3,
            Self::NotFound => 4,
            Self::TryLater => 75,
            Self::Command(code) => code,
            Self::Interrupted => 130,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// An error that ends the program with an exit code of its own. Every other error ends it with 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure, as the error that all commands return.
    pub fn with(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }

    /// Wrong arguments or settings: exit code 2.
    pub fn usage(message: impl Display) -> anyhow::Error {
        // The alternate form of an error tells its causes as well.
        Self::with(Exit::Usage, format!("{message:#}"))
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// The end of a program: says what went wrong, and gives the exit code.
pub fn finish(outcome: anyhow::Result<Exit>) -> Exit {
    outcome.unwrap_or_else(|error| {
        say_error(&format!("{error:#}"));
        error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Exit::Unexpected, Failure::exit)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_exit_code_is_found_below_what_was_said_around_it() {
        let error = Failure::usage(anyhow::anyhow!("cause").context("what"));
        assert_eq!(error.to_string(), "what: cause");
        let wrapped = Err(error).context("when").context("where");
        assert_eq!(finish(wrapped), Exit::Usage);
        assert_eq!(finish(Err(anyhow::anyhow!("else"))), Exit::Unexpected);
    }
}
