//! Packs: many small files as one content, which is an archive (tar).
//!
//! Invariant: the same files make the same bytes, so a pack that was sent is not sent again.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use protocol::WorkPath;
use tar::{EntryType, Header};

use crate::error::Error;
use crate::local::Stamp;

/// So many files are in one pack at the most: who unpacks it has their names in memory.
pub const PACK_MEMBERS_MAX: usize = 100_000;

/// As much is written at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// A file that goes into a pack, open.
#[derive(Debug)]
pub struct Member {
    /// Where it is to be, below the job's directory.
    pub path: WorkPath,
    /// What is in it.
    pub file: File,
}

/// Writes a pack of these files, in this order, into a new file; each is opened when it is its turn. It has no times and
/// no owners, and of the modes only whether a file is a program. It blocks.
pub fn pack(members: impl IntoIterator<Item = Result<Member, Error>>, archive: &Path) -> Result<(), Error> {
    let writing = |error: io::Error| match files::is_no_room(&error) {
        true => Error::local(format!("there is no room for a pack: {}: {error}", archive.display())),
        false => Error::io("write", archive, error),
    };
    let file = files::create_new(archive).map_err(writing)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(WRITE_BYTES, file));
    for member in members {
        let Member { path, file } = member?;
        let reading = |error| Error::io("read", Path::new(path.as_str()), error);
        let stamp = Stamp::of(&file).map_err(reading)?;
        let is_program = file.metadata().map_err(reading)?.permissions().mode() & 0o100 != 0;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(stamp.size);
        header.set_mode(if is_program { 0o755 } else { 0o644 });
        header.set_mtime(0);
        let mut whole = Whole { inner: (&file).take(stamp.size), trouble: None };
        let appended = tar.append_data(&mut header, path.as_str(), &mut whole);
        let (left, trouble) = (whole.inner.limit(), whole.trouble);
        if let Some(error) = trouble {
            return Err(reading(error));
        }
        appended.map_err(writing)?;
        if left > 0 || Stamp::of(&file).map_err(reading)? != stamp {
            return Err(Error::changed(Path::new(path.as_str())));
        }
    }
    let mut file = tar.into_inner().map_err(writing)?;
    file.flush().map_err(writing)
}

/// Tells what cannot be read from what cannot be written.
struct Whole<R> {
    inner: R,
    trouble: Option<io::Error>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let told = io::Error::from(error.kind());
            self.trouble = Some(error);
            told
        })
    }
}
