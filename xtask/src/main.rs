//! `cargo xtask …`: what a person or the CI runs in this repository.
//!
//! In scope: getting the tools, building the page, the Worker and the runtime image, the demo, the tests with real
//! parts, the chaos, the measures, and what is released. Out of scope: anything that a user of the programs needs;
//! nothing in here is deployed.
//!
//! Invariants: the system is left as it was (tools go into the user's cache, everything else into `target/`), every
//! process that is started is stopped, and whatever cannot be had is named together with the way to get it.

mod bench;
mod book;
mod chaos;
mod cluster;
mod command;
mod compat;
mod demo;
mod deps;
mod earlier;
mod env_file;
mod fuzz;
mod http;
mod image;
mod keeper;
mod local;
mod page;
mod processes;
mod recording;
mod release;
mod report;
mod test;
mod tools;
mod up;
mod worker;
mod workerd;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::tools::{Kind, Tools};
use crate::workspace::Workspace;

/// Everything that is done in this repository, by one command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get the tools that the other commands need, into the user's cache, say where they are, and build the page
    Setup,
    /// Watch three jobs go from HTTP through the queue into a container, and their results come back
    Demo {
        /// Put the compiled Worker, in the real Workers runtime, in front
        #[arg(long, conflicts_with = "slurm")]
        worker: bool,
        /// Keep what is shown after the build in FOLDER, as demo.cast and demo.svg
        #[arg(long, value_name = "FOLDER", conflicts_with = "slurm")]
        record: Option<std::path::PathBuf>,
        /// Instead, watch a pool in a real Slurm grow from nothing, and go back
        #[arg(long)]
        slurm: bool,
    },
    /// Start an edge, queues and a daemon on this machine, and a shell in which all programs work; it ends all of them
    Up {
        /// What to run in place of the shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    /// Run all tests, with the real Worker, the real Apptainer and the official clients
    Test {
        /// Passed on to `cargo nextest run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run jobs while the programs are killed over and over; count what was lost and what ran twice
    Chaos(chaos::Options),
    /// Run the programs of an earlier commit against today's: keepers, states, laptops and edges of different ages
    Compat {
        /// The earlier commit, as git names it
        commit: String,
    },
    /// Check what the dependencies are: licenses, sources, bans, and that each is used
    Deps {
        /// Instead, ask the RustSec database, which is downloaded, for known vulnerabilities
        #[arg(long)]
        advisories: bool,
    },
    /// Give what parses bytes from outside whatever bytes find new ways through it
    Fuzz(fuzz::Options),
    /// Make what is released: archives with static programs, the built Worker, the installer, their sums
    Release(release::Options),
    /// Build the Worker and print its size
    Worker,
    /// Make a book of the documents, to read in a browser, with all settings and the help of each program
    Book,
    /// Measure, print a table, and keep it in docs/benchmarks.md
    Bench {
        /// Which parts; all of them when none is named
        parts: Vec<bench::Part>,
        /// How large the file of the part `files` is
        #[arg(long, value_name = "GIGABYTES", default_value_t = 1)]
        size: u64,
        /// How many jobs the part `slurm` runs through a worker
        #[arg(long, value_name = "COUNT", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
        jobs: u32,
        /// Instead, measure the throughput and the latency in pairs with the programs of an earlier commit
        #[arg(long, value_name = "COMMIT", conflicts_with = "parts")]
        against: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\ncargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Setup => {
            let tools = Tools::set_up(&workspace, &Kind::ALL)?;
            tools.print();
            // Told of among what is missing.
            let _ = page::build_with(&workspace, &tools)?;
            Ok(if tools.missing().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Demo { slurm: true, .. } => demo::slurm::run(&workspace),
        Command::Demo { worker, record, slurm: false } => demo::run(&workspace, worker, record.as_deref()),
        Command::Up { command } => up::run(&workspace, &command),
        Command::Test { arguments } => test::run(&workspace, &arguments),
        Command::Chaos(options) => chaos::run(&workspace, &options),
        Command::Compat { commit } => compat::run(&workspace, &commit),
        Command::Deps { advisories } => deps::run(&workspace, advisories).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(options) => fuzz::run(&workspace, &options).map(|()| ExitCode::SUCCESS),
        Command::Release(options) => release::run(&workspace, &options),
        Command::Worker => {
            let tools = Tools::set_up(&workspace, &Kind::WORKER)?;
            let built = worker::build(&workspace, &tools)?;
            println!("{}", built.size_within_limit()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Book => book::run(&workspace).map(|()| ExitCode::SUCCESS),
        Command::Bench { against: Some(commit), .. } => bench::against(&workspace, &commit),
        Command::Bench { parts, against: None, size, jobs } => {
            bench::run(&workspace, &parts, &bench::Sizes { gigabytes: size, jobs: jobs as usize })
        }
    }
}
