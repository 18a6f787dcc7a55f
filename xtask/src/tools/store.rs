//! The folder of the tools in the user's cache.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

/// The start of the names of folders that a setup works in.
const TEMPORARY: &str = ".tmp-";

/// Our folder in the user's cache: `$XDG_CACHE_HOME/hpc-queue`, or the same below `~/.cache`.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    // A relative XDG_CACHE_HOME is invalid, and ignored, as the specification asks.
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = match cache {
        Some(cache) => cache,
        None => std::env::home_dir()
            .filter(|home| home.is_absolute())
            .context("there is no home directory to keep the tools in; set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    Ok(cache.join("hpc-queue"))
}

/// The tools, in a folder of the cache.
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Finds the folder; nothing is made yet.
    pub(crate) fn open() -> anyhow::Result<Self> {
        Ok(Self { root: cache()?.join("tools") })
    }

    /// A tool's folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The names of all folders.
    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Starts to change the store: waits until no other setup does.
    pub(crate) fn begin(&self) -> anyhow::Result<Session> {
        std::fs::create_dir_all(&self.root).with_context(|| format!("cannot create {}", self.root.display()))?;
        let path = self.root.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("Another setup is at work; waiting for it ({}).", path.display());
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // We hold the lock, so a folder of that name belongs to a setup that was killed.
        for name in self.names().iter().filter(|name| name.starts_with(TEMPORARY)) {
            let folder = self.root.join(name);
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let scratch = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.root)
            .with_context(|| format!("cannot create a folder in {}", self.root.display()))?;
        Ok(Session { root: self.root.clone(), scratch, _lock: lock })
    }
}

/// The right to change the store, and a folder to work in that is gone after that.
pub(crate) struct Session {
    root: PathBuf,
    // Before the lock: fields are dropped in this order, so the folder is gone when the next setup begins.
    scratch: TempDir,
    _lock: File,
}

impl Session {
    /// The store's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder to work in, on the same file system as the store.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes the folder of a tool elsewhere, and puts it in its place once it is whole.
    pub(crate) fn place(&self, name: &str, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let temporary = self.scratch.path().join(name);
        remove_if_there(&temporary)?;
        std::fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        make(&temporary)?;
        let folder = self.root.join(name);
        remove_if_there(&folder)?;
        std::fs::rename(&temporary, &folder)
            .with_context(|| format!("cannot rename {} to {}", temporary.display(), folder.display()))
    }
}

/// Removes a folder with all that is in it.
pub(crate) fn remove_if_there(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { root: folder.path().join("tools") };
        std::fs::create_dir_all(store.folder(".tmp-killed")).unwrap();
        let session = store.begin().unwrap();
        let failed = session.place("tool-1", |path| {
            std::fs::write(path.join("half"), "").unwrap();
            anyhow::bail!("the network is gone")
        });
        assert!(failed.is_err() && !store.folder("tool-1").exists());
        session.place("tool-1", |path| Ok(std::fs::write(path.join("program"), "new")?)).unwrap();
        drop(session);
        assert_eq!(std::fs::read_to_string(store.folder("tool-1").join("program")).unwrap(), "new");
        assert_eq!(store.names(), [".lock", "tool-1"]);
    }

    #[test]
    fn two_setups_do_not_work_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { root: folder.path().to_path_buf() };
        let session = store.begin().unwrap();
        let second = File::options().write(true).open(folder.path().join(".lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(session);
        assert!(second.try_lock().is_ok());
    }
}
