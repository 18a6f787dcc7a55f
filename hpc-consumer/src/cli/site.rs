//! `hpc-consumer site`: the file of a site, checked, explained, begun.

use std::path::PathBuf;

use clap::{Arg, Args, Subcommand};
use program::{Origins, OutputFormat};

use crate::config::{JobSettings, LimitSettings, NetworkSettings, RuntimeSettings, SiteSettings};
use crate::site::{Asked, SiteOf};

/// What to do with the file of a site.
#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Check the file of a site, and look whether its images, secrets and programs are there
    ///
    /// Everything that is wrong is told at once on standard error, each as FILE:LINE:COLUMN. What is right and does not
    /// work yet, as an image that is not there, is a warning. The content of a secret is not read. Slurm is asked
    /// whether it would take an allocation of each pool that lives there (sbatch --test-only); nothing is submitted.
    ///
    /// Exit codes: 0 it is right; 1 something failed; 2 it is wrong or cannot be read, or wrong arguments or settings.
    #[command(after_help = "Example:\n  hpc-consumer site check site.toml")]
    Check(SiteCheck),
    /// Explain what would become of a job: its pool, image, command and limits, and who says so
    ///
    /// Exit codes: 0 a pool takes the job; 1 none does, or something failed; 2 wrong arguments, settings, job, or file
    /// of the site.
    #[command(
        after_help = "Example:\n  echo '{\"task\":\"simulate\"}' | hpc-consumer site explain - --site-file site.toml"
    )]
    Explain(SiteExplain),
    /// Print a first file that says the same as today's settings
    #[command(
        mut_args = needed_to_init,
        after_help = "Example:\n  hpc-consumer site init --env-file ~/hpc-queue.env > site.toml"
    )]
    Init(Box<SiteInit>),
}

/// The settings of `hpc-consumer site check`.
#[derive(Debug, Args)]
pub(crate) struct SiteCheck {
    /// The file to check; without it, the one that SITE_FILE names
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    site: SiteSettings,
    #[command(flatten)]
    limits: LimitSettings,
    #[command(flatten)]
    network: NetworkSettings,
}

/// The settings of `hpc-consumer site explain`.
#[derive(Debug, Args)]
pub(crate) struct SiteExplain {
    /// The job, as it would be submitted: a file of JSON, or - for standard input
    #[arg(value_name = "JOB.json|-")]
    job: PathBuf,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
    #[command(flatten)]
    site: SiteSettings,
    #[command(flatten)]
    limits: LimitSettings,
    #[command(flatten)]
    network: NetworkSettings,
}

/// The settings of `hpc-consumer site init`.
#[derive(Debug, Args)]
pub(crate) struct SiteInit {
    #[command(flatten)]
    jobs: JobSettings,
    #[command(flatten)]
    runtime: RuntimeSettings,
}

impl SiteCommand {
    /// What is asked for, with its settings.
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<Asked> {
        Ok(match self {
            Self::Check(SiteCheck { file, site, limits, network }) => {
                let defaults = limits.site_defaults(network.is_on());
                Asked::Check(SiteOf { file: site.file(file, origins)?, defaults })
            }
            Self::Explain(SiteExplain { job, output, site, limits, network }) => {
                let defaults = limits.site_defaults(network.is_on());
                let site = SiteOf { file: site.file(None, origins)?, defaults };
                Asked::Explain(site, job, output)
            }
            Self::Init(init) => Asked::Init(Box::new(init.jobs.site(init.runtime, origins)?)),
        })
    }
}

/// A first file of a site says nothing of these.
fn needed_to_init(argument: Arg) -> Arg {
    const NOT_NEEDED: [&str; 6] = [
        "job_kill_grace_seconds",
        "output_log_bytes_max",
        "drain_timeout_seconds",
        "claim_stale_seconds",
        "apptainer_bin",
        "apptainer_unpack_dir",
    ];
    let hidden = NOT_NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}
