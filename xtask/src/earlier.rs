//! The programs of an earlier commit. They are built once for each commit, from an archive of it, in the user's cache:
//! the checkout is not touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::command;
use crate::tools;
use crate::workspace::{Profile, Workspace};

pub(crate) const PROGRAMS: [&str; 3] = ["local-edge", "hpc-consumer", "laptop-consumer"];

/// The hash of a commit, and where its programs lie, as in a checkout of it; they are built when they are not there.
pub(crate) fn programs(workspace: &Workspace, commit: &str, profile: Profile) -> anyhow::Result<(String, Workspace)> {
    let revision = format!("{commit}^{{commit}}");
    let hash = git(workspace, &["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])
        .with_context(|| format!("{commit} is no commit of this repository; a shallow clone does not have all"))?;
    let hash = hash.trim().to_owned();
    let cache = tools::cache()?.join("compat");
    let earlier = Workspace { root: workspace.root.clone(), target: cache.join(&hash) };
    if PROGRAMS.iter().any(|name| !command::is_program(&earlier.program(profile, name))) {
        build(workspace, &hash, profile, &cache)?;
    }
    Ok((hash, earlier))
}

fn build(workspace: &Workspace, hash: &str, profile: Profile, cache: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(cache.join(hash)).with_context(|| format!("cannot create {}", cache.display()))?;
    let scratch = tempfile::Builder::new().prefix(".tmp-").tempdir_in(cache)?;
    let source = scratch.path().join("source");
    fs::create_dir(&source)?;
    let archive = scratch.path().join("source.tar");
    git(workspace, &["archive", "--format=tar", "--output", path(&archive)?, hash])?;
    command::capture(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    // One target directory for all commits: they share most of their dependencies.
    let target = cache.join("target");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--locked", "--target-dir"]).arg(&target).current_dir(&source);
    if profile == Profile::Release {
        build.arg("--release");
    }
    build.args(PROGRAMS.iter().flat_map(|name| ["--package", name]));
    command::run(&mut build)?;
    let made = scratch.path().join("programs");
    fs::create_dir(&made)?;
    for name in PROGRAMS {
        let program = target.join(profile.folder()).join(name);
        fs::copy(&program, made.join(name)).with_context(|| format!("cannot copy {}", program.display()))?;
    }
    // In one step: who looks finds all of them. Another run may have been faster.
    let place = cache.join(hash).join(profile.folder());
    if fs::rename(&made, &place).is_err() && !place.is_dir() {
        anyhow::bail!("cannot put the programs in their place, {}", place.display());
    }
    Ok(())
}

fn git(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<String> {
    command::capture(Command::new("git").args(arguments).current_dir(&workspace.root))
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}
