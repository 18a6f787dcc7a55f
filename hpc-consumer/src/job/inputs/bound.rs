//! Contents that containers see as the cache keeps them, and not as copies of their own: read-only files of jobs.
//!
//! ```text
//! RESULTS_DIR/.staging/<owner>/.bound-<job_id>/<sha256>   before the claim
//! RESULTS_DIR/.bound/<job_id>/<sha256>                    from the claim to the final record
//! ```
//!
//! Each is a further name (a hard link) of what lies in the cache. That is the hold on it: whichever daemon takes it
//! from the cache, now or after whatever has died, takes one name of two, and none takes what has two. In the job's
//! directory an empty file that nobody may read stands in its place, over which a container has it bound: should that
//! ever not be so, the job meets an error and not a file without content.
//!
//! Out of scope: how they are bound (`run`), which jobs have containers (`pools`).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::{Digest, JobFile, JobId, JobSpec, WorkPath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::tree::Trees;
use crate::job::files::{Place, REMOVED_WITHIN, is_missing};
use crate::job::results_dir::ResultsDir;

/// What stands in the place of a file that is bound.
const NOBODY: u32 = 0o000;

/// What a container sees of its read-only files, and where.
pub(crate) type Bound = Vec<(PathBuf, WorkPath)>;

/// Does the job have files that it only reads?
pub(crate) fn has_read_only(spec: &JobSpec) -> bool {
    spec.files.iter().any(|file| file.read_only)
}

/// May this file be bound? In the words of a bind a comma and a quote have a meaning of their own; so has a colon,
/// which no path holds.
pub(super) fn may_be_bound(file: &JobFile) -> bool {
    file.read_only && !file.pack && !file.path.as_str().contains([',', '"'])
}

/// Makes what stands in the place of a file that is bound.
pub(super) fn stand_in(file: &File) -> io::Result<()> {
    files::set_mode(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), NOBODY)
}

/// Is there a file at this path, and no link on the way to it?
fn stands_in(directory: BorrowedFd<'_>, path: &WorkPath) -> bool {
    let mut names = path.as_str().split('/');
    let last = names.next_back().unwrap_or_default();
    let mut at: Option<OwnedFd> = None;
    for name in names {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = at.as_ref().map_or(directory, |at| at.as_fd());
        match rustix::fs::openat(above, name, flags, Mode::empty()) {
            Ok(below) => at = Some(below),
            Err(_) => return false,
        }
    }
    let found = rustix::fs::statat(at.as_ref().map_or(directory, |at| at.as_fd()), last, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
}

/// Can a file of this kind have no further name here? Then it is copied.
pub(super) fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
    )
}

impl ResultsDir {
    fn all_bound(&self) -> PathBuf {
        self.path().join(".bound")
    }

    fn bound_dir(&self, job_id: &JobId) -> PathBuf {
        self.all_bound().join(job_id.as_str())
    }

    /// Takes what was staged for a job in the place of what its earlier attempt has had.
    pub(in crate::job) fn take_bound(&self, trees: &Trees, job_id: &JobId) -> io::Result<()> {
        let (from, to) = (trees.bound(job_id), self.bound_dir(job_id));
        files::own_dir(&self.all_bound())?;
        files::remove(&to, REMOVED_WITHIN)?;
        match fs::rename(&from, &to) {
            // All of it was copied.
            Err(error) if is_missing(&error) => Ok(()),
            done => done,
        }
    }

    /// What a run of this job sees of its read-only files. Those that were copied are not among them, nor those in
    /// whose place an earlier round of the job has put something else.
    pub(in crate::job) fn bound(&self, job_id: &JobId, spec: &JobSpec) -> Bound {
        if !has_read_only(spec) {
            return Vec::new();
        }
        let Ok(Place::Dir(dir)) = self.open_job_dir(job_id) else { return Vec::new() };
        let directory = self.bound_dir(job_id);
        let files = spec.files.iter().filter(|file| may_be_bound(file));
        let bound = files.map(|file| (link(&directory, &file.sha256), file.path.clone()));
        bound.filter(|(content, path)| content.exists() && stands_in(dir.as_fd(), path)).collect()
    }

    /// The job has ended, and sees nothing any more. What cannot be removed goes at the next start of a daemon.
    pub(in crate::job) fn unbind(&self, job_id: &JobId) {
        if let Err(error) = files::remove(&self.bound_dir(job_id), REMOVED_WITHIN) {
            tracing::warn!(%job_id, "what was kept for its read-only files cannot be removed: {error}");
        }
    }

    /// Removes what is there for jobs that have ended, or that nobody has claimed. What is staged comes here only once
    /// the job has its directory.
    pub(in crate::job) fn clean_bound(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.all_bound()) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Some(job_id) = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()) else { continue };
            if self.record_path(&job_id).exists() || !self.job_dir(&job_id).exists() {
                files::remove(&entry.path(), REMOVED_WITHIN)?;
            }
        }
        Ok(())
    }
}

/// Where a content lies among those of a job.
pub(super) fn link(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(digest.to_string())
}
