//! The names by which a person means a job: its id, the beginning of its id, or `last`.
//!
//! Invariant: what is an id in full is never taken for the beginning of another. Only ids that an edge has made (UUIDs)
//! can be shortened; ids of other producers may begin like each other and be as short as they like.

use std::collections::BTreeSet;

use protocol::JobId;

use crate::inbox::{self, Inbox};

/// The job that was submitted last.
pub const LAST: &str = "last";

/// The shortest beginning that is taken for one.
const BEGINNING_MIN: usize = 4;

/// The length of an id that an edge has made.
const UUID_LENGTH: usize = 36;

/// Why a name means no job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was submitted from here.
    #[error("nothing was submitted with this inbox yet, so that no job is the last one; name the job by its id")]
    NoLast,
    /// It begins several ids.
    #[error("the ids of {} jobs begin with {name:?}, for example {} and {}; give more of it", jobs.len(), jobs[0], jobs[1])]
    Ambiguous {
        /// What was given.
        name: String,
        /// Which jobs it could be, two or more.
        jobs: Vec<JobId>,
    },
    /// The inbox cannot be read.
    #[error(transparent)]
    Inbox(#[from] inbox::Error),
}

/// The job that a name means. A name that is an id, and the beginning of none that is known, is that id.
pub fn job(name: &JobId, inbox: &Inbox) -> Result<JobId, Error> {
    if name.as_str() == LAST {
        return inbox.last_submitted()?.ok_or(Error::NoLast);
    }
    if !may_be_beginning(name.as_str()) {
        return Ok(name.clone());
    }
    let known: BTreeSet<JobId> = inbox.arrived()?.into_iter().chain(inbox.submitted()?).collect();
    if known.contains(name) {
        return Ok(name.clone());
    }
    let mut jobs: Vec<JobId> = known.into_iter().filter(|id| begins(name.as_str(), id)).collect();
    match jobs.len() {
        0 => Ok(name.clone()),
        1 => Ok(jobs.remove(0)),
        _ => Err(Error::Ambiguous { name: name.to_string(), jobs }),
    }
}

fn may_be_beginning(name: &str) -> bool {
    (BEGINNING_MIN..UUID_LENGTH).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn begins(name: &str, id: &JobId) -> bool {
    id.as_str().len() == UUID_LENGTH
        && id.as_str().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use protocol::Json;

    use super::*;

    #[test]
    fn a_unique_beginning_is_enough_and_an_id_is_never_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(dir.path());
        let means = |name: &str| job(&name.parse().unwrap(), &inbox).map(|job| job.to_string());
        // Nothing is known, and there is not even a directory.
        assert_eq!(means("6799").unwrap(), "6799");
        assert!(matches!(means("last"), Err(Error::NoLast)));

        inbox.prepare(&files::NobodyElse).unwrap();
        let first = "67995bdb-e88f-84f3-982a-a41723a075bc";
        let second = "67995bdc-e88f-84f3-982a-a41723a075bc";
        for id in [first, second, "abcd-of-another-producer", "face"] {
            inbox.note_submitted(&id.parse().unwrap(), &Json::null()).unwrap();
        }
        for (name, job) in [
            (first, first),
            ("67995bdb", first),
            ("67995BDC-", second),
            ("679", "679"),
            ("abcd", "abcd"),
            ("face", "face"),
            ("j1", "j1"),
            ("0000", "0000"),
        ] {
            assert_eq!(means(name).unwrap(), job, "{name}");
        }
        let error = means("67995bd").unwrap_err().to_string();
        assert!(error.contains("of 2 jobs") && error.contains(first) && error.contains(second), "{error}");
    }
}
