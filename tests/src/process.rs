//! Processes under test: a clean environment, everything they say kept in files, and no process left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal};

use crate::wait_for;

/// How much of each output of a process is shown when its test fails.
const SHOWN_BYTES_MAX: usize = 16_000;

/// A command with nothing in its environment but `PATH` and `HOME`, so that no setting of the person who runs the
/// tests gets in; and with the leave to run as root, because in CI there may be nobody else.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("ALLOW_ROOT", "1").current_dir(home);
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Is there a process with this id that has not ended? (One that only waits to be reaped has ended.)
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state is the first field after the name, which is in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}

/// The words of the command line of a process; none when there is no such process.
pub fn words_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Sends a signal to a process that may be gone already.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("process ids are positive numbers");
    // Fails only when there is no such process of ours.
    let _ = rustix::process::kill_process(pid, signal);
}

/// A running program. It is killed when this value goes, and what it said is printed if the test is failing then.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its standard output and standard error go into two files in `directory`.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        // One program may be started again and again in one directory; each start has its own files.
        let free = |number: &usize| !directory.join(format!("{name}.{number}.log")).exists();
        let number = (1_usize..).find(free).expect("there are more numbers than files");
        let output = directory.join(format!("{name}.{number}.out"));
        let log = directory.join(format!("{name}.{number}.log"));
        let create = |path: &Path| File::create(path).expect("the directory of a test can be written to");
        command.stdin(Stdio::null()).stdout(create(&output)).stderr(create(&log));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self { name: name.to_owned(), child, output, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// What it has written to its standard error, where logs go.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Has it not ended yet?
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits until its log holds `text`.
    pub fn wait_for_log(&mut self, text: &str, bound: Duration) {
        let what = format!("{text:?} in the log of {}", self.name);
        wait_for(&what, bound, || {
            let found = self.log().contains(text);
            assert!(found || self.is_running(), "{} has ended without {text:?} in its log", self.name);
            found.then_some(())
        });
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, bound, || self.child.try_wait().expect("a child can be waited for"))
    }

    /// Waits until it ends by itself, or for so long; `None` when it goes on.
    pub fn wait_within(&mut self, bound: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.child.try_wait().expect("a child can be waited for");
            if status.is_some() || start.elapsed() >= bound {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our own child takes signals");
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no VmHWM of {} in {status:?}", self.name)) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            for path in [&self.output, &self.log] {
                let text = read(path);
                let mut from = text.len().saturating_sub(SHOWN_BYTES_MAX);
                while !text.is_char_boundary(from) {
                    from += 1;
                }
                eprintln!("---- {} ----\n{}", path.display(), &text[from..]);
            }
        }
    }
}

/// What a file holds; that it cannot be read is shown in its place, because this also serves a test that is failing.
fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}
