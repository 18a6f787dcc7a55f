//! How much a tree holds that a stranger's program made.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// What lies deeper is not counted: each level on the way down is a file that is open.
const DEPTH_MAX: usize = 32;

/// What a block of `st_blocks` is.
const BLOCK_BYTES: u64 = 512;

/// What a tree holds, or a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// The bytes that its files take on the disk.
    pub bytes: u64,
    /// Its files and directories.
    pub files: u64,
}

/// Counts what is in a directory. What cannot be read, lies very deep, on another file system, or is not reached in
/// time does not count: there is at least as much as this. A file with several names counts in parts.
pub fn measure(directory: BorrowedFd<'_>, within: Duration) -> io::Result<Held> {
    let deadline = Instant::now() + within;
    let device = rustix::fs::fstat(directory)?.st_dev;
    let mut held = Held::default();
    let mut open = vec![Dir::new(enter(directory, ".")?)?];
    loop {
        let depth = open.len();
        let Some(directory) = open.last_mut() else { break };
        if Instant::now() >= deadline {
            break;
        }
        let Some(Ok(entry)) = directory.read() else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let at = directory.fd()?;
        let Ok(found) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if found.st_dev != device {
            continue;
        }
        held.files += 1;
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0);
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            held.bytes += blocks * BLOCK_BYTES / wide(found.st_nlink).max(1);
        } else {
            held.bytes += blocks * BLOCK_BYTES;
            if depth < DEPTH_MAX
                && let Ok(below) = enter(at.as_fd(), name).and_then(|below| Ok(Dir::new(below)?))
            {
                open.push(below);
            }
        }
    }
    Ok(held)
}

/// How wide a field is depends on the machine.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

fn enter(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_takes_room_is_counted_once_and_no_link_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (top, victim) = (temp.path().join("top"), temp.path().join("victim"));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("large"), vec![1; 4_000_000]).unwrap();
        fs::write(top.join("a/b/file"), vec![1; 1_000_000]).unwrap();
        fs::hard_link(top.join("a/b/file"), top.join("again")).unwrap();
        File::create(top.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        symlink(&victim, top.join("link")).unwrap();
        let measured = |within| measure(File::open(&top).unwrap().as_fd(), within).unwrap();
        let held = measured(Duration::from_secs(60));
        assert_eq!(held.files, 6);
        assert!((1_000_000..1_200_000).contains(&held.bytes), "{held:?}");
        assert_eq!(measured(Duration::ZERO), Held::default());
        let mut deep = top.join("deep");
        (0..100).for_each(|_| deep.push("d"));
        fs::create_dir_all(deep).unwrap();
        assert!((20..100).contains(&measured(Duration::from_secs(60)).files), "it ends");
    }
}
