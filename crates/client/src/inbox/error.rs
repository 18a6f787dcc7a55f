//! Why an inbox cannot be used.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use files::NotPrivate;
use protocol::{InvalidJob, JobId};

/// Why the inbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("cannot make the directory {} of the inbox", path.display())]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The inbox cannot be kept from others, or not be made.
    #[error("the inbox {} is not used", path.display())]
    Prepare {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: NotPrivate,
    },
    /// The names in a directory cannot be made to last.
    #[error("cannot sync the directory {}", path.display())]
    Sync {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that should hold a result does not.
    #[error("{} is no result; move it out of the inbox", path.display())]
    NoResult {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file holds the result of another job. Where the file system ignores case, two ids can be one name.
    #[error("{} is the result of the job {job_id}; move it out of the inbox", path.display())]
    OfAnotherJob {
        /// Which file.
        path: PathBuf,
        /// Whose result it is.
        job_id: JobId,
    },
    /// A note of a submission has a job that cannot be sent again as it was.
    #[error("the job in {} cannot be sent again", path.display())]
    NoJob {
        /// Which note.
        path: PathBuf,
        /// Why.
        source: InvalidJob,
    },
    /// A file cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A message cannot be written.
    #[error(
        "cannot store {}; it was not acknowledged and comes again when its lease lapses: {}",
        path.display(), storing_advice(source.kind())
    )]
    Store {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name was taken, and then was not any more.
    #[error("{} was taken away while a second result of its job arrived", path.display())]
    TakenAway {
        /// Which one.
        path: PathBuf,
    },
}

fn storing_advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room",
        ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
            "choose a --data-dir that you can write to, on a file system with hard links"
        }
        _ => "see to the --data-dir",
    }
}
