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
    /// How many jobs; without it 10000, and 2060 with --slurm, of which 60 have an allocation of their own
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    jobs: Option<u32>,
    /// What all chance is drawn from: jobs, faults, and the order of the victims
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// What wraps the jobs
    #[arg(long, default_value = "bare", value_name = "RUNTIME")]
    runtime: Runtime,
    /// Run them in pools of a real Slurm of three nodes, and kill that as well
    #[arg(long, conflicts_with = "runtime")]
    slurm: bool,
    /// How many of a hundred jobs bring a file, and leave some
    #[arg(long, default_value_t = 20, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    files: u32,
    /// How many minutes it may take until every job has its result
    #[arg(long, default_value_t = 30, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes_max: u32,
}

/// How many jobs there are when nobody says so; and in Slurm, where each takes longer.
const JOBS: u32 = 10_000;
const JOBS_IN_SLURM: u32 = 2_060;

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
    let (runtime, kinds, jobs): (&str, &[Kind], u32) = match options.runtime {
        // A daemon with a site's file has an Apptainer, whatever its pools run in.
        _ if options.slurm => ("slurm", &[Kind::Slurm22, Kind::Slurm24, Kind::Apptainer], JOBS_IN_SLURM),
        Runtime::Bare => ("bare", &[Kind::Apptainer], JOBS),
        Runtime::Apptainer => ("apptainer", &[Kind::Apptainer], JOBS),
    };
    let tools = Tools::set_up(workspace, kinds)?;
    workspace.build(Profile::Release, &["local-edge", "hpc-consumer", "laptop-consumer", "hpc-queue-tests"])?;
    let mut chaos = std::process::Command::new(workspace.program(Profile::Release, "chaos"));
    let jobs = options.jobs.unwrap_or(jobs).to_string();
    chaos
        .args([&jobs, &options.seed.to_string(), runtime, &options.minutes_max.to_string(), &options.files.to_string()])
        .env("HPC_QUEUE_BIN_DIR", workspace.target.join(Profile::Release.folder()));
    if !options.slurm {
        // On the disk of the target directory, not in memory: durability is part of what is tried. The sockets of
        // Slurm lie there as well, and may not have paths as long as that may be.
        chaos.env("TMPDIR", workspace.scratch()?);
    }
    for kind in kinds {
        let name = match kind {
            Kind::Slurm22 => "HPC_QUEUE_SLURM_22_05",
            Kind::Slurm24 => "HPC_QUEUE_SLURM_24_11",
            _ => "HPC_QUEUE_APPTAINER",
        };
        chaos.env(name, &tools.get(*kind)?.path);
    }
    let status = chaos.status().with_context(|| format!("cannot start `{}`", command::line(&chaos)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
