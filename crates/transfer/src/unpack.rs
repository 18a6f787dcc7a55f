//! What comes out of a pack, and where it goes.

use std::path::{Path, PathBuf};

use protocol::WorkPath;

use crate::error::Error;

/// How much may come out of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many files and directories,
    pub count: usize,
    /// so many bytes in all of them.
    pub bytes: u64,
}

/// Puts the members of a pack into a directory, those that `wanted` says: each whole or not at all, never over a file
/// that is another, and nothing outside of the directory. Nothing is written of a pack in which anything is not right.
/// Returns which files were in it. It blocks.
pub fn unpack(
    archive: &Path,
    _into: &Path,
    _bounds: &Bounds,
    _wanted: &dyn Fn(&WorkPath) -> bool,
) -> Result<Vec<WorkPath>, Error> {
    Err(Error::io("read", archive, "not yet"))
}

/// The place of a path below a directory; the directories between are made. A link among them is refused. It blocks.
pub fn place(directory: &Path, _path: &WorkPath) -> Result<PathBuf, Error> {
    Err(Error::io("make", directory, "not yet"))
}
