//! Why a file cannot be used, as sentences for the person who has to deal with it.

use std::io;

use rusqlite::ErrorCode;

/// Why a file cannot be opened, or not be used any more. The sentences do not name the file, nor what its program can
/// do without it: the program adds both.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It holds something else.
    #[error("it is no SQLite file")]
    NotSqlite,
    /// SQLite made it, for tables that are not ours.
    #[error("it is a SQLite file of another program")]
    Foreign,
    /// A newer program has been here.
    #[error(
        "its tables are of version {found}, and this {program} knows version {known}: start the newer {program} that \
         wrote it"
    )]
    Newer {
        /// Who says this.
        program: &'static str,
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// It is missing or empty, and must not be made; the text says why, and what to do.
    #[error("it is missing or empty, and {0}")]
    Missing(String),
    /// What is in it cannot be right.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Somebody else has it open.
    #[error("another program has it open ({0}); end that, for example a sqlite3 that looks at it, and start again")]
    Busy(#[source] rusqlite::Error),
    /// It, or a file that belongs to it, cannot be opened.
    #[error("{0}; look whether its disk is full, and whether its directory may be written")]
    CannotOpen(#[source] rusqlite::Error),
    /// There is no room.
    #[error("{0}; make room on its file system and start again")]
    Full(#[source] rusqlite::Error),
    /// The file system fails.
    #[error("{0}; look whether its file system can be read and written")]
    FileSystem(#[source] rusqlite::Error),
    /// Commits would not be on the disk.
    #[error("SQLite offers the journal mode {0} and not WAL")]
    NoLog(String),
    /// It cannot be made.
    #[error("it cannot be made: {0}")]
    Make(#[source] io::Error),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Anything else.
    #[error(transparent)]
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // A table or a row that is not as it must be fails with `Unknown`, or not within SQLite.
            None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            Some(ErrorCode::CannotOpen) => Self::CannotOpen(error),
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::SystemIoFailure) => Self::FileSystem(error),
            Some(_) => Self::Other(error),
        }
    }
}

/// The same of an error that somebody else needs, too.
impl From<&rusqlite::Error> for Problem {
    fn from(error: &rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()).into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}
