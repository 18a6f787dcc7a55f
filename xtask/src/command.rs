//! Running other programs to their end, and saying which one failed. Programs that go on running: `processes`.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// Runs a command whose output the reader sees.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}); what it said stands above", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed. When it fails, the error holds the end of its stderr.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {}", line(command), output.status, complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command without showing anything, and returns all that it left.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))
}

/// The last lines of what a failed program said, on one line.
pub(crate) fn complaint(output: &Output) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}

/// The command as a line for a shell.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![quoted(command.get_program())];
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

/// One word as a shell reads it.
pub(crate) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    shell_words::quote(&word).into_owned()
}

/// The program of that name on the `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// Is it a file that can be executed?
pub(crate) fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("curl");
        command.args(["-d", r#"{"task":"it's"}"#, "http://127.0.0.1:1/jobs", ""]);
        assert_eq!(line(&command), r#"curl -d '{"task":"it'\''s"}' http://127.0.0.1:1/jobs ''"#);
    }

    #[test]
    fn failures_name_the_command_and_its_last_words() {
        let error =
            capture(Command::new("sh").args(["-c", "echo first; echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("why"), "{error}");
        let error = capture(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert!(error.contains("cannot start `/nonexistent/program`"), "{error}");
    }
}
