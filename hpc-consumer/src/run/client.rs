//! Programs of a batch system: asked something, and heard within a time. They are no jobs: nothing of them is limited
//! or wrapped, and they get nothing of our environment but what they need.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use slurm::{Ended, Output};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::children::Known;

/// The most that is read of what one writes: more than a line for each of as many jobs as a user ever has.
const STDOUT_BYTES_MAX: u64 = 64 << 20;
const STDERR_BYTES_MAX: u64 = 64 << 10;

/// Asks a program. One that takes too long is killed, with all that it has started; what it was asked may be done.
pub(crate) async fn ask_slurm(
    program: &Path,
    arguments: &[String],
    environment: &[(OsString, OsString)],
    input: &str,
    within: Duration,
) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().cloned());
    // A directory that is on every node: an allocation begins where it was asked for.
    command.current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let none = |ended| Output { ended, stdout: String::new(), stderr: String::new() };
    let mut child = match program::with_given_core_limit(|| command.spawn()) {
        Ok(child) => child,
        Err(error) => return none(Ended::NotStarted(error.to_string())),
    };
    let _known = Known::new(&child);
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match tokio::time::timeout(within, talk(&mut child, input)).await {
        Ok(Ok((status, stdout, stderr))) if stdout.len() as u64 <= STDOUT_BYTES_MAX => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Output { ended: ended(status), stdout: text(&stdout), stderr: text(&stderr) }
        }
        // It was begun, so what it was asked may be done.
        Ok(_) => none(Ended::Unheard),
        Err(_) => {
            if let Some(group) = group {
                // Fails only when all of it is gone.
                let _ = kill_process_group(group, Signal::KILL);
            }
            none(Ended::TimedOut)
        }
    }
}

async fn talk(child: &mut Child, input: &str) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who refuses at once does not read; what it says then is what counts.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), stdout, stderr, status) =
        tokio::join!(write, read(stdout, STDOUT_BYTES_MAX + 1), read(stderr, STDERR_BYTES_MAX), child.wait());
    Ok((status?, stdout?, stderr?))
}

/// Reads up to so many bytes. What comes after that is thrown away, so that whoever writes can go on.
async fn read(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(bytes_max).read_to_end(&mut content).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(content)
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Unheard,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(script: &str, input: &str, within: Duration) -> Output {
        let environment = [(OsString::from("PATH"), OsString::from("/usr/bin:/bin")), ("A".into(), "b".into())];
        let arguments = ["-c".to_owned(), script.to_owned()];
        ask_slurm(Path::new("/bin/sh"), &arguments, &environment, input, within).await
    }

    fn said(ended: Ended, stdout: &str, stderr: &str) -> Output {
        Output { ended, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_environment_and_nothing_of_ours() {
        let long = Duration::from_secs(60);
        let script = "cat; env | grep -v '^_=\\|^PWD=\\|^SHLVL=\\|^OLDPWD='; pwd; echo no >&2; exit 3";
        let heard = shell(script, "in\n", long).await;
        let Output { ended, stdout, stderr } = &heard;
        let mut lines: Vec<&str> = stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["/", "A=b", "PATH=/usr/bin:/bin", "in"]);
        assert_eq!((ended, stderr.as_str()), (&Ended::Exit(3), "no\n"));
        assert_eq!(shell("kill -9 $$", "", long).await, said(Ended::Signal(9), "", ""));
        // More than a pipe holds, to somebody who does not read it.
        assert_eq!(shell("exit 255", &"x".repeat(1 << 20), long).await, said(Ended::Exit(255), "", ""));
        let none = ask_slurm(Path::new("/nowhere/sbatch"), &[], &[], "", long).await;
        assert!(matches!(none.ended, Ended::NotStarted(_)), "{none:?}");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended_with_what_it_has_started() {
        let start = Instant::now();
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("child");
        let script = format!("sleep 1000 & echo $! > {}; echo 4711; wait", file.display());
        let output = shell(&script, "", Duration::from_millis(500)).await;
        // What it said before may have been half of it.
        assert_eq!(output, said(Ended::TimedOut, "", ""));
        assert!(start.elapsed() < Duration::from_secs(60));
        let child = std::fs::read_to_string(&file).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let bound = Instant::now() + Duration::from_secs(10);
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < bound, "{}", state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_says_too_much_is_not_taken_for_all() {
        let output = shell("head -c 65000000 /dev/zero; head -c 5000000 /dev/zero", "", Duration::from_secs(60)).await;
        assert_eq!(output, said(Ended::Unheard, "", ""));
    }
}
