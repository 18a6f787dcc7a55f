//! The ledger: jobs that note when they begin and when they end, outside of the control of any program under test.
//!
//! What the project says of its own runs proves nothing about a run that it forgot. So each job appends to a file of
//! its own (`ledger.c`), and a test counts the lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::image::{build_image, compile};
use crate::{Consumer, Edge};

/// Where a container sees the ledger.
const MOUNT: &str = "/ledger";

/// A directory of such files, and the program that writes them.
#[derive(Debug)]
pub struct Ledger {
    home: TempDir,
}

/// What the runs of one job have noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// How many began.
    pub begun: usize,
    /// How many came to their end.
    pub ended: usize,
    /// How many began while another had not ended.
    pub overlapping: usize,
    /// The process ids of those that began, as they saw themselves.
    pub pids: Vec<u32>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        let ledger = Self { home: tempfile::tempdir().expect("a directory can be made") };
        fs::create_dir(ledger.directory()).expect("a directory can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger.c");
        compile(&source, &ledger.program());
        ledger
    }

    /// A consumer whose jobs write to it, without a container.
    pub fn bare(&self, edge: &Edge) -> Consumer {
        Consumer::bare(edge, &format!("'{}' '{}'", self.program().display(), self.directory().display()))
    }

    /// A consumer whose jobs write to it out of real containers.
    pub fn apptainer(&self, edge: &Edge) -> Consumer {
        let image = self.home.path().join("ledger.sif");
        if !image.exists() {
            build_image(&self.program(), &[MOUNT.trim_start_matches('/')], &image);
        }
        Consumer::apptainer(edge, &image)
            .set("CONTAINER_CMD", format!("/bin/ledger {MOUNT}"))
            .set("APPTAINER_BIND", format!("{}:{MOUNT}", self.directory().display()))
    }

    /// A job with this number, which takes so long.
    pub fn job(number: usize, duration: Duration) -> Value {
        let milliseconds = u64::try_from(duration.as_millis()).expect("a test does not last for ages");
        json!({"task": "ledger", "input": {"gate": 0, "number": number, "sleep_ms": milliseconds}})
    }

    /// The same job, but its first run fails at its end; the second one, which it asks for, does not.
    pub fn failing_once(number: usize, duration: Duration) -> Value {
        let mut job = Self::job(number, duration);
        job["input"]["fails"] = json!(1);
        job["retries"] = json!(1);
        job
    }

    /// A job with this number, which goes on until the gate is open.
    pub fn gated_job(number: usize) -> Value {
        json!({"task": "ledger", "input": {"gate": 1, "number": number, "sleep_ms": 0}})
    }

    /// Lets the jobs end that wait for it, now and later.
    pub fn open_gate(&self) {
        fs::write(self.directory().join("gate"), "").expect("the directory of a test can be written to");
    }

    /// What the runs of a job have noted.
    pub fn runs(&self, number: usize) -> Runs {
        Runs::read(&self.lines(number))
    }

    /// The same as it stands in the file.
    pub fn lines(&self, number: usize) -> String {
        fs::read_to_string(self.directory().join(number.to_string())).unwrap_or_default()
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("entries")
    }

    fn program(&self) -> PathBuf {
        self.home.path().join("ledger")
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Runs {
    fn read(lines: &str) -> Self {
        let mut runs = Self::default();
        for line in lines.split_inclusive('\n') {
            // One that is being written.
            let Some(line) = line.strip_suffix('\n') else { continue };
            let mut words = line.split(' ');
            match words.next() {
                Some("begin") => {
                    runs.overlapping += usize::from(runs.begun > runs.ended);
                    runs.begun += 1;
                    runs.pids.extend(words.nth(1).and_then(|pid| pid.parse::<u32>().ok()));
                }
                Some("end") => runs.ended += 1,
                _ => panic!("a line of the ledger is none: {line:?}"),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_begins_within_another_is_seen() {
        let one_after_the_other = Runs::read("begin 1 10 1\nend 2 10 1\nbegin 3 11 2\nend 4 11 2\n");
        assert_eq!(one_after_the_other, Runs { begun: 2, ended: 2, overlapping: 0, pids: vec![10, 11] });
        let within = Runs::read("begin 1 10 1\nbegin 2 11 2\nend 3 10 1\n");
        assert_eq!(within, Runs { begun: 2, ended: 1, overlapping: 1, pids: vec![10, 11] });
    }
}
