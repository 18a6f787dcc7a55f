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

use crate::config::{Cli, Command};

fn main() -> Exit {
    match start() {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("hpc-consumer: {error:#}");
            Exit::Unexpected
        }
    }
}

fn start() -> anyhow::Result<Exit> {
    program::load_env_file(std::env::args_os())?;
    let cli = Cli::parse();
    cli.log.init()?;
    match cli.command {
        Command::Run(settings) => {
            let settings = settings.resolve()?;
            // One thread serves thousands of jobs: they are other processes. Files are handled on the blocking pool.
            let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            reactor.block_on(daemon::run(settings))
        }
        Command::Command(show) => {
            println!("{}", show.render()?);
            Ok(Exit::Ok)
        }
    }
}
