//! Contents on this machine: files that were read and hashed, and bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use protocol::Content;

use crate::Listener;
use crate::error::Error;

/// A content on this machine, with its name. A file is not kept open: when it is read again, it is looked at whether it
/// is still the same file, unchanged.
#[derive(Debug, Clone)]
pub struct Local {
    pub(crate) content: Content,
    pub(crate) path: Option<PathBuf>,
}

impl Local {
    /// Reads and hashes a file that somebody has named; a link is followed. It is read by a thread of its own.
    pub async fn file(path: &Path, _listener: &Listener) -> Result<Self, Error> {
        Err(Error::io("read", path, "not yet"))
    }

    /// The same of a file that is open already, as whoever does not trust its path has opened it. When it is read again
    /// it is opened by this path, and must be the same file.
    pub async fn opened(_file: File, path: &Path, _listener: &Listener) -> Result<Self, Error> {
        Err(Error::io("read", path, "not yet"))
    }

    /// Bytes in memory.
    pub fn bytes(_bytes: Vec<u8>) -> Self {
        Self { content: Content { sha256: protocol::Digest::new([0; 32]), size: 0 }, path: None }
    }

    /// Its name and length.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Where it is, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}
