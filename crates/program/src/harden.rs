//! What a process keeps from other processes of its own user: secrets in its memory and its environment, and its open
//! files. A job is such a process.
//!
//! Guarded: a process that is not dumpable cannot be traced, its memory, environment and descriptors cannot be read,
//! and no descriptor can be taken from it, by anybody but root (`PR_SET_DUMPABLE` in prctl(2)). It leaves no core.
//!
//! Not guarded: the moment from the start of a program until it says so, and signals, which every process of the user
//! may send. What is started from here is ordinary again with its `execve`, and gets its limit of cores back by
//! [`with_given_core_limit`].

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process was given.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Hides this process from all others but root's. The first thing that every program does that holds a secret.
pub fn harden() {
    // Neither can fail: the first one takes any process, and a soft limit may always be lowered. Where something
    // forbids the calls themselves, to stop would hurt more than to go on as every other program does.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Core));
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: given.maximum });
}

/// Starts something that has the limit of cores which the site gave us. It is this process's for as long as that takes,
/// which shows nothing: what is not dumpable leaves no core whatever the limit. One thing is started at a time.
pub fn with_given_core_limit<T>(start: impl FnOnce() -> T) -> T {
    let Some(given) = GIVEN.get() else { return start() };
    let ours = getrlimit(Resource::Core);
    // Up to the hard limit, which stays as it was, this is allowed to everybody.
    let _ = setrlimit(Resource::Core, *given);
    let started = start();
    let _ = setrlimit(Resource::Core, ours);
    started
}
