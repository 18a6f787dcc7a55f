//! The command line on the laptop: submit jobs; fetch, keep and show their results.
//!
//! Here are the commands, their settings and what they print; the work itself is done by the crate `client`.
//!
//! Out of scope: what a job is (`protocol`), whether it is taken (the edge), how it runs (`hpc-consumer`).
//!
//! Invariants: standard output holds results and nothing else; only `config` reads the environment.

mod cli;
mod command_task;
mod commands;
mod config;
mod failure;
mod lines;
mod meter;
mod progress;
mod stop;

use anyhow::Context as _;
use program::{Exit, Failure, Given, LogFormat, StdoutClosed};

use crate::cli::{Cli, Command};

/// The program: reads its arguments and settings from the process, and runs to the end.
pub fn main() -> Exit {
    program::harden();
    match start() {
        // Who reads the output has seen enough, as in `tail | head`.
        Err(error) if error.is::<StdoutClosed>() => Exit::Ok,
        outcome => program::finish(outcome.map_err(failure::with_exit)),
    }
}

fn start() -> anyhow::Result<Exit> {
    let Given { mut cli, origins, warnings } = program::read::<Cli>(&config::SOURCES).map_err(Failure::usage)?;
    program::init_logging(LogFormat::Text, &cli.common.log).map_err(Failure::usage)?;
    // The doctor has a line for each of them.
    if !matches!(cli.command, Command::Doctor(_)) {
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    (cli.common.origins, cli.common.warnings) = (origins, warnings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime for network input and output")?.block_on(commands::run(cli))
}
