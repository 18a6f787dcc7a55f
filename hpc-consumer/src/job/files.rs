//! The names in `RESULTS_DIR`, and the ways in which its files come to be, are read and go.
//!
//! Out of scope: what the files mean.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use files::{Access, Bounds, Creator, DIR_MODE, Durability, Held, NotPrivate, Spares};
use lifecycle::{Attempt, Share};
use program::TrustedGroup;
use protocol::{JobId, Timestamp, limits};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::job_dir::JobDir;
use super::meta::meta_of;

/// The files of a job directory that are not its logs.
pub(super) const INPUT: &str = "input.json";
pub(super) const OUTPUT: &str = "output.json";
pub(super) const META: &str = "meta.json";

/// Where things are kept that are of no job.
const REJECTED_DIR: &str = "_rejected";

/// No record or `meta.json` of ours is larger; one that is, is not ours.
const OWN_FILE_BYTES_MAX: u64 = 1_000_000;

/// What a probe writes: enough to need room on the disk.
const PROBE_BYTES: usize = 64 * 1024;

/// More than a beat of the heart takes.
const HEART_BYTES: usize = 512;

/// How long a tree is removed that a job has made in place of a file of ours. Longer, and the next attempt begins
/// beside what is left of it.
pub(super) const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// So many records find room on a full disk, each of which fits in so many bytes.
const SPARES: u32 = 32;
const SPARE_BYTES: usize = limits::RESULT_BYTES_MAX.next_multiple_of(4 * 1024);

/// A claim makes fewer files, as does a probe.
const FILES_OF_A_CLAIM: u64 = 8;

/// How many directories of one name are kept at most. More than one means that a person has removed things.
const ASIDE_MAX: u32 = 1_000;

/// How much is kept of what was no job.
const REJECTED: Bounds =
    Bounds { count: limits::ASIDE_COUNT_MAX, bytes: limits::ASIDE_BYTES_MAX, age: limits::ASIDE_AGE_MAX };

/// After so many more it is counted again: on a network file system that takes time.
const REJECTED_MORE: usize = 32;

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
    /// What tells after a restart whether it is the one that it was.
    mark: Option<Arc<Mark>>,
    /// Room for records on a full disk.
    pub(super) reserve: Option<Arc<Spares>>,
    /// How much this process has put into `_rejected`.
    rejected: Arc<AtomicUsize>,
}

/// The heart of our keeper lies in `RESULTS_DIR`, and `STATE_DIR` remembers that it was made there.
#[derive(Debug)]
struct Mark {
    /// Holds the path of the `RESULTS_DIR` that has the heart.
    file: PathBuf,
    heart: PathBuf,
}

/// What has the name of a job directory.
#[derive(Debug)]
pub(super) enum Place {
    /// Nothing.
    Nothing,
    /// A directory.
    Dir(JobDir),
    /// Something else.
    Foreign,
}

/// What stands where a small file of ours should be.
#[derive(Debug)]
pub(super) enum OwnFile {
    /// Nothing.
    Missing,
    /// A file of text.
    Text(String),
    /// Something that we did not write.
    Foreign,
}

impl OwnFile {
    /// Is this a file of ours whose content is not there, or not yet? Some file systems leave zeros where data was not
    /// written.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if text.bytes().all(|byte| byte == 0 || byte.is_ascii_whitespace()))
    }
}

/// A message that was no job, as it is kept.
#[derive(Debug, Serialize)]
struct Rejected<'a> {
    v: u64,
    problem: &'a str,
    rejected_at: Timestamp,
    body: &'a str,
}

impl ResultsDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        let (creator, trust) = (Arc::new(Creator::new(path.clone())), TrustedGroup::default());
        Self { path, trust, creator, known: Arc::default(), mark: None, reserve: None, rejected: Arc::default() }
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
            .and_then(|_| fs::hard_link(&file, &link));
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

    /// Makes the directory of a job, unless something has its name: returns whether it did.
    pub(super) fn make_job_dir(&self, job_id: &JobId) -> io::Result<bool> {
        match files::new_dir(&self.job_dir(job_id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn open_job_dir(&self, job_id: &JobId) -> io::Result<Place> {
        open_dir(&self.job_dir(job_id))
    }

    /// Moves the directory of an attempt away, so that another one can take its name. Of many who try this with the
    /// same directory, known by its inode, one succeeds and is told where it is; the others are told nothing.
    pub(super) fn move_aside(
        &self,
        job_id: &JobId,
        attempt: Option<Attempt>,
        inode: u64,
    ) -> io::Result<Option<PathBuf>> {
        let from = self.job_dir(job_id);
        let mut to = self.attempt_dir(job_id, attempt);
        if let Some(attempts) = to.parent() {
            files::own_dir(attempts)?;
        }
        // To move a directory is to change it; its run may have locked us out.
        let _ = fs::set_permissions(&from, Permissions::from_mode(DIR_MODE));
        for number in 2..ASIDE_MAX {
            match fs::rename(&from, &to) {
                Ok(()) if fs::symlink_metadata(&to)?.ino() == inode => {
                    // Its run may go on where nobody saw it alive, and is ended there.
                    if let Ok(Place::Dir(dir)) = open_dir(&to) {
                        let _ = dir.close();
                    }
                    return Ok(Some(to));
                }
                Ok(()) => {
                    // Another one was faster, and this is what it made. If that was done a third time meanwhile, it
                    // keeps its claim, and this stays here.
                    let _ = fs::rename(&to, &from);
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if is_taken(&error) => {
                    if fs::symlink_metadata(&to).is_ok_and(|metadata| metadata.ino() == inode) {
                        return Ok(None);
                    }
                    // That of an earlier life of the job.
                    to.set_file_name(format!("{job_id}.{}-{number}", attempt.map_or(0, Attempt::get)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("there are too many directories like {}; remove some", to.display())))
    }

    /// Which attempt a directory that was moved aside is of, if that can be read.
    pub(super) fn attempt_in(&self, job_id: &JobId, moved: &Path) -> io::Result<Option<Attempt>> {
        let file = read_own_file(rustix::fs::CWD, &moved.join(META))?;
        Ok(meta_of(job_id, &file).and_then(|meta| Attempt::new(meta.attempt)))
    }

    /// Gives a directory that was moved aside the name of another attempt.
    pub(super) fn name_aside(&self, job_id: &JobId, moved: &Path, attempt: Attempt) -> io::Result<()> {
        match fs::rename(moved, self.attempt_dir(job_id, Some(attempt))) {
            // One of this attempt is there, which tells its owner as much.
            Err(error) if is_taken(&error) => Ok(()),
            done => done,
        }
    }

    /// Was the directory of this attempt moved away?
    pub(super) fn was_moved_aside(&self, job_id: &JobId, attempt: Option<Attempt>) -> io::Result<bool> {
        match fs::symlink_metadata(self.attempt_dir(job_id, attempt)) {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps a message that was no job, under a name made from its content: the same message again is the same file.
    pub(super) fn put_away(&self, body: &str, problem: &str, now: Timestamp) -> io::Result<PathBuf> {
        let directory = self.rejected_dir()?;
        let digest = Sha256::digest(body.as_bytes());
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(format!("{name}.json"));
        let text = to_json(&Rejected { v: 1, problem, rejected_at: now, body });
        Creator::new(directory).create(&path, text.as_bytes(), Durability::Named)?;
        self.bound_rejected();
        Ok(path)
    }

    /// Who fills the queue must not fill the disk. To be called after each thing that is put there.
    pub(super) fn bound_rejected(&self) {
        if !self.rejected.fetch_add(1, Ordering::Relaxed).is_multiple_of(REJECTED_MORE) {
            return;
        }
        let directory = self.path.join(REJECTED_DIR);
        match files::prune(&directory, &REJECTED, SystemTime::now()) {
            Ok(0) => {}
            Ok(gone) => tracing::warn!(
                "the {gone} oldest files in {} were removed: no more than {} are kept there, of {} MB, for {} days",
                directory.display(),
                REJECTED.count,
                REJECTED.bytes / 1_000_000,
                REJECTED.age.as_secs() / 86_400
            ),
            Err(error) => tracing::warn!("it cannot be seen how much {} holds: {error}", directory.display()),
        }
    }

    /// Where things are kept that are of no job. No job id begins like this.
    pub(super) fn rejected_dir(&self) -> io::Result<PathBuf> {
        let directory = self.path.join(REJECTED_DIR);
        // Not the directory above it: its file system may be away.
        files::own_dir(&directory)?;
        Ok(directory)
    }

    pub(super) fn job_dir(&self, job_id: &JobId) -> PathBuf {
        self.path.join(job_id.as_str())
    }

    pub(super) fn record_path(&self, job_id: &JobId) -> PathBuf {
        self.path.join(format!("{job_id}.json"))
    }

    pub(super) fn output_path(&self, job_id: &JobId) -> PathBuf {
        self.job_dir(job_id).join(OUTPUT)
    }

    fn attempt_dir(&self, job_id: &JobId, attempt: Option<Attempt>) -> PathBuf {
        aside_of(&self.job_dir(job_id), job_id, attempt)
    }

    /// The file that the keeper of this owner writes again and again, each time with another content.
    pub(crate) fn heart(&self, owner: &str) -> PathBuf {
        self.path.join(".owners").join(format!("{owner}.json"))
    }
}

pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).expect("our files hold only strings, numbers and JSON");
    text.push('\n');
    text
}

/// Where the directory of an attempt goes when the job is taken over. One whose number could not be read has the number
/// that is none.
pub(super) fn aside_of(job_dir: &Path, job_id: &JobId, attempt: Option<Attempt>) -> PathBuf {
    job_dir.with_file_name(".attempts").join(format!("{job_id}.{}", attempt.map_or(0, Attempt::get)))
}

/// The file that names the `RESULTS_DIR` of a state.
fn mark_in(state_dir: &Path) -> PathBuf {
    state_dir.join("results-dir")
}

fn open_dir(path: &Path) -> io::Result<Place> {
    // Without reading: a run may have locked us out.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        Err(Errno::NOENT) => return Ok(Place::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Place::Foreign),
        Err(error) => return Err(error.into()),
    };
    // One of another user is none of ours, whatever lies in it.
    Ok(if is_ours(&directory.metadata()?) { Place::Dir(JobDir::new(directory)) } else { Place::Foreign })
}

fn read_mark(file: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(OsString::from_vec(files::read_own(file, OWN_FILE_BYTES_MAX).ok()?)))
}

/// Reads a small regular file of this user, not following links and not waiting for the other end of a FIFO.
pub(super) fn read_own_file(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnFile> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(OwnFile::Missing),
        Err(Errno::LOOP | Errno::NXIO) => return Ok(OwnFile::Foreign),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || !is_ours(&metadata) || metadata.len() > OWN_FILE_BYTES_MAX {
        return Ok(OwnFile::Foreign);
    }
    // One more, to see the end of the file without asking again for room.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(OWN_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).map_or(OwnFile::Foreign, OwnFile::Text))
}

/// What another user has put there is not what we wrote, whatever it says.
fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Is something in the way of a move?
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_at_the_same_time_do_not_blame_the_disk_for_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().join("results"));
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

    #[test]
    fn one_of_many_moves_a_directory_away_and_nobody_what_comes_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job_id: JobId = "j1".parse().unwrap();
        let make = |content: &str| {
            assert!(results.make_job_dir(&job_id).unwrap());
            fs::write(results.job_dir(&job_id).join("file"), content).unwrap();
            fs::metadata(results.job_dir(&job_id)).unwrap().ino()
        };
        let moved = |name: &str| fs::read_to_string(temp.path().join(".attempts").join(name).join("file")).unwrap();
        let first = make("first");
        assert!(results.move_aside(&job_id, Attempt::new(1), first).unwrap().is_some());
        assert!(
            results.was_moved_aside(&job_id, Attempt::new(1)).unwrap()
                && !results.was_moved_aside(&job_id, Attempt::new(2)).unwrap()
        );
        assert!(results.move_aside(&job_id, Attempt::new(1), first).unwrap().is_none(), "nothing is left to move");
        let second = make("second");
        assert!(results.move_aside(&job_id, Attempt::new(1), first).unwrap().is_none(), "it was moved by another one");
        assert!(results.move_aside(&job_id, Attempt::new(7), first).unwrap().is_none(), "it has another number there");
        assert_eq!(fs::read_to_string(results.job_dir(&job_id).join("file")).unwrap(), "second");
        assert!(results.move_aside(&job_id, Attempt::new(1), second).unwrap().is_some(), "a number can come again");
        assert_eq!((moved("j1.1").as_str(), moved("j1.1-2").as_str()), ("first", "second"));
    }
}
