//! Removing a tree that a stranger's program made: as deep as it likes, locked, or changed at the same time.
//!
//! It is walked with one directory open, not by recursion and not by paths: depth costs neither stack nor descriptors,
//! and no path is too long. On the way back `..` is opened, and believed only if it is the directory that we came from.
//!
//! Guarded: no link is followed, no other file system is entered (somebody may have mounted one), and it ends.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::write::DIR_MODE;

/// After so many entries that cannot be removed it is not tried with the others.
const STUCK_MAX: usize = 1_000;

/// How many of them a sentence names.
const NAMED_MAX: usize = 3;

/// Of a longer way down only so many names are kept at its beginning, and as many at its end.
const ENDS_KEPT: usize = 8;

/// How often a directory is read that never becomes empty: somebody fills it as fast.
const PASSES_MAX: u32 = 10;

/// What of a tree is still there, and why.
#[derive(Debug, thiserror::Error)]
pub enum Remains {
    /// These cannot be removed, and hence not the directories that they are in. All else is gone, unless there are very
    /// many of them.
    #[error("{}", named(.0))]
    Stuck(Vec<Stuck>),
    /// There is so much of it that the time was over.
    #[error("it could not be removed within {} s, so large is it; the rest of it stays", .0.as_secs())]
    TooLarge(Duration),
    /// It was moved away meanwhile.
    #[error("it changes while it is removed; the rest of it stays")]
    Changing,
    /// Where it is cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An entry that cannot be removed.
#[derive(Debug)]
pub struct Stuck {
    /// Where it is, from the name of the tree on; `…` stands for the middle of a long way.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

fn named(stuck: &[Stuck]) -> String {
    let shown: Vec<String> = stuck.iter().take(NAMED_MAX).map(Stuck::to_string).collect();
    let more = match stuck.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("it cannot be removed whole: {}{more}", shown.join("; "))
}

impl From<Remains> for io::Error {
    fn from(remains: Remains) -> Self {
        match remains {
            Remains::Io(error) => error,
            Remains::Stuck(ref stuck) => {
                let kind = stuck.first().map_or(io::ErrorKind::Other, |first| first.error.kind());
                Self::new(kind, remains)
            }
            other => Self::other(other),
        }
    }
}

/// A directory on the way down.
struct Level {
    name: OsString,
    device: u64,
    inode: u64,
    /// What stays in it.
    stuck: HashSet<OsString>,
    passes: u32,
}

struct Walk {
    /// From the top of the tree to the directory that is open.
    levels: Vec<Level>,
    stuck: Vec<Stuck>,
    device: u64,
    within: Duration,
    deadline: Instant,
}

enum Found {
    /// A directory with something in it.
    Directory(OsString),
    /// Nothing more that could be removed.
    End,
}

/// Removes the directory `name` in `parent` with all that is in it.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, within: Duration) -> Result<(), Remains> {
    let device = File::from(parent.try_clone_to_owned()?).metadata()?.dev();
    let deadline = Instant::now() + within;
    let mut walk = Walk { levels: Vec::new(), stuck: Vec::new(), device, within, deadline };
    if let Some(top) = walk.enter(parent, name) {
        walk.empty(top, parent)?;
    }
    if walk.stuck.is_empty() { Ok(()) } else { Err(Remains::Stuck(walk.stuck)) }
}

/// Opens a directory on this device, and gives us these rights to it if it is ours.
pub(crate) fn open_dir(at: BorrowedFd<'_>, name: &OsStr, device: u64, needed: u32) -> io::Result<File> {
    let opened = match rustix::fs::openat(at, name, flags(), Mode::empty()) {
        Err(Errno::ACCESS) => {
            unlock(at, name, device)?;
            rustix::fs::openat(at, name, flags(), Mode::empty())?
        }
        opened => opened?,
    };
    let opened = File::from(opened);
    let metadata = opened.metadata()?;
    check_device(&metadata, device)?;
    if metadata.mode() & needed != needed {
        // What fails here fails again, and is told, when its entries are dealt with.
        let _ = opened.set_permissions(Permissions::from_mode(DIR_MODE));
    }
    Ok(opened)
}

/// Gives us the right to read a directory of ours.
fn unlock(at: BorrowedFd<'_>, name: &OsStr, device: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;

        // A mode can only be changed of what is known not to be a link.
        let found = File::from(rustix::fs::openat(at, name, flags() | OFlags::PATH, Mode::empty())?);
        check_device(&found.metadata()?, device)?;
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        std::fs::set_permissions(path, Permissions::from_mode(DIR_MODE))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = device;
        Ok(rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn check_device(found: &std::fs::Metadata, device: u64) -> io::Result<()> {
    if found.dev() == device {
        return Ok(());
    }
    Err(io::Error::other("another file system is mounted there; unmount it first"))
}

impl Walk {
    fn empty(&mut self, mut directory: Dir, parent: BorrowedFd<'_>) -> Result<(), Remains> {
        loop {
            if let Found::Directory(name) = self.remove_entries(&mut directory)? {
                if let Some(below) = self.enter(directory.fd().map_err(io::Error::from)?, &name) {
                    directory = below;
                }
                continue;
            }
            let left = self.levels.pop().expect("a directory is open, so it has a level");
            let Some(above) = self.levels.last() else {
                drop(directory);
                let Some(again) = self.remove_directory(parent, left) else { return Ok(()) };
                directory = again;
                continue;
            };
            let up = rustix::fs::openat(directory.fd().map_err(io::Error::from)?, "..", flags(), Mode::empty());
            let up = File::from(up.map_err(io::Error::from)?);
            let metadata = up.metadata()?;
            if (metadata.dev(), metadata.ino()) != (above.device, above.inode) {
                return Err(Remains::Changing);
            }
            drop(directory);
            directory = Dir::new(OwnedFd::from(up)).map_err(io::Error::from)?;
            if let Some(again) = self.remove_directory(directory.fd().map_err(io::Error::from)?, left) {
                directory = again;
            }
        }
    }

    /// Removes what is in a directory, until it meets a directory that is not empty.
    fn remove_entries(&mut self, directory: &mut Dir) -> Result<Found, Remains> {
        while let Some(entry) = directory.read() {
            if Instant::now() >= self.deadline {
                return Err(Remains::TooLarge(self.within));
            }
            if self.stuck.len() >= STUCK_MAX {
                return Ok(Found::End);
            }
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let level = self.levels.last().expect("a directory is open, so it has a level");
            if name == "." || name == ".." || level.stuck.contains(name) {
                continue;
            }
            let at = directory.fd().map_err(io::Error::from)?;
            let is_directory = entry.file_type() == FileType::Directory;
            let how = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match rustix::fs::unlinkat(at, name, how) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error @ Errno::BUSY) => self.keep(name, error.into()),
                Err(_) if is_directory => return Ok(Found::Directory(name.to_owned())),
                // Not every file system tells the types of its entries.
                Err(error) => match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                        return Ok(Found::Directory(name.to_owned()));
                    }
                    _ => self.keep(name, error.into()),
                },
            }
        }
        Ok(Found::End)
    }

    /// Opens a directory, and gives us the right to empty it; `None` if it cannot be done, which is noted.
    fn enter(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Option<Dir> {
        match self.try_enter(at, name) {
            Ok((directory, level)) => {
                self.levels.push(level);
                Some(directory)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.keep(name, error);
                None
            }
        }
    }

    fn try_enter(&self, at: BorrowedFd<'_>, name: &OsStr) -> io::Result<(Dir, Level)> {
        let opened = open_dir(at, name, self.device, DIR_MODE)?;
        let metadata = opened.metadata()?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let level = Level { name: name.to_owned(), device, inode, stuck: HashSet::new(), passes: 1 };
        Ok((Dir::new(OwnedFd::from(opened))?, level))
    }

    /// Removes a directory that was emptied. If something has come into it meanwhile, it is opened again.
    fn remove_directory(&mut self, at: BorrowedFd<'_>, left: Level) -> Option<Dir> {
        match rustix::fs::unlinkat(at, &left.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => None,
            // Why is noted already.
            Err(_) if !left.stuck.is_empty() || self.stuck.len() >= STUCK_MAX => {
                self.pass_over(&left.name);
                None
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) if left.passes < PASSES_MAX => {
                let again = self.enter(at, &left.name)?;
                self.levels.last_mut().expect("it was just entered").passes = left.passes + 1;
                Some(again)
            }
            Err(error) => {
                self.keep(&left.name, error.into());
                None
            }
        }
    }

    /// Notes that an entry of the directory that is open stays.
    fn keep(&mut self, name: &OsStr, error: io::Error) {
        let mut way: Vec<&OsStr> = self.levels.iter().map(|level| level.name.as_os_str()).chain([name]).collect();
        if way.len() > 2 * ENDS_KEPT {
            way.splice(ENDS_KEPT..way.len() - ENDS_KEPT, [OsStr::new("…")]);
        }
        self.stuck.push(Stuck { path: way.into_iter().collect(), error });
        self.pass_over(name);
    }

    fn pass_over(&mut self, name: &OsStr) {
        if let Some(level) = self.levels.last_mut() {
            level.stuck.insert(name.to_owned());
        }
    }
}

pub(crate) fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn remove_in(parent: &Path, name: &str, within: Duration) -> Result<(), Remains> {
        remove_tree(File::open(parent).unwrap().as_fd(), name.as_ref(), within)
    }

    #[test]
    fn what_is_locked_goes_too() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        for name in ["a/b/c", "d/e"] {
            fs::create_dir_all(top.join(name)).unwrap();
            fs::write(top.join(name).join("file"), "").unwrap();
        }
        symlink("/", top.join("a/b/link")).unwrap();
        for (name, mode) in [("a/b/c", 0o000), ("a/b", 0o500), ("d", 0o300), ("", 0o500)] {
            fs::set_permissions(top.join(name), Permissions::from_mode(mode)).unwrap();
        }
        remove_in(temp.path(), "top", LONG).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_stays_is_told_and_all_else_goes() {
        // Nobody can remove these, whatever his rights.
        let remains = remove_in(Path::new("/proc/self"), "ns", LONG).unwrap_err();
        let Remains::Stuck(stuck) = &remains else { panic!("{remains}") };
        assert!(stuck.len() >= 4 && stuck.iter().any(|stuck| stuck.path == Path::new("ns/mnt")), "{stuck:?}");
        let text = remains.to_string();
        assert!(text.contains("ns/") && text.contains("; and ") && text.contains("not permitted"), "{text}");
        let error = io::Error::from(remains);
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::PermissionDenied, text));
    }

    #[test]
    fn another_file_system_is_not_entered() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("mounted/deep")).unwrap();
        let deadline = Instant::now() + LONG;
        let mut walk = Walk { levels: Vec::new(), stuck: Vec::new(), device: 0, within: LONG, deadline };
        assert!(walk.enter(File::open(temp.path()).unwrap().as_fd(), "mounted".as_ref()).is_none());
        assert!(walk.stuck[0].to_string().contains("another file system"), "{:?}", walk.stuck);
    }

    #[test]
    fn it_ends_when_the_time_is_over() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("top/deep")).unwrap();
        let remains = remove_in(temp.path(), "top", Duration::ZERO).unwrap_err();
        assert!(matches!(remains, Remains::TooLarge(_)) && temp.path().join("top/deep").exists());
        assert!(remove_in(temp.path(), "none", LONG).is_ok());
    }

    #[test]
    fn a_long_way_down_is_told_in_short() {
        let mut walk =
            Walk { levels: Vec::new(), stuck: Vec::new(), device: 0, within: LONG, deadline: Instant::now() };
        for number in 0..1_000 {
            let name = number.to_string().into();
            walk.levels.push(Level { name, device: 0, inode: 0, stuck: HashSet::new(), passes: 1 });
        }
        walk.keep("end".as_ref(), io::Error::other("it is held"));
        assert_eq!(walk.stuck[0].to_string(), "0/1/2/3/4/5/6/7/…/993/994/995/996/997/998/999/end: it is held");
    }
}
