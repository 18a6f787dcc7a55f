//! The heart: a file in `RESULTS_DIR` whose number grows for as long as the keeper lives. Other daemons that share the
//! directory see by it that the jobs claimed here are not abandoned.
//!
//! It is a thread of its own, because `RESULTS_DIR` may hang, and what hangs must not hold up the runs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use files::Durability;
use nix::sys::signal::SigSet;
use serde::{Deserialize, Serialize};

use crate::job::HeldDir;

/// Before the first beat.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The file is much smaller.
const BYTES_MAX: u64 = 10_000;

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Beat {
    v: u32,
    owner: String,
    host: String,
    pid: u32,
    pub(super) beat: u64,
}

struct Heart {
    path: PathBuf,
    host: String,
    /// Whose heart it is besides: then it is enough that one of them beats.
    shared: Option<Shared>,
    /// The number that was written last; `None` before it is known.
    last: Option<u64>,
}

/// A heart of several keepers: that of the daemon's node, and those in its allocations.
#[derive(Debug, Clone)]
struct Shared {
    /// Through which file this one writes it, that the others do not use.
    aside: PathBuf,
    /// How it was seen last.
    seen: Option<Vec<u8>>,
}

/// Runs that go on, and their directories, which show when another daemon has taken one over. It can do so when no
/// heart was seen to beat for a time: the machine stood still, or was cut off from the file system.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Arc<Mutex<BTreeMap<String, HeldDir>>>);

impl Watched {
    pub(super) fn watch(&self, run: &str, held: HeldDir) {
        self.lock().insert(run.to_owned(), held);
    }

    pub(super) fn forget(&self, run: &str) {
        self.lock().remove(run);
    }

    /// Looks which runs were taken over. What hangs here holds nothing up but the next look.
    pub(super) fn taken_over(&self) -> Vec<String> {
        let watched = self.lock().clone();
        watched.into_iter().filter(|(_, held)| held.is_taken_over()).map(|(run, _)| run).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, HeldDir>> {
        crate::lock(&self.0)
    }
}

/// Where the heart beats and how often, as the daemon said last.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Arc<Mutex<Option<(PathBuf, Duration)>>>);

impl Pace {
    pub(super) fn set(&self, path: PathBuf, every: Duration) {
        *crate::lock(&self.0) = Some((path, every));
    }

    /// It stops.
    pub(super) fn rest(&self) {
        *crate::lock(&self.0) = None;
    }

    fn get(&self) -> Option<(PathBuf, Duration)> {
        crate::lock(&self.0).clone()
    }
}

/// Begins to write the file again and again, and to tell which runs were taken over meanwhile. Where others write it,
/// too, `shared_as` is a name that none of them has.
pub(super) fn start(
    host: String,
    pace: Pace,
    shared_as: Option<String>,
    watched: Watched,
    taken_over: impl Fn(String) + Send + 'static,
) -> anyhow::Result<()> {
    let looks = pace.clone();
    // Two threads: one file that hangs must not keep us from seeing what happens to the others.
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let beats = move || {
        leave_signals_to_others();
        beat_for_ever(&host, shared_as.as_deref(), &pace);
    };
    thread("heart").spawn(beats).context("cannot start a thread")?;
    let look = move || {
        leave_signals_to_others();
        loop {
            watched.taken_over().into_iter().for_each(&taken_over);
            std::thread::sleep(looks.get().map_or(FIRST_PAUSE, |(_, every)| every));
        }
    };
    thread("watch").spawn(look).context("cannot start a thread")?;
    Ok(())
}

/// The end of each run is a signal, and one that wakes this thread first costs as much as a good part of a short run.
pub(super) fn leave_signals_to_others() {
    if let Err(error) = SigSet::all().thread_block() {
        tracing::debug!("a thread of the keeper goes on hearing of signals: {error}");
    }
}

/// Whose heart it is, by the name of its file.
pub(super) fn owner(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn beat_for_ever(host: &str, shared_as: Option<&str>, pace: &Pace) {
    let mut said = false;
    let mut heart = Heart::new(PathBuf::new(), host, shared_as);
    loop {
        let Some((path, every)) = pace.get() else {
            std::thread::sleep(FIRST_PAUSE);
            continue;
        };
        if heart.path != path {
            heart = Heart::new(path, host, shared_as);
        }
        match heart.beat() {
            Ok(()) => said = false,
            // The daemon makes it when it has looked at RESULTS_DIR for the first time.
            Err(error) if heart.last.is_none() && error.kind() == io::ErrorKind::NotFound => {
                std::thread::sleep(every.min(FIRST_PAUSE));
                continue;
            }
            Err(error) if !said => {
                let path = heart.path.display();
                tracing::warn!(
                    "{path} cannot be written, which shows other daemons that this one is alive; it is tried again: {error}"
                );
                said = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(every);
    }
}

impl Heart {
    fn new(path: PathBuf, host: &str, shared_as: Option<&str>) -> Self {
        let aside = shared_as.map(|name| path.with_file_name(format!(".{}.{name}.new", owner(&path))));
        let shared = aside.map(|aside| Shared { aside, seen: None });
        Self { path, host: host.to_owned(), shared, last: None }
    }

    /// Did another one write it since it was seen last? Two hundred that write one file would keep each other busy.
    fn beats_by_itself(&mut self) -> io::Result<bool> {
        let Some(shared) = &mut self.shared else { return Ok(false) };
        let text = files::read_own(&self.path, BYTES_MAX)?;
        let is_same = shared.seen.as_ref() == Some(&text);
        if !is_same {
            self.last = None;
        }
        shared.seen = Some(text);
        Ok(!is_same)
    }

    fn beat(&mut self) -> io::Result<()> {
        if self.beats_by_itself()? {
            return Ok(());
        }
        let last = match self.last {
            Some(last) if self.path.try_exists()? => last,
            _ => last_beat(&self.path)?,
        };
        let beat = Beat {
            v: 1,
            owner: owner(&self.path),
            host: self.host.clone(),
            pid: std::process::id(),
            beat: last.wrapping_add(1),
        };
        let mut text = serde_json::to_vec(&beat).expect("it holds only strings and numbers");
        text.push(b'\n');
        // It is made by the daemon: where it is not there, something else is in the place of RESULTS_DIR. On a full
        // disk there is no room for a second one, and the others must not think that we are dead: it is written over.
        // The text never gets shorter, and who reads it only looks whether it changes.
        let replaced = match &self.shared {
            Some(shared) => files::replace_through(&shared.aside, &self.path, &text, Durability::Cached),
            None => files::replace(&self.path, &text, Durability::Cached),
        };
        replaced.map(drop).or_else(|_| files::overwrite(&self.path, &text))?;
        self.last = Some(beat.beat);
        if let Some(shared) = &mut self.shared {
            shared.seen = Some(text);
        }
        Ok(())
    }
}

/// The number goes on where an earlier keeper stopped: an old number must not come again.
fn last_beat(path: &Path) -> io::Result<u64> {
    match files::read_own(path, BYTES_MAX) {
        // What is damaged changes with the next beat, whatever its number.
        Ok(text) => Ok(serde_json::from_slice::<Beat>(&text).map_or(0, |beat| beat.beat)),
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
        let heart = || Heart::new(path.clone(), "node1", None);
        std::fs::create_dir(temp.path().join(".owners")).unwrap();
        std::fs::write(&path, "").unwrap();
        let mut first = heart();
        first.beat().unwrap();
        first.beat().unwrap();
        heart().beat().unwrap();
        let pid = std::process::id();
        let expected = format!("{{\"v\":1,\"owner\":\"o1\",\"host\":\"node1\",\"pid\":{pid},\"beat\":3}}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn of_several_that_have_one_heart_some_beat_and_it_goes_on_with_the_last() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("o1.json");
        std::fs::write(&path, "").unwrap();
        let text = || std::fs::read_to_string(&path).unwrap();
        let mut here = Heart::new(path.clone(), "login", None);
        let mut workers = ["a", "b"].map(|name| Heart::new(path.clone(), "node", Some(name)));
        here.beat().unwrap();
        workers.iter_mut().for_each(|worker| worker.beat().unwrap());
        assert!(text().contains("login"), "it beats without them: {}", text());
        let mut last = text();
        for round in 0..6 {
            workers[round % 2].beat().unwrap();
            workers[(round + 1) % 2].beat().unwrap();
            assert_ne!(text(), last, "one of them has written it in each round, as the others see");
            last = text();
        }
        assert!(last.contains("node") && last.contains("\"beat\":7"), "each went on from what stood there: {last}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_results_directory_that_is_not_there_is_not_made() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("results/.owners/o1.json");
        assert!(Heart::new(path, "", None).beat().is_err());
        assert!(!temp.path().join("results").exists());
    }
}
