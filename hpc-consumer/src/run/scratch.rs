//! The scratch of a run in a container: its `/tmp`, its `/var/tmp` and its home, on disk and of its own.
//!
//! Without it these are small file systems in memory, and the home does not exist, so that whatever keeps a cache
//! fails. It lies in the job directory, and so has as much room as that. It is made anew for each run, and goes with
//! it: what is to be kept for a next attempt belongs in the job directory itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::apptainer::{WORK_DIR, add_flag};
use super::begin::Begin;
use crate::blocking;

/// Its name in the job directory.
const NAME: &str = ".scratch";

/// How long the end of a run waits for its scratch to be removed. A job may have made millions of files.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// The scratch of a run that goes on.
pub(super) struct Scratch {
    /// Held open: should the job be taken over, the scratch of the next run is not this one's to remove.
    directory: Arc<OwnedFd>,
}

impl Scratch {
    /// Makes it, and has apptainer use it.
    pub(super) fn make(directory: Arc<OwnedFd>, path: &Path, words: &mut Vec<OsString>) -> io::Result<Self> {
        let scratch = Self { directory };
        // A run that nobody saw the end of has left its own.
        scratch.remove_now()?;
        mkdirat(&scratch.directory, NAME, Mode::RWXU)?;
        add_flag(words, "--workdir", Self::path(path).into());
        Ok(scratch)
    }

    /// Has apptainer tell there of the begin of the command. `more` are further lines of its hook.
    pub(super) fn begin(&self, path: &Path, more: &str, words: &mut Vec<OsString>) -> io::Result<Begin> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let scratch = openat(&self.directory, NAME, flags, Mode::empty())?;
        Begin::prepare(scratch.as_fd(), &Self::path(path), &Self::inside(), more, words)
    }

    /// Where it is, in this job directory.
    pub(super) fn path(job_dir: &Path) -> PathBuf {
        job_dir.join(NAME)
    }

    /// Where the container sees it.
    pub(super) fn inside() -> String {
        format!("{WORK_DIR}/{NAME}")
    }

    /// Removes it. What cannot be removed stays, and is told.
    pub(super) async fn remove(self) {
        if let Err(error) = blocking(move || self.remove_now()).await {
            tracing::warn!("the scratch of a run stays in its job directory, as {NAME}: {error}");
        }
    }

    fn remove_now(&self) -> io::Result<()> {
        files::remove_at(self.directory.as_fd(), OsStr::new(NAME), REMOVED_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[tokio::test]
    async fn a_run_begins_with_an_empty_one_and_leaves_none() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join(NAME);
        fs::create_dir_all(place.join("tmp/of/an/earlier/run")).unwrap();
        let directory = Arc::new(File::open(temp.path()).unwrap().into());
        let mut words: Vec<OsString> =
            ["apptainer", "--quiet", "exec", "--nv", "a.sif", "exec"].map(Into::into).to_vec();
        let scratch = Scratch::make(directory, Path::new("/results/j1"), &mut words).unwrap();
        assert_eq!(
            words.join(OsStr::new(" ")),
            "apptainer --quiet exec --workdir /results/j1/.scratch --nv a.sif exec"
        );
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        fs::write(place.join("cache"), "").unwrap();
        scratch.remove().await;
        assert!(!place.exists());
    }
}
