//! A directory in which things are kept for a person to look at, of which there may be any number.
//!
//! It is not a cache: nothing in it is needed again. Whoever fills it from outside decides how much comes, so it has
//! bounds, and the oldest goes first.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use crate::measure::measure;
use crate::remove::remove;

/// How long a tree may take to be counted, and to be removed; the next time goes on with it.
const TREE_WITHIN: Duration = Duration::from_secs(1);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many files,
    pub count: usize,
    /// so many bytes in all of them,
    pub bytes: u64,
    /// and each of them for so long.
    pub age: Duration,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

/// Removes the oldest entries of a directory, until what stays is within bounds; hidden ones are being written, and do
/// not count. Returns how many went. Several processes may do this at once; what one of them cannot remove, stays.
pub fn prune(directory: &Path, bounds: &Bounds, now: SystemTime) -> io::Result<usize> {
    let mut entries = match entries(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    // The newest first. Names make it the same for everybody who looks.
    entries.sort_by(|a, b| (b.modified, &b.path).cmp(&(a.modified, &a.path)));
    let (mut bytes, mut count, mut gone) = (0_u64, 0_usize, 0);
    for entry in entries {
        // A clock that was set back makes nothing old.
        let age = now.duration_since(entry.modified).unwrap_or_default();
        let with_it = bytes.saturating_add(entry.bytes);
        if count < bounds.count && with_it <= bounds.bytes && age <= bounds.age {
            (bytes, count) = (with_it, count + 1);
        } else {
            gone += usize::from(remove(&entry.path, TREE_WITHIN).is_ok());
        }
    }
    Ok(gone)
}

fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        // Another process may have removed it.
        let Ok(metadata) = entry.metadata() else { continue };
        let (path, modified) = (entry.path(), metadata.modified()?);
        let bytes = if metadata.is_dir() { tree_bytes(&path) } else { metadata.len() };
        entries.push(Entry { path, bytes, modified });
    }
    Ok(entries)
}

fn tree_bytes(path: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.ok().and_then(|tree| measure(tree.as_fd(), TREE_WITHIN).ok()).unwrap_or_default().bytes
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const WIDE: Bounds = Bounds { count: 1_000, bytes: 1_000_000, age: Duration::from_hours(1_000) };

    /// Ten files of ten bytes, the first of which is the oldest: an hour lies between two of them.
    fn ten() -> (tempfile::TempDir, SystemTime) {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for number in 0..10 {
            let path = directory.path().join(number.to_string());
            fs::write(&path, "0123456789").unwrap();
            File::options().append(true).open(path).unwrap().set_modified(now - HOUR * (10 - number)).unwrap();
        }
        fs::write(directory.path().join(".being-written"), "x".repeat(1_000)).unwrap();
        (directory, now)
    }

    fn left(directory: &Path) -> String {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.concat()
    }

    #[test]
    fn the_oldest_go_until_the_rest_is_within_bounds() {
        for (bounds, names) in [
            (WIDE, "0123456789"),
            (Bounds { count: 3, ..WIDE }, "789"),
            (Bounds { bytes: 45, ..WIDE }, "6789"),
            (Bounds { age: HOUR * 5, ..WIDE }, "56789"),
            (Bounds { count: 0, ..WIDE }, ""),
        ] {
            let (directory, now) = ten();
            assert_eq!(prune(directory.path(), &bounds, now).unwrap(), 10 - names.len(), "{bounds:?}");
            assert_eq!(left(directory.path()), format!(".being-written{names}"), "{bounds:?}");
        }
        assert_eq!(prune(Path::new("/no/such/directory"), &WIDE, SystemTime::now()).unwrap(), 0);
    }

    #[test]
    fn trees_count_with_all_that_is_in_them_and_links_are_not_followed() {
        let (directory, now) = ten();
        let victim = tempfile::tempdir().unwrap();
        fs::write(victim.path().join("precious"), "x".repeat(100_000)).unwrap();
        std::os::unix::fs::symlink(victim.path(), directory.path().join("link")).unwrap();
        fs::create_dir_all(directory.path().join("tree/a/b")).unwrap();
        fs::write(directory.path().join("tree/a/b/large"), "x".repeat(100_000)).unwrap();
        let bounds = Bounds { bytes: 50_000, ..WIDE };
        // It is larger than all that may stay.
        assert_eq!(prune(directory.path(), &bounds, now + HOUR).unwrap(), 1);
        assert_eq!(left(directory.path()), ".being-written0123456789link");
        prune(directory.path(), &Bounds { count: 0, ..WIDE }, now).unwrap();
        assert_eq!(left(directory.path()), ".being-written");
        assert!(victim.path().join("precious").exists());
    }
}
