//! The commands that have to do with this program on this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::{EdgeArgs, QueueArgs};

/// The arguments of `doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Make at Cloudflare what is missing, once it was shown and agreed to
    #[arg(long)]
    pub(crate) fix: bool,
    /// Do not ask, with --fix
    #[arg(long, requires = "fix")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For this shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: CompletedShell,
}

/// A shell for which there are completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletedShell {
    /// Bash, from 4.4 on
    Bash,
    /// Fish
    Fish,
    /// Zsh
    Zsh,
}

impl From<CompletedShell> for program::Shell {
    fn from(shell: CompletedShell) -> Self {
        match shell {
            CompletedShell::Bash => Self::Bash,
            CompletedShell::Fish => Self::Fish,
            CompletedShell::Zsh => Self::Zsh,
        }
    }
}

/// The arguments of `setup`.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Write the settings into FILE, which only you can read then
    #[arg(long, value_name = "FILE", default_value = ".env")]
    pub(crate) file: PathBuf,
    /// Change the file without asking
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}
