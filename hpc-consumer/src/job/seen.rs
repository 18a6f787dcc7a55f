//! What of a job can be seen in `RESULTS_DIR` by who asks for it and holds nothing. Nothing is changed here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::time::SystemTime;

use program::Stream;
use protocol::JobId;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::files::{META, Place, is_missing, is_ours, read_own_file};
use super::meta::meta_of;
use super::results_dir::ResultsDir;
use crate::run::LOGS;

/// What a job directory says of who has the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing.
    None,
    /// A daemon has it, or had it last.
    Stands,
    /// It was given back to the queue.
    GivenUp,
}

impl ResultsDir {
    /// The jobs of which a directory or a record is here.
    pub(crate) fn job_ids(&self) -> io::Result<BTreeSet<JobId>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let mut jobs = BTreeSet::new();
        for entry in entries {
            let name = entry?.file_name();
            // What begins with a dot or an underscore is no job's.
            jobs.extend(
                name.to_str().and_then(|name| name.strip_suffix(".json").unwrap_or(name).parse::<JobId>().ok()),
            );
        }
        Ok(jobs)
    }

    /// The jobs of which a record is here, and since when, the oldest first.
    pub(crate) fn recorded(&self) -> io::Result<Vec<(JobId, SystemTime)>> {
        let mut recorded = Vec::new();
        for job_id in self.job_ids()? {
            if let Ok(changed) = fs::symlink_metadata(self.record_path(&job_id)).and_then(|found| found.modified()) {
                recorded.push((job_id, changed));
            }
        }
        recorded.sort_unstable_by_key(|(_, changed)| *changed);
        Ok(recorded)
    }

    /// Is the directory of the job here?
    pub(crate) fn has_job_dir(&self, job_id: &JobId) -> bool {
        self.job_dir(job_id).exists()
    }

    /// When a daemon began to work on the job here, as its files say.
    pub(crate) fn begun_at(&self, job_id: &JobId) -> Option<SystemTime> {
        let directory = self.job_dir(job_id);
        let changed = |name| fs::symlink_metadata(directory.join(name)).and_then(|found| found.modified()).ok();
        changed(super::files::INPUT).or_else(|| changed(META))
    }

    /// Whether some daemon has made the job its own. Which, and whether it lives, is not looked at.
    pub(crate) fn claim_of(&self, job_id: &JobId) -> io::Result<Claim> {
        let Place::Dir(dir) = self.open_job_dir(job_id)? else { return Ok(Claim::None) };
        match read_own_file(dir.as_fd(), META.as_ref()) {
            Ok(file) => Ok(match meta_of(job_id, &file) {
                Some(meta) if meta.owner.is_empty() => Claim::GivenUp,
                Some(_) => Claim::Stands,
                None => Claim::None,
            }),
            // Its run has locked us out, so that there is one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Claim::Stands),
            Err(error) => Err(error),
        }
    }

    /// What the last attempt of the job has printed, if it has printed anything. A job can put anything in place of its
    /// logs: only a file of ours is opened, no link is followed, and nothing is waited for.
    pub(crate) fn open_log(&self, job_id: &JobId, stream: Stream) -> io::Result<Option<File>> {
        let Place::Dir(dir) = self.open_job_dir(job_id)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // The second name is taken where the job has a file of the first one for itself.
        let names = match stream {
            Stream::Stdout => [LOGS[2], LOGS[0]],
            Stream::Stderr => [LOGS[3], LOGS[1]],
        };
        for name in names {
            let file = match rustix::fs::openat(dir.as_fd(), name, flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(Errno::NOENT) => continue,
                Err(Errno::LOOP | Errno::NXIO) => return Err(not_a_log(name)),
                Err(error) => return Err(error.into()),
            };
            let metadata = file.metadata()?;
            return if metadata.is_file() && is_ours(&metadata) { Ok(Some(file)) } else { Err(not_a_log(name)) };
        }
        Ok(None)
    }
}

fn not_a_log(name: &str) -> io::Error {
    io::Error::other(format!("the job has put something else in place of its {name}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn only_files_of_ours_are_read_as_logs() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job_id: JobId = "j1".parse().unwrap();
        let read = |stream| {
            results.open_log(&job_id, stream).map(|file| {
                file.map(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    text
                })
            })
        };
        assert_eq!(read(Stream::Stdout).unwrap(), None, "there is no directory");
        let dir = temp.path().join("j1");
        fs::create_dir(&dir).unwrap();
        assert_eq!(read(Stream::Stdout).unwrap(), None, "nothing was printed");
        fs::write(temp.path().join("secret"), "of another program").unwrap();
        std::os::unix::fs::symlink("../secret", dir.join("stdout.log")).unwrap();
        assert!(read(Stream::Stdout).unwrap_err().to_string().contains("stdout.log"));
        fs::write(dir.join("stdout.hpc-queue.log"), "printed").unwrap();
        assert_eq!(read(Stream::Stdout).unwrap().as_deref(), Some("printed"), "its own is another one");
        fs::create_dir(dir.join("stderr.log")).unwrap();
        assert!(read(Stream::Stderr).is_err());
        fs::remove_dir(dir.join("stderr.log")).unwrap();
        // A FIFO: nobody waits for its other end.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("stderr.log"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(read(Stream::Stderr).is_err());
    }

    #[test]
    fn jobs_are_known_by_directories_and_records_and_by_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().join("results"));
        assert!(results.job_ids().unwrap().is_empty(), "there is no directory");
        let results = ResultsDir::new(temp.path().to_owned());
        for name in ["j1", ".probe", "_rejected"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        for name in ["j2.json", "image.sif", ".hidden.json"] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        assert_eq!(results.job_ids().unwrap().iter().map(JobId::as_str).collect::<Vec<_>>(), ["j1", "j2"]);
        let j1 = "j1".parse().unwrap();
        assert_eq!(results.claim_of(&j1).unwrap(), Claim::None, "a directory alone is no claim");
        let meta = |owner: &str| {
            format!(
                r#"{{"v":1,"job_id":"j1","attempt":1,"owner":"{owner}","host":"n","started_at":"2026-11-21T01:15:27Z"}}"#
            )
        };
        for (owner, claim) in [("us", Claim::Stands), ("", Claim::GivenUp)] {
            fs::write(temp.path().join("j1/meta.json"), meta(owner)).unwrap();
            assert_eq!(results.claim_of(&j1).unwrap(), claim);
        }
        let recorded = results.recorded().unwrap();
        assert_eq!(recorded.iter().map(|(job_id, _)| job_id.as_str()).collect::<Vec<_>>(), ["j2"]);
    }
}
