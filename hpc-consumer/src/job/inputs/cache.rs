//! Contents that jobs have needed, kept on the cluster under their SHA-256: `RESULTS_DIR/.cache`.
//!
//! All daemons of one `RESULTS_DIR` share it. A content has its name only when it is whole and verified; what is on its
//! way is a partial file, which is gone on with. How much is kept has a bound: what was used longest ago goes first.
//!
//! Invariants: what this daemon uses just now is not taken away, nor what a run sees that is bound to it, whosever run
//! that is; what another one takes away meanwhile is not there any more, and is had anew. What a job gets is a copy, or
//! can only be read: nothing that it does reaches the cache.
//!
//! Out of scope: how contents come here (`transfer`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use files::Durability;
use protocol::{Content, Digest};

use crate::job::files::is_missing;
use crate::lock;

/// A partial file that nobody has gone on with for so long goes.
const PARTIAL_KEPT: Duration = Duration::from_hours(7 * 24);

/// The contents.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
    /// How often each is in use.
    used: Arc<Mutex<HashMap<Digest, usize>>>,
}

/// Contents that are in use for as long as this is held.
#[derive(Debug)]
pub(crate) struct Hold {
    contents: Vec<Digest>,
    used: Arc<Mutex<HashMap<Digest, usize>>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut used = lock(&self.used);
        for digest in &self.contents {
            if let Some(count) = used.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    used.remove(digest);
                }
            }
        }
    }
}

/// A content that is kept.
struct Kept {
    digest: Digest,
    bytes: u64,
    used_at: SystemTime,
    /// It has another name: runs see it.
    is_bound: bool,
}

impl Cache {
    /// The cache in this `RESULTS_DIR`, which keeps no more than this unless more is in use.
    pub(crate) fn new(results: &Path, bytes_max: u64) -> Self {
        Self { directory: results.join(".cache"), bytes_max, used: Arc::default() }
    }

    /// Makes its directories, unless they are there.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        [&self.directory, &self.whole(), &self.partials()].into_iter().try_for_each(|path| files::own_dir(path))
    }

    /// These contents are in use, whether they are here or to come.
    pub(crate) fn hold(&self, contents: impl IntoIterator<Item = Digest>) -> Hold {
        let contents: Vec<Digest> = contents.into_iter().collect();
        let mut used = lock(&self.used);
        contents.iter().for_each(|digest| *used.entry(*digest).or_default() += 1);
        Hold { contents, used: self.used.clone() }
    }

    /// A content, if it is here. It counts as used now.
    pub(crate) fn open(&self, content: &Content) -> io::Result<Option<File>> {
        let path = self.place(&content.sha256);
        let file = match files::open_own(&path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != content.size {
            // The machine went down before it was on the disk, or somebody has written to it.
            tracing::warn!("{} is not as long as it was, and is had anew", path.display());
            fs::remove_file(&path).or_else(unless_missing)?;
            return Ok(None);
        }
        // Where that is refused, it goes a little earlier than others.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(file))
    }

    /// Gives a content a further name, by which it is there even if it is taken from here.
    pub(super) fn link(&self, digest: &Digest, to: &Path) -> io::Result<()> {
        match files::name_also(&self.place(digest), to) {
            // The same content at two paths.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Where a content is written while it is had.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.to_string())
    }

    /// Removes what was begun of a content that cannot be had.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.partial(digest)).or_else(unless_missing)
    }

    /// Takes what was had in as whole: it is synced, and whose name is lost is had again.
    pub(crate) fn keep(&self, digest: &Digest) -> io::Result<()> {
        files::put(&self.partial(digest), &self.place(digest), Durability::Cached)
    }

    /// Takes away what was used longest ago, until no more is kept than may be. Returns how many bytes went.
    pub(crate) fn shrink(&self) -> io::Result<u64> {
        self.shrink_to(self.bytes_max)
    }

    /// Takes away all that is not in use: the disk is full.
    pub(crate) fn give_way(&self) -> io::Result<u64> {
        self.shrink_to(0)
    }

    fn shrink_to(&self, bytes_max: u64) -> io::Result<u64> {
        let mut kept = self.kept()?;
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        let mut gone = 0;
        kept.sort_by_key(|kept| kept.used_at);
        for Kept { digest, bytes: size, is_bound, .. } in kept {
            if bytes <= bytes_max {
                break;
            }
            if is_bound || lock(&self.used).contains_key(&digest) {
                continue;
            }
            fs::remove_file(self.place(&digest)).or_else(unless_missing)?;
            (bytes, gone) = (bytes - size, gone + size);
        }
        Ok(gone)
    }

    /// What is kept. What no daemon has made is left alone.
    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in entries(&self.whole())? {
            let entry = entry?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that another daemon has just taken away.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let (bytes, used_at, is_bound) = (metadata.len(), metadata.modified()?, metadata.nlink() > 1);
                kept.push(Kept { digest, bytes, used_at, is_bound });
            }
        }
        Ok(kept)
    }

    /// Takes away partial files that nobody has gone on with for long.
    pub(crate) fn clean(&self, now: SystemTime) -> io::Result<()> {
        for entry in entries(&self.partials())? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            let age = now.duration_since(metadata.modified()?).unwrap_or_default();
            if metadata.is_file() && age > PARTIAL_KEPT {
                fs::remove_file(entry.path()).or_else(unless_missing)?;
            }
        }
        Ok(())
    }

    fn whole(&self) -> PathBuf {
        self.directory.join("sha256")
    }

    fn partials(&self) -> PathBuf {
        self.directory.join("partial")
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.whole().join(digest.to_string())
    }
}

/// What is in a directory; nothing if it is not there.
fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if is_missing(&error) => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if is_missing(&error) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        _temp: tempfile::TempDir,
        cache: Cache,
    }

    impl Case {
        fn new(bytes_max: u64) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let cache = Cache::new(temp.path(), bytes_max);
            cache.prepare().unwrap();
            Self { _temp: temp, cache }
        }

        /// A content of 10 bytes, last used so many seconds after the epoch.
        fn keep(&self, number: u8, used_at: u64) -> Content {
            let content = Content { sha256: Digest::new([number; 32]), size: 10 };
            files::write_new(&self.cache.partial(&content.sha256), &[number; 10]).unwrap();
            self.cache.keep(&content.sha256).unwrap();
            let file = File::open(self.cache.place(&content.sha256)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used_at)).unwrap();
            content
        }

        fn has(&self, content: &Content) -> bool {
            self.cache.place(&content.sha256).exists()
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_nothing_that_is_in_use() {
        let case = Case::new(20);
        let contents: Vec<Content> = (1..=4).map(|number| case.keep(number, u64::from(number))).collect();
        let hold = case.cache.hold([contents[0].sha256, contents[0].sha256]);
        // It is used once more.
        assert!(case.cache.open(&contents[1]).unwrap().is_some());
        assert_eq!(case.cache.shrink().unwrap(), 20);
        assert_eq!(contents.iter().map(|content| case.has(content)).collect::<Vec<_>>(), [true, true, false, false]);
        assert_eq!(case.cache.give_way().unwrap(), 10);
        drop(hold);
        assert_eq!(case.cache.give_way().unwrap(), 10);
        assert!(case.cache.open(&contents[0]).unwrap().is_none());
        assert_eq!(Cache::new(Path::new("/none"), 1).shrink().unwrap(), 0, "nothing is there yet");
    }

    #[test]
    fn what_is_not_as_long_as_it_was_is_not_had() {
        let case = Case::new(20);
        let content = case.keep(1, 1);
        File::options().write(true).open(case.cache.place(&content.sha256)).unwrap().set_len(3).unwrap();
        assert!(case.cache.open(&content).unwrap().is_none());
        assert!(!case.has(&content), "it makes room for the right one");
    }

    #[test]
    fn partial_files_go_by_age_alone() {
        let case = Case::new(20);
        let (old, new) = (Digest::new([1; 32]), Digest::new([2; 32]));
        let now = SystemTime::now();
        for (digest, age) in [(old, PARTIAL_KEPT + Duration::from_secs(9)), (new, Duration::ZERO)] {
            let file = files::create_new(&case.cache.partial(&digest)).unwrap();
            file.set_modified(now - age).unwrap();
        }
        case.cache.clean(now).unwrap();
        assert_eq!([old, new].map(|digest| case.cache.partial(&digest).exists()), [false, true]);
    }
}
