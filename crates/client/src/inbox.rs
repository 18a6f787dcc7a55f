//! The inbox: results on this machine's disk, one file a job.
//!
//! ```text
//! DIR/results/<job_id>.json    the JSON of the message, byte for byte
//! DIR/rejected/<sha256>.json   a message that is JSON but no result
//! DIR/rejected/<sha256>.bin    a message that is not JSON, as it came
//! DIR/events/<sha256>.json     a message that tells of something on the way, such as a heartbeat
//! DIR/incoming/                files that are being written
//! ```
//!
//! Out of scope: the queue and its acknowledgements (`receive`).
//!
//! Invariants: a name in `results`, `rejected` or `events` appears at once with all of its content, and never changes
//! after that; any number of processes may share an inbox ([`files::Creator`]). No path is built from text but job ids
//! and digests.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use files::{Creator, Durability};
use protocol::{JobId, JobResult, Json};
use sha2::{Digest as _, Sha256};

/// A file in `incoming` that is older than this was left behind by a process that was killed.
const INCOMING_AGE_MAX: Duration = Duration::from_hours(1);

/// A result, together with the text that it was read from.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The JSON as it came.
    pub text: String,
    /// What it says.
    pub result: JobResult,
}

/// Why the inbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("cannot make the directory {} of the inbox", path.display())]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The names in a directory cannot be made to last.
    #[error("cannot sync the directory {}", path.display())]
    Sync {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that should hold a result does not.
    #[error("{} is no result; move it out of the inbox", path.display())]
    NoResult {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file holds the result of another job. Where the file system ignores case, two ids can be one name.
    #[error("{} is the result of the job {job_id}; move it out of the inbox", path.display())]
    OfAnotherJob {
        /// Which file.
        path: PathBuf,
        /// Whose result it is.
        job_id: JobId,
    },
    /// A message cannot be written.
    #[error(
        "cannot store {}; it was not acknowledged and comes again when its lease lapses: {}",
        path.display(), storing_advice(source.kind())
    )]
    Store {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name was taken, and then was not any more.
    #[error("{} was taken away while a second result of its job arrived", path.display())]
    TakenAway {
        /// Which one.
        path: PathBuf,
    },
}

/// What became of a result that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    New,
    /// There is a result of this job already, which stays.
    Duplicate,
}

/// The place where results are kept.
#[derive(Debug, Clone)]
pub struct Inbox {
    results: PathBuf,
    rejected: PathBuf,
    events: PathBuf,
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
        let [results, rejected, events, incoming] =
            ["results", "rejected", "events", "incoming"].map(|name| dir.join(name));
        let creator = Arc::new(Creator::new(incoming.clone()));
        Self { results, rejected, events, incoming, creator }
    }

    /// Makes the directories, readable by their owner alone, and clears away what killed processes left.
    pub fn prepare(&self) -> Result<(), Error> {
        for directory in [&self.results, &self.rejected, &self.events, &self.incoming] {
            files::make_dir(directory).map_err(|source| Error::Make { path: directory.clone(), source })?;
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
        Ok(())
    }

    /// The result of a job, when it is here.
    pub fn find(&self, job_id: &JobId) -> Result<Option<Arrived>, Error> {
        let path = self.result_path(job_id);
        let text = match fs::read_to_string(&path) {
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

    /// Stores a result, unless there is one of this job already. It lasts only after [`Inbox::sync`].
    pub fn keep(&self, arrived: &Arrived) -> Result<Kept, Error> {
        let job_id = &arrived.result.job_id;
        let path = self.result_path(job_id);
        if self.link_new(arrived.text.as_bytes(), &path)? {
            return Ok(Kept::New);
        }
        // Something has the name. It may only be taken for this job's result when it is that.
        match self.find(job_id)? {
            Some(_) => Ok(Kept::Duplicate),
            None => Err(Error::TakenAway { path }),
        }
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
        sync_directory(&self.results)?;
        sync_directory(&self.rejected)?;
        sync_directory(&self.events)
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

fn digest(content: &str) -> String {
    Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_directory(directory: &Path) -> Result<(), Error> {
    files::sync_dir(directory).map_err(|source| Error::Sync { path: directory.to_owned(), source })
}

fn storing_advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room",
        ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
            "choose a --data-dir that you can write to, on a file system with hard links"
        }
        _ => "see to the --data-dir",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn inbox() -> (tempfile::TempDir, Inbox) {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(&dir.path().join("a").join("b"));
        inbox.prepare().unwrap();
        (dir, inbox)
    }

    fn arrived(job_id: &str, pointer: &str) -> Arrived {
        let text = format!(
            "{{ \"v\": 1, \"job_id\": \"{job_id}\", \"status\": \"completed\", \"result_pointer\": \"{pointer}\" }}\n"
        );
        Arrived::parse(text).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_result_stays_byte_for_byte() {
        let (_dir, inbox) = inbox();
        let first = arrived("j1", "file:///first");
        let id = &first.result.job_id;
        assert!(inbox.find(id).unwrap().is_none());
        assert_eq!(inbox.keep(&first).unwrap(), Kept::New);
        assert_eq!(inbox.keep(&arrived("j1", "file:///second")).unwrap(), Kept::Duplicate);
        inbox.sync().unwrap();
        assert_eq!(inbox.find(id).unwrap().unwrap().text, first.text);
        assert_eq!(names(&inbox.results), ["j1.json"]);
        assert!(names(&inbox.incoming).is_empty());
        assert_eq!(first.line(), r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file:///first"}"#);
    }

    #[test]
    fn of_many_at_once_one_is_the_first() {
        let (_dir, inbox) = inbox();
        let start = Barrier::new(8);
        let kept: Vec<Kept> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (inbox, start) = (&inbox, &start);
                    scope.spawn(move || {
                        let arrived = arrived("j1", &format!("file:///{number}"));
                        start.wait();
                        inbox.keep(&arrived).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(kept.iter().filter(|kept| **kept == Kept::New).count(), 1, "{kept:?}");
        assert!(inbox.find(&"j1".parse().unwrap()).unwrap().is_some());
    }

    #[test]
    fn what_is_not_the_jobs_result_is_not_taken_for_it() {
        let (_dir, inbox) = inbox();
        fs::create_dir(inbox.results.join("j1.json")).unwrap();
        fs::write(inbox.results.join("j2.json"), "").unwrap();
        fs::write(inbox.results.join("j3.json"), &arrived("J3", "x").text).unwrap();
        for id in ["j1", "j2", "j3"] {
            let error = format!("{:#}", inbox.keep(&arrived(id, "x")).unwrap_err());
            assert!(error.contains(&format!("{id}.json")), "{error}");
        }
    }

    #[test]
    fn rejected_messages_are_named_by_their_content() {
        let (_dir, inbox) = inbox();
        let path = inbox.reject("../../etc/passwd\0", false).unwrap();
        assert_eq!(inbox.reject("../../etc/passwd\0", false).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"../../etc/passwd\0");
        let json = inbox.reject("{}", true).unwrap();
        assert_eq!(json.extension(), Some(OsStr::new("json")));
        assert_eq!(names(&inbox.rejected).len(), 2);
        assert_eq!(json.parent(), Some(inbox.rejected.as_path()));
    }

    #[test]
    fn a_failing_write_leaves_nothing_behind() {
        let (_dir, inbox) = inbox();
        fs::remove_dir(&inbox.results).unwrap();
        fs::write(&inbox.results, "in the way").unwrap();
        let error = format!("{:#}", inbox.keep(&arrived("j1", "x")).unwrap_err());
        assert!(error.contains("not acknowledged"), "{error}");
        assert!(names(&inbox.incoming).is_empty());
        assert!(inbox.prepare().is_err());
    }

    #[test]
    fn only_old_leftovers_are_cleared_away() {
        let (_dir, inbox) = inbox();
        for name in [".tmpOld", ".j1.json.1-0.new", "of-somebody-else"] {
            let file = fs::File::create(inbox.incoming.join(name)).unwrap();
            file.set_modified(SystemTime::now() - 2 * INCOMING_AGE_MAX).unwrap();
        }
        fs::write(inbox.incoming.join(".tmpYoung"), "").unwrap();
        inbox.prepare().unwrap();
        assert_eq!(names(&inbox.incoming), [".tmpYoung", "of-somebody-else"]);
    }
}
