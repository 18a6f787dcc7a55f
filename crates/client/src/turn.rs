//! Whose turn it is to look at a queue: of the programs that share an inbox, one looks, and the others watch the inbox.
//!
//! ```text
//! DIR/polling/<queue>.lock     locked by the program that looks; changed when it has looked
//! DIR/polling/<queue>.asked    changed when a program begins to wait
//! ```
//!
//! The lock is one of the operating system, so it is free at once when its holder dies. What the files hold does not
//! matter, only the times at which they changed.
//!
//! Out of scope: when to look ([`crate::pace`]), and what comes of it.
//!
//! Invariant: this saves looks and decides nothing else. Where files cannot be locked, everybody looks, which costs
//! more and is as right.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::receive::ResultsQueue;

/// How many bytes of the digest name the files. They are only names.
const NAME_BYTES: usize = 8;

/// The turn of one program at one queue.
#[derive(Debug)]
pub(crate) struct Turn {
    /// None where there can be no lock: then it is always this program's turn.
    lock: Option<File>,
    mine: bool,
    asked_path: PathBuf,
    asked: Option<SystemTime>,
}

impl Turn {
    /// The turn at `queue` of the programs whose inbox has this directory for it.
    pub(crate) fn new(directory: &Path, queue: &ResultsQueue) -> Self {
        let name = name(queue);
        let lock = open_lock(&directory.join(&name).with_extension("lock"));
        let lock = lock.inspect_err(|error| tracing::debug!("looks are not shared: {error}")).ok();
        let asked_path = directory.join(name).with_extension("asked");
        let mut turn = Self { mine: lock.is_none(), lock, asked_path, asked: None };
        turn.asked_anew();
        turn
    }

    /// Is it this program's turn? Once it is, it stays so until the value goes.
    pub(crate) fn is_mine(&mut self) -> bool {
        let Some(lock) = self.lock.as_ref().filter(|_| !self.mine) else { return true };
        self.mine = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                tracing::debug!("looks are not shared: {error}");
                self.lock = None;
                true
            }
        };
        self.mine
    }

    /// Tells whose turn it is that somebody waits.
    pub(crate) fn ask(&self) {
        let told = files::open_append(&self.asked_path);
        if let Err(error) = told.and_then(|file| file.set_modified(SystemTime::now())) {
            tracing::debug!("cannot ask for looks: {error}");
        }
    }

    /// Has somebody begun to wait since this was asked last?
    pub(crate) fn asked_anew(&mut self) -> bool {
        let asked = std::fs::metadata(&self.asked_path).and_then(|metadata| metadata.modified()).ok();
        std::mem::replace(&mut self.asked, asked) != asked
    }

    /// How long ago somebody began to wait, as far as is known.
    pub(crate) fn since_asked(&self) -> Option<Duration> {
        since(self.asked?)
    }

    /// How long ago somebody looked, as far as is known.
    pub(crate) fn since_looked(&self) -> Option<Duration> {
        since(self.lock.as_ref()?.metadata().and_then(|metadata| metadata.modified()).ok()?)
    }

    /// To be called after a look.
    pub(crate) fn looked(&self) {
        if let Some(Err(error)) = self.lock.as_ref().map(|lock| lock.set_modified(SystemTime::now())) {
            tracing::debug!("cannot tell of a look: {error}");
        }
    }
}

/// Nothing for a time that is to come: clocks are set.
fn since(time: SystemTime) -> Option<Duration> {
    SystemTime::now().duration_since(time).ok()
}

/// Two queues never share looks, whoever serves them.
fn name(queue: &ResultsQueue) -> String {
    let mut hash = Sha256::new();
    for part in [queue.endpoint.base_url.trim_end_matches('/'), &queue.endpoint.account_id, &queue.queue_id] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

fn open_lock(path: &Path) -> io::Result<File> {
    match files::create_new(path) {
        Ok(file) => {
            // Nobody has looked yet.
            file.set_modified(SystemTime::UNIX_EPOCH)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => files::open_lock(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: &str, base_url: &str) -> ResultsQueue {
        let endpoint = queues::Endpoint {
            base_url: base_url.to_owned(),
            account_id: "account".to_owned(),
            api_token: "token".to_owned(),
            api_token_origin: "a test".to_owned(),
            plain_http: queues::PlainHttp::default(),
        };
        let visibility_timeout = Duration::from_secs(60);
        ResultsQueue {
            endpoint,
            queue_id: queue_id.to_owned(),
            batch_size: 1,
            visibility_timeout,
            operations_per_day: None,
        }
    }

    #[test]
    fn one_has_the_turn_and_the_next_gets_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let turn = |id| Turn::new(dir.path(), &queue(id, "http://a/"));
        let (mut first, mut second, mut other) = (turn("q"), turn("q"), turn("r"));
        assert!(first.is_mine() && first.is_mine() && !second.is_mine() && other.is_mine());
        assert!(first.since_looked().is_some_and(|since| since > Duration::from_hours(24)), "nobody has looked yet");
        first.looked();
        assert!(second.since_looked().is_some_and(|since| since < Duration::from_hours(1)));
        drop(first);
        assert!(second.is_mine());
        assert_ne!(name(&queue("q", "http://a")), name(&queue("q", "http://b")));
        assert_eq!(name(&queue("q", "http://a")), name(&queue("q", "http://a/")));
    }

    #[test]
    fn who_waits_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let turn = || Turn::new(dir.path(), &queue("q", "http://a"));
        let mut looking = turn();
        assert!(looking.is_mine() && !looking.asked_anew() && looking.since_asked().is_none());
        for _ in 0..2 {
            turn().ask();
            assert!(looking.asked_anew() && !looking.asked_anew());
        }
        assert!(turn().since_asked().is_some());
    }

    #[test]
    fn where_nothing_can_be_locked_everybody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let mut turn = Turn::new(&dir.path().join("missing"), &queue("q", "http://a"));
        turn.ask();
        turn.looked();
        assert!(turn.is_mine() && turn.since_looked().is_none() && !turn.asked_anew());
    }
}
