//! The names in `RESULTS_DIR`, and the ways in which its files come to be, are read and go.
//!
//! Out of scope: what the files mean; the directory itself (`results_dir`).

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use files::{Bounds, Creator, DIR_MODE, Durability};
use lifecycle::Attempt;
pub(super) use protocol::job_dir::{CHILDREN, CONTINUE, INPUT, META, OUTPUT, RESUMED, SERVICES};
use protocol::{JobId, Timestamp, limits};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::job_dir::JobDir;
use super::meta::meta_of;
use super::results_dir::ResultsDir;

/// Where things are kept that are of no job.
const REJECTED_DIR: &str = "_rejected";

/// No record or `meta.json` of ours is larger; one that is, is not ours.
pub(super) const OWN_FILE_BYTES_MAX: u64 = 1_000_000;

/// How long a tree is removed that a job has made in place of a file of ours. Longer, and the next attempt begins
/// beside what is left of it.
pub(super) const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// How many directories of one name are kept at most. More than one means that a person has removed things.
const ASIDE_MAX: u32 = 1_000;

/// How much is kept of what was no job.
const REJECTED: Bounds =
    Bounds { count: limits::ASIDE_COUNT_MAX, bytes: limits::ASIDE_BYTES_MAX, age: limits::ASIDE_AGE_MAX };

/// After so many more it is counted again: on a network file system that takes time.
const REJECTED_MORE: usize = 32;

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

pub(super) fn open_dir(path: &Path) -> io::Result<Place> {
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
pub(super) fn is_ours(metadata: &fs::Metadata) -> bool {
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
