//! Row 11: connections that say nothing, or little, by another user.

use std::time::Duration;

use reqwest::Method;
use testkit::http::{client, send};
use testkit::{PATIENCE, Process, command, parts, wait_for};

use crate::attacker::{ATTACKER, Tool};

/// How long a request may take beside them; without an attack it is a millisecond.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn hundreds_of_silent_connections_do_not_stop_local_edge() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut serve = command(&parts::on_path("sh").expect("there is a shell"), home.path());
    // With few descriptors, as a careful site gives them, a few hundred connections were enough.
    serve.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]).arg(parts::program("local-edge"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--env-file", "env"]);
    let mut server = Process::start("local-edge", &mut serve, home.path());
    let env_file = home.path().join("env");
    wait_for("the settings file", PATIENCE, || {
        assert!(server.is_running(), "local-edge has ended");
        env_file.exists().then_some(())
    });
    let settings: std::collections::BTreeMap<String, String> =
        dotenvy::from_path_iter(&env_file).expect("it can be read").map(|line| line.expect("a setting")).collect();
    let url = &settings["PRODUCER_URL"];
    let port = url.rsplit(':').next().expect("an address has a port");
    let tool = Tool::new();
    let mut attacker = Process::start("attack", &mut tool.command(ATTACKER, &["hold", port, "400"]), home.path());
    attacker.wait_for_log("holding 400", PATIENCE);
    for number in 0..3 {
        let request = client()
            .request(Method::POST, format!("{url}/jobs"))
            .header("x-api-key", &settings["API_KEY"])
            .header("content-type", "application/json")
            .body(r#"{"task":"echo"}"#);
        let answer = send(request.timeout(SOON));
        assert_eq!(answer.status, 202, "request {number}: {answer:?}");
    }
    assert!(server.log().contains("connections are taken"), "{}", server.log());
    assert!(attacker.is_running());
}
