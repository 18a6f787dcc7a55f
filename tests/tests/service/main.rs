//! `service` of `hpc-consumer` and `laptop-consumer` on real programs: under cron, or under nobody, they really start,
//! die, come back and end; a stand-in keeps the crontab, and does what cron would do when the test says so. And under a
//! real systemd.
//!
//! No program of the machine that keeps services is ever reached from here: each has a stand-in that is found first.

mod cron;
mod laptop;
mod systemd;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, Spoken, is_alive, parts, signal, wait_until};

/// What else `hpc-consumer run` is told. The command has quotes and backslashes of many kinds.
const RUN: [&str; 3] = ["--allow-root", "--container-cmd", SCRIPT];

/// What is not there, says so and fails.
const NOT_THERE: &str = "#!/bin/sh\necho \"$(basename \"$0\") is not for you\" >&2\nexit 1\n";

/// A crontab in a file.
const CRONTAB: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
case "$1" in
  -l) if test -e "$HOME/crontab"; then cat "$HOME/crontab"; else echo "no crontab for you" >&2; exit 1; fi ;;
  -) cat > "$HOME/crontab.new" && mv "$HOME/crontab.new" "$HOME/crontab" ;;
  *) exit 2 ;;
esac
"#;

/// A home directory, and programs that keep services as the test wants them.
#[derive(Debug, Clone)]
struct Home(PathBuf);

impl Home {
    /// In this directory, where nothing keeps a service.
    fn new(path: &Path) -> Self {
        let home = Self(path.to_owned());
        fs::create_dir(home.path("bin")).expect("a home directory can be written to");
        for name in ["systemctl", "loginctl", "journalctl", "crontab", "scrontab", "scancel", "launchctl"] {
            home.stand_in(name, NOT_THERE);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn stand_in(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).expect("a home directory can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    }

    /// A command with nothing of this process's environment.
    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("HOME", &self.0).env("PATH", path);
        command.args(words).current_dir(&self.0);
        command
    }

    fn run(&self, command: &mut Command) -> Spoken {
        let mut process = Process::start("command", command, &self.0);
        let status = process.wait(PATIENCE);
        Spoken { status, output: process.output(), log: process.log() }
    }

    /// Asks a program of ours for something of its service.
    fn service(&self, program: &str, words: &[&str]) -> Spoken {
        let program = parts::program(program);
        let words: Vec<&str> = ["service"].into_iter().chain(words.iter().copied()).collect();
        self.run(&mut self.command(program.to_str().expect("a path of a test is plain"), &words))
    }

    /// Settings for a service, in a file of ours.
    fn settings(&self, text: &str) {
        let settings = self.path("service.env");
        fs::write(&settings, text).expect("a home directory can be written to");
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    }

    /// A crontab, and something that looks like cron.
    fn cron(&self) -> Process {
        self.stand_in("crontab", CRONTAB);
        let cron = self.path("bin/cron");
        fs::copy("/bin/sleep", &cron).expect("there is a program to copy");
        Process::start("cron", &mut self.command(cron.to_str().expect("it is plain"), &["600"]), &self.path("."))
    }

    fn crontab(&self) -> String {
        fs::read_to_string(self.path("crontab")).unwrap_or_default()
    }

    /// What cron does with a line: it gives it to a shell, with a small environment.
    fn run_line(&self, begin: &str) {
        let crontab = self.crontab();
        let line =
            crontab.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_else(|| panic!("{begin}: {crontab}"));
        let mut command = self.command("/bin/sh", &["-c", &line.replace("\\%", "%")]);
        let spoken = self.run(command.env("PATH", "/usr/bin:/bin"));
        assert!(spoken.status.success() && spoken.log.is_empty() && spoken.output.is_empty(), "{spoken:?}");
    }
}

/// The process id in what `status --output json` says.
fn pid_in(spoken: &Spoken) -> u32 {
    let status: Value = serde_json::from_str(&spoken.output).unwrap_or_else(|error| panic!("{error}: {spoken:?}"));
    let pid = status["pid"].as_u64().unwrap_or_else(|| panic!("it does not run: {status}"));
    u32::try_from(pid).expect("process ids are small")
}

/// A user with settings in a file.
struct User {
    consumer: Consumer,
    edge: Edge,
    home: Home,
}

impl User {
    fn new() -> Self {
        let edge = Edge::start();
        let consumer = Consumer::bare(&edge, SCRIPT);
        let home = Home::new(consumer.home());
        let user = Self { consumer, edge, home };
        let mut text = fs::read_to_string(user.edge.env_file()).expect("local-edge has written it");
        for (name, value) in [
            ("RUNTIME", "bare"),
            ("RESULTS_DIR", user.consumer.results_dir().to_str().expect("a path of a test is plain")),
            ("STATE_DIR", user.consumer.state_dir().to_str().expect("a path of a test is plain")),
            ("POLL_INTERVAL_SECONDS", "0.1"),
            ("POLL_INTERVAL_MAX_SECONDS", "0.5"),
            ("MAX_PARALLEL_JOBS", "2"),
            ("JOB_KILL_GRACE_SECONDS", "1"),
            ("DRAIN_TIMEOUT_SECONDS", "1"),
        ] {
            text += &format!("{name}={value}\n");
        }
        user.home.settings(&text);
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// Asks `hpc-consumer service` for something.
    fn service(&self, words: &[&str]) -> Spoken {
        self.home.service("hpc-consumer", words)
    }

    /// The same, which must succeed.
    fn served(&self, words: &[&str]) -> Spoken {
        let spoken = self.service(words);
        assert!(spoken.status.success(), "{words:?}: {spoken:?}");
        spoken
    }

    /// Installs it with the file of settings, and more arguments.
    fn install(&self, more: &[&str]) -> Spoken {
        let words = [&["install", "--env-file", "service.env"], more, &["--"], &RUN].concat();
        self.service(&words)
    }

    fn status(&self) -> Value {
        let spoken = self.service(&["status", "--output", "json"]);
        serde_json::from_str(&spoken.output).unwrap_or_else(|error| panic!("{error}: {spoken:?}"))
    }

    /// The process id of the daemon that runs.
    fn pid(&self) -> u32 {
        pid_in(&self.service(&["status", "--output", "json"]))
    }

    /// A job that waits for a file, and has begun.
    fn job_at_work(&self) -> String {
        let gate = self.path("gate");
        let text = format!("echo begun >> {0}; until test -e {0}.open; do sleep 0.05; done", gate.display());
        let job = self.edge.producer().submit(&serde_json::json!({"task": "script", "input": text}));
        wait_until("the job to begin", PATIENCE, || gate.exists());
        job
    }

    /// Lets it end. It must have begun once, and end well.
    fn ends_well(&self, job: &str) {
        fs::write(self.path("gate.open"), "").expect("a home directory can be written to");
        wait_until("the record of the job", PATIENCE, || self.consumer.record(job).is_some());
        let record = self.consumer.record(job).expect("it was there");
        assert_eq!((record["status"].as_str(), record["attempt"].as_u64()), (Some("completed"), Some(1)), "{record}");
        assert_eq!(fs::read_to_string(self.path("gate")).expect("the job has written it"), "begun\n");
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Or it would start a keeper again when that is ended.
        let lock = fs::read_to_string(self.consumer.state_dir().join("lock")).unwrap_or_default();
        let holder: Value = serde_json::from_str(&lock).unwrap_or_default();
        let Some(pid) = holder["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) else { return };
        if testkit::words_of(pid).iter().any(|word| word == "--allow-root") {
            signal(pid, Signal::KILL);
            wait_until("the daemon to be gone", PATIENCE, || !is_alive(pid));
        }
    }
}
