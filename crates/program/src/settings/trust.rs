//! Whose word counts: a settings file decides which program runs jobs and where keys are sent, so nobody but us and
//! root may have a say in it, whether it was named or found.
//!
//! Where a file is writable by our own group, that is ours alone only if nobody else is in it. On systems on which each
//! user has a group of their own, such files are made by default, and are fine.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

/// A larger file holds no key.
const SECRET_BYTES_MAX: u64 = 64_000;

/// Nobody but its owner can move or remove what lies in such a directory.
const STICKY: u32 = 0o1000;

/// What is told of a file or directory, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    uid: u32,
    gid: u32,
    mode: u32,
    /// An access control list names somebody else, whose rights the mode shows as those of the group.
    is_listed: bool,
}

/// Who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Us {
    uid: u32,
    /// The group in which nobody else is.
    private_group: Option<u32>,
}

impl Facts {
    /// Those of an open file or directory.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let is_listed = files::lets_others_in(file)?;
        Ok(Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode(), is_listed })
    }

    /// Those of a directory, which may be one that we cannot open.
    pub(super) fn at(directory: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(directory)?;
        let is_listed = files::lets_others_into(directory)?;
        Ok(Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode(), is_listed })
    }
}

impl Us {
    pub(super) fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // Where groups are elsewhere than in this file, the number alone has to do.
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self { uid, private_group: (uid == gid && is_nobody_elses(&groups, gid)).then_some(gid) }
    }

    /// Who else may write what has these facts, in words; `None` if nobody.
    fn other_writer(self, facts: Facts) -> Option<String> {
        let Facts { uid, mode, .. } = facts;
        if uid != self.uid && uid != 0 {
            return Some(format!("belongs to another user (uid {uid})"));
        }
        (self.others(facts) & 0o022 != 0).then(|| format!("can be written to by others (mode {:04o})", mode & 0o7777))
    }

    /// May others read it?
    pub(super) fn is_readable_by_others(self, facts: Facts) -> bool {
        self.others(facts) & 0o044 != 0
    }

    /// The bits of its mode that are for others than us. The group of a file of root is not ours.
    fn others(self, Facts { uid, gid, mode, is_listed }: Facts) -> u32 {
        let private = uid == self.uid && Some(gid) == self.private_group && !is_listed;
        mode & if private { 0o007 } else { 0o077 }
    }

    /// Refuses a file in which somebody else has a say.
    pub(super) fn check_file(self, what: &str, path: &Path, facts: Facts) -> anyhow::Result<()> {
        let Some(problem) = self.other_writer(facts) else { return Ok(()) };
        let advice = if facts.uid == self.uid {
            format!("look into it, and `chmod go-w {}`", path.display())
        } else {
            "use a file of your own, made with `install -m 600`".to_owned()
        };
        bail!("{what} {} {problem}, and only you and root may decide what is in it; {advice}", path.display())
    }

    /// Refuses a directory in which somebody else could put another file in place of one that was merely found.
    pub(super) fn check_directory(self, what: &str, directory: &Path, facts: Facts) -> anyhow::Result<()> {
        let Some(problem) = self.other_writer(facts) else { return Ok(()) };
        // Others may write there, and not what is ours.
        if facts.mode & STICKY != 0 && (facts.uid == self.uid || facts.uid == 0) {
            return Ok(());
        }
        bail!(
            "{what} was found in {}, which {problem}, so that it may have been put there by somebody else; if it is \
             yours, name it by --env-file",
            directory.display()
        )
    }
}

/// Has this group, by what `/etc/group` says, no member but the user of the same name?
fn is_nobody_elses(groups: &str, gid: u32) -> bool {
    groups.lines().all(|line| {
        let mut fields = line.split(':');
        let (name, _, number, members) = (fields.next(), fields.next(), fields.next(), fields.next());
        number != Some(gid.to_string().as_str())
            || members.unwrap_or_default().split(',').all(|member| member.is_empty() || Some(member) == name)
    })
}

/// A secret that stands in a file of its own, as its only line.
#[derive(Debug)]
pub(super) struct SecretFile {
    pub(super) secret: OsString,
    pub(super) path: PathBuf,
    /// What a person should know of the file.
    pub(super) warning: Option<String>,
}

impl SecretFile {
    /// Reads it. `subject` says what names the file.
    pub(super) fn read(subject: &str, path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("{subject}: cannot read {}", path.display());
        let file = File::open(path).with_context(cannot)?;
        let facts = Facts::of(&file).with_context(cannot)?;
        let us = Us::of_this_process();
        us.check_file(&format!("{subject}: the file"), path, facts)?;
        let bytes = content(file).with_context(cannot)?;
        let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= SECRET_BYTES_MAX);
        let Some(secret) = text.as_deref().map(str::trim).filter(|text| is_one_word(text)) else {
            bail!(
                "{subject}: {} does not hold one line of visible ASCII characters and nothing else, which is how a key \
                 or token looks",
                path.display()
            );
        };
        let warning = us.is_readable_by_others(facts).then(|| readable("the file", path, "a secret"));
        Ok(Self { secret: secret.into(), path: path.to_owned(), warning })
    }
}

/// Reads a file that a person has named and that says what is run here: nobody but us and root may have a say in it,
/// and it is no larger than that. `what` is what it is called.
pub fn read_trusted(what: &str, path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {what} {}", path.display());
    // What only looks like a file is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).with_context(cannot)?);
    let metadata = file.metadata().with_context(cannot)?;
    if !metadata.is_file() {
        bail!("{}: it is no file", cannot());
    }
    Us::of_this_process().check_file(what, path, Facts::of(&file).with_context(cannot)?)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).with_context(cannot)?;
    if bytes.len() as u64 > bytes_max {
        bail!("{what} {} is larger than {bytes_max} bytes, so it is none", path.display());
    }
    Ok(bytes)
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What to say of a file with secrets in it that others may read.
pub(super) fn readable(what: &str, path: &Path, holds: &str) -> String {
    format!("{what} {} holds {holds} and can be read by others; `chmod go-r {0}`", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Us = Us { uid: 1000, private_group: Some(1000) };
    const BOB: Us = Us { uid: 1001, private_group: None };
    const ROOT: Us = Us { uid: 0, private_group: Some(0) };

    fn file(us: Us, uid: u32, gid: u32, mode: u32) -> Result<(), String> {
        let facts = Facts { uid, gid, mode, is_listed: false };
        us.check_file("the settings file", Path::new(".env"), facts).map_err(|error| error.to_string())
    }

    fn directory(us: Us, uid: u32, gid: u32, mode: u32) -> Result<(), String> {
        let facts = Facts { uid, gid, mode, is_listed: false };
        us.check_directory("the settings file .env", Path::new("/d"), facts).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_is_ours_or_roots_and_nobody_elses() {
        for (us, uid, gid, mode) in [
            (ANN, 1000, 1000, 0o600),
            (ANN, 1000, 1000, 0o644),
            // Her own group has nobody else in it.
            (ANN, 1000, 1000, 0o664),
            (ANN, 0, 0, 0o644),
            (BOB, 1001, 100, 0o640),
            (ROOT, 0, 0, 0o660),
        ] {
            assert_eq!(file(us, uid, gid, mode), Ok(()), "{us:?} {uid} {gid} {mode:o}");
            assert_eq!(directory(us, uid, gid, mode | 0o100), Ok(()), "{us:?} {uid} {gid} {mode:o}");
        }
        let listed = Facts { uid: 1000, gid: 1000, mode: 0o660, is_listed: true };
        let told = ANN.check_file("the settings file", Path::new(".env"), listed).unwrap_err().to_string();
        assert!(told.contains("mode 0660"), "a list names others than her group: {told}");
        for (us, uid, gid, mode, says) in [
            (ANN, 1001, 1001, 0o600, "another user (uid 1001)"),
            (ANN, 1001, 1000, 0o444, "another user (uid 1001)"),
            (ANN, 1000, 100, 0o660, "mode 0660"),
            (ANN, 1000, 1000, 0o606, "mode 0606"),
            // Her group writes into a file of root.
            (ANN, 0, 1000, 0o664, "mode 0664"),
            (BOB, 1001, 1001, 0o660, "chmod go-w .env"),
            (ROOT, 1000, 1000, 0o600, "another user (uid 1000)"),
        ] {
            let error = file(us, uid, gid, mode).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(directory(us, uid, gid, mode).is_err(), "{us:?} {uid} {gid} {mode:o}");
        }
    }

    #[test]
    fn nobody_swaps_a_file_of_ours_in_a_sticky_directory() {
        assert_eq!(directory(ANN, 0, 0, 0o1777), Ok(()));
        assert_eq!(directory(ANN, 1000, 100, 0o3770), Ok(()));
        for (uid, gid, mode) in [(0, 0, 0o777), (1000, 100, 0o2770), (1001, 1001, 0o1777)] {
            assert!(directory(ANN, uid, gid, mode).unwrap_err().contains("--env-file"), "{uid} {mode:o}");
        }
    }

    #[test]
    fn a_private_group_has_no_other_member() {
        let groups = "root:x:0:\nann:x:1000:\nbob:x:1001:bob\nlab:x:1002:ann,bob\nbroken\n";
        assert_eq!([0, 1000, 1001, 1002, 7].map(|gid| is_nobody_elses(groups, gid)), [true, true, true, false, true]);
        let facts = |gid, mode| Facts { uid: 1000, gid, mode, is_listed: false };
        let readable = [(1000, 0o600), (1000, 0o640), (1000, 0o604), (100, 0o640)];
        let readable = readable.map(|(gid, mode)| ANN.is_readable_by_others(facts(gid, mode)));
        assert_eq!(readable, [false, false, true, true]);
    }

    #[test]
    fn a_file_that_says_what_runs_is_a_file_of_ours_and_no_larger_than_allowed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        let read = |path: &Path| read_trusted("the site's file", path, 4).map_err(|error| format!("{error:#}"));
        assert!(read(&path).unwrap_err().starts_with("cannot read the site's file /"), "it is not there");
        fs::write(&path, "abcd").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&path).unwrap(), b"abcd");
        fs::write(&path, "abcde").unwrap();
        assert!(read(&path).unwrap_err().contains("larger than 4 bytes"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).unwrap();
        assert!(read(&path).unwrap_err().contains("chmod go-w"));
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for none in [&fifo, folder.path()] {
            assert!(read(none).unwrap_err().contains("it is no file"), "{}", none.display());
        }
    }

    #[test]
    fn a_secret_is_the_only_line_of_its_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            SecretFile::read("--api-key-file", &path).map_err(|error| format!("{error:#}"))
        };
        let read = write("s3cret\n", 0o600).unwrap();
        assert_eq!((read.secret, read.path, read.warning), ("s3cret".into(), path.clone(), None));
        let warning = write("s3cret", 0o644).unwrap().warning.unwrap();
        assert!(warning.contains("can be read by others") && !warning.contains("s3cret"), "{warning}");
        assert!(write("s3cret", 0o602).unwrap_err().contains("chmod go-w"));
        for text in ["", "\n", "s3cret\nb\n", "s3cret b", "s3crét", &"s3cret".repeat(20_000)] {
            let error = write(text, 0o600).unwrap_err();
            assert!(error.starts_with("--api-key-file: ") && !error.contains("s3cr"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(SecretFile::read("--api-key-file", &path).unwrap_err().to_string().contains("cannot read"));
    }
}
