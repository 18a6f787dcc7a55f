//! `laptop-consumer`: one data directory, and commands that run to their end.

use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Edge, PATIENCE, Process, Producer, command, parts};

/// A laptop: a data directory and the settings of an edge.
#[derive(Debug)]
pub struct Laptop {
    home: TempDir,
    env_file: std::path::PathBuf,
    producer: Producer,
}

/// What a command said.
#[derive(Debug)]
pub struct Spoken {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub log: String,
}

/// How a command ended, if it did, and what it said.
#[derive(Debug)]
pub struct Said {
    /// None of one that took too long.
    pub status: Option<ExitStatus>,
    /// Its standard error.
    pub log: String,
}

impl Laptop {
    /// A laptop without any results.
    pub fn new(edge: &Edge) -> Self {
        Self::with_producer(edge, edge.producer())
    }

    /// A laptop that submits elsewhere.
    pub fn with_producer(edge: &Edge, producer: Producer) -> Self {
        Self { home: tempfile::tempdir().expect("a directory can be made"), env_file: edge.env_file(), producer }
    }

    /// A place within its home directory; `data` holds the inbox.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Spoken {
        let mut process = self.start(arguments);
        let status = process.wait(PATIENCE);
        Spoken { status, output: process.output(), log: process.log() }
    }

    /// Runs a command that may take so long, and kills it then.
    pub fn run_within(&self, arguments: &[&str], bound: Duration) -> Said {
        let mut process = self.start(arguments);
        let status = process.wait_within(bound);
        process.kill();
        Said { status, log: process.log() }
    }

    /// Starts a command.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start("laptop-consumer", &mut self.command(arguments), self.home.path())
    }

    /// A command that is not started yet.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(&parts::program("laptop-consumer"), self.home.path());
        // The environment is above the settings file.
        command.env("PRODUCER_URL", &self.producer.url).env("HPC_QUEUE_API_KEY", &self.producer.api_key);
        command.env("RESULTS_POLL_INTERVAL_SECONDS", "0.2");
        command.arg("--env-file").arg(&self.env_file).arg("--data-dir").arg(self.home.path().join("data"));
        command.args(["--output", "json"]).args(arguments);
        command
    }

    /// Takes all results that are waiting: one JSON value a line, in the order of their arrival.
    pub fn take_results(&self) -> Vec<Value> {
        let spoken = self.run(&["tail", "--until-idle"]);
        assert!(spoken.status.success(), "{spoken:?}");
        spoken.results()
    }
}

impl Spoken {
    /// The lines of the standard output, each JSON.
    pub fn results(&self) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.output.lines().map(read).collect()
    }
}
