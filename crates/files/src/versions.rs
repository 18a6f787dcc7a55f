//! A large file that is replaced now and then, and the one before it, to which one step leads back.
//!
//! Guarded: under the name of the file there is a whole one at every moment, where the file system has hard links; and
//! whatever dies in between, the next that looks ([`Versions::settle`]) finds the file and the one before it. Who has
//! the file open, or runs from it, keeps what they have for as long as it is one of the two. One process at a time may
//! do this with one name.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::remove::{REMAINS_WITHIN, remove};
use crate::write::{Durability, hidden, name_of, put, sync_dir_of};

/// A file, and the one before it.
#[derive(Debug, Clone)]
pub struct Versions {
    path: PathBuf,
    former: PathBuf,
    /// The present one has this name besides its own while another takes its place.
    leaving: PathBuf,
}

impl Versions {
    /// The file of this name, and beside it the one before, which has the ending `former`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = name_of(path)?;
        let mut former = name.clone();
        former.push(".former");
        let leaving = hidden(&[&name, ".leaving".as_ref()]);
        Ok(Self { path: path.to_owned(), former: path.with_file_name(former), leaving: path.with_file_name(leaving) })
    }

    /// Where the one before is, if there is one.
    pub fn former(&self) -> Option<&Path> {
        is_there(&self.former).then_some(self.former.as_path())
    }

    /// Brings to its end what somebody has begun who died.
    pub fn settle(&self) -> io::Result<()> {
        if !is_there(&self.leaving) {
            return Ok(());
        }
        if !is_there(&self.path) {
            return fs::rename(&self.leaving, &self.path);
        }
        if identity(&self.leaving)? == identity(&self.path)? {
            // Nothing has taken its place yet. A rename would leave both names.
            return fs::remove_file(&self.leaving);
        }
        fs::rename(&self.leaving, &self.former)
    }

    /// Puts a file that was made aside on the same file system in the place of the present one, which becomes the one
    /// before; that goes.
    pub fn put(&self, aside: &Path) -> io::Result<()> {
        self.settle()?;
        self.exchange(aside)
    }

    /// Puts the one before in the place of the present one, and that in its place; `false` if there is none.
    pub fn back(&self) -> io::Result<bool> {
        self.settle()?;
        if !is_there(&self.former) {
            return Ok(false);
        }
        self.exchange(&self.former).map(|()| true)
    }

    fn exchange(&self, new: &Path) -> io::Result<()> {
        let there = is_there(&self.path);
        if there {
            match fs::hard_link(&self.path, &self.leaving) {
                Ok(()) => {}
                // Without links there is a moment without the file.
                Err(error) if has_no_links(&error) => fs::rename(&self.path, &self.leaving)?,
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = put(new, &self.path, Durability::Content) {
            // The first error is the one to tell.
            let _ = self.settle();
            return Err(error);
        }
        if there {
            fs::rename(&self.leaving, &self.former)?;
        }
        sync_dir_of(&self.path);
        Ok(())
    }
}

/// Removes what was made aside for this file by those who died: hidden files with its name and this ending.
pub fn remove_abandoned(path: &Path, ending: &str) -> io::Result<()> {
    let start = hidden(&[&name_of(path)?, ".".as_ref()]);
    let start = start.to_string_lossy().into_owned();
    let directory = crate::write::directory_of(path);
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(&start) && name.ends_with(ending));
        if is_one {
            remove(&directory.join(name), REMAINS_WITHIN)?;
        }
    }
    Ok(())
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file `2` before which there was `1`, and a new one aside.
    fn two() -> (tempfile::TempDir, PathBuf, PathBuf, Versions) {
        let temp = tempfile::tempdir().unwrap();
        let (path, aside) = (temp.path().join("my.sif"), temp.path().join("aside"));
        let versions = Versions::of(&path).unwrap();
        for number in ["1", "2"] {
            fs::write(&aside, number).unwrap();
            versions.put(&aside).unwrap();
        }
        fs::write(&aside, "3").unwrap();
        (temp, path, aside, versions)
    }

    fn is(versions: &Versions, path: &Path) -> (String, Option<String>) {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        (read(path), versions.former().map(read))
    }

    fn both(present: &str, former: &str) -> (String, Option<String>) {
        (present.to_owned(), Some(former.to_owned()))
    }

    #[test]
    fn the_one_before_is_one_step_back_and_the_step_can_be_taken_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("first");
        let first = Versions::of(&path).unwrap();
        fs::write(temp.path().join("aside"), "1").unwrap();
        first.put(&temp.path().join("aside")).unwrap();
        assert!(!first.back().unwrap(), "there is none before the first");
        assert_eq!(is(&first, &path), ("1".to_owned(), None));

        let (temp, path, aside, versions) = two();
        let open = fs::File::open(&path).unwrap();
        versions.put(&aside).unwrap();
        assert_eq!(is(&versions, &path), both("3", "2"));
        assert_eq!(io::read_to_string(open).unwrap(), "2", "who has it keeps it");
        for (present, former) in [("2", "3"), ("3", "2")] {
            assert!(versions.back().unwrap());
            assert_eq!(is(&versions, &path), both(present, former));
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2, "nothing else is left");
    }

    /// Each step is taken alone, as by a process that dies behind it.
    #[test]
    fn whatever_dies_in_between_there_is_a_file_and_the_one_before_it() {
        type Dies = fn(&Versions, &Path);
        let linked: Dies = |versions, _| fs::hard_link(&versions.path, &versions.leaving).unwrap();
        let placed: Dies = |versions, aside| {
            fs::hard_link(&versions.path, &versions.leaving).unwrap();
            fs::rename(aside, &versions.path).unwrap();
        };
        let moved: Dies = |versions, _| fs::rename(&versions.path, &versions.leaving).unwrap();
        let went_back: Dies = |versions, _| {
            fs::hard_link(&versions.path, &versions.leaving).unwrap();
            fs::rename(&versions.former, &versions.path).unwrap();
        };
        for (dies, present, former) in
            [(linked, "2", "1"), (placed, "3", "2"), (moved, "2", "1"), (went_back, "1", "2")]
        {
            let (_temp, path, aside, versions) = two();
            dies(&versions, &aside);
            versions.settle().unwrap();
            assert_eq!(is(&versions, &path), both(present, former));
            assert!(!is_there(&versions.leaving));
            // What comes next does not depend on that.
            fs::write(&aside, "4").unwrap();
            versions.put(&aside).unwrap();
            assert_eq!(is(&versions, &path), both("4", present));
        }
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_both() {
        let (temp, path, _, versions) = two();
        assert!(versions.put(&temp.path().join("nothing")).is_err());
        assert_eq!(is(&versions, &path), both("2", "1"));
        assert!(!is_there(&versions.leaving));
    }

    #[test]
    fn what_was_abandoned_goes_and_nothing_else() {
        let (temp, path, ..) = two();
        for name in [".my.sif.1-2.new", ".my.sif.lock", ".other.sif.1-2.new", "my.sif.new"] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        remove_abandoned(&path, ".new").unwrap();
        let mut left: Vec<String> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".my.sif.lock", ".other.sif.1-2.new", "aside", "my.sif", "my.sif.former", "my.sif.new"]);
    }
}
