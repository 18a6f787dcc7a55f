//! Pulls that are held open until something comes.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::server::{Answer, PATIENCE, Server, send, text};

/// A pull that is not held is answered within this, and one that is held is still open after it.
const SOON: Duration = Duration::from_millis(400);

/// Longer than anything takes but a hold that runs to its end.
const HOLD: u64 = 20;

async fn pull(server: &Server, queue: &str, wait: u64) -> Answer {
    let request = server.api_request(Method::POST, &format!("/{queue}/messages/pull"));
    let request = request.json(&json!({"visibility_timeout_ms": 60_000}));
    send(if wait == 0 { request } else { request.header("prefer", format!("wait={wait}")) }).await
}

/// Pulls, does `then` once the pull is held for sure, and returns its answer, which must come before the hold is over.
async fn held_until(server: &Server, queue: &str, then: impl AsyncFnOnce()) -> Answer {
    let begun = Instant::now();
    let mut pull = std::pin::pin!(pull(server, queue, HOLD));
    assert!(timeout(SOON, &mut pull).await.is_err(), "the pull was answered at once");
    then().await;
    let answer = pull.await;
    assert!(begun.elapsed() < Duration::from_secs(HOLD) / 2, "it came after {:?}", begun.elapsed());
    answer
}

fn bodies(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let messages = answer.json()["result"]["messages"].as_array().expect("a pull has messages").clone();
    messages.iter().map(|message| text(&message["body"]).to_owned()).collect()
}

fn held(answer: &Answer) -> Option<Duration> {
    answer.header("hpc-queue-held-ms").map(|held| Duration::from_millis(held.parse().expect("it is a number")))
}

async fn push(server: &Server, queue: &str, body: &str) {
    server.post(&format!("/{queue}/messages"), json!({"body": body, "content_type": "text"})).await;
}

#[tokio::test]
async fn who_does_not_ask_is_answered_at_once_and_told_that_one_may() {
    let server = Server::start().await;
    let queue = server.queue("plain", json!({})).await;
    let answer = timeout(PATIENCE, pull(&server, &queue, 0)).await.unwrap();
    assert_eq!((bodies(&answer), held(&answer)), (Vec::new(), None));
    assert_eq!(answer.header("hpc-queue-hold-max"), Some("25"));
}

#[tokio::test]
async fn a_message_ends_the_hold() {
    let server = Server::start().await;
    let queue = server.queue("held", json!({})).await;
    let answer = held_until(&server, &queue, async || push(&server, &queue, "a").await).await;
    assert_eq!(bodies(&answer), ["a"]);
    assert!(held(&answer).is_some_and(|held| held >= SOON), "{answer:?}");
    // What is there already is not waited for.
    push(&server, &queue, "b").await;
    let answer = pull(&server, &queue, HOLD).await;
    assert_eq!(bodies(&answer), ["b"]);
    assert!(held(&answer).is_some_and(|held| held < SOON), "{answer:?}");
}

#[tokio::test]
async fn so_does_one_that_is_given_back_or_comes_into_sight_with_time() {
    let server = Server::start().await;
    let queue = server.queue("later", json!({"settings": {"visibility_timeout_ms": 1_000}})).await;
    push(&server, &queue, "a").await;
    let lease = server.pull_one(&queue, json!({"visibility_timeout_ms": 60_000})).await["lease_id"].clone();
    let give_back = async || {
        server.post(&format!("/{queue}/messages/ack"), json!({"retries": [{"lease_id": lease}]})).await;
    };
    assert_eq!(bodies(&held_until(&server, &queue, give_back).await), ["a"]);

    let delayed = json!({"body": "b", "content_type": "text", "delay_seconds": 1});
    server.post(&format!("/{queue}/messages"), delayed).await;
    assert_eq!(bodies(&held_until(&server, &queue, async || {}).await), ["b"]);

    push(&server, &queue, "c").await;
    server.pull_one(&queue, json!({})).await;
    assert_eq!(bodies(&held_until(&server, &queue, async || {}).await), ["c"], "its lease has lapsed");
}

#[tokio::test]
async fn a_dead_letter_ends_the_hold_of_its_queue() {
    let server = Server::start().await;
    let consumer = json!({"dead_letter_queue": "dead", "settings": {"max_retries": 0}});
    let (dead, queue) = (server.queue("dead", json!({})).await, server.queue("alive", consumer).await);
    push(&server, &queue, "a").await;
    let lease = server.pull_one(&queue, json!({})).await["lease_id"].clone();
    let fail = async || {
        server.post(&format!("/{queue}/messages/ack"), json!({"retries": [{"lease_id": lease}]})).await;
    };
    assert_eq!(bodies(&held_until(&server, &dead, fail).await), ["a"]);
}

#[tokio::test]
async fn with_nothing_to_give_it_ends_when_its_time_is_over() {
    let server = Server::start().await;
    let queue = server.queue("nothing", json!({})).await;
    let answer = pull(&server, &queue, 1).await;
    assert_eq!(bodies(&answer), Vec::<String>::new());
    assert!(held(&answer).is_some_and(|held| held >= Duration::from_secs(1)), "{answer:?}");
}

#[tokio::test]
async fn a_queue_that_is_paused_or_deleted_ends_the_hold() {
    let server = Server::start().await;
    let queue = server.queue("changed", json!({})).await;
    let path = format!("/{queue}");
    let pause = json!({"settings": {"delivery_paused": true}});
    let paused = held_until(&server, &queue, async || drop(server.ok(Method::PATCH, &path, pause).await)).await;
    assert_eq!(paused.status, 409);
    server.ok(Method::PATCH, &path, json!({"settings": {"delivery_paused": false}})).await;
    let gone = held_until(&server, &queue, async || drop(server.api(Method::DELETE, &path, Value::Null).await)).await;
    assert_eq!((gone.status, gone.code()), (404, 10104));
}

#[tokio::test]
async fn one_message_goes_to_one_of_those_who_wait() {
    let server = Server::start().await;
    let queue = server.queue("several", json!({})).await;
    let mut second = std::pin::pin!(pull(&server, &queue, HOLD));
    let first = held_until(&server, &queue, async || {
        assert!(timeout(SOON, &mut second).await.is_err(), "the second pull was answered at once");
        push(&server, &queue, "a").await;
        // Whoever does not get the first one goes on waiting for the second.
        push(&server, &queue, "b").await;
    });
    let first = first.await;
    let mut both = bodies(&first);
    if both.len() < 2 {
        both.extend(bodies(&second.await));
    }
    both.sort();
    assert_eq!(both, ["a", "b"]);
}

/// Who gives a message back and asks again comes after those who have been there before, and does not keep it from
/// them.
#[tokio::test]
async fn who_waits_longest_is_the_first_to_have_something() {
    let server = Server::start().await;
    let queue = server.queue("line", json!({})).await;
    let mut line = Vec::new();
    for _ in 0..6 {
        let mut next = Box::pin(pull(&server, &queue, HOLD));
        assert!(timeout(SOON, &mut next).await.is_err(), "the pull was answered at once");
        line.push(next);
    }
    // The second of them gives up.
    drop(line.remove(1));
    for (no, next) in line.into_iter().enumerate() {
        let body = format!("message {no}");
        push(&server, &queue, &body).await;
        assert_eq!(bodies(&next.await), [body]);
    }
}

#[tokio::test]
async fn nothing_is_leased_to_a_client_that_has_gone_away() {
    let server = Server::start().await;
    let queue = server.queue("gone", json!({})).await;
    let address = server.setting("PRODUCER_URL").strip_prefix("http://").unwrap().to_owned();
    let (account, token) = (server.setting("CF_ACCOUNT_ID"), server.setting("CF_QUEUES_API_TOKEN"));
    let mut stream = TcpStream::connect(&address).unwrap();
    let request = format!(
        "POST /client/v4/accounts/{account}/queues/{queue}/messages/pull HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {token}\r\nprefer: wait={HOLD}\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    std::io::Read::read(&mut stream, &mut [0]).expect_err("the pull was answered at once");
    drop(stream);
    push(&server, &queue, "a").await;
    let message = server.pull_one(&queue, json!({})).await;
    assert_eq!(message["attempts"], 1, "it was delivered to nobody before");
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_the_end_of_a_hold() {
    let mut server = Server::start().await;
    let queue = server.queue("stopped", json!({})).await;
    let request = server.api_request(Method::POST, &format!("/{queue}/messages/pull"));
    let mut pull = tokio::spawn(send(request.json(&json!({})).header("prefer", format!("wait={HOLD}"))));
    assert!(timeout(SOON, &mut pull).await.is_err(), "the pull was answered at once");
    let begun = Instant::now();
    assert!(server.stop().await.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "it stopped after {:?}", begun.elapsed());
    assert_eq!(bodies(&pull.await.unwrap()), Vec::<String>::new(), "and it was answered");
}
