//! A call that goes on: for how long it tries again, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use queues::Backoff;

use crate::error::{Class, Error};
use crate::{Listener, News, Step, Store};

/// The pauses between tries.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// The longest pause that an edge is granted which asks for one.
const AFTER_MAX: Duration = Duration::from_secs(60);

/// A call.
pub(crate) struct Going<'a> {
    pub(crate) store: &'a Store,
    listener: &'a Listener<'a>,
    step: Step,
    total: u64,
    done: AtomicU64,
    /// When something went on last.
    moved: Mutex<Instant>,
}

impl<'a> Going<'a> {
    pub(crate) fn new(store: &'a Store, listener: &'a Listener<'a>, step: Step, total: u64) -> Self {
        Self { store, listener, step, total, done: AtomicU64::new(0), moved: Mutex::new(Instant::now()) }
    }

    /// So much more is done.
    pub(crate) fn done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// It was not done after all.
    pub(crate) fn undone(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// Something goes on.
    pub(crate) fn moved(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn tell(&self) {
        let done = self.done.load(Ordering::Relaxed).min(self.total);
        (self.listener)(News::Progress { step: self.step, done, total: self.total });
    }

    pub(crate) fn note(&self, text: String) {
        (self.listener)(News::Note(text));
    }

    /// Waits before the next try after this error, if there is to be one.
    pub(crate) async fn pause(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        let quiet = self.moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if error.class() != Class::Away || quiet >= self.store.patience {
            return Err(error);
        }
        self.note(format!("trying again: {error}"));
        tokio::time::sleep(error.after().map_or_else(|| backoff.pause(), |after| after.min(AFTER_MAX))).await;
        Ok(())
    }
}

pub(crate) fn backoff() -> Backoff {
    Backoff::new(PAUSE_FIRST, PAUSE_MAX)
}
