//! What `--output` of every program takes, and plain text on standard output.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// The form of what a command prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Lines for people
    #[value(alias = "human")]
    Text,
    /// JSON for programs
    Json,
}

/// Prints what was asked for to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
