//! A job directory that is held open, and the files in it.
//!
//! What a job can write is not trusted: links are not followed, and what it made in place of our files is removed or
//! told apart.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use files::{DIR_MODE, Disarmed, Durability, Held};

use super::files::{OwnFile, REMOVED_WITHIN, is_missing, read_own_file};

/// How long it is counted what is in a directory. What is not reached by then does not count.
const MEASURED_WITHIN: Duration = Duration::from_secs(60);

/// How long files of a job are searched for setuid bits. A record waits for it, so it is no longer than writing so many
/// files takes; what is not reached lies in a directory that nobody else can enter.
const DISARMED_WITHIN: Duration = Duration::from_secs(10);

/// How long it is tried to remove what filled a disk.
const BULK_REMOVED_WITHIN: Duration = Duration::from_secs(600);

/// How many names of a directory are in memory while it is emptied.
const NAMES_AT_ONCE: usize = 1_000;

/// After so many entries that cannot be removed it is not tried with the others.
const STUCK_MAX: usize = 100;

/// A directory with the name of a job, held open: what is done in it is done in this one, even if it is moved away
/// and another one takes its name.
#[derive(Debug)]
pub(super) struct JobDir(File);

impl JobDir {
    pub(super) fn new(directory: File) -> Self {
        Self(directory)
    }

    /// A path into the directory, for as long as this is held open.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// What tells it from others, wherever it is moved to.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    /// Takes the directory back from its run, which may have locked us and itself out of it.
    pub(super) fn unlock(&self) -> io::Result<()> {
        files::set_mode(&self.path(), DIR_MODE)
    }

    /// Closes the directory once its run is over: nobody else gets in any more, and no file of it has others act as us,
    /// should a person open it later.
    pub(super) fn close(&self) -> io::Result<()> {
        // Before anything in it is looked at, and without a change where there is none to be made.
        if self.0.metadata()?.mode() & 0o7777 != DIR_MODE {
            self.unlock()?;
        }
        let Disarmed { files, whole } = files::disarm(self.as_fd(), DISARMED_WITHIN)?;
        let place = || fs::read_link(self.path()).unwrap_or_default();
        if files > 0 {
            tracing::warn!(
                "a job has left files in {} that would have others act as this user (setuid or setgid): {files}; they have lost these bits",
                place().display()
            );
        }
        if !whole {
            tracing::warn!(
                "not all of {0} could be searched for files that have others act as this user; before you let anybody in: find {0} -perm /6000 -exec chmod ug-s {{}} +",
                place().display()
            );
        }
        Ok(())
    }

    /// Reads a small file of ours.
    pub(super) fn read(&self, name: &str) -> io::Result<OwnFile> {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match read_own_file(self.0.as_fd(), name.as_ref()) {
            Err(error) if refused(&error) => {}
            done => return done,
        }
        match self.unlock() {
            // It belongs to somebody else.
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => return Ok(OwnFile::Foreign),
            done => done?,
        }
        match read_own_file(self.0.as_fd(), name.as_ref()) {
            Err(error) if refused(&error) => Ok(OwnFile::Foreign),
            done => done,
        }
    }

    /// Reads a file of text that others may have made, if it is one and no longer than this; no part of
    /// its path may be a link.
    pub(super) fn read_text(&self, name: &str, bytes_max: u64) -> io::Result<Option<String>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > bytes_max {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(bytes_max).read_to_end(&mut text)?;
        Ok(String::from_utf8(text).ok())
    }

    /// Opens a file that others may have made, to be read, if no part of its path is a link. It may be a directory.
    pub(super) fn open_file(&self, path: &str) -> io::Result<Option<File>> {
        match self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that a path within lies in, if no part of that is a link, and its name there.
    pub(super) fn parent_of<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (folders, name) = path.rsplit_once('/').unwrap_or((".", path));
        Ok((self.beneath(folders, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
    }

    /// Does a file of ours begin with this text? It may be of any length.
    pub(super) fn begins_with(&self, name: &str, text: &str) -> io::Result<bool> {
        let file = match self.unlocked(|| files::open_own(&self.path().join(name))) {
            Ok(file) => file,
            // What a job has made of the name.
            Err(_) => return Ok(false),
        };
        let mut begin = Vec::with_capacity(text.len());
        file.take(text.len() as u64).read_to_end(&mut begin)?;
        Ok(begin == text.as_bytes())
    }

    /// Is there anything of this name?
    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path().join(name)).is_ok()
    }

    /// Makes a file that is not there yet, to be written.
    pub(super) fn create_new(&self, name: &str) -> io::Result<File> {
        files::create_new(&self.path().join(name))
    }

    /// Makes a file that is not there yet.
    pub(super) fn write_new(&self, name: &str, content: &str) -> io::Result<()> {
        files::write_new(&self.path().join(name), content.as_bytes())
    }

    /// What is in it, by name.
    pub(super) fn names(&self) -> io::Result<HashSet<OsString>> {
        fs::read_dir(self.path())?.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Opens what a path within leads to, if no part of it is a link: others may have made them.
    fn beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (folders, name) = path.rsplit_once('/').map_or((None, path), |(folders, name)| (Some(folders), name));
        let mut within: Option<OwnedFd> = None;
        for part in folders.into_iter().flat_map(|folders| folders.split('/')) {
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = within.as_ref().map_or(self.as_fd(), |within| within.as_fd());
            within = Some(rustix::fs::openat(from, part, directory, Mode::empty())?);
        }
        let from = within.as_ref().map_or(self.as_fd(), |within| within.as_fd());
        rustix::fs::openat(from, name, flags, Mode::empty())
    }

    /// Is there anything at this path? What a job has made unreachable is not.
    pub(super) fn is_there(&self, path: &str) -> io::Result<bool> {
        match self.beneath(path, OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the directories of this path that are not there yet.
    pub(super) fn make_dirs(&self, path: &str) -> io::Result<()> {
        let parts: Vec<&str> = path.split('/').collect();
        for end in 1..=parts.len() {
            let (folders, name) = (parts[..end - 1].join("/"), parts[end - 1]);
            let folders = if folders.is_empty() { "." } else { &folders };
            let within = self.beneath(folders, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::mkdirat(&within, name, Mode::from_raw_mode(DIR_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes a directory that is not there yet.
    pub(super) fn make_dir(&self, name: &str) -> io::Result<()> {
        files::new_dir(&self.path().join(name))
    }

    /// A directory in it, made where it is not there: the directory itself, and nothing that a job has put in its
    /// place.
    pub(super) fn subdir(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(self.as_fd(), name, flags, Mode::empty()).map_err(io::Error::from);
        match open() {
            Ok(directory) => {
                let directory = Self::new(File::from(directory));
                // Its job may have locked us out.
                directory.unlock()?;
                return Ok(directory);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file, or a link, wherever that leads.
            Err(_) => self.remove(name)?,
        }
        self.make_dir(name)?;
        open().map(|directory| Self::new(File::from(directory)))
    }

    /// Puts a file in place of another, whole.
    pub(super) fn replace(&self, name: &str, content: &str) -> io::Result<()> {
        let path = self.path().join(name);
        // A job can make a directory of it.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            self.remove(name)?;
        }
        files::replace(&path, content.as_bytes(), Durability::Cached).map(drop)
    }

    /// Frees a name, whatever a job has made of it: what cannot be removed stays under another one, and keeps nobody
    /// from going on.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        if let Some(leftover) = files::discard(self.as_fd(), name.as_ref(), REMOVED_WITHIN)? {
            let directory = fs::read_link(self.path()).unwrap_or_default();
            tracing::warn!("a job has made a directory of {}: {leftover}", directory.join(name).display());
        }
        Ok(())
    }

    /// Gives a file another name, if that is free, and frees its own in any case. What is no file, or cannot be
    /// renamed, is removed as by [`Self::remove`].
    pub(super) fn set_aside(&self, name: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path().join(name), self.path().join(to));
        let found = self.unlocked(|| match fs::symlink_metadata(&from) {
            Err(error) if is_missing(&error) => Ok(None),
            done => done.map(Some),
        })?;
        match found {
            None => Ok(()),
            // Nobody else makes files here: no process of the job is left.
            Some(file) if file.is_file() && fs::symlink_metadata(&to).is_err_and(|error| is_missing(&error)) => {
                fs::rename(&from, &to).or_else(|_| self.remove(name))
            }
            Some(_) => self.remove(name),
        }
    }

    /// Is there a regular file of this name, and no larger than this?
    pub(super) fn is_file_within(&self, name: &str, bytes_max: u64) -> bool {
        fs::symlink_metadata(self.path().join(name)).is_ok_and(|found| found.is_file() && found.len() <= bytes_max)
    }

    /// What is in it, as far as it can be read.
    pub(super) fn held(&self) -> io::Result<Held> {
        files::measure(self.unlocked(|| File::open(self.path()))?.as_fd(), MEASURED_WITHIN)
    }

    /// Removes all that is in it but for these, as far as that can be done. Returns what cannot, and why.
    pub(super) fn remove_but(&self, kept: impl Fn(&OsStr) -> bool) -> io::Result<Vec<io::Error>> {
        let deadline = Instant::now() + BULK_REMOVED_WITHIN;
        let (mut stuck, mut problems) = (HashSet::new(), Vec::new());
        self.unlock()?;
        loop {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.path())? {
                let name = entry?.file_name();
                if !kept(&name) && !stuck.contains(&name) {
                    names.push(name);
                }
                if names.len() == NAMES_AT_ONCE {
                    break;
                }
            }
            if names.is_empty() {
                return Ok(problems);
            }
            for name in names {
                let within = deadline.saturating_duration_since(Instant::now());
                if let Err(error) = files::remove_at(self.as_fd(), &name, within) {
                    stuck.insert(name);
                    problems.push(error);
                }
                if problems.len() >= STUCK_MAX || within.is_zero() {
                    return Ok(problems);
                }
            }
        }
    }

    /// Is there nothing but this in the directory?
    pub(super) fn holds_only(&self, names: &[&str]) -> io::Result<bool> {
        let entries = match self.unlocked(|| fs::read_dir(self.path())) {
            // It belongs to somebody else.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
            done => done?,
        };
        for entry in entries {
            let name = entry?.file_name();
            if !names.iter().any(|known| name == *known) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the names in the directory durable, that of the output above all.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.unlocked(|| File::open(self.path()))?.sync_all()
    }

    fn unlocked<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unlock()?;
                work()
            }
            done => done,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use protocol::JobId;

    use super::*;
    use crate::job::files::Place;
    use crate::job::results_dir::ResultsDir;

    #[test]
    fn what_a_job_puts_in_place_of_our_files_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job_id: JobId = "j1".parse().unwrap();
        results.make_job_dir(&job_id).unwrap();
        let Place::Dir(dir) = results.open_job_dir(&job_id).unwrap() else { panic!() };
        let (path, victim) = (results.job_dir(&job_id), temp.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        for name in ["meta.json", "meta.json.new"] {
            std::os::unix::fs::symlink(&victim, path.join(name)).unwrap();
        }
        assert!(matches!(dir.read("meta.json").unwrap(), OwnFile::Foreign));
        dir.replace("meta.json", "ours").unwrap();
        assert!(matches!(dir.read("meta.json").unwrap(), OwnFile::Text(text) if text == "ours"));
        dir.remove("meta.json").unwrap();
        fs::create_dir_all(path.join("meta.json/deep")).unwrap();
        dir.replace("meta.json", "ours").unwrap();
        assert!(matches!(dir.read("meta.json").unwrap(), OwnFile::Text(text) if text == "ours"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_is_held_open_is_not_mistaken_for_its_successor() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let job_id: JobId = "j1".parse().unwrap();
        results.make_job_dir(&job_id).unwrap();
        let Place::Dir(dir) = results.open_job_dir(&job_id).unwrap() else { panic!() };
        assert!(results.move_aside(&job_id, lifecycle::Attempt::new(1), dir.inode().unwrap()).unwrap().is_some());
        results.make_job_dir(&job_id).unwrap();
        dir.write_new("output.json", "1").unwrap();
        assert!(temp.path().join(".attempts/j1.1/output.json").exists());
        assert!(!temp.path().join("j1/output.json").exists() && !dir.holds_only(&[]).unwrap());
    }
}
