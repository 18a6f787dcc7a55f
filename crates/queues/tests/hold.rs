//! Pulls that a server may hold, and what the client makes of answers that are out of bounds: against a server that
//! answers what a test says, and remembers what it was asked.

use std::future::{pending, ready};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::FailureClass;
use queues::{Client, Consumer, Endpoint, PlainHttp, Pulled, QueueInfo};

const EMPTY: &str = r#"{"success":true,"result":{"messages":[]}}"#;
const ONE: &str = r#"{"success":true,"result":{"messages":[{"lease_id":"l","body":"b","attempts":1}]}}"#;
const LEASE: Duration = Duration::from_secs(60);

/// Answers one request after the other, and returns their heads, in lower case.
struct Server {
    base_url: String,
    asked: JoinHandle<Vec<String>>,
}

impl Server {
    /// Each answer: status, further headers, body.
    fn answering(answers: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let base_url = format!("http://{}/client/v4", listener.local_addr().expect("it has an address"));
        let asked = std::thread::spawn(move || {
            let heads = answers.iter().map(|(status, headers, body)| {
                let (mut stream, _) = listener.accept().expect("the client comes");
                let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
                let head = loop {
                    let count = stream.read(&mut buffer).expect("the client sends");
                    assert_ne!(count, 0, "the request ended early");
                    request.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8(request.clone()).expect("requests are text").to_lowercase();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().expect("a length is a number")) {
                        break head.to_owned();
                    }
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).expect("the client reads");
                head
            });
            heads.collect()
        });
        Self { base_url, asked }
    }

    fn client(&self) -> Client {
        let endpoint = Endpoint {
            base_url: self.base_url.clone(),
            account_id: "a".to_owned(),
            api_token: "t".to_owned(),
            api_token_origin: "the test".to_owned(),
            plain_http: PlainHttp::OwnListener,
        };
        let http = queues::http_client(&endpoint.address().expect("the address is one")).expect("a client can be made");
        Client::new(http, &endpoint).expect("the address is one")
    }

    /// What the requests preferred.
    fn preferences(self) -> Vec<Option<String>> {
        let preference = |head: &String| head.lines().find_map(|line| line.strip_prefix("prefer: ")).map(str::to_owned);
        self.asked.join().expect("the server ends well").iter().map(preference).collect()
    }
}

fn wait(seconds: u64) -> Option<String> {
    Some(format!("wait={seconds}"))
}

#[tokio::test]
async fn a_server_that_does_not_say_that_it_holds_pulls_is_not_asked_to() {
    // What it says of a pull that nobody asked it to hold is not believed either.
    let server = Server::answering(&[("200 OK", "hpc-queue-held-ms: 5\r\n", EMPTY), ("200 OK", "", ONE)]);
    let client = server.client();
    for count in [0, 1] {
        let pulled = client.pull_held("q", 1, LEASE, LEASE, pending()).await.unwrap();
        assert_eq!((pulled.deliveries.len(), pulled.held), (count, None));
    }
    assert_eq!(server.preferences(), [None, None]);
}

#[tokio::test]
async fn a_server_that_holds_pulls_is_asked_to_as_soon_as_it_is_known() {
    const HOLDS: &str = "hpc-queue-hold-max: 20\r\n";
    const HELD: &str = "hpc-queue-hold-max: 20\r\nhpc-queue-held-ms: 1500\r\n";
    let answers = &[("200 OK", HOLDS, EMPTY), ("200 OK", HELD, ONE), ("200 OK", HOLDS, ONE), ("200 OK", HELD, EMPTY)];
    let server = Server::answering(answers);
    let client = server.client();
    let held = Some(Duration::from_millis(1_500));
    let first = client.pull_held("q", 1, LEASE, LEASE, pending()).await.unwrap();
    assert_eq!((first.deliveries.len(), first.held), (1, held), "the empty answer was followed by a pull that is held");
    assert_eq!(client.pull("q", 1, LEASE).await.unwrap().held, None, "a plain pull is never held");
    let third = client.pull_held("q", 1, LEASE, Duration::from_millis(3_900), pending()).await.unwrap();
    assert_eq!((third.deliveries.len(), third.held), (0, None), "it says that it has waited, and has not");
    assert_eq!(server.preferences(), [None, wait(20), None, wait(3)]);
}

#[tokio::test]
async fn only_a_pull_that_is_held_can_be_given_up() {
    const HOLDS: &str = "hpc-queue-hold-max: 20\r\n";
    let server = Server::answering(&[("200 OK", "", ONE), ("200 OK", HOLDS, EMPTY)]);
    let client = server.client();
    let given_up = async || client.pull_held("q", 1, LEASE, LEASE, ready(())).await.unwrap();
    assert_eq!(given_up().await.deliveries.len(), 1, "what a plain pull has leased is not thrown away");
    assert_eq!(given_up().await, Pulled::default());
    assert_eq!(server.preferences(), [None, None], "the pull that would have been held was not sent any more");
}

#[tokio::test]
async fn after_a_failure_pulls_are_plain_until_the_server_says_again_that_it_holds_them() {
    const HOLDS: &str = "hpc-queue-hold-max: 999\r\n";
    let answers = &[("200 OK", HOLDS, ONE), ("504 Gateway Timeout", "", ""), ("200 OK", "", EMPTY)];
    let server = Server::answering(answers);
    let client = server.client();
    client.pull_held("q", 1, LEASE, LEASE, pending()).await.unwrap();
    let error = client.pull_held("q", 1, LEASE, LEASE, pending()).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unavailable);
    client.pull_held("q", 1, LEASE, LEASE, pending()).await.unwrap();
    assert_eq!(server.preferences(), [None, wait(25), None], "no longer than a client waits for an answer");
}

#[tokio::test]
async fn a_server_cannot_send_its_clients_away_for_a_day() {
    const LATER: &str = "retry-after: 86400\r\n";
    let server = Server::answering(&[("429 Too Many Requests", LATER, "")]);
    let error = server.client().pull("q", 1, LEASE).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Throttled(Some(Duration::from_secs(900))));
}

#[tokio::test]
async fn a_queue_is_read_as_far_as_the_service_tells() {
    const FULL: &str = r#"{"success":true,"result":{"queue_name":"jobs","queue_id":"q1",
        "settings":{"message_retention_period":86400.0,"delivery_paused":true},"consumers":[{"type":"http_pull",
        "consumer_id":"c1","dead_letter_queue":"","settings":{"max_retries":3,"batch_size":10}},{"script":"w"}]}}"#;
    const DATED: &str = "date: Mon, 30 Nov 2026 12:00:00 GMT\r\n";
    let server = Server::answering(&[("200 OK", DATED, FULL), ("200 OK", "", r#"{"success":true}"#)]);
    let client = server.client();
    let others = serde_json::Map::from_iter([("batch_size".to_owned(), 10.into())]);
    let pulls =
        Consumer { id: Some("c1".to_owned()), pulls: true, max_retries: Some(3), others, ..Consumer::default() };
    let info = QueueInfo {
        id: Some("q1".to_owned()),
        name: Some("jobs".to_owned()),
        retention: Some(Duration::from_secs(86_400)),
        paused: Some(true),
        consumers: Some(vec![pulls, Consumer::default()]),
        answered: Some("Mon, 30 Nov 2026 12:00:00 GMT".to_owned()),
    };
    assert_eq!(client.queue("q").await.unwrap(), info);
    assert_eq!(client.queue("q").await.unwrap(), QueueInfo::default());
    assert!(server.asked.join().unwrap()[0].starts_with("get /client/v4/accounts/a/queues/q http/1.1"));
}
