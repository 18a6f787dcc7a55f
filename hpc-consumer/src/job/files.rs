//! The names in `RESULTS_DIR`, and the ways in which its files come to be.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::{JobId, JobInput, JobMessage, JobResult, Timestamp, limits};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// No record or `meta.json` of ours is larger; one that is, is not ours.
const OWN_FILE_BYTES_MAX: u64 = 1_000_000;

/// What a probe writes: enough to need room on the disk.
const PROBE_BYTES: usize = 64 * 1024;

/// Job directories are for their owner: a cluster's disk is shared.
const JOB_DIR_MODE: u32 = 0o700;

/// `RESULTS_DIR`.
#[derive(Debug, Clone)]
pub(crate) struct ResultsDir(PathBuf);

/// The right to work in a `RESULTS_DIR`, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Ownership(#[expect(dead_code, reason = "the lock goes with the open file")] File);

/// A final record as it is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// None.
    Missing,
    /// The record.
    Whole(String),
    /// Something that is no record; the text says what is wrong with it.
    Unreadable(String),
}

/// `RESULTS_DIR/<job_id>/`, claimed for an attempt.
#[derive(Debug)]
pub(crate) struct JobDir {
    path: PathBuf,
    /// Which attempt the claim is for.
    pub(crate) attempt: u32,
}

/// What a claim found.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The directory is ours, for this attempt.
    Ours(JobDir),
    /// The job has its final record already.
    Finished(String),
    /// The job has ended, but its final record cannot be read: it is lost how.
    Lost(String),
    /// There is something in its place that is not ours, and stays.
    Foreign,
}

/// `meta.json`: which attempt this is, where and when.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    v: u64,
    job_id: JobId,
    attempt: u32,
    host: String,
    started_at: Timestamp,
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
        Self(path)
    }

    /// Takes the directory for this daemon: a second one would claim the jobs of the first as its own next attempts.
    /// `None` when another one has it.
    pub(crate) fn own(&self) -> io::Result<Option<Ownership>> {
        fs::create_dir_all(&self.0)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.0.join(".lock"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Ownership(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Can files be made here, as a job needs them? Leaves an empty directory that stands for a job's. The text says
    /// why not.
    pub(crate) fn probe(&self) -> Result<PathBuf, String> {
        // Several runs that fail together ask at the same time, so the directory stays and the files have their own names.
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let scratch = self.0.join(".probe");
        let write = || {
            DirBuilder::new().recursive(true).mode(JOB_DIR_MODE).create(&scratch)?;
            let (file, link) = (scratch.join(format!("file-{number}")), scratch.join(format!("link-{number}")));
            // An earlier daemon may have died between making and removing them.
            remove_any(&link)?;
            let written = write_synced(&file, &[0; PROBE_BYTES])
                // Final records are put into place like this.
                .and_then(|()| fs::hard_link(&file, &link));
            remove_any(&file)?;
            remove_any(&link)?;
            written
        };
        write().map_err(|error| format!("RESULTS_DIR {} cannot be written: {error}", self.0.display()))?;
        Ok(scratch)
    }

    /// Is there hardly any room left? Quotas are not seen by this; [`Self::probe`] sees them.
    pub(crate) fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.0)
            .is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) < PROBE_BYTES as u64)
    }

    /// Claims the directory of a job, unless the job has ended or something else is in its place.
    pub(crate) fn claim(&self, job: &JobMessage, host: &str, now: Timestamp) -> io::Result<Claim> {
        match self.record(&job.job_id)? {
            Record::Missing => {}
            Record::Whole(record) => return Ok(Claim::Finished(record)),
            Record::Unreadable(problem) => return Ok(Claim::Lost(problem)),
        }
        let path = self.job_dir(&job.job_id);
        let attempt = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => match earlier_attempt(&path, &job.job_id)? {
                Some(attempt) => attempt.saturating_add(1),
                None => return Ok(Claim::Foreign),
            },
            Ok(_) => return Ok(Claim::Foreign),
        };
        let meta = Meta { v: 1, job_id: job.job_id.clone(), attempt, host: host.to_owned(), started_at: now };
        if attempt == 1 {
            // Made aside and moved into place, so that a directory of ours always holds its meta.json.
            let aside = self.0.join(format!(".new-{}-{}", job.job_id, std::process::id()));
            remove_any(&aside)?;
            DirBuilder::new().mode(JOB_DIR_MODE).create(&aside)?;
            fs::write(aside.join("input.json"), input(job))?;
            fs::write(aside.join("meta.json"), to_json(&meta))?;
            if let Err(error) = fs::rename(&aside, &path) {
                let _ = remove_any(&aside);
                return Err(error);
            }
        } else {
            // An earlier attempt may have locked itself out.
            fs::set_permissions(&path, Permissions::from_mode(JOB_DIR_MODE))?;
            for name in ["output.json", "stdout.log", "stderr.log", "input.json", "meta.json.new"] {
                remove_any(&path.join(name))?;
            }
            fs::write(path.join("input.json"), input(job))?;
            fs::write(path.join("meta.json.new"), to_json(&meta))?;
            fs::rename(path.join("meta.json.new"), path.join("meta.json"))?;
        }
        Ok(Claim::Ours(JobDir { path, attempt }))
    }

    /// The final record of a job.
    pub(crate) fn record(&self, job_id: &JobId) -> io::Result<Record> {
        let path = self.record_path(job_id);
        let unreadable = |problem: String| Ok(Record::Unreadable(format!("{} {problem}", path.display())));
        let text = match read_own_file(&path)? {
            OwnFile::Missing => return Ok(Record::Missing),
            OwnFile::Foreign => return unreadable("is not a file of ours".to_owned()),
            OwnFile::Text(text) => text,
        };
        let record = text.trim_end();
        match JobResult::parse(record) {
            Ok(result) if result.job_id != *job_id => unreadable("is the record of another job".to_owned()),
            Ok(_) if record.len() > limits::MESSAGE_BODY_BYTES_MAX => {
                unreadable("is larger than a message can be".to_owned())
            }
            Ok(_) => Ok(Record::Whole(record.to_owned())),
            Err(error) => unreadable(format!("is no record: {error}")),
        }
    }

    /// Puts a record that cannot be read out of the way, and keeps it.
    pub(crate) fn put_record_away(&self, job_id: &JobId, now: Timestamp) -> io::Result<()> {
        let directory = self.aside()?;
        fs::rename(self.record_path(job_id), directory.join(format!("{job_id}.record-{}", now.as_millisecond())))
    }

    /// Writes the final record of a job: whole, on disk before it has its name, and never over an earlier one.
    /// Returns the record that stands.
    pub(crate) fn write_record(&self, job_id: &JobId, record: &str) -> io::Result<String> {
        let aside = self.0.join(format!(".record-{job_id}-{}", std::process::id()));
        remove_any(&aside)?;
        write_synced(&aside, format!("{record}\n").as_bytes())?;
        let linked = fs::hard_link(&aside, self.record_path(job_id));
        let _ = fs::remove_file(&aside);
        match linked {
            Ok(()) => {
                File::open(&self.0)?.sync_all()?;
                Ok(record.to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.record(job_id)? {
                Record::Whole(record) => Ok(record),
                Record::Missing => Err(io::Error::other("a final record that came meanwhile has gone again")),
                Record::Unreadable(problem) => Err(io::Error::other(problem)),
            },
            Err(error) => Err(error),
        }
    }

    /// Keeps a message that was no job, under a name made from its content: the same message again is the same file.
    pub(crate) fn put_away(&self, body: &str, problem: &str, now: Timestamp) -> io::Result<PathBuf> {
        let directory = self.aside()?;
        let digest = Sha256::digest(body.as_bytes());
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(format!("{name}.json"));
        let aside = directory.join(format!(".{name}-{}", std::process::id()));
        write_synced(&aside, to_json(&Rejected { v: 1, problem, rejected_at: now, body }).as_bytes())?;
        fs::rename(&aside, &path)?;
        Ok(path)
    }

    /// Where things are kept that are of no job. No job id begins like this.
    fn aside(&self) -> io::Result<PathBuf> {
        let directory = self.0.join("_rejected");
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    pub(crate) fn job_dir(&self, job_id: &JobId) -> PathBuf {
        self.0.join(job_id.as_str())
    }

    pub(crate) fn record_path(&self, job_id: &JobId) -> PathBuf {
        self.0.join(format!("{job_id}.json"))
    }
}

impl JobDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path.join("output.json")
    }

    /// Makes the names in the directory durable, that of the output above all.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Takes the directory back from the run, which may have locked us and itself out of it.
    pub(crate) fn take_back(&self) -> io::Result<()> {
        match fs::set_permissions(&self.path, Permissions::from_mode(JOB_DIR_MODE)) {
            // A job may remove its own directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Which attempt left this directory behind; `None` when it is not of this job.
fn earlier_attempt(path: &Path, job_id: &JobId) -> io::Result<Option<u32>> {
    let meta = match read_own_file(&path.join("meta.json"))? {
        // The machine went down before it was on the disk. Nobody else leaves an empty one.
        OwnFile::Text(text) if text.is_empty() => return Ok(Some(1)),
        OwnFile::Text(text) => serde_json::from_str::<Meta>(&text).ok(),
        OwnFile::Missing | OwnFile::Foreign => None,
    };
    if let Some(meta) = meta {
        return Ok((meta.job_id == *job_id).then_some(meta.attempt.max(1)));
    }
    // A job can spoil its meta.json. Its input still tells whose directory it is.
    #[derive(Deserialize)]
    struct Whose {
        job_id: JobId,
    }
    let input = match read_own_file(&path.join("input.json"))? {
        OwnFile::Text(text) => serde_json::from_str::<Whose>(&text).ok(),
        OwnFile::Missing | OwnFile::Foreign => None,
    };
    Ok(input.is_some_and(|input| input.job_id == *job_id).then_some(1))
}

fn input(job: &JobMessage) -> String {
    to_json(&JobInput { job_id: &job.job_id, task: &job.task, input: &job.input, metadata: &job.metadata })
}

fn to_json<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).expect("our files hold only strings, numbers and JSON");
    text.push('\n');
    text
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What stands where a small file of ours should be.
enum OwnFile {
    Missing,
    Text(String),
    Foreign,
}

/// Reads a small regular file, not following links.
fn read_own_file(path: &Path) -> io::Result<OwnFile> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OwnFile::Missing),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() > OWN_FILE_BYTES_MAX {
        return Ok(OwnFile::Foreign);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(OWN_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).map_or(OwnFile::Foreign, OwnFile::Text))
}

/// Removes whatever has this name, a directory with all that is in it too.
fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> JobMessage {
        JobMessage::parse(&format!(r#"{{"job_id":"{id}","task":"echo","input":{{"n":1}}}}"#)).unwrap()
    }

    #[test]
    fn a_job_is_claimed_attempt_by_attempt_until_it_has_a_record() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job = job("j1");
        for attempt in 1..=3 {
            let Claim::Ours(dir) = results.claim(&job, "node1", Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
            assert_eq!(dir.attempt, attempt);
            assert!(!dir.output().exists(), "an earlier attempt's output must not be taken for this one's");
            fs::write(dir.output(), "1").unwrap();
        }
        let input = fs::read_to_string(temp.path().join("j1/input.json")).unwrap();
        assert_eq!(input, "{\"job_id\":\"j1\",\"task\":\"echo\",\"input\":{\"n\":1},\"metadata\":null}\n");
        let first = r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"x"}"#;
        let second = first.replace("completed", "failed");
        assert_eq!(results.write_record(&job.job_id, first).unwrap(), first);
        assert_eq!(results.write_record(&job.job_id, &second).unwrap(), first);
        let Claim::Finished(record) = results.claim(&job, "node1", Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
        assert_eq!(record, first);
    }

    #[test]
    fn a_job_that_spoils_its_directory_is_still_known() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let meta = temp.path().join("j1/meta.json");
        let attempt = || match results.claim(&job("j1"), "node1", Timestamp::UNIX_EPOCH).unwrap() {
            Claim::Ours(dir) => dir.attempt,
            other => panic!("{other:?}"),
        };
        assert_eq!(attempt(), 1);
        for spoiled in ["", "{", r#"{"v":1,"job_id":"j1","attempt":0,"host":"x","started_at":"2026-11-21T00:00:00Z"}"#]
        {
            fs::write(&meta, spoiled).unwrap();
            assert_eq!(attempt(), 2, "{spoiled:?}");
        }
        fs::remove_file(&meta).unwrap();
        assert_eq!(attempt(), 2);
        fs::set_permissions(temp.path().join("j1"), Permissions::from_mode(0o111)).unwrap();
        // Root is never locked out; others are, and read nothing here.
        if fs::read_dir(temp.path().join("j1")).is_ok() {
            assert_eq!(attempt(), 3);
        }
    }

    #[test]
    fn what_is_no_record_is_not_published_as_one() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job = job("j1");
        let path = results.record_path(&job.job_id);
        let other = r#"{"v":1,"job_id":"j2","status":"completed","result_pointer":"x"}"#;
        for (content, problem) in [("", "no record"), ("{}", "no record"), (other, "another job")] {
            fs::write(&path, content).unwrap();
            let Claim::Lost(said) = results.claim(&job, "node1", Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
            assert!(said.contains(problem) && said.contains("j1.json"), "{said}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(results.claim(&job, "node1", Timestamp::UNIX_EPOCH).unwrap(), Claim::Lost(_)));
        results.put_record_away(&job.job_id, Timestamp::UNIX_EPOCH).unwrap();
        assert!(temp.path().join("_rejected/j1.record-0").is_dir());
        assert_eq!(results.record(&job.job_id).unwrap(), Record::Missing);
    }

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
    fn one_daemon_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().join("results"));
        let owner = results.own().unwrap();
        assert!(owner.is_some() && results.own().unwrap().is_none());
        drop(owner);
        assert!(results.own().unwrap().is_some());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        fs::create_dir(temp.path().join("j1")).unwrap();
        fs::write(temp.path().join("j1/thesis.tex"), "x").unwrap();
        fs::write(temp.path().join("j2"), "x").unwrap();
        for id in ["j1", "j2"] {
            assert!(matches!(results.claim(&job(id), "node1", Timestamp::UNIX_EPOCH).unwrap(), Claim::Foreign));
        }
        assert!(temp.path().join("j1/thesis.tex").exists());
    }
}
