//! Whose the end of a run was: the task's, which is a result, or the node's, which is no fault of the job.
//!
//! A job can end in every way in which a runtime fails, on purpose or not, so what a run says of itself is never enough
//! to excuse it. What is: that its command was not begun; a trouble that a look at the node has found; that its image
//! changed under it.

use protocol::RuntimeKind;

use crate::{Finished, Problem, RunEnd};

/// What a runtime ends with when it cannot start the command.
const RUNTIME_FAILED: i32 = 255;

/// How a line of the runtime's own begins then.
const RUNTIME_SAYS: &str = "FATAL:";

/// So many of the last lines of a run are told of.
const LINES_TOLD: usize = 3;

/// What was seen of the node about the time at which a run ended.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// A trouble of the node that a look at it has found.
    pub trouble: Option<Problem>,
    /// What a look at the runtime finds now, where there was one.
    pub runtime: Option<Result<(), Problem>>,
    /// The program that jobs run was seen to be there: it was found, or a job has succeeded.
    pub program_was_there: bool,
    /// An instance of a service that the run has had is not there any more, or does not answer.
    pub service_gone: Option<Problem>,
}

/// Whose the end of a run was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// The task's.
    Task,
    /// The node's: the text says what was wrong with it.
    Node(Problem),
    /// That of a service: the text says what became of the instance that the run has had.
    Service(Problem),
    /// It is to be told once somebody has looked at the runtime.
    Unclear,
}

/// Whose the end of this run was, as far as the evidence goes.
pub fn blame(finished: &Finished, evidence: &Evidence) -> Blame {
    let not_begun = finished.began == Some(false);
    let how = match &finished.end {
        RunEnd::NotStarted(problem) => {
            // It may be for want of that.
            let node = || Blame::Node(format!("the job cannot be started: {problem}").into());
            return gone_service(evidence).unwrap_or_else(node);
        }
        RunEnd::TimeLimit if not_begun => {
            return Blame::Node(before_the_command("did not get as far as the command in time", finished));
        }
        RunEnd::MemoryLimit(_) if not_begun => {
            return Blame::Node(before_the_command("was killed because memory was used up", finished));
        }
        // It may have waited for an answer that nobody could give any more.
        RunEnd::TimeLimit => return gone_service(evidence).unwrap_or(Blame::Task),
        RunEnd::Exit(0) | RunEnd::EndedBy(_) | RunEnd::MemoryLimit(_) => return Blame::Task,
        RunEnd::Exit(code) => format!("ended with exit code {code}"),
        RunEnd::Signal(signal) => format!("was ended by signal {signal}"),
    };
    if let Some(trouble) = &evidence.trouble {
        return Blame::Node(trouble.clone());
    }
    if not_begun {
        return Blame::Node(before_the_command(&how, finished));
    }
    if finished.image_lost {
        let lost = "the image was lost while the job ran: it was written to in place, or the process that serves it \
                    ended; put a new image beside the old one, and rename it";
        return Blame::Node(lost.into());
    }
    if let Some(gone) = gone_service(evidence) {
        return gone;
    }
    if !runtime_may_have_failed(finished) {
        return Blame::Task;
    }
    match &evidence.runtime {
        None => Blame::Unclear,
        Some(Err(problem)) => Blame::Node(problem.clone()),
        Some(Ok(())) if evidence.program_was_there => Blame::Task,
        Some(Ok(())) => Blame::Node(before_the_command("could not begin the command", finished)),
    }
}

fn gone_service(evidence: &Evidence) -> Option<Blame> {
    evidence.service_gone.clone().map(Blame::Service)
}

/// Does it look as if the runtime had failed? A job could end in the same way on purpose.
fn runtime_may_have_failed(finished: &Finished) -> bool {
    finished.runtime != Some(RuntimeKind::Bare)
        && finished.end == RunEnd::Exit(RUNTIME_FAILED)
        && finished.stderr_tail.contains(RUNTIME_SAYS)
}

fn before_the_command(what: &str, finished: &Finished) -> Problem {
    let runtime = if finished.runtime == Some(RuntimeKind::Apptainer) { "apptainer" } else { "the runtime" };
    let said: Vec<&str> = finished.stderr_tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = said[said.len().saturating_sub(LINES_TOLD)..].join(" / ");
    let said = if said.is_empty() { "it did not say why".to_owned() } else { said };
    format!("{runtime} {what} before the job's command began: {said}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndReason;

    fn finished(end: RunEnd, began: Option<bool>) -> Finished {
        Finished {
            end,
            stdout_tail: String::new(),
            stderr_tail: "WARNING: x\n\nFATAL:   no user namespace\n".to_owned(),
            started_at_ms: 1,
            finished_at_ms: 2,
            runtime: Some(RuntimeKind::Apptainer),
            began,
            image_lost: false,
            isolation: None,
            launched: None,
            ran: None,
            usage: None,
        }
    }

    fn with_runtime(runtime: Result<(), Problem>, program_was_there: bool) -> Evidence {
        Evidence { runtime: Some(runtime), program_was_there, ..Evidence::default() }
    }

    #[test]
    fn a_command_that_was_not_begun_has_not_failed() {
        let none = Evidence::default();
        for (end, said) in [
            (RunEnd::Exit(1), "apptainer ended with exit code 1 before the job's command began: WARNING: x / FATAL:"),
            (RunEnd::Exit(255), "exit code 255"),
            (RunEnd::Signal(6), "signal 6"),
            (RunEnd::TimeLimit, "in time"),
            (RunEnd::MemoryLimit(None), "memory"),
        ] {
            let Blame::Node(problem) = blame(&finished(end.clone(), Some(false)), &none) else { panic!("{end:?}") };
            assert!(problem.to_string().contains(said), "{problem}");
        }
        for end in [RunEnd::Exit(1), RunEnd::Signal(6), RunEnd::TimeLimit, RunEnd::MemoryLimit(None)] {
            for began in [Some(true), None] {
                assert_eq!(blame(&finished(end.clone(), began), &none), Blame::Task);
            }
        }
        for end in [RunEnd::Exit(0), RunEnd::EndedBy(EndReason::NotHeld)] {
            assert_eq!(blame(&finished(end, Some(false)), &none), Blame::Task);
        }
        let not_started = finished(RunEnd::NotStarted("no fork".to_owned()), None);
        assert!(matches!(blame(&not_started, &none), Blame::Node(_)));
    }

    #[test]
    fn a_failure_is_not_the_tasks_when_the_node_was_in_trouble_or_the_image_lost() {
        let trouble = Evidence { trouble: Some("no disk".into()), ..Evidence::default() };
        let failed = finished(RunEnd::Exit(3), Some(true));
        assert_eq!(blame(&failed, &trouble), Blame::Node("no disk".into()));
        assert_eq!(blame(&finished(RunEnd::Exit(0), Some(true)), &trouble), Blame::Task);
        let changed = |end| Finished { image_lost: true, ..finished(end, Some(true)) };
        assert!(matches!(blame(&changed(RunEnd::Signal(7)), &Evidence::default()), Blame::Node(_)));
        assert_eq!(blame(&changed(RunEnd::Exit(0)), &Evidence::default()), Blame::Task);
    }

    #[test]
    fn a_run_whose_service_has_gone_has_failed_for_that() {
        let gone = Evidence { service_gone: Some("it was killed".into()), ..Evidence::default() };
        for end in [RunEnd::Exit(3), RunEnd::Signal(9), RunEnd::TimeLimit] {
            assert_eq!(blame(&finished(end.clone(), Some(true)), &gone), Blame::Service("it was killed".into()));
            assert!(matches!(blame(&finished(end, Some(false)), &gone), Blame::Node(_)), "it was not even begun");
        }
        let not_started = finished(RunEnd::NotStarted("no such file".to_owned()), None);
        assert_eq!(blame(&not_started, &gone), Blame::Service("it was killed".into()));
        // It did not need it any more, or used up its own memory.
        for end in [RunEnd::Exit(0), RunEnd::MemoryLimit(None), RunEnd::EndedBy(EndReason::Cancelled)] {
            assert_eq!(blame(&finished(end, Some(true)), &gone), Blame::Task);
        }
        let trouble = Evidence { trouble: Some("no disk".into()), ..gone };
        assert!(matches!(blame(&finished(RunEnd::Exit(3), Some(true)), &trouble), Blame::Node(_)));
    }

    #[test]
    fn words_that_the_runtime_may_have_said_only_ask_for_a_closer_look() {
        for began in [Some(true), None] {
            let fatal = finished(RunEnd::Exit(255), began);
            assert_eq!(blame(&fatal, &Evidence::default()), Blame::Unclear);
            assert_eq!(blame(&fatal, &with_runtime(Err("no image".into()), true)), Blame::Node("no image".into()));
            assert_eq!(blame(&fatal, &with_runtime(Ok(()), true)), Blame::Task);
            let Blame::Node(problem) = blame(&fatal, &with_runtime(Ok(()), false)) else { panic!() };
            assert!(problem.to_string().contains("could not begin"), "{problem}");
            let bare = Finished { runtime: Some(RuntimeKind::Bare), ..fatal };
            assert_eq!(blame(&bare, &Evidence::default()), Blame::Task);
        }
        let silent = Finished { stderr_tail: "oops".to_owned(), ..finished(RunEnd::Exit(255), None) };
        assert_eq!(blame(&silent, &Evidence::default()), Blame::Task);
    }
}
