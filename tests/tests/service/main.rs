//! `hpc-consumer service` on real programs: the daemon under cron, or under nobody, really starts, dies, comes back and
//! ends; a stand-in keeps the crontab, and does what cron would do when the test says so. And under a real systemd.
//!
//! No program of the machine that keeps services is ever reached from here: each has a stand-in that is found first.

mod cron;
mod systemd;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
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

/// A user with a home directory, settings in a file, and programs that keep services as the test wants them.
struct User {
    consumer: Consumer,
    edge: Edge,
}

impl User {
    fn new() -> Self {
        let edge = Edge::start();
        let consumer = Consumer::bare(&edge, SCRIPT);
        let user = Self { consumer, edge };
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
        let settings = user.path("service.env");
        fs::write(&settings, text).expect("a home directory can be written to");
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        fs::create_dir(user.path("bin")).expect("a home directory can be written to");
        for name in ["systemctl", "loginctl", "journalctl", "crontab", "scrontab", "scancel"] {
            user.stand_in(name, NOT_THERE);
        }
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.consumer.home().join(name)
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
        command.env_clear().env("HOME", self.consumer.home()).env("PATH", path);
        command.args(words).current_dir(self.consumer.home());
        command
    }

    fn run(&self, command: &mut Command) -> Spoken {
        let mut process = Process::start("command", command, self.consumer.home());
        let status = process.wait(PATIENCE);
        Spoken { status, output: process.output(), log: process.log() }
    }

    /// Asks `hpc-consumer service` for something.
    fn service(&self, words: &[&str]) -> Spoken {
        let program = parts::program("hpc-consumer");
        let words: Vec<&str> = ["service"].into_iter().chain(words.iter().copied()).collect();
        self.run(&mut self.command(program.to_str().expect("a path of a test is plain"), &words))
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
        let status = self.status();
        let pid = status["pid"].as_u64().unwrap_or_else(|| panic!("the daemon does not run: {status}"));
        u32::try_from(pid).expect("process ids are small")
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
