//! What the reader sees on the terminal: numbered steps, the command behind each, and what came of it.

use std::fmt::Display;
use std::io::IsTerminal as _;

/// Numbered steps on stdout.
pub(crate) struct Report {
    step: u32,
    styled: bool,
}

impl Report {
    /// A report; it is styled when a person watches and has not asked for plain text (`NO_COLOR`).
    pub(crate) fn new() -> Self {
        let styled =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { step: 0, styled }
    }

    /// The next step.
    pub(crate) fn step(&mut self, text: impl Display) {
        self.step += 1;
        println!("\n{}", self.style("1", &format!("{}. {text}", self.step)));
    }

    /// A command that the reader can copy.
    pub(crate) fn command(&self, line: impl Display) {
        println!("   {}", self.style("36", &format!("$ {line}")));
    }

    /// What came of it.
    pub(crate) fn note(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("{}", if line.is_empty() { String::new() } else { format!("   {line}") });
        }
    }

    /// The closing line.
    pub(crate) fn close(&self, good: bool, text: impl Display) {
        println!("\n{}", self.style(if good { "1;32" } else { "1;31" }, &text.to_string()));
    }

    fn style(&self, code: &str, text: &str) -> String {
        if self.styled { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
