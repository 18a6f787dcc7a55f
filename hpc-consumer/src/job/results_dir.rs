//! `RESULTS_DIR` itself: whose it is, whether it still is the one that it was, and whether it takes files.
//!
//! Its file system may go away and leave an empty directory in its place, in which all jobs would seem to have left
//! nothing. Within a process the directory is known by its inode, and over a restart by a mark in it.
//!
//! Out of scope: what lies in it (`files`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use files::{Access, Creator, Durability, Held, NotPrivate, Spares};
use lifecycle::{Problem, Share};
use program::TrustedGroup;
use protocol::limits;
use rustix::fs::StatVfsMountFlags;

use super::files::{INPUT, META, OWN_FILE_BYTES_MAX, REMOVED_WITHIN, is_missing};
use super::size::in_words;
use crate::lock;

/// What a probe writes: enough to need room on the disk.
const PROBE_BYTES: usize = 64 * 1024;

/// More than a beat of the heart takes.
const HEART_BYTES: usize = 512;

/// So many records find room on a full disk, each of which fits in so many bytes.
const SPARES: u32 = 32;
const SPARE_BYTES: usize = limits::RESULT_BYTES_MAX.next_multiple_of(4 * 1024);

/// A claim makes fewer files, as does a probe.
const FILES_OF_A_CLAIM: u64 = 8;

/// `RESULTS_DIR`.
#[derive(Debug, Clone)]
pub(crate) struct ResultsDir {
    pub(super) path: PathBuf,
    /// Who besides us may write to it.
    trust: TrustedGroup,
    /// Makes files that never take the place of others.
    pub(super) creator: Arc<Creator>,
    /// Which directory it was when it was looked at first, by its inode.
    known: Arc<OnceLock<u64>>,
    /// Held by who looks for it for the first time.
    finding: Arc<Mutex<()>>,
    /// What tells after a restart whether it is the one that it was.
    mark: Option<Arc<Mark>>,
    /// Room for records on a full disk.
    pub(super) reserve: Option<Arc<Spares>>,
    /// How much this process has put into `_rejected`.
    pub(super) rejected: Arc<AtomicUsize>,
}

/// The heart of our keeper lies in `RESULTS_DIR`, and `STATE_DIR` remembers that it was made there.
#[derive(Debug)]
struct Mark {
    /// Holds the path of the `RESULTS_DIR` that has the heart.
    file: PathBuf,
    heart: PathBuf,
}

impl ResultsDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        let (creator, trust) = (Arc::new(Creator::new(path.clone())), TrustedGroup::default());
        Self {
            path,
            trust,
            creator,
            known: Arc::default(),
            finding: Arc::default(),
            mark: None,
            reserve: None,
            rejected: Arc::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same, where the members of a group may write.
    pub(crate) fn trusting(self, trust: TrustedGroup) -> Self {
        Self { trust, ..self }
    }

    /// Can it not be used as it is, whatever we wait for? The text says why not, and what to do.
    pub(crate) fn refused(&self) -> Option<String> {
        // Where its file system is away, what is there in its place is not judged.
        if self.mark.as_ref().is_some_and(|mark| !matches!(self.is_lost(mark), Ok(false))) {
            return None;
        }
        let problem = self.make_private().err().filter(|problem| !problem.may_pass())?;
        Some(format!("RESULTS_DIR {} cannot be used: {problem}", self.path.display()))
    }

    fn make_private(&self) -> Result<(), NotPrivate> {
        let notes = program::private_dir("RESULTS_DIR", &self.path, Access::Trusted, &self.trust)?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        Ok(())
    }

    /// The same, marked as that of this state: an empty directory in its place is not taken for it. Room for its
    /// records is kept.
    pub(crate) fn marked_by(self, state_dir: &Path, owner: &str) -> Self {
        let mark = Mark { file: mark_in(state_dir), heart: self.heart(owner) };
        let reserve = Spares::new(self.path.join(".reserve").join(owner), SPARES, SPARE_BYTES);
        Self { mark: Some(Arc::new(mark)), reserve: Some(Arc::new(reserve)), ..self }
    }

    /// Is some of the room for records used, or not there yet?
    pub(super) fn lacks_reserve(&self) -> bool {
        self.reserve.as_ref().is_some_and(|reserve| reserve.are_short())
    }

    /// Keeps room for records, as soon as there is some. Not in what stands in place of the directory.
    pub(super) fn fill_reserve(&self) {
        let Some(reserve) = &self.reserve else { return };
        let is_there = self.is_where_it_was().and_then(|is_it| Ok(is_it && self.has_mark()?));
        match is_there.and_then(|is_there| if is_there { reserve.refill() } else { Ok(()) }) {
            // Full again; what is missing is made later.
            Err(error) if !files::is_no_room(&error) => tracing::warn!("no room can be kept for records: {error}"),
            _ => {}
        }
    }

    /// Can files be made here, as a job needs them? Leaves an empty directory that stands for a job's. The text says
    /// why not.
    pub(super) fn probe(&self) -> Result<PathBuf, String> {
        self.try_probe().map_err(|error| format!("RESULTS_DIR {} cannot be written: {error}", self.path.display()))
    }

    /// What a job that holds this has of the disk, if no files can be made for want of room.
    pub(super) fn share_if_full(&self, held: impl FnOnce() -> Held) -> Option<Share> {
        self.try_probe().err().filter(files::is_no_room)?;
        let space = rustix::fs::statvfs(&self.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        let held = held();
        Some(if bytes(space.f_bavail) < 2 * PROBE_BYTES as u64 {
            Share::Bytes { held: held.bytes, used: Some(bytes(space.f_blocks.saturating_sub(space.f_bfree))) }
        } else if space.f_files > 0 && space.f_favail < FILES_OF_A_CLAIM {
            Share::Files { held: held.files, used: space.f_files.saturating_sub(space.f_ffree) }
        } else {
            Share::Bytes { held: held.bytes, used: None }
        })
    }

    fn try_probe(&self) -> io::Result<PathBuf> {
        // Several runs that fail together ask at the same time, so the directory stays and the files have their own
        // names; other daemons may ask, too.
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let scratch = self.path.join(".probe");
        self.find()?;
        files::own_dir(&scratch)?;
        let name = format!("{}-{}-{number}", crate::host(), std::process::id());
        let (file, link) = (scratch.join(format!("file-{name}")), scratch.join(format!("link-{name}")));
        let directory = scratch.join(format!("directory-{name}"));
        // An earlier daemon may have died between making and removing them.
        files::remove(&link, REMOVED_WITHIN)?;
        files::remove(&directory, REMOVED_WITHIN)?;
        let written = files::replace(&file, &[0; PROBE_BYTES], Durability::Content)
            // Final records are put into place like this.
            .and_then(|_| files::name_first(&file, &link));
        // A claim makes a directory and two files, and some disks run out of these first.
        let made = written
            .and_then(|()| files::new_dir(&directory))
            .and_then(|()| [META, INPUT].iter().try_for_each(|name| files::write_new(&directory.join(name), b"{}\n")));
        for path in [&file, &link, &directory] {
            files::remove(path, REMOVED_WITHIN)?;
        }
        made.map(|()| scratch)
    }

    /// Makes the directory once. From then on it must be this one: if the file system that it is on goes away, an empty
    /// directory may be left in its place, and jobs must not seem to have left nothing.
    fn find(&self) -> io::Result<()> {
        if !self.is_where_it_was()? {
            return Err(Self::not_where_it_was());
        }
        if self.known.get().is_some() {
            return Ok(());
        }
        // Each pool looks, and the first one makes what must be there.
        let _alone = lock(&self.finding);
        if self.known.get().is_none() {
            let is_lost = self.mark.as_ref().map(|mark| self.is_lost(mark)).transpose()?;
            if let (Some(mark), Some(true)) = (&self.mark, is_lost) {
                return Err(io::Error::other(format!(
                    "it has lost the mark of this STATE_DIR, {}; mount its file system, or, if it was emptied on purpose, remove {} and start hpc-consumer anew",
                    mark.heart.display(),
                    mark.file.display()
                )));
            }
            self.make_private()?;
            if let Some(mark) = &self.mark {
                self.leave_mark(mark)?;
            }
            let inode = fs::metadata(&self.path)?.ino();
            self.known.get_or_init(|| inode);
        }
        Ok(())
    }

    fn is_marked(&self, mark: &Mark) -> bool {
        read_mark(&mark.file).is_some_and(|known| known == self.path)
    }

    /// Was it marked, and is the mark gone?
    fn is_lost(&self, mark: &Mark) -> io::Result<bool> {
        Ok(self.is_marked(mark) && !mark.heart.try_exists()?)
    }

    fn leave_mark(&self, mark: &Mark) -> io::Result<()> {
        files::own_dir(mark.heart.parent().unwrap_or(&self.path))?;
        if self.is_marked(mark) {
            return Ok(());
        }
        if !mark.heart.try_exists()? {
            // It holds the room that the keeper needs for its first beat, should the disk be full by then.
            files::replace(&mark.heart, &[b' '; HEART_BYTES], Durability::Cached)?;
        }
        files::replace(&mark.file, self.path.as_os_str().as_encoded_bytes(), Durability::Content).map(drop)
    }

    /// Is the mark of our state in it? Without one of our own, any directory will do.
    pub(super) fn has_mark(&self) -> io::Result<bool> {
        self.mark.as_ref().map_or(Ok(true), |mark| mark.heart.try_exists())
    }

    /// An error unless it is there, and still the directory that it was.
    pub(crate) fn must_be_it(&self) -> io::Result<()> {
        if self.is_where_it_was()? && self.has_mark()? { Ok(()) } else { Err(Self::not_where_it_was()) }
    }

    /// How much room there is for this user, where the file system says.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.path).ok()?;
        (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// What could not be done in it, and why; with how much room there is, if it is for want of it.
    pub(super) fn in_numbers(&self, what: &str, error: &io::Error) -> Problem {
        let free = self.free_bytes().filter(|_| files::is_no_room(error)).map(in_words);
        let path = self.path.display();
        let free =
            free.map(|free| format!("; {free} are free in RESULTS_DIR ({path}), and it goes on when there is room"));
        let free = free.unwrap_or_default();
        format!("{what}: {error}{free}").into()
    }

    /// What makes files in it that never take the place of others.
    pub(crate) fn creator(&self) -> &Creator {
        &self.creator
    }

    pub(super) fn not_where_it_was() -> io::Error {
        io::Error::other(
            "RESULTS_DIR is not the directory that it was; mount its file system again, or start hpc-consumer anew if it was replaced on purpose",
        )
    }

    /// Another `RESULTS_DIR` that this state was used with last, if there is one.
    pub(crate) fn moved_from(state_dir: &Path, results_dir: &Path) -> Option<PathBuf> {
        Self::of(state_dir).filter(|known| known != results_dir)
    }

    /// The `RESULTS_DIR` that this state was used with last.
    pub(crate) fn of(state_dir: &Path) -> Option<PathBuf> {
        read_mark(&mark_in(state_dir))
    }

    /// Is this still the directory that it was when it was looked at first?
    pub(super) fn is_where_it_was(&self) -> io::Result<bool> {
        let Some(known) = self.known.get() else { return Ok(true) };
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.ino() == *known),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Is there hardly any room left, or may nothing be written? Quotas are not seen by this; [`Self::probe`] sees
    /// them.
    pub(super) fn takes_nothing(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|space| {
            space.f_flag.contains(StatVfsMountFlags::RDONLY)
                || space.f_bavail.saturating_mul(space.f_frsize) < PROBE_BYTES as u64
        })
    }
}

/// The file that names the `RESULTS_DIR` of a state.
fn mark_in(state_dir: &Path) -> PathBuf {
    state_dir.join("results-dir")
}

fn read_mark(file: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(OsString::from_vec(files::read_own(file, OWN_FILE_BYTES_MAX).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_at_the_same_time_do_not_blame_the_disk_for_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().join("results")).marked_by(state.path(), "o1");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| assert!(results.probe().is_ok(), "{:?}", results.probe())));
            }
        });
        assert_eq!(fs::read_dir(results.probe().unwrap()).unwrap().count(), 0, "a probe leaves nothing behind");
        fs::remove_dir_all(temp.path().join("results")).unwrap();
        fs::write(temp.path().join("results"), "in its place").unwrap();
        assert!(results.probe().unwrap_err().contains("cannot be written"));
    }

    #[test]
    fn a_state_knows_the_directory_that_it_was_used_with_last() {
        let temp = tempfile::tempdir().unwrap();
        let (first, second) = (temp.path().join("first"), temp.path().join("second"));
        let moved_from = |path: &Path| ResultsDir::moved_from(temp.path(), path);
        assert_eq!(moved_from(&first), None);
        for (path, other) in [(&first, &second), (&second, &first), (&first, &second)] {
            ResultsDir::new(path.clone()).marked_by(temp.path(), "o1").probe().unwrap();
            assert_eq!((moved_from(path), moved_from(other)), (None, Some(path.clone())));
        }
        fs::remove_dir_all(&first).unwrap();
        fs::create_dir(&first).unwrap();
        let emptied = ResultsDir::new(first.clone()).marked_by(temp.path(), "o1");
        assert!(emptied.probe().unwrap_err().contains("it has lost the mark"));
    }

    #[test]
    fn a_directory_that_takes_the_place_of_another_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let (path, away) = (temp.path().join("results"), temp.path().join("away"));
        let results = ResultsDir::new(path.clone());
        results.probe().unwrap();
        fs::rename(&path, &away).unwrap();
        assert!(results.probe().unwrap_err().contains("not the directory that it was"));
        assert!(!path.exists(), "it is not made a second time");
        fs::create_dir(&path).unwrap();
        assert!(results.probe().is_err() && !results.is_where_it_was().unwrap());
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        results.probe().unwrap();
    }
}
