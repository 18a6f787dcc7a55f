//! The arguments of `hpc-consumer service`, and their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use program::{FileArgs, OutputFormat, whole};
use service::Way;
use upkeep::Asked;

use super::WAYS;

/// What to do about the service.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Have the daemon started with the machine, and again when it has died; and start it
    ///
    /// A systemd manager of the user does it where there is one; else cron, by a line that starts it with the machine
    /// and one that looks every few minutes; else `scrontab`, where Slurm has it; else nobody, and a start by hand is
    /// all. It is said which it is, and why. Jobs go on when the service is stopped, updated, replaced or taken away.
    ///
    /// A service has its settings from the same file as `hpc-consumer run` started here, and from what stands behind
    /// `--`; of the environment it has PATH, XDG_STATE_HOME, proxies and APPTAINER_* directories. They are checked
    /// before anything is changed. What is installed already, also by another version, is replaced, and the daemon
    /// started again if anything is different.
    ///
    /// Exit codes: 0 it is installed and runs; 1 something failed, or is in the way; 2 wrong arguments or settings.
    #[command(
        after_help = "Examples:\n  hpc-consumer service install --env-file ~/hpc-queue.env\n  hpc-consumer service install --env-file ~/hpc-queue.env --dry-run\n  hpc-consumer service install --env-file ~/hpc-queue.env -- --results-dir /scratch/$USER/results"
    )]
    Install(Install),
    /// Stop the daemon, and take away what starts it; jobs that run go on, under their keeper
    ///
    /// Exit codes: 0 it is gone; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    Uninstall(Uninstall),
    /// Start the daemon, and wait until it is up
    ///
    /// Exit codes: 0 it runs; 1 it does not; 2 wrong arguments; 4 no service is installed here.
    Start,
    /// Drain and stop the daemon, and wait for its end; jobs that run longer go on, under their keeper
    ///
    /// It stays stopped until `hpc-consumer service start`, or the next start of the machine.
    ///
    /// Exit codes: 0 it does not run; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    Stop,
    /// Stop and start the daemon, as after an update; jobs go on
    ///
    /// Exit codes: 0 it runs; 1 it does not; 2 wrong arguments; 4 no service is installed here.
    Restart,
    /// Print who keeps the daemon running, and whether it runs
    ///
    /// What it does, `hpc-consumer status` tells.
    ///
    /// Exit codes: 0 it runs; 1 it does not, or that cannot be told; 2 wrong arguments; 4 no service is installed here.
    Status(ServiceStatus),
    /// Print the last lines of the daemon's log
    ///
    /// Exit codes: 0 they are printed; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    #[command(after_help = "Example:\n  hpc-consumer service logs --follow")]
    Logs(ServiceLogs),
    /// What a line of cron does: it starts the daemon if it is to run and does not
    #[command(hide = true)]
    Watch(WatchFolder),
}

/// The arguments of `hpc-consumer service install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Have this keep it running: systemd, cron, scrontab or detached; without it, the first of them that can
    #[arg(long, value_name = "WAY", value_parser = |text: &str| Way::among(text, &WAYS))]
    pub(crate) way: Option<Way>,
    /// Replace also what this program has not made, and install also where no job could run now
    #[arg(long)]
    pub(crate) force: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One more option of the job that scrontab starts, as --partition=cron; may be given several times
    #[arg(long = "scron", value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) scron: Vec<String>,
    /// More arguments of `hpc-consumer run`, behind --
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) run: Vec<String>,
}

/// The arguments of `hpc-consumer service uninstall`.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The arguments of `hpc-consumer service status`.
#[derive(Debug, Args)]
pub(crate) struct ServiceStatus {
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
}

/// The arguments of `hpc-consumer service logs`.
#[derive(Debug, Args)]
pub(crate) struct ServiceLogs {
    /// Go on with what the daemon logs, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// So many of the last lines
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = |text: &str| whole(text, 0..=1_000_000))]
    pub(crate) lines: u64,
}

/// Where the service is remembered.
#[derive(Debug, Args)]
pub(crate) struct WatchFolder {
    /// That folder
    pub(crate) folder: PathBuf,
}

impl ServiceCommand {
    /// What is asked, with the file of settings that the arguments name.
    pub(crate) fn with(self, files: &FileArgs) -> anyhow::Result<Asked> {
        Ok(match self {
            Self::Install(Install { way, force, dry_run, scron, run }) => {
                let file = files.to_arguments()?;
                Asked::Install(upkeep::Install { way, force, dry_run, scron, file, run })
            }
            Self::Uninstall(Uninstall { dry_run }) => Asked::Uninstall { dry_run },
            Self::Start => Asked::Start,
            Self::Stop => Asked::Stop,
            Self::Restart => Asked::Restart,
            Self::Status(ServiceStatus { output }) => Asked::Status(output),
            Self::Logs(ServiceLogs { follow, lines }) => Asked::Logs { follow, lines },
            Self::Watch(WatchFolder { folder }) => Asked::Watch(folder),
        })
    }
}
