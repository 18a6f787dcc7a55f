//! How a run ended, as far as it can be seen from here. Whose fault that was is decided elsewhere.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use lifecycle::EndReason;
use protocol::{Isolation, Launched, Ran, RuntimeKind, Usage};

use super::process::now_ms;

/// What a shell adds to the number of a signal that ended its child, and a container's runtime to that of its job's.
const BY_SIGNAL: i32 = 128;

/// Signals by which a process ends, by their number on this system.
const NAMES: [(rustix::process::Signal, &str); 23] = {
    use rustix::process::Signal;
    [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::POWER, "SIGPWR"),
        (Signal::SYS, "SIGSYS"),
    ]
};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Exit(i32),
    /// By a signal from elsewhere: the job itself, the kernel, a person.
    Signal(i32),
    /// It ran longer than it was allowed to, and was ended.
    TimeLimit,
    /// The kernel killed it, or a part of it without which it could not go on, because memory was used up; or else the
    /// text says how it passed its own limit.
    MemoryLimit(Option<String>),
    /// Its keeper ended it, for this reason.
    Stopped(EndReason),
    /// The command could not be started at all; the text says why.
    NotStarted(String),
    /// It was started, and nobody saw how it ended; the text says what is known.
    CutOff(String),
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    /// The end of what it wrote to stdout, short enough to travel whatever it holds, as the next.
    pub(crate) stdout_tail: String,
    /// The end of what it wrote to stderr.
    pub(crate) stderr_tail: String,
    /// In milliseconds since the Unix epoch, as the next.
    pub(crate) started_at_ms: i64,
    pub(crate) finished_at_ms: i64,
    /// What it ran in, where a process was started. The settings may be others by the time that the result is made.
    pub(crate) runtime: Option<RuntimeKind>,
    /// Did the job's own command begin? None where nothing tells.
    pub(crate) began: Option<bool>,
    /// The image was written to in place while it ran, or what serves it ended.
    pub(crate) image_lost: bool,
    /// What kept it from the rest of the node, where that is known.
    pub(crate) isolation: Option<Box<Isolation>>,
    /// What it was begun as, where a site's file says it.
    pub(crate) launched: Option<Box<Launched>>,
    /// Where it was, if that is not where its daemon is.
    pub(crate) ran: Option<Box<Ran>>,
    /// What it has used, as far as that is known.
    pub(crate) usage: Option<Usage>,
}

impl Finished {
    /// A run of which no process was started.
    pub(crate) fn not_started(why: String) -> Self {
        Self::without_process(Ended::NotStarted(why))
    }

    /// A run that was not to begin any more.
    pub(crate) fn ended_before(why: EndReason) -> Self {
        Self::without_process(Ended::Stopped(why))
    }

    fn without_process(ended: Ended) -> Self {
        let now = now_ms();
        let (stdout_tail, stderr_tail) = (String::new(), String::new());
        let (runtime, began, image_lost, isolation, launched) = (None, None, false, None, None);
        let (started_at_ms, finished_at_ms, ran) = (now, now, None);
        Self {
            ended,
            stdout_tail,
            stderr_tail,
            started_at_ms,
            finished_at_ms,
            runtime,
            began,
            image_lost,
            isolation,
            launched,
            ran,
            usage: None,
        }
    }
}

impl Ended {
    /// How a process ended, as its parent is told.
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// The same, with what is known besides: what wrapped the job, and whether the kernel has killed something for want
    /// of memory meanwhile, in words where it was this job for its own limit.
    pub(super) fn looked_at_closely(
        self,
        runtime: RuntimeKind,
        killed: impl FnOnce() -> Option<Option<String>>,
    ) -> Self {
        let ended = match (runtime, self) {
            // A runtime tells of its job's end by a signal in this way only; so would a job that ends with this code.
            (RuntimeKind::Apptainer, Self::Exit(code)) if signal_name(code - BY_SIGNAL).is_some() => {
                Self::Signal(code - BY_SIGNAL)
            }
            (_, ended) => ended,
        };
        let kill = rustix::process::Signal::KILL.as_raw();
        let was_killed = ended == Self::Signal(kill) || ended == Self::Exit(BY_SIGNAL + kill);
        match was_killed.then(killed).flatten() {
            Some(why) => Self::MemoryLimit(why),
            None => ended,
        }
    }
}

/// The name of a signal that ends a process, as `SIGKILL`.
pub(crate) fn signal_name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_end_by_a_signal_is_told_from_its_exit_code() {
        let seen = |runtime, code| Ended::Exit(code).looked_at_closely(runtime, || None);
        for (code, ended) in [
            (0, Ended::Exit(0)),
            (1, Ended::Exit(1)),
            (128, Ended::Exit(128)),
            (134, Ended::Signal(6)),
            (137, Ended::Signal(9)),
            (139, Ended::Signal(11)),
            (255, Ended::Exit(255)),
        ] {
            assert_eq!(seen(RuntimeKind::Apptainer, code), ended);
            assert_eq!(seen(RuntimeKind::Bare, code), Ended::Exit(code));
        }
        assert_eq!((signal_name(9), signal_name(0), signal_name(17)), (Some("SIGKILL"), None, None));
    }

    #[test]
    fn what_is_killed_while_memory_is_used_up_is_not_just_killed() {
        let seen = |ended: Ended, killed| ended.looked_at_closely(RuntimeKind::Bare, || killed);
        let limit = || Some("it used all".to_owned());
        for ended in [Ended::Signal(9), Ended::Exit(137)] {
            assert_eq!(seen(ended.clone(), None), ended);
            assert_eq!(seen(ended.clone(), Some(None)), Ended::MemoryLimit(None));
            assert_eq!(seen(ended, Some(limit())), Ended::MemoryLimit(limit()));
        }
        assert_eq!(seen(Ended::Signal(15), Some(None)), Ended::Signal(15));
    }
}
