//! The log of decisions of scaling: `STATE_DIR/slurm/scaling.jsonl`, bounded, each line with all that it was made of.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use protocol::PoolName;
use scaling::Logged;

const LOG: &str = "scaling.jsonl";

/// What was written before that.
const OLD: &str = "scaling.1.jsonl";

/// How large each of the two gets.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The log.
#[derive(Debug, Clone)]
pub(super) struct Log(PathBuf);

impl Log {
    /// The log beside the folders of allocations.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Writes a decision down.
    pub(super) fn write(&self, logged: &Logged) -> io::Result<()> {
        let path = self.0.join(LOG);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > BYTES_MAX) {
            fs::rename(&path, self.0.join(OLD))?;
        }
        files::open_append(&path)?.write_all((logged.line() + "\n").as_bytes())
    }

    /// How long jobs of each pool ran, by the last decisions of an earlier daemon.
    pub(super) fn mean_runs(&self) -> BTreeMap<PoolName, f64> {
        let mut means = BTreeMap::new();
        for name in [OLD, LOG] {
            let Ok(text) = files::read_own_text(&self.0.join(name), 2 * BYTES_MAX) else { continue };
            for logged in text.lines().filter_map(|line| Logged::parse(line).ok()) {
                for pool in logged.snapshot.pools {
                    if let (Ok(name), Some(mean)) = (pool.name.parse(), pool.mean_run) {
                        means.insert(name, mean);
                    }
                }
            }
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use scaling::{PoolState, Snapshot};

    use super::*;

    #[test]
    fn decisions_are_kept_and_the_log_does_not_grow_without_bound() {
        let temp = tempfile::tempdir().unwrap();
        let log = Log::in_directory(temp.path());
        assert!(log.mean_runs().is_empty());
        let pool = |mean_run| PoolState { name: "cpu".to_owned(), max: 1, slots: 1, mean_run, ..PoolState::default() };
        let logged = |mean_run| Logged::decide(Snapshot { pools: vec![pool(mean_run)], ..Snapshot::default() });
        log.write(&logged(Some(3.0))).unwrap();
        log.write(&logged(None)).unwrap();
        assert_eq!(log.mean_runs(), BTreeMap::from([("cpu".parse().unwrap(), 3.0)]));
        fs::write(temp.path().join(LOG), vec![b'x'; usize::try_from(BYTES_MAX).unwrap() + 1]).unwrap();
        log.write(&logged(Some(5.0))).unwrap();
        assert_eq!(fs::read_to_string(temp.path().join(LOG)).unwrap().lines().count(), 1);
        assert_eq!(log.mean_runs(), BTreeMap::from([("cpu".parse().unwrap(), 5.0)]));
    }
}
