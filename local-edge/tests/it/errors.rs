//! Every refusal of the queue API: its status and code.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, send};

#[tokio::test]
async fn refusals_have_the_services_codes() {
    let server = Server::start().await;
    let id = server.queue("errors", json!({})).await;
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    let (none, nobody) = ("f".repeat(32), "e".repeat(32));
    let of = |queue: &str, rest: &str| format!("/{queue}{rest}");
    let large = "x".repeat(127_901);
    let half = "x".repeat(85_300);
    let many: Vec<Value> = (0..101).map(|_| json!({"body": 1})).collect();
    let message = |body: &str| json!({"body": body, "content_type": "text"});
    let long_retry = json!({"retries": [{"lease_id": "x", "delay_seconds": 86_401}]});
    let post = Method::POST;

    #[rustfmt::skip]
    let cases = [
        // Paths and methods.
        (Method::GET, of("not-an-id", ""), json!(null), 400, 10107),
        (post.clone(), of("hpc-jobs", "/messages/pull"), json!({}), 400, 10107),
        (Method::GET, of(&none, ""), json!(null), 404, 11000),
        (Method::DELETE, of(&none, ""), json!(null), 404, 11000),
        (Method::GET, of(&none, "/consumers"), json!(null), 404, 11000),
        (post.clone(), of(&none, "/messages/pull"), json!({}), 404, 10104),
        (post.clone(), of(&none, "/messages/ack"), json!({}), 404, 10104),
        (post.clone(), of(&none, "/messages"), json!({"body": 1}), 404, 10104),
        (Method::GET, of(&none, "/metrics"), json!(null), 404, 10104),
        (Method::GET, of(&id, "/other"), json!(null), 404, 7003),
        (Method::GET, of(&id, "/messages/pull"), json!(null), 405, 10405),
        (Method::DELETE, "".to_owned(), json!(null), 405, 10405),
        // Pull, acknowledge, peek.
        (post.clone(), of(&id, "/messages/pull"), json!({"batch_size": 0}), 400, 10026),
        (post.clone(), of(&id, "/messages/pull"), json!({"batch_size": 101}), 400, 10026),
        (post.clone(), of(&id, "/messages/pull"), json!({"batch_size": "5"}), 400, 10026),
        (post.clone(), of(&id, "/messages/pull"), json!({"visibility_timeout_ms": 43_200_001}), 400, 10026),
        (post.clone(), of(&id, "/messages/pull"), json!({"visibility_timeout_ms": -1}), 400, 10026),
        (post.clone(), of(&id, "/messages/pull"), json!([1]), 400, 10026),
        (post.clone(), of(&id, "/messages/ack"), json!({"acks": ["bare"]}), 400, 10026),
        (post.clone(), of(&id, "/messages/ack"), long_retry, 400, 10026),
        (post.clone(), of(&id, "/messages/peek"), json!({"batch_size": 101}), 400, 10026),
        (post.clone(), of(&id, "/messages/purge"), json!({}), 400, 10207),
        // Push.
        (post.clone(), of(&id, "/messages"), json!({}), 400, 10207),
        (post.clone(), of(&id, "/messages"), json!({"body": {}, "content_type": "text"}), 400, 10207),
        (post.clone(), of(&id, "/messages"), json!({"body": 1, "content_type": "v8"}), 400, 10203),
        (post.clone(), of(&id, "/messages"), json!({"body": 1, "delay_seconds": 86_401}), 400, 10203),
        (post.clone(), of(&id, "/messages"), message(&large), 413, 10204),
        (post.clone(), of(&id, "/messages/batch"), json!({"messages": []}), 400, 10207),
        (post.clone(), of(&id, "/messages/batch"), json!({"messages": [{"body": 1}], "delay_seconds": 86_401}), 400, 10202),
        (post.clone(), of(&id, "/messages/batch"), json!({"messages": [message(&half), message(&half), message(&half)]}), 413, 10205),
        (post.clone(), of(&id, "/messages/batch"), json!({"messages": many}), 413, 10206),
        // Queues.
        (post.clone(), "".to_owned(), json!({"queue_name": "errors"}), 409, 11009),
        (post.clone(), "".to_owned(), json!({"queue_name": "not a name"}), 400, 11003),
        (post.clone(), "".to_owned(), json!({}), 400, 10026),
        (post.clone(), "".to_owned(), json!({"queue_name": "q", "settings": {"delivery_delay": 86_401}}), 400, 100_128),
        (Method::PATCH, of(&id, ""), json!({"settings": {"message_retention_period": 59}}), 400, 100_128),
        (Method::PUT, of(&id, ""), json!({"queue_name": "hpc-jobs"}), 409, 11009),
        (post.clone(), of(&id, "/purge"), json!({"delete_messages_permanently": false}), 400, 10026),
        (Method::GET, "?page=0".to_owned(), json!(null), 400, 10026),
        // Consumers.
        (post.clone(), of(jobs, "/consumers"), json!({"type": "http_pull"}), 409, 11004),
        (post.clone(), of(&id, "/consumers"), json!({"type": "worker", "script_name": "w"}), 400, 100_127),
        (post.clone(), of(&id, "/consumers"), json!({"type": "other"}), 400, 10026),
        (post.clone(), of(&id, "/consumers"), json!({}), 400, 10026),
        (Method::PUT, of(&id, &format!("/consumers/{nobody}")), json!({"type": "http_pull"}), 409, 11004),
        (Method::GET, of(&id, &format!("/consumers/{nobody}")), json!(null), 404, 7003),
        (Method::DELETE, of(&id, &format!("/consumers/{nobody}")), json!(null), 404, 7003),
    ];
    for (method, path, body, status, code) in cases {
        let shown: String = format!("{method} {path} {body}").chars().take(200).collect();
        let answer = server.api(method, &path, body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{shown}\n{answer:?}");
    }
    let consumer = server.get(&of(&id, "/consumers")).await[0]["consumer_id"].clone();
    let path = of(&id, &format!("/consumers/{}", consumer.as_str().unwrap()));
    for (settings, dead_letter_queue) in [
        (json!({"max_retries": 101}), ""),
        (json!({"batch_size": 101}), ""),
        (json!({"visibility_timeout_ms": 0}), ""),
        (json!({"retry_delay": 86_401}), ""),
        (json!({}), "errors"),
    ] {
        let body = json!({"type": "http_pull", "settings": settings, "dead_letter_queue": dead_letter_queue});
        let answer = server.api(Method::PUT, &path, body).await;
        assert_eq!((answer.status, answer.code()), (400, 100_127), "{settings}");
    }
    assert_eq!(server.get(&of(&id, "/metrics")).await["backlog_count"], 0, "no refusal has left a message behind");
}

#[tokio::test]
async fn bodies_that_are_not_json_are_told_apart_from_the_wrong_json() {
    let server = Server::start().await;
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    let cases: [(&str, &[u8], i64); 6] = [
        ("/messages/pull", b"", 10208),
        ("/messages/pull", b"{", 10208),
        ("/messages", b"{\"body\": nul}", 10208),
        ("/messages", b"{\"body\": \"\xff\"}", 10208),
        ("/messages/batch", b"[]", 10207),
        ("/messages/ack", b"7", 10026),
    ];
    for (path, body, code) in cases {
        let request = server.api_request(Method::POST, &format!("/{jobs}{path}")).body(body.to_vec());
        let answer = send(request).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{path} {answer:?}");
    }
    // The documentation's own example has no content type.
    let bare = send(server.api_request(Method::POST, &format!("/{jobs}/messages")).body("{\"body\":{}}")).await;
    assert_eq!(bare.status, 200, "{bare:?}");
    let large = server.api_request(Method::POST, &format!("/{jobs}/messages")).body(vec![b' '; 4_000_001]);
    let answer = send(large).await;
    assert_eq!((answer.status, answer.code()), (413, 10205));
}

#[tokio::test]
async fn only_the_token_opens_the_api() {
    let server = Server::start().await;
    let (account, jobs) = (server.setting("CF_ACCOUNT_ID"), server.setting("CF_JOBS_QUEUE_ID"));
    let token = server.setting("CF_QUEUES_API_TOKEN");
    let path = format!("/client/v4/accounts/{account}/queues/{jobs}/messages/pull");
    let basic = format!("Basic {token}");
    let longer = format!("Bearer {token}0");
    let shorter = format!("Bearer {}", &token[1..]);
    for authorization in ["", "Bearer ", "Bearer", &basic, &longer, &shorter, token] {
        let mut request = server.request(Method::POST, &path).body("{}");
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let answer = send(request).await;
        assert_eq!((answer.status, answer.code()), (401, 10000), "{authorization:?}");
        let is_wrong = authorization == longer || authorization == shorter;
        let says = if is_wrong { "is not the one of this server" } else { "send the header" };
        assert!(answer.text.contains(says), "{authorization:?}: {}", answer.text);
    }
    let lower = server.request(Method::POST, &path).header("authorization", format!("bearer {token}")).body("{}");
    assert_eq!(send(lower).await.status, 200);
    for (account, status, code) in [("0".repeat(32), 403, 10000), ("me".to_owned(), 404, 7003)] {
        let request = server.request(Method::GET, &format!("/client/v4/accounts/{account}/queues")).bearer_auth(token);
        let answer = send(request).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{account}");
    }
    let elsewhere = send(server.request(Method::GET, "/client/v4/zones").bearer_auth(token)).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (404, 7003));
}
