//! Packs: many small files as one content.

use std::path::{Path, PathBuf};

use protocol::WorkPath;

use crate::error::Error;

/// A file that goes into a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is to be, below the job's directory.
    pub path: WorkPath,
    /// Where it is.
    pub from: PathBuf,
}

/// Writes a pack of these files, in this order, into a new file. The same files make the same pack: it has no times and
/// no owners. It blocks.
pub fn pack(_members: &[Member], archive: &Path) -> Result<(), Error> {
    Err(Error::io("write", archive, "not yet"))
}
