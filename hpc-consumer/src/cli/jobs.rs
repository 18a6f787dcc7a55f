//! The commands that have to do with the jobs of a daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use program::duration::{self, Unit};
use program::{JobFilter, Origins, OutputFormat, Stream};

use crate::config::{RunSettings, StateSettings};

use super::{DURATION_MAX, length_of_time};

/// The settings of `hpc-consumer jobs` and `hpc-consumer status`.
#[derive(Debug, Args)]
pub(crate) struct ShowState {
    #[command(flatten)]
    state: StateSettings,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

impl ShowState {
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<(PathBuf, OutputFormat)> {
        Ok((self.state.resolve(origins)?, self.output))
    }
}

/// The settings of `hpc-consumer jobs`.
#[derive(Debug, Args)]
pub(crate) struct ListJobs {
    #[command(flatten)]
    pub(crate) show: ShowState,
    #[command(flatten)]
    pub(crate) filter: JobFilter,
}

/// The settings of `hpc-consumer show`.
#[derive(Debug, Args)]
pub(crate) struct ShowJob {
    /// The job: its id, a unique beginning of it, or `last` for the one that was accepted last
    #[arg(value_name = "JOB")]
    pub(crate) job: protocol::JobId,
    #[command(flatten)]
    pub(crate) show: ShowState,
}

/// The settings of `hpc-consumer status`.
#[derive(Debug, Args)]
pub(crate) struct ShowStatus {
    /// The jobs: ids, unique beginnings of ids, or `last` for the one that was accepted last
    #[arg(value_name = "JOB")]
    jobs: Vec<protocol::JobId>,
    #[command(flatten)]
    show: ShowState,
}

impl ShowStatus {
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<(Vec<protocol::JobId>, (PathBuf, OutputFormat))> {
        Ok((self.jobs, self.show.resolve(origins)?))
    }
}

/// The settings of `hpc-consumer wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitFor {
    /// The jobs: ids, unique beginnings of ids, or `last` for the one that was accepted last
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<protocol::JobId>,
    /// End with 75 when a job has not ended after this long
    #[arg(long, value_name = "DURATION", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    /// Print results in this form; without it, text on a terminal and json elsewhere
    #[arg(long, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
    #[command(flatten)]
    pub(crate) state: StateSettings,
}

/// The settings of `hpc-consumer logs`.
#[derive(Debug, Args)]
pub(crate) struct ShowLogs {
    /// The job: its id, a unique beginning of it, or `last` for the one that was accepted last
    #[arg(value_name = "JOB")]
    pub(crate) job: protocol::JobId,
    /// Go on until the job has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print only this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<Stream>,
    #[command(flatten)]
    pub(crate) state: StateSettings,
}

/// The settings of `hpc-consumer cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The jobs: ids, unique beginnings of ids, or `last` for the one that was accepted last
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<protocol::JobId>,
    #[command(flatten)]
    state: StateSettings,
}

impl Cancel {
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<(PathBuf, Vec<protocol::JobId>)> {
        Ok((self.state.resolve(origins)?, self.jobs))
    }
}

/// The settings of `hpc-consumer purge`.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Remove jobs that have ended at least this long ago; at least an hour
    #[arg(long, required = true, value_name = "DURATION", value_parser = age)]
    pub(crate) older_than: Duration,
    /// Remove only jobs that have ended so, or in one of several ways with commas between them
    ///
    /// It is completed, failed or cancelled.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub(crate) states: Vec<protocol::JobState>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) state: StateSettings,
}

/// How old what is removed must be.
fn age(text: &str) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, crate::purge::AGE_MIN..=DURATION_MAX)
}

/// The settings of `hpc-consumer resend`.
#[derive(Debug, Args)]
pub(crate) struct Resend {
    /// The jobs: ids, unique beginnings of ids, or `last` for the one that was accepted last
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<protocol::JobId>,
    /// Send the files that fit, in place of those that were wanted at the submission; may be given several times
    ///
    /// As --output of `laptop-consumer submit`: `*` and `?` stand for anything but `/`, `**` for any number of
    /// directories, a directory for all that is in it.
    #[arg(long = "output", value_name = "PATTERN", value_parser = pattern)]
    pub(crate) patterns: Vec<protocol::WorkPath>,
    #[command(flatten)]
    pub(crate) settings: RunSettings,
}

fn pattern(text: &str) -> Result<protocol::WorkPath, protocol::InvalidWorkPath> {
    let path = text.strip_prefix("./").unwrap_or(text);
    path.strip_suffix('/').unwrap_or(path).parse()
}

/// The settings of `hpc-consumer republish`.
#[derive(Debug, Args)]
pub(crate) struct Republish {
    /// The jobs: ids, unique beginnings of ids, or `last` for the one that was accepted last
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<protocol::JobId>,
    #[command(flatten)]
    pub(crate) settings: RunSettings,
}
