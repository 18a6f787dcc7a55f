//! A disk that is full.

use std::process::Command;
use std::time::Duration;

use testkit::{PATIENCE, Process, command, parts, wait_for, wait_until};

use super::*;

/// Mounts a file system of `$2` MiB over `$1`, and serves on it. 54 MiB are kept for the logs of three SQLite files.
const SERVE: &str = r#"
    set -e
    mount -t tmpfs -o "size=$2m" none "$1"
    exec "$3" serve --listen 127.0.0.1:0 --data-dir "$1" --env-file "$4"
"#;

#[test]
fn a_full_disk_is_told_and_nothing_of_it_is_left() {
    let home = tempfile::tempdir().unwrap();
    let (data, env) = (home.path().join("data"), home.path().join("env"));
    fs::create_dir(&data).unwrap();
    let mut serve: Command = command(&parts::on_path("unshare").expect("util-linux has unshare"), home.path());
    serve.args(["--user", "--map-root-user", "--mount", "sh", "-c", SERVE, "sh"]);
    serve.arg(&data).arg("96").arg(parts::program("local-edge")).arg(&env);
    let mut process = Process::start("local-edge", &mut serve, home.path());
    wait_for("the settings", PATIENCE, || {
        assert!(process.is_running(), "local-edge has ended");
        env.exists().then_some(())
    });
    let settings: std::collections::BTreeMap<String, String> =
        dotenvy::from_path_iter(&env).unwrap().map(Result::unwrap).collect();
    let ask = |method: Method, path: &str| {
        client()
            .request(method, format!("{}{path}", settings["PRODUCER_URL"]))
            .header("x-api-key", &settings["API_KEY"])
    };
    let place = |content: &Content| {
        let body = json!({"files": [content.to_json()]});
        send(ask(Method::POST, "/files").json(&body)).json()["files"][0].take()
    };
    // It must be told in each of several tries: what was begun has to go each time.
    for _ in 0..3 {
        let content = Content::of_size(60 * MIB);
        let answer = send(put(&place(&content), &content.bytes));
        assert_eq!(answer.status, 507, "{answer:?}");
        assert!(answer.body.contains("<Code>InsufficientCapacity</Code>"), "{answer:?}");
        assert!(answer.body.contains("its operator makes room in the data directory"), "{answer:?}");
        let said = send(ask(Method::POST, &format!("{}/complete", content.path())).json(&json!({})));
        assert_eq!(said.status, 409, "{said:?}");
    }
    let said = format!("there is no room in {}", data.join("files").display());
    assert!(process.log().contains(&said), "its operator is told where: {}", process.log());
    wait_until("there is room again", Duration::from_secs(20), || {
        let content = Content::of_size(24 * MIB);
        let is_put = send(put(&place(&content), &content.bytes)).status == 200;
        is_put && send(ask(Method::POST, &format!("{}/complete", content.path())).json(&json!({}))).status == 200
    });
}
