//! `laptop-consumer service`: what fetches results whenever its user is logged in.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use testkit::{Edge, PATIENCE, Queue, Spoken, is_alive, parts, signal, wait_until, words_of};

use super::systemd::Manager;
use super::{Home, pid_in};

/// A person with a laptop.
struct Person {
    // Declared first: what runs is ended before its directories go.
    home: Home,
    edge: Edge,
    _folder: TempDir,
}

impl Person {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let (home, edge) = (Home::new(folder.path()), Edge::start());
        let text = fs::read_to_string(edge.env_file()).expect("local-edge has written it");
        let data = home.path("data");
        home.settings(&format!(
            "{text}LAPTOP_DATA_DIR={}\nRESULTS_POLL_INTERVAL_SECONDS=0.2\nOPS_PER_DAY=none\n",
            data.display()
        ));
        Self { home, edge, _folder: folder }
    }

    fn service(&self, words: &[&str]) -> Spoken {
        self.home.service("laptop-consumer", words)
    }

    fn served(&self, words: &[&str]) -> Spoken {
        let spoken = self.service(words);
        assert!(spoken.status.success(), "{words:?}: {spoken:?}");
        spoken
    }

    fn pid(&self) -> u32 {
        pid_in(&self.service(&["status", "--output", "json"]))
    }

    /// A result comes into the queue, and from there into the inbox.
    fn result_arrives(&self, number: u32) {
        let job_id = format!("00000000-0000-4000-8000-{number:012}");
        let result = json!({
            "v": 1, "job_id": job_id, "task": "echo", "status": "completed", "output": number,
            "completed_at": "2026-11-30T04:00:00.000Z",
        });
        self.edge.push(Queue::Results, &[&result.to_string()]);
        let program = parts::program("laptop-consumer");
        let program = program.to_str().expect("a path of a test is plain");
        wait_until("the result in the inbox", PATIENCE, || {
            let words = ["show", &job_id, "--env-file", "service.env"];
            self.home.run(&mut self.home.command(program, &words)).status.success()
        });
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.service(&["uninstall"]);
    }
}

const INSTALL: [&str; 3] = ["install", "--env-file", "service.env"];

#[test]
fn a_receiver_under_nobody_fetches_results_and_says_why_it_cannot() {
    let person = Person::new();
    let installed = person.served(&INSTALL);
    for why in ["not systemd:", "not cron:", "nobody starts the receiver again", "the receiver runs, process"] {
        assert!(installed.log.contains(why), "{why}: {installed:?}");
    }
    let first = person.pid();
    assert_eq!(words_of(first)[1..4], ["tail", "--log", "info"].map(str::to_owned));
    person.result_arrives(1);
    let logs = person.served(&["logs"]);
    assert!(logs.output.contains("stored") && logs.output.contains("000000000001"), "{logs:?}");
    assert!(!logs.output.contains("\"output\""), "results are none of a log: {logs:?}");

    // It ends as a person has asked for, and its inbox stays.
    assert!(person.served(&["stop"]).log.contains("results wait in the queue"));
    assert!(!is_alive(first));
    let status = person.service(&["status"]);
    assert!(status.status.code() == Some(1) && status.output.contains("stopped;"), "{status:?}");
    person.served(&["start"]);
    person.result_arrives(2);

    // Wrong settings are told at the start, where they are.
    person.served(&["stop"]);
    let text = fs::read_to_string(person.home.path("service.env")).expect("it was written");
    person.home.settings(&text.replace("RESULTS_POLL_INTERVAL_SECONDS=0.2", "RESULTS_POLL_INTERVAL_SECONDS=often"));
    let failed = person.service(&["start"]);
    assert!(failed.status.code() == Some(1) && failed.log.contains("the receiver has ended"), "{failed:?}");
    assert!(person.served(&["logs"]).output.contains("RESULTS_POLL_INTERVAL_SECONDS"));
    person.served(&["uninstall"]);
    assert_eq!(person.service(&["status"]).status.code(), Some(4));
    assert!(person.home.path("data").exists());
}

#[test]
fn nothing_is_installed_with_settings_that_cannot_be_used() {
    let person = Person::new();
    let text = fs::read_to_string(person.home.path("service.env")).expect("it was written");
    for (wrong, code, says) in [
        (text.replace("CF_RESULTS_QUEUE_ID=", "# "), 2, "CF_RESULTS_QUEUE_ID is not set"),
        (text.replace("CF_QUEUES_API_TOKEN=", "CF_QUEUES_API_TOKEN=0"), 1, "check CF_QUEUES_API_TOKEN from"),
    ] {
        person.home.settings(&wrong);
        let installed = person.service(&INSTALL);
        assert_eq!(installed.status.code(), Some(code), "{installed:?}");
        assert!(installed.log.contains("nothing was changed"), "{installed:?}");
        assert!(installed.log.contains(says), "{installed:?}");
        assert_eq!(person.service(&["status"]).status.code(), Some(4));
    }
}

#[test]
fn a_receiver_under_cron_comes_back() {
    let person = Person::new();
    let _cron = person.home.cron();
    let installed = person.served(&INSTALL);
    assert!(installed.log.contains("cron starts the receiver"), "{installed:?}");
    let first = person.pid();
    signal(first, Signal::KILL);
    wait_until("the receiver to be gone", PATIENCE, || !is_alive(first));
    person.home.run_line("*/5 * * * * ");
    assert_ne!(person.pid(), first);
    person.result_arrives(1);
    // The same again changes nothing.
    let second = person.pid();
    person.served(&INSTALL);
    assert_eq!(person.pid(), second);
    person.served(&["uninstall"]);
    assert!(!is_alive(second) && person.home.crontab().is_empty());
}

#[test]
fn a_receiver_under_a_real_systemd_is_restarted_and_fetches_results() {
    let person = Person::new();
    let manager = Manager::start(&person.home);
    let served = |words: &[&str]| {
        let spoken = manager.service_of("laptop-consumer", words);
        assert!(spoken.status.success(), "{words:?}: {spoken:?}");
        spoken
    };
    let installed = served(&INSTALL);
    assert!(installed.log.contains("systemd starts the receiver when you log in"), "{installed:?}");
    let unit = person.home.path(".config/systemd/user/laptop-consumer.service");
    manager.verify(&unit);
    let pid = || pid_in(&served(&["status", "--output", "json"]));
    let first = pid();
    person.result_arrives(1);
    served(&["restart"]);
    let second = pid();
    assert!(second != first && !is_alive(first));
    served(&INSTALL);
    assert_eq!(pid(), second, "nothing is different");
    // What dies is started again, after a pause.
    signal(second, Signal::KILL);
    wait_until("systemd to see it", PATIENCE, || {
        let status = manager.service_of("laptop-consumer", &["status"]);
        status.output.contains("activating (auto-restart)")
    });
    served(&["start"]);
    person.result_arrives(2);
    let last = pid();
    served(&["stop"]);
    assert!(!is_alive(last));
    served(&["uninstall"]);
    assert!(!unit.exists());
}

/// What launchd does about an agent, as far as it can be had here: it reads its file, and knows it from then on. Python
/// reads property lists as Apple's programs do.
const LAUNCHCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "$*" >> "$HOME/asked"
case "$1 $2" in
  "print gui/$(id -u)") ;;
  print*) test -e "$HOME/loaded" || { echo "Could not find service" >&2; exit 113; }
    printf '%s = {\n\tstate = running\n\n\tpid = 4711\n}\n' "$2" ;;
  bootstrap*) test -e "$HOME/loaded" && { echo "Bootstrap failed: 5: Input/output error" >&2; exit 5; }
    python3 -c 'import json, plistlib, sys; json.dump(plistlib.load(open(sys.argv[1], "rb")), open(sys.argv[2], "w"))' \
      "$3" "$HOME/loaded" ;;
  bootout*) test -e "$HOME/loaded" || exit 3; rm "$HOME/loaded" ;;
  enable*|kickstart*) ;;
  *) exit 64 ;;
esac
"#;

#[test]
fn launchd_is_given_an_agent_that_it_can_read() {
    let person = Person::new();
    person.home.stand_in("launchctl", LAUNCHCTL);
    let installed = person.served(&[&INSTALL[..], &["--", "--batch-size", "7"]].concat());
    assert!(installed.log.contains("launchd starts the receiver when you log in"), "{installed:?}");
    assert!(!installed.log.contains("not systemd"), "{installed:?}");
    let loaded = || fs::read_to_string(person.home.path("loaded")).ok();
    let agent: serde_json::Value = serde_json::from_str(&loaded().expect("it is loaded")).expect("it is JSON");
    assert_eq!(agent["Label"], "hpc-queue.laptop-consumer");
    assert_eq!((&agent["RunAtLoad"], &agent["KeepAlive"]["SuccessfulExit"]), (&json!(true), &json!(false)));
    // What it starts is what would start: it is tried, with what launchd gives it.
    let words: Vec<&str> =
        agent["ProgramArguments"].as_array().expect("it is a list").iter().flat_map(|word| word.as_str()).collect();
    assert_eq!(words[1..4], ["tail", "--log", "info"]);
    assert_eq!(words[words.len() - 2..], ["--batch-size", "7"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("--check").env_clear().env("HOME", person.home.path(""));
    command.envs(
        agent["EnvironmentVariables"]
            .as_object()
            .expect("it has PATH")
            .iter()
            .map(|(name, value)| (name, value.as_str().expect("it is text"))),
    );
    let tried = person.home.run(command.current_dir(agent["WorkingDirectory"].as_str().expect("it has one")));
    assert!(tried.status.success(), "{tried:?}");

    assert_eq!(person.pid(), 4711);
    person.served(&["restart"]);
    person.served(&["stop"]);
    assert_eq!(loaded(), None);
    let status = person.service(&["status"]);
    assert!(status.status.code() == Some(1) && status.output.contains("stopped;"), "{status:?}");
    person.served(&["stop"]);
    person.served(&["start"]);
    // The same again is taken in place of what is there.
    person.served(&INSTALL);
    assert!(loaded().is_some_and(|text| !text.contains("--batch-size")));
    person.served(&["uninstall"]);
    assert!(loaded().is_none() && !person.home.path("Library/LaunchAgents/hpc-queue.laptop-consumer.plist").exists());
    let asked = fs::read_to_string(person.home.path("asked")).expect("it was asked");
    let id = rustix::process::getuid().as_raw();
    assert!(asked.contains(&format!("kickstart -k gui/{id}/hpc-queue.laptop-consumer\n")), "{asked}");
}
