//! Exit codes: one table for all programs, so that a script can tell what to do next.

use std::process::{ExitCode, Termination};

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
    /// 130: Ctrl-C ended what was not done (128 and the number of the signal, as shells count).
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::JobFailed => 3,
            Self::NotFound => 4,
            Self::TryLater => 75,
            Self::Interrupted => 130,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
