//! The commands that have to do with jobs wherever they are.

use clap::Args;
use program::{JobFilter, Stream};
use protocol::{JobId, JobState, PoolName};

use super::job_or_list;
use crate::config::EdgeArgs;

/// The arguments of `status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The jobs: ids, unique beginnings of ids, `last`, or @FILE for a list, as `wait` takes it
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list)]
    pub(crate) jobs: Vec<String>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// The arguments of `jobs`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: JobFilter,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// The arguments of `logs`.
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The job: its id, a unique beginning of it, or `last` for the one that was submitted last
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// Go on until the job has ended
    ///
    /// It begins 16 KiB before the end of each stream. Ctrl-C ends the following, and no job.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// With --follow, begin at this byte of each stream; below 0, so many bytes before its end
    #[arg(long, value_name = "OFFSET", requires = "follow", allow_negative_numbers = true)]
    pub(crate) from: Option<i64>,
    /// Print only this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<Stream>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// The arguments of `cancel`.
#[derive(Args)]
pub(crate) struct CancelArgs {
    /// Cancel these jobs: ids, unique beginnings of ids, `last`, or @FILE for a list, as `wait` takes it
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list)]
    pub(crate) jobs: Vec<String>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) which: CancelFilter,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

/// Which jobs `cancel` means that are not named.
#[derive(Args)]
#[command(next_help_heading = "Which jobs, where they are not named")]
pub(crate) struct CancelFilter {
    /// Cancel the jobs in this state, or in one of several with commas between them: queued, held or running
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub(crate) states: Vec<JobState>,
    /// Cancel the jobs of this task
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<String>,
    /// Cancel the jobs that are, or are to be, in this pool
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<PoolName>,
    /// Cancel the jobs that their user calls this
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Cancel all jobs that have not ended, whoever submitted them
    #[arg(long)]
    pub(crate) all: bool,
}
