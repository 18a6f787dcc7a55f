//! What the processes of one run carry and those of no other do, whatever becomes of their parents.
//!
//! A process carries its run's token twice. It is the value of a variable of our own in its environment, as it was
//! started; that is gone after `env -i`, and in programs that write over it. And it is the soft limit of
//! `RLIMIT_RTTIME`, set while the first process is started and inherited by every later one, through `exec`, `setsid`
//! and into containers. As a limit it says that a process with a real-time priority may compute for 146,000 years
//! without a pause, so it limits nothing. No common program changes it.
//!
//! A cgroup would be what a job cannot leave. Where one can be had is the exception (a login session has none of its
//! own), and moving each run into one costs more than a short job; see `docs/decisions/0011-processes-of-a-run.md`.
//!
//! Invariant: a token proves that a process is of this run; that there is none proves nothing.

use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::proc;
use crate::lock;

/// The variable in the environment.
const VARIABLE: &str = "HPC_QUEUE_RUN_TOKEN";

/// Set in every limit that is a token. A site's own limit is seconds, not ages.
const BRAND: u64 = 1 << 62;

/// A limit is the whole process's, so one thing is started at a time.
static STARTING: Mutex<()> = Mutex::new(());

/// The token of a run, which no other run on this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

impl Token {
    /// One that no other run has, as far as chance goes: 62 bits.
    pub(crate) fn new() -> Self {
        Self(fastrand::u64(..BRAND))
    }

    /// As it stands in the environment and in the journal: a name and a value.
    pub(crate) fn mark(self) -> (String, String) {
        (VARIABLE.to_owned(), format!("{:016x}", self.0))
    }

    /// The token among the marks of a run that was written down. A run of an earlier version has none.
    pub(super) fn among(marks: &[(String, String)]) -> Option<Self> {
        let (_, value) = marks.iter().find(|(name, _)| name == VARIABLE)?;
        Self::parse(value)
    }

    /// The token that a process carries, if it carries any.
    pub(super) fn carried_by(pid: i32) -> Option<Self> {
        if let Some(limit) = proc::realtime_limit(pid)
            && limit & BRAND != 0
        {
            return Some(Self(limit & !BRAND)).filter(|token| token.0 < BRAND);
        }
        let environment = proc::environment(pid);
        let value = proc::variables(&environment).find_map(|variable| {
            let value = variable.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()
        });
        value.and_then(Self::parse)
    }

    /// Starts a process that carries the limit, and has the limit of cores that the site gave us. This process has both
    /// for as long as that takes; where the hard limit is too low for the token, the variable has to do.
    pub(super) fn on_what_is_started<T>(self, start: impl FnOnce() -> T) -> T {
        let _alone = lock(&STARTING);
        let before = getrlimit(Resource::Rttime);
        let limit = Rlimit { current: Some(BRAND | self.0), maximum: before.maximum };
        let is_set = setrlimit(Resource::Rttime, limit).is_ok();
        let started = program::with_given_core_limit(start);
        if is_set {
            // To lower a soft limit, or to raise it up to the hard one, is allowed to everybody.
            let _ = setrlimit(Resource::Rttime, before);
        }
        started
    }

    fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().filter(|number| *number < BRAND).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_token_is_found_again_by_what_is_written_down() {
        let token = Token::new();
        assert_eq!(Token::among(&[("A".to_owned(), "b".to_owned()), token.mark()]), Some(token));
        for value in ["", "x", "ffffffffffffffff"] {
            assert_eq!(Token::among(&[(VARIABLE.to_owned(), value.to_owned())]), None);
        }
    }

    #[test]
    fn a_process_carries_it_without_its_environment_and_without_the_limit() {
        let token = Token::new();
        let (name, value) = token.mark();
        let sleep = || Command::new("sleep").arg("60").env_clear().stdin(Stdio::null()).spawn().unwrap();
        let mut limited = token.on_what_is_started(sleep);
        let _alone = lock(&STARTING);
        let mut marked = Command::new("/bin/sleep").arg("60").env(name, value).stdin(Stdio::null()).spawn().unwrap();
        let mut neither = sleep();
        let carried = [&limited, &marked, &neither].map(|child| Token::carried_by(i32::try_from(child.id()).unwrap()));
        for child in [&mut limited, &mut marked, &mut neither] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(carried, [Some(token), Some(token), None]);
    }
}
