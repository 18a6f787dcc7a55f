//! What looks of this inbox have spent of the day's operations: a file beside the inbox, which whoever looks keeps.
//!
//! One program looks at a time ([`crate::turn`]), so one writes; where turns cannot be told, what is written last
//! stays. Where the file cannot be used, each program goes on with what it has spent itself.
//!
//! Out of scope: the rule by which it is spent (`allowance`).

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use allowance::{Allowance, State};
use serde::{Deserialize, Serialize};

/// The file is much smaller.
const BYTES_MAX: u64 = 10_000;

/// What is in it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    v: u32,
    day: u64,
    spent: u64,
}

/// What is spent.
#[derive(Debug)]
pub(crate) struct Spent {
    file: PathBuf,
    allowance: Mutex<Allowance>,
}

impl Spent {
    /// What is spent is written down in this directory; so much may be, or as much as one likes.
    pub(crate) fn new(directory: &std::path::Path, per_day: Option<u64>) -> Self {
        Self { file: directory.join("operations.json"), allowance: Mutex::new(Allowance::new(per_day)) }
    }

    /// How many messages may be pulled of so many that are wanted.
    pub(crate) fn messages(&self, wanted: usize) -> usize {
        let now = now();
        self.with_others(now).messages(wanted, 0, now)
    }

    /// The pause before the next look, where `usual` is that of who need not be careful.
    pub(crate) fn pause(&self, usual: Duration) -> Duration {
        self.lock().pause(usual, 0, now())
    }

    /// These were spent.
    pub(crate) fn spend(&self, operations: u64) {
        let now = now();
        let mut allowance = self.lock();
        allowance.spend(operations, now);
        let Some(State { spent, .. }) = allowance.state(0, now) else { return };
        let note = Note { v: 1, day: allowance::day(now), spent };
        let text = serde_json::to_vec(&note).unwrap_or_default();
        if let Err(error) = files::replace(&self.file, &text, files::Durability::Cached) {
            tracing::debug!("what is spent cannot be written down: {error}");
        }
    }

    /// How it is, where there is an end to it.
    pub(crate) fn state(&self) -> Option<State> {
        let now = now();
        self.with_others(now).state(0, now)
    }

    /// With what other programs of this inbox have written down.
    fn with_others(&self, now: Duration) -> MutexGuard<'_, Allowance> {
        let mut allowance = self.lock();
        if allowance.is_limited() {
            let text = files::read_own(&self.file, BYTES_MAX).ok();
            if let Some(note) = text.and_then(|text| serde_json::from_slice::<Note>(&text).ok()) {
                // All that was written down, but for what is this program's own.
                let own = match allowance.own() {
                    (day, own) if day == note.day => own,
                    _ => 0,
                };
                allowance.spent_besides(note.day, note.spent.saturating_sub(own), 0, now);
            }
        }
        allowance
    }

    fn lock(&self) -> MutexGuard<'_, Allowance> {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time since the Unix epoch.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_take_turns_spend_of_one_allowance() {
        let temp = tempfile::tempdir().unwrap();
        let of = || Spent::new(temp.path(), Some(60));
        let (first, second) = (of(), of());
        assert_eq!(first.messages(100), 10);
        first.spend(30);
        assert_eq!((first.messages(100), second.messages(100)), (5, 5));
        second.spend(18);
        assert_eq!((first.messages(100), second.messages(100)), (2, 2));
        first.spend(12);
        assert_eq!((first.messages(100), second.messages(100), of().messages(100)), (0, 0, 0));
        assert_eq!(of().state().unwrap().spent, 60);
        let pause = second.pause(Duration::from_secs(5));
        let rest = allowance::next_day(now()).saturating_sub(now());
        assert!(pause >= rest, "{pause:?}, and the day goes on for {rest:?}");
        let free = Spent::new(&temp.path().join("none"), None);
        free.spend(1_000_000);
        assert_eq!((free.messages(100), free.pause(Duration::ZERO)), (100, Duration::ZERO));
    }
}
