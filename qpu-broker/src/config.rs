//! The flags, and what the environment gives to adapters.
//!
//! Invariant: nothing else in this program reads the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use program::{Files, LogArgs, Sources, TrustArgs};
use protocol::duration::{self, Unit};

/// Where the settings come from. No `.env` is read: the file of the machines says all.
pub(crate) const SOURCES: Sources = Sources { files: Files::None, shared: &[] };

/// What adapters have of our environment. All else is in the file of the machines.
const HANDED_ON: [&str; 3] = ["HOME", "PATH", "TMPDIR"];

/// The lease of quantum machines to running jobs
///
/// Jobs submit tasks through a Unix socket of their own, wait and cancel. This program holds the credential, queues
/// fairly by job, bounds what is in flight, and pays for no task twice.
#[derive(Parser)]
#[command(name = "qpu-broker", version, help_expected = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve the machines of a file
    ///
    /// It is ready when the file control.sock is in the state directory. SIGINT or SIGTERM: what the vendors have been
    /// asked is answered and written down, then it ends. Tasks go on where they are, and the next start takes them up.
    #[command(
        after_help = "Example:\n  qpu-broker serve --config qpus.toml --state-dir ~/.local/state/lease --sockets /run/user/1000/lease\n  curl -X POST --unix-socket ~/.local/state/lease/control.sock http://lease/v1/jobs/JOB_ID"
    )]
    Serve(Box<ServeArgs>),
    /// Read the file of the machines, and say what is wrong with it
    ///
    /// What is right is told on standard output as JSON: the machines, and the files that hold secrets.
    Check {
        /// Read the machines from FILE
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// The flags of `serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Read the machines from FILE (docs/lease.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Remember tasks in DIR, which is made when it is not there; the socket control.sock is in it, too
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// Make the sockets of jobs in DIR, as JOB_ID/qpu.sock
    #[arg(long, value_name = "DIR")]
    pub(crate) sockets: PathBuf,
    /// End by itself once nobody has asked anything through control.sock for so long (as 1m) and there is no job and no
    /// task; with some of them, once nobody has asked anything at all for a day
    ///
    /// What is there stays on disk for the next start. Without this it serves until a signal comes.
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle: Option<Duration>,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

fn idle(text: &str) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, Duration::from_secs(1)..=Duration::from_hours(24))
}

/// What adapters have of our environment.
pub(crate) fn handed_on() -> Vec<(OsString, OsString)> {
    HANDED_ON.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?))).collect()
}
