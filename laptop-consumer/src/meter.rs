//! How far files are: a line on the terminal while they move, with rate and rest, and one at the end.
//!
//! Invariant: nothing of it is on standard output, and elsewhere than on a terminal only the end is told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use transfer::{News, Step};

use crate::progress::{Progress, time};

/// The line changes this often.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// A rate of less than this time says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// Hears how far files are.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    progress: Progress,
    shown_at: Option<Instant>,
    /// What is being done, since when, and how much of it was done at its beginning.
    step: Option<(Step, Instant, u64)>,
    /// So much has moved.
    moved: u64,
    began: Instant,
    told: String,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner {
            progress: Progress::new(),
            shown_at: None,
            step: None,
            moved: 0,
            began: Instant::now(),
            told: String::new(),
        }))
    }

    /// Takes news.
    pub(crate) fn hear(&self, news: News) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Progress { step, done, total } => inner.progress(step, done, total),
            News::Note(text) => inner.note(text),
        }
    }

    /// Files have been sent, or fetched: says so, if any bytes have moved.
    pub(crate) fn end(&self, what: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.progress.clear();
        let (moved, took) = (inner.moved, inner.began.elapsed());
        if moved > 0 {
            program::say(&format!("{what} {} in {}{}", size(moved), time(took), rate(moved, took)));
        }
    }

    /// Makes room for something else to be said.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).progress.clear();
    }
}

impl Inner {
    fn progress(&mut self, step: Step, done: u64, total: u64) {
        let now = Instant::now();
        let (_, since, at_first) = match self.step {
            Some(known) if known.0 == step => known,
            // What is told first was there before.
            _ => *self.step.insert((step, now, done)),
        };
        let moved = done.saturating_sub(at_first);
        if step != Step::Hash {
            self.moved = self.moved.max(moved);
        }
        if self.shown_at.is_some_and(|at| now.duration_since(at) < SHOWN_EVERY) {
            return;
        }
        self.shown_at = Some(now);
        self.progress.show(|| line(step, done, total, moved, now.duration_since(since)));
    }

    /// What comes again and again is told once.
    fn note(&mut self, text: String) {
        if text != self.told {
            self.progress.clear();
            tracing::warn!("{text}");
            self.told = text;
        }
    }
}

fn line(step: Step, done: u64, total: u64, moved: u64, took: Duration) -> String {
    let what = match step {
        Step::Hash => "reading",
        Step::Put => "sending",
        Step::Get => "fetching",
    };
    let rest = if moved > 0 && took >= RATE_AFTER {
        let per_second = moved as f64 / took.as_secs_f64();
        let left = Duration::from_secs_f64((total - done.min(total)) as f64 / per_second.max(1.0));
        format!("{}, {} left", rate(moved, took), time(left))
    } else {
        String::new()
    };
    format!("{what} {} of {}{rest}", size(done), size(total))
}

fn rate(bytes: u64, took: Duration) -> String {
    if took < RATE_AFTER {
        return String::new();
    }
    format!(", {}/s", size((bytes as f64 / took.as_secs_f64()) as u64))
}

/// As people write it, in the units of the networks and disks that they buy: 1 MB is 1,000,000 bytes.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    match units.iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => {
            let number = bytes as f64 / unit;
            if number < 10.0 { format!("{number:.1} {name}") } else { format!("{number:.0} {name}") }
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_done_how_fast_and_how_long_it_takes_yet() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line(Step::Put, 1_200_000_000, 3_400_000_000, 680_000_000, seconds(20)),
            "sending 1.2 GB of 3.4 GB, 34 MB/s, 64 s left"
        );
        assert_eq!(line(Step::Get, 0, 999, 0, seconds(9)), "fetching 0 bytes of 999 bytes");
        assert_eq!(line(Step::Hash, 5_000, 5_000, 5_000, seconds(2)), "reading 5.0 KB of 5.0 KB, 2.5 KB/s, 0.0 s left");
    }
}
