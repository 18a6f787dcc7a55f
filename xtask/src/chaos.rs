//! `cargo xtask chaos`: many jobs while everything is killed over and over, and a count at the end.
//!
//! The chaos itself is `tests/src/chaos`, which the tests use as well; this builds the programs for it, and gets
//! Apptainer where it is to be used.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::command;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};

/// How much of it, and of which kind.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many jobs
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    jobs: u32,
    /// What all chance is drawn from: jobs, faults, and the order of the victims
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// What wraps the jobs
    #[arg(long, default_value = "bare", value_name = "RUNTIME")]
    runtime: Runtime,
    /// How many minutes it may take until every job has its result
    #[arg(long, default_value_t = 30, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes_max: u32,
}

/// What wraps the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// No container
    Bare,
    /// Real Apptainer containers
    Apptainer,
}

/// Builds the programs, lets chaos loose on them, and tells the count. The exit code says whether all is well.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<ExitCode> {
    let apptainer = match options.runtime {
        Runtime::Bare => None,
        Runtime::Apptainer => {
            let tools = Tools::set_up(workspace, &[Kind::Apptainer])?;
            Some(tools.get(Kind::Apptainer)?.path.clone())
        }
    };
    workspace.build(Profile::Release, &["local-edge", "hpc-consumer", "hpc-queue-tests"])?;
    let mut chaos = std::process::Command::new(workspace.program(Profile::Release, "chaos"));
    let runtime = match options.runtime {
        Runtime::Bare => "bare",
        Runtime::Apptainer => "apptainer",
    };
    chaos
        .args([options.jobs.to_string(), options.seed.to_string(), runtime.to_owned(), options.minutes_max.to_string()])
        .env("HPC_QUEUE_BIN_DIR", workspace.target.join(Profile::Release.folder()))
        // On the disk of the target directory, not in memory: durability is part of what is tried.
        .env("TMPDIR", workspace.scratch()?);
    if let Some(apptainer) = apptainer {
        chaos.env("HPC_QUEUE_APPTAINER", apptainer);
    }
    let status = chaos.status().with_context(|| format!("cannot start `{}`", command::line(&chaos)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
