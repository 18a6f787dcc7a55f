//! Programs that go on running: started with a log file, waited for with a bound, and always stopped again.
//!
//! The tests have such a thing as well. It is not used here, because it speaks HTTP from both ends: each command of
//! this program would wait for 91 more crates, TLS among them, where its own are 61.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::env_file::EnvFile;
use crate::workspace::{Profile, Workspace};

/// How long a program may take to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// Settings of our programs that have no prefix in common.
const SETTINGS: [&str; 32] = [
    "ALLOW_PLAIN_HTTP",
    "ALLOW_ROOT",
    "API_KEY",
    "APPTAINER_ARGS",
    "APPTAINER_BIN",
    "APPTAINER_BIND",
    "APPTAINER_IMAGE",
    "APPTAINER_OCI_REF",
    "APPTAINER_UNPACK_DIR",
    "BARE_CONFINEMENT",
    "BARE_WRITABLE",
    "BATCH_SIZE",
    "CLAIM_STALE_SECONDS",
    "CONTAINER_CMD",
    "DRAIN_TIMEOUT_SECONDS",
    "JOB_KILL_GRACE_SECONDS",
    "JOB_MEMORY_LIMIT",
    "JOB_NETWORK",
    "JOB_SECCOMP",
    "JOB_TIME_LIMIT_SECONDS",
    "LAPTOP_DATA_DIR",
    "MAX_PARALLEL_JOBS",
    "OUTPUT_LOG_BYTES_MAX",
    "PRODUCER_URL",
    "REQUIRE",
    "RETRY_DELAY_SECONDS",
    "RUNTIME",
    "SESSION_KEYRING",
    "SITE_FILE",
    "STATE_DIR",
    "TRUSTED_GROUP",
    "VISIBILITY_TIMEOUT_MS",
];

/// A running program. Dropping it stops it.
///
/// It stays in our process group, so Ctrl-C in the terminal reaches it as well.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program that writes what it has to say into `folder/<name>.log`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let copy = file.try_clone().with_context(|| format!("cannot open {} twice", log.display()))?;
        clear_settings(command);
        // In a container or in CI there may be nobody else, and what runs here is ours.
        command.env("ALLOW_ROOT", "1");
        let child = command
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", Path::new(command.get_program()).display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended by itself?
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait().with_context(|| format!("cannot ask for the state of {}", self.name))?.is_some())
    }

    /// All that the program has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `ready` returns a value; an error when the program ends first, or takes longer than `bound`.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        bound: Duration,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + bound;
        loop {
            if let Some(value) = ready(self) {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}. Its last lines:\n{}", self.name, self.last_lines());
            }
            if Instant::now() > end {
                bail!("{} took longer than {bound:?} until {what}. Its last lines:\n{}", self.name, self.last_lines());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of a program that ends by itself.
    pub(crate) fn wait(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        match self.ended_within(bound)? {
            Some(status) => Ok(status),
            None => bail!("{} did not end within {bound:?}. Its last lines:\n{}", self.name, self.last_lines()),
        }
    }

    /// Asks the program to end (SIGTERM), and kills it when it does not. `true` when it went by itself.
    pub(crate) fn stop(&mut self) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        let asked = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if asked && matches!(self.ended_within(GRACE), Ok(Some(_))) {
            return true;
        }
        // Both can only fail because the program is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }

    fn ended_within(&mut self, bound: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let end = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes the settings of our programs out of the environment that a command inherits, unless the command itself sets
/// them: the environment goes before the `.env` file, and the reader's own account must not get into the demo.
pub(crate) fn clear_settings(command: &mut Command) {
    let ours = |name: &str| {
        let prefixes = ["CF_", "LOCAL_EDGE_", "POLL_INTERVAL_", "RESULTS_"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || SETTINGS.contains(&name)
    };
    let set: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) && !set.contains(&name) {
            command.env_remove(name);
        }
    }
}

/// `local-edge`, up and listening, and the settings that it wrote for the others.
pub(crate) struct LocalEdge {
    /// The running program.
    pub(crate) process: Process,
    /// The file for `--env-file`.
    pub(crate) env_file: PathBuf,
    /// What stands in it.
    pub(crate) settings: EnvFile,
}

impl LocalEdge {
    /// Where its data is.
    pub(crate) fn data_dir(folder: &Path) -> PathBuf {
        folder.join("edge")
    }

    /// The command that [`LocalEdge::start`] runs.
    pub(crate) fn command(workspace: &Workspace, profile: Profile, folder: &Path) -> Command {
        let mut command = Command::new(workspace.program(profile, "local-edge"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(Self::data_dir(folder))
            .arg("--env-file")
            .arg(folder.join("edge.env"));
        command
    }

    /// Starts it on a free port, with its data in `folder`.
    pub(crate) fn start(workspace: &Workspace, profile: Profile, folder: &Path) -> anyhow::Result<Self> {
        let env_file = folder.join("edge.env");
        let mut command = Self::command(workspace, profile, folder);
        let mut process = Process::start("local-edge", &mut command, folder)?;
        // The file appears whole, and only once the server listens.
        process.wait_for("it wrote its env file", Duration::from_secs(20), |_| env_file.exists().then_some(()))?;
        let settings = EnvFile::read(&env_file)?;
        Ok(Self { process, env_file, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_ends_too_early_is_named_with_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start("early", &mut shell("echo no port is free; exit 7"), folder.path()).unwrap();
        let error = process.wait_for("it listens", Duration::from_secs(20), |_| None::<()>).unwrap_err().to_string();
        assert!(error.contains("early ended") && error.contains("7") && error.contains("no port is free"), "{error}");
    }

    #[test]
    fn a_running_program_is_stopped_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start("long", &mut shell("echo up; exec sleep 600"), folder.path()).unwrap();
        process
            .wait_for("it is up", Duration::from_secs(20), |process| process.log().contains("up").then_some(()))
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_ok());
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
