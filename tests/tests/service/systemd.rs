//! The daemon under a real systemd of the user, which runs in a namespace of its own: in there the directory of its
//! sockets is empty, and the systemd of the machine is not reached.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{PATIENCE, Process, Spoken, is_alive, parts, signal, wait_until};

use super::{Home, RUN, User, pid_in};

const LINGER: &str = "#!/bin/sh\ntest \"$1\" = show-user && echo Linger=no\n";

/// What the system does before it starts a manager for a user. A manager looks whether systemd has started the machine.
const BEFORE: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user
mkdir -m 700 /run/user/0
exec \"$1\" --user --log-target=console
";

/// A systemd of the user, with nothing but what it is given.
pub(crate) struct Manager {
    process: Process,
    home: Home,
}

impl Manager {
    pub(crate) fn start(home: &Home) -> Self {
        home.stand_in("loginctl", LINGER);
        for name in ["systemctl", "journalctl"] {
            fs::remove_file(home.path("bin").join(name)).expect("the stand-in is there");
        }
        let systemd = parts::systemd();
        let words = ["--mount", "sh", "-c", BEFORE, "sh", systemd.to_str().expect("it is plain")];
        let mut command = home.command("/usr/bin/unshare", &words);
        let process = Process::start("systemd", command.env("XDG_RUNTIME_DIR", "/run/user/0"), &home.path("."));
        let manager = Self { process, home: home.clone() };
        wait_until("systemd to answer", PATIENCE, || {
            manager.within("/usr/bin/systemctl", &["--user", "is-system-running"]).status.success()
        });
        manager
    }

    /// Runs a command as a user of that manager does.
    pub(crate) fn within(&self, program: &str, words: &[&str]) -> Spoken {
        let target = self.process.pid().to_string();
        let directory = format!("--wdns={}", self.home.path("").display());
        let mut all = vec!["--target", &target, "--mount", &directory, program];
        all.extend(words);
        let mut command: Command = self.home.command("/usr/bin/nsenter", &all);
        self.home.run(command.env("XDG_RUNTIME_DIR", "/run/user/0"))
    }

    /// Asks a program of ours for something of its service.
    pub(crate) fn service_of(&self, program: &str, words: &[&str]) -> Spoken {
        let program = parts::program(program);
        let words: Vec<&str> = ["service"].into_iter().chain(words.iter().copied()).collect();
        self.within(program.to_str().expect("it is plain"), &words)
    }

    /// systemd takes every line of a unit for what it is.
    pub(crate) fn verify(&self, unit: &Path) {
        let unit = unit.to_str().expect("it is plain");
        let verified = self.within("/usr/bin/systemd-analyze", &["--user", "verify", unit]);
        assert!(verified.status.success() && verified.log.is_empty(), "{verified:?}");
    }

    fn service(&self, words: &[&str]) -> Spoken {
        self.service_of("hpc-consumer", words)
    }

    fn served(&self, words: &[&str]) -> Spoken {
        let spoken = self.service(words);
        assert!(spoken.status.success(), "{words:?}: {spoken:?}");
        spoken
    }

    fn pid(&self) -> u32 {
        pid_in(&self.served(&["status", "--output", "json"]))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // It ends its services, and then itself.
        self.process.terminate();
        if self.process.wait_within(Duration::from_secs(20)).is_none() {
            eprintln!("systemd did not end in time");
        }
    }
}

#[test]
fn a_daemon_under_a_real_systemd_is_restarted_and_its_jobs_go_on() {
    let user = User::new();
    let manager = Manager::start(&user.home);
    let install = [&["install", "--env-file", "service.env", "--"], &RUN[..]].concat();
    let installed = manager.served(&install);
    assert!(installed.log.contains("systemd starts the daemon"), "{installed:?}");
    assert!(installed.log.contains("lingering is off"), "{installed:?}");

    let unit = user.path(".config/systemd/user/hpc-consumer.service");
    manager.verify(&unit);

    let first = manager.pid();
    let job = user.job_at_work();
    let keeper = user.consumer.keeper_pid().expect("a job runs");
    // It is up only after it has said so.
    let shown = manager.within(
        "/usr/bin/systemctl",
        &["--user", "show", "hpc-consumer.service", "--property=Type,NotifyAccess,WatchdogUSec,UnitFileState"],
    );
    assert!(shown.output.contains("Type=notify\n") && shown.output.contains("UnitFileState=enabled\n"), "{shown:?}");

    manager.served(&["restart"]);
    let second = manager.pid();
    assert!(second != first && !is_alive(first));
    assert_eq!(user.consumer.keeper_pid(), Some(keeper), "a restart leaves the keeper");
    manager.served(&install);
    assert_eq!(manager.pid(), second, "nothing is different");

    // New settings are read without an end of the process.
    let reloaded = manager.within("/usr/bin/systemctl", &["--user", "reload", "hpc-consumer.service"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_eq!(manager.pid(), second);

    manager.served(&["stop"]);
    assert!(!is_alive(second) && is_alive(keeper));
    let status = manager.service(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert!(status.output.contains("inactive (dead)"), "{status:?}");
    manager.served(&["start"]);
    user.ends_well(&job);

    // It says that it lives, and one that dies is started again, after a pause.
    let third = manager.pid();
    let watched = manager.within(
        "/usr/bin/systemctl",
        &["--user", "show", "hpc-consumer.service", "--property=WatchdogTimestampMonotonic"],
    );
    assert!(!watched.output.trim().ends_with("=0"), "it has not said that it lives: {watched:?}");
    signal(third, Signal::KILL);
    wait_until("systemd to see it", PATIENCE, || {
        manager.service(&["status"]).output.contains("activating (auto-restart)")
    });
    manager.served(&["uninstall"]);
    assert!(!is_alive(third) && !unit.exists());
    assert_eq!(manager.service(&["status"]).status.code(), Some(4));
    signal(keeper, Signal::TERM);
}
