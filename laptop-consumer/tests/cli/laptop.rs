//! The program under test, with a home of its own.

use std::fs;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::{ACCOUNT, API_KEY, QUEUE, Server, TOKEN};

/// Nothing here takes a tenth of this, on a machine that does nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory, and the settings that lead to a server.
#[derive(Debug)]
pub(crate) struct Laptop {
    pub(crate) server: Server,
    home: TempDir,
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Laptop {
    pub(crate) fn new() -> Self {
        Self { server: Server::start(), home: tempfile::tempdir().expect("a directory can be made") }
    }

    /// A place within the home directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The program with all settings, and nothing else in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laptop-consumer"));
        command
            .env_clear()
            .current_dir(self.home.path())
            .env("LAPTOP_DATA_DIR", self.path("data"))
            .env("PRODUCER_URL", self.server.url())
            .env("HPC_QUEUE_API_KEY", API_KEY)
            .env("CF_API_BASE_URL", format!("{}/client/v4", self.server.url()))
            .env("CF_ACCOUNT_ID", ACCOUNT)
            .env("CF_RESULTS_QUEUE_ID", QUEUE)
            .env("CF_QUEUES_API_TOKEN", TOKEN)
            .env("RESULTS_POLL_INTERVAL_SECONDS", "0.1")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Spoken {
        finish(&mut self.command(arguments))
    }

    /// The stored result of a job.
    pub(crate) fn stored(&self, job_id: &str) -> Option<String> {
        fs::read_to_string(self.path("data").join("results").join(format!("{job_id}.json"))).ok()
    }

    /// The names of the stored files of a kind (`results`, `rejected`).
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("data").join(kind)).expect("the inbox is there");
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Spoken {
    /// The lines of standard output, each JSON.
    pub(crate) fn results(&self) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.stdout.lines().map(read).collect()
    }

    /// The job ids on standard output.
    pub(crate) fn job_ids(&self) -> Vec<String> {
        self.results().iter().map(|result| result["job_id"].as_str().unwrap_or("none").to_owned()).collect()
    }
}

/// A program that runs. It is killed when this value goes.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Option<thread::JoinHandle<String>>,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Running {
    /// Starts a command; what it says is collected.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program can be started");
        let (stdout, stderr) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
        Self { child, stdout, stderr }
    }

    /// The same, but nobody reads its standard output.
    pub(crate) fn start_unread(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program can be started");
        drop(child.stdout.take());
        let stderr = child.stderr.take().map(collect);
        Self { child, stdout: None, stderr }
    }

    /// Gives it its whole standard input, which the command must have piped.
    pub(crate) fn give(&mut self, input: &[u8]) {
        let mut stdin = self.child.stdin.take().expect("standard input is piped");
        stdin.write_all(input).expect("the program reads");
    }

    /// Interrupts it, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.expect("there is `kill`").success());
    }

    /// Waits until it ends.
    pub(crate) fn end(mut self) -> Spoken {
        let mut code = None;
        wait_until("the end of the program", || {
            code = self.child.try_wait().expect("a child can be waited for").map(|status| status.code());
            code.is_some()
        });
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.map(|reader| reader.join().expect("a reader does not panic")).unwrap_or_default()
        };
        Spoken { code: code.flatten(), stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Spoken {
    Running::start(command).end()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads in a thread, so that a full pipe never holds up the program.
fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
