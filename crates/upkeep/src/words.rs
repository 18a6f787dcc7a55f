//! What is asked of a service, and in which words a program is spoken of.

use std::path::PathBuf;

use program::OutputFormat;
use service::Way;
use service::unit::Sort;

/// A program that can be a service, and how it is spoken of.
#[derive(Debug)]
pub struct Words {
    /// Its name, as in `hpc-consumer`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What runs, within a sentence: `the daemon`.
    pub what: &'static str,
    /// What it does, on one line of a unit.
    pub description: &'static str,
    /// The arguments that it runs with; with `--check` behind all of them it tells whether it would start.
    pub command: &'static [&'static str],
    /// What sort of program it is.
    pub sort: Sort,
    /// Who may keep it running.
    pub ways: &'static [Way],
    /// When systemd starts it: `with the machine`.
    pub when: &'static str,
    /// What it does when it is told to end: `drains`.
    pub ends: &'static str,
    /// What goes on while it is stopped.
    pub stopped: &'static str,
    /// What goes on while it is started anew.
    pub meanwhile: &'static str,
    /// What stays when the service is taken away.
    pub stays: &'static str,
    /// What lingering has to do with it, where that is off.
    pub lingering: &'static str,
    /// Is its folder for one machine of those that share a home directory?
    pub per_host: bool,
    /// The name of that folder, without the machine.
    pub folder: &'static str,
    /// The name of its log, without its ending.
    pub log: &'static str,
    /// What it has of the environment besides, where it is installed: it tells where programs and directories are, and
    /// how to get out. Settings are not among them: they stand in a file.
    pub carried: &'static [&'static str],
}

/// What is to be done.
#[derive(Debug)]
pub enum Asked {
    /// Install it.
    Install(Install),
    /// Take it away, or print what would be done.
    Uninstall {
        /// Do nothing.
        dry_run: bool,
    },
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
    /// Print how it is.
    Status(OutputFormat),
    /// Print its log.
    Logs {
        /// And go on with it.
        follow: bool,
        /// So many of the last lines.
        lines: u64,
    },
    /// What a line of cron does, with the folder that it names.
    Watch(PathBuf),
}

/// How it is to be installed.
#[derive(Debug)]
pub struct Install {
    /// By whom it is kept running, if that was said.
    pub way: Option<Way>,
    /// Replace also what we have not made.
    pub force: bool,
    /// Do nothing, and print what would be done.
    pub dry_run: bool,
    /// Options of the job that `scrontab` starts.
    pub scron: Vec<String>,
    /// The arguments that name the file of settings.
    pub file: Vec<String>,
    /// More arguments.
    pub run: Vec<String>,
}

impl Words {
    /// A command about the service, as a person types it.
    pub(crate) fn command(&self, word: &str) -> String {
        format!("`{} service {word}`", self.name)
    }

    /// The name of the unit of systemd.
    pub(crate) fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    /// The name of the agent of launchd.
    pub(crate) fn label(&self) -> String {
        format!("hpc-queue.{}", self.name)
    }
}
