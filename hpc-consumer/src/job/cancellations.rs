//! Jobs that are to be cancelled, as all daemons of a `RESULTS_DIR` see them: a file for each, by the name of its job.
//!
//! Anybody who may write there can leave one, whether a daemon runs or not, and whether anybody has heard of the job or
//! not. It stays for as long as a message of the job may still come, and a job that has ended does not heed it.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, SystemTime};

use files::Bounds;
use protocol::{JobId, limits};

use super::files::is_missing;
use super::results_dir::ResultsDir;

/// Where they are. No job id begins like this.
const DIR: &str = ".cancelled";

/// When so many looks have found the directory as it was, its content is looked at all the same: times of some file
/// systems are coarse, and what is old is removed.
const LOOKS_SPARED_MAX: u32 = 60;

/// How many there may be, and how long one stays after it was left: a message cannot be older.
const BOUNDS: Bounds =
    Bounds { count: 100_000, bytes: u64::MAX, age: limits::MESSAGE_AGE_MAX.saturating_add(Duration::from_hours(24)) };

impl ResultsDir {
    /// Leaves word that a job is to be cancelled.
    pub(crate) fn cancel(&self, job_id: &JobId) -> io::Result<()> {
        let directory = self.path.join(DIR);
        // Not the directory above it: its file system may be away.
        files::own_dir(&directory)?;
        match files::write_new(&directory.join(job_id.as_str()), b"") {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            written => written,
        }
    }

    /// Is anything of the job here: its directory, or its record?
    pub(crate) fn knows(&self, job_id: &JobId) -> bool {
        self.job_dir(job_id).exists() || self.record_path(job_id).exists()
    }
}

/// A look at them again and again, which tells of each once.
#[derive(Debug)]
pub(crate) struct Cancellations {
    results: ResultsDir,
    /// When the directory was changed last, as it was found.
    changed: Option<SystemTime>,
    spared: u32,
    told: BTreeSet<JobId>,
}

impl Cancellations {
    pub(crate) fn new(results: ResultsDir) -> Self {
        Self { results, changed: None, spared: 0, told: BTreeSet::new() }
    }

    /// Between two looks.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    /// Those that were not told yet.
    pub(crate) fn look(&mut self) -> io::Result<Vec<JobId>> {
        let directory = self.results.path.join(DIR);
        let changed = match directory.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => metadata.modified()?,
            Ok(_) => return Err(io::Error::other("it is no directory")),
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // What is old need not go at once, and to find it takes a look at each file.
        let prune = self.changed.is_none() || self.spared >= LOOKS_SPARED_MAX;
        if self.changed == Some(changed) && !prune {
            self.spared += 1;
            return Ok(Vec::new());
        }
        self.changed = Some(changed);
        if prune {
            self.spared = 0;
            files::prune(&directory, &BOUNDS, SystemTime::now())?;
        }
        let mut found = BTreeSet::new();
        for entry in directory.read_dir()? {
            // Whatever else lies there is no job's.
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()));
        }
        let new = found.difference(&self.told).cloned().collect();
        self.told = found;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_again_by_who_starts_anew() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let id = |text: &str| text.parse::<JobId>().unwrap();
        let mut look = Cancellations::new(results.clone());
        assert_eq!(look.look().unwrap(), []);
        results.cancel(&id("a")).unwrap();
        results.cancel(&id("a")).unwrap();
        assert_eq!(look.look().unwrap(), [id("a")]);
        std::fs::write(temp.path().join(".cancelled/no job id!"), "").unwrap();
        results.cancel(&id("b")).unwrap();
        // The time of the directory may be the same as at the last look.
        look.changed = None;
        assert_eq!(look.look().unwrap(), [id("b")]);
        assert_eq!(look.look().unwrap(), []);
        assert_eq!(Cancellations::new(results).look().unwrap(), [id("a"), id("b")]);
    }
}
