//! Asking the programs of service managers (systemd, launchd, cron, Slurm), and starting ours where none of them does.
//!
//! Out of scope: what they are asked for, and what follows from their answers (`managers`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Variables, and nothing besides.
pub(crate) type Environment = [(OsString, OsString)];

/// What a program has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its exit code, unless a signal has ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a program of the `PATH` in this environment to its end, with this as its input, and takes what it prints.
/// Without a limit, the program itself must have one.
pub(crate) async fn ask(
    words: &[&str],
    environment: &Environment,
    input: Option<&str>,
    limit: Option<Duration>,
) -> io::Result<Answer> {
    let mut command = command(words, environment)?;
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let told = async move {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // Who does not listen says why by its end.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let end = async { tokio::join!(told, child.wait_with_output()).1 };
    let output = match limit {
        Some(limit) => tokio::time::timeout(limit, end).await.map_err(|_| late(limit))??,
        None => end.await?,
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
}

/// Runs a program that speaks to the person itself; returns its exit code.
pub(crate) async fn show(words: &[&str], environment: &Environment) -> io::Result<Option<i32>> {
    let status = command(words, environment)?.stdin(Stdio::null()).spawn()?.wait().await?;
    Ok(status.code())
}

/// A process that was started apart from us, and what waits for its end as long as we are there.
#[derive(Debug)]
pub(crate) struct Apart(tokio::process::Child);

impl Apart {
    pub(crate) fn id(&self) -> u32 {
        self.0.id().unwrap_or_default()
    }

    pub(crate) async fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        self.0.wait().await
    }
}

/// Where the standard output of a program goes that is started apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Into its log.
    Logged,
    /// Nowhere.
    Dropped,
}

/// Starts a program in a group of processes of its own: no signal of our terminal reaches it. It stays when we end.
pub(crate) fn start_apart(
    program: &str,
    arguments: &[String],
    environment: &Environment,
    directory: &Path,
    output: Output,
    log: File,
) -> io::Result<Apart> {
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().cloned()).current_dir(directory);
    let stdout = match output {
        Output::Logged => log.try_clone()?.into(),
        Output::Dropped => Stdio::null(),
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0);
    let mut command = Command::from(command);
    program::with_given_core_limit(|| command.spawn()).map(Apart)
}

/// A program that is no whole path is looked for in the `PATH` of its environment: in absolute entries alone.
fn command(words: &[&str], environment: &Environment) -> io::Result<Command> {
    let (program, arguments) = words.split_first().expect("there is a program");
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    let found = match Path::new(program) {
        whole if whole.is_absolute() => Some(whole.to_owned()),
        name => path.and_then(|path| program::on_path(path, name)),
    };
    let program =
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {program} here")))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().cloned()).kill_on_drop(true);
    Ok(command)
}

/// When a process that has not ended was started, in clock ticks since the machine was, by the 22nd word of its line in
/// `/proc` (`proc_pid_stat(5)`).
pub(crate) fn started_at(pid: i32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second word is its name, in parentheses, and may hold any character.
    let (_, rest) = line.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let is_zombie = matches!(words.next()?, "Z" | "X");
    words.nth(18)?.parse().ok().filter(|_| !is_zombie)
}

fn late(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it has not answered for {} s", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), "/usr/bin:/bin".into())]
    }

    #[tokio::test]
    async fn a_program_is_asked_and_told() {
        let input = "x\n".repeat(100_000);
        let answer = ask(&["sh", "-c", "cat; echo no >&2; exit 3"], &environment(), Some(&input), None).await.unwrap();
        assert_eq!((answer.code, answer.stdout.len(), answer.stderr.as_str()), (Some(3), input.len(), "no\n"));
        let answer = ask(&["sh", "-c", "env | grep -v PWD | cut -d= -f1"], &environment(), None, None).await.unwrap();
        assert!(answer.is_ok() && !answer.stdout.contains("HOME"), "{answer:?}");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        let limit = Some(Duration::from_millis(50));
        let error = ask(&["sleep", "60"], &environment(), None, limit).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = ask(&["no-such-program"], &environment(), None, limit).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no no-such-program here");
    }

    #[test]
    fn a_process_is_known_by_when_it_started_and_none_that_has_ended() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started_at(own).is_some_and(|ticks| ticks > 0));
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(started_at(pid) >= started_at(own));
        child.kill().unwrap();
        // Not waited for: it stays as a zombie.
        let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
        while !gone() {
            std::thread::yield_now();
        }
        assert_eq!(started_at(pid), None);
        child.wait().unwrap();
        assert_eq!(started_at(pid), None);
    }
}
