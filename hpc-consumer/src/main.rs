//! `hpc-consumer`: the daemon on the cluster. It pulls jobs from the queue `hpc-jobs` over outbound HTTPS, runs each
//! in its job directory, and publishes the results to `hpc-results`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `config` | every setting; the only place that reads the environment |
//! | `daemon` | the loop between the pure crate `lifecycle` and the world |
//! | `job` | the files of a job: its directory, its output, its record |
//! | `run` | the only place that starts processes: commands, limits, logs, ending a whole process tree |

mod config;
mod daemon;
mod job;
mod run;

use clap::Parser as _;
use program::Exit;

use crate::config::{Cli, Command, Settings};

fn main() -> Exit {
    let failed = |error: anyhow::Error, exit| {
        eprintln!("hpc-consumer: {error:#}");
        exit
    };
    let command = match settings() {
        Ok(command) => command,
        Err(error) => return failed(error, Exit::Usage),
    };
    start(command).unwrap_or_else(|error| failed(error, Exit::Unexpected))
}

/// What to do, once everything that a person can get wrong was looked at.
enum Resolved {
    Run(Box<Settings>),
    Show(String),
}

fn settings() -> anyhow::Result<Resolved> {
    program::load_env_file(std::env::args_os())?;
    let cli = Cli::parse();
    cli.log.init()?;
    Ok(match cli.command {
        Command::Run(settings) => Resolved::Run(Box::new(settings.resolve()?)),
        Command::Command(show) => Resolved::Show(show.render()?),
    })
}

fn start(command: Resolved) -> anyhow::Result<Exit> {
    match command {
        Resolved::Run(settings) => {
            // One thread serves thousands of jobs: they are other processes. Files are handled on the blocking pool.
            let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            reactor.block_on(daemon::run(*settings))
        }
        Resolved::Show(line) => {
            println!("{line}");
            Ok(Exit::Ok)
        }
    }
}
