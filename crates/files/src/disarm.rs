//! Taking away from files that a stranger's program made what would have others act as their owner: the setuid and the
//! setgid bit.
//!
//! A tree is walked with one directory open, of any depth. A directory's own bits stay: they lend nothing to anybody.
//!
//! Guarded: no link is followed, no other file system is entered, no other mode is changed but that of a directory
//! which its owner cannot read, and it ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::tree::{flags, open_dir};

/// The names of so many directories are kept that are still to be looked at.
const NAMES_MAX: usize = 200_000;

/// What has others act as somebody else.
const ARMED: Mode = Mode::SUID.union(Mode::SGID);

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disarmed {
    /// So many files had such bits.
    pub files: u64,
    /// All of the tree was seen.
    pub whole: bool,
}

/// A directory on the way down.
struct Level {
    device: u64,
    inode: u64,
    /// Directories in it that are still to be looked at.
    names: Vec<OsString>,
}

struct Walk {
    disarmed: Disarmed,
    deadline: Instant,
    names: usize,
}

/// Takes the bits from all files in a directory, however deep. What is not reached in time stays.
pub fn disarm(directory: BorrowedFd<'_>, within: Duration) -> io::Result<Disarmed> {
    let disarmed = Disarmed { files: 0, whole: true };
    let mut walk = Walk { disarmed, deadline: Instant::now() + within, names: 0 };
    let top = File::from(rustix::fs::openat(directory, ".", flags(), Mode::empty())?);
    let device = top.metadata()?.dev();
    let (mut at, level) = walk.sweep(top)?;
    let mut levels = vec![level];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop() {
            walk.names -= 1;
            match open_dir(at.fd()?, &name, device, 0o500).and_then(|below| walk.sweep(below)) {
                Ok((below, level)) => {
                    at = below;
                    levels.push(level);
                }
                // It is not ours, or was moved away.
                Err(_) => walk.disarmed.whole = false,
            }
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        let up = File::from(rustix::fs::openat(at.fd()?, "..", flags(), Mode::empty())?);
        let metadata = up.metadata()?;
        if (metadata.dev(), metadata.ino()) != (above.device, above.inode) {
            return Err(io::Error::other("it changes while it is looked at"));
        }
        at = Dir::new(OwnedFd::from(up))?;
    }
    Ok(walk.disarmed)
}

impl Walk {
    /// Sees to the files of one directory, and notes the directories in it.
    fn sweep(&mut self, directory: File) -> io::Result<(Dir, Level)> {
        let metadata = directory.metadata()?;
        let mut level = Level { device: metadata.dev(), inode: metadata.ino(), names: Vec::new() };
        let mut directory = Dir::new(OwnedFd::from(directory))?;
        while let Some(entry) = directory.read() {
            if Instant::now() >= self.deadline {
                self.disarmed.whole = false;
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            // Only the rest costs a look at each: links, pipes and the like lend nothing.
            let kind = match entry.file_type() {
                FileType::RegularFile | FileType::Unknown => {
                    let Ok(found) = rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) else {
                        continue;
                    };
                    if Mode::from_raw_mode(found.st_mode).intersects(ARMED) {
                        self.take_from(directory.fd()?, OsStr::from_bytes(name.to_bytes()));
                    }
                    FileType::from_raw_mode(found.st_mode)
                }
                other => other,
            };
            if kind != FileType::Directory || name == c"." || name == c".." {
                continue;
            }
            if self.names == NAMES_MAX {
                self.disarmed.whole = false;
            } else {
                self.names += 1;
                level.names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            }
        }
        Ok((directory, level))
    }

    fn take_from(&mut self, at: BorrowedFd<'_>, name: &OsStr) {
        match take_bits(at, name) {
            Ok(true) => self.disarmed.files += 1,
            Ok(false) => {}
            // Another user's: what it lends is not ours.
            Err(_) => self.disarmed.whole = false,
        }
    }
}

/// Takes the bits of a file; `false` if it is none.
fn take_bits(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use std::fs::Permissions;
        use std::os::fd::AsRawFd as _;
        use std::os::unix::fs::PermissionsExt as _;

        // A mode can only be changed of what is known not to be a link.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = File::from(rustix::fs::openat(at, name, flags, Mode::empty())?);
        let metadata = found.metadata()?;
        if !metadata.is_file() {
            return Ok(false);
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        std::fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o1777))?;
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = OFlags::PATH;
        let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        rustix::fs::chmodat(at, name, Mode::from_raw_mode(found.st_mode) - ARMED, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn make(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        chmod(path, mode);
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn disarm_in(path: &Path, within: Duration) -> Disarmed {
        disarm(File::open(path).unwrap().as_fd(), within).unwrap()
    }

    #[test]
    fn the_bits_go_from_every_file_however_deep_and_nothing_else_changes() {
        let temp = tempfile::tempdir().unwrap();
        let (top, victim) = (temp.path().join("top"), temp.path().join("victim"));
        make(&victim, 0o4755);
        fs::create_dir(&top).unwrap();
        // As far down as a path goes, and with siblings on the way.
        let mut deep = top.clone();
        for number in 0..300 {
            if number % 100 == 0 {
                make(&deep.join("armed"), 0o6711);
                fs::create_dir(deep.join("beside")).unwrap();
                make(&deep.join("beside/armed"), 0o2755);
            }
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        make(&deep.join("armed"), 0o4755);
        make(&deep.join("plain"), 0o754);
        chmod(&deep, 0o2555);
        symlink(&victim, top.join("link")).unwrap();
        symlink(temp.path(), top.join("up")).unwrap();
        assert_eq!(disarm_in(&top, LONG), Disarmed { files: 7, whole: true });
        assert_eq!((mode(&deep.join("armed")), mode(&deep.join("plain")), mode(&deep)), (0o755, 0o754, 0o2555));
        assert_eq!((mode(&top.join("armed")), mode(&top.join("beside/armed"))), (0o711, 0o755));
        assert_eq!(mode(&victim), 0o4755, "no link is followed");
        assert_eq!(disarm_in(&top, LONG), Disarmed { files: 0, whole: true });
        chmod(&deep, 0o755);
    }

    #[test]
    fn a_directory_that_its_owner_cannot_read_hides_nothing() {
        let temp = tempfile::tempdir().unwrap();
        for (name, locked) in [("none", 0o011), ("read", 0o455), ("enter", 0o311)] {
            let path = temp.path().join(name);
            fs::create_dir(&path).unwrap();
            make(&path.join("armed"), 0o4755);
            chmod(&path, locked);
        }
        assert_eq!(disarm_in(temp.path(), LONG), Disarmed { files: 3, whole: true });
        assert!(["none", "read", "enter"].iter().all(|name| mode(&temp.path().join(name).join("armed")) == 0o755));
    }

    #[test]
    fn it_ends_when_the_time_is_over_and_says_so() {
        let temp = tempfile::tempdir().unwrap();
        make(&temp.path().join("armed"), 0o4755);
        assert_eq!(disarm_in(temp.path(), Duration::ZERO), Disarmed { files: 0, whole: false });
    }
}
