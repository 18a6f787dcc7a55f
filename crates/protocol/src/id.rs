//! The id of a job. It becomes a file name on the cluster, so its alphabet is the narrow one below and nothing else
//! in the project ever builds a path from text that did not pass through here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A job's id: 1 to 64 characters of `A-Z a-z 0-9 _ -`, the first a letter or a digit.
///
/// There is no `.` in it, so that `<job_id>/` and `<job_id>.json` of two jobs can never meet in one directory.
/// Ids made here are UUIDs; ids of other producers are taken as they are. Copies share the text: a job's id stands in
/// many places, and there may be very many jobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Arc<str>);

/// Why a text is no job id. It does not repeat the text: that may be long, or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id is 1 to {max} characters of A-Z a-z 0-9 _ -, the first a letter or a digit", max = JobId::LENGTH_MAX)]
pub struct InvalidJobId;

impl JobId {
    /// The longest id.
    pub const LENGTH_MAX: usize = 64;

    /// A new id from 16 random bytes (a UUID of version 4).
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string().into())
    }

    /// The id of a child of this job, by its number among them, if that is not too long.
    pub fn child(&self, number: u32) -> Result<Self, InvalidJobId> {
        format!("{self}-{number}").parse()
    }

    /// The id that belongs to an idempotency key: the same key gives the same id, on every edge and for ever (a UUID of
    /// version 8 from SHA-256). `position` is the job's place in a batch that was sent under one key.
    pub fn from_idempotency_key(key: &str, position: Option<usize>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hpc-queue job id v1\0");
        hash.update(key.as_bytes());
        if let Some(position) = position {
            hash.update(format!("\0{position}").as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let bytes = text.as_bytes();
        let starts_well = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        let all_well = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if starts_well && all_well && bytes.len() <= Self::LENGTH_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidJobId)
        }
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, InvalidJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_become_another_path_are_refused() {
        let long = "a".repeat(10_000);
        for text in
            ["", ".", "..", "a/b", "../x", "a\0b", "a.json", "-rf", "_x", "a b", "é", "a\n", &long, &"a".repeat(65)]
        {
            assert_eq!(text.parse::<JobId>(), Err(InvalidJobId), "{text:?}");
        }
        for text in ["a", "0", "job_1-A", &"a".repeat(64)] {
            assert_eq!(text.parse::<JobId>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn derived_ids_format_unchanged() {
        // Changing these makes a retried request run twice across an upgrade of the edge.
        assert_eq!(JobId::from_idempotency_key("run-1", None).as_str(), "67995bdb-e88f-84f3-982a-a41723a075bc");
        assert_eq!(JobId::from_idempotency_key("run-1", Some(0)).as_str(), "ce2eb2f3-e6c0-85a0-8299-8b0a5e146ddf");
        assert_eq!(JobId::from_random([7; 16]).as_str(), "07070707-0707-4707-8707-070707070707");
    }

    #[test]
    fn keys_and_positions_do_not_run_into_each_other() {
        let ids = [("a", None), ("a", Some(0)), ("a", Some(1)), ("a\u{0}0", None), ("b", None)]
            .map(|(key, position)| JobId::from_idempotency_key(key, position));
        // A key may not hold NUL (the edge refuses it), so only the fourth may equal the second.
        assert_eq!(ids[1], ids[3]);
        for (i, j) in [(0, 1), (0, 2), (1, 2), (0, 4), (1, 4)] {
            assert_ne!(ids[i], ids[j]);
        }
    }
}
