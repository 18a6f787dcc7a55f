//! `RESULTS_DIR/.trash`: what of jobs is not wanted any more, on its way out.
//!
//! Invariant: a job goes whole. Its directory goes first and its record last, each by one renaming: whatever ends this,
//! a job that is still there has its record, and what is in the trash is nobody's.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use files::DIR_MODE;
use protocol::JobId;

use super::files::{REMOVED_WITHIN, is_missing};
use super::results_dir::ResultsDir;

/// No job id begins like this.
const TRASH: &str = ".trash";

/// Where earlier attempts lie.
const ATTEMPTS: &str = ".attempts";

impl ResultsDir {
    /// Takes all that is here of a job that has ended out of the way.
    pub(crate) fn throw_away(&self, job_id: &JobId, attempts: &[PathBuf]) -> io::Result<()> {
        let trash = self.path.join(TRASH);
        files::own_dir(&trash)?;
        for path in attempts.iter().chain([&self.job_dir(job_id), &self.record_path(job_id)]) {
            let Some(name) = path.file_name() else { continue };
            let to = trash.join(name);
            // That of an earlier life of the job, which nobody has removed yet.
            files::remove(&to, REMOVED_WITHIN)?;
            if path.is_dir() {
                // To move a directory is to change it; its run may have locked us out.
                let _ = fs::set_permissions(path, Permissions::from_mode(DIR_MODE));
            }
            match fs::rename(path, &to) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The directories of earlier attempts of jobs, with whose they are.
    pub(crate) fn attempts(&self) -> io::Result<Vec<(JobId, PathBuf)>> {
        let attempts = names_in(&self.path.join(ATTEMPTS))?.into_iter();
        let of_job = |path: PathBuf| {
            let job_id = path.file_name()?.to_str()?.split('.').next()?.parse().ok()?;
            Some((job_id, path))
        };
        Ok(attempts.filter_map(of_job).collect())
    }

    /// Removes what is in the trash, also what an earlier call has left there.
    pub(crate) fn empty_trash(&self) -> io::Result<()> {
        for path in names_in(&self.path.join(TRASH))? {
            files::remove(&path, REMOVED_WITHIN)?;
        }
        Ok(())
    }

    /// How many daemons have, or had, this directory.
    pub(crate) fn owners(&self) -> io::Result<usize> {
        let hearts = names_in(&self.path.join(".owners"))?;
        let is_heart = |path: &&PathBuf| {
            path.extension().is_some_and(|ending| ending == "json")
                && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
        };
        Ok(hearts.iter().filter(is_heart).count())
    }
}

/// What is in a directory; nothing where there is none.
fn names_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_whole_and_others_stay() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let (job_id, other): (JobId, JobId) = ("j1".parse().unwrap(), "j2".parse().unwrap());
        for name in ["j1/deep", "j2", ".attempts/j1.1", ".attempts/j2.1", ".owners"] {
            fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        for name in ["j1.json", "j2.json", "j1/deep/a", ".owners/o1.json", ".owners/.pace", ".owners/o2.json"] {
            fs::write(temp.path().join(name), "x").unwrap();
        }
        // Its run has locked us out of it.
        fs::set_permissions(results.job_dir(&job_id), Permissions::from_mode(0o000)).unwrap();
        let attempts: Vec<PathBuf> =
            results.attempts().unwrap().into_iter().filter(|(of, _)| *of == job_id).map(|(_, path)| path).collect();
        assert_eq!(attempts.len(), 1);
        results.throw_away(&job_id, &attempts).unwrap();
        assert_eq!(results.job_ids().unwrap().into_iter().collect::<Vec<_>>(), [other]);
        assert!(temp.path().join(".attempts/j2.1").exists() && !temp.path().join(".attempts/j1.1").exists());
        assert!(temp.path().join(".trash/j1/deep/a").exists(), "it is out of the way, and still there");
        results.empty_trash().unwrap();
        assert_eq!(fs::read_dir(temp.path().join(".trash")).unwrap().count(), 0);
        assert_eq!(results.owners().unwrap(), 2);
        results.throw_away(&job_id, &[]).unwrap();
    }
}
