//! Small files of text that a task has left in its directory: a stranger's program wrote them, and they may be
//! anything.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The text of a file, if there is one, or why it cannot be used: what goes on after its name. An error is one of the
/// file system, not of the task. Of what is too long, `advice` says what to do.
pub(crate) fn text(
    directory: BorrowedFd<'_>,
    name: &str,
    bytes_max: u64,
    advice: &str,
) -> io::Result<Option<Result<String, String>>> {
    let unusable = |problem: &str| Ok(Some(Err(problem.to_owned())));
    // Not following links, and not waiting for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::LOOP) => return unusable("is a symbolic link, which is not followed"),
        Err(Errno::NXIO) => return unusable("is a socket or a device, not a regular file"),
        Err(Errno::ACCESS | Errno::PERM) => return unusable("cannot be read: permission denied"),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return unusable("is not a regular file");
    }
    let bytes = metadata.len();
    if bytes > bytes_max {
        return unusable(&format!("has {bytes} bytes, and {bytes_max} is the most{advice}"));
    }
    let mut text = Vec::new();
    // It may grow while it is read.
    file.take(bytes_max).read_to_end(&mut text)?;
    Ok(Some(String::from_utf8(text).map_err(|_| "is not JSON: it is not UTF-8".to_owned())))
}
