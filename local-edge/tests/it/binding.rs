//! What workerd speaks for a queue binding.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{Server, send, text};

/// A request as workerd sends it, with the headers that its configuration adds.
fn binding(server: &Server, method: Method, path: &str, queue: &str) -> RequestBuilder {
    let request = server.request(method, path).bearer_auth(server.setting("CF_QUEUES_API_TOKEN"));
    if queue.is_empty() { request } else { request.header("x-queue-name", queue) }
}

#[tokio::test]
async fn every_kind_of_message_arrives_as_it_was_sent() {
    let server = Server::start().await;
    let queue = server.queue("bound", json!({})).await;
    let message = |format: Option<&'static str>, body: &'static [u8]| {
        let request = binding(&server, Method::POST, "/message", "bound");
        let request = request.header("content-type", "application/octet-stream").body(body);
        if let Some(format) = format { request.header("x-msg-fmt", format) } else { request }
    };
    let first = send(message(Some("json"), b"{\"a\":1}")).await;
    assert_eq!(first.status, 200, "{first:?}");
    let metrics = first.json()["metadata"]["metrics"].clone();
    assert_eq!((&metrics["backlogCount"], &metrics["backlogBytes"]), (&json!(1), &json!(7)));
    assert!(metrics["oldestMessageTimestamp"].as_i64().unwrap() > 0);
    let others: [(Option<&'static str>, &'static [u8]); 4] =
        [(Some("text"), b"plain"), (Some("bytes"), b"\xff\x00"), (Some("v8"), b"\xff\x0f"), (None, b"\x01")];
    for (format, body) in others {
        assert_eq!(send(message(format, body)).await.status, 200);
    }
    let batch = json!({"messages": [
        {"body": "Ym9keQ==", "contentType": "text"},
        {"body": "Ym9keQ=="},
        {"body": "MQ==", "contentType": "json", "delaySecs": 3600},
    ]});
    let request = binding(&server, Method::POST, "/binding/bound/batch", "");
    let request = request.header("cf-queue-batch-count", "3").json(&batch);
    assert_eq!(send(request).await.json()["metadata"]["metrics"]["backlogCount"], 8);

    let pulled = server.pull(&queue, json!({"batch_size": 100})).await;
    let seen: Vec<(&str, &str)> =
        pulled.iter().map(|message| (text(&message["metadata"]["CF-Content-Type"]), text(&message["body"]))).collect();
    let expected = [
        ("json", "{\"a\":1}"),
        ("text", "plain"),
        ("bytes", "/wA="),
        ("v8", "/w8="),
        ("v8", "AQ=="),
        ("text", "body"),
        ("v8", "Ym9keQ=="),
    ];
    assert_eq!(seen, expected, "and the delayed one is not due");
    assert_eq!(pulled[0]["metadata"]["CF-sourceMessageSource"], "worker");
    let metrics = send(binding(&server, Method::GET, "/metrics", "bound")).await.json();
    assert_eq!((&metrics["backlogCount"], metrics.get("metadata")), (&json!(8), None));
}

#[tokio::test]
async fn delays_of_messages_and_batches_hold() {
    let server = Server::start().await;
    let queue = server.queue("bound", json!({})).await;
    let request = binding(&server, Method::POST, "/message", "bound").header("x-msg-fmt", "text");
    assert_eq!(send(request.header("x-msg-delay-secs", "3600").body("later")).await.status, 200);
    let batch = json!({"messages": [
        {"body": "bGF0ZXI=", "contentType": "text"},
        {"body": "bm93", "contentType": "text", "delaySecs": 0},
    ]});
    let request = binding(&server, Method::POST, "/batch", "bound").header("x-msg-delay-secs", "3600").json(&batch);
    assert_eq!(send(request).await.status, 200);
    let pulled = server.pull(&queue, json!({"batch_size": 100})).await;
    let bodies: Vec<&str> = pulled.iter().map(|message| text(&message["body"])).collect();
    assert_eq!(bodies, ["now"]);
}

#[tokio::test]
async fn refusals_tell_the_worker_what_to_throw() {
    let server = Server::start().await;
    let post = |path: &str, queue: &str| binding(&server, Method::POST, path, queue);
    let large = vec![b'x'; 127_901];
    let huge = vec![b'x'; 1_000_000];
    let batch = |value: Value| post("/batch", "hpc-jobs").json(&value);
    #[rustfmt::skip]
    let cases = [
        (server.request(Method::POST, "/message").header("x-queue-name", "hpc-jobs").body("x"), 401, "10000"),
        (post("/message", "").body("x"), 400, "10104"),
        (post("/message", "none").body("x"), 404, "10104"),
        (post("/message", "hpc-jobs").header("x-msg-fmt", "xml").body("x"), 400, "10203"),
        (post("/message", "hpc-jobs").header("x-msg-fmt", "json").body("{"), 400, "10203"),
        (post("/message", "hpc-jobs").header("x-msg-fmt", "text").body(vec![0xff_u8]), 400, "10203"),
        (post("/message", "hpc-jobs").header("x-msg-delay-secs", "soon").body("x"), 400, "10203"),
        (post("/message", "hpc-jobs").header("x-msg-delay-secs", "86401").body("x"), 400, "10203"),
        (post("/message", "hpc-jobs").body(large), 413, "10204"),
        (post("/message", "hpc-jobs").header("x-msg-fmt", "json").body(huge), 413, "10204"),
        (batch(json!({"messages": []})), 400, "10207"),
        (batch(json!({"messages": [{"body": "?"}]})), 400, "10207"),
        (batch(json!({"messages": [{}]})), 400, "10207"),
        (post("/batch", "hpc-jobs").body("no json"), 400, "10208"),
        (binding(&server, Method::GET, "/message", "hpc-jobs"), 405, "10405"),
    ];
    for (number, (request, status, code)) in cases.into_iter().enumerate() {
        let answer = send(request).await;
        let thrown = (answer.status, answer.header("cf-queues-error-code"));
        assert_eq!(thrown, (status, Some(code)), "case {number}: {answer:?}");
        assert!(!answer.header("cf-queues-error-cause").unwrap_or_default().is_empty(), "case {number}: {answer:?}");
    }
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    assert_eq!(server.get(&format!("/{jobs}/metrics")).await["backlog_count"], 0);
}
