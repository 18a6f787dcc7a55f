//! Removing whatever has a name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::tree::{Remains, remove_tree};
use crate::write::{directory_of, hidden, name_of};

/// What a process leaves that died while it wrote is one file. Anything else was put there by a stranger, and is given
/// a moment.
pub(crate) const REMAINS_WITHIN: Duration = Duration::from_secs(60);

/// How many trees of one name are kept that could not be removed.
const LEFTOVERS_MAX: u32 = 1_000;

/// What has lost its name and could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("it is moved to {}, where it stays: {why}", name.display())]
pub struct Leftover {
    /// Its name now, in the same directory.
    pub name: OsString,
    /// Why it is still there.
    #[source]
    pub why: Remains,
}

/// Removes whatever has this name, a directory with all that is in it too; that nothing has it is as good. No link is
/// followed. A tree may be of any depth and size; after the given time the rest of it stays.
pub fn remove(path: &Path, within: Duration) -> io::Result<()> {
    let name = name_of(path)?;
    match File::open(directory_of(path)) {
        Ok(directory) => remove_at(directory.as_fd(), &name, within),
        Err(error) if is_missing(&error) => Ok(()),
        // What may not be read may be written all the same.
        Err(error) => std::fs::remove_file(path).map_err(|_| error),
    }
}

/// The same in a directory that is held open.
pub fn remove_at(directory: BorrowedFd<'_>, name: &OsStr, within: Duration) -> io::Result<()> {
    if let Unlinked::IsTree = unlink(directory, name)? {
        remove_tree(directory, name, within)?;
    }
    Ok(())
}

/// Takes its name from whatever has it, and removes it. A tree first gets another name: so the name is free whatever is
/// in the tree, and what of it cannot be removed stays under the other one, and is told.
pub fn discard(directory: BorrowedFd<'_>, name: &OsStr, within: Duration) -> io::Result<Option<Leftover>> {
    if let Unlinked::Gone = unlink(directory, name)? {
        return Ok(None);
    }
    for number in 1..=LEFTOVERS_MAX {
        let ending = if number == 1 { ".old".to_owned() } else { format!(".old-{number}") };
        let aside = hidden(&[name, ending.as_ref()]).into_os_string();
        match rustix::fs::renameat(directory, name, directory, &aside) {
            Ok(()) => {
                let why = remove_tree(directory, &aside, within).err();
                return Ok(why.map(|why| Leftover { name: aside, why }));
            }
            // The leftover of an earlier time.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("there are too many earlier ones that cannot be removed"))
}

enum Unlinked {
    Gone,
    IsTree,
}

fn unlink(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Unlinked> {
    let error = match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Unlinked::Gone),
        Err(error) => error,
    };
    // Which error a directory gives depends on the file system.
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => Ok(Unlinked::IsTree),
        _ => Err(error.into()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn whatever_has_the_name_goes_and_no_link_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (path, victim) = (temp.path().join("x"), temp.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("precious"), "").unwrap();
        remove(&path, LONG).unwrap();
        remove(&temp.path().join("none/x"), LONG).unwrap();
        remove(&victim.join("precious/x"), LONG).unwrap();
        let make: [fn(&Path, &Path); 4] = [
            |path, _| fs::write(path, "").unwrap(),
            |path, victim| symlink(victim, path).unwrap(),
            |path, _| fs::create_dir_all(path.join("a/b")).unwrap(),
            |path, victim| {
                fs::create_dir(path).unwrap();
                symlink(victim, path.join("link")).unwrap();
            },
        ];
        for make in make {
            make(&path, &victim);
            remove(&path, LONG).unwrap();
            assert!(fs::symlink_metadata(&path).is_err());
        }
        assert!(victim.join("precious").exists());
    }

    #[test]
    fn the_name_is_free_even_if_what_had_it_cannot_be_removed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = File::open(temp.path()).unwrap();
        let discard = |within| discard(directory.as_fd(), "output".as_ref(), within).unwrap();
        for name in [".output.old", ".output.old-2"] {
            fs::create_dir_all(temp.path().join("output/deep")).unwrap();
            // There is no time for it.
            let leftover = discard(Duration::ZERO).unwrap();
            assert_eq!(leftover.name, name);
            assert!(leftover.to_string().contains(name), "{leftover}");
            assert!(!temp.path().join("output").exists() && temp.path().join(name).join("deep").exists());
        }
        fs::create_dir_all(temp.path().join("output/deep")).unwrap();
        assert!(discard(LONG).is_none());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        assert!(discard(LONG).is_none(), "nothing has the name");
    }
}
