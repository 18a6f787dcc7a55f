//! The link against a server that does what it likes.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::{SinkExt as _, StreamExt as _};
use lifecycle::{EndedChildren, Entry, Event, Fact, Failures, Lifecycle, Stage, Terms};
use protocol::link::{Down, Download, PING, PONG, Report, Upload};
use queues::PlainHttp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::contact::Timing;
use super::*;
use crate::process::Clock;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

/// A hub that is written in a test.
struct Hub {
    listener: TcpListener,
    address: SocketAddr,
}

/// One connection to it.
struct Line(WebSocketStream<TcpStream>);

impl Hub {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> TcpStream {
        timeout(LONG, self.listener.accept()).await.expect("somebody connects").unwrap().0
    }

    async fn line(&self) -> Line {
        let stream = self.accept().await;
        // Silent where it is refused, so that the test sees it.
        #[expect(clippy::result_large_err, reason = "the library has it so")]
        let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri().path(), "/link");
            assert_eq!(request.headers()[KEY_HEADER], "the key");
            Ok(response)
        };
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        Line(accept_hdr_async_with_config(stream, check, Some(config)).await.unwrap())
    }

    /// A connection over which the hub has said that we are welcome.
    async fn welcome(&self) -> (Line, protocol::link::Hello) {
        let mut line = self.line().await;
        let protocol::link::Up::Hello(hello) = line.up().await else { panic!("the first word is hello") };
        line.say(&Down::Welcome { v: 1 }).await;
        (line, hello)
    }

    /// Answers one request, whatever it is.
    async fn answer(&self, head: &str, body: &str) -> String {
        let mut stream = self.accept().await;
        let mut request = Vec::new();
        loop {
            let mut chunk = [0; 4_096];
            let read = timeout(LONG, stream.read(&mut chunk)).await.unwrap().unwrap();
            request.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:").map(|text| text.trim().to_owned())
            });
            if body.len() >= length.map_or(0, |text| text.parse().unwrap()) {
                break;
            }
        }
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }
}

impl Line {
    async fn text(&mut self) -> Option<String> {
        match timeout(LONG, self.0.next()).await.expect("something is said")? {
            Ok(Message::Text(text)) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    /// The next message that is no ping, which is answered.
    async fn up(&mut self) -> protocol::link::Up {
        loop {
            let text = self.text().await.expect("the connection holds");
            if text == PING {
                self.raw(PONG).await;
            } else {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    async fn report(&mut self) -> Report {
        let protocol::link::Up::Report(report) = self.up().await else { panic!("it is a report") };
        report
    }

    async fn say(&mut self, down: &Down) {
        self.raw(&down.to_json()).await;
    }

    async fn raw(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Is it closed by the other end, whatever that says before?
    async fn is_closed(&mut self) -> bool {
        let closed = async { while matches!(self.0.next().await, Some(Ok(message)) if !message.is_close()) {} };
        timeout(LONG, closed).await.is_ok()
    }
}

fn timing() -> Timing {
    let millis = Duration::from_millis;
    Timing {
        first: millis(10),
        longest: millis(50),
        rarely: millis(100),
        holds: millis(300),
        ping: millis(200),
        answer: millis(300),
        write: millis(500),
        stored: millis(1_000),
        report: millis(100),
        again: millis(600),
    }
}

/// A daemon's side of the link, with these jobs.
struct Side {
    desk: Desk,
    lifecycle: Lifecycle,
    clock: Clock,
    _store: crate::store::Opened,
}

fn side(hub: &Hub, folder: &Path, timing: Timing, jobs: &[&str]) -> Side {
    let address = Address::parse(&format!("http://{}", hub.address), "", PlainHttp::Anywhere).unwrap();
    let target = Target {
        edge: address,
        key: HeaderValue::from_static("the key"),
        url_origin: "EDGE_URL from the environment".to_owned(),
        key_origin: "SITE_KEY from the environment".to_owned(),
        site: "alpha".parse().unwrap(),
    };
    let (state, results) = (folder.join("state"), folder.join("results"));
    std::fs::create_dir_all(&state).unwrap();
    std::fs::create_dir_all(&results).unwrap();
    let files = crate::job::node_of_test(&results, "us");
    let opened = Store::open(&state).unwrap();
    let desk = begin_with(target, state, files, opened.store.clone(), UnderWay::default(), timing).unwrap();
    let entry = |id: &&str| Entry {
        job_id: id.parse().unwrap(),
        stage: Stage::Accepted,
        attempt: None,
        launched: None,
        message: None,
        terms: Terms::default(),
        failures: Failures::default(),
        lease: None,
        parent: None,
        service: None,
        idle_since: None,
        parking: None,
        unwanted: false,
        since: Duration::ZERO,
    };
    let clock = Clock::start();
    let entries = jobs.iter().map(entry).collect();
    let lifecycle = Lifecycle::restore(crate::viewer::settings_of_test(), entries, clock.now());
    Side { desk, lifecycle, clock, _store: opened }
}

impl Side {
    /// Does what the loop does until something follows for the lifecycle.
    async fn event(&mut self) -> Event {
        let follows = async {
            loop {
                match self.desk.next(&self.clock).await {
                    Next::Report => self.desk.report(&self.lifecycle, &self.clock),
                    Next::Progress => self.desk.tell_progress(&self.clock),
                    Next::Hear(heard) => {
                        if let Some(event) = self.desk.hear(heard, &self.lifecycle, &self.clock).into_iter().next() {
                            return event;
                        }
                    }
                }
            }
        };
        timeout(LONG, follows).await.expect("something follows")
    }

    /// The same for a while, in which nothing may follow.
    async fn serves<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::select! {
            event = self.event() => panic!("{event:?} follows"),
            value = what => value,
        }
    }

    async fn linked(&mut self, linked: bool) {
        let event = self.event().await;
        assert!(matches!(event, Event::Linked(is) if is == linked), "{event:?}");
    }

    /// What is said to be wrong, once these words are in it.
    async fn troubled(&mut self, words: &str) -> String {
        let shown = self.desk.shown();
        let said = async {
            loop {
                if let Some(trouble) = shown.view().trouble.filter(|trouble| trouble.contains(words)) {
                    return trouble;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        self.serves(async { timeout(LONG, said).await.unwrap_or_else(|_| panic!("{words}: {:?}", shown.view())) }).await
    }

    fn trouble(&self) -> String {
        self.desk.shown().view().trouble.unwrap_or_default()
    }
}

/// What happened is there, and the daemon is about to end; it has not heard of a first try yet.
fn leaves(side: &mut Side) {
    let record = r#"{"v":1,"job_id":"a","status":"completed","result_pointer":"x","task":"echo","attempt":1}"#;
    let fact = Fact::Recorded("a".parse().unwrap(), record.to_owned());
    side.desk.commits(&[fact], &EndedChildren::default(), &side.lifecycle);
}

#[tokio::test]
async fn who_ends_before_it_is_linked_waits_for_that_and_tells() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    leaves(&mut side);
    let hears = async {
        let (mut line, _) = hub.welcome().await;
        let told = line.report().await;
        line.say(&Down::Ack { number: told.number }).await;
        (told, line)
    };
    let ((), (told, _line)) = tokio::join!(side.desk.last(&side.lifecycle, &side.clock), hears);
    assert_eq!(told.jobs[0].state.to_string(), "completed", "{told:?}");
}

#[tokio::test]
async fn who_ends_and_cannot_link_does_not_wait() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), Timing { first: LONG, longest: LONG, ..timing() }, &[]);
    leaves(&mut side);
    let start = Instant::now();
    tokio::join!(side.desk.last(&side.lifecycle, &side.clock), hub.answer("HTTP/1.1 503 Service Unavailable", ""));
    assert!(start.elapsed() < super::desk::LAST_PATIENCE, "it ends as soon as that is known");
}

#[tokio::test]
async fn after_each_connection_everything_is_told_anew_and_until_it_is_stored() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &["a", "b"]);
    let mut before = None;
    for round in 0..3 {
        let (mut line, hello) = hub.welcome().await;
        let named = (hello.site.as_str().to_owned(), hello.daemon, hello.results);
        assert!(!named.1.is_empty() && named.1 != named.2, "{named:?}");
        assert_eq!(before.get_or_insert(named.clone()), &named, "the names stay");
        side.linked(true).await;
        assert_eq!(side.desk.shown().view().state, LinkState::Linked);
        let report = side.serves(line.report()).await;
        assert_eq!((report.jobs.len(), report.number, report.complete), (2, 1, true));
        if round == 2 {
            line.say(&Down::Ack { number: 1 }).await;
            line.say(&Down::Ask { jobs: vec!["nobodys".parse().unwrap(), "a".parse().unwrap()] }).await;
            let mut told = Vec::new();
            while told.len() < 2 {
                let report = side.serves(line.report()).await;
                told.extend(report.jobs.iter().map(|job| format!("{} {}", job.job_id, job.state)));
                line.say(&Down::Ack { number: report.number }).await;
            }
            told.sort_unstable();
            assert_eq!(told, ["a held", "nobodys unknown"]);
        }
        drop(line);
        side.linked(false).await;
        assert_eq!(side.desk.shown().view().state, LinkState::Unlinked);
    }
}

#[tokio::test]
async fn what_is_no_message_of_a_hub_is_passed_over_and_what_is_known_counts() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    let mut line = hub.line().await;
    line.up().await;
    // Before the welcome nothing counts.
    line.say(&Down::Wake { after_ms: 0 }).await;
    line.say(&Down::Cancel { jobs: vec!["early".parse().unwrap()] }).await;
    line.say(&Down::Welcome { v: 9 }).await;
    side.linked(true).await;
    side.serves(line.report()).await;
    for garbage in ["", "{", "[]", "7", "{\"type\":\"dream\"}", "{\"type\":\"cancel\",\"jobs\":[\"../x\"]}", "\u{0}"] {
        line.raw(garbage).await;
    }
    line.0.send(Message::binary(vec![0xff; 100])).await.unwrap();
    line.say(&Down::Ack { number: 77 }).await;
    line.say(&Down::Tail { job_id: "a".parse().unwrap(), stream: protocol::link::Stream::Stdout, from: i64::MIN })
        .await;
    line.say(&Down::Cancel { jobs: vec!["a".parse().unwrap(), "a".parse().unwrap()] }).await;
    let event = side.event().await;
    assert!(matches!(&event, Event::Cancel(job_id) if job_id.as_str() == "a"), "{event:?}");
    let marks = folder.path().join("results/.cancelled");
    assert!(marks.join("a").exists() && !marks.join("early").exists());
    line.say(&Down::Wake { after_ms: 0 }).await;
    let event = side.event().await;
    assert!(matches!(event, Event::Woken), "{event:?}");
}

#[tokio::test]
async fn who_is_told_that_there_will_be_something_is_woken_then() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    // Nobody here answers pings or reports.
    let mut side = side(&hub, folder.path(), Timing { ping: LONG, stored: LONG, ..timing() }, &[]);
    let (mut line, _) = hub.welcome().await;
    side.linked(true).await;
    let told = Instant::now();
    // The later one first, and one that is too far ahead to be meant.
    for after_ms in [700, 300, 300, u64::MAX] {
        line.say(&Down::Wake { after_ms }).await;
    }
    for after in [300, 700].map(Duration::from_millis) {
        let event = side.event().await;
        assert!(matches!(event, Event::Woken) && told.elapsed() >= after, "{event:?} after {:?}", told.elapsed());
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection_before_it_is_held() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    let (mut line, _) = hub.welcome().await;
    side.linked(true).await;
    let sent = tokio::spawn(async move { line.0.send(Message::text("x".repeat(100_000_000))).await });
    side.linked(false).await;
    assert!(side.trouble().contains("too long") || side.trouble().contains("broke"), "{}", side.trouble());
    assert!(timeout(LONG, sent).await.unwrap().unwrap().is_err(), "it is not taken");
    hub.welcome().await;
    side.linked(true).await;
}

#[tokio::test]
async fn who_says_the_same_without_end_wakes_now_and_then() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    let (mut line, _) = hub.welcome().await;
    side.linked(true).await;
    let begun = Instant::now();
    let flood =
        tokio::spawn(
            async move { while line.0.send(Message::text(Down::Wake { after_ms: 0 }.to_json())).await.is_ok() {} },
        );
    let mut woken = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let event = side.event().await;
        assert!(matches!(event, Event::Woken), "{event:?}");
        woken += 1;
    }
    assert!((1..=30).contains(&woken), "{woken}");
    flood.abort();
}

#[tokio::test]
async fn who_does_not_answer_is_left_and_tried_again() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &["a"]);
    // Not the handshake, not the hello, not the pings, and not the reports.
    let stream = hub.accept().await;
    side.troubled("has not answered").await;
    drop(stream);
    let mut line = hub.line().await;
    line.up().await;
    side.troubled("silent").await;
    assert!(line.is_closed().await);
    let (mut line, _) = hub.welcome().await;
    side.linked(true).await;
    side.linked(false).await;
    assert!(side.trouble().contains("silent"), "{}", side.trouble());
    assert!(line.is_closed().await);
    let (mut line, _) = hub.welcome().await;
    side.linked(true).await;
    let answering = tokio::spawn(async move {
        while line.text().await.is_some_and(|_| true) {
            line.raw(PONG).await
        }
    });
    side.linked(false).await;
    assert!(side.trouble().contains("does not store"), "{}", side.trouble());
    answering.abort();
}

#[tokio::test]
async fn what_a_person_has_to_mend_is_said_and_tried_again() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    let problem = r#"{"type":"about:blank","title":"x","status":401,"code":"unauthorized","detail":"the key\nis \u001b[31mwrong"}"#;
    for (head, body, words) in [
        ("401 Unauthorized", problem, "check SITE_KEY from the environment"),
        ("404 Not Found", "<html>", "the edge has no hub: check EDGE_URL from the environment"),
        ("501 Not Implemented", r#"{"code":"no_hub","detail":"no"}"#, "the edge has no hub"),
        ("409 Conflict", r#"{"code":"name_taken","detail":"another one has it"}"#, "SITE_NAME is alpha here"),
        ("302 Found", "", "a redirect, which is not followed"),
        ("503 Service Unavailable", &"x".repeat(100_000), "HTTP status 503"),
    ] {
        let request = side.serves(hub.answer(head, body)).await;
        assert!(request.starts_with("GET /link ") && request.to_ascii_lowercase().contains("x-site-key: the key"));
        side.troubled(words).await;
    }
    let mut line = hub.line().await;
    line.up().await;
    line.say(&Down::Refused { code: "name_taken".to_owned(), detail: "x".repeat(10_000) }).await;
    let said = side.troubled("SITE_NAME is alpha here").await;
    assert!(said.len() < 1_000, "{said}");
    hub.welcome().await;
    side.linked(true).await;
}

#[tokio::test]
async fn where_no_websocket_gets_through_requests_do() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    // Each answer counts, also on a machine that has no time.
    let mut side = side(&hub, folder.path(), Timing { answer: LONG, ..timing() }, &["a"]);
    for _ in 0..3 {
        let request = side.serves(hub.answer("200 OK", "it is a proxy")).await;
        assert!(request.starts_with("GET /link "), "{request}");
    }
    let down = |down: Vec<Down>| serde_json::to_string(&Download { down }).unwrap();
    let upload = |request: &str| {
        assert!(request.starts_with("POST /report ") && request.to_ascii_lowercase().contains("x-site-key: the key"));
        serde_json::from_str::<Upload>(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let answer = down(vec![Down::Welcome { v: 1 }, Down::Wake { after_ms: 0 }]);
    let first = upload(&hub.answer("200 OK", &answer).await);
    assert!(matches!(first.up.as_slice(), [protocol::link::Up::Hello(_)]), "{first:?}");
    // It does not ring, so that the queue is asked as often as ever; what it says counts all the same.
    side.linked(false).await;
    assert_eq!(side.desk.shown().view().state, LinkState::Reporting);
    let event = side.event().await;
    assert!(matches!(event, Event::Woken), "{event:?}");
    let stored = down(vec![Down::Welcome { v: 1 }, Down::Ack { number: 1 }]);
    let second = upload(&side.serves(hub.answer("200 OK", &stored)).await);
    let [_, protocol::link::Up::Report(report)] = second.up.as_slice() else { panic!("{second:?}") };
    assert_eq!((report.jobs.len(), report.complete), (1, true));
    // From time to time a WebSocket is tried.
    loop {
        let mut stream = hub.accept().await;
        let mut head = [0; 4];
        stream.peek(&mut head).await.unwrap();
        if head == *b"GET " {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            break;
        }
        drop(stream);
        side.troubled("").await;
    }
}

#[tokio::test]
async fn connections_that_never_hold_are_no_way() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::new().await);
    let mut side = side(&hub, folder.path(), timing(), &[]);
    for _ in 0..3 {
        let (line, _) = hub.welcome().await;
        side.linked(true).await;
        drop(line);
        side.linked(false).await;
    }
    let request = hub.answer("200 OK", r#"{"down":[]}"#).await;
    assert!(request.starts_with("POST /report "), "{request}");
}
