//! `hpc-consumer image`: images of registries.

use clap::{Arg, Args, Subcommand};
use program::{Origins, OutputFormat};
use protocol::PoolName;

use crate::config::PlaceSettings;
use crate::image;

/// What to do with images of registries.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Pull what the registry has now, if it is another image than the one that is here
    ///
    /// The registry is asked for a digest first, and only what has changed is fetched. What was pulled is tried as a
    /// pool's jobs would be begun in it, and put in place whole. Jobs that run keep the image that they have. If
    /// anything fails, or this is interrupted, the image stays as it is.
    ///
    /// Exit codes: 0 each image is what its registry has; 1 one could not be brought up to date, and is as it was; 2
    /// wrong arguments or settings; 4 no image comes from a registry; 130 interrupted.
    #[command(
        mut_args = needed_for_images,
        after_help = "Example, each night in a crontab:\n  30 4 * * * hpc-consumer image update --env-file ~/hpc-queue.env"
    )]
    Update(Box<ImageSettings>),
    /// Print of each image which one it is, which one its registry has, and whether there is one before it
    ///
    /// Exit codes: 0 all is printed; 1 a registry did not answer; 2 wrong arguments or settings; 4 no image comes from
    /// a registry.
    #[command(mut_args = needed_for_images, after_help = "Example:\n  hpc-consumer image status --env-file ~/hpc-queue.env")]
    Status(Box<ImageSettings>),
    /// Put the image before the last update in its place again; once more, and the last one is back
    ///
    /// Exit codes: 0 done; 1 there is none before it, or something failed; 2 wrong arguments or settings; 4 no image
    /// comes from a registry.
    #[command(
        mut_args = needed_for_images,
        after_help = "Example:\n  hpc-consumer image back --env-file ~/hpc-queue.env"
    )]
    Back(Box<ImageSettings>),
}

/// The settings of `hpc-consumer image`.
#[derive(Debug, Args)]
pub(crate) struct ImageSettings {
    /// Only the images of this pool
    #[arg(value_name = "POOL")]
    pool: Option<PoolName>,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
    #[command(flatten)]
    place: PlaceSettings,
}

impl ImageCommand {
    /// What is asked for, with its settings.
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<image::Asked> {
        let (verb, settings) = match self {
            Self::Update(settings) => (image::Verb::Update, settings),
            Self::Status(settings) => (image::Verb::Status, settings),
            Self::Back(settings) => (image::Verb::Back, settings),
        };
        let ImageSettings { pool, output, place } = *settings;
        Ok(image::Asked { verb, pool, format: output, place: place.resolve(origins)? })
    }
}

/// Images have to do with few of the daemon's settings.
fn needed_for_images(argument: Arg) -> Arg {
    const NOT_NEEDED: [&str; 15] = [
        "max_parallel_jobs",
        "job_time_limit_seconds",
        "job_kill_grace_seconds",
        "job_memory_limit",
        "output_log_bytes_max",
        "drain_timeout_seconds",
        "claim_stale_seconds",
        "require",
        "runtime",
        "bare_confinement",
        "bare_writable",
        "session_keyring",
        "apptainer_unpack_dir",
        "job_network",
        "job_seccomp",
    ];
    let hidden = NOT_NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}
