//! What a job has printed, passed on: each stream on the stream of the same name.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

use anyhow::Context as _;
use protocol::text::escaped_log;

use crate::printer::StdoutClosed;

/// What a job prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

impl Stream {
    /// The streams that were asked for: one, or both.
    pub fn asked(stream: Option<Self>) -> impl Iterator<Item = Self> {
        [Self::Stdout, Self::Stderr].into_iter().filter(move |one| stream.is_none_or(|asked| asked == *one))
    }

    /// Does a person see ours of this name?
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Passes on what a job has printed, as it is. Only a terminal gets no control characters.
    pub fn pass_on(self, bytes: &[u8]) -> anyhow::Result<()> {
        let text;
        let bytes = if self.is_terminal() {
            text = escaped_log(&String::from_utf8_lossy(bytes));
            text.as_bytes()
        } else {
            bytes
        };
        let write = |to: &mut dyn Write| to.write_all(bytes).and_then(|()| to.flush());
        let written = match self {
            Self::Stdout => write(&mut io::stdout().lock()),
            Self::Stderr => write(&mut io::stderr().lock()),
        };
        match written {
            // Who reads has seen enough, as in `logs JOB | head`.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            written => written.context("what the job has printed cannot be passed on"),
        }
    }
}
