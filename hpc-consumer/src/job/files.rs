//! The names in `RESULTS_DIR`, and the ways in which its files come to be.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use protocol::{JobId, JobInput, JobMessage, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// No record or `meta.json` of ours is larger; one that is, is not ours.
const OWN_FILE_BYTES_MAX: u64 = 1_000_000;

/// What a probe writes: enough to need room on the disk.
const PROBE_BYTES: usize = 64 * 1024;

/// `RESULTS_DIR`.
#[derive(Debug, Clone)]
pub(crate) struct ResultsDir(PathBuf);

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

    /// Can files be made here? The text says why not.
    pub(crate) fn probe(&self) -> Result<(), String> {
        let write = || {
            fs::create_dir_all(&self.0)?;
            let probe = self.0.join(format!(".probe-{}", std::process::id()));
            let written = write_synced(&probe, &[0; PROBE_BYTES]);
            // Without the file, there is nothing to remove.
            let _ = fs::remove_file(&probe);
            written
        };
        write().map_err(|error| format!("RESULTS_DIR {} cannot be written: {error}", self.0.display()))
    }

    /// Claims the directory of a job, unless the job has ended or something else is in its place.
    pub(crate) fn claim(&self, job: &JobMessage, host: &str, now: Timestamp) -> io::Result<Claim> {
        if let Some(record) = self.record(&job.job_id)? {
            return Ok(Claim::Finished(record));
        }
        let path = self.job_dir(&job.job_id);
        let attempt = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => match earlier_attempt(&path, &job.job_id) {
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
            fs::create_dir(&aside)?;
            fs::write(aside.join("input.json"), input(job))?;
            fs::write(aside.join("meta.json"), to_json(&meta))?;
            if let Err(error) = fs::rename(&aside, &path) {
                let _ = remove_any(&aside);
                return Err(error);
            }
        } else {
            for name in ["output.json", "stdout.log", "stderr.log", "input.json", "meta.json.new"] {
                remove_any(&path.join(name))?;
            }
            fs::write(path.join("input.json"), input(job))?;
            fs::write(path.join("meta.json.new"), to_json(&meta))?;
            fs::rename(path.join("meta.json.new"), path.join("meta.json"))?;
        }
        Ok(Claim::Ours(JobDir { path, attempt }))
    }

    /// The final record of a job, where it has one.
    pub(crate) fn record(&self, job_id: &JobId) -> io::Result<Option<String>> {
        Ok(read_own_file(&self.record_path(job_id))?.map(|record| record.trim_end().to_owned()))
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
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self
                .record(job_id)?
                .ok_or_else(|| io::Error::other("a final record that came meanwhile has gone again")),
            Err(error) => Err(error),
        }
    }

    /// Keeps a message that was no job, under a name made from its content: the same message again is the same file.
    pub(crate) fn put_away(&self, body: &str, problem: &str, now: Timestamp) -> io::Result<PathBuf> {
        // No job id begins like this.
        let directory = self.0.join("_rejected");
        fs::create_dir_all(&directory)?;
        let digest = Sha256::digest(body.as_bytes());
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(format!("{name}.json"));
        let aside = directory.join(format!(".{name}-{}", std::process::id()));
        write_synced(&aside, to_json(&Rejected { v: 1, problem, rejected_at: now, body }).as_bytes())?;
        fs::rename(&aside, &path)?;
        Ok(path)
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

    /// Makes the output durable: it must be on disk before the job's end is announced.
    pub(crate) fn sync_output(&self) -> io::Result<()> {
        File::open(self.output())?.sync_all()?;
        File::open(&self.path)?.sync_all()
    }
}

/// Which attempt left this directory behind; `None` when it is not of this job.
fn earlier_attempt(path: &Path, job_id: &JobId) -> Option<u32> {
    let meta = read_own_file(&path.join("meta.json")).ok()??;
    let meta: Meta = serde_json::from_str(&meta).ok()?;
    (meta.job_id == *job_id).then_some(meta.attempt)
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

/// Reads a small regular file, not following links; `None` when it is not there.
fn read_own_file(path: &Path) -> io::Result<Option<String>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() > OWN_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{} is not a file of ours", path.display())));
    }
    let mut text = String::new();
    File::open(path)?.take(OWN_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
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
        assert_eq!(results.write_record(&job.job_id, "{\"first\":1}").unwrap(), "{\"first\":1}");
        assert_eq!(results.write_record(&job.job_id, "{\"second\":2}").unwrap(), "{\"first\":1}");
        let Claim::Finished(record) = results.claim(&job, "node1", Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
        assert_eq!(record, "{\"first\":1}");
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
