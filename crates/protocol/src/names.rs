//! The names by which a person means a job: its id, the beginning of its id, or `last`.
//!
//! Out of scope: which jobs are known, and which is the last one (the programs).
//!
//! Invariant: what is an id in full is never taken for the beginning of another. Only ids that an edge has made (UUIDs)
//! can be shortened; ids of other producers may begin like each other and be as short as they like.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::JobId;

/// The job that came last.
pub const LAST: &str = "last";

/// The shortest beginning that is taken for one.
const BEGINNING_MIN: usize = 4;

/// The length of an id that an edge has made.
const UUID_LENGTH: usize = 36;

/// Of how many jobs the ids are told.
const TOLD_MAX: usize = 5;

/// A name that begins the ids of several jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ids of {} jobs begin with {name:?}: {}; give more of it", jobs.len(), told(jobs))]
pub struct AmbiguousName {
    /// What was given.
    pub name: String,
    /// Which jobs it could be, two or more.
    pub jobs: BTreeSet<JobId>,
}

fn told(jobs: &BTreeSet<JobId>) -> String {
    let mut text = jobs.iter().take(TOLD_MAX).map(JobId::as_str).collect::<Vec<_>>().join(", ");
    if jobs.len() > TOLD_MAX {
        let _ = write!(text, " and {} more", jobs.len() - TOLD_MAX);
    }
    text
}

/// Can the name be the beginning of an id? Otherwise nobody needs to look for jobs that it begins.
pub fn may_be_beginning(name: &JobId) -> bool {
    let name = name.as_str();
    (BEGINNING_MIN..UUID_LENGTH).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// The job that a name means among those that are known. A name that is an id, and the beginning of none that is known,
/// is that id.
pub fn resolve(name: &JobId, known: impl IntoIterator<Item = JobId>) -> Result<JobId, AmbiguousName> {
    if !may_be_beginning(name) {
        return Ok(name.clone());
    }
    let mut jobs = BTreeSet::new();
    for id in known {
        if id == *name {
            return Ok(id);
        }
        if begins(name.as_str(), &id) {
            jobs.insert(id);
        }
    }
    if jobs.len() > 1 {
        return Err(AmbiguousName { name: name.to_string(), jobs });
    }
    Ok(jobs.pop_first().unwrap_or_else(|| name.clone()))
}

fn begins(name: &str, id: &JobId) -> bool {
    id.as_str().len() == UUID_LENGTH
        && id.as_str().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_beginning_is_enough_and_an_id_is_never_taken_for_one() {
        let first = "67995bdb-e88f-84f3-982a-a41723a075bc";
        let second = "67995bdc-e88f-84f3-982a-a41723a075bc";
        let known = || [first, second, "abcd-of-another-producer", "face"].map(|id| id.parse::<JobId>().unwrap());
        let means = |name: &str| resolve(&name.parse().unwrap(), known()).map(|job| job.to_string());
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

    #[test]
    fn of_many_candidates_some_are_told() {
        let known = (0..9).map(|n| format!("67995bd{n}-e88f-84f3-982a-a41723a075bc").parse::<JobId>().unwrap());
        let error = resolve(&"67995bd".parse().unwrap(), known).unwrap_err().to_string();
        assert!(error.contains("of 9 jobs") && error.contains("67995bd4-") && !error.contains("67995bd5-"), "{error}");
        assert!(error.contains(" and 4 more; give"), "{error}");
    }
}
