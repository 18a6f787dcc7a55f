//! `qpu-broker`: running jobs submit tasks to quantum machines through a socket, wait and cancel, while the credential
//! stays here. The decisions of crate `lease` behind an HTTP server on Unix sockets. See `docs/lease.md`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `config`, `qpus` | flags and the environment, which nothing else reads; the file that names the machines |
//! | `broker`, `needed` | start and stop; whether anybody still has a use for it |
//! | `desk` | the loop around the lease: what comes, what goes to disk, what is done then |
//! | `state` | the file `lease.sqlite`: what is remembered |
//! | `adapter` | the program that speaks with a vendor: its process, its lines, what is secret in them |
//! | `sockets` | one socket for each job, and one for whoever starts and ends jobs |
//! | `http`, `problem` | requests and answers |
//!
//! Invariants: no answer leaves before the facts that it tells of are on disk, and no question to a vendor does. No
//! value of a secret is in the state, an answer, a log or a word of a process.

mod adapter;
mod broker;
mod config;
mod desk;
mod http;
mod needed;
mod problem;
mod qpus;
mod sockets;
mod state;

use program::{Exit, Failure, Given};

use crate::config::{Cli, Command};

/// The whole program: reads its arguments, and serves until a signal asks it to stop.
pub fn main() -> Exit {
    program::harden();
    // Who starts us may have files open; the adapters must not get them.
    close_fds::set_fds_cloexec(3, &[]);
    program::finish(run())
}

fn run() -> anyhow::Result<Exit> {
    let Given { cli, warnings, .. } = program::read::<Cli>(&config::SOURCES)?;
    cli.log.init().map_err(Failure::usage)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    match cli.command {
        Command::Serve(settings) => {
            let offer = qpus::Offer::read(&settings.config).map_err(Failure::usage)?;
            broker::serve(&settings, offer)?;
        }
        Command::Check { config } => {
            let offer = qpus::Offer::read(&config).map_err(Failure::usage)?;
            tracing::info!("{} can be used; it names {} machines", config.display(), offer.settings.qpus.len());
            program::print(&format!("{}\n", offer.told()))?;
        }
    }
    Ok(Exit::Ok)
}
