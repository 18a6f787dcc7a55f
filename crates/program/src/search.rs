//! Finding a program as the system does, but never by a path that depends on the directory we are in: in a job
//! directory it would be a program that a job has put there.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// `PATH` without its relative entries.
pub fn absolute_entries(path: &OsStr) -> OsString {
    let absolute = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    std::env::join_paths(absolute).expect("what was split at colons holds none")
}

/// Where a program is, by the absolute entries of `PATH`.
pub fn on_path(path: &OsStr, program: &Path) -> Option<PathBuf> {
    let absolute = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    absolute.map(|directory| directory.join(program)).find(|found| is_executable(found))
}

/// Is this a file that somebody may execute?
pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_entries_of_path_are_not_looked_into() {
        let temp = tempfile::tempdir().unwrap();
        for (name, mode) in [("program", 0o755), ("text", 0o644)] {
            std::fs::write(temp.path().join(name), "").unwrap();
            std::fs::set_permissions(temp.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = format!(".:bin::{}:/nowhere:", temp.path().display());
        assert_eq!(absolute_entries(path.as_ref()), *format!("{}:/nowhere", temp.path().display()));
        let found = |program: &str| on_path(path.as_ref(), program.as_ref());
        assert_eq!(found("program"), Some(temp.path().join("program")));
        assert_eq!((found("text"), found("Cargo.toml")), (None, None));
    }
}
