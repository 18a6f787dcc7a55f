//! How far a command is that waits for many jobs: one line on the terminal, which goes away.
//!
//! Invariant: it is for people alone, and nothing of it is left between what is printed.

use std::io::{IsTerminal as _, Write as _};

/// The line on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    total: usize,
    line: String,
}

impl Progress {
    /// Nothing is shown yet. One job needs no progress.
    pub(crate) fn new(total: usize) -> Self {
        Self { is_shown: total > 1 && std::io::stderr().is_terminal(), total, line: String::new() }
    }

    /// Shows how many are done.
    pub(crate) fn show(&mut self, done: usize, failed: usize) {
        if !self.is_shown {
            return;
        }
        let line = text(self.total, done, failed);
        if line != self.line {
            self.clear();
            write(&line);
            self.line = line;
        }
    }

    /// Makes room for something else to be printed.
    pub(crate) fn clear(&mut self) {
        if !self.line.is_empty() {
            write(&format!("\r{}\r", " ".repeat(self.line.len())));
            self.line.clear();
        }
    }
}

fn text(total: usize, done: usize, failed: usize) -> String {
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
        assert_eq!(text(100, 7, 0), "7 of 100 results");
        assert_eq!(text(100, 100, 2), "100 of 100 results, 2 failed");
    }
}
