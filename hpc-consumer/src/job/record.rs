//! Final records: `RESULTS_DIR/<job_id>.json`, the bytes of the published result.
//!
//! A record appears whole and at once, and the first one stands. On a full disk it takes the place of a file that was
//! kept for this ([`Spares`]). It is not synced: who owes a result keeps its bytes
//! until they are published, and makes the file again if the machine goes down before it is on the disk.

use std::path::Path;
use std::{fs, io};

use files::{Durability, Spares};
use protocol::{JobId, JobResult, Timestamp, limits};
use rustix::fs::CWD;

use super::files::{OwnFile, REMOVED_WITHIN, read_own_file};
use super::results_dir::ResultsDir;

/// How often it is tried to put a record in place while others put theirs there and take them away.
const TRIES: u32 = 3;

/// A final record as it is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// None.
    Missing,
    /// The record.
    Whole(String),
    /// A file without content, as a machine leaves it that went down before the record was on the disk.
    Blank,
    /// Something that is no record; the text says what is wrong with it.
    Unreadable(String),
}

impl ResultsDir {
    /// The final record of a job.
    pub(super) fn record(&self, job_id: &JobId) -> io::Result<Record> {
        let path = self.record_path(job_id);
        let unreadable = |problem: String| Ok(Record::Unreadable(format!("{} {problem}", path.display())));
        let text = match read_own_file(CWD, &path)? {
            OwnFile::Missing => return Ok(Record::Missing),
            OwnFile::Foreign => return unreadable("is not a file of ours".to_owned()),
            blank if blank.is_blank() => return Ok(Record::Blank),
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

    /// What a person is told of a job that has no final record.
    pub(crate) fn no_record(&self) -> String {
        format!("there is no final record in {}; the job has not ended, or it ran elsewhere", self.path().display())
    }

    /// The final record of a job, if there is one that can be read.
    pub(crate) fn final_record(&self, job_id: &JobId) -> io::Result<Option<String>> {
        Ok(match self.record(job_id)? {
            Record::Whole(record) => Some(record),
            Record::Missing | Record::Blank | Record::Unreadable(_) => None,
        })
    }

    /// Writes the final record of a job, never over an earlier one. Returns the record that stands.
    ///
    /// Only who holds the job may call this, or who finds that nobody can: what stands there and is no record goes.
    pub(super) fn write_record(&self, job_id: &JobId, record: &str) -> io::Result<String> {
        self.put_record(job_id, record, self.reserve.as_deref())
    }

    /// The same of a record that is stored elsewhere as well, and can wait for room.
    pub(super) fn copy_record(&self, job_id: &JobId, record: &str) -> io::Result<String> {
        self.put_record(job_id, record, None)
    }

    fn put_record(&self, job_id: &JobId, record: &str, reserve: Option<&Spares>) -> io::Result<String> {
        let path = self.record_path(job_id);
        let content = format!("{record}\n");
        for _ in 0..TRIES {
            if self.create_record(&path, content.as_bytes(), reserve)? {
                return Ok(record.to_owned());
            }
            match self.record(job_id)? {
                Record::Whole(standing) => return Ok(standing),
                Record::Missing => {}
                Record::Blank => self.put_record_away(job_id)?,
                Record::Unreadable(problem) => {
                    tracing::warn!(%job_id, "{problem}; it is moved to _rejected");
                    self.put_record_away(job_id)?;
                }
            }
        }
        Err(io::Error::other("something else keeps creating and removing that file"))
    }

    fn create_record(&self, path: &Path, content: &[u8], reserve: Option<&Spares>) -> io::Result<bool> {
        let no_room = match self.creator.create(path, content, Durability::Cached) {
            Err(error) if files::is_no_room(&error) => error,
            done => return done,
        };
        let Some(made) = reserve.map(|spares| spares.create(path, content)).transpose()?.flatten() else {
            return Err(no_room);
        };
        tracing::warn!("{} is written into the room that was kept for records: {no_room}", path.display());
        Ok(made)
    }

    /// Puts a record in the place of one that tells of the same end: its files were sent once more. Nothing else ever
    /// replaces a record.
    pub(super) fn renew_record(&self, job_id: &JobId, record: &str) -> io::Result<()> {
        let path = self.record_path(job_id);
        files::replace(&path, format!("{record}\n").as_bytes(), Durability::Named).map(drop)
    }

    pub(super) fn remove_record(&self, job_id: &JobId) -> io::Result<()> {
        files::remove(&self.record_path(job_id), REMOVED_WITHIN)
    }

    /// Puts a record that cannot be read out of the way, and keeps it.
    fn put_record_away(&self, job_id: &JobId) -> io::Result<()> {
        let name = format!("{job_id}.record-{}", Timestamp::now().as_nanosecond());
        match fs::rename(self.record_path(job_id), self.rejected_dir()?.join(name)) {
            // Another daemon has done it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => {
                self.bound_rejected();
                done
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"x"}"#;

    fn results() -> (tempfile::TempDir, ResultsDir, JobId) {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        (temp, results, "j1".parse().unwrap())
    }

    #[test]
    fn the_first_record_stands() {
        let (temp, results, job_id) = results();
        assert_eq!(results.write_record(&job_id, RECORD).unwrap(), RECORD);
        assert_eq!(results.write_record(&job_id, &RECORD.replace("completed", "failed")).unwrap(), RECORD);
        assert_eq!(fs::read_to_string(temp.path().join("j1.json")).unwrap(), format!("{RECORD}\n"));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else stays");
    }

    #[test]
    fn what_is_no_record_is_told_apart_and_gives_way() {
        let (temp, results, job_id) = results();
        let path = results.record_path(&job_id);
        let other = RECORD.replace("j1", "j2");
        for (content, problem) in [("{}", "no record"), (other.as_str(), "another job")] {
            fs::write(&path, content).unwrap();
            let Record::Unreadable(said) = results.record(&job_id).unwrap() else { panic!("{content}") };
            assert!(said.contains(problem) && said.contains("j1.json"), "{said}");
        }
        for blank in ["", "\n", "\0\0\0"] {
            fs::write(&path, blank).unwrap();
            assert_eq!(results.record(&job_id).unwrap(), Record::Blank, "{blank:?}");
        }
        assert_eq!(results.write_record(&job_id, RECORD).unwrap(), RECORD);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(results.record(&job_id).unwrap(), Record::Unreadable(_)));
        assert_eq!(results.write_record(&job_id, RECORD).unwrap(), RECORD);
        assert_eq!(results.record(&job_id).unwrap(), Record::Whole(RECORD.to_owned()));
        assert_eq!(fs::read_dir(temp.path().join("_rejected")).unwrap().count(), 2, "both are kept");
    }
}
