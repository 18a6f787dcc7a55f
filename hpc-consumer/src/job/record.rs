//! Final records: `RESULTS_DIR/<job_id>.json`, the bytes of the published result.
//!
//! A record appears whole and at once, and the first one stands. It is not synced: who owes a result keeps its bytes
//! until they are published, and makes the file again if the machine goes down before it is on the disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use protocol::{JobId, JobResult, Timestamp, limits};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::files::{FILE_MODE, OwnFile, ResultsDir, read_own_file, remove_any, write_new};

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

    /// Writes the final record of a job, never over an earlier one. Returns the record that stands.
    ///
    /// Only who holds the job may call this, or who finds that nobody can: what stands there and is no record goes.
    pub(super) fn write_record(&self, job_id: &JobId, record: &str) -> io::Result<String> {
        let path = self.record_path(job_id);
        let content = format!("{record}\n");
        for _ in 0..TRIES {
            if self.put_in_place(&path, content.as_bytes())? {
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

    pub(super) fn remove_record(&self, job_id: &JobId) -> io::Result<()> {
        remove_any(&self.record_path(job_id))
    }

    /// Puts a record that cannot be read out of the way, and keeps it.
    fn put_record_away(&self, job_id: &JobId) -> io::Result<()> {
        let name = format!("{job_id}.record-{}", Timestamp::now().as_nanosecond());
        match fs::rename(self.record_path(job_id), self.rejected_dir()?.join(name)) {
            // Another daemon has done it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Makes a file that is whole as soon as it has its name; `false` if something has the name already.
    fn put_in_place(&self, path: &Path, content: &[u8]) -> io::Result<bool> {
        if !self.named_only.load(Ordering::Relaxed)
            && let Some(done) = self.link_unnamed(path, content)?
        {
            return Ok(done);
        }
        let aside = self.aside(path);
        remove_any(&aside)?;
        let linked = write_new(&aside, content).and_then(|()| fs::hard_link(&aside, path));
        let _ = fs::remove_file(&aside);
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same with a file that has no name at first, which leaves nothing to remove; `None` where the file system
    /// cannot do that.
    fn link_unnamed(&self, path: &Path, content: &[u8]) -> io::Result<Option<bool>> {
        let mode = Mode::from_raw_mode(FILE_MODE);
        let mut file = match rustix::fs::open(&self.path, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
            Ok(file) => File::from(file),
            Err(error) => return self.without_unnamed(error),
        };
        file.write_all(content)?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, source.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(Some(true)),
            Err(Errno::EXIST) => Ok(Some(false)),
            Err(error) => self.without_unnamed(error),
        }
    }

    fn without_unnamed(&self, error: Errno) -> io::Result<Option<bool>> {
        match error {
            Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::PERM | Errno::XDEV => {
                self.named_only.store(true, Ordering::Relaxed);
                Ok(None)
            }
            // The directory may be away for a moment only.
            Errno::NOENT => Ok(None),
            error => Err(error.into()),
        }
    }

    /// A name next to a record's, for this process.
    fn aside(&self, path: &Path) -> std::path::PathBuf {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        self.path.join(format!(".record-{name}-{}-{}", crate::host(), std::process::id()))
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
    fn the_first_record_stands_whatever_the_file_system_can_do() {
        for named_only in [false, true] {
            let (temp, results, job_id) = results();
            results.named_only.store(named_only, Ordering::Relaxed);
            assert_eq!(results.write_record(&job_id, RECORD).unwrap(), RECORD);
            assert_eq!(results.write_record(&job_id, &RECORD.replace("completed", "failed")).unwrap(), RECORD);
            assert_eq!(fs::read_to_string(temp.path().join("j1.json")).unwrap(), format!("{RECORD}\n"));
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else stays");
        }
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
