//! How far a command is that waits: one line on the terminal, which goes away.
//!
//! Invariant: it is for people alone, and nothing of it is left between what is printed.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// A longer line would not go away on every terminal.
const COLUMNS_MAX: usize = 79;

/// A bar has so many.
const BAR_COLUMNS: usize = 30;

/// A rate of less than this time says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// The line on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    line: String,
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), line: String::new() }
    }

    /// Shows this, if anything.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if !self.is_shown {
            return;
        }
        let line: String = program::escaped(&line()).chars().take(COLUMNS_MAX).collect();
        if line != self.line {
            self.clear();
            write(&line);
            self.line = line;
        }
    }

    /// Makes room for something else to be printed.
    pub(crate) fn clear(&mut self) {
        if !self.line.is_empty() {
            write(&format!("\r{}\r", " ".repeat(self.line.chars().count())));
            self.line.clear();
        }
    }
}

/// So many of these results are here.
pub(crate) fn results(total: usize, done: usize, failed: usize) -> String {
    let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    format!("{done} of {total} results{failed}")
}

/// So many of these jobs are in the queue: a bar, how fast, and how long it takes yet.
pub(crate) fn bar(done: usize, total: usize, took: Duration) -> String {
    let filled = BAR_COLUMNS * done / total.max(1);
    let (filled, open) = ("#".repeat(filled), ".".repeat(BAR_COLUMNS - filled));
    let line = format!("[{filled}{open}] {done} of {total} jobs");
    if done == 0 || took < RATE_AFTER {
        return line;
    }
    let per_second = done as f64 / took.as_secs_f64();
    let left = Duration::from_secs_f64(total.saturating_sub(done) as f64 / per_second);
    format!("{line}, {per_second:.0}/s, {} left", time(left))
}

/// A length of time, as a person says it.
pub(crate) fn time(took: Duration) -> String {
    match took.as_secs() {
        0..=9 => format!("{:.1} s", took.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long a person has waited: a line that says so changes once a second, and no more often.
pub(crate) fn waited(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds @ 60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr();
    // A closed standard error is no reason to stop.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_done_and_what_failed() {
        assert_eq!(results(100, 7, 0), "7 of 100 results");
        assert_eq!(results(100, 100, 2), "100 of 100 results, 2 failed");
    }

    #[test]
    fn a_bar_says_how_much_is_done_how_fast_and_how_long_it_takes_yet() {
        let seconds = Duration::from_secs;
        assert_eq!(bar(0, 1_000, seconds(9)), format!("[{}] 0 of 1000 jobs", ".".repeat(30)));
        let half = bar(500, 1_000, seconds(50));
        assert_eq!(half, format!("[{}{}] 500 of 1000 jobs, 10/s, 50 s left", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(7, 7, seconds(0)), format!("[{}] 7 of 7 jobs", "#".repeat(30)));
        assert!(bar(99_999, 100_000, seconds(99_999)).len() <= COLUMNS_MAX);
        for (took, text) in [(500, "0.5 s"), (100_000, "100 s"), (150_000, "2 min"), (7_300_000, "2 h 1 min")] {
            assert_eq!(time(Duration::from_millis(took)), text);
        }
        for (took, text) in [(59, "59 s"), (200, "3 min 20 s"), (7_300, "2 h 1 min")] {
            assert_eq!(waited(seconds(took)), text);
        }
    }
}
