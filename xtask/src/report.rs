//! What the reader sees on the terminal: numbered steps, the command behind each, and what came of it.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::path::Path;

use crate::recording::{Look, Recording};

/// Numbered steps on stdout.
pub(crate) struct Report {
    step: u32,
    styled: bool,
    recording: Option<RefCell<Recording>>,
}

impl Report {
    /// A report; it is styled when a person watches and has not asked for plain text (`NO_COLOR`).
    pub(crate) fn new() -> Self {
        let styled =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { step: 0, styled, recording: None }
    }

    /// Keeps what is shown from here on, without paths of this machine above `root`.
    pub(crate) fn record(&mut self, root: &Path) {
        let home = std::env::home_dir();
        self.recording = Some(RefCell::new(Recording::of(root, home.as_deref())));
        self.step = 0;
    }

    /// What was kept.
    pub(crate) fn recorded(self) -> Option<Recording> {
        self.recording.map(RefCell::into_inner)
    }

    /// The next step.
    pub(crate) fn step(&mut self, text: impl Display) {
        self.step += 1;
        self.line(Look::Plain, "");
        self.line(Look::Step, &format!("{}. {text}", self.step));
    }

    /// A command that the reader can copy.
    pub(crate) fn command(&self, line: impl Display) {
        self.indented(Look::Command, &format!("$ {line}"));
    }

    /// What came of it.
    pub(crate) fn note(&self, text: impl Display) {
        for line in text.to_string().lines() {
            self.indented(Look::Plain, line);
        }
    }

    /// The closing line.
    pub(crate) fn close(&self, good: bool, text: impl Display) {
        self.line(Look::Plain, "");
        for line in text.to_string().lines() {
            self.line(if good { Look::Good } else { Look::Bad }, line);
        }
    }

    fn indented(&self, look: Look, text: &str) {
        self.line(look, &if text.is_empty() { String::new() } else { format!("   {text}") });
    }

    fn line(&self, look: Look, text: &str) {
        if self.styled && look != Look::Plain {
            println!("\u{1b}[{}m{text}\u{1b}[0m", look.code());
        } else {
            println!("{text}");
        }
        if let Some(recording) = &self.recording {
            recording.borrow_mut().line(look, text);
        }
    }
}
