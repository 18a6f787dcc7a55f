//! One run: start the command, keep what it prints, end it when its time is over, and wait until all of it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use protocol::{RuntimeKind, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::children::Known;
use super::log_file::LogFile;
use super::tree::{FirstProcess, Signal, Tree};
use super::{CommandLine, Limits};

/// The logs of a run, in its directory. Neither may be there before it begins.
pub(crate) const STDOUT_LOG: &str = "stdout.log";
pub(crate) const STDERR_LOG: &str = "stderr.log";

/// How long the pipes may stay open once no process of the run is left that we know of.
const PIPES_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for a killed process: one that hangs in the kernel, on a file system that is away, does not end.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// How many files and pipes the process needs by itself, and how many for each run.
const DESCRIPTORS_OWN: u64 = 64;
const DESCRIPTORS_PER_RUN: u64 = 7;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Exit(i32),
    /// By a signal from elsewhere: the job itself, the kernel, a person.
    Signal(i32),
    /// It ran longer than it was allowed to, and was ended.
    TimeLimit,
    /// Its keeper was told to end it, or to end, and ended it.
    Stopped,
    /// The command could not be started at all; the text says why.
    NotStarted(String),
    /// It was started, and nobody saw how it ended; the text says what is known.
    CutOff(String),
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    /// The end of what it wrote to stderr.
    pub(crate) stderr_tail: String,
    /// In milliseconds since the Unix epoch, as the next.
    pub(crate) started_at_ms: i64,
    pub(crate) finished_at_ms: i64,
    /// What it ran in, where a process was started. The settings may be others by the time that the result is made.
    pub(crate) runtime: Option<RuntimeKind>,
}

impl Finished {
    /// A run of which no process was started.
    pub(crate) fn not_started(why: String) -> Self {
        Self::without_process(Ended::NotStarted(why))
    }

    /// A run that was not to begin any more.
    pub(crate) fn stopped_before() -> Self {
        Self::without_process(Ended::Stopped)
    }

    fn without_process(ended: Ended) -> Self {
        let now = now_ms();
        Self { ended, stderr_tail: String::new(), started_at_ms: now, finished_at_ms: now, runtime: None }
    }
}

/// Makes sure that so many runs at the same time do not pass the number of files that a process may have open.
///
/// What the process may have by default stays as it is for as long as it is enough: runs inherit it.
pub(crate) fn make_room(runs: usize) {
    let needed = (DESCRIPTORS_OWN + DESCRIPTORS_PER_RUN * runs as u64).next_power_of_two();
    let limit = getrlimit(Resource::Nofile);
    let needed = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if limit.current.is_some_and(|current| current < needed) {
        // A failure is met, and told, by the run that cannot be started for it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum });
    }
}

/// Tells a run to end, within this time. It may be told again, with less time.
pub(crate) type Stop = watch::Receiver<Option<Duration>>;

/// Runs a command to its end, with its logs in the directory `logs`. `begun` is called once it is started.
pub(crate) async fn run(
    command: CommandLine,
    marks: &[(String, String)],
    logs: OwnedFd,
    limits: &Limits,
    begun: impl FnOnce(FirstProcess),
    mut stop: Stop,
) -> Finished {
    let mut child = match start(&command) {
        Ok(child) => child,
        Err(error) => return Finished::not_started(why_not_started(&command, &error)),
    };
    let known = Known::new(&child);
    let started_at_ms = now_ms();
    // A thousand of them would be held for as long as the runs take.
    drop(command);
    let tree = Tree::of(&child, marks);
    begun(tree.first());
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let logs = Arc::new(logs);
    let keep_stdout = tokio::spawn(LogFile::new(logs.clone(), STDOUT_LOG, limits.log_bytes).keep(stdout));
    let keep_stderr = tokio::spawn(LogFile::new(logs, STDERR_LOG, limits.log_bytes).keep(stderr));
    let (abort_stdout, abort_stderr) = (keep_stdout.abort_handle(), keep_stderr.abort_handle());

    let ended = tokio::select! {
        status = child.wait() => match status {
            Ok(status) => ended(status),
            Err(error) => {
                end(&mut child, &tree, Duration::ZERO, &mut stop).await;
                // It was begun: to say that it was not would have it begun a second time.
                Ended::CutOff(format!("the end of its process cannot be seen: {error}"))
            }
        },
        () = tokio::time::sleep(limits.time) => {
            end(&mut child, &tree, limits.grace, &mut stop).await;
            Ended::TimeLimit
        }
        grace = told(&mut stop, Duration::MAX) => {
            end(&mut child, &tree, grace, &mut stop).await;
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
    let stderr_tail = String::from_utf8_lossy(&stderr_tail).into_owned();
    // The clock may have been set back meanwhile.
    let finished_at_ms = now_ms().max(started_at_ms);
    Finished { ended, stderr_tail, started_at_ms, finished_at_ms, runtime: None }
}

fn start(command: &CommandLine) -> io::Result<Child> {
    let Some((program, arguments)) = command.words.split_first() else {
        return Err(io::Error::other("the command has no words"));
    };
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An own process group: a signal to the keeper's group leaves its runs alone.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn why_not_started(command: &CommandLine, error: &io::Error) -> String {
    // The same error comes for both.
    if !command.directory.is_dir() {
        return format!("the job directory {} is not there: {error}", command.directory.display());
    }
    let program = command.words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    format!("the program {program} of the runtime cannot be started: {error}")
}

/// Resolves when the run is told to end within at most this time, to the time that it has.
async fn told(stop: &mut Stop, at_most: Duration) -> Duration {
    let told = stop.wait_for(|grace| grace.is_some_and(|grace| grace <= at_most)).await.ok().and_then(|grace| *grace);
    match told {
        Some(grace) => grace,
        // Nobody can tell it any more.
        None => std::future::pending().await,
    }
}

/// Asks the whole tree to end, and waits for the first process; after the grace it is killed, or when it is told that
/// it has no time any more.
async fn end(child: &mut Child, tree: &Tree, grace: Duration, stop: &mut Stop) {
    if !grace.is_zero() {
        tree.signal(Signal::TERM);
        tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(grace) => {}
            _ = told(stop, Duration::ZERO) => {}
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

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
