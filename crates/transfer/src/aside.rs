//! Members of a pack on the way to their names: compared with what is there, or written aside.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use files::Durability;

use crate::error::Error;
use crate::get::open_of_length;
use crate::unpack::{Inside, make_dir};

/// Where files are that have no names yet, in the directory into which a pack goes. One program at a time has it.
pub(crate) const ASIDE: &str = ".hpc-queue-unpacking";

/// How long it may take to remove what is there of them.
const REMOVED_WITHIN: Duration = Duration::from_secs(600);

/// How much is compared, and copied, at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// A pack that is open.
pub(crate) struct Pack<'a> {
    pub(crate) file: File,
    pub(crate) path: &'a Path,
}

impl Pack<'_> {
    fn reading(&self, error: io::Error) -> Error {
        Error::io("read", self.path, error)
    }

    /// Is a member there already (`true`), or something else in its place?
    pub(crate) fn has_as(&self, member: &Inside, path: &Path) -> Result<Option<bool>, Error> {
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at", path, error)),
        }
        let Some(there) = open_of_length(path, member.size)? else { return Ok(Some(false)) };
        (&self.file).seek(SeekFrom::Start(member.offset)).map_err(|error| self.reading(error))?;
        let same = is_same(there, (&self.file).take(member.size));
        same.map(Some).map_err(|error| Error::io("read", path, error))
    }

    /// Writes a member aside, which is to be at this path.
    pub(crate) fn write(&self, member: &Inside, aside: &Path, path: &Path) -> Result<(), Error> {
        let writing = |error: io::Error| match files::is_no_room(&error) {
            true => Error::no_room(format!("there is no room for {}, of {} bytes", path.display(), member.size)),
            false => Error::io("write", path, error),
        };
        let to = files::create_new(aside).map_err(writing)?;
        let mut block = vec![0; usize::try_from(member.size).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES)];
        let mut done = 0;
        while done < member.size {
            let rest = usize::try_from(member.size - done).unwrap_or(BLOCK_BYTES);
            let here = &mut block[..rest.min(BLOCK_BYTES)];
            self.file.read_exact_at(here, member.offset + done).map_err(|error| self.reading(error))?;
            (&to).write_all(here).map_err(writing)?;
            done += here.len() as u64;
        }
        if member.is_program {
            to.set_permissions(Permissions::from_mode(files::DIR_MODE)).map_err(writing)?;
        }
        Ok(())
    }
}

/// The directory of files that have no names yet; what is in it goes with this value.
pub(crate) struct Aside {
    path: PathBuf,
    /// Open, and locked.
    directory: File,
}

impl Aside {
    pub(crate) fn begin(into: &Path) -> Result<Self, Error> {
        let path = into.join(ASIDE);
        let making = |error| Error::io("make", &path, error);
        // A link, and the file that earlier versions have there.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&path).map_err(making)?;
        }
        make_dir(&path)?;
        let directory = File::open(&path).map_err(making)?;
        match directory.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::away(format!("another program is just unpacking into {}", into.display())));
            }
            // A file system may have no locks.
            Ok(()) | Err(fs::TryLockError::Error(_)) => {}
        }
        // What died has left some.
        for entry in fs::read_dir(&path).map_err(making)? {
            let entry = entry.map_err(making)?;
            files::remove(&entry.path(), REMOVED_WITHIN).map_err(making)?;
        }
        Ok(Self { path, directory })
    }

    /// Where one of them is.
    pub(crate) fn file(&self, number: usize) -> PathBuf {
        self.path.join(number.to_string())
    }

    /// Has all that is written here last, or that has its name already.
    pub(crate) fn sync(&self, durability: Durability) -> Result<(), Error> {
        match durability {
            Durability::Cached => Ok(()),
            Durability::Content | Durability::Named | Durability::NameOfSynced => {
                files::sync_all_around(&self.directory).map_err(|error| Error::io("write", &self.path, error))
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What cannot be removed is found by the next one.
        let _ = files::remove(&self.path, REMOVED_WITHIN);
    }
}

fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut here, mut there) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    loop {
        let read = one.read(&mut here)?;
        if read == 0 {
            return Ok(other.read(&mut there[..1])? == 0);
        }
        match other.read_exact(&mut there[..read]) {
            Ok(()) if here[..read] == there[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
