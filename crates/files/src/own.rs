//! Files of ours in places where somebody else may have put something under their names: opened only if they are what
//! we made.
//!
//! Guarded: no link is followed, nothing is waited for that is no file (a FIFO without its other end), a file of
//! another user is refused, and whatever mode a file of ours has got, it is its owner's only ([`FILE_MODE`]) from then
//! on.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::write::{FILE_MODE, sync_dir_of};

/// Opens a file to be read.
pub fn open_own(path: &Path) -> io::Result<File> {
    open(File::options().read(true), path)
}

/// Reads a file that is no longer than this.
pub fn read_own(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_own(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The same of text.
pub fn read_own_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let bytes = read_own(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
}

/// Opens a file to be locked, read and written, and makes it if it is not there.
pub fn open_lock(path: &Path) -> io::Result<File> {
    open(File::options().read(true).write(true).create(true).truncate(false), path)
}

/// Opens a file to be written at its end, and makes it if it is not there.
pub fn open_append(path: &Path) -> io::Result<File> {
    open(File::options().append(true).create(true), path)
}

/// Writes over the beginning of a file that is there: it takes no more room, and who reads it may see a part of it.
pub fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    open(File::options().write(true), path)?.write_all(content)
}

/// Writes a file in place of what it holds, and makes it if it is not there. Who reads it may see a part of it: see
/// [`crate::replace`] for one that is always whole.
pub fn rewrite(path: &Path, content: &[u8]) -> io::Result<()> {
    // Emptied only once it is known whose it is.
    let mut file = open(File::options().write(true).create(true).truncate(false), path)?;
    file.set_len(0)?;
    file.write_all(content)
}

/// Copies a file of ours over another of ours.
pub fn copy_own(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (open_own(from)?, open(File::options().write(true).create(true).truncate(false), to)?);
    to.set_len(0)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// Makes an empty file for a program that opens files by itself (SQLite), unless it is there.
pub fn make_own(path: &Path) -> io::Result<()> {
    drop(open_append(path)?);
    sync_dir_of(path);
    Ok(())
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.mode(FILE_MODE).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP) => io::Error::other("it is a symbolic link, which is not followed; remove it"),
            Some(Errno::NXIO) => io::Error::other("it is no regular file; remove it"),
            _ => error,
        }
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file; remove it"));
    }
    check_owner(metadata.uid())?;
    if metadata.mode() & 0o7777 & !FILE_MODE != 0 {
        // A file system without modes refuses this; then its directory is what keeps others out.
        let _ = file.set_permissions(Permissions::from_mode(FILE_MODE));
    }
    Ok(file)
}

/// Is this us?
pub(crate) fn check_owner(owner: u32) -> io::Result<()> {
    let us = us();
    if owner == us {
        return Ok(());
    }
    let problem = format!("it belongs to user {owner}, and this is user {us}; see who put it there, and move it away");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

pub(crate) fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    type Opens = fn(&Path) -> io::Result<()>;

    /// Each way in which a file of ours is opened.
    const WAYS: [Opens; 5] = [
        |path| open_own(path).map(drop),
        |path| open_lock(path).map(drop),
        |path| open_append(path).map(drop),
        |path| overwrite(path, b"x"),
        |path| rewrite(path, b"x"),
    ];

    #[test]
    fn a_file_of_ours_is_made_its_owners_only_however_it_is_opened() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        for way in WAYS {
            fs::write(&path, "12").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            way(&path).unwrap();
            assert_eq!(mode(&path), FILE_MODE);
        }
        for make in [WAYS[1], WAYS[2], WAYS[4]] {
            fs::remove_file(&path).unwrap();
            make(&path).unwrap();
            assert_eq!(mode(&path), FILE_MODE);
        }
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_own(&path, 5).unwrap(), b"12345");
        assert_eq!(read_own(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        overwrite(&path, b"ab").unwrap();
        assert_eq!(read_own_text(&path, 5).unwrap(), "ab345");
        rewrite(&path, b"ab").unwrap();
        let copy = temp.path().join("copy");
        fs::write(&copy, "longer").unwrap();
        copy_own(&path, &copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"ab");
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused_and_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let (path, victim) = (temp.path().join("file"), temp.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        for way in WAYS {
            symlink(&victim, &path).unwrap();
            assert!(way(&path).unwrap_err().to_string().contains("symbolic link"));
            fs::remove_file(&path).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
            assert!(way(&path).unwrap_err().to_string().contains("no regular file"), "nobody waits for its other end");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(open_own(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_of_another_user_is_refused_by_name() {
        let problem = check_owner(us() + 1).unwrap_err();
        assert_eq!(problem.kind(), io::ErrorKind::PermissionDenied);
        assert!(problem.to_string().contains(&format!("belongs to user {}", us() + 1)), "{problem}");
        check_owner(us()).unwrap();
    }
}
