//! `cargo xtask compat COMMIT`: today's programs against those of an earlier commit.
//!
//! The cases are `tests/src/bin/compat.rs`; this builds both ages. The earlier programs are built once for each commit,
//! from an archive of it, in the user's cache: the checkout is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::command;
use crate::tools;
use crate::workspace::{Profile, Workspace};

const PROGRAMS: [&str; 3] = ["local-edge", "hpc-consumer", "laptop-consumer"];

/// Builds both, and runs the cases. The exit code says whether all is well.
pub(crate) fn run(workspace: &Workspace, commit: &str) -> anyhow::Result<ExitCode> {
    let revision = format!("{commit}^{{commit}}");
    let hash = git(workspace, &["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
        .with_context(|| format!("{commit} is no commit of this repository; a shallow clone does not have all"))?;
    let old = programs_of(workspace, hash.trim())?;
    let today = [PROGRAMS.as_slice(), &["hpc-queue-tests"]].concat();
    workspace.build(Profile::Dev, &today)?;
    println!("Programs of {} and of today:", hash.trim());
    let mut compat = Command::new(workspace.program(Profile::Dev, "compat"));
    compat.arg(&old).env("HPC_QUEUE_BIN_DIR", workspace.target.join(Profile::Dev.folder()));
    let status = compat.status().with_context(|| format!("cannot start `{}`", command::line(&compat)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder with the programs of a commit; they are built when they are not there.
fn programs_of(workspace: &Workspace, hash: &str) -> anyhow::Result<PathBuf> {
    let cache = tools::cache()?.join("compat");
    let place = cache.join(hash);
    if PROGRAMS.iter().all(|name| command::is_program(&place.join(name))) {
        return Ok(place);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let scratch = tempfile::Builder::new().prefix(".tmp-").tempdir_in(&cache)?;
    let source = scratch.path().join("source");
    fs::create_dir(&source)?;
    let archive = scratch.path().join("source.tar");
    git(workspace, &["archive", "--format=tar", "--output", path(&archive)?, hash])?;
    command::capture(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    // One target directory for all commits: they share most of their dependencies.
    let target = cache.join("target");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--locked", "--target-dir"]).arg(&target).current_dir(&source);
    build.args(PROGRAMS.iter().flat_map(|name| ["--package", name]));
    command::run(&mut build)?;
    let made = scratch.path().join("programs");
    fs::create_dir(&made)?;
    for name in PROGRAMS {
        let program = target.join(Profile::Dev.folder()).join(name);
        fs::copy(&program, made.join(name)).with_context(|| format!("cannot copy {}", program.display()))?;
    }
    // In one step: who looks finds all of them. Another run may have been faster.
    if fs::rename(&made, &place).is_err() && !place.is_dir() {
        anyhow::bail!("cannot put the programs in their place, {}", place.display());
    }
    Ok(place)
}

fn git(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<String> {
    command::capture(Command::new("git").args(arguments).current_dir(&workspace.root))
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}
