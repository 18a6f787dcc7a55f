//! The heart: a file in `RESULTS_DIR` whose number grows for as long as the keeper lives. Other daemons that share the
//! directory see by it that the jobs claimed here are not abandoned.
//!
//! It is a thread of its own, because `RESULTS_DIR` may hang, and what hangs must not hold up the runs.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::folder::replace;

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Beat {
    v: u32,
    owner: String,
    host: String,
    pid: u32,
    beat: u64,
}

struct Heart {
    path: PathBuf,
    host: String,
    /// The number that was written last; `None` before it is known.
    last: Option<u64>,
}

/// Runs that go on, and the paths that show that another daemon has taken one over. It can do so when no heart was
/// seen to beat for a time: the machine stood still, or was cut off from the file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Arc<Mutex<BTreeMap<String, Vec<PathBuf>>>>);

impl Watched {
    pub(super) fn watch(&self, run: &str, unless: Vec<PathBuf>) {
        self.lock().insert(run.to_owned(), unless);
    }

    pub(super) fn forget(&self, run: &str) {
        self.lock().remove(run);
    }

    /// Looks which runs were taken over. What hangs here holds nothing up but the next look.
    pub(super) fn taken_over(&self) -> Vec<String> {
        let watched = self.lock().clone();
        let taken = |paths: &[PathBuf]| paths.iter().any(|path| path.exists());
        watched.into_iter().filter(|(_, unless)| taken(unless)).map(|(run, _)| run).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<PathBuf>>> {
        // Nothing panics while it holds this.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to write the file again and again, and to tell which runs were taken over meanwhile.
pub(super) fn start(
    path: PathBuf,
    host: String,
    every: Duration,
    watched: Watched,
    taken_over: impl Fn(String) + Send + 'static,
) -> anyhow::Result<()> {
    let heart = Heart { path, host, last: None };
    let thread = std::thread::Builder::new().name("heart".to_owned());
    let beat = move || beat_for_ever(heart, every, &watched, taken_over);
    thread.spawn(beat).context("cannot start a thread")?;
    Ok(())
}

fn beat_for_ever(mut heart: Heart, every: Duration, watched: &Watched, taken_over: impl Fn(String)) {
    let mut said = false;
    loop {
        match heart.beat() {
            Ok(()) => said = false,
            Err(error) if !said => {
                let path = heart.path.display();
                tracing::warn!(
                    "{path} cannot be written, which shows other daemons that this one is alive; it is tried again: {error}"
                );
                said = true;
            }
            Err(_) => {}
        }
        watched.taken_over().into_iter().for_each(&taken_over);
        std::thread::sleep(every);
    }
}

impl Heart {
    fn beat(&mut self) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            make(parent)?;
        }
        let last = match self.last {
            Some(last) => last,
            None => last_beat(&self.path)?,
        };
        let beat = Beat {
            v: 1,
            owner: self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            host: self.host.clone(),
            pid: std::process::id(),
            beat: last.wrapping_add(1),
        };
        let mut text = serde_json::to_vec(&beat).expect("it holds only strings and numbers");
        text.push(b'\n');
        replace(&self.path, &text)?;
        self.last = Some(beat.beat);
        Ok(())
    }
}

/// Only the last directory: when `RESULTS_DIR` is not mounted, none must be made in its place.
fn make(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The number goes on where an earlier keeper stopped: an old number must not come again.
fn last_beat(path: &Path) -> io::Result<u64> {
    match std::fs::read(path) {
        // What is damaged changes with the next beat, whatever its number.
        Ok(text) => Ok(serde_json::from_slice::<Beat>(&text).map_or(0, |beat| beat.beat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heart_format_unchanged_and_its_number_grows() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(".owners/o1.json");
        let heart = || Heart { path: path.clone(), host: "node1".to_owned(), last: None };
        let mut first = heart();
        first.beat().unwrap();
        first.beat().unwrap();
        heart().beat().unwrap();
        let pid = std::process::id();
        let expected = format!("{{\"v\":1,\"owner\":\"o1\",\"host\":\"node1\",\"pid\":{pid},\"beat\":3}}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_results_directory_that_is_not_there_is_not_made() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("results/.owners/o1.json");
        assert!(Heart { path, host: String::new(), last: None }.beat().is_err());
        assert!(!temp.path().join("results").exists());
    }
}
