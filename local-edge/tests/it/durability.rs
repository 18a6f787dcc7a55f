//! What was answered is there after the server was killed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;
use serde_json::json;

use crate::server::{Server, command, send, text, wait_for};

#[tokio::test]
async fn messages_leases_and_acknowledgements_survive_a_kill() {
    let mut server = Server::start().await;
    let before = server.settings().clone();
    let queue = server.queue("kill", json!({})).await;
    for body in ["acked", "leased", "waiting"] {
        server.post(&format!("/{queue}/messages"), json!({"body": body, "content_type": "text"})).await;
    }
    let pulled = server.pull(&queue, json!({"batch_size": 2, "visibility_timeout_ms": 3_600_000})).await;
    server.ack(&queue, &pulled[0]["lease_id"]).await;
    server.kill();
    server.start_again().await;

    for name in ["CF_ACCOUNT_ID", "CF_JOBS_QUEUE_ID", "CF_RESULTS_QUEUE_ID", "CF_QUEUES_API_TOKEN", "API_KEY"] {
        assert_eq!(server.setting(name), before[name]);
    }
    let again = server.pull(&queue, json!({"batch_size": 100})).await;
    let bodies: Vec<&str> = again.iter().map(|message| text(&message["body"])).collect();
    assert_eq!(bodies, ["waiting"]);
    assert_eq!(server.ack(&queue, &pulled[1]["lease_id"]).await["ackCount"], 1, "a lease from before the kill");
}

#[tokio::test]
async fn no_message_that_was_answered_is_lost_in_a_kill_under_load() {
    let mut server = Server::start().await;
    let queue = server.queue("load", json!({})).await;
    let path = format!("/{queue}/messages");
    let answered = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let mut producers = Vec::new();
    for producer in 0..4 {
        let request = server.api_request(Method::POST, &path);
        let answered = answered.clone();
        producers.push(tokio::spawn(async move {
            for number in 0.. {
                let name = format!("{producer}-{number}");
                let body = json!({"body": name, "content_type": "text"});
                let request = request.try_clone().expect("a request without a body can be cloned").json(&body);
                match request.send().await {
                    Ok(answer) if answer.status() == 200 => {
                        answered.lock().expect("no holder panics").insert(name);
                    }
                    _ => return,
                }
            }
        }));
    }
    wait_for("100 messages", async || (answered.lock().expect("no holder panics").len() >= 100).then_some(())).await;
    server.kill();
    for producer in producers {
        producer.await.unwrap();
    }
    server.start_again().await;
    let mut found = BTreeSet::new();
    loop {
        let pulled = server.pull(&queue, json!({"batch_size": 100, "visibility_timeout_ms": 3_600_000})).await;
        if pulled.is_empty() {
            break;
        }
        found.extend(pulled.iter().map(|message| text(&message["body"]).to_owned()));
    }
    let answered = answered.lock().expect("no holder panics");
    let lost: Vec<&String> = answered.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(found.len() <= answered.len() + 4, "each producer had at most one request under way");
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start().await;
    let output = command(server.home()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another local-edge serves the data directory data"), "{text}");
    let health = send(server.request(Method::GET, "/health")).await;
    assert_eq!(health.status, 200, "the first one goes on");
}

#[tokio::test]
async fn a_signal_stops_it_in_order() {
    let mut server = Server::start().await;
    let jobs = server.setting("CF_JOBS_QUEUE_ID").to_owned();
    server.post(&format!("/{jobs}/messages"), json!({"body": 1})).await;
    let status = server.stop().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(!server.home().join("data/queues.sqlite-wal").exists(), "the log of the database is put away");
    server.start_again().await;
    assert_eq!(server.get(&format!("/{jobs}/metrics")).await["backlog_count"], 1);
}

#[tokio::test]
async fn files_with_secrets_are_the_owners_alone() {
    let server = Server::start().await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.env_file()), 0o600);
    assert_eq!(mode(&server.home().join("data")), 0o700);
    assert_eq!(mode(&server.home().join("data/credentials.json")), 0o600);
    let log = server.log();
    for secret in ["API_KEY", "CF_QUEUES_API_TOKEN"] {
        assert!(!log.contains(server.setting(secret)), "{secret} is in the log:\n{log}");
    }
}
