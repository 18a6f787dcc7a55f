//! A pack that is written file by file, as its files are found.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};

use protocol::WorkPath;
use tar::{Builder, EntryType, Header};

use crate::error::{Class, Error};

/// So many files are in one pack at the most: whoever unpacks it has their names in memory.
pub const PACK_MEMBERS_MAX: usize = 100_000;

/// How much is written at once.
const BUFFER: usize = 1 << 20;

/// A pack that is being written. The same files in the same order make the same pack: it has no times and no owners.
pub struct Packer {
    archive: Builder<Written>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// What was written.
struct Written {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Written {
    /// As if nothing had been written after the first `bytes`.
    fn back_to(&mut self, bytes: u64) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().set_len(bytes)?;
        self.file.seek(SeekFrom::Start(bytes))?;
        self.bytes = bytes;
        Ok(())
    }
}

/// Counts what was read of a file.
struct Counted<R> {
    content: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Packer {
    /// A pack in a file that is empty.
    pub fn new(file: File) -> Self {
        Self { archive: Builder::new(Written { file: BufWriter::with_capacity(BUFFER, file), bytes: 0 }) }
    }

    /// Adds a file of this length. One that is shorter or longer by now is [`Class::Changed`], and not in the pack.
    pub fn add(&mut self, path: &WorkPath, size: u64, runs: bool, content: &mut impl Read) -> Result<(), Error> {
        let before = self.bytes();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(if runs { 0o700 } else { 0o600 });
        header.set_mtime(0);
        let mut counted = Counted { content: content.by_ref().take(size), bytes: 0 };
        let added = self.archive.append_data(&mut header, path.as_str(), &mut counted);
        let failed = |error: io::Error| Error::cannot(format_args!("`{path}` cannot be packed"), &error);
        let is_whole = added.and_then(|()| Ok(counted.bytes == size && content.read(&mut [0])? == 0));
        match is_whole {
            Ok(true) => Ok(()),
            other => {
                self.archive.get_mut().back_to(before).map_err(failed)?;
                other.map_err(failed)?;
                Err(Error::new(Class::Changed, format!("`{path}` changed while it was packed")))
            }
        }
    }

    /// How long it is so far.
    pub fn bytes(&mut self) -> u64 {
        self.archive.get_mut().bytes
    }

    /// Ends the pack. It is not synced.
    pub fn finish(self) -> Result<(), Error> {
        let ended = self.archive.into_inner().and_then(|mut written| written.flush());
        ended.map_err(|error| Error::cannot("a pack cannot be written", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn members(archive: &[u8]) -> Vec<(String, u32, String)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mode = entry.header().mode().unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (path, mode, content)
        });
        entries.collect()
    }

    #[test]
    fn a_file_that_changes_is_not_in_the_pack_and_spoils_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pack");
        let long = vec!["deep"; 40].join("/");
        let pack = || {
            fs::write(&path, "").unwrap();
            let mut packer = Packer::new(File::options().write(true).open(&path).unwrap());
            let mut add = |path: &str, size: u64, content: &str| {
                let mut content = content.as_bytes();
                packer.add(&path.parse().unwrap(), size, path == "run", &mut content).map_err(|error| error.class())
            };
            assert_eq!(add("a", 3, "one"), Ok(()));
            assert_eq!(add("shorter", 4, "one"), Err(Class::Changed));
            assert_eq!(add(&long, 2, "one"), Err(Class::Changed), "it is longer");
            assert_eq!(add(&long, 3, "two"), Ok(()));
            assert_eq!(add("run", 0, ""), Ok(()));
            let bytes = packer.bytes();
            packer.finish().unwrap();
            let packed = fs::read(&path).unwrap();
            assert!(packed.len() as u64 > bytes);
            packed
        };
        let packed = pack();
        let expected = [("a", 0o600, "one"), (long.as_str(), 0o600, "two"), ("run", 0o700, "")];
        let expected = expected.map(|(path, mode, content)| (path.to_owned(), mode, content.to_owned()));
        assert_eq!(members(&packed), expected);
        assert_eq!(pack(), packed, "the same files make the same pack");
    }
}
