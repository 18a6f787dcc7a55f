//! The data directory: one server at a time, and files that only their owner can read.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use files::{Access, Durability, Trust};

/// The data directory, held by this process until the value is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    /// The lock belongs to the open file, so it ends with the process, however that ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, and takes hold of it.
    pub(crate) fn open(path: &Path, trust: &dyn Trust) -> anyhow::Result<Self> {
        let notes = program::private_dir("the data directory", path, Access::Ours, trust)
            .with_context(|| format!("the data directory {} cannot be used", path.display()))?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        let lock_path = path.join("lock");
        let lock = files::open_lock(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another local-edge serves the data directory {}; stop it, or choose another --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", lock_path.display()))
            }
        }
    }

    /// Does a server have it? Nobody has it afterwards who did not before.
    pub(crate) fn is_served(path: &Path, trust: &dyn Trust) -> anyhow::Result<bool> {
        let lock_path = path.join("lock");
        if !lock_path.exists() {
            // It is tried whether it can be had.
            return Self::open(path, trust).map(|_| false);
        }
        let lock = files::open_lock(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {
                drop(lock);
                Self::open(path, trust).map(|_| false)
            }
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", lock_path.display()))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file so that at any moment it is there as a whole or not at all, and only its owner can read it.
pub(crate) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    // The file of settings is where its user says, and another local-edge may be told to write it, too.
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let written = files::replace_through(&aside, path, content.as_bytes(), Durability::Named);
    written.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataDir::open(&path, &files::NobodyElse).unwrap();
        let error = DataDir::open(&path, &files::NobodyElse).err().unwrap().to_string();
        assert!(error.contains("another local-edge serves"), "{error}");
        assert!(DataDir::is_served(&path, &files::NobodyElse).unwrap());
        drop(first);
        assert!(!DataDir::is_served(&path, &files::NobodyElse).unwrap());
        DataDir::open(&path, &files::NobodyElse).unwrap();
    }
}
