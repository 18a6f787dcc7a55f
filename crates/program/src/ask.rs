//! Asking the person at the terminal before something is changed.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use protocol::text::escaped_lines;

use crate::exit::{Exit, Failure};

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

/// Is this meant? `would` says what would be done, as `cancel 12 jobs`. Where nobody can be asked, it takes --yes.
pub fn is_meant(would: &str) -> anyhow::Result<bool> {
    if !can_be_asked() {
        let message = format!("this would {would}; nobody can be asked here, so say --yes if that is meant");
        return Err(Failure::with(Exit::Usage, message));
    }
    Ok(confirmed(&format!("{would}?"))?)
}
