//! Making files and directories, and giving them their names.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Files are for their owner: disks are shared, and what is in them may be anybody's secret.
pub const FILE_MODE: u32 = 0o600;

/// The same for directories.
pub const DIR_MODE: u32 = 0o700;

/// What is there for programs of other users.
const FOR_ALL_MODE: u32 = 0o644;

/// What a machine that goes down may take away. A process that dies takes nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// All of it: the new file, or its content. For what can be made again.
    Cached,
    /// The name, but not the content behind it: the name has the old content or the new one.
    Content,
    /// Nothing: when the call returns, the file is there for good.
    Named,
    /// The same of a file whose content the caller has synced already.
    NameOfSynced,
}

impl Durability {
    pub(crate) fn before_naming(self, file: &File) -> io::Result<()> {
        match self {
            Self::Cached | Self::NameOfSynced => Ok(()),
            // A network file system may say only now that there is no room.
            Self::Content | Self::Named => file.sync_all(),
        }
    }

    pub(crate) fn after_naming(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Cached | Self::Content => Ok(()),
            Self::Named | Self::NameOfSynced => sync_dir(directory_of(path)),
        }
    }
}

/// Puts a file in place of another, whole, and returns it, to be written further. A link of this name is replaced, not
/// followed. One process at a time may do this with one name.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<File> {
    // Always the same name: what dies in between leaves one file, however often that happens.
    let name = name_of(path)?;
    replace_through(&path.with_file_name(hidden(&[name.as_ref(), ".new".as_ref()])), path, content, durability)
}

/// The same through a name that the caller chooses, in the same directory or at least the same file system: for a name
/// that several processes may replace at a time, each through one of its own.
pub fn replace_through(aside: &Path, path: &Path, content: &[u8], durability: Durability) -> io::Result<File> {
    let mut file = match create_new(aside) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            crate::remove(aside, crate::remove::REMAINS_WITHIN)?;
            create_new(aside)?
        }
        made => made?,
    };
    let placed =
        file.write_all(content).and_then(|()| durability.before_naming(&file)).and_then(|()| fs::rename(aside, path));
    if let Err(error) = placed {
        // The first error is the one to tell.
        let _ = fs::remove_file(aside);
        return Err(error);
    }
    durability.after_naming(path)?;
    Ok(file)
}

/// The same for a file that everybody may read.
pub fn replace_for_all(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = name_of(path)?;
    let aside = path.with_file_name(hidden(&[name.as_ref(), ".new".as_ref()]));
    crate::remove(&aside, crate::remove::REMAINS_WITHIN)?;
    let mut file = create_new(&aside)?;
    let placed =
        file.write_all(content).and_then(|()| set_mode(&aside, FOR_ALL_MODE)).and_then(|()| fs::rename(&aside, path));
    placed.inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&aside);
    })
}

/// Sets the mode of a file or a directory. A file system without modes refuses that for our own: no error, since there
/// a directory above is what keeps others out, or they are let in all the same.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && is_ours(path)? => Ok(()),
        done => done,
    }
}

fn is_ours(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.uid() == crate::own::us())
}

/// Claims a name: of many who try, one makes the file, and the others hear that it exists.
pub fn create_new(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Claims a name, and writes the file. It can be seen before it is whole: see [`crate::Creator`] for one that cannot.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    create_new(path)?.write_all(content)
}

/// Gives a file, or a directory with all that is in it, which was made aside on the same file system, its name.
pub fn put(aside: &Path, path: &Path, durability: Durability) -> io::Result<()> {
    if matches!(durability, Durability::Content | Durability::Named) {
        let made = File::open(aside)?;
        if made.metadata()?.is_dir() { sync_all_around(&made)? } else { durability.before_naming(&made)? }
    }
    fs::rename(aside, path)?;
    durability.after_naming(path)
}

/// Gives a file one more name on the same file system, by which it is there though the first one goes. A link is named
/// itself, and not followed. Nothing may have the name.
pub fn name_also(path: &Path, also: &Path) -> io::Result<()> {
    fs::hard_link(path, also)
}

/// Gives a file that was made aside on the same file system its name, if nothing has it; `false` if something has, and
/// then the file stays aside.
pub fn put_new(aside: &Path, path: &Path, durability: Durability) -> io::Result<bool> {
    if matches!(durability, Durability::Content | Durability::Named) {
        durability.before_naming(&File::open(aside)?)?;
    }
    let named = name_first(aside, path).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Err(error),
        // It has none either: the name is claimed, and then ours to replace.
        _ => create_new(path).and_then(|_| {
            fs::rename(aside, path).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        }),
    });
    match named {
        Ok(()) => durability.after_naming(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file that was made aside on the same file system its name, at once, if nothing has it. An error of the kind
/// `AlreadyExists` says that something has; with any other the file system can do so in no way.
pub fn name_first(aside: &Path, path: &Path) -> io::Result<()> {
    rename_new(aside, path).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        // A file system, or a system, that cannot rename so. It may have links.
        _ => fs::hard_link(aside, path).and_then(|()| fs::remove_file(aside)),
    })
}

#[cfg(target_os = "linux")]
fn rename_new(aside: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags};

    Ok(rustix::fs::renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE)?)
}

#[cfg(not(target_os = "linux"))]
fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has all that was written to the file system of a directory last: a tree has no end of its own to sync.
pub fn sync_all_around(directory: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::syncfs(directory)?);
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::sync();
        directory.sync_all()
    }
}

/// Makes a directory, and those above it, unless they are there.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// Has the names in a directory last.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // So file systems answer that cannot sync a directory; they have nothing to sync.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

/// The same of the directory that a new name is in, as far as its file system can do it.
pub(crate) fn sync_dir_of(path: &Path) {
    let _ = sync_dir(directory_of(path));
}

pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn name_of(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().map(OsString::from);
    name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidFilename, "it is no name of a file"))
}

/// A name that lists of a directory do not show.
pub(crate) fn hidden(parts: &[&std::ffi::OsStr]) -> PathBuf {
    let mut name = OsString::from(".");
    name.extend(parts.iter().copied());
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_only() {
        for durability in [Durability::Cached, Durability::Content, Durability::Named, Durability::NameOfSynced] {
            let temp = tempfile::tempdir().unwrap();
            let (path, victim) = (temp.path().join("file"), temp.path().join("victim"));
            fs::write(&victim, "precious").unwrap();
            symlink(&victim, &path).unwrap();
            // What a process has left that died, or what a stranger has made there.
            fs::create_dir_all(temp.path().join(".file.new/deep")).unwrap();
            let mut file = replace(&path, b"new", durability).unwrap();
            file.write_all(b", and more").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new, and more");
            assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, FILE_MODE);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
            assert_eq!(names(temp.path()), ["file", "victim"]);
        }
    }

    #[test]
    fn what_was_made_aside_takes_the_place_of_nothing() {
        for durability in [Durability::Cached, Durability::Content, Durability::Named, Durability::NameOfSynced] {
            let temp = tempfile::tempdir().unwrap();
            let (aside, path) = (temp.path().join("aside"), temp.path().join("file"));
            fs::write(&aside, "new").unwrap();
            assert!(put_new(&aside, &path, durability).unwrap());
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(temp.path()).len()), ("new", 1));
            fs::write(&aside, "newer").unwrap();
            assert!(!put_new(&aside, &path, durability).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            assert_eq!(fs::read_to_string(&aside).unwrap(), "newer");
            symlink("nowhere", temp.path().join("link")).unwrap();
            assert!(!put_new(&aside, &temp.path().join("link"), durability).unwrap());
            assert!(put_new(&temp.path().join("none"), &temp.path().join("other"), durability).is_err());
            assert_eq!(names(temp.path()), ["aside", "file", "link"]);
        }
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_what_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::create_dir_all(path.join("in-the-way")).unwrap();
        assert!(replace(&path, b"new", Durability::Named).is_err());
        assert_eq!(names(temp.path()), ["file"]);
        assert!(replace(&temp.path().join("none/file"), b"", Durability::Cached).is_err());
        assert!(replace(Path::new("/"), b"", Durability::Cached).is_err());
    }

    #[test]
    fn one_of_many_claims_a_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("claim");
        let claims = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| create_new(&path).is_ok())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ours| *ours).count()
        });
        assert_eq!(claims, 1);
        assert_eq!(write_new(&path, b"").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn trees_and_files_made_aside_get_their_names() {
        let temp = tempfile::tempdir().unwrap();
        let (aside, place) = (temp.path().join("aside"), temp.path().join("place"));
        make_dir(&aside.join("deep")).unwrap();
        assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o7777, DIR_MODE);
        write_new(&aside.join("deep/file"), b"1").unwrap();
        put(&aside, &place, Durability::Named).unwrap();
        assert_eq!(fs::read(place.join("deep/file")).unwrap(), b"1");
        write_new(&aside, b"2").unwrap();
        put(&aside, &place.join("deep/file"), Durability::Content).unwrap();
        assert_eq!(fs::read(place.join("deep/file")).unwrap(), b"2");
        assert!(put(&aside, &place, Durability::Cached).is_err(), "there is nothing any more");
    }
}
