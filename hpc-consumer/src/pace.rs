//! The pace of idle polling, shared by the daemons of one `RESULTS_DIR`: what one of them has just found empty the
//! others need not ask, so that any number of idle daemons costs what one does.
//!
//! They tell each other by a file. It is a hint: where it is missing, damaged, or on a file system that hangs, each
//! daemon asks for itself. Clocks are not compared: what counts is whether the file has changed since a daemon looked
//! last, which it does only when it is about to ask. So a daemon that dies is replaced by the next one that looks.
//!
//! Out of scope: when the queue is to be asked (`lifecycle`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blocking;

/// How long the file may take before this daemon goes on alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file is much smaller.
const BYTES_MAX: u64 = 10_000;

/// What a daemon found in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    v: u32,
    queue: String,
    owner: String,
    /// Which of its finds this is.
    number: u64,
    empty: bool,
}

/// The pace, as one daemon knows it.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<Pacing>>);

#[derive(Debug)]
struct Pacing {
    path: PathBuf,
    /// What this daemon wrote last, or would have.
    own: Found,
    /// What stood in the file when it was looked at last.
    seen: Option<Found>,
    /// Is the queue empty, as far as this daemon knows?
    idle: bool,
}

/// Has another daemon found the queue of `own` empty since `before`?
fn is_found_empty(own: &Found, before: Option<&Found>, now: Option<&Found>) -> bool {
    now.is_some_and(|now| now.empty && now.queue == own.queue && now.owner != own.owner && before != Some(now))
}

impl Pace {
    /// `heart` is the file by which `owner` shows that it is alive: the pace stands beside it.
    pub(crate) fn new(heart: &Path, queue: &str, owner: &str) -> Self {
        let own = Found { v: 1, queue: queue.to_owned(), owner: owner.to_owned(), number: 0, empty: false };
        Self(Arc::new(Mutex::new(Pacing { path: heart.with_file_name(".pace"), own, seen: None, idle: false })))
    }

    /// Need the queue not be asked this time, because it was empty when this daemon asked, and another one has found it
    /// empty since?
    pub(crate) async fn is_spared(&self) -> bool {
        self.with_file(Pacing::is_spared).await.unwrap_or(false)
    }

    /// The queue was asked, and was empty, or not.
    pub(crate) async fn found(&self, empty: bool) {
        self.with_file(move |state| state.found(empty)).await;
    }

    /// Nothing, once the file hangs: whoever waits for it is left alone.
    async fn with_file<T: Send + 'static>(&self, work: impl FnOnce(&mut Pacing) -> T + Send + 'static) -> Option<T> {
        drop(self.0.try_lock().ok()?);
        let state = self.0.clone();
        tokio::time::timeout(PATIENCE, blocking(move || Some(work(&mut *state.try_lock().ok()?)))).await.ok().flatten()
    }
}

impl Pacing {
    fn is_spared(&mut self) -> bool {
        if !self.idle {
            return false;
        }
        let now = files::read_own(&self.path, BYTES_MAX).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let spared = is_found_empty(&self.own, self.seen.as_ref(), now.as_ref());
        self.seen = now;
        spared
    }

    fn found(&mut self, empty: bool) {
        self.idle = empty;
        // While there is work, once is enough to have the others ask.
        if !empty && !self.seen.as_ref().is_some_and(|seen| seen.empty) {
            return;
        }
        self.own.number += 1;
        self.own.empty = empty;
        let text = serde_json::to_vec(&self.own).expect("it holds only strings and numbers");
        // Not whole or nothing: who reads a part of it asks for itself. The directory is the keeper's to miss.
        let _ = files::rewrite(&self.path, &text);
        self.seen = Some(self.own.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemons(directory: &Path, count: usize) -> Vec<Pacing> {
        let pace = |number| Pace::new(&directory.join("heart.json"), "q", &format!("o{number}"));
        (0..count).map(|number| Arc::into_inner(pace(number).0).unwrap().into_inner().unwrap()).collect()
    }

    /// Each looks once at a queue. Returns who asked it.
    fn round(daemons: &mut [Pacing], empty: bool) -> Vec<usize> {
        let mut asked = Vec::new();
        for (number, daemon) in daemons.iter_mut().enumerate() {
            if !daemon.is_spared() {
                asked.push(number);
                daemon.found(empty);
            }
        }
        asked
    }

    #[test]
    fn many_idle_daemons_ask_as_often_as_one() {
        let temp = tempfile::tempdir().unwrap();
        let mut daemons = daemons(temp.path(), 4);
        assert_eq!(round(&mut daemons, true), [0, 1, 2, 3], "each asks for itself before it is idle");
        for _ in 0..100 {
            assert_eq!(round(&mut daemons, true).len(), 1);
        }
        let asks = round(&mut daemons, true)[0];
        daemons.remove(asks);
        let asked: usize = (0..10).map(|_| round(&mut daemons, true).len()).sum();
        assert!((9..=10).contains(&asked), "one takes the place of one that is gone: {asked}");
    }

    #[test]
    fn work_in_the_queue_has_all_ask() {
        let temp = tempfile::tempdir().unwrap();
        let mut daemons = daemons(temp.path(), 4);
        round(&mut daemons, true);
        let first = round(&mut daemons, true);
        let mut asked = round(&mut daemons, false);
        asked.extend(round(&mut daemons, false));
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, [0, 1, 2, 3], "{first:?} asked before");
        assert_eq!(round(&mut daemons, false), [0, 1, 2, 3]);
    }

    #[test]
    fn only_a_new_find_of_another_daemon_in_the_same_queue_counts() {
        let found = |queue: &str, owner: &str, number, empty| {
            let (queue, owner) = (queue.to_owned(), owner.to_owned());
            Found { v: 1, queue, owner, number, empty }
        };
        let (own, other) = (found("q", "a", 7, true), found("q", "b", 1, true));
        assert!(is_found_empty(&own, Some(&own), Some(&other)));
        assert!(is_found_empty(&own, Some(&other), Some(&found("q", "b", 2, true))));
        for now in [other.clone(), own.clone(), found("r", "b", 2, true), found("q", "b", 2, false)] {
            assert!(!is_found_empty(&own, Some(&other), Some(&now)), "{now:?}");
        }
        assert!(!is_found_empty(&own, Some(&other), None));
        let text = r#"{"v":1,"queue":"q","owner":"b","number":1,"empty":true}"#;
        assert_eq!(serde_json::to_string(&other).unwrap(), text);
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_has_each_ask() {
        let temp = tempfile::tempdir().unwrap();
        let mut daemons = daemons(&temp.path().join("missing"), 2);
        for _ in 0..3 {
            assert_eq!(round(&mut daemons, true), [0, 1]);
        }
    }
}
