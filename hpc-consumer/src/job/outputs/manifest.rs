//! What is sent of the outputs of a run, written down before it is sent: `RESULTS_DIR/.uploads/<run>/manifest.json`,
//! and beside it the packs.
//!
//! A process that dies is gone on with by the next one: the same packs, and the same list. It lies beside the job's
//! directory and not in it, so that no job writes its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use files::Durability;
use lifecycle::Run;
use protocol::{Content, JobFile, WorkPath};
use serde::{Deserialize, Serialize};

use crate::job::files::{OUTPUT, OwnFile, REMOVED_WITHIN, is_missing, read_own_file, to_json};

const NAME: &str = "manifest.json";

/// For how long packs stay that somebody who was sending them by hand has left.
const BY_HAND_KEPT: Duration = Duration::from_hours(24);

/// The version that is written.
const VERSION: u64 = 1;

/// What is wanted of what a run has left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::job) struct Wanted {
    /// The files that the job's `outputs` name.
    pub(in crate::job) files: bool,
    /// `output.json`.
    pub(in crate::job) output: bool,
    /// How many bytes of files there may be, where the task of the job says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::job) files_max: Option<u64>,
}

/// What is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::job) struct Manifest {
    pub(super) v: u64,
    pub(in crate::job) wanted: Wanted,
    /// Which files, once that is known.
    pub(super) files: Option<Vec<Entry>>,
    /// `output.json`, once it is hashed.
    pub(in crate::job) output: Option<Content>,
    /// What there is to say of them.
    pub(in crate::job) note: Option<String>,
    /// Why they are not sent, and never will be: the end of a sentence about the job.
    pub(in crate::job) refused: Option<String>,
    /// All of it is in the store, or will never be.
    pub(in crate::job) complete: bool,
}

/// A file that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: WorkPath,
    /// It is one of ours, of many that the job has left.
    pub(super) pack: bool,
    /// What is in it, once it is hashed.
    pub(super) content: Option<Content>,
}

impl Manifest {
    /// Of a run of which this is wanted, and no more is known.
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { v: VERSION, wanted, ..Self::default() }
    }

    /// Nothing is sent, for this reason.
    pub(super) fn refused(self, why: String) -> Self {
        Self { refused: Some(why), complete: true, output: None, files: None, ..self }
    }

    /// The files, as a result names them.
    pub(in crate::job) fn files(&self) -> Vec<JobFile> {
        let file = |entry: &Entry| {
            let Content { sha256, size } = entry.content?;
            Some(JobFile { path: entry.path.clone(), size, sha256, pack: entry.pack, read_only: false })
        };
        self.files.iter().flatten().filter_map(file).collect()
    }
}

/// Where the uploads of all runs are written down.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    /// `RESULTS_DIR/.uploads`
    all: PathBuf,
    /// The same, or what of it is a person's: no run is called so.
    ours: PathBuf,
}

impl Uploads {
    /// In this `RESULTS_DIR`.
    pub(crate) fn new(results: &Path) -> Self {
        let all = results.join(".uploads");
        Self { ours: all.clone(), all }
    }

    /// The same for what is sent by hand, of which daemons know nothing.
    pub(super) fn by_hand(&self) -> Self {
        Self { all: self.all.clone(), ours: self.all.join("by-hand") }
    }

    /// Forgets what was begun by hand, and nobody has gone on with for long.
    pub(super) fn clean_old(&self, now: SystemTime) -> io::Result<()> {
        self.clean(|run| {
            let found = fs::symlink_metadata(self.place(run)).and_then(|found| found.modified());
            found.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > BY_HAND_KEPT))
        })
    }

    fn place(&self, run: &Run) -> PathBuf {
        self.ours.join(run.to_string())
    }

    /// The directory of a run, for its packs; made unless it is there.
    pub(super) fn make(&self, run: &Run) -> io::Result<PathBuf> {
        let place = self.place(run);
        [&self.all, &self.ours, &place].into_iter().try_for_each(|path| files::own_dir(path))?;
        Ok(place)
    }

    /// Where a pack of a run is.
    pub(super) fn pack(&self, run: &Run, name: &WorkPath) -> PathBuf {
        self.place(run).join(name.as_str())
    }

    /// Is anything written down of a run?
    pub(super) fn has(&self, run: &Run) -> bool {
        fs::symlink_metadata(self.place(run).join(NAME)).is_ok()
    }

    /// What is written down of a run. What cannot be read is as good as nothing: it is made anew.
    pub(in crate::job) fn manifest(&self, run: &Run) -> io::Result<Option<Manifest>> {
        let text = match read_own_file(rustix::fs::CWD, &self.place(run).join(NAME))? {
            OwnFile::Text(text) => text,
            OwnFile::Missing | OwnFile::Foreign => return Ok(None),
        };
        Ok(serde_json::from_str(&text).ok().filter(|manifest: &Manifest| manifest.v == VERSION))
    }

    /// Writes it down for good.
    pub(super) fn write(&self, run: &Run, manifest: &Manifest) -> io::Result<()> {
        let path = self.make(run)?.join(NAME);
        files::replace(&path, to_json(manifest).as_bytes(), Durability::Named).map(drop)
    }

    /// Removes the packs of a run, which are in the store or are made anew.
    pub(super) fn remove_packs(&self, run: &Run) -> io::Result<()> {
        for entry in fs::read_dir(self.place(run))? {
            let entry = entry?;
            if entry.file_name() != NAME {
                files::remove(&entry.path(), REMOVED_WITHIN)?;
            }
        }
        Ok(())
    }

    /// Forgets a run.
    pub(in crate::job) fn forget(&self, run: &Run) -> io::Result<()> {
        files::remove(&self.place(run), REMOVED_WITHIN)
    }

    /// Forgets all runs of which `is_over` says that nobody asks for them any more.
    pub(super) fn clean(&self, is_over: impl Fn(&Run) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.ours) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(run) = name.to_str().and_then(Run::parse) else { continue };
            if is_over(&run) {
                self.forget(&run)?;
            }
        }
        Ok(())
    }
}

/// The path of `output.json`, as that of any file of the job.
pub(super) fn output_path() -> WorkPath {
    OUTPUT.parse().expect("it is a plain name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::run;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_what_is_none_is_made_anew() {
        let temp = tempfile::tempdir().unwrap();
        let (uploads, run) = (Uploads::new(temp.path()), run("j1", 2));
        assert_eq!(uploads.manifest(&run).unwrap(), None);
        let content = Content { sha256: protocol::Digest::new([1; 32]), size: 3 };
        let entry = Entry { path: "a/b".parse().unwrap(), pack: true, content: Some(content) };
        let new = Manifest::new(Wanted { files: true, output: false, files_max: None });
        let known = Manifest { files: Some(vec![entry]), note: Some("n".to_owned()), ..new.clone() };
        let complete = Manifest { complete: true, ..known.clone() };
        for manifest in [&new, &known, &complete, &known.clone().refused("no".to_owned())] {
            uploads.write(&run, manifest).unwrap();
            assert_eq!(uploads.manifest(&run).unwrap().as_ref(), Some(manifest));
        }
        assert_eq!((complete.files().len(), complete.files()[0].content()), (1, content));
        for text in ["", "{", r#"{"v":2,"wanted":{"files":true,"output":true},"complete":true}"#] {
            fs::write(uploads.place(&run).join(NAME), text).unwrap();
            assert_eq!(uploads.manifest(&run).unwrap(), None, "{text}");
        }
        fs::write(uploads.pack(&run, &"files-1.tar".parse().unwrap()), "").unwrap();
        uploads.remove_packs(&run).unwrap();
        assert_eq!(fs::read_dir(uploads.place(&run)).unwrap().count(), 1);
        // What is sent by hand is beside it, and goes by its age.
        let by_hand = uploads.by_hand();
        by_hand.write(&run, &new).unwrap();
        uploads.clean(|over| over.job_id.as_str() == "by-hand").unwrap();
        by_hand.clean_old(SystemTime::now()).unwrap();
        assert!(by_hand.has(&run));
        by_hand.clean_old(SystemTime::now() + 2 * BY_HAND_KEPT).unwrap();
        assert!(!by_hand.has(&run) && uploads.has(&run));
        uploads.clean(|over| over.attempt.get() == 1).unwrap();
        assert!(uploads.place(&run).exists());
        uploads.clean(|over| *over == run).unwrap();
        assert!(!uploads.place(&run).exists());
    }
}
