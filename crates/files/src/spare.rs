//! Room that is kept on a disk for small files, for the time when the disk is full.
//!
//! A spare is a file that is there already, with all its blocks. When a write finds no room, the file that it was to
//! make is written over a spare, which then gets the name: that takes nothing from the disk.
//!
//! Guarded: a file that is made of a spare is whole when it has its name, never takes the place of another, and is on
//! the disk. What is left of a spare that was half used, or half made, is made anew. Room for others goes first: spares
//! are made only while at least as much stays free.
//!
//! Where a file system writes nothing in place, a spare cannot be written over on a full disk. It is removed then, and
//! leaves its room to whoever tries next.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

use crate::private::own_dir;
use crate::remove::{REMAINS_WITHIN, remove};
use crate::write::{directory_of, write_new};

/// Is this what a full disk says, or a quota that is used up?
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Spares in a directory of their own, of which nobody else knows.
#[derive(Debug)]
pub struct Spares {
    directory: PathBuf,
    count: u32,
    bytes: usize,
    /// Are some missing, as far as is known?
    short: AtomicBool,
    /// One at a time takes spares or makes them.
    turn: Mutex<()>,
}

impl Spares {
    /// So many spares of so many bytes each, in this directory; [`Self::refill`] makes them.
    pub fn new(directory: PathBuf, count: u32, bytes: usize) -> Self {
        Self { directory, count, bytes, short: AtomicBool::new(true), turn: Mutex::new(()) }
    }

    /// Are some missing, as far as is known?
    pub fn are_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Makes those that are missing, if there is room enough. The directory that the one above is in must be there.
    /// Nothing is synced: what is written has its room soon enough, and [`Self::create`] sees one that has not.
    pub fn refill(&self) -> io::Result<()> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            // Somebody does it just now, or takes one.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let above = directory_of(&self.directory);
        let space = rustix::fs::statvfs(directory_of(above))?;
        let wanted = u64::from(self.count) * self.bytes as u64;
        if space.f_bavail.saturating_mul(space.f_frsize) < 2 * wanted {
            return Ok(());
        }
        // Not those above: their file system may be away.
        for directory in [above, &self.directory] {
            own_dir(directory)?;
        }
        for number in 0..self.count {
            let path = self.path(number);
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == self.bytes as u64) {
                continue;
            }
            remove(&path, REMAINS_WITHIN)?;
            if let Err(error) = write_new(&path, &incompressible(number, self.bytes)) {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        }
        self.short.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a file out of a spare; `Some(false)` if something has the name already, `None` if there is no spare that
    /// is large enough.
    pub fn create(&self, path: &Path, content: &[u8]) -> io::Result<Option<bool>> {
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if content.len() > self.bytes {
            return Ok(None);
        }
        for number in 0..self.count {
            let spare = self.path(number);
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let file = match File::options().write(true).custom_flags(flags).open(&spare) {
                Ok(file) if file.metadata()?.len() >= content.len() as u64 => file,
                // Cut off while it was made.
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            self.short.store(true, Ordering::Relaxed);
            let named = write_over(file, content).and_then(|()| name(&spare, path));
            if !matches!(named, Ok(true)) {
                // The room that it leaves is for the next try.
                let _ = fs::remove_file(&spare);
            }
            return named.map(Some);
        }
        Ok(None)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("spare-{number}"))
    }
}

fn write_over(mut file: File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Gives a file its name, unless something has that already: then it is left where it is, and `false` returned.
fn name(aside: &Path, path: &Path) -> io::Result<bool> {
    // A link may need room of its own, a move does not.
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags};
        use rustix::io::Errno;

        match rustix::fs::renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => return Ok(false),
            // Network file systems cannot do it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match fs::hard_link(aside, path) {
        Ok(()) => fs::remove_file(aside).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes that take their room also on a file system that makes things small, or keeps what is equal once.
fn incompressible(number: u32, count: usize) -> Vec<u8> {
    let mut state = u64::from(std::process::id()) << 32 | u64::from(number + 1);
    let mut bytes = Vec::with_capacity(count + size_of::<u64>());
    while bytes.len() < count {
        // A xorshift generator.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_ne_bytes());
    }
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::FILE_MODE;

    const BYTES: usize = 4_096;

    fn spares(temp: &Path) -> Spares {
        Spares::new(temp.join(".reserve/us"), 3, BYTES)
    }

    fn count(temp: &Path) -> usize {
        fs::read_dir(temp.join(".reserve/us")).unwrap().count()
    }

    #[test]
    fn a_file_is_made_of_a_spare_whole_and_never_over_another() {
        let temp = tempfile::tempdir().unwrap();
        let (spares, path) = (spares(temp.path()), temp.path().join("file"));
        assert_eq!(spares.create(&path, b"none").unwrap(), None, "there is none yet");
        spares.refill().unwrap();
        assert_eq!((count(temp.path()), spares.are_short()), (3, false));
        let inodes: Vec<u64> = (0..3).map(|number| fs::metadata(spares.path(number)).unwrap().ino()).collect();
        assert_eq!(spares.create(&path, &[b'x'; BYTES + 1]).unwrap(), None, "it is too large");
        assert_eq!(spares.create(&path, b"first").unwrap(), Some(true));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.permissions().mode() & 0o7777, made.nlink()), (FILE_MODE, 1));
        assert!(inodes.contains(&made.ino()), "it takes the room that was kept");
        assert_eq!(spares.create(&path, b"second").unwrap(), Some(false));
        let dangling = temp.path().join("link");
        symlink(temp.path().join("nowhere"), &dangling).unwrap();
        assert_eq!(spares.create(&dangling, b"third").unwrap(), Some(false), "no link is followed");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!((count(temp.path()), spares.are_short()), (0, true));
        assert_eq!(spares.create(&temp.path().join("other"), b"").unwrap(), None, "all are used");
        spares.refill().unwrap();
        assert_eq!((count(temp.path()), spares.are_short()), (3, false));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn what_is_left_of_a_spare_is_made_anew_and_no_directory_above() {
        let temp = tempfile::tempdir().unwrap();
        let spares = spares(temp.path());
        spares.refill().unwrap();
        fs::write(spares.path(0), "half").unwrap();
        fs::remove_file(spares.path(1)).unwrap();
        fs::create_dir(spares.path(1)).unwrap();
        spares.refill().unwrap();
        let whole = |number| fs::metadata(spares.path(number)).unwrap().len() == BYTES as u64;
        assert!((0..3).all(whole));
        assert!(fs::metadata(spares.path(0)).unwrap().blocks() * 512 >= BYTES as u64, "it has its blocks");
        let away = Spares::new(temp.path().join("away/.reserve/us"), 3, BYTES);
        assert!(away.refill().is_err() && !temp.path().join("away").exists());
    }

    #[test]
    fn of_many_at_once_one_is_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let (spares, path) = (Spares::new(temp.path().join(".reserve/us"), 8, BYTES), temp.path().join("file"));
        spares.refill().unwrap();
        let made = std::thread::scope(|scope| {
            let create = || usize::from(spares.create(&path, b"whole").unwrap() == Some(true));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((made, fs::read(&path).unwrap().as_slice()), (1, b"whole".as_slice()));
    }
}
