//! Many jobs that are submitted by one command: a key for each, by which the same command again sends nothing twice,
//! and batches that the edge takes.
//!
//! Out of scope: where the jobs come from, and what was sent before (the programs, [`crate::Inbox`]).
//!
//! Invariant: a job's key follows from the job, from how many equal ones come before it, and from a word. It does not
//! follow from its place: a list that grows, or loses lines, has the same keys for those that stay.

use std::collections::HashMap;
use std::ops::Range;

use protocol::{JobSpec, limits};
use sha2::{Digest as _, Sha256};

/// What the edge adds to a job when it makes a message of it, and the queue to a message: id, time, version, metadata.
const ADDED_BYTES: usize = 300;

/// The most bytes of one request; the edge counts those of messages.
const BATCH_BYTES_MAX: usize = limits::BATCH_BYTES_MAX - 1_000;

/// Gives keys to jobs, one after the other.
#[derive(Debug)]
pub struct Keys {
    word: String,
    seen: HashMap<[u8; 32], usize>,
}

impl Keys {
    /// With another word the same jobs have other keys.
    pub fn new(word: &str) -> Self {
        Self { word: word.to_owned(), seen: HashMap::new() }
    }

    /// The key of the next job. One that it has already does not count.
    pub fn of_next(&mut self, job: &JobSpec) -> String {
        let text = match &job.idempotency_key {
            None => serde_json::to_string(job),
            Some(_) => serde_json::to_string(&JobSpec { idempotency_key: None, ..job.clone() }),
        };
        let text = text.expect("a job holds only strings, numbers and JSON");
        let nth = self.seen.entry(Sha256::digest(text.as_bytes()).into()).or_default();
        let mut hash = Sha256::new();
        for part in ["hpc-queue many v1", &self.word, &nth.to_string(), &text] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        *nth += 1;
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The jobs in batches, in their order. `bytes_of` is the size of a job as JSON.
pub fn batches<T>(jobs: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, job) in jobs.iter().enumerate() {
        let more = bytes_of(job) + ADDED_BYTES;
        if place > start && (place - start == limits::BATCH_COUNT_MAX || bytes + more > BATCH_BYTES_MAX) {
            batches.push(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += more;
    }
    if start < jobs.len() {
        batches.push(start..jobs.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(inputs: &[&str], word: &str) -> Vec<String> {
        let job = |input: &&str| JobSpec::parse(&format!(r#"{{"task":"t","input":{input}}}"#)).unwrap();
        let mut keys = Keys::new(word);
        inputs.iter().map(|input| keys.of_next(&job(input))).collect()
    }

    #[test]
    fn keys_format_unchanged() {
        // Who sends a list again with a later version must not send it twice.
        assert_eq!(keys(&["1"], ""), ["b6cc2198a0eedbe0a43ef37eb7a9a2c2"]);
        assert_eq!(keys(&[r#"{"a":1.50}"#], "second run"), ["30b8d31e4fa81e31e1eb9190aa3769b3"]);
    }

    #[test]
    fn a_job_keeps_its_key_where_others_come_and_go() {
        let first = keys(&["1", "2", "2", "3"], "");
        let distinct: std::collections::HashSet<&String> = first.iter().collect();
        assert_eq!(distinct.len(), 4, "equal lines are jobs of their own");
        let longer = keys(&["0", "1", "2", "3", "2", "2"], "");
        assert_eq!([&longer[1], &longer[2], &longer[4], &longer[3]].map(String::as_str), first.as_slice());
        assert!(keys(&["1", "2", "2", "3"], "again").iter().all(|key| !first.contains(key)));
    }

    #[test]
    fn no_batch_has_more_than_the_edge_takes() {
        let lengths = |bytes: &[usize]| -> Vec<usize> {
            let ranges = batches(bytes, |bytes| *bytes);
            let places: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(places, (0..bytes.len()).collect::<Vec<_>>(), "each once, in their order");
            ranges.into_iter().map(|range| range.len()).collect()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[100; 250]), [100, 100, 50]);
        assert_eq!(lengths(&[120_000, 120_000, 120_000, 10]), [2, 2]);
    }
}
