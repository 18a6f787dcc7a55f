//! Asking the person at the terminal before something is changed.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use protocol::text::escaped_lines;

/// Is there somebody who reads the question and can answer it?
pub fn can_be_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; what is no plain yes is a no.
pub fn confirmed(question: &str) -> io::Result<bool> {
    let mut stderr = io::stderr();
    write!(stderr, "{} [y/N] ", escaped_lines(question))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
