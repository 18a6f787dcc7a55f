//! `cargo xtask compat COMMIT`: today's programs against those of an earlier commit.
//!
//! The cases are `tests/src/bin/compat.rs`; this builds both ages.

use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::command;
use crate::earlier::{self, PROGRAMS};
use crate::workspace::{Profile, Workspace};

/// Builds both, and runs the cases. The exit code says whether all is well.
pub(crate) fn run(workspace: &Workspace, commit: &str) -> anyhow::Result<ExitCode> {
    let (hash, old) = earlier::programs(workspace, commit, Profile::Dev)?;
    let today = [PROGRAMS.as_slice(), &["hpc-queue-tests"]].concat();
    workspace.build(Profile::Dev, &today)?;
    println!("Programs of {hash} and of today:");
    let mut compat = Command::new(workspace.program(Profile::Dev, "compat"));
    compat
        .arg(old.target.join(Profile::Dev.folder()))
        .env("HPC_QUEUE_BIN_DIR", workspace.target.join(Profile::Dev.folder()));
    let status = compat.status().with_context(|| format!("cannot start `{}`", command::line(&compat)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
