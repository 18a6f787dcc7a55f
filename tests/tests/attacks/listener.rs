//! Row 9: another user takes the port of a local-edge that has stopped, and waits for key and token. The place of a
//! Unix socket they do not get.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
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

/// A local-edge of the victim that listens on a socket.
struct OnSocket {
    server: Process,
    settings: BTreeMap<String, String>,
    home: tempfile::TempDir,
}

impl OnSocket {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        // Others may pass through it.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("it takes a mode");
        give(home.path(), VICTIM);
        let mut serve = command(&parts::program("local-edge"), home.path());
        serve.args(["serve", "--socket", "edge/socket", "--data-dir", "data", "--env-file", "env"]);
        let mut server = Process::start("local-edge", by(VICTIM, &mut serve), home.path());
        let env_file = home.path().join("env");
        wait_for("the settings file", PATIENCE, || {
            assert!(server.is_running(), "local-edge has ended: {}", server.log());
            env_file.exists().then_some(())
        });
        let settings = dotenvy::from_path_iter(&env_file).expect("the settings file can be read");
        let settings = settings.map(|setting| setting.expect("each line is NAME=value")).collect();
        Self { server, settings, home }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("edge/socket")
    }

    /// A program of the victim with these settings.
    fn victim(&self, settings: &BTreeMap<String, String>, program: &str, words: &[&str]) -> Process {
        let mut command = command(&parts::program(program), self.home.path());
        command.envs(settings).env("HPC_QUEUE_API_KEY", &settings["API_KEY"]).args(words);
        Process::start("victim", by(VICTIM, &mut command), self.home.path())
    }
}

#[test]
fn the_place_of_a_socket_is_not_stolen() {
    let mut edge = OnSocket::new();
    let socket = edge.socket();
    let told = format!("unix:{}", socket.display());
    assert_eq!([&edge.settings["PRODUCER_URL"], &edge.settings["CF_API_BASE_URL"]], [&told, &told]);

    // It is a way for all that key and token are for.
    let mut submit = edge.victim(&edge.settings, "laptop-consumer", &["submit", "--task", "echo"]);
    assert!(submit.wait(PATIENCE).success(), "{}", submit.log());
    let mut command = command(&parts::program("hpc-consumer"), edge.home.path());
    command.envs(&edge.settings).args(["run", "--exit-when-idle"]);
    command.env("RESULTS_DIR", edge.home.path().join("results")).env("STATE_DIR", edge.home.path().join("state"));
    command.env("RUNTIME", "bare").env("CONTAINER_CMD", "true").env("POLL_INTERVAL_SECONDS", "0.1");
    let mut daemon = Process::start("daemon", by(VICTIM, &mut command), edge.home.path());
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    let mut pull = edge.victim(&edge.settings, "laptop-consumer", &["--output", "json", "pull"]);
    assert!(pull.wait(PATIENCE).success() && pull.output().contains("\"completed\""), "{}", pull.log());

    // Nobody else reaches it, whether somebody listens there or not.
    let tool = Tool::new();
    let path = socket.to_str().expect("a path of a test is text");
    let (reached, said) = tool.run(ATTACKER, &["reach", path]);
    assert!(!reached && said.contains("Permission denied"), "{said}");
    edge.server.kill();
    assert!(socket.exists(), "what was killed leaves its socket");
    let (stolen, said) = tool.run(ATTACKER, &["listen", path]);
    assert!(!stolen && said.contains("Permission denied"), "{said}");
}

#[test]
fn a_socket_in_a_place_for_all_gets_no_key() {
    let edge = OnSocket::new();
    // Where a careless victim has told the programs that local-edge listens.
    let shared = tempfile::tempdir().expect("a directory can be made");
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).expect("it takes a mode");
    let socket = shared.path().join("socket");
    let path = socket.to_str().expect("a path of a test is text");
    let mut settings = edge.settings.clone();
    for name in ["PRODUCER_URL", "CF_API_BASE_URL"] {
        settings.insert(name.to_owned(), format!("unix:{path}"));
    }
    let mut serve = command(&parts::program("local-edge"), edge.home.path());
    serve.args(["serve", "--data-dir", "other", "--socket", path]);
    let mut server = Process::start("local-edge", by(VICTIM, &mut serve), shared.path());
    assert!(!server.wait(PATIENCE).success() && server.log().contains("--socket"), "{}", server.log());

    let tool = Tool::new();
    let mut attacker = Process::start("attack", &mut tool.command(ATTACKER, &["listen", path]), shared.path());
    attacker.wait_for_log("listening", PATIENCE);
    let mut submit = edge.victim(&settings, "laptop-consumer", &["submit", "--task", "echo"]);
    assert!(!submit.wait(PATIENCE).success() && submit.log().contains("others can write to"), "{}", submit.log());
    // A directory that is closed by now still holds what somebody else has put there.
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).expect("it takes a mode");
    let mut submit = edge.victim(&settings, "laptop-consumer", &["submit", "--task", "echo"]);
    assert!(!submit.wait(PATIENCE).success(), "{}", submit.log());
    assert!(submit.log().contains("another user of this machine"), "{}", submit.log());
    assert_eq!(attacker.output(), "", "not even a connection");

    settings.insert("ALLOW_PLAIN_HTTP".to_owned(), "1".to_owned());
    let _told = edge.victim(&settings, "laptop-consumer", &["submit", "--task", "echo"]);
    wait_for("the key", PATIENCE, || attacker.output().contains(&settings["API_KEY"]).then_some(()));
}
