//! Which files a job has left that its user wants: a walk over a directory in which a stranger's program did what it
//! liked.
//!
//! Everything is opened below the directory that is held open, name by name. Only regular files are found; what else
//! has a name that is wanted is told in a sentence, and so is a pattern that found nothing.
//!
//! Guarded: no link is followed, nothing is waited for that is no file (a FIFO), no other file system is entered, and
//! how much is looked at, how deep and for how long has a bound.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use protocol::{Fit, Outputs, Patterns, WorkPath};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::notes::{Left, Notes};
use crate::job::files::{CHILDREN, CONTINUE, INPUT, META};

/// How deep directories are entered; each takes a descriptor.
const DEPTH_MAX: usize = 64;

/// How many names are looked at.
const NAMES_MAX: u64 = 10_000_000;

/// How long it is looked around. Reading and packing what was found does not count.
const WITHIN: Duration = Duration::from_secs(3_600);

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: WorkPath,
    pub(super) size: u64,
    /// How much of it is on the disk.
    pub(super) on_disk: u64,
    /// May its owner run it?
    pub(super) runs: bool,
}

impl Found {
    fn new(path: WorkPath, found: &Stat) -> Self {
        let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
        let runs = Mode::from_raw_mode(found.st_mode).contains(Mode::XUSR);
        Self { path, size: bytes(found.st_size), on_disk: bytes(found.st_blocks).saturating_mul(512), runs }
    }
}

/// Why not all was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// There is more than anybody wants to have; the end of a sentence about the directory.
    #[error("{0}")]
    TooMuch(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Stopped {
    /// Is the disk full?
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::Io(error) if files::is_no_room(error))
    }
}

/// A directory on the way.
struct Level {
    directory: Dir,
    reach: Fit,
    /// How long the path to it is, with the `/` behind it.
    path: usize,
}

/// Finds what is wanted, and hands it over as it is found, with the directory that it is in. What is passed over is
/// noted.
pub(super) fn walk(
    directory: BorrowedFd<'_>,
    outputs: &Outputs,
    notes: &mut Notes,
    mut take: impl FnMut(BorrowedFd<'_>, &OsStr, Found, &mut Notes) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let patterns = Patterns::new(&outputs.patterns);
    let (top, mut deadline) = (enter(directory, ".".as_ref())?, Instant::now() + WITHIN);
    let device = rustix::fs::fstat(&top).map_err(io::Error::from)?.st_dev;
    let mut levels = vec![Level { directory: open(top)?, reach: patterns.start(), path: 0 }];
    let (mut path, mut names) = (Vec::new(), 0_u64);
    loop {
        let depth = levels.len();
        let Some(Level { directory, reach, path: length }) = levels.last_mut() else { return Ok(()) };
        path.truncate(*length);
        let Some(entry) = directory.read() else {
            levels.pop();
            continue;
        };
        let entry = entry.map_err(io::Error::from)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "."
            || name == ".."
            || (*length == 0 && [META, INPUT, CONTINUE, CHILDREN].iter().any(|ours| name == *ours))
        {
            continue;
        }
        names += 1;
        if names > NAMES_MAX || Instant::now() > deadline {
            return Err(Stopped::TooMuch(format!(
                "has more names in it than can be looked at ({names} so far): have the job pack what is wanted into fewer files"
            )));
        }
        let reach = patterns.enter(reach, &name.to_string_lossy());
        if !reach.leads_on() {
            continue;
        }
        path.extend_from_slice(name.as_bytes());
        let at = directory.fd().map_err(io::Error::from)?;
        let found = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // It went away.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => {
                notes.pass_over(Left::Unreadable, &path, Some(error.into()));
                continue;
            }
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile if reach.is_meant() => {
                let Some(path) = std::str::from_utf8(&path).ok().and_then(|path| path.parse::<WorkPath>().ok()) else {
                    notes.pass_over(Left::BadName, &path, None);
                    continue;
                };
                notes.found(reach.meant_by());
                let since = Instant::now();
                take(at, name, Found::new(path, &found), notes)?;
                deadline += since.elapsed();
            }
            FileType::RegularFile => {}
            FileType::Directory if found.st_dev != device => notes.pass_over(Left::Mounted, &path, None),
            FileType::Directory if depth >= DEPTH_MAX => notes.pass_over(Left::TooDeep, &path, None),
            FileType::Directory => match enter(at, name).and_then(open) {
                Ok(directory) => {
                    notes.found(reach.meant_by());
                    path.push(b'/');
                    levels.push(Level { directory, reach, path: path.len() });
                }
                Err(error) => notes.pass_over(Left::Unreadable, &path, Some(error)),
            },
            FileType::Symlink => notes.pass_over(Left::Link, &path, None),
            _ => notes.pass_over(Left::Special, &path, None),
        }
    }
}

/// Opens a file that was found, below the directory that is held open; nothing if there is none of this name any more,
/// or something else.
pub(super) fn open_file(directory: BorrowedFd<'_>, path: &WorkPath) -> io::Result<Option<File>> {
    let mut names = path.as_str().split('/');
    let last = names.next_back().unwrap_or_default();
    let mut at: Option<OwnedFd> = None;
    for name in names {
        match enter(at.as_ref().map_or(directory, |at| at.as_fd()), name.as_ref()) {
            Ok(below) => at = Some(below),
            Err(error) if is_something_else(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    open_entry(at.as_ref().map_or(directory, |at| at.as_fd()), last.as_ref())
}

/// The same of a name in a directory.
pub(super) fn open_entry(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<File>> {
    // Not waiting for the other end of a FIFO, should it be one by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if is_something_else(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Does this say that there is no regular file, or no directory, of the name?
fn is_something_else(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::ISDIR))
}

fn enter(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn open(directory: OwnedFd) -> io::Result<Dir> {
    Ok(Dir::new(directory)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn outputs(patterns: &[&str]) -> Outputs {
        Outputs { patterns: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(), when: None }
    }

    /// The paths that are found, in order, and what is said.
    fn found(directory: &Path, patterns: &[&str]) -> (Vec<String>, String) {
        let outputs = outputs(patterns);
        let (mut notes, mut paths) = (Notes::new(&outputs), Vec::new());
        let opened = File::open(directory).unwrap();
        walk(opened.as_fd(), &outputs, &mut notes, |_, _, found, _| {
            paths.push(found.path.to_string());
            Ok(())
        })
        .unwrap();
        paths.sort();
        (paths, notes.text().unwrap_or_default())
    }

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn what_is_wanted_is_found_and_nothing_of_ours() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["plots/a.png", "plots/deep/b.png", "c.png", "meta.json", "input.json", "sub/meta.json", "x.dat"] {
            write(&temp.path().join(path), "x");
        }
        assert_eq!(found(temp.path(), &["plots/*.png", "c.png"]).0, ["c.png", "plots/a.png"]);
        assert_eq!(found(temp.path(), &["plots"]).0, ["plots/a.png", "plots/deep/b.png"]);
        let (all, said) = found(temp.path(), &["**"]);
        assert_eq!(all, ["c.png", "plots/a.png", "plots/deep/b.png", "sub/meta.json", "x.dat"]);
        assert_eq!(said, "");
        let (_, said) = found(temp.path(), &["*.svg", "c.png", "none/*"]);
        assert_eq!(said, "nothing has matched `*.svg` and `none/*`");
        fs::create_dir(temp.path().join("none")).unwrap();
        assert!(found(temp.path(), &["none"]).1.is_empty(), "an empty directory is there");
    }

    #[test]
    fn what_is_no_file_is_passed_over_and_said() {
        let (temp, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&elsewhere.path().join("secret/a.png"), "precious");
        write(&temp.path().join("out/a.png"), "x");
        symlink(elsewhere.path().join("secret/a.png"), temp.path().join("out/b.png")).unwrap();
        symlink(elsewhere.path().join("secret"), temp.path().join("plots")).unwrap();
        let fifo = temp.path().join("out/fifo.png");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("out/socket.png")).unwrap();
        fs::write(temp.path().join("out").join(OsStr::from_bytes(b"\xff.png")), "x").unwrap();
        fs::write(temp.path().join("out/back\\slash.png"), "x").unwrap();
        fs::write(temp.path().join("out/new\nline.png"), "x").unwrap();
        let (paths, said) = found(temp.path(), &["out/*.png", "plots/*.png"]);
        assert_eq!(paths, ["out/a.png"]);
        for part in ["nothing has matched `plots/*.png`", "2 symbolic links", "2 that are no regular files", "3 whose"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains('\n') && !said.contains("secret"), "{said}");
    }

    #[test]
    fn a_tree_without_end_has_one_here() {
        let temp = tempfile::tempdir().unwrap();
        let deep = vec!["d"; DEPTH_MAX + 5].join("/");
        write(&temp.path().join(deep).join("a"), "x");
        write(&temp.path().join("d/b"), "x");
        let (paths, said) = found(temp.path(), &["**"]);
        assert_eq!(paths, ["d/b"]);
        assert!(said.contains("1 that lies too deep"), "{said}");
    }

    #[test]
    fn what_takes_the_place_of_a_file_is_not_opened() {
        let (temp, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&elsewhere.path().join("a"), "precious");
        let directory = File::open(temp.path()).unwrap();
        let path: WorkPath = "d/a".parse().unwrap();
        let opened = || open_file(directory.as_fd(), &path).unwrap();
        write(&temp.path().join("d/a"), "x");
        assert!(opened().is_some());
        fs::remove_file(temp.path().join("d/a")).unwrap();
        assert!(opened().is_none());
        symlink(elsewhere.path().join("a"), temp.path().join("d/a")).unwrap();
        assert!(opened().is_none(), "a link");
        fs::remove_dir_all(temp.path().join("d")).unwrap();
        symlink(elsewhere.path(), temp.path().join("d")).unwrap();
        assert!(opened().is_none(), "a link on the way");
        fs::remove_file(temp.path().join("d")).unwrap();
        fs::create_dir(temp.path().join("d")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, temp.path().join("d/a"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(opened().is_none(), "a FIFO, and nobody waits");
    }
}
