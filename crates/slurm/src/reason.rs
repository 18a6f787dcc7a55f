//! Why a job waits, or ended: Slurm's word for it, in words for a person.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason, as Slurm writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(String);

/// What a job waits for that never comes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hopeless {
    /// A person has to release it.
    Held,
    /// It asks for more processors, memory, GPUs or nodes than there are for one job.
    Resources,
    /// It asks for more time than there is for one job.
    Time,
    /// Its partition, account, QOS, reservation or dependency: whoever asks for the same waits as well.
    Place,
}

/// Reasons that go away by themselves, by the beginning of Slurm's word.
const WAITS: [(&str, &str); 14] = [
    ("None", "it has not been looked at yet"),
    ("Priority", "other jobs come before it"),
    ("Resources", "it waits for free nodes"),
    ("BeginTime", "its time to begin has not come"),
    ("Dependency", "it waits for another job"),
    ("JobArrayTaskLimit", "as many of its array run as may"),
    ("Licenses", "it waits for a license"),
    ("Reservation", "its reservation has not begun"),
    ("Cleaning", "an earlier run of it is still being cleaned up"),
    ("Prolog", "its nodes are being made ready"),
    ("NodeDown", "a node that it needs is down"),
    ("ReqNodeNotAvail", "nodes that it needs are not available, or are reserved"),
    ("PartitionDown", "the partition is down"),
    ("PartitionInactive", "the partition is inactive"),
];

/// Reasons for which a person has to do something.
const HELD: [(&str, &str); 5] = [
    ("JobHeldUser", "it is held by you; `scontrol release` lets it go"),
    ("JobHeldAdmin", "it is held by an administrator of the cluster"),
    ("job requeued in held state", "an administrator had it begin again, and it is held"),
    ("launch failed requeued held", "it could not be launched, and Slurm holds it"),
    ("JobHoldMaxRequeue", "it began again too often, and Slurm holds it"),
];

/// Reasons that stay as they are: such a job never begins. These are of how much it asks for.
const TOO_MUCH: [(&str, &str); 3] = [
    ("BadConstraints", "no node has what it asks for"),
    ("PartitionNodeLimit", "it asks for more nodes than the partition allows"),
    ("PartitionConfig", "no node of the partition is as large as it asks for"),
];

/// This one is of how long.
const TOO_LONG: [(&str, &str); 1] = [("PartitionTimeLimit", "it asks for more time than the partition allows")];

/// And these of where, and as whom.
const NOWHERE: [(&str, &str); 8] = [
    ("DependencyNeverSatisfied", "what it depends on can no longer happen"),
    ("InvalidAccount", "the account is not valid"),
    ("InvalidQOS", "the QOS is not valid"),
    ("AccountNotAllowed", "the partition does not allow this account"),
    ("QOSNotAllowed", "the partition or the account does not allow this QOS"),
    ("ReservationDeleted", "its reservation was deleted"),
    ("NonExistentPartition", "there is no such partition"),
    ("DeadLine", "it can no longer end before its deadline"),
];

/// Limits of one job, as `AssocMaxCpuPerJobLimit` and `QOSMaxWallDurationPerJobLimit`: none that are used up.
fn is_limit_of_a_job(text: &str) -> bool {
    (text.starts_with("Assoc") || text.starts_with("QOS")) && text.contains("PerJob")
        || text.starts_with("QOSMin")
        || is_limit_of_time(text)
}

fn is_limit_of_time(text: &str) -> bool {
    text.contains("MaxWallDuration")
}

fn is_limit(text: &str) -> bool {
    (text.starts_with("Assoc") || text.starts_with("QOS")) && text.ends_with("Limit")
}

fn find<'w>(words: &[(&str, &'w str)], text: &str) -> Option<&'w str> {
    let is_word = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    words.iter().find(|(word, _)| text.strip_prefix(word).is_some_and(is_word)).map(|(_, words)| *words)
}

impl Reason {
    /// Reads a reason. Up to 22.05 some have underscores for spaces.
    pub fn parse(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Has Slurm none, as of a job at which it has not looked yet?
    pub fn is_none(&self) -> bool {
        self.0.is_empty() || self.0 == "None"
    }

    /// As Slurm wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn spaced(&self) -> String {
        self.0.trim_matches(['(', ')']).replace('_', " ")
    }

    /// Is it one for which a job never begins by itself, however long it waits?
    pub fn hopeless(&self) -> Option<Hopeless> {
        let text = self.spaced();
        if find(&HELD, &text).is_some() {
            Some(Hopeless::Held)
        } else if find(&TOO_LONG, &text).is_some() || is_limit_of_time(&text) {
            Some(Hopeless::Time)
        } else if find(&TOO_MUCH, &text).is_some() || is_limit_of_a_job(&text) {
            Some(Hopeless::Resources)
        } else {
            find(&NOWHERE, &text).map(|_| Hopeless::Place)
        }
    }

    /// The end of a sentence that begins with the job, with Slurm's own word.
    pub fn in_words(&self) -> String {
        let text = self.spaced();
        let words = find(&TOO_MUCH, &text).or_else(|| find(&TOO_LONG, &text)).or_else(|| find(&NOWHERE, &text));
        let words = words.or_else(|| find(&HELD, &text)).or_else(|| find(&WAITS, &text));
        let words = words.or_else(|| is_limit_of_a_job(&text).then_some("it asks for more than one job may have"));
        let words = words.or_else(|| is_limit(&text).then_some("a limit of the account or the QOS is reached"));
        match words {
            Some(words) if text == "None" => words.to_owned(),
            Some(words) => format!("{words} ({text})"),
            None if text.is_empty() => "Slurm does not say why".to_owned(),
            None => text,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_in_words_and_in_slurms_own() {
        for (text, words) in [
            ("Priority", "other jobs come before it (Priority)"),
            (
                "ReqNodeNotAvail,_UnavailableNodes:n1",
                "nodes that it needs are not available, or are reserved (ReqNodeNotAvail, UnavailableNodes:n1)",
            ),
            ("AssocMaxJobsLimit", "a limit of the account or the QOS is reached (AssocMaxJobsLimit)"),
            (
                "launch_failed_requeued_held",
                "it could not be launched, and Slurm holds it (launch failed requeued held)",
            ),
            ("None", "it has not been looked at yet"),
            ("SomethingNew", "SomethingNew"),
            ("", "Slurm does not say why"),
        ] {
            assert_eq!(Reason::parse(text).in_words(), words);
        }
    }

    #[test]
    fn what_can_never_be_met_is_told_from_what_takes_time() {
        for (text, hopeless) in [
            ("Dependency", None),
            ("DependencyNeverSatisfied", Some(Hopeless::Place)),
            ("InvalidAccount", Some(Hopeless::Place)),
            ("PartitionTimeLimit", Some(Hopeless::Time)),
            ("QOSMaxWallDurationPerJobLimit", Some(Hopeless::Time)),
            ("PartitionConfig", Some(Hopeless::Resources)),
            ("BadConstraints", Some(Hopeless::Resources)),
            ("QOSMaxCpuPerJobLimit", Some(Hopeless::Resources)),
            ("AssocMaxJobsLimit", None),
            ("QOSMaxCpuPerUserLimit", None),
            ("ReqNodeNotAvail, May be reserved for other job", None),
            ("PartitionDown", None),
            ("JobHeldUser", Some(Hopeless::Held)),
            ("JobHeldAdmin", Some(Hopeless::Held)),
            ("job_requeued_in_held_state", Some(Hopeless::Held)),
            ("SomethingNew", None),
        ] {
            assert_eq!(Reason::parse(text).hopeless(), hopeless, "{text}");
        }
    }
}
