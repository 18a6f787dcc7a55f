//! The work directory: `input.json` in, `output.json` out.
//!
//! Invariant: `output.json` is there whole or not at all, and it is on the disk before the program ends with 0. A
//! reader on another node of a cluster (NFS, Lustre) sees either nothing or everything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::TaskError;

/// What the daemon reads of a job that has ended well.
pub(crate) const OUTPUT: &str = "output.json";

/// Reads `input.json`.
pub(crate) fn read_input(work_dir: &Path) -> Result<String, TaskError> {
    let path = work_dir.join("input.json");
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TaskError::BadJob(format!(
            "there is no {}. Put {{\"task\": \"echo\", \"input\": {{}}}} there, or set WORK_DIR.",
            path.display()
        )),
        _ => TaskError::io("read", &path, source),
    })?;
    String::from_utf8(bytes).map_err(|_| TaskError::BadJob(format!("{} must be JSON in UTF-8", path.display())))
}

/// Writes a file, for example `output.json`: under another name, synced, then renamed. A symbolic link of that name is
/// replaced, never followed. Its folder is made where there is none.
pub(crate) fn write(work_dir: &Path, name: &str, text: &str) -> Result<(), TaskError> {
    let path = work_dir.join(name);
    let (folder, name) = match name.rsplit_once('/') {
        Some((folder, name)) => (work_dir.join(folder), name),
        None => (work_dir.to_owned(), name),
    };
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let written = fs::create_dir_all(&folder)
        .and_then(|()| write_synced(&unfinished, text))
        .and_then(|()| fs::rename(&unfinished, &path))
        .and_then(|()| sync_directory(&folder));
    written.map_err(|source| {
        // Best effort: the error of the writing is the one that matters.
        let _ = fs::remove_file(&unfinished);
        TaskError::io("write", &path, source)
    })
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    // What an earlier attempt left behind, killed between the two steps.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // File systems that cannot sync a directory say so in one of these ways; they have nothing to sync.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_replaces_what_is_there_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "untouched").unwrap();
        let output = dir.path().join("output.json");
        std::os::unix::fs::symlink(&other, &output).unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(".output.json.unfinished")).unwrap();

        write(dir.path(), OUTPUT, "{\"a\":1}").unwrap();
        write(dir.path(), "plots/a.svg", "<svg/>").unwrap();
        write(dir.path(), "plots/a.svg", "<svg></svg>").unwrap();

        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        assert!(fs::symlink_metadata(&output).unwrap().is_file());
        assert_eq!(fs::read_to_string(&output).unwrap(), "{\"a\":1}");
        assert!(!dir.path().join(".output.json.unfinished").exists());
        assert_eq!(fs::read_to_string(dir.path().join("plots/a.svg")).unwrap(), "<svg></svg>");
        assert_eq!(fs::read_dir(dir.path().join("plots")).unwrap().count(), 1);
    }

    #[test]
    fn output_that_cannot_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("output.json")).unwrap();
        let error = write(dir.path(), OUTPUT, "{}").unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("cannot write") && error.to_string().contains("output.json"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
