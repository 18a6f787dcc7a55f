//! Why a job could not be done: by its own fault, or by the machine's.

use std::io;
use std::path::{Path, PathBuf};

/// What ends a run without `output.json`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The job asks for what cannot be done, on any machine: its author must change it. A sentence that says what.
    #[error("{0}")]
    BadJob(String),
    /// The machine failed: a disk, a permission, a mount.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TaskError {
    /// The error of one action on one file.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => 1,
            Self::BadJob(_) => 2,
        }
    }
}
