//! Leases, retries and dead letters, by the clock of the machine.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, text, wait_for};

#[tokio::test]
async fn a_lapsed_lease_brings_the_message_back_and_a_late_ack_counts() {
    let server = Server::start().await;
    let queue = server.queue("leases", json!({})).await;
    server.post(&format!("/{queue}/messages"), json!({"body": "a", "content_type": "text"})).await;
    let first = server.pull_one(&queue, json!({"visibility_timeout_ms": 200})).await;
    let second = server.pull_one(&queue, json!({"visibility_timeout_ms": 60_000})).await;
    assert_eq!((&second["id"], &second["attempts"]), (&first["id"], &json!(2)));
    assert_ne!(second["lease_id"], first["lease_id"]);
    assert_eq!(server.pull(&queue, json!({})).await, Vec::<Value>::new());
    // A retry of the earlier holder changes nothing, its acknowledgement does.
    let retry = json!({"retries": [{"lease_id": first["lease_id"]}]});
    let settled = server.post(&format!("/{queue}/messages/ack"), retry).await;
    assert_eq!(settled["retryCount"], 0);
    assert!(settled["warnings"].get(text(&first["lease_id"])).is_some(), "{settled}");
    assert_eq!(server.ack(&queue, &first["lease_id"]).await["ackCount"], 1);
    assert_eq!(server.ack(&queue, &second["lease_id"]).await["ackCount"], 0);
    assert_eq!(server.get(&format!("/{queue}/metrics")).await["backlog_count"], 0);
}

#[tokio::test]
async fn delays_hold_a_message_back() {
    /// A second, and room for clocks that count in milliseconds.
    const DELAY: Duration = Duration::from_millis(990);
    let server = Server::start().await;
    let queue = server.queue("delays", json!({})).await;
    let messages = format!("/{queue}/messages");
    let begun = Instant::now();
    server.post(&messages, json!({"body": "a", "content_type": "text", "delay_seconds": 1})).await;
    let pulled = server.pull_one(&queue, json!({})).await;
    assert!(begun.elapsed() >= DELAY, "it came after {:?}", begun.elapsed());

    let begun = Instant::now();
    let retry = json!({"retries": [{"lease_id": pulled["lease_id"], "delay_seconds": 1}]});
    assert_eq!(server.post(&format!("{messages}/ack"), retry).await["retryCount"], 1);
    let again = server.pull_one(&queue, json!({})).await;
    assert!(begun.elapsed() >= DELAY, "it came back after {:?}", begun.elapsed());
    assert_eq!(again["attempts"], 2);

    let retry = json!({"retries": [{"lease_id": again["lease_id"]}]});
    server.post(&format!("{messages}/ack"), retry).await;
    assert_eq!(server.pull(&queue, json!({})).await[0]["attempts"], 3, "without a delay it is there at once");
}

#[tokio::test]
async fn a_message_that_fails_for_the_last_time_goes_to_the_dead_letter_queue() {
    let server = Server::start().await;
    let consumer = json!({"dead_letter_queue": "fails-dlq", "settings": {"max_retries": 1}});
    let queue = server.queue("fails", consumer).await;
    let list = server.api(Method::GET, "?name=fails-dlq", json!(null)).await.json();
    let dlq = text(&list["result"][0]["queue_id"]).to_owned();
    server.post(&format!("/{queue}/messages"), json!({"body": {"n": 1}})).await;
    let first = server.pull_one(&queue, json!({"visibility_timeout_ms": 100})).await;
    let second = server.pull_one(&queue, json!({"visibility_timeout_ms": 100})).await;
    assert_eq!(second["attempts"], 2);
    let dead = wait_for("the dead letter", async || {
        let seen = server.post(&format!("/{dlq}/messages/peek"), json!({})).await;
        seen["messages"].get(0).cloned()
    })
    .await;
    for field in ["id", "body", "timestamp_ms", "metadata"] {
        assert_eq!(dead[field], first[field], "{field}");
    }
    assert_eq!(dead["attempts"], 0);
    assert_eq!(server.get(&format!("/{queue}/metrics")).await["backlog_count"], 0);
    assert_eq!(server.ack(&queue, &second["lease_id"]).await["ackCount"], 0, "it is no longer there");
    assert_eq!(server.get(&format!("/{dlq}/metrics")).await["backlog_count"], 1, "and an old lease does not reach it");
}

#[tokio::test]
async fn the_wrong_name_of_the_visibility_timeout_is_ignored_and_logged_once() {
    let server = Server::start().await;
    let queue = server.queue("names", json!({"settings": {"visibility_timeout_ms": 300}})).await;
    server.post(&format!("/{queue}/messages"), json!({"body": 1})).await;
    server.pull_one(&queue, json!({"visibility_timeout": 43_200_000})).await;
    server.pull(&queue, json!({"visibility_timeout": 43_200_000})).await;
    let told = server.log().matches("the field is `visibility_timeout_ms`").count();
    assert_eq!(told, 1, "an old client sends it with every pull: {}", server.log());
    let again = server.pull_one(&queue, json!({})).await;
    assert_eq!(again["attempts"], 2, "the consumer's timeout was taken");
}
