//! `local-edge`: the edge and the queues on one machine. The decisions of crate `edge` behind an HTTP server, and the
//! Cloudflare Queues HTTP API, pull consumers included, over SQLite. See `docs/local-edge.md`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `config` | every setting; the only place that reads the environment |
//! | `server` | start, which part answers a path, graceful stop |
//! | `listener` | the address or the Unix socket |
//! | `connections` | how many, how long they may say nothing, which one goes when there is no room |
//! | `api` | `/client/v4`: the Cloudflare Queues HTTP API |
//! | `binding` | `/message`, `/batch`, `/metrics`: what workerd speaks for a queue binding |
//! | `jobs` | everything else: `POST /jobs`, `GET /health`, as crate `edge` decides |
//! | `hub` | what is known of jobs and sites, and the links of sites |
//! | `files` | `/s3`: a store of files; asking the store that the hub works with |
//! | `faults` | faults on demand, for tests of the other programs; only with `--faults` |
//! | `http` | reading bodies and writing answers |
//! | `store` | one thread that owns all queues; what it answers is on disk |
//! | `doctor` | whether there is a server, or can be one |
//! | `data_dir`, `credentials`, `env_file` | what is on disk besides the queues |
//!
//! Invariant: no answer leaves before the facts that it tells of are on disk.

mod api;
mod binding;
mod config;
mod connections;
mod credentials;
mod data_dir;
mod doctor;
mod env_file;
mod faults;
mod files;
mod http;
mod hub;
mod jobs;
mod listener;
mod random;
mod server;
mod store;

use program::{Exit, Failure, Given, OutputFormat};

use crate::config::{Cli, Command, Settings};

/// The whole program: reads its arguments and environment, and serves until a signal asks it to stop.
pub fn main() -> Exit {
    program::harden();
    program::finish(asked().map_err(Failure::usage).and_then(|asked| match asked {
        Asked::Serve(settings) => server::serve(*settings).map(|()| Exit::Ok),
        Asked::Doctor(settings, format) => doctor::answer(settings.map(|settings| *settings), format),
        Asked::Nothing => Ok(Exit::Ok),
    }))
}

/// What there is to be done, once everything that a person can get wrong was looked at.
enum Asked {
    Serve(Box<Settings>),
    /// Wrong settings are what it tells of.
    Doctor(anyhow::Result<Box<Settings>>, OutputFormat),
    Nothing,
}

fn asked() -> anyhow::Result<Asked> {
    let Given { cli, origins, warnings } = program::read::<Cli>(&config::SOURCES)?;
    cli.log.init()?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    match cli.command {
        Command::Serve(settings) => settings.resolve(&origins).map(|settings| Asked::Serve(Box::new(settings))),
        Command::Doctor(asked) => Ok(Asked::Doctor(asked.settings.resolve(&origins).map(Box::new), asked.output)),
        Command::Reference(asked) => asked.write::<Cli>().map(|()| Asked::Nothing),
    }
}
