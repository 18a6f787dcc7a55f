//! Why a job waits, or ended: Slurm's word for it, in words for a person.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason, as Slurm writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(String);

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

/// Reasons that stay as they are: such a job never begins.
const NEVER: [(&str, &str); 12] = [
    ("DependencyNeverSatisfied", "what it depends on can no longer happen"),
    ("BadConstraints", "no node has what it asks for"),
    ("PartitionTimeLimit", "it asks for more time than the partition allows"),
    ("PartitionNodeLimit", "it asks for more nodes than the partition allows"),
    ("PartitionConfig", "no node of the partition is as large as it asks for"),
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
        || text.contains("MaxWallDuration")
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

    /// Is it one for which no job ever begins, however long it waits?
    pub fn can_never_be_met(&self) -> bool {
        let text = self.spaced();
        find(&NEVER, &text).is_some() || is_limit_of_a_job(&text)
    }

    /// Does the job wait for a person?
    pub fn is_held(&self) -> bool {
        find(&HELD, &self.spaced()).is_some()
    }

    /// The end of a sentence that begins with the job, with Slurm's own word.
    pub fn in_words(&self) -> String {
        let text = self.spaced();
        let words = find(&NEVER, &text).or_else(|| find(&HELD, &text)).or_else(|| find(&WAITS, &text));
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
        for (text, never, held) in [
            ("Dependency", false, false),
            ("DependencyNeverSatisfied", true, false),
            ("PartitionTimeLimit", true, false),
            ("PartitionConfig", true, false),
            ("BadConstraints", true, false),
            ("QOSMaxCpuPerJobLimit", true, false),
            ("AssocMaxJobsLimit", false, false),
            ("QOSMaxCpuPerUserLimit", false, false),
            ("ReqNodeNotAvail, May be reserved for other job", false, false),
            ("PartitionDown", false, false),
            ("JobHeldUser", false, true),
            ("JobHeldAdmin", false, true),
            ("job_requeued_in_held_state", false, true),
            ("SomethingNew", false, false),
        ] {
            let reason = Reason::parse(text);
            assert_eq!((reason.can_never_be_met(), reason.is_held()), (never, held), "{text}");
        }
    }
}
