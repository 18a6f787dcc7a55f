//! `hpc-consumer scaling`: the rule by which pools in Slurm grow and shrink, tried and decided again.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use program::{Origins, OutputFormat};

use crate::config::{LimitSettings, SiteSettings};
use crate::scaling;
use crate::site::SiteOf;

use super::length_of_time;

/// What to do with the rule by which pools in Slurm grow and shrink.
#[derive(Debug, Subcommand)]
pub(crate) enum ScalingCommand {
    /// Play a workflow against the pools of a site, in virtual time
    ///
    /// The workflow is a trace of WfCommons (WfFormat 1.5): its tasks, what each waits for, and how long it ran. Each
    /// runs in the pool that the site's file has for a job of its name. Told are the time until the last task has
    /// ended, and how many core hours were held for it. A pool on this node takes part as one that is always there.
    ///
    /// Exit codes: 0 it came to its end; 1 it never would, or something failed; 2 wrong arguments, trace, or file of
    /// the site.
    #[command(after_help = "Example:\n  hpc-consumer scaling simulate montage.json --site site.toml --start 2m")]
    Simulate(Simulate),
    /// Decide again what a daemon has decided, and say why
    ///
    /// FILE is slurm/scaling.jsonl in STATE_DIR, to which the daemon writes what each decision was made of. Told is why
    /// each pool was to have so many allocations, and whether this version would do something else.
    ///
    /// Exit codes: 0 all would be decided so; 1 something would be decided otherwise, or something failed; 2 wrong
    /// arguments, or no such log.
    #[command(
        after_help = "Example:\n  hpc-consumer scaling replay ~/.local/state/hpc-queue/$(hostname)/slurm/scaling.jsonl"
    )]
    Replay(Replay),
}

/// The settings of `hpc-consumer scaling simulate`.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The trace of a workflow, in WfFormat 1.5
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// The file of the site; without it, the one that SITE_FILE names
    #[arg(long = "site", value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long an allocation waits until it begins
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = length_of_time)]
    start: Duration,
    /// Between two decisions
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = length_of_time)]
    interval: Duration,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
    #[command(flatten)]
    site: SiteSettings,
    #[command(flatten)]
    limits: LimitSettings,
}

/// The settings of `hpc-consumer scaling replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The log of decisions
    #[arg(value_name = "FILE")]
    decisions: PathBuf,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

impl ScalingCommand {
    /// What is asked for, with its settings.
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<scaling::Asked> {
        Ok(match self {
            Self::Simulate(Simulate { trace, file, start, interval, output, site, limits }) => {
                let site = SiteOf { file: site.file(file, origins)?, defaults: limits.site_defaults(true) };
                scaling::Asked::Simulate { trace, site, start, interval, format: output }
            }
            Self::Replay(Replay { decisions, output }) => scaling::Asked::Replay { log: decisions, format: output },
        })
    }
}
