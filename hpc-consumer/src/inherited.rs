//! What a process gets from who started it, made normal: open files, the mask of new files, limits, and signals that
//! are ignored or blocked. A cron line, a batch job, `nohup` and a shell all hand on something else, and the keeper and
//! every job would have it as well, for weeks.
//!
//! Out of scope: signals that ask something of us (`process`), and what only the system can set: the priority, the
//! processors, the control group, and limits that the user may not raise.
//!
//! Invariant: nothing but standard input, output and error goes on to a process that is started from here, and no job
//! begins with a signal ignored.

use std::fs::read_to_string;

use nix::sys::signal::SigSet;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit, umask};
use tokio::signal::unix::{self, SignalKind};

/// Others may not write to what we make, and we can always read what we wrote. The rest is the user's choice.
const MASK_SET: u32 = 0o002;
const MASK_CLEARED: u32 = 0o700;

/// Limits of which passing the soft one ends a process, or what it writes, at a moment of its own.
const RAISED: [Resource; 2] = [Resource::Fsize, Resource::Cpu];

/// Signals that would end us, and that come from a batch system, a timer or a limit, and not from somebody who wants
/// our end: SIGTERM asks for that.
const WITHOUT_EFFECT: [(Signal, &str); 8] = [
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::VTALARM, "SIGVTALRM"),
    (Signal::PROF, "SIGPROF"),
    (Signal::IO, "SIGIO"),
    (Signal::XCPU, "SIGXCPU, sent where the limit of processor time (`ulimit -t`) is reached,"),
    (Signal::XFSZ, "SIGXFSZ, sent where a file would pass the limit of its size (`ulimit -f`),"),
];

/// SIGPIPE is ignored by Rust itself, which gives its children the default. To be stopped is a matter between a shell
/// and a terminal.
const LEFT_IGNORED: [Signal; 4] = [Signal::PIPE, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// Makes normal what can be before there is a second thread.
pub(crate) fn normalize() {
    close_fds::set_fds_cloexec(3, &[]);
    // Of a blocked signal nobody would hear, and on older kernels not of the end of a child either.
    let _ = SigSet::empty().thread_set_mask();
    use_mask(umask(Mode::empty()).as_raw_mode());
    for resource in RAISED {
        let Rlimit { current, maximum } = getrlimit(resource);
        if current != maximum {
            // A failure leaves what was: the warning below, or the signal, tells of it.
            let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
        }
    }
}

/// The mask of new files as this process has it now.
pub(crate) fn mask() -> Option<u32> {
    of_status(&own_status(), "Umask").and_then(|text| u32::from_str_radix(text, 8).ok())
}

/// Takes this mask of new files, as far as we can work with it.
pub(crate) fn use_mask(inherited: u32) {
    umask(Mode::from_raw_mode(normal_mask(inherited)));
}

/// What a person is to know of limits that could not be raised.
pub(crate) fn warning() -> Option<String> {
    let bytes = getrlimit(Resource::Fsize).current?;
    Some(format!(
        "no file may be larger than {bytes} bytes here (`ulimit -f`): what jobs print is cut there, and the daemon stops \
         when its own files reach it; start it with a higher limit"
    ))
}

/// Takes the effect from signals that are not meant for us, and has jobs begin with the default of all others: a signal
/// that is handled here is not ignored in what is started from here. Runs within the reactor.
pub(crate) fn settle_signals() -> std::io::Result<()> {
    // Ignored, it would hide from us how our children end.
    drop(unix::signal(SignalKind::child())?);
    for number in ignored(&own_status()) {
        // Some numbers belong to the C library.
        let _ = unix::signal(SignalKind::from_raw(number));
    }
    for (signal, name) in WITHOUT_EFFECT {
        tokio::spawn(tell_once(unix::signal(SignalKind::from_raw(signal.as_raw()))?, name));
    }
    Ok(())
}

async fn tell_once(mut signal: unix::Signal, name: &'static str) {
    if signal.recv().await.is_some() {
        tracing::warn!("{name} has no effect here, which is said once; SIGTERM asks for an end");
    }
}

fn normal_mask(inherited: u32) -> u32 {
    (inherited & 0o777 & !MASK_CLEARED) | MASK_SET
}

/// The signals that are ignored, of those that are to be the default for jobs.
fn ignored(status: &str) -> Vec<i32> {
    let bits = of_status(status, "SigIgn").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_default();
    let left = LEFT_IGNORED.map(Signal::as_raw);
    (1..=64).filter(|number| bits >> (number - 1) & 1 == 1 && !left.contains(number)).collect()
}

/// A line of `/proc/self/status`.
fn of_status<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
}

fn own_status() -> String {
    read_to_string("/proc/self/status").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUmask:\t0027\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000391003\nx";

    #[test]
    fn a_mask_lets_nobody_else_write_and_us_read() {
        for (inherited, normal) in [(0, 0o002), (0o022, 0o022), (0o027, 0o027), (0o077, 0o077), (0o777, 0o077)] {
            assert_eq!(normal_mask(inherited), normal, "{inherited:o}");
        }
        assert_eq!(of_status(STATUS, "Umask"), Some("0027"));
        assert!(mask().is_some());
    }

    #[test]
    fn ignored_signals_are_found_but_those_of_pipes_and_terminals() {
        // SIGHUP, SIGINT, SIGPIPE, SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU.
        assert_eq!(ignored(STATUS), [1, 2, 17]);
        assert_eq!(ignored("SigIgn:\t8000000000000000"), [64]);
        assert!(ignored("").is_empty() && ignored("SigIgn:\tx").is_empty());
    }
}
