//! `cargo xtask fuzz`: what parses bytes from outside, given whatever bytes find new ways through it.
//!
//! The targets are in `fuzz/`, a workspace of its own, and each is one line: what must hold stands beside the parser,
//! in its crate, and ordinary tests hold it as well. They are built with the pinned compiler and without a sanitizer,
//! which would need another one: there is no `unsafe` in this project for it to watch.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::fs;

use anyhow::{Context as _, bail};
use clap::Args;

use self::targets::TARGETS;
use crate::command;
use crate::tools::{Kind, Tools};
use crate::workspace::{Workspace, shown};

/// The largest input that is made up. What parses well does so for the small as for the large, and sooner.
const BYTES_MAX: usize = 1_024;

/// An input that takes longer than this, in seconds, is a finding.
const SECONDS_MAX: u32 = 20;

/// Which of them, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which target; all of them, one after the other, when none is named
    target: Option<String>,
    /// How many inputs each is given
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT")]
    runs: u64,
}

/// Builds the targets and runs them. An error names the first finding, which lies in `target/fuzz/artifacts`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let is_meant = |name: &str| options.target.as_deref().is_none_or(|target| target == name);
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| is_meant(name)).collect();
    if targets.is_empty() {
        bail!("there is no such target; the targets are {}", TARGETS.map(|(name, _)| name).join(", "));
    }
    let tools = Tools::set_up(workspace, &[Kind::CargoFuzz])?;
    let program = &tools.get(Kind::CargoFuzz)?.path;
    let home = workspace.target.join("fuzz");
    for (name, seeds) in targets {
        // What was found is kept beside the builds, and gone on with.
        let (corpus, artifacts) = (home.join("corpus").join(name), home.join("artifacts").join(name));
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", shown(folder)))?;
        }
        let mut fuzz = std::process::Command::new(program);
        fuzz.current_dir(&workspace.root).args(["fuzz", "run", "--sanitizer", "none", "--target-dir"]).arg(&home);
        fuzz.arg(name).arg(&corpus).args(seeds).arg("--");
        fuzz.arg(format!("-runs={}", options.runs)).arg(format!("-max_len={BYTES_MAX}"));
        fuzz.arg(format!("-timeout={SECONDS_MAX}"));
        fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command::run(&mut fuzz)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_named_and_has_something_to_begin_with() {
        let root = Workspace::locate().unwrap().root;
        let mut there: Vec<String> = fs::read_dir(root.join("fuzz/fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        there.sort();
        assert_eq!(there, TARGETS.map(|(name, _)| name));
        TARGETS.iter().for_each(|(name, _)| targets::replay(name, |_| {}));
    }
}
