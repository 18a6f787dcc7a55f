//! What comes out of a pack, and where it goes.
//!
//! A pack may come from anybody. It is read twice: first all that it says is looked at, then files are written. Of tar
//! only what packs need is understood: files and directories, with long names in the two ways that are in use.
//!
//! Guarded: nothing is written outside of the directory, through a link, or over a file that is another; nothing but
//! files and directories is made; a name, a count and a sum of sizes have bounds before anything is kept of them.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use files::Durability;
use protocol::{WorkPath, meets, text};
use tar::{Archive, EntryType};

use crate::error::{Class, Error};
use crate::get::is_another;

/// The longest header that holds a name.
const NAME_BYTES_MAX: u64 = 64 * 1024;

/// How much of a name is told.
const SHOWN_CHARS_MAX: usize = 100;

/// How much is compared, and copied, at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// What is being written, in the directory into which a pack goes. One program at a time does so.
const ASIDE: &str = ".hpc-queue-unpacking";

/// How much may come out of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many files and directories,
    pub count: usize,
    /// so many bytes in all of them.
    pub bytes: u64,
}

/// A file in a pack.
#[derive(Debug)]
struct Inside {
    path: WorkPath,
    offset: u64,
    size: u64,
    is_program: bool,
}

/// Puts the members of a pack into a directory, those that `wanted` says: each whole or not at all, never over a file
/// that is another, and nothing outside of the directory. Nothing is written of a pack in which anything is not right
/// ([`Class::Wrong`]). Returns which of them were in it. It blocks.
pub fn unpack(
    archive: &Path,
    into: &Path,
    bounds: &Bounds,
    wanted: &dyn Fn(&WorkPath) -> bool,
) -> Result<Vec<WorkPath>, Error> {
    let reading = |error| Error::io("read", archive, error);
    let mut file = crate::open(archive)?;
    let (members, directories) = members(&file, bounds).map_err(|problem| match problem {
        Problem::Io(error) => reading(error),
        Problem::Wrong(what) => Error::new(Class::Wrong, format!("the pack {} {what}", archive.display())),
    })?;
    // A directory alone is nothing that somebody has asked for by a name.
    for directory in directories.iter().filter(|directory| wanted(directory)) {
        let path = place(into, directory)?;
        files::make_dir(&path).map_err(|error| Error::io("make", &path, error))?;
    }
    let mut written = Vec::new();
    for member in members.into_iter().filter(|member| wanted(&member.path)) {
        write(&mut file, &member, archive, into)?;
        written.push(member.path);
    }
    Ok(written)
}

/// The place of a path below a directory; the directories between are made. A link among them is refused. It blocks.
pub fn place(directory: &Path, path: &WorkPath) -> Result<PathBuf, Error> {
    let mut place = directory.to_owned();
    let mut parts = path.as_str().split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_none() {
            break;
        }
        let made = match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => return Err(Error::local(format!("{} is no directory, and is to be one", place.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => files::make_dir(&place),
            Err(error) => Err(error),
        };
        made.map_err(|error| Error::io("make", &place, error))?;
    }
    Ok(place)
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    /// The end of a sentence about the pack.
    Wrong(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        // What is no archive is told as such.
        match error.raw_os_error() {
            Some(_) => Self::Io(error),
            None => Self::Wrong(format!("cannot be read: {}", shown(&error.to_string()))),
        }
    }
}

fn shown(name: &str) -> String {
    text::escaped(name).chars().take(SHOWN_CHARS_MAX).collect()
}

/// Looks at all that is in a pack: its files and its directories.
fn members(file: &File, bounds: &Bounds) -> Result<(Vec<Inside>, Vec<WorkPath>), Problem> {
    let length = file.metadata()?.size();
    let mut reader = file;
    reader.seek(SeekFrom::Start(0))?;
    let mut archive = Archive::new(reader);
    let (mut members, mut directories) = (Vec::new(), BTreeSet::new());
    let (mut long_name, mut bytes) = (None, 0_u64);
    // The crate would read a name of any length.
    for entry in archive.entries_with_seek()?.raw(true) {
        let mut entry = entry?;
        let (size, offset) = (entry.header().entry_size()?, entry.raw_file_position());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(Problem::Wrong("ends too early".to_owned()));
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader | EntryType::XGlobalHeader) {
            if size > NAME_BYTES_MAX {
                return Err(Problem::Wrong(format!("has a name of more than {NAME_BYTES_MAX} bytes")));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            match kind {
                EntryType::GNULongName => {
                    let end = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
                    content.truncate(end);
                    long_name = Some(content);
                }
                EntryType::XHeader => long_name = extended(&content)?.or(long_name),
                _ => {}
            }
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let is_directory = kind == EntryType::Directory || kind == EntryType::Regular && name.ends_with(b"/");
        if !is_directory && kind != EntryType::Regular {
            let name = shown(&String::from_utf8_lossy(&name));
            return Err(Problem::Wrong(format!("has something in it that is no file and no directory: `{name}`")));
        }
        let Some(path) = path(&name)? else { continue };
        bytes = bytes.saturating_add(size);
        if bytes > bounds.bytes {
            return Err(Problem::Wrong(format!("holds more than the {} bytes that may come out of it", bounds.bytes)));
        }
        if members.len() + directories.len() >= bounds.count {
            return Err(Problem::Wrong(format!("holds more than the {} files that may come out of it", bounds.count)));
        }
        if is_directory {
            directories.insert(path);
        } else {
            let is_program = entry.header().mode().unwrap_or_default() & 0o100 != 0;
            members.push(Inside { path, offset, size, is_program });
        }
    }
    if let Some((one, other)) = meets(members.iter().map(|member| &member.path)) {
        return Err(Problem::Wrong(format!("has `{one}` and `{other}`, which cannot be beside each other")));
    }
    if let Some(both) = members.iter().find(|member| directories.contains(&member.path)) {
        return Err(Problem::Wrong(format!("has `{}` as a file and as a directory", both.path)));
    }
    Ok((members, directories.into_iter().collect()))
}

/// The name that an extended header gives to the next entry: lines of `LENGTH KEY=VALUE`.
fn extended(content: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    let malformed = || Problem::Wrong("has an extended header that cannot be read".to_owned());
    let (mut rest, mut name) = (content, None);
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|length| *length > space + 1 && *length <= rest.len()).ok_or_else(malformed)?;
        let record = rest[space + 1..length].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => name = Some(value.to_vec()),
            // Another length than the header's, and holes: nothing that belongs into a pack.
            b"size" => return Err(Problem::Wrong("has a file in it that is too large for a pack".to_owned())),
            key if key.starts_with(b"GNU.sparse") => {
                return Err(Problem::Wrong("has a file with holes in it".to_owned()));
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(name)
}

/// Where a member is to be; nothing for the directory itself.
fn path(name: &[u8]) -> Result<Option<WorkPath>, Problem> {
    let told = || shown(&String::from_utf8_lossy(name));
    let text =
        std::str::from_utf8(name).map_err(|_| Problem::Wrong(format!("has a name that is not UTF-8: `{}`", told())))?;
    let text = text.strip_suffix('/').unwrap_or(text);
    let text = text.strip_prefix("./").unwrap_or(text);
    if matches!(text, "" | ".") && !name.starts_with(b"/") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| Problem::Wrong(format!("has a file `{}` in it: a name {error}", told())))
}

/// Writes a file, unless it is there.
fn write(archive: &mut File, member: &Inside, from: &Path, into: &Path) -> Result<(), Error> {
    let path = place(into, &member.path)?;
    let reading = |error| Error::io("read", from, error);
    let start = SeekFrom::Start(member.offset);
    archive.seek(start).map_err(reading)?;
    match fs::symlink_metadata(&path) {
        Ok(found) => {
            let same = found.is_file() && found.len() == member.size && {
                let there = files::open_own(&path).map_err(|error| Error::io("open", &path, error))?;
                is_same(there, (&mut *archive).take(member.size)).map_err(|error| Error::io("read", &path, error))?
            };
            return if same { Ok(()) } else { Err(is_another(&path)) };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", &path, error)),
    }
    let aside = into.join(ASIDE);
    let writing = |error: io::Error| match files::is_no_room(&error) {
        true => Error::local(format!("there is no room for {}, of {} bytes", path.display(), member.size)),
        false => Error::io("write", &path, error),
    };
    let mut file = files::open_append(&aside).map_err(writing)?;
    match file.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(Error::away(format!("another program is just unpacking into {}", into.display())));
        }
        // A file system may have no locks.
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => {}
    }
    // What died has left some of another one.
    file.set_len(0).map_err(writing)?;
    let copied = io::copy(&mut (&mut *archive).take(member.size), &mut file).map_err(writing)?;
    if copied != member.size {
        return Err(reading(io::ErrorKind::UnexpectedEof.into()));
    }
    if member.is_program {
        file.set_permissions(Permissions::from_mode(files::DIR_MODE)).map_err(writing)?;
    }
    match files::put_new(&aside, &path, Durability::Cached).map_err(writing)? {
        true => Ok(()),
        false => Err(is_another(&path)),
    }
}

fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut here, mut there) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    loop {
        let read = one.read(&mut here)?;
        if read == 0 {
            return Ok(other.read(&mut there[..1])? == 0);
        }
        match other.read_exact(&mut there[..read]) {
            Ok(()) if here[..read] == there[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
