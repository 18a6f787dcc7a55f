//! Row 9: another user takes the port of a local-edge that has stopped, and waits for key and token.

use std::path::Path;
use std::process::Command;

use testkit::{Edge, PATIENCE, Process, command, parts, wait_for};

use crate::attacker::{ATTACKER, Tool, VICTIM, by, give};

/// A local-edge that has gone, and somebody else in its place.
struct Taken {
    edge: Edge,
    attacker: Process,
    home: tempfile::TempDir,
    _tool: Tool,
}

impl Taken {
    fn new() -> Self {
        let mut edge = Edge::start();
        edge.kill();
        let tool = Tool::new();
        let home = tempfile::tempdir().expect("a directory can be made");
        give(home.path(), VICTIM);
        let port = edge.address().rsplit(':').next().expect("an address has a port").to_owned();
        let mut attacker = Process::start("attack", &mut tool.command(ATTACKER, &["listen", &port]), home.path());
        attacker.wait_for_log("listening", PATIENCE);
        Self { edge, attacker, home, _tool: tool }
    }

    /// A program of the victim with the settings of that edge.
    fn victim(&self, program: &str, words: &[&str]) -> Command {
        let mut command = command(&parts::program(program), self.home.path());
        let key = self.edge.setting("API_KEY");
        by(VICTIM, command.envs(self.edge.settings()).env("HPC_QUEUE_API_KEY", key).args(words));
        command
    }

    fn start(&self, command: &mut Command) -> Process {
        Process::start("victim", command, self.home.path())
    }

    fn secrets(&self) -> [&str; 2] {
        [self.edge.setting("API_KEY"), self.edge.setting("CF_QUEUES_API_TOKEN")]
    }

    fn has_a_secret(&self) -> bool {
        let heard = self.attacker.output();
        self.secrets().iter().any(|secret| heard.contains(secret))
    }
}

#[test]
fn a_stolen_port_gets_no_key_from_the_laptop() {
    let taken = Taken::new();
    let mut submit = taken.start(&mut taken.victim("laptop-consumer", &["submit", "--task", "echo"]));
    let status = submit.wait(PATIENCE);
    assert!(!status.success() && submit.log().contains("another user of this machine"), "{}", submit.log());
    assert!(submit.log().contains(&format!("uid {ATTACKER}")), "{}", submit.log());
    let mut tail = taken.start(&mut taken.victim("laptop-consumer", &["tail"]));
    tail.wait_for_log("another user of this machine", PATIENCE);
    assert_eq!(taken.attacker.output(), "", "not even a connection");

    // Told to, it sends; so the attack is one.
    let _told =
        taken.start(taken.victim("laptop-consumer", &["submit", "--task", "echo"]).env("ALLOW_PLAIN_HTTP", "1"));
    wait_for("the key", PATIENCE, || taken.has_a_secret().then_some(()));
}

#[test]
fn a_stolen_port_gets_no_token_from_the_daemon() {
    let taken = Taken::new();
    let daemon = |folder: &Path| {
        let mut command = taken.victim("hpc-consumer", &["run"]);
        command.env("RESULTS_DIR", folder.join("results")).env("STATE_DIR", folder.join("state"));
        command.env("RUNTIME", "bare").env("CONTAINER_CMD", "true").env("POLL_INTERVAL_SECONDS", "0.1");
        command
    };
    let mut refusing = taken.start(&mut daemon(&taken.home.path().join("a")));
    refusing.wait_for_log("another user of this machine", PATIENCE);
    assert_eq!(taken.attacker.output(), "", "not even a connection");
    let _told = taken.start(daemon(&taken.home.path().join("b")).env("ALLOW_PLAIN_HTTP", "1"));
    wait_for("the token", PATIENCE, || taken.has_a_secret().then_some(()));
}

#[test]
fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let home = tempfile::tempdir().expect("a directory can be made");
    for (program, words, setting) in [
        ("laptop-consumer", &["submit", "--task", "echo"][..], "PRODUCER_URL"),
        ("laptop-consumer", &["pull"], "CF_API_BASE_URL"),
        ("hpc-consumer", &["run"], "CF_API_BASE_URL"),
    ] {
        let mut command = command(&parts::program(program), home.path());
        command.env("PRODUCER_URL", "http://192.0.2.1:8787").env("CF_API_BASE_URL", "http://192.0.2.1:8787/client/v4");
        command.env("HPC_QUEUE_API_KEY", "k").env("CF_QUEUES_API_TOKEN", "t").env("CF_ACCOUNT_ID", "a");
        command.env("CF_JOBS_QUEUE_ID", "j").env("CF_RESULTS_QUEUE_ID", "r").env("RESULTS_DIR", home.path());
        let mut process = Process::start(program, command.args(words), home.path());
        let status = process.wait(PATIENCE);
        let log = process.log();
        assert_eq!(status.code(), Some(2), "{program} {words:?}: {log}");
        assert!(log.contains("plain http") && log.contains(setting), "{program} {words:?}: {log}");
    }
}
