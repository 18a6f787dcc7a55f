//! The folder of an allocation, as the keeper in it sees to it: it tells there that it lives, and looks what it is
//! told.
//!
//! It is a thread of its own, because the file system of `STATE_DIR` may hang, and what hangs must not hold up the
//! runs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::Timestamp;

use super::allocation::{self, Beat, Noticed};
use super::heart::leave_signals_to_others;

/// How often it is told that the keeper lives.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked what is told by files: while there is no connection, this is the only way.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is told of the keeper.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulse {
    pub(super) running: usize,
    pub(super) stopping: bool,
    /// Is there a daemon that can tell by the connection what it wants?
    pub(super) connected: bool,
    pub(super) ends: Option<Instant>,
}

/// The same, for the thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Pulse>>);

impl Shown {
    pub(super) fn show(&self, pulse: Pulse) {
        *crate::lock(&self.0) = pulse;
    }

    fn get(&self) -> Pulse {
        *crate::lock(&self.0)
    }
}

impl Pulse {
    fn beat(self) -> Beat {
        let at_ms = Timestamp::now().as_millisecond();
        let left = self.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        let left = left.map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
        let ends_at_ms = left.map(|left| at_ms.saturating_add(left));
        Beat { at_ms, running: self.running, stopping: self.stopping, ends_at_ms }
    }
}

/// Begins to see to the folder. Each thing that is told there is heard once.
pub(super) fn start(folder: PathBuf, shown: Shown, heard: impl Fn(Noticed) + Send + 'static) -> anyhow::Result<()> {
    let watch = move || {
        leave_signals_to_others();
        let (mut seen, mut trouble) = (BTreeSet::new(), Trouble::default());
        let (mut last_beat, mut last_look) = (None, None);
        loop {
            let pulse = shown.get();
            if is_due(&mut last_beat, BEAT_EVERY) {
                trouble.tell(&folder, &allocation::write_beat(&folder, &pulse.beat()));
            }
            let every = if pulse.connected { BEAT_EVERY } else { LOOK_EVERY };
            if is_due(&mut last_look, every) {
                let looked = look(&folder, &mut seen);
                trouble.tell(&folder, &looked);
                looked.unwrap_or_default().into_iter().for_each(&heard);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    };
    std::thread::Builder::new().name("folder".to_owned()).spawn(watch).context("cannot start a thread")?;
    Ok(())
}

fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// What is told in the folder and was not seen before.
fn look(folder: &Path, seen: &mut BTreeSet<String>) -> io::Result<Vec<Noticed>> {
    let mut noticed = Vec::new();
    // The names are asked for, and not one by one: that a file is not there is remembered for long on a network file
    // system, and what is in a directory is not.
    for entry in std::fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !seen.contains(&name)
            && let Some(what) = allocation::noticed(folder, &name)
        {
            seen.insert(name);
            noticed.push(what);
        }
    }
    Ok(noticed)
}

/// What goes wrong is said once, until it goes well.
#[derive(Default)]
struct Trouble {
    said: bool,
}

impl Trouble {
    fn tell<T>(&mut self, folder: &Path, outcome: &io::Result<T>) {
        match outcome {
            Ok(_) => self.said = false,
            Err(error) if !self.said => {
                self.said = true;
                let folder = folder.display();
                tracing::warn!(
                    "the folder of this allocation, {folder}, cannot be used, which is tried again: {error}"
                );
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::EndReason;

    use super::*;

    #[test]
    fn what_is_told_by_files_is_heard_once() {
        let temp = tempfile::tempdir().unwrap();
        let mut seen = BTreeSet::new();
        assert!(look(temp.path(), &mut seen).unwrap().is_empty());
        let run = lifecycle::Run::parse("j1.2").unwrap();
        allocation::end_run(temp.path(), &run, EndReason::Cancelled).unwrap();
        std::fs::write(temp.path().join("keeper.log"), "").unwrap();
        let heard = look(temp.path(), &mut seen).unwrap();
        assert!(matches!(&heard[..], [Noticed::End(run, EndReason::Cancelled)] if run == "j1.2"), "{heard:?}");
        allocation::stop(temp.path()).unwrap();
        assert!(matches!(&look(temp.path(), &mut seen).unwrap()[..], [Noticed::Stop]));
        assert!(look(temp.path(), &mut seen).unwrap().is_empty());
        assert!(look(&temp.path().join("gone"), &mut seen).is_err());
    }

    #[test]
    fn a_beat_tells_how_much_time_is_left_by_one_clock() {
        let ends = Some(Instant::now() + Duration::from_secs(100));
        let beat = Pulse { running: 2, stopping: true, connected: false, ends }.beat();
        assert!((90..=100).contains(&beat.left().unwrap().as_secs()) && beat.running == 2 && beat.stopping);
        assert_eq!(Pulse::default().beat().left(), None);
    }
}
