//! The names by which the hub knows a daemon and a `RESULTS_DIR`: random texts, each in a file of ours.
//!
//! The one of the daemon tells it from others of its site. The one of the directory tells two sites that have one
//! name from two daemons that share one directory.

use std::io;
use std::path::Path;

use files::{Creator, Durability};

use crate::job::ResultsDir;

/// No job id begins like this.
pub(crate) const RESULTS_ID: &str = ".results-id";

const DAEMON_ID: &str = "link-id";

/// Such a text is much shorter.
const BYTES_MAX: u64 = 100;

/// That of the daemon with this state.
pub(super) fn of_daemon(state_dir: &Path) -> io::Result<String> {
    of(&state_dir.join(DAEMON_ID), &Creator::new(state_dir.to_owned()))
}

impl ResultsDir {
    /// The text by which this directory is known, whoever uses it.
    pub(crate) fn id(&self) -> io::Result<String> {
        self.must_be_it()?;
        of(&self.path().join(RESULTS_ID), self.creator())
    }
}

/// Of several who make it at the same time, all have what the first one made.
fn of(path: &Path, creator: &Creator) -> io::Result<String> {
    if let Some(id) = read(path)? {
        return Ok(id);
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    creator.create(path, format!("{id}\n").as_bytes(), Durability::Content)?;
    read(path)?.ok_or_else(|| io::Error::other(format!("{} is not what was written there; remove it", path.display())))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match files::read_own_text(path, BYTES_MAX) {
        Ok(text) => {
            let id = text.trim();
            let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !plain {
                return Err(io::Error::other(format!("{} does not hold a name; remove it", path.display())));
            }
            Ok(Some(id.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_and_all_who_make_it_at_once_have_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let results = ResultsDir::new(temp.path().to_owned());
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| results.id().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
        assert_ne!(of_daemon(temp.path()).unwrap(), ids[0]);
        assert_eq!(of_daemon(temp.path()).unwrap(), of_daemon(temp.path()).unwrap());
        std::fs::write(temp.path().join(RESULTS_ID), "../x").unwrap();
        assert!(results.id().unwrap_err().to_string().contains("remove it"));
    }
}
