//! Submitting jobs: the edge's decisions behind this server. All of the decisions have their own tests in crate `edge`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, send, text};

#[tokio::test]
async fn a_job_that_is_answered_202_is_in_the_queue_as_text() {
    let server = Server::start().await;
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    let post = |path: &str, body: Value| {
        let request = server.request(Method::POST, path).header("x-api-key", server.setting("API_KEY"));
        request.header("content-type", "application/json").body(body.to_string())
    };
    let one = send(post("/jobs", json!({"task": "echo", "input": {"a": 1}}))).await;
    assert_eq!(one.status, 202, "{one:?}");
    let batch = send(post("/jobs/batch", json!({"jobs": [{"task": "a"}, {"input": 1}, {"task": "b"}]}))).await;
    assert_eq!(batch.status, 202, "{batch:?}");
    let one = one.json();
    let batch = batch.json();
    assert_eq!((&one["status"], &one["queue"]), (&json!("queued"), &json!("hpc-jobs")));
    let pulled = server.pull(jobs, json!({"batch_size": 100})).await;
    let seen: Vec<(Value, Value)> = pulled
        .iter()
        .map(|message| {
            assert_eq!(message["metadata"]["CF-Content-Type"], "text");
            let job: Value = serde_json::from_str(text(&message["body"])).unwrap();
            (job["job_id"].clone(), job["task"].clone())
        })
        .collect();
    let answered = [
        (one["job_id"].clone(), json!("echo")),
        (batch["jobs"][0]["job_id"].clone(), json!("a")),
        (batch["jobs"][2]["job_id"].clone(), json!("b")),
    ];
    assert_eq!(seen, answered);
    let keyed = || post("/jobs", json!({"task": "echo"})).header("idempotency-key", "run-1");
    let (first, second) = (send(keyed()).await.json(), send(keyed()).await.json());
    assert_eq!(first["job_id"], second["job_id"]);
}

#[tokio::test]
async fn refusals_are_the_edges() {
    let server = Server::start().await;
    let key = server.setting("API_KEY").to_owned();
    let post = |key: &str| {
        let request = server.request(Method::POST, "/jobs").header("x-api-key", key);
        request.header("content-type", "application/json")
    };
    let job = "{\"task\":\"echo\"}";
    let cases = [
        (server.request(Method::GET, "/health"), 200),
        (server.request(Method::GET, "/other"), 404),
        (server.request(Method::GET, "/jobs"), 401),
        (server.request(Method::DELETE, "/jobs"), 405),
        (post("wrong").body(job), 401),
        (post(&key).body("{"), 400),
        (post(&key).body("{}"), 422),
        (post(&key).body(vec![b' '; 1_000_001]), 413),
        (post(&key).body(format!("{{\"task\":\"echo\",\"input\":\"{}\"}}", "x".repeat(128_000))), 413),
    ];
    for (number, (request, status)) in cases.into_iter().enumerate() {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "case {number}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "case {number}");
        }
    }
    // No queue, no 202.
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    server.ok(Method::DELETE, &format!("/{jobs}"), Value::Null).await;
    let unavailable = send(post(&key).body(job)).await;
    assert_eq!(unavailable.status, 503, "{unavailable:?}");
    assert!(unavailable.header("retry-after").is_some(), "{unavailable:?}");
}

#[tokio::test]
async fn key_and_token_of_the_environment_are_taken() {
    let environment = [
        ("HPC_QUEUE_API_KEY", "my$key"),
        ("API_KEY", "of another service"),
        ("CF_QUEUES_API_TOKEN", "my-token"),
        ("LOCAL_EDGE_ENV_FILE", ""),
    ];
    let server = Server::start_with(&[], &environment).await;
    assert_eq!((server.setting("API_KEY"), server.setting("CF_QUEUES_API_TOKEN")), ("my$key", "my-token"));
    let request = server.request(Method::POST, "/jobs").header("x-api-key", "my$key");
    let answer = send(request.header("content-type", "application/json").body("{\"task\":\"echo\"}")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(server.get("").await.as_array().unwrap().len(), 3);
}
