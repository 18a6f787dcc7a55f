//! `hpc-consumer`: how to start one, what it leaves on disk, and the end of its keeper.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Edge, PATIENCE, Process, Spoken, command, is_alive, parts, signal, words_of};

/// How long a keeper may take to end its runs and itself; well above the grace of a job.
const KEEPER_PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs the `input` of its job, a string without `"` and `\`, as a shell script.
///
/// So each job of a test says itself what it does, and the test needs no program of its own.
pub const SCRIPT: &str =
    r#"sh -c 'sed -n "s/.*\"input\": *\"\([^\"]*\)\".*/\1/p" input.json > job.sh; exec sh ./job.sh'"#;

/// The settings and directories of one `hpc-consumer`, which can be started again and again.
///
/// Its keeper and the runs outlive the daemon, as they should; they end with this value.
#[derive(Debug)]
pub struct Consumer {
    home: TempDir,
    env_file: PathBuf,
    settings: BTreeMap<String, OsString>,
}

impl Consumer {
    /// One that runs `command` without a container.
    pub fn bare(edge: &Edge, command: &str) -> Self {
        Self::new(edge).set("RUNTIME", "bare").set("CONTAINER_CMD", command)
    }

    /// One that runs the command of `image` in a real container.
    pub fn apptainer(edge: &Edge, image: &Path) -> Self {
        Self::new(edge)
            .set("RUNTIME", "apptainer")
            .set("APPTAINER_BIN", parts::apptainer())
            .set("APPTAINER_IMAGE", image)
    }

    /// One that runs what the site's file says.
    pub fn of_site(edge: &Edge, site_file: &Path) -> Self {
        Self::new(edge).set("SITE_FILE", site_file).set("APPTAINER_BIN", parts::apptainer())
    }

    fn new(edge: &Edge) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let (results, state) = (home.path().join("results"), home.path().join("state"));
        Self { home, env_file: edge.env_file(), settings: BTreeMap::new() }
            .set("RESULTS_DIR", results)
            .set("STATE_DIR", state)
            .set("MAX_PARALLEL_JOBS", "2")
            .set("POLL_INTERVAL_SECONDS", "0.1")
            .set("POLL_INTERVAL_MAX_SECONDS", "0.5")
            .set("RETRY_DELAY_SECONDS", "1")
            .set("JOB_KILL_GRACE_SECONDS", "1")
            .set("CLAIM_STALE_SECONDS", "2")
            .set("DRAIN_TIMEOUT_SECONDS", "5")
    }

    /// With this setting in its environment.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.settings.insert(name.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Without the key of a site, so that no hub tells it when there is something in the queue.
    #[must_use]
    pub fn unlinked(mut self) -> Self {
        let text = fs::read_to_string(&self.env_file).expect("local-edge has written it");
        let lines = text.lines().filter(|line| !line.starts_with("SITE_KEY="));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        self.env_file = self.home.path().join("unlinked.env");
        fs::write(&self.env_file, text).expect("a file can be written");
        fs::set_permissions(&self.env_file, fs::Permissions::from_mode(0o600)).expect("a file can be closed");
        self
    }

    /// With the `RESULTS_DIR` of another one, as two nodes have on a shared file system. The other one must live
    /// longer.
    #[must_use]
    pub fn sharing(self, other: &Self) -> Self {
        self.set("RESULTS_DIR", other.results_dir())
    }

    /// Its home directory, which holds all else of it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `RESULTS_DIR`
    pub fn results_dir(&self) -> PathBuf {
        PathBuf::from(&self.settings["RESULTS_DIR"])
    }

    /// `STATE_DIR`
    pub fn state_dir(&self) -> PathBuf {
        PathBuf::from(&self.settings["STATE_DIR"])
    }

    /// The file in which the keeper says who it is.
    pub fn keeper_file(&self) -> PathBuf {
        self.state_dir().join("keeper/keeper.json")
    }

    /// The process id of its keeper, or `None` when none is running.
    pub fn keeper_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.keeper_file()).ok()?;
        let keeper: Value = serde_json::from_str(&text).ok()?;
        let pid = keeper["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
        // The file outlives the keeper, and the numbers of processes come again.
        (is_alive(pid) && words_of(pid).iter().any(|word| word == "keeper")).then_some(pid)
    }

    /// The directory of a job.
    pub fn job_dir(&self, job_id: &str) -> PathBuf {
        self.results_dir().join(job_id)
    }

    /// The final record of a job, or `None` as long as there is none.
    pub fn record(&self, job_id: &str) -> Option<Value> {
        let path = self.results_dir().join(format!("{job_id}.json"));
        let text = fs::read_to_string(&path).ok()?;
        // The record is written whole, so half of one is a mistake at any moment.
        let record = serde_json::from_str(&text);
        Some(record.unwrap_or_else(|error| panic!("{} is not JSON ({error}): {text}", path.display())))
    }

    /// The copies of messages that were no jobs: file names and contents.
    pub fn rejected(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.results_dir().join("_rejected")) else { return BTreeMap::new() };
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.expect("a directory can be read to its end");
            let name = entry.file_name().into_string().expect("names are plain");
            (name, fs::read(entry.path()).expect("a copy can be read"))
        };
        entries.map(read).collect()
    }

    /// The command that starts it, to be changed by a test.
    pub fn command(&self) -> std::process::Command {
        self.subcommand(&["run"])
    }

    fn subcommand(&self, words: &[&str]) -> std::process::Command {
        let mut command = command(&parts::program("hpc-consumer"), self.home());
        command.envs(&self.settings).args(words).arg("--env-file").arg(&self.env_file);
        command
    }

    /// Starts another of its subcommands.
    pub fn start_asking(&self, words: &[&str]) -> Process {
        Process::start("hpc-consumer", &mut self.subcommand(words), self.home())
    }

    /// Runs another of its subcommands to the end, whatever that is.
    pub fn ask(&self, words: &[&str]) -> Spoken {
        let mut process = self.start_asking(words);
        let status = process.wait(PATIENCE);
        Spoken { status, output: process.output(), log: process.log() }
    }

    /// The command that starts it by means of another program, whose last word takes a command.
    pub fn command_within(&self, wrapper: &Path, words: &[&str]) -> std::process::Command {
        let inner = self.command();
        let mut outer = command(wrapper, self.home());
        outer.envs(&self.settings).args(words).arg(inner.get_program()).args(inner.get_args());
        outer
    }

    /// Starts it, to run until it is stopped.
    pub fn start(&self) -> Process {
        Process::start("hpc-consumer", &mut self.command(), self.home())
    }

    /// Runs it until the queue is empty and everything is done. Returns the process, for its log.
    pub fn run_until_idle(&self) -> Process {
        let mut process = Process::start("hpc-consumer", self.command().arg("--exit-when-idle"), self.home());
        let status = process.wait(PATIENCE);
        assert!(status.success(), "hpc-consumer ended with {status}");
        process
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Some(keeper) = self.keeper_pid() else { return };
        signal(keeper, Signal::TERM);
        // A test may have stopped it.
        signal(keeper, Signal::CONT);
        let start = Instant::now();
        while self.keeper_pid() == Some(keeper) {
            if start.elapsed() > KEEPER_PATIENCE {
                signal(keeper, Signal::KILL);
                let problem =
                    format!("the keeper, process {keeper}, did not end within {KEEPER_PATIENCE:?} of SIGTERM");
                assert!(thread::panicking(), "{problem}");
                eprintln!("{problem}");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
