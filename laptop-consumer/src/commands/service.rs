//! `service`: `tail`, started with the session or the machine and again when it has died, by whoever does that here.
//!
//! How it is installed, started and looked at is in the crate `upkeep`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use program::{Exit, Origin, OutputFormat, whole};
use service::Way;
use service::unit::Sort;
use upkeep::{Asked, Found, Place, Words};

use crate::config::CommonArgs;

/// Who may keep `tail` running.
const WAYS: [Way; 4] = [Way::Systemd, Way::Launchd, Way::Cron, Way::Detached];

/// How it is spoken of.
const WORDS: Words = Words {
    name: "laptop-consumer",
    version: env!("CARGO_PKG_VERSION"),
    what: "the receiver",
    description: "hpc-queue: fetch results into the inbox",
    // What it prints nobody reads; its log tells which results were stored.
    command: &["tail", "--log", "info"],
    sort: Sort::Simple,
    ways: &WAYS,
    when: "when you log in",
    ends: "ends",
    stopped: "results wait in the queue",
    meanwhile: "results wait in the queue",
    stays: "the inbox stays, and results wait in the queue until something fetches them",
    lingering: "systemd ends the receiver when you log out and starts it when you log in; to have it between the two as \
                well, `loginctl enable-linger`",
    per_host: false,
    folder: "laptop-service",
    log: "receiver",
    carried: &[
        "PATH",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "all_proxy",
        "https_proxy",
        "http_proxy",
        "no_proxy",
    ],
};

/// What to do about the service.
#[derive(Subcommand)]
pub(crate) enum ServiceCommand {
    /// Have results fetched from now on, whenever you are logged in; and start it
    ///
    /// It is `laptop-consumer tail`. On Linux a systemd manager of the user keeps it running where there is one; else
    /// cron, by a line that starts it with the machine and one that looks every few minutes; else nobody, and a start
    /// by hand is all. On macOS launchd does. It is said which it is, and why.
    ///
    /// A service has its settings from the same file as `laptop-consumer tail` started here, and from what stands
    /// behind `--`; of the environment it has PATH, XDG_DATA_HOME, XDG_STATE_HOME and proxies. They are checked before
    /// anything is changed. What is installed already, also by another version, is replaced, and started again if
    /// anything is different. Other commands work beside it: `wait` and `tail` see what it stores.
    ///
    /// Exit codes: 0 it is installed and runs; 1 something failed, or is in the way; 2 wrong arguments or settings.
    #[command(
        after_help = "Examples:\n  laptop-consumer service install --env-file ~/hpc-queue.env\n  laptop-consumer service install --env-file ~/hpc-queue.env --dry-run\n  laptop-consumer service install --env-file ~/hpc-queue.env -- --fetch=/home/me/results"
    )]
    Install(Install),
    /// Stop it, and take away what starts it; the inbox stays
    ///
    /// Exit codes: 0 it is gone; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    Uninstall(Uninstall),
    /// Start it, and wait until it is up
    ///
    /// Exit codes: 0 it runs; 1 it does not; 2 wrong arguments; 4 no service is installed here.
    Start,
    /// Stop it, and wait for its end
    ///
    /// It stays stopped until `laptop-consumer service start`, or until you log in anew.
    ///
    /// Exit codes: 0 it does not run; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    Stop,
    /// Stop and start it, as after an update
    ///
    /// Exit codes: 0 it runs; 1 it does not; 2 wrong arguments; 4 no service is installed here.
    Restart,
    /// Print who keeps it running, and whether it runs
    ///
    /// Exit codes: 0 it runs; 1 it does not, or that cannot be told; 2 wrong arguments; 4 no service is installed here.
    Status,
    /// Print the last lines of its log
    ///
    /// Exit codes: 0 they are printed; 1 something failed; 2 wrong arguments; 4 no service is installed here.
    #[command(after_help = "Example:\n  laptop-consumer service logs --follow")]
    Logs(ServiceLogs),
    /// What a line of cron does: it starts the receiver if it is to run and does not
    #[command(hide = true)]
    Watch {
        /// Where the service is remembered
        folder: std::path::PathBuf,
    },
}

/// The arguments of `service install`.
#[derive(Args)]
pub(crate) struct Install {
    /// Have this keep it running: systemd, launchd, cron or detached; without it, the first of them that can
    #[arg(long, value_name = "WAY", value_parser = |text: &str| Way::among(text, &WAYS))]
    way: Option<Way>,
    /// Replace also what this program has not made, and install also where the queue cannot be reached now
    #[arg(long)]
    force: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// More arguments of `laptop-consumer tail`, behind --
    #[arg(last = true, value_name = "ARGUMENT")]
    run: Vec<String>,
}

/// The arguments of `service uninstall`.
#[derive(Args)]
pub(crate) struct Uninstall {
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// The arguments of `service logs`.
#[derive(Args)]
pub(crate) struct ServiceLogs {
    /// Go on with what it logs, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// So many of the last lines
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = |text: &str| whole(text, 0..=1_000_000))]
    lines: u64,
}

pub(super) async fn run(common: &CommonArgs, command: ServiceCommand) -> anyhow::Result<Exit> {
    let asked = match command {
        ServiceCommand::Install(Install { way, force, dry_run, run }) => {
            let mut file = common.files.to_arguments()?;
            // What stands in the arguments is meant for the service; of this shell it has nothing.
            if matches!(common.origins.of("LAPTOP_DATA_DIR"), Some(Origin::Flag(_))) {
                let path = common.data_dir()?.into_os_string().into_string();
                let path = path.ok().context("the directory of --data-dir is no text in UTF-8; use another name")?;
                file.extend(["--data-dir".to_owned(), path]);
            }
            Asked::Install(upkeep::Install { way, force, dry_run, scron: Vec::new(), file, run })
        }
        ServiceCommand::Uninstall(Uninstall { dry_run }) => Asked::Uninstall { dry_run },
        ServiceCommand::Start => Asked::Start,
        ServiceCommand::Stop => Asked::Stop,
        ServiceCommand::Restart => Asked::Restart,
        ServiceCommand::Status => Asked::Status(common.format().unwrap_or(OutputFormat::Text)),
        ServiceCommand::Logs(ServiceLogs { follow, lines }) => Asked::Logs { follow, lines },
        ServiceCommand::Watch { folder } => Asked::Watch(folder),
    };
    upkeep::run(&WORDS, asked, Place::of(&WORDS)?).await
}

/// What is installed, if anything is, and how it is.
pub(super) async fn found() -> anyhow::Result<Option<Found>> {
    upkeep::found(&WORDS, Place::of(&WORDS)?).await
}

/// Runs a command of this program with nothing but what a service has.
pub(super) async fn tried(arguments: &[&str]) -> anyhow::Result<Option<i32>> {
    upkeep::tried(&Place::of(&WORDS)?, arguments).await
}
