//! The commands that have to do with results on this machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use protocol::{JobId, JobState};

use super::job_or_list;
use crate::config::{EdgeArgs, QueueArgs, length_of_time};

/// The arguments of `tail`.
#[derive(Args)]
pub(crate) struct TailArgs {
    /// Fetch what is in the queue now, and end; this waits for no job
    ///
    /// Jobs that have not ended have no result in the queue: `wait` waits for them. It ends when a pull brings nothing
    /// and the queue says that it holds nothing. Messages that it holds but does not give are leased to another
    /// laptop, or delayed: they are waited for as long as a lease of this program lasts (--visibility-timeout-ms), and
    /// then left.
    #[arg(long)]
    pub(crate) until_idle: bool,
    /// Check the settings and the inbox, ask how much the queue holds, print that, and end; nothing is fetched
    #[arg(long, conflicts_with = "until_idle")]
    pub(crate) check: bool,
    /// Fetch the files that jobs leave as well, each job's into a directory of its name in DIR; without DIR, here
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    pub(crate) fetch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `wait`.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Wait for these jobs: ids, unique beginnings of ids, `last`, or @FILE for a list
    ///
    /// `last` is the job that was submitted last with this inbox, or, when none was, the newest one of the hub. A list
    /// has one job a line: its id, or the JSON that `submit` and the edge print.
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list)]
    pub(crate) jobs: Vec<String>,
    /// Wait for every job that was submitted with this inbox and has no result in it
    #[arg(long)]
    pub(crate) all: bool,
    /// End with 75 when results are missing after this long
    #[arg(long, value_name = "DURATION", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Show this job: its id, a unique beginning of it, or `last` for the one that was submitted last
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// The arguments of `output`.
#[derive(Args)]
pub(crate) struct OutputArgs {
    /// Print the output of this job: its id, a unique beginning of it, or `last` for the one that was submitted last
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// Write it into FILE, whole, in place of what that held; without it, to standard output
    #[arg(long = "to", short = 'o', value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// The arguments of `purge`.
#[derive(Args)]
pub(crate) struct PurgeArgs {
    /// Remove what is here of these jobs: ids, unique beginnings of ids, `last`, or @FILE for a list
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list, conflicts_with_all = ["older_than", "states", "all"])]
    pub(crate) jobs: Vec<String>,
    /// Remove jobs that have ended at least this long ago
    #[arg(long, value_name = "DURATION", value_parser = length_of_time)]
    pub(crate) older_than: Option<Duration>,
    /// Remove jobs that have ended so, or in one of several ways with commas between them
    ///
    /// It is completed, failed or cancelled.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub(crate) states: Vec<JobState>,
    /// Remove all jobs whose results are here
    #[arg(long, conflicts_with_all = ["older_than", "states"])]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The arguments of `fetch`.
#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Fetch from these jobs (ids, unique beginnings of ids, `last`, or @FILE for a list) what fits these patterns
    #[arg(value_name = "JOB|PATTERN", required = true)]
    pub(crate) words: Vec<String>,
    /// Put the files into DIR; without it, here
    #[arg(long = "into", short = 'o', value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) into: PathBuf,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}
