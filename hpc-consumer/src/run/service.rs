//! Starting this very program a second time, or another one of ours, as a process that outlives us.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::children::Known;

/// This program, even when its file was replaced or removed while it ran.
const SELF: &str = "/proc/self/exe";

/// How this program was started, before it read any settings.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    pub(crate) fn new(arguments: Vec<OsString>, environment: Vec<(OsString, OsString)>) -> Self {
        Self { arguments, environment }
    }

    /// Would a new start take its settings? What is wrong with them is said on stderr.
    pub(crate) async fn is_still_valid(&self) -> io::Result<bool> {
        let mut command = Command::new(newest());
        command.args(&self.arguments).arg("--check").env_clear().envs(self.environment.iter().cloned());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        let _known = Known::new(&child);
        Ok(child.wait().await?.success())
    }

    /// Starts anew in place of this process. Returns only if that fails.
    pub(crate) fn start_anew(&self) -> io::Error {
        let mut command = std::process::Command::new(newest());
        command.args(&self.arguments).env_clear().envs(self.environment.iter().cloned());
        program::with_given_core_limit(|| command.exec())
    }
}

/// What stands now where this program was started from: after an upgrade that is another one.
fn newest() -> PathBuf {
    let replaced = std::env::current_exe().ok().and_then(|path| {
        // This is how the kernel names a file that has gone.
        path.to_str()?.strip_suffix(" (deleted)").map(PathBuf::from).filter(|path| path.exists())
    });
    replaced.unwrap_or_else(program)
}

fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(SELF))
}

/// A process that outlives us.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    _known: Known,
}

impl Service {
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(crate) async fn wait(mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// Starts this program with other arguments and nothing of our environment: it holds our secrets. The process stays
/// when the returned handle is dropped.
pub(crate) fn start_service(arguments: &[OsString], directory: &Path, log: File) -> io::Result<Service> {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = program::with_given_core_limit(|| command.spawn())?;
    Ok(Service { _known: Known::new(&child), child })
}

/// Starts another program of ours with this environment alone, in a group of its own: a signal to ours leaves it alone.
/// The process stays when the returned handle is dropped.
pub(crate) fn start_program(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    directory: &Path,
    log: File,
) -> io::Result<Service> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().cloned()).current_dir(directory).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = program::with_given_core_limit(|| command.spawn())?;
    Ok(Service { _known: Known::new(&child), child })
}
