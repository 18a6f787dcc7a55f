//! The inbox: results on this machine's disk, one file a job.
//!
//! ```text
//! DIR/results/<job_id>.json    the JSON of the message, byte for byte
//! DIR/conflicting/<job_id>.<sha256>.json   another result of a job that has one, with other bytes
//! DIR/rejected/<sha256>.json   a message that is JSON but no result
//! DIR/rejected/<sha256>.bin    a message that is not JSON, as it came
//! DIR/events/<sha256>.json     a message that tells of something on the way, such as a heartbeat
//! DIR/submitted/<job_id>.json  what the edge answered to a submission of this machine, and the job
//! DIR/polling/                 whose turn it is to look at the queue (`turn`)
//! DIR/incoming/                files that are being written
//! ```
//!
//! Out of scope: the queue and its acknowledgements (`receive`).
//!
//! Invariants: a name in `results`, `conflicting`, `rejected`, `events` or `submitted` appears at once with all of its
//! content, and never changes after that, but for a result whose files were sent once more; any number of processes may
//! share an inbox ([`files::Creator`]). No path is built from text but job ids and digests. What is no result of a job
//! that was waited for is kept within bounds, for whoever can write to the queue decides how much of it comes.

mod error;
mod submitted;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use files::{Access, Bounds, Creator, Durability, Secured, Trust};
use protocol::{JobId, JobResult, JobSpec, Json, limits};
use sha2::{Digest as _, Sha256};

pub use self::error::Error;
use self::submitted::Noted;
pub use self::submitted::{Submission, Words};

/// A file in `incoming` that is older than this was left behind by a process that was killed.
const INCOMING_AGE_MAX: Duration = Duration::from_hours(1);

/// How much is kept of each kind of what is no result.
const ASIDE: Bounds =
    Bounds { count: limits::ASIDE_COUNT_MAX, bytes: limits::ASIDE_BYTES_MAX, age: limits::ASIDE_AGE_MAX };

/// No message is longer.
const FILE_BYTES_MAX: u64 = 16_000_000;

/// A result, together with the text that it was read from.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The JSON as it came.
    pub text: String,
    /// What it says.
    pub result: JobResult,
}

/// What became of a result that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    New,
    /// The same result is here already.
    Duplicate,
    /// There is another result of this job, which stays; this one is kept aside.
    Aside {
        /// Where.
        path: PathBuf,
        /// Was it not there before?
        is_new: bool,
    },
}

/// The place where results are kept.
#[derive(Debug, Clone)]
pub struct Inbox {
    dir: PathBuf,
    results: PathBuf,
    conflicting: PathBuf,
    rejected: PathBuf,
    events: PathBuf,
    submitted: PathBuf,
    polling: PathBuf,
    incoming: PathBuf,
    creator: Arc<Creator>,
}

impl Arrived {
    /// Reads the JSON of a result.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        Ok(Self { result: JobResult::parse(&text)?, text })
    }

    /// The JSON on one line.
    pub fn line(&self) -> String {
        Json::parse(&self.text).expect("it was read as JSON before").as_str().to_owned()
    }
}

impl Inbox {
    /// The inbox in `dir`, an absolute path, which does not have to exist for looking into it.
    pub fn new(dir: &Path) -> Self {
        let [results, conflicting, rejected, events, submitted, polling, incoming] =
            ["results", "conflicting", "rejected", "events", "submitted", "polling", "incoming"]
                .map(|name| dir.join(name));
        let creator = Arc::new(Creator::new(incoming.clone()));
        Self { dir: dir.to_owned(), results, conflicting, rejected, events, submitted, polling, incoming, creator }
    }

    /// Makes the directories, readable by their owner alone, and clears away what killed processes left. An inbox in
    /// which others can change something is refused; what could be set right is told.
    pub fn prepare(&self, trust: &dyn Trust) -> Result<Secured, Error> {
        let Self { results, conflicting, rejected, events, submitted, polling, incoming, .. } = self;
        let secured = files::private_dir(&self.dir, Access::Readable, trust)
            .map_err(|source| Error::Prepare { path: self.dir.clone(), source })?;
        for directory in [results, conflicting, rejected, events, submitted, polling, incoming] {
            files::own_dir(directory).map_err(|source| Error::Make { path: directory.clone(), source })?;
        }
        // The names of the directories must last as long as the files in them.
        if let Some(dir) = self.results.parent() {
            sync_directory(dir)?;
            // A parent that cannot be opened is somebody else's, and nothing was made in it.
            if let Some(parent) = dir.parent()
                && let Err(error) = sync_directory(parent)
            {
                tracing::debug!("{error}");
            }
        }
        self.clear_incoming();
        Ok(secured)
    }

    /// The result of a job, when it is here.
    pub fn find(&self, job_id: &JobId) -> Result<Option<Arrived>, Error> {
        let path = self.result_path(job_id);
        let text = match files::read_own_text(&path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        match Arrived::parse(text) {
            Ok(arrived) if arrived.result.job_id == *job_id => Ok(Some(arrived)),
            Ok(arrived) => Err(Error::OfAnotherJob { path, job_id: arrived.result.job_id }),
            Err(source) => Err(Error::NoResult { path, source }),
        }
    }

    /// Does the result of a job seem to be here?
    pub(crate) fn has(&self, job_id: &JobId) -> bool {
        self.result_path(job_id).exists()
    }

    /// Stores a result, unless there is one of this job already. The same end with files that were sent later takes the
    /// place of the one before. It lasts only after [`Inbox::sync`].
    pub fn keep(&self, arrived: &Arrived) -> Result<Kept, Error> {
        let job_id = &arrived.result.job_id;
        let path = self.result_path(job_id);
        if self.link_new(arrived.text.as_bytes(), &path)? {
            return Ok(Kept::New);
        }
        // Something has the name. It may only be taken for this job's result when it is that.
        let Some(first) = self.find(job_id)? else { return Err(Error::TakenAway { path }) };
        if first.text == arrived.text || first.result.supersedes(&arrived.result) {
            return Ok(Kept::Duplicate);
        }
        if arrived.result.supersedes(&first.result) {
            let aside = self.incoming.join(format!(".{job_id}.{}.new", digest(&arrived.text)));
            let replaced = files::replace_through(&aside, &path, arrived.text.as_bytes(), Durability::Content);
            return replaced.map(|_| Kept::New).map_err(|source| Error::Store { path, source });
        }
        let path = self.conflicting.join(format!("{job_id}.{}.json", digest(&arrived.text)));
        let is_new = self.link_new(arrived.text.as_bytes(), &path)?;
        Ok(Kept::Aside { path, is_new })
    }

    /// Other results of a job that has one, as far as they are still kept.
    pub fn conflicting(&self, job_id: &JobId) -> Result<Vec<PathBuf>, Error> {
        let read = |source| Error::Read { path: self.conflicting.clone(), source };
        let entries = match fs::read_dir(&self.conflicting) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            // A job id has no dot in it.
            if entry.file_name().to_str().and_then(|name| name.split('.').next()) == Some(job_id.as_str()) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Stores a message that is no result. The same message again has the same name, and is stored once.
    pub fn reject(&self, content: &str, is_json: bool) -> Result<PathBuf, Error> {
        let path = self.rejected.join(digest(content)).with_extension(if is_json { "json" } else { "bin" });
        self.link_new(content.as_bytes(), &path)?;
        Ok(path)
    }

    /// Stores a message that is no result and nothing to worry about.
    pub fn keep_event(&self, content: &str) -> Result<(), Error> {
        self.link_new(content.as_bytes(), &self.events.join(digest(content)).with_extension("json")).map(drop)
    }

    /// Makes the names of all stored files last.
    pub fn sync(&self) -> Result<(), Error> {
        for directory in [&self.results, &self.conflicting, &self.rejected, &self.events] {
            sync_directory(directory)?;
        }
        Ok(())
    }

    /// Removes the oldest of what is kept and is no result, should there be too much of it. To be called after a look
    /// that has brought some.
    pub fn bound(&self) {
        for directory in [&self.conflicting, &self.rejected, &self.events] {
            match files::prune(directory, &ASIDE, SystemTime::now()) {
                Ok(0) => {}
                Ok(gone) => tracing::warn!(
                    "the {gone} oldest files in {} were removed: no more than {} are kept there, of {} MB, for {} days",
                    directory.display(),
                    ASIDE.count,
                    ASIDE.bytes / 1_000_000,
                    ASIDE.age.as_secs() / 86_400
                ),
                Err(error) => tracing::warn!("it cannot be seen how much {} holds: {error}", directory.display()),
            }
        }
    }

    /// Notes that a job was submitted from here; `answer` is what the edge said, beside which the note has the job. The
    /// job that was noted last is [`Inbox::last_submitted`], also if it was noted before.
    pub fn note_submitted(&self, job_id: &JobId, answer: &Json, job: &JobSpec) -> Result<(), Error> {
        self.note(job_id, &submitted::note(answer, job, None), Durability::Content)
    }

    /// The same of one of many, which last a moment later: who sends it again because a power cut took the note does so
    /// under the same key.
    pub fn note_one_of_many(&self, job_id: &JobId, answer: &Json, job: &JobSpec) -> Result<(), Error> {
        self.note(job_id, &submitted::note(answer, job, None), Durability::Cached)
    }

    /// The same of another run of a job.
    pub fn note_rerun(&self, job_id: &JobId, answer: &Json, job: &JobSpec, of: &JobId) -> Result<(), Error> {
        self.note(job_id, &submitted::note(answer, job, Some(of)), Durability::Content)
    }

    fn note(&self, job_id: &JobId, note: &str, durability: Durability) -> Result<(), Error> {
        let path = self.submitted_path(job_id);
        let made = self.creator.create(&path, note.as_bytes(), durability);
        if !made.map_err(|source| Error::Store { path: path.clone(), source })? {
            let again = files::open_append(&path).and_then(|file| file.set_modified(SystemTime::now()));
            again.map_err(|source| Error::Store { path, source })?;
        }
        Ok(())
    }

    /// The jobs whose results are here.
    pub fn arrived(&self) -> Result<Vec<JobId>, Error> {
        Ok(files(&self.results)?.into_iter().map(|(job_id, _)| job_id).collect())
    }

    /// The jobs that were submitted from here, as far as is known.
    pub fn submitted(&self) -> Result<Vec<JobId>, Error> {
        Ok(files(&self.submitted)?.into_iter().map(|(job_id, _)| job_id).collect())
    }

    /// The jobs that were submitted from here, with what is known of them.
    pub fn submissions(&self) -> Result<Vec<Submission>, Error> {
        let known = files(&self.submitted)?.into_iter().map(|(job_id, entry)| {
            let at = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            // Whoever wrote it: what cannot be read there is not known.
            let text = files::read_own_text(&entry.path(), FILE_BYTES_MAX).unwrap_or_default();
            let Noted { words, rerun_of } = submitted::noted(&text);
            Submission { job_id, at, words, rerun_of }
        });
        Ok(known.collect())
    }

    /// The job that was submitted from here under this id, where its note has it.
    pub fn submitted_job(&self, job_id: &JobId) -> Result<Option<JobSpec>, Error> {
        let path = self.submitted_path(job_id);
        let text = match files::read_own_text(&path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        submitted::job(&text).transpose().map_err(|source| Error::NoJob { path, source })
    }

    /// Removes all that is here of a job; `false` if nothing was. What was fetched into other places stays.
    pub fn remove(&self, job_id: &JobId) -> Result<bool, Error> {
        // The result goes last: a job without one would be waited for again.
        let paths = [vec![self.submitted_path(job_id)], self.conflicting(job_id)?, vec![self.result_path(job_id)]];
        let mut removed = false;
        for path in paths.into_iter().flatten() {
            match fs::remove_file(&path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Remove { path, source }),
            }
        }
        Ok(removed)
    }

    /// Was this job submitted from here, as far as is known?
    pub fn has_submitted(&self, job_id: &JobId) -> bool {
        self.submitted_path(job_id).exists()
    }

    /// The job that was submitted from here last.
    pub fn last_submitted(&self) -> Result<Option<JobId>, Error> {
        let modified = |entry: &fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let newest = files(&self.submitted)?.into_iter().max_by_key(|(_, entry)| modified(entry));
        Ok(newest.map(|(job_id, _)| job_id))
    }

    /// Where it is settled whose turn it is to look at the queue.
    pub(crate) fn polling(&self) -> &Path {
        &self.polling
    }

    /// When a result was stored last, as far as the file system can tell times apart.
    pub(crate) fn changed(&self) -> Option<SystemTime> {
        fs::metadata(&self.results).and_then(|metadata| metadata.modified()).ok()
    }

    fn submitted_path(&self, job_id: &JobId) -> PathBuf {
        self.submitted.join(job_id.as_str()).with_extension("json")
    }

    fn result_path(&self, job_id: &JobId) -> PathBuf {
        self.results.join(job_id.as_str()).with_extension("json")
    }

    /// Makes a file; `false` when the name is taken. Its name lasts after [`Inbox::sync`], once for many.
    fn link_new(&self, content: &[u8], path: &Path) -> Result<bool, Error> {
        let made = self.creator.create(path, content, Durability::Content);
        made.map_err(|source| Error::Store { path: path.to_owned(), source })
    }

    /// Housekeeping: what cannot be removed does no harm.
    fn clear_incoming(&self) {
        let is_old = |path: &Path| {
            let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > INCOMING_AGE_MAX))
        };
        for entry in fs::read_dir(&self.incoming).into_iter().flatten().flatten() {
            let path = entry.path();
            // Only what this program names so: somebody else may have put a file here.
            let is_ours = path.file_name().and_then(OsStr::to_str).is_some_and(|name| {
                // The first are those of earlier versions.
                name.starts_with(".tmp") || name.starts_with('.') && name.ends_with(".new")
            });
            if is_ours
                && is_old(&path)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::debug!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// The files in a directory that are named after jobs. None, where there is no directory.
fn files(directory: &Path) -> Result<Vec<(JobId, fs::DirEntry)>, Error> {
    let read = |source| Error::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        // Somebody else may have put a file here.
        if let Some(job_id) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()) {
            files.push((job_id, entry));
        }
    }
    Ok(files)
}

fn digest(content: &str) -> String {
    Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_directory(directory: &Path) -> Result<(), Error> {
    files::sync_dir(directory).map_err(|source| Error::Sync { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests;
