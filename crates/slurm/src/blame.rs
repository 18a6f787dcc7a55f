//! How an allocation ended, and what that says of the runs that were cut off in it and of its pool.
//!
//! A run that was cut off is never to blame: it is tried again, and that costs it no attempt of its own. A pool is,
//! when an allocation of it died by itself before it had a job: the next one would, too.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Element, ExitCode, Reason, State};

/// What is known of the end of an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its last state; `None` if Slurm does not know it any more.
    pub state: Option<State>,
    /// The reason that stands beside it.
    pub reason: Reason,
    /// How its script ended, where that is known.
    pub exit: Option<ExitCode>,
    /// Was it us who asked for its end?
    pub asked: bool,
}

/// How an allocation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllocationEnd {
    /// Its keeper ended as it should.
    Completed,
    /// As we asked for.
    Asked,
    /// Its script ended with another exit code, where it is known.
    Exit(Option<i32>),
    /// Its script was killed by a signal.
    Signal(i32),
    /// The kernel ended what took more memory than it had.
    OutOfMemory,
    /// Its wall time was up.
    TimeLimit,
    /// A node of it was lost.
    NodeFailed,
    /// Its nodes were given to another job.
    Preempted,
    /// Somebody cancelled it; the user by number, where it is known.
    Cancelled(Option<u32>),
    /// Somebody had it begin again, which it does not do.
    Requeued,
    /// Slurm says that it ended well, or that it waits again, and the keeper that was there has left no word of that: a
    /// controller that was killed has forgotten that it had begun. Who comes second finds its place taken, and ends.
    BegunTwice,
    /// Slurm could not start its script.
    NotLaunched(String),
    /// It could not end before its deadline.
    Deadline,
    /// Slurm does not know it any more, and it left no word.
    Gone,
    /// Something else, as Slurm wrote it.
    Other(String),
}

/// Slurm's exit signal where it could not make the file for what a script says; no signal has this number.
const NOT_LAUNCHED: i32 = 53;

impl AllocationEnd {
    /// How an allocation ended of which this is known.
    pub fn of(ending: &Ending) -> Self {
        let exit = ending.exit.filter(|exit| (exit.code, exit.signal) != (0, 0));
        let by_signal = exit.map(|exit| exit.signal).filter(|signal| *signal > 0);
        match &ending.state {
            None => Self::Gone,
            // Whatever it came to: a keeper that was told to end may have done so before Slurm ended it.
            Some(State::Completed) => {
                if ending.asked {
                    Self::Asked
                } else {
                    Self::Completed
                }
            }
            Some(State::Cancelled { .. }) if ending.asked => Self::Asked,
            Some(State::Cancelled { by }) => Self::Cancelled(*by),
            Some(State::Timeout) => Self::TimeLimit,
            Some(State::NodeFail) => Self::NodeFailed,
            Some(State::Preempted) => Self::Preempted,
            Some(State::OutOfMemory) => Self::OutOfMemory,
            Some(State::Deadline) => Self::Deadline,
            Some(State::BootFail) => Self::NotLaunched("its nodes could not be made ready".to_owned()),
            Some(State::Requeued) => Self::Requeued,
            Some(State::Failed) => match by_signal {
                Some(NOT_LAUNCHED) => Self::NotLaunched(ending.reason.in_words()),
                Some(signal) => Self::Signal(signal),
                None => Self::failed(ending, exit),
            },
            Some(other) => Self::Other(other.to_string()),
        }
    }

    fn failed(ending: &Ending, exit: Option<ExitCode>) -> Self {
        let reason = ending.reason.as_str();
        // As RaisedSignal:9(Killed).
        let raised = reason.strip_prefix("RaisedSignal:").and_then(|rest| rest.split('(').next()?.parse().ok());
        match raised {
            Some(signal) => Self::Signal(signal),
            // Up to 22.05 this is also what a script that was killed looks like where the exit code is not known.
            None if reason == "JobLaunchFailure" && exit.is_none() => Self::NotLaunched(ending.reason.in_words()),
            None => Self::Exit(exit.map(|exit| exit.code)),
        }
    }

    /// Does it count as a failure of its pool? `had_job` says whether a job ever began in it.
    pub fn is_failure_of_pool(&self, had_job: bool) -> bool {
        let died = match self {
            Self::Exit(_) | Self::Signal(_) | Self::OutOfMemory | Self::NodeFailed | Self::NotLaunched(_) => true,
            // It did what it should, or others had a reason; of what is not known nothing is concluded.
            Self::Completed | Self::Asked | Self::TimeLimit | Self::Preempted | Self::Cancelled(_) => false,
            Self::Requeued | Self::BegunTwice | Self::Deadline | Self::Gone | Self::Other(_) => false,
        };
        died && !had_job
    }

    /// A sentence for the runs that were cut off in it.
    pub fn sentence(&self, element: Option<Element>, nodes: &str, last_words: Option<&str>) -> String {
        let id = element.map(|element| format!(" {element}")).unwrap_or_default();
        let on = if nodes.is_empty() { String::new() } else { format!(" on {nodes}") };
        let words = last_words.map(|words| format!("; the last words of its keeper: {words}")).unwrap_or_default();
        format!("the allocation{id}{on} {self}{words}")
    }
}

/// The end of a sentence that begins with the allocation.
impl fmt::Display for AllocationEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("ended by itself"),
            Self::Asked => f.write_str("was ended by this daemon"),
            Self::Exit(Some(code)) => write!(f, "failed: its keeper ended with exit code {code}"),
            Self::Exit(None) => f.write_str("failed: its keeper did not end well"),
            Self::Signal(signal) => write!(f, "failed: its keeper was killed by signal {signal}"),
            Self::OutOfMemory => f.write_str("used more memory than it had, and the kernel ended processes of it"),
            Self::TimeLimit => f.write_str("was ended by Slurm: its time was up"),
            Self::NodeFailed => f.write_str("was lost with a node of it"),
            Self::Preempted => f.write_str("was preempted: Slurm gave its nodes to another job"),
            Self::Cancelled(Some(0)) => f.write_str("was cancelled by an administrator"),
            Self::Cancelled(Some(user)) => write!(f, "was cancelled by the user {user}"),
            Self::Cancelled(None) => f.write_str("was cancelled by a person"),
            Self::Requeued => f.write_str("was put back into the queue by an administrator"),
            Self::BegunTwice => {
                f.write_str("ended without a word of its keeper: Slurm may begin it a second time, or have done so")
            }
            Self::NotLaunched(why) => write!(f, "could not be launched: {why}"),
            Self::Deadline => f.write_str("could not end before its deadline"),
            Self::Gone => f.write_str("is gone: Slurm does not know it any more, and it left no word"),
            Self::Other(state) => write!(f, "is in the state {state}, which this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row as it was seen: state, reason, exit code where one knows it, how it ended, and does a pool count it?
    #[test]
    fn each_end_has_its_blame() {
        use AllocationEnd as End;
        let rows: [(&str, &str, Option<&str>, End, bool); 21] = [
            ("COMPLETED", "None", Some("0:0"), End::Completed, false),
            ("FAILED", "NonZeroExitCode", Some("3:0"), End::Exit(Some(3)), true),
            ("FAILED", "NonZeroExitCode", None, End::Exit(None), true),
            ("FAILED", "JobLaunchFailure", Some("0:9"), End::Signal(9), true),
            ("FAILED", "RaisedSignal:9(Killed)", Some("0:9"), End::Signal(9), true),
            ("FAILED", "RaisedSignal:9(Killed)", None, End::Signal(9), true),
            ("FAILED", "NonZeroExitCode", Some("143:0"), End::Exit(Some(143)), true),
            ("OUT_OF_MEMORY", "OutOfMemory", Some("0:125"), End::OutOfMemory, true),
            ("TIMEOUT", "TimeLimit", Some("0:15"), End::TimeLimit, false),
            ("TIMEOUT", "TimeLimit", Some("0:0"), End::TimeLimit, false),
            ("NODE_FAIL", "NodeDown", Some("0:1"), End::NodeFailed, true),
            ("NODE_FAIL", "NodeDown", None, End::NodeFailed, true),
            ("CANCELLED by 0", "None", Some("0:15"), End::Cancelled(Some(0)), false),
            ("CANCELLED", "Priority", Some("0:0"), End::Cancelled(None), false),
            ("PREEMPTED", "None", Some("0:15"), End::Preempted, false),
            ("DEADLINE", "DeadLine", Some("0:1"), End::Deadline, false),
            ("BOOT_FAIL", "None", None, End::NotLaunched("its nodes could not be made ready".to_owned()), true),
            ("REQUEUE_HOLD", "job requeued in held state", None, End::Requeued, false),
            ("FAILED", "JobLaunchFailure", Some("0:53"), End::NotLaunched("JobLaunchFailure".to_owned()), true),
            ("FAILED", "JobLaunchFailure", None, End::NotLaunched("JobLaunchFailure".to_owned()), true),
            ("EXPEDITING", "None", None, End::Other("EXPEDITING".to_owned()), false),
        ];
        for (state, reason, exit, end, fails) in rows {
            let ending = Ending {
                state: Some(State::parse(state)),
                reason: Reason::parse(reason),
                exit: exit.and_then(ExitCode::parse),
                ..Ending::default()
            };
            assert_eq!(AllocationEnd::of(&ending), end, "{state} {reason} {exit:?}");
            assert_eq!(end.is_failure_of_pool(false), fails, "{end:?}");
            assert!(!end.is_failure_of_pool(true), "{end:?}");
        }
        assert_eq!(AllocationEnd::of(&Ending::default()), End::Gone);
    }

    #[test]
    fn what_we_asked_for_is_nobody_elses() {
        for state in ["CANCELLED by 1000", "COMPLETED"] {
            let ending = Ending { state: Some(State::parse(state)), asked: true, ..Ending::default() };
            assert_eq!(AllocationEnd::of(&ending), AllocationEnd::Asked);
        }
        let ending = Ending { state: Some(State::NodeFail), asked: true, ..Ending::default() };
        assert_eq!(AllocationEnd::of(&ending), AllocationEnd::NodeFailed);
    }

    #[test]
    fn runs_that_were_cut_off_are_told_what_became_of_their_allocation() {
        let element = "4711_2".parse().ok();
        assert_eq!(
            AllocationEnd::Preempted.sentence(element, "n1", None),
            "the allocation 4711_2 on n1 was preempted: Slurm gave its nodes to another job"
        );
        assert_eq!(
            AllocationEnd::Signal(9).sentence(None, "", Some("no space left on device")),
            "the allocation failed: its keeper was killed by signal 9; the last words of its keeper: no space left on device"
        );
    }
}
