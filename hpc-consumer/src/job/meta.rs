//! `meta.json`, in which a claim is written: reading it, telling whether it is still ours, and giving it up.
//!
//! It lies where the job can write, so it is proof of nothing that would harm another job: what it says of an owner is
//! believed when a directory is to be claimed, and not when it would cost a run its result.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifecycle::{Attempt, Problem, Run};
use protocol::{JobFile, JobId, Outputs, Timestamp};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::claim::{Claims, Wanted};
use super::files::{INPUT, META, OwnFile, Place, SERVICES, aside_of, is_missing, read_own_file, to_json};
use super::job_dir::JobDir;
use super::now;
use super::results_dir::ResultsDir;
use crate::run::LOGS;

/// `meta.json`: which attempt this is, whose, where and when.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    v: u64,
    job_id: JobId,
    pub(super) attempt: u32,
    /// Empty when the job was given back, and in files of versions that knew no owners.
    #[serde(default)]
    pub(super) owner: String,
    pub(super) host: String,
    pub(super) started_at: Timestamp,
    /// Files of the job were moved here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    files: bool,
    /// Which files are wanted of what it leaves, for who sends them once more when all else of the job is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outputs: Option<Outputs>,
    /// Files that it has brought to read only, which are none of its outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) read_only: Vec<JobFile>,
}

impl Claims {
    /// What our claim of a job says.
    pub(super) fn meta(&self, wanted: &Wanted, attempt: Attempt) -> String {
        let (outputs, read_only) = (wanted.outputs.clone(), wanted.read_only.clone());
        let files = wanted.has_files;
        to_json(&Meta { files, outputs, read_only, ..self.claim_of(self.owner(), &wanted.job_id, attempt) })
    }

    fn claim_of(&self, owner: &str, job_id: &JobId, attempt: Attempt) -> Meta {
        let (host, owner) = (self.host().to_owned(), owner.to_owned());
        let (job_id, attempt) = (job_id.clone(), attempt.get());
        let (started_at, files, outputs, read_only) = (now(), false, None, Vec::new());
        Meta { v: 1, job_id, attempt, owner, host, started_at, files, outputs, read_only }
    }

    /// Is this still the directory of our run? What `meta.json` tells is enough to say yes, but not to say no: a job
    /// can change it. Then the directory was taken over if it was moved away.
    pub(super) fn is_ours(&self, dir: Option<&JobDir>, run: &Run) -> io::Result<bool> {
        let meta = match dir {
            Some(dir) => meta_of(&run.job_id, &dir.read(META)?),
            None => None,
        };
        let moved = |attempt| self.results().was_moved_aside(&run.job_id, attempt);
        match meta {
            Some(meta) if meta.owner == self.owner() && meta.attempt == run.attempt.get() => Ok(true),
            // Its new owner could not read the number, and moved it as 0.
            Some(_) => Ok(!moved(Some(run.attempt))? && !moved(None)?),
            None => Ok(!moved(Some(run.attempt))?),
        }
    }

    /// Leaves a trace of a run that may have printed nothing, so that its number is not forgotten with the directory
    /// when its claim is given up.
    pub(super) fn leave_trace(&self, run: &Run) {
        // Where the directory cannot be written its claim cannot be given up, either.
        if let Ok(Place::Dir(dir)) = self.results().open_job_dir(&run.job_id)
            && self.is_ours(Some(&dir), run).unwrap_or(false)
        {
            let _ = dir.create_new(LOGS[0]);
        }
    }

    pub(super) fn unclaim(&self, run: &Run) -> Result<(), Problem> {
        self.try_unclaim(run).map_err(|error| {
            let place = self.results().job_dir(&run.job_id);
            format!("the claim for the job directory {} cannot be given up: {error}", place.display()).into()
        })
    }

    fn try_unclaim(&self, run: &Run) -> io::Result<()> {
        let dir = match self.results().open_job_dir(&run.job_id)? {
            Place::Dir(dir) => dir,
            // A job may remove its own directory.
            Place::Nothing | Place::Foreign if self.is_mounted()? => return Ok(()),
            // The claim stands where we cannot see it, and would keep every other daemon from the job.
            Place::Nothing | Place::Foreign => return Err(ResultsDir::not_where_it_was()),
        };
        let (attempt, files) = match meta_of(&run.job_id, &dir.read(META)?) {
            // A claim that failed half way may be for a later attempt than was asked for.
            Some(meta) if meta.owner == self.owner() && meta.attempt >= run.attempt.get() => {
                (Attempt::new(meta.attempt).unwrap_or(run.attempt), meta.files)
            }
            Some(_) => return Ok(()),
            // Not known to be ours: a claim that failed half way is another daemon's after a time, as it would be if we
            // had died; and an empty directory is nobody's.
            None => {
                let _ = fs::remove_dir(self.results().job_dir(&run.job_id));
                return Ok(());
            }
        };
        dir.unlock()?;
        // Where nothing has run there is no log, whatever files were moved there.
        let is_untouched =
            if files { !LOGS.iter().any(|log| dir.has(log)) } else { dir.holds_only(&[META, INPUT, SERVICES])? };
        // The number of a later attempt must not be forgotten with its directory.
        if attempt > Attempt::FIRST || !is_untouched {
            return dir.replace(META, &to_json(&self.claim_of("", &run.job_id, attempt)));
        }
        // In this order, so that what is left after a crash is ours, or empty.
        if let Some(error) = dir.remove_but(|name| name == META)?.pop() {
            return Err(error);
        }
        dir.remove(META)?;
        match fs::remove_dir(self.results().job_dir(&run.job_id)) {
            // Another one has made it its own in this moment.
            Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            done => done,
        }
    }
}

/// A job directory as the keeper knows it: claimed for a run that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldDir {
    path: PathBuf,
    inode: u64,
    record: PathBuf,
    /// Where the directory is moved by another daemon that takes the job over: one name if it could read which attempt
    /// this is, another one if not.
    aside: [PathBuf; 2],
}

impl HeldDir {
    /// The directory, held open, if it is claimed by this owner for this run and the job has no record. Asked before
    /// the run begins, when no job has had the directory since the claim was written.
    pub(crate) fn find(path: &Path, record: &Path, owner: &str, run: &Run) -> io::Result<Option<(Self, OwnedFd)>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let file = read_own_file(directory.as_fd(), META.as_ref())?;
        let ours =
            meta_of(&run.job_id, &file).is_some_and(|meta| meta.owner == owner && meta.attempt == run.attempt.get());
        if !ours || record.try_exists()? {
            return Ok(None);
        }
        let inode = rustix::fs::fstat(&directory)?.st_ino;
        let aside = [Some(run.attempt), None].map(|attempt| aside_of(path, &run.job_id, attempt));
        Ok(Some((Self { path: path.to_owned(), inode, record: record.to_owned(), aside }, directory)))
    }

    /// Has another daemon taken the job over, or ended it? A directory that is not there was removed by its job, and
    /// another one in its place may have been made by it as well: who takes a job over leaves a trace of the attempt.
    pub(crate) fn is_taken_over(&self) -> bool {
        let other = fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() != self.inode);
        (other && self.aside.iter().any(|aside| fs::symlink_metadata(aside).is_ok())) || self.record.exists()
    }
}

/// The claim in a `meta.json`, if it is one for this job.
pub(super) fn meta_of(job_id: &JobId, file: &OwnFile) -> Option<Meta> {
    let OwnFile::Text(text) = file else { return None };
    let meta: Meta = serde_json::from_str(text).ok()?;
    // It becomes part of a path, and a job can write here.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (meta.job_id == *job_id && meta.owner.len() <= JobId::LENGTH_MAX && meta.owner.bytes().all(plain)).then_some(meta)
}

impl JobDir {
    /// Has it the `input.json` of this job? We write the id first, whatever follows and however much.
    pub(super) fn is_input_of(&self, job_id: &JobId) -> io::Result<bool> {
        self.begins_with(INPUT, &format!("{{\"job_id\":\"{job_id}\","))
    }
}
