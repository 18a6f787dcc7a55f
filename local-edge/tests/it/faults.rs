//! Faults on demand: every kind against the real program, and none of them unless it was asked for.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{Answer, PATIENCE, Server, send, text};

const HOUR_MS: i64 = 3_600_000;

async fn start() -> Server {
    Server::start_with(&["--faults"], &[]).await
}

fn control(server: &Server, method: Method) -> RequestBuilder {
    server.request(method, "/faults").bearer_auth(server.setting("CF_QUEUES_API_TOKEN"))
}

/// Sets a plan of these rules.
async fn set(server: &Server, rules: Value) {
    let answer = send(control(server, Method::PUT).json(&json!({"seed": 1, "rules": rules}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn set_right(server: &Server) {
    assert_eq!(send(control(server, Method::DELETE)).await.status, 200);
}

async fn injected(server: &Server, kind: &str) -> u64 {
    let report = send(control(server, Method::GET)).await.json();
    report["injected"][kind].as_u64().unwrap_or_else(|| panic!("no count of {kind}: {report}"))
}

async fn backlog(server: &Server, queue: &str) -> u64 {
    server.get(&format!("/{queue}/metrics")).await["backlog_count"].as_u64().expect("a backlog is a number")
}

async fn push(server: &Server, queue: &str, body: &str) -> Answer {
    let message = json!({"body": body, "content_type": "text"});
    server.api(Method::POST, &format!("/{queue}/messages"), message).await
}

async fn pull(server: &Server, queue: &str) -> Answer {
    server.api(Method::POST, &format!("/{queue}/messages/pull"), json!({})).await
}

fn job(server: &Server) -> RequestBuilder {
    let request = server.request(Method::POST, "/jobs").header("x-api-key", server.setting("API_KEY"));
    request.header("content-type", "application/json").body(r#"{"task":"echo"}"#)
}

/// What the binding of a Worker sends.
fn sent(server: &Server, queue: &str) -> RequestBuilder {
    let request = server.request(Method::POST, &format!("/binding/{queue}/message"));
    request.bearer_auth(server.setting("CF_QUEUES_API_TOKEN")).header("x-msg-fmt", "text").body("a")
}

/// Sends a request to the queue API over a connection of its own; every byte that comes before that closes.
fn bytes_of_answer(server: &Server, path: &str, body: &Value) -> Vec<u8> {
    let address = server.setting("PRODUCER_URL").strip_prefix("http://").expect("it is an address of HTTP");
    let (account, token) = (server.setting("CF_ACCOUNT_ID"), server.setting("CF_QUEUES_API_TOKEN"));
    let body = body.to_string();
    let request = format!(
        "POST /client/v4/accounts/{account}/queues{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    received
}

#[tokio::test]
async fn without_the_flag_there_is_no_way_in() {
    let server = Server::start_with(&[], &[("LOCAL_EDGE_FAULTS", "")]).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = send(control(&server, method).json(&json!({"seed": 1, "rules": [{"fault": "paused"}]}))).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")), "{answer:?}");
    }
    assert_eq!(pull(&server, server.setting("CF_JOBS_QUEUE_ID")).await.status, 200);
    assert!(!server.log().contains("--faults"), "{}", server.log());
}

#[tokio::test]
async fn a_plan_is_set_shown_and_taken_away() {
    let server = Server::start_with(&[], &[("LOCAL_EDGE_FAULTS", "1")]).await;
    assert!(server.log().contains("--faults (LOCAL_EDGE_FAULTS) is on"), "{}", server.log());
    let jobs = server.setting("CF_JOBS_QUEUE_ID");
    assert_eq!(pull(&server, jobs).await.status, 200, "nothing goes wrong before a plan is set");

    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert_eq!(send(server.request(method, "/faults")).await.status, 401);
    }
    let post = send(control(&server, Method::POST)).await;
    assert_eq!((post.status, &post.json()["error"]), (405, &json!("this path takes GET, PUT and DELETE")));

    let plan = json!({"seed": 7, "rules": [{"fault": "paused", "count": 2}]});
    let answer = send(control(&server, Method::PUT).json(&plan)).await;
    assert_eq!((answer.status, &answer.json()["plan"]), (200, &plan), "{answer:?}");
    // A plan that is none leaves the one before it in force.
    for (body, problem) in [
        ("{", "the plan cannot be read: EOF"),
        (r#"{"seed": 1, "rules": [{"fault": "fire"}]}"#, "unknown variant `fire`"),
        (r#"{"seed": 1, "rules": [{"fault": "delay"}]}"#, "rules[0] (delay): `milliseconds` is missing"),
    ] {
        let refused = send(control(&server, Method::PUT).body(body)).await;
        let said = refused.json();
        assert!(refused.status == 400 && text(&said["error"]).contains(problem), "{body}: {refused:?}");
    }
    let large = format!("{}{{}}", " ".repeat(100_000));
    assert_eq!(send(control(&server, Method::PUT).body(large)).await.status, 413);
    assert_eq!(pull(&server, jobs).await.status, 409);

    let answer = send(control(&server, Method::DELETE)).await.json();
    assert_eq!((&answer["plan"], &answer["injected"]["paused"]), (&Value::Null, &json!(1)), "{answer}");
    assert_eq!(pull(&server, jobs).await.status, 200);
    assert_eq!(send(control(&server, Method::GET)).await.json(), answer, "counts stay");
}

#[tokio::test]
async fn a_dropped_request_is_not_done_and_a_dropped_response_is() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    let path = format!("/{queue}/messages");
    let message = json!({"body": "a", "content_type": "text"});

    set(&server, json!([{"fault": "drop_request", "operations": ["push"], "count": 1}])).await;
    assert_eq!(bytes_of_answer(&server, &path, &message), b"");
    assert_eq!((backlog(&server, queue).await, injected(&server, "drop_request").await), (0, 1));

    set(&server, json!([{"fault": "drop_response", "operations": ["push"], "count": 1}])).await;
    assert_eq!(bytes_of_answer(&server, &path, &message), b"");
    assert_eq!((backlog(&server, queue).await, injected(&server, "drop_response").await), (1, 1));

    let answered = bytes_of_answer(&server, &path, &message);
    assert!(answered.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answered));
    assert_eq!(backlog(&server, queue).await, 2);
}

#[tokio::test]
async fn what_came_of_a_dropped_response_is_on_disk() {
    let mut server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID").to_owned();
    push(&server, &queue, "a").await;
    set(&server, json!([{"fault": "drop_response", "operations": ["pull"]}])).await;
    let lease = json!({"visibility_timeout_ms": HOUR_MS});
    assert_eq!(bytes_of_answer(&server, &format!("/{queue}/messages/pull"), &lease), b"");
    server.kill();
    server.start_again().await;
    assert_eq!(backlog(&server, &queue).await, 1);
    assert_eq!(pull(&server, &queue).await.json()["result"]["messages"], json!([]), "it is leased to nobody we know");
}

#[tokio::test]
async fn a_delay_is_waited_for() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "delay", "milliseconds": 500, "operations": ["pull"], "count": 1}])).await;
    let begun = Instant::now();
    assert_eq!(pull(&server, queue).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(500), "it came after {:?}", begun.elapsed());
    assert_eq!(injected(&server, "delay").await, 1);
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_again_in_each_clients_form() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "too_many_requests", "retry_after_seconds": 7}])).await;
    let pulled = pull(&server, queue).await;
    assert_eq!((pulled.status, pulled.code()), (429, 10250));
    let bound = send(sent(&server, "hpc-jobs")).await;
    assert_eq!((bound.status, bound.header("cf-queues-error-code")), (429, Some("10250")));
    let submitted = send(job(&server)).await;
    assert_eq!((submitted.status, &submitted.json()["code"]), (429, &json!("queue_full")));
    for answer in [&pulled, &bound, &submitted] {
        assert_eq!(answer.header("retry-after"), Some("7"), "{answer:?}");
    }
    assert_eq!(send(server.request(Method::GET, "/health")).await.status, 200, "health is not disturbed");
    set_right(&server).await;
    assert_eq!((backlog(&server, queue).await, injected(&server, "too_many_requests").await), (0, 3));
}

#[tokio::test]
async fn an_allowance_that_is_used_up_and_a_queue_that_is_disabled_have_their_own_codes() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    let used_up = ("free_tier_limit_exceeded", 10_253, "allows for a day is used up, until ");
    for (fault, code, said) in [used_up, ("queue_disabled", 10_252, "the queue is disabled")] {
        set(&server, json!([{"fault": fault, "count": 3}])).await;
        let pulled = pull(&server, queue).await;
        assert_eq!((pulled.status, pulled.code()), (429, code));
        let bound = send(sent(&server, "hpc-jobs")).await;
        assert_eq!((bound.status, bound.header("cf-queues-error-code")), (429, Some(code.to_string().as_str())));
        for answer in [&pulled, &bound] {
            assert_eq!(answer.header("retry-after"), None, "to come again soon is of no use: {answer:?}");
        }
        let submitted = send(job(&server)).await;
        assert_eq!(submitted.status, 429);
        assert!(submitted.text.contains(said), "{submitted:?}");
        assert_eq!((backlog(&server, queue).await, injected(&server, fault).await), (0, 3));
    }
}

#[tokio::test]
async fn server_errors_come_from_the_service_or_from_what_stands_before_it() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "server_error"}])).await;
    let pushed = push(&server, queue, "a").await;
    assert_eq!((pushed.status, pushed.code()), (500, 15000));
    let bound = send(sent(&server, "hpc-jobs")).await;
    assert_eq!((bound.status, bound.header("cf-queues-error-code")), (500, Some("15000")));
    let submitted = send(job(&server)).await;
    assert_eq!((submitted.status, &submitted.json()["code"]), (500, &json!("internal")));

    set(&server, json!([{"fault": "server_error", "status": 503, "operations": ["push"]}])).await;
    let pushed = push(&server, queue, "a").await;
    assert_eq!((pushed.status, pushed.header("content-type")), (503, Some("text/html")), "{pushed:?}");
    assert_eq!(backlog(&server, queue).await, 0, "nothing of it was done");

    set(&server, json!([{"fault": "server_error", "done": true, "operations": ["push"]}])).await;
    assert_eq!(push(&server, queue, "a").await.status, 500);
    assert_eq!((backlog(&server, queue).await, injected(&server, "server_error").await), (1, 5));
}

#[tokio::test]
async fn a_pause_refuses_pulls_only() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "paused", "count": 2}])).await;
    assert_eq!(push(&server, queue, "a").await.status, 200);
    for _ in 0..2 {
        let paused = pull(&server, queue).await;
        assert_eq!(paused.status, 409);
        assert_eq!(paused.json()["errors"][0]["message"], "queue_delivery_paused");
    }
    assert_eq!(pull(&server, queue).await.json()["result"]["messages"][0]["body"], "a");
    assert_eq!(injected(&server, "paused").await, 2);
}

#[tokio::test]
async fn garbage_is_200_and_no_answer() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "garbage", "operations": ["push"], "count": 10}])).await;
    for _ in 0..10 {
        let answer = push(&server, queue, "a").await;
        let json = serde_json::from_str::<Value>(&answer.text);
        assert!(answer.status == 200 && !json.is_ok_and(|value| value.is_object()), "{answer:?}");
    }
    assert_eq!((backlog(&server, queue).await, injected(&server, "garbage").await), (0, 10));
    set(&server, json!([{"fault": "garbage", "operations": ["push"], "done": true, "count": 1}])).await;
    assert_eq!(push(&server, queue, "a").await.status, 200);
    assert_eq!(backlog(&server, queue).await, 1);
}

#[tokio::test]
async fn a_leased_message_is_delivered_twice() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "duplicate_delivery", "count": 1}])).await;
    push(&server, queue, "a").await;
    let lease = json!({"visibility_timeout_ms": HOUR_MS});
    let first = server.pull_one(queue, lease.clone()).await;
    assert_eq!((&first["attempts"], injected(&server, "duplicate_delivery").await), (&json!(1), 0));
    let second = server.pull_one(queue, lease.clone()).await;
    assert_eq!((&second["id"], &second["body"], &second["attempts"]), (&first["id"], &first["body"], &json!(2)));
    assert_ne!(second["lease_id"], first["lease_id"]);
    assert_eq!(server.pull(queue, lease).await, Vec::<Value>::new(), "one duplicate was asked for");
    // The first holder has lost the lease, but its acknowledgement counts, as for any late one.
    let retry = json!({"retries": [{"lease_id": first["lease_id"]}]});
    assert_eq!(server.post(&format!("/{queue}/messages/ack"), retry).await["retryCount"], 0);
    assert_eq!(server.ack(queue, &first["lease_id"]).await["ackCount"], 1);
    assert_eq!(server.ack(queue, &second["lease_id"]).await["ackCount"], 0);
    assert_eq!(injected(&server, "duplicate_delivery").await, 1);
}

/// In which order 20 messages come.
async fn order_of_deliveries(rules: Value) -> Vec<String> {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, rules).await;
    for number in 0..20 {
        assert_eq!(push(&server, queue, &format!("{number:02}")).await.status, 200);
    }
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let pulled = server.pull(queue, json!({"batch_size": 5, "visibility_timeout_ms": HOUR_MS})).await;
        bodies.extend(pulled.iter().map(|message| text(&message["body"]).to_owned()));
    }
    bodies
}

#[tokio::test]
async fn messages_come_in_another_order_that_the_seed_gives_again() {
    let in_order = order_of_deliveries(json!([])).await;
    let mixed = order_of_deliveries(json!([{"fault": "reorder"}])).await;
    assert_ne!(mixed, in_order);
    assert_eq!(order_of_deliveries(json!([{"fault": "reorder"}])).await, mixed);
    let mut sorted = mixed;
    sorted.sort();
    assert_eq!(sorted, in_order, "none is lost, and none comes twice");
}

#[tokio::test]
async fn the_clock_jumps_forward_and_back() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    let delayed = json!({"body": "later", "content_type": "text", "delay_seconds": 3_600});
    let published = {
        server.post(&format!("/{queue}/messages"), delayed).await;
        assert_eq!(server.pull(queue, json!({})).await, Vec::<Value>::new());
        let jump = HOUR_MS + 60_000;
        set(&server, json!([{"fault": "clock_jump", "milliseconds": jump, "operations": ["pull"], "count": 1}])).await;
        let pulled = server.pull_one(queue, json!({"visibility_timeout_ms": 1_000})).await;
        assert_eq!(send(control(&server, Method::GET)).await.json()["clock_offset_ms"], jump);
        pulled["timestamp_ms"].as_i64().expect("a time is a number")
    };
    // The clock is right again, and the lease ends an hour from now: nobody gets the message before.
    set_right(&server).await;
    assert_eq!(server.pull(queue, json!({})).await, Vec::<Value>::new());

    let back = json!([{"fault": "clock_jump", "milliseconds": -HOUR_MS, "operations": ["jobs"], "count": 1}]);
    set(&server, back).await;
    assert_eq!(send(job(&server)).await.status, 202);
    let pulled = server.pull_one(queue, json!({})).await;
    let behind = published - pulled["timestamp_ms"].as_i64().expect("a time is a number");
    assert!((HOUR_MS / 2..=HOUR_MS).contains(&behind), "the job was queued {behind} ms before the message");
    let job: Value = serde_json::from_str(text(&pulled["body"])).expect("a job is JSON");
    server.ack(queue, &pulled["lease_id"]).await;
    set_right(&server).await;
    assert_eq!(send(self::job(&server)).await.status, 202);
    let pulled = server.pull_one(queue, json!({})).await;
    let next: Value = serde_json::from_str(text(&pulled["body"])).expect("a job is JSON");
    assert!(text(&job["created_at"]) < text(&next["created_at"]), "{job} {next}");
    assert_eq!(injected(&server, "clock_jump").await, 2);
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_taken_and_nothing_is_lost() {
    let mut server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID").to_owned();
    push(&server, &queue, "before").await;
    set(&server, json!([{"fault": "disk_full"}])).await;
    for _ in 0..3 {
        let pushed = push(&server, &queue, "during").await;
        assert_eq!((pushed.status, pushed.code()), (500, 15000));
    }
    assert_eq!(pull(&server, &queue).await.status, 500, "a lease is to be written, too");
    let bound = send(sent(&server, "hpc-jobs")).await;
    assert_eq!((bound.status, bound.header("cf-queues-error-code")), (500, Some("15000")));
    let submitted = send(job(&server)).await;
    assert_eq!((submitted.status, &submitted.json()["code"]), (503, &json!("queue_unavailable")));
    assert_eq!(backlog(&server, &queue).await, 1, "what needs no room is answered");
    let peeked = server.post(&format!("/{queue}/messages/peek"), json!({})).await;
    assert_eq!(peeked["messages"][0]["attempts"], 0, "{peeked}");
    let log = server.log();
    assert!(log.contains("the disk refused a transaction") && log.contains("database or disk is full"), "{log}");
    assert!(injected(&server, "disk_full").await >= 6);

    set_right(&server).await;
    push(&server, &queue, "after").await;
    server.kill();
    server.start_again().await;
    let pulled = server.pull(&queue, json!({"batch_size": 100})).await;
    let seen: Vec<(&str, &Value)> =
        pulled.iter().map(|message| (text(&message["body"]), &message["attempts"])).collect();
    assert_eq!(seen, [("before", &json!(1)), ("after", &json!(1))]);
}

#[tokio::test]
async fn a_full_disk_may_pass() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    set(&server, json!([{"fault": "disk_full", "count": 1}])).await;
    assert_eq!(push(&server, queue, "a").await.status, 500);
    assert_eq!(push(&server, queue, "a").await.status, 200);
    assert_eq!((backlog(&server, queue).await, injected(&server, "disk_full").await), (1, 1));
}

#[tokio::test]
async fn the_same_plan_gives_the_same_faults() {
    let server = start().await;
    let queue = server.setting("CF_JOBS_QUEUE_ID");
    let mut histories = Vec::new();
    for seed in [7, 7, 8] {
        let plan = json!({"seed": seed, "rules": [
            {"fault": "too_many_requests", "probability": 0.3},
            {"fault": "server_error", "status": 502, "probability": 0.3},
        ]});
        assert_eq!(send(control(&server, Method::PUT).json(&plan)).await.status, 200);
        let mut history = Vec::new();
        for _ in 0..40 {
            history.push(pull(&server, queue).await.status);
        }
        histories.push(history);
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
    for status in [200, 429, 502] {
        assert!(histories[0].contains(&status), "{:?}", histories[0]);
    }
}
