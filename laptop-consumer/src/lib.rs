//! The command line on the laptop: submit jobs; fetch, keep and show their results.
//!
//! Here are the commands, their settings and what they print; the work itself is done by the crate `client`.
//!
//! Out of scope: what a job is (`protocol`), whether it is taken (the edge), how it runs (`hpc-consumer`).
//!
//! Invariants: standard output holds results and nothing else; only `config` reads the environment.

mod cli;
mod commands;
mod config;
mod failure;
mod printer;
mod progress;
mod stop;
mod text;

use anyhow::Context as _;
use clap::Parser as _;
use client::text::escaped;
use program::{Exit, LogFormat};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::printer::StdoutClosed;

/// The program: reads its arguments and settings from the process, and runs to the end.
pub fn main() -> Exit {
    match start() {
        Ok(exit) => exit,
        // Who reads the output has seen enough, as in `tail | head`.
        Err(error) if error.is::<StdoutClosed>() => Exit::Ok,
        Err(error) => {
            printer::say(&format!("error: {}", escaped(&format!("{error:#}"))));
            failure::exit(&error)
        }
    }
}

fn start() -> anyhow::Result<Exit> {
    if let Err(error) = program::load_env_file(std::env::args_os()) {
        return Err(Failure::with(Exit::Usage, format!("{error:#}")));
    }
    let cli = Cli::parse();
    if let Err(error) = program::init_logging(LogFormat::Text, cli.common.log_filter()) {
        return Err(Failure::with(Exit::Usage, format!("{error:#}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime for network input and output")?.block_on(commands::run(cli))
}
