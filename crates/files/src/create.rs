//! Files that are whole as soon as they have their names, and never take the place of another.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::write::{Durability, create_new, hidden, name_first, name_of};

/// How many names are tried for a file that is being written. Each that is taken was left by a process that died.
const TRIES: u32 = 1_000;

/// Makes files that are whole as soon as they have their names, and never over an earlier one. Any number of processes
/// and machines may do so with the same names.
#[derive(Debug)]
pub struct Creator {
    /// Where files are that are being written, on the same file system.
    aside: PathBuf,
    /// Its file system cannot make a file first and name it later.
    named_only: AtomicBool,
}

impl Creator {
    /// Files are written in the directory `aside` if they need a name before their own: a hidden one with the ending
    /// `new`. Where the file system can do without, nothing is there to be left behind.
    pub fn new(aside: PathBuf) -> Self {
        Self { aside, named_only: AtomicBool::new(!cfg!(target_os = "linux")) }
    }

    /// Makes a file; `false` if something has the name already.
    pub fn create(&self, path: &Path, content: &[u8], durability: Durability) -> io::Result<bool> {
        let unnamed = match self.named_only.load(Ordering::Relaxed) {
            true => None,
            false => self.link_unnamed(path, content, durability)?,
        };
        let made = match unnamed {
            Some(made) => made,
            None => self.link_named(path, content, durability)?,
        };
        if made {
            durability.after_naming(path)?;
        }
        Ok(made)
    }

    fn link_named(&self, path: &Path, content: &[u8], durability: Durability) -> io::Result<bool> {
        let (aside, mut file) = self.make_aside(path)?;
        let written = file.write_all(content).and_then(|()| durability.before_naming(&file));
        let Err(error) = written.and_then(|()| name_first(&aside, path)) else { return Ok(true) };
        // The first error is the one to tell.
        let _ = fs::remove_file(&aside);
        if error.kind() == io::ErrorKind::AlreadyExists { Ok(false) } else { Err(error) }
    }

    fn make_aside(&self, path: &Path) -> io::Result<(PathBuf, File)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = name_of(path)?;
        let mut taken = None;
        for _ in 0..TRIES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let ours = format!(".{}-{number}.new", std::process::id());
            let aside = self.aside.join(hidden(&[name.as_ref(), ours.as_ref()]));
            match create_new(&aside) {
                // Another machine has a process of this number, or had.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                made => return made.map(|file| (aside, file)),
            }
        }
        Err(taken.expect("each try ends with a file or with this error"))
    }

    #[cfg(not(target_os = "linux"))]
    fn link_unnamed(&self, _: &Path, _: &[u8], _: Durability) -> io::Result<Option<bool>> {
        Ok(None)
    }

    /// `None` where the file system cannot do it.
    #[cfg(target_os = "linux")]
    fn link_unnamed(&self, path: &Path, content: &[u8], durability: Durability) -> io::Result<Option<bool>> {
        use std::os::fd::AsRawFd as _;

        use rustix::fs::{AtFlags, CWD, Mode, OFlags};

        let mode = Mode::from_raw_mode(crate::FILE_MODE);
        let mut file = match rustix::fs::open(&self.aside, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
            Ok(file) => File::from(file),
            Err(error) => return self.without_unnamed(error),
        };
        file.write_all(content)?;
        durability.before_naming(&file)?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, source.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(Some(true)),
            Err(rustix::io::Errno::EXIST) => Ok(Some(false)),
            Err(error) => self.without_unnamed(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn without_unnamed(&self, error: rustix::io::Errno) -> io::Result<Option<bool>> {
        use rustix::io::Errno;

        match error {
            Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::PERM | Errno::XDEV => {
                self.named_only.store(true, Ordering::Relaxed);
                Ok(None)
            }
            // The directory may be away for a moment only, or `/proc` is not there.
            Errno::NOENT => Ok(None),
            error => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::FILE_MODE;

    /// One for each way.
    fn creators(directory: &Path) -> [Creator; 2] {
        let named_only = Creator { named_only: AtomicBool::new(true), ..Creator::new(directory.to_owned()) };
        [Creator::new(directory.to_owned()), named_only]
    }

    #[test]
    fn the_first_stands_whatever_the_file_system_can_do() {
        for way in 0..2 {
            let temp = tempfile::tempdir().unwrap();
            let creator = &creators(temp.path())[way];
            let path = temp.path().join("file");
            assert!(creator.create(&path, b"first", Durability::Named).unwrap());
            assert!(!creator.create(&path, b"second", Durability::Content).unwrap());
            let dangling = temp.path().join("link");
            symlink(temp.path().join("nowhere"), &dangling).unwrap();
            assert!(!creator.create(&dangling, b"third", Durability::Cached).unwrap(), "no link is followed");
            assert_eq!(fs::read(&path).unwrap(), b"first");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, FILE_MODE);
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2, "nothing else stays");
            assert!(creator.create(&temp.path().join("none/file"), b"", Durability::Cached).is_err());
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn of_many_at_once_one_is_the_first_and_each_sees_it_whole() {
        let content = vec![b'x'; 100_000];
        for way in 0..2 {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("file");
            let creator = &creators(temp.path())[way];
            let made = std::thread::scope(|scope| {
                let create = || {
                    let made = creator.create(&path, &content, Durability::Cached).unwrap();
                    assert_eq!(fs::read(&path).unwrap().len(), content.len());
                    usize::from(made)
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
            });
            assert_eq!(made, 1);
        }
    }
}
