//! One run: start the command, keep what it prints, end it when its time is over, and wait until all of it is gone.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::children::Known;
use super::log_file::LogFile;
use super::tree::{Signal, Tree};
use super::{CommandLine, Limits};

/// How long the pipes may stay open once no process of the run is left that we know of.
const PIPES_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for a killed process: one that hangs in the kernel, on a file system that is away, does not end.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Exit(i32),
    /// By a signal from elsewhere: the job itself, the kernel, a person.
    Signal(i32),
    /// It ran longer than it was allowed to, and was ended.
    TimeLimit,
    /// The daemon stops, and ended it.
    Stopped,
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    /// The end of what it wrote to stderr.
    pub(crate) stderr_tail: Vec<u8>,
}

/// Runs a command to its end. `stop` turns true when the daemon stops and the run is to be ended at once.
///
/// An error means that the command could not be started at all.
pub(crate) async fn run(
    command: &CommandLine,
    marks: &[(&str, &str)],
    logs: &Path,
    limits: &Limits,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Finished> {
    let mut child = start(command)?;
    let known = Known::new(&child);
    let tree = Tree::of(&child, marks);
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let keep_stdout = tokio::spawn(LogFile::new(logs.join("stdout.log"), limits.log_bytes).keep(stdout));
    let keep_stderr = tokio::spawn(LogFile::new(logs.join("stderr.log"), limits.log_bytes).keep(stderr));
    let (abort_stdout, abort_stderr) = (keep_stdout.abort_handle(), keep_stderr.abort_handle());

    let ended = tokio::select! {
        status = child.wait() => ended(status?),
        () = tokio::time::sleep(limits.time) => {
            end(&mut child, &tree, limits.grace).await;
            Ended::TimeLimit
        }
        () = stopped(stop) => {
            end(&mut child, &tree, Duration::ZERO).await;
            Ended::Stopped
        }
    };
    drop(known);
    // The job is over when its first process is; what that left behind goes with it.
    tree.kill_until_gone().await;
    let pipes = async { (keep_stdout.await, keep_stderr.await) };
    let stderr_tail = match tokio::time::timeout(PIPES_PATIENCE, pipes).await {
        Ok((_, Ok(tail))) => tail,
        _ => {
            abort_stdout.abort();
            abort_stderr.abort();
            Vec::new()
        }
    };
    Ok(Finished { ended, stderr_tail })
}

/// Resolves when the daemon stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which happens only when the daemon is.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn start(command: &CommandLine) -> io::Result<Child> {
    Command::new(&command.words[0])
        .args(&command.words[1..])
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An own process group: a Ctrl-C at the daemon's terminal drains the daemon and leaves its jobs alone.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Asks the whole tree to end, and waits for the first process; after the grace it is killed.
async fn end(child: &mut Child, tree: &Tree, grace: Duration) {
    if !grace.is_zero() {
        tree.signal(Signal::TERM);
        if tokio::time::timeout(grace, child.wait()).await.is_ok() {
            return;
        }
    }
    tree.signal(Signal::KILL);
    // An error says only that the process is gone already.
    if tokio::time::timeout(KILL_PATIENCE, child.kill()).await.is_err() {
        tracing::warn!("process {} of a run does not end although it was killed", child.id().unwrap_or_default());
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}
