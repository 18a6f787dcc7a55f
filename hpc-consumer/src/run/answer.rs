//! Asking another program something: what it prints is the answer.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::children::Known;

/// More of what it says against it is of no use.
const COMPLAINT_MAX: usize = 300;

/// What the program prints that these words start, with nothing in its environment but this. An error if it fails, or
/// takes longer.
pub(crate) async fn answer(
    words: &[&OsStr],
    environment: Vec<(OsString, OsString)>,
    within: Duration,
) -> io::Result<String> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("the command has no words"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment).kill_on_drop(true);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let _known = Known::new(&child);
    let said = tokio::time::timeout(within, child.wait_with_output()).await.map_err(io::Error::from)??;
    if !said.status.success() {
        let complaint = String::from_utf8_lossy(&said.stderr);
        let complaint: String = complaint.trim().chars().take(COMPLAINT_MAX).collect();
        let program = program.to_string_lossy();
        return Err(io::Error::other(format!("{program} failed ({}): {complaint}", said.status)));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(script: &str, within: Duration) -> io::Result<String> {
        let words = ["/bin/sh", "-c", script].map(OsStr::new);
        answer(&words, vec![("A".into(), "1".into())], within).await
    }

    #[tokio::test]
    async fn what_a_program_prints_is_its_answer_if_it_ends_well_and_in_time() {
        let long = Duration::from_secs(60);
        assert_eq!(asked("echo $A$HOME", long).await.unwrap(), "1\n");
        let error = asked("echo no; echo why >&2; exit 3", long).await.unwrap_err().to_string();
        assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
        assert_eq!(
            asked("exec sleep 600", Duration::from_millis(50)).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert!(answer(&["/nonexistent".as_ref()], Vec::new(), long).await.is_err());
        assert!(answer(&[], Vec::new(), long).await.is_err());
    }
}
