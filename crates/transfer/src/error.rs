//! Why a content is not where it was to be.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Edge or store do not answer, or cannot do it now: it passes.
    Away,
    /// They refuse it, and would again: it is too large, there is no room for whoever has the key.
    Refused,
    /// The key is not that of the edge, or something answers in the place of the edge: once a person has mended it, the
    /// same call goes on.
    Denied,
    /// The edge has no store of files, or is none.
    NoStore,
    /// The content is not there any more, or never was.
    Gone,
    /// The bytes are not those of the name.
    Wrong,
    /// Something of this machine: a file cannot be read or written, a disk is full, another file has the name.
    Local,
    /// A file changed while it was read or sent.
    Changed,
}

/// Why a content is not where it was to be, as a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    class: Class,
    what: String,
    after: Option<Duration>,
    is_no_room: bool,
}

impl Error {
    /// What can be done about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// When the edge wants to be asked again, if it has said so.
    pub fn after(&self) -> Option<Duration> {
        self.after
    }

    /// Is it a disk of this machine that is full?
    pub fn is_no_room(&self) -> bool {
        self.is_no_room
    }

    /// An error, for tests and for those who hand one on.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), after: None, is_no_room: false }
    }

    /// The same in the words of whoever knows more of it.
    #[must_use]
    pub fn told(self, what: String) -> Self {
        Self { what, ..self }
    }

    pub(crate) fn away(what: impl Into<String>) -> Self {
        Self::new(Class::Away, what)
    }

    pub(crate) fn local(what: impl Into<String>) -> Self {
        Self::new(Class::Local, what)
    }

    /// A file is not what it was when it was looked at.
    pub fn changed(path: &Path) -> Self {
        Self::new(Class::Changed, format!("{} changed while it was read", path.display()))
    }

    /// Of a file of this machine; for whoever opens files by itself.
    pub fn io(doing: &str, path: &Path, error: io::Error) -> Self {
        Self::cannot(format_args!("cannot {doing} {}", path.display()), &error)
    }

    /// What this machine could not do, and why.
    pub(crate) fn cannot(what: impl Display, error: &io::Error) -> Self {
        Self { is_no_room: files::is_no_room(error), ..Self::local(format!("{what}: {error}")) }
    }

    /// There is no room on a disk of this machine.
    pub(crate) fn no_room(what: String) -> Self {
        Self { is_no_room: true, ..Self::local(what) }
    }

    pub(crate) fn wanting(mut self, after: Option<Duration>) -> Self {
        self.after = after;
        self
    }

    /// What was asked of a thread that is no more.
    pub(crate) fn of_thread() -> Self {
        Self::local("a thread that reads or writes files has ended too early")
    }
}

/// The same for what ends as an error of reading or writing.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = if error.is_no_room { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Self::new(kind, error)
    }
}
