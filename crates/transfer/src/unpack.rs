//! What comes out of a pack, and where it goes.
//!
//! A pack may come from anybody. It is read twice: first all that it says is looked at, then files are written. Of tar
//! only what packs need is understood: files and directories, with long names in the two ways that are in use.
//!
//! Files are written aside first, all of them, and then have their names: so one sync of the file system in between is
//! enough for each to be on the disk when it has its name.
//!
//! Guarded: nothing is written outside of the directory, through a link, or over a file that is another; nothing but
//! files and directories is made; a name, a count and a sum of sizes have bounds before anything is kept of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use files::Durability;
use protocol::{WorkPath, meets, text};
use tar::{Archive, EntryType};

use crate::aside::{ASIDE, Aside, Pack};
use crate::error::{Class, Error};
use crate::get::is_another;

/// The longest header that holds a name.
const NAME_BYTES_MAX: u64 = 64 * 1024;

/// How much of a name is told.
const SHOWN_CHARS_MAX: usize = 100;

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
pub(crate) struct Inside {
    pub(crate) path: WorkPath,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) is_program: bool,
}

/// Puts the members of a pack into a directory, those that `wanted` says: each whole or not at all, never over a file
/// that is another, and nothing outside of the directory. Nothing is written of a pack in which anything is not right
/// ([`Class::Wrong`]); where one of them is there as another file, the others are placed before that is told. With
/// [`Durability::Named`] each is on the disk before it has its name, and all names are when the call returns. Returns
/// which of them were in it. It blocks.
pub fn unpack(
    archive: &Path,
    into: &Path,
    bounds: &Bounds,
    wanted: &dyn Fn(&WorkPath) -> bool,
    durability: Durability,
) -> Result<Vec<WorkPath>, Error> {
    let reading = |error| Error::io("read", archive, error);
    let file = crate::open(archive)?;
    let length = file.metadata().map_err(reading)?.len();
    let (members, directories) = members(&file, length, bounds).map_err(|problem| match problem {
        Problem::Io(error) => reading(error),
        Problem::Wrong(what) => Error::new(Class::Wrong, format!("the pack {} {what}", archive.display())),
    })?;
    // A directory alone is nothing that somebody has asked for by a name.
    for directory in directories.iter().filter(|directory| wanted(directory)) {
        make_dir(&place(into, directory)?)?;
    }
    let members: Vec<Inside> = members.into_iter().filter(|member| wanted(&member.path)).collect();
    if members.is_empty() {
        return Ok(Vec::new());
    }
    let from = Pack { file, path: archive };
    let aside = Aside::begin(into)?;
    let (mut whole, mut others) = (Vec::new(), None);
    for member in &members {
        let path = place(into, &member.path)?;
        match from.has_as(member, &path)? {
            Some(true) => {}
            Some(false) => others = others.or_else(|| Some(is_another(&path))),
            None => {
                from.write(member, &aside.file(whole.len()), &path)?;
                whole.push(path);
            }
        }
    }
    aside.sync(durability)?;
    for (number, path) in whole.iter().enumerate() {
        match files::put_new(&aside.file(number), path, Durability::Cached) {
            Ok(true) => {}
            Ok(false) => others = others.or_else(|| Some(is_another(path))),
            Err(error) => return Err(Error::io("write", path, error)),
        }
    }
    aside.sync(durability)?;
    match others {
        Some(error) => Err(error),
        None => Ok(members.into_iter().map(|member| member.path).collect()),
    }
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
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::local(format!("{} is no directory, and is to be one", place.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(&place)?,
            Err(error) => return Err(Error::io("look at", &place, error)),
        }
    }
    Ok(place)
}

/// Makes a directory for files, which a person or a pack has named, and those above it, unless they are there.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    files::make_dir(path).map_err(|error| Error::io("make", path, error))
}

/// Why a pack is not unpacked.
#[derive(Debug)]
pub(crate) enum Problem {
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
pub(crate) fn members(
    archive: impl Read + Seek,
    length: u64,
    bounds: &Bounds,
) -> Result<(Vec<Inside>, Vec<WorkPath>), Problem> {
    let mut archive = Archive::new(archive);
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
    if text.split('/').next() == Some(ASIDE) {
        return Err(Problem::Wrong(format!("has a file `{}` in it, where files are while it is unpacked", told())));
    }
    text.parse().map(Some).map_err(|error| Problem::Wrong(format!("has a file `{}` in it: a name {error}", told())))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use proptest::prelude::*;

    use super::*;
    use crate::Packer;

    const BOUNDS: Bounds = Bounds { count: 100, bytes: 1_000_000 };

    fn all(_: &WorkPath) -> bool {
        true
    }

    /// An entry as a header and its content, with any name and kind.
    fn entry(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn pax(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|length| format!("{length}{rest}").len() == *length).unwrap();
        entry(b"pax", EntryType::XHeader, format!("{length}{rest}").as_bytes())
    }

    fn unpacked(entries: &[Vec<u8>], bounds: &Bounds) -> (tempfile::TempDir, Result<Vec<String>, Error>) {
        let temp = tempfile::tempdir().unwrap();
        let (archive, into) = (temp.path().join("archive"), temp.path().join("into"));
        fs::create_dir(&into).unwrap();
        fs::write(&archive, [entries.concat(), vec![0; 1024]].concat()).unwrap();
        let found = unpack(&archive, &into, bounds, &all, Durability::Cached);
        let found = found.map(|paths| paths.iter().map(ToString::to_string).collect());
        (temp, found)
    }

    fn below(directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![directory.to_owned()];
        while let Some(next) = directories.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
                if path.symlink_metadata().unwrap().is_dir() {
                    directories.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_was_packed_comes_out_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (archive, into) = (temp.path().join("archive"), temp.path().join("into"));
        let mut packer = Packer::new(File::create(&archive).unwrap());
        let long = format!("{}/{}.txt", "d".repeat(120), "f".repeat(200));
        let files = [("a/b", "content", false), ("run", "#!/bin/sh", true), (&long, "long", false), ("é", "", false)];
        for (path, content, runs) in files {
            packer.add(&path.parse().unwrap(), content.len() as u64, runs, &mut content.as_bytes()).unwrap();
        }
        packer.finish().unwrap();
        for _ in 0..2 {
            fs::create_dir_all(&into).unwrap();
            assert_eq!(
                unpack(&archive, &into, &BOUNDS, &all, Durability::Named).unwrap().len(),
                4,
                "a second time it is there"
            );
            for (path, content, runs) in files {
                let path = into.join(path);
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, if runs { 0o700 } else { 0o600 });
            }
        }
        let some = temp.path().join("some");
        fs::create_dir(&some).unwrap();
        let wanted = |path: &WorkPath| path.as_str() == "a/b";
        assert_eq!(unpack(&archive, &some, &BOUNDS, &wanted, Durability::Cached).unwrap().len(), 1);
        assert_eq!(below(&some), ["a", "a/b"]);
    }

    #[test]
    fn packs_of_other_programs_are_understood() {
        let (temp, found) = unpacked(
            &[
                entry(b"./", EntryType::Directory, b""),
                entry(b"./empty/", EntryType::Directory, b""),
                entry(b"./a", EntryType::Regular, b"1"),
                pax("mtime", "1.5"),
                entry(b"b", EntryType::Regular, b"2"),
                pax("path", "dir/\u{e9}"),
                entry(b"short", EntryType::Regular, b"3"),
                entry(b"././@LongLink", EntryType::GNULongName, b"of/gnu\0"),
                entry(b"of", EntryType::Regular, b"4"),
                entry(b"pax", EntryType::XGlobalHeader, b"13 comment=x\n"),
            ],
            &BOUNDS,
        );
        assert_eq!(found.unwrap(), ["a", "b", "dir/\u{e9}", "of/gnu"]);
        assert_eq!(below(&temp.path().join("into")), ["a", "b", "dir", "dir/\u{e9}", "empty", "of", "of/gnu"]);
    }

    #[test]
    fn a_pack_with_anything_wrong_in_it_leaves_nothing() {
        let good = || entry(b"good", EntryType::Regular, b"1");
        let file = |name: &[u8]| entry(name, EntryType::Regular, b"x");
        let long = "x".repeat(4_000);
        let huge = vec![b'x'; usize::try_from(NAME_BYTES_MAX).unwrap() + 1];
        let cut = {
            let mut cut = entry(b"cut", EntryType::Regular, &[7; 600]);
            cut[124..136].copy_from_slice(b"00000077777\0");
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&cut[..512]);
            header.set_cksum();
            [&header.as_bytes()[..], &cut[512..]].concat()
        };
        for (entries, says) in [
            (vec![file(b"../out")], "has a file `../out` in it"),
            (vec![file(b"/etc/passwd")], "has a file `/etc/passwd`"),
            (vec![file(b"a/../../out")], "a/../../out"),
            (vec![file(b"a\nb")], "has a file `a\\nb`"),
            (vec![file(b"a\xff")], "not UTF-8"),
            (vec![file(b"c:\\x")], "c:\\x"),
            (vec![file(b".hpc-queue-unpacking/0")], "where files are while"),
            (vec![pax("path", "../out"), file(b"a")], "../out"),
            (vec![pax("path", &long), file(b"a")], "has a file `xxx"),
            (vec![entry(b"l", EntryType::GNULongName, b"/abs\0"), file(b"a")], "/abs"),
            (vec![entry(b"l", EntryType::GNULongName, &huge), file(b"a")], "a name of more than"),
            (vec![entry(b"link", EntryType::Symlink, b"")], "no file and no directory: `link`"),
            (vec![entry(b"hard", EntryType::Link, b"")], "no file and no directory"),
            (vec![entry(b"dev", EntryType::Char, b"")], "no file and no directory"),
            (vec![entry(b"fifo", EntryType::Fifo, b"")], "no file and no directory"),
            (vec![entry(b"holes", EntryType::GNUSparse, b"")], "no file and no directory"),
            (vec![pax("size", "99999999999"), file(b"a")], "too large for a pack"),
            (vec![pax("GNU.sparse.major", "1"), file(b"a")], "holes"),
            (vec![file(b"a"), file(b"A")], "cannot be beside each other"),
            (vec![file(b"a"), file(b"a/b")], "cannot be beside each other"),
            (vec![file(b"a"), entry(b"a/", EntryType::Directory, b"")], "as a file and as a directory"),
            (vec![cut], "ends too early"),
            ((0..=100).map(|number| file(number.to_string().as_bytes())).collect(), "more than the 100 files"),
            (vec![entry(b"large", EntryType::Regular, &[0; 1_000_001])], "more than the 1000000 bytes"),
        ] {
            let (temp, found) = unpacked(&[vec![good()], entries].concat(), &BOUNDS);
            let error = found.unwrap_err();
            assert_eq!(error.class(), Class::Wrong, "{error}");
            assert!(error.to_string().contains(says) && error.to_string().len() < 700, "{says}: {error}");
            assert_eq!(below(&temp.path().join("into")), [""; 0], "{says}");
            assert_eq!(below(temp.path()), ["archive", "into"], "{says}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_or_over_another_file() {
        let temp = tempfile::tempdir().unwrap();
        let (archive, into, outside) =
            (temp.path().join("archive"), temp.path().join("into"), temp.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(&archive, [entry(b"dir/file", EntryType::Regular, b"new"), vec![0; 1024]].concat()).unwrap();
        let refused = || unpack(&archive, &into, &BOUNDS, &all, Durability::Named).unwrap_err();
        let begin = || {
            let _ = fs::remove_dir_all(&into);
            fs::create_dir(&into).unwrap();
        };
        begin();
        symlink(&outside, into.join("dir")).unwrap();
        assert!(refused().to_string().contains("is no directory"), "{}", refused());
        begin();
        fs::create_dir(into.join("dir")).unwrap();
        symlink(outside.join("victim"), into.join("dir/file")).unwrap();
        assert_eq!(refused().class(), Class::Local);
        assert_eq!(below(&outside), [""; 0]);
        begin();
        fs::create_dir(into.join("dir")).unwrap();
        for other in ["old", "other"] {
            fs::write(into.join("dir/file"), other).unwrap();
            assert!(refused().to_string().contains("is another file"), "{}", refused());
            assert_eq!(fs::read_to_string(into.join("dir/file")).unwrap(), other);
        }
        // What a program that died has left; one of an earlier version; and what a stranger has put there.
        for leave in [
            |aside: &Path| fs::create_dir(aside).and_then(|()| fs::write(aside.join("0"), "half of another one")),
            |aside: &Path| fs::write(aside, "half of another one"),
            |aside: &Path| symlink("../outside", aside),
        ] {
            begin();
            leave(&into.join(ASIDE)).unwrap();
            unpack(&archive, &into, &BOUNDS, &all, Durability::Named).unwrap();
            assert_eq!(fs::read_to_string(into.join("dir/file")).unwrap(), "new");
            assert_eq!((below(&into), below(&outside)), (vec!["dir".to_owned(), "dir/file".to_owned()], Vec::new()));
        }
    }

    #[test]
    fn one_program_at_a_time_unpacks_and_the_others_come_beside_one_that_is_another() {
        let temp = tempfile::tempdir().unwrap();
        let (archive, into) = (temp.path().join("archive"), temp.path().join("into"));
        let files = ["a", "b", "c"].map(|name| entry(name.as_bytes(), EntryType::Regular, name.as_bytes()));
        fs::write(&archive, [files.concat(), vec![0; 1024]].concat()).unwrap();
        fs::create_dir(&into).unwrap();
        fs::write(into.join("b"), "mine").unwrap();
        let unpacked = || unpack(&archive, &into, &BOUNDS, &all, Durability::Named);
        {
            let _other = Aside::begin(&into).unwrap();
            assert_eq!(unpacked().unwrap_err().class(), Class::Away);
        }
        assert_eq!(below(&into), ["b"]);
        let error = unpacked().unwrap_err();
        assert!(error.class() == Class::Local && error.to_string().contains("b is there already"), "{error}");
        assert_eq!(below(&into), ["a", "b", "c"]);
        assert_eq!(fs::read_to_string(into.join("b")).unwrap(), "mine");
    }

    proptest! {
        /// Whatever an archive says, nothing comes out of it but files and directories in the directory.
        #[test]
        fn no_bytes_lead_out_of_the_directory(
            names in proptest::collection::vec("[a./\\\\:]{0,12}", 0..6),
            kinds in proptest::collection::vec(any::<u8>(), 6),
            noise in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..8),
        ) {
            let entries = names.iter().zip(kinds).map(|(name, kind)| {
                let kinds = [b'0', b'5', b'L', b'x', b'2', b'1', b'g', 0];
                entry(name.as_bytes(), EntryType::new(kinds[usize::from(kind) % kinds.len()]), name.as_bytes())
            });
            let mut bytes: Vec<u8> = entries.flatten().collect();
            for (at, byte) in noise {
                if let Some(here) = bytes.get_mut(at) {
                    *here = byte;
                }
            }
            let (temp, _) = unpacked(&[bytes], &BOUNDS);
            let found = below(temp.path());
            prop_assert!(found.iter().all(|path| path == "archive" || path.starts_with("into")), "{found:?}");
            for path in below(&temp.path().join("into")) {
                let kind = temp.path().join("into").join(&path).symlink_metadata().unwrap().file_type();
                prop_assert!(kind.is_file() || kind.is_dir(), "{path}");
            }
        }
    }
}
