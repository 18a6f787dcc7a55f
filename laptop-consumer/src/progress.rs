//! How far a command is that waits: one line on the terminal, which goes away.
//!
//! Invariant: it is for people alone, and nothing of it is left between what is printed.

use std::io::{IsTerminal as _, Write as _};

/// A longer line would not go away on every terminal.
const COLUMNS_MAX: usize = 79;

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
}
