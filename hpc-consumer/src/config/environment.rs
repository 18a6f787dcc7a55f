//! What is read of the environment beside settings: how this program was started, and what others are started with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use program::{absolute_entries, on_path, variables};

use crate::run::Invocation;

/// Is there a program that jobs without a container run: at its place, or in our `PATH`, which is theirs too?
pub(crate) fn has_program(program: &Path) -> bool {
    let path = std::env::var_os("PATH").filter(|_| !program.has_root());
    // Joined to whatever directory, an absolute path is itself.
    on_path(&path.unwrap_or_else(|| "/".into()), program).is_some()
}

/// How this program was started; to be called before a settings file adds to its environment.
pub(crate) fn invocation() -> Invocation {
    Invocation::new(std::env::args_os().skip(1).collect(), std::env::vars_os().collect())
}

/// All variables that this program was started with.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// What programs of Slurm need of our environment: where they and their cluster are, and who asks.
const OF_SLURM: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "SLURM_CONF"];

/// The environment of programs of Slurm.
pub(crate) fn environment_of_slurm() -> Vec<(OsString, OsString)> {
    from_environment(&OF_SLURM)
}

/// What the broker of the lease and its adapters need of our environment.
const OF_BROKER: [&str; 3] = ["PATH", "HOME", "TMPDIR"];

/// The environment of the broker of the lease.
pub(crate) fn environment_of_broker() -> Vec<(OsString, OsString)> {
    from_environment(&OF_BROKER)
}

/// Where a program of ours is, in the absolute entries of `PATH`.
pub(crate) fn on_our_path(name: &str) -> Option<PathBuf> {
    on_path(&std::env::var_os("PATH")?, Path::new(name))
}

/// The variables of these names, with the absolute entries of `PATH` alone.
pub(super) fn from_environment(names: &[&str]) -> Vec<(OsString, OsString)> {
    let absolute = |(name, value): (OsString, OsString)| {
        if name == "PATH" { (name, absolute_entries(&value)) } else { (name, value) }
    };
    variables(names).into_iter().map(absolute).collect()
}
