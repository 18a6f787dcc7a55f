//! Contents on their way from the store.

use std::path::Path;

use protocol::Content;

use crate::error::Error;
use crate::{Listener, Store};

/// What became of a file that was to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is there now.
    New,
    /// It was there already, with this content.
    Already,
}

impl Store {
    /// Has a content in a partial file, and goes on with what is in it. When it returns, the file is whole, verified and
    /// synced, and still has its name. One program at a time can do so with one file; another one hears
    /// [`crate::Class::Away`].
    pub async fn get(&self, _content: &Content, _partial: &Path, _listener: &Listener) -> Result<(), Error> {
        Err(Error::away("not yet"))
    }

    /// Has a content as this file: whole or not at all, and never over a file that is another. What was begun is in a
    /// hidden file beside it, and is gone on with.
    pub async fn get_file(&self, _content: &Content, _path: &Path, _listener: &Listener) -> Result<Kept, Error> {
        Err(Error::away("not yet"))
    }
}
