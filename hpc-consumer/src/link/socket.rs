//! One connection to the hub: the handshake, then messages both ways until it is over.
//!
//! The handshake is a request of the HTTP client of `queues`: so proxies, certificates, Unix sockets and the rules for
//! plain http are those of all other requests. What it turns into is a WebSocket.
//!
//! Whatever the other end does, this ends or goes on, and holds no more than a few messages: a message that is too
//! long, an end that does not read, or is silent, is the end of the connection; what cannot be read is passed over; and
//! no more is read in a second than a hub has reason to say.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::JobId;
use protocol::link::{Down, Hello, MESSAGE_BYTES_MAX, PING, PONG, Report, Up};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{StatusCode, Upgraded};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::answers::{Trouble, shortened};
use super::contact::Contact;
use super::tails::Tails;
use super::{KEY_HEADER, LinkState, Said, Target};
use crate::lock;

pub(super) type Socket = WebSocketStream<Upgraded>;

/// Where jobs go that are not wanted any more.
pub(super) type Unwanted = mpsc::Sender<Vec<JobId>>;

/// How many reports, and how many pieces of logs, wait to leave.
const REPORTS_MAX: usize = 2;
const PIECES_MAX: usize = 4;

/// The loop is woken no more often than this.
const WAKE_PAUSE: Duration = Duration::from_millis(50);

/// For how many times it is remembered that it is to be woken then, and how far ahead.
const WAKES_MAX: usize = 1_000;
const WAKE_AHEAD_MAX: Duration = Duration::from_hours(24);

/// How much is read in a second at most.
const MESSAGES_A_SECOND: u32 = 500;
const BYTES_A_SECOND: usize = 8 * MESSAGE_BYTES_MAX;

/// How a connection was.
#[derive(Debug)]
pub(super) struct Over {
    /// When the hub has welcomed us.
    pub(super) welcomed: Option<Instant>,
    /// Why it is over.
    pub(super) trouble: Trouble,
}

impl Target {
    /// Has the edge take us, and speak as a WebSocket does. `patience` is for its answer.
    pub(super) async fn connect(&self, http: &reqwest::Client, patience: Duration) -> Result<Socket, Trouble> {
        let address = self.at("link")?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Trouble::Passing(error.to_string()))?;
        let key = STANDARD.encode(random);
        let request = http
            .get(address.url().clone())
            .header(KEY_HEADER, self.key.clone())
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .timeout(patience);
        let response = request.send().await.map_err(|error| self.unanswered(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.trouble(response, true).await);
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            let what = format!("{} switched to something that is no WebSocket of ours", self.edge);
            return Err(Trouble::NoWebSocket(what));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.unanswered(&error))?;
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config())).await)
    }
}

impl Contact {
    pub(super) async fn connect(&self) -> Result<Socket, Trouble> {
        self.target.connect(&self.http, self.timing.answer).await
    }

    /// Says who we are, and then what there is to say, and hears what is said.
    pub(super) async fn converse(&self, socket: Socket, hello: &Hello, unwanted: &Unwanted) -> Over {
        let (mut sink, mut stream) = socket.split();
        let (reports, mut to_report) = mpsc::channel(REPORTS_MAX);
        let (pieces, mut to_send) = mpsc::channel(PIECES_MAX);
        let (pings, mut to_ping) = mpsc::channel(1);
        let unstored = Mutex::new(None);
        let mut hears = Hears {
            contact: self,
            unwanted,
            tails: Tails::new(self.results.clone(), self.followed.clone(), self.said.clone(), pieces),
            reports: Some(reports),
            welcomed: None,
            unstored: &unstored,
            woken: Instant::now(),
            wakes: BTreeSet::new(),
            said_unreadable: false,
        };
        let write = async {
            let mut text = Up::Hello(hello.clone()).to_json();
            loop {
                match timeout(self.timing.write, sink.send(Message::text(text))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return self.broken(&error),
                    Err(_) => return Trouble::Passing(format!("{} does not take what is sent", self.target.edge)),
                }
                text = tokio::select! {
                    biased;
                    Some(()) = to_ping.recv() => PING.to_owned(),
                    Some(report) = to_report.recv() => {
                        lock(&unstored).get_or_insert(Instant::now());
                        Up::Report(report).to_json()
                    }
                    Some(piece) = to_send.recv() => Up::to_json(&piece),
                };
            }
        };
        let read = async {
            let mut pace = Pace::new();
            let mut ping_at = Instant::now() + self.timing.ping;
            // The welcome is the first answer that is waited for.
            let mut answer_by = Some(Instant::now() + self.timing.answer);
            loop {
                let stored_by = lock(&unstored).map(|since: Instant| since + self.timing.stored);
                let next =
                    [Some(ping_at), answer_by, hears.wakes.first().copied(), stored_by].into_iter().flatten().min();
                let message = tokio::select! {
                    message = stream.next() => message,
                    () = sleep_until(next.unwrap_or(ping_at)) => {
                        let now = Instant::now();
                        if answer_by.is_some_and(|by| by <= now) {
                            return Trouble::Passing(format!("{} is silent", self.target.edge));
                        }
                        if stored_by.is_some_and(|by| by <= now) {
                            return Trouble::Passing(format!("{} does not store what it is told", self.target.edge));
                        }
                        if hears.wakes.first().is_some_and(|at| *at <= now) {
                            hears.wake().await;
                        }
                        if ping_at <= now {
                            let _ = pings.try_send(());
                            ping_at = now + self.timing.ping;
                            answer_by.get_or_insert(now + self.timing.answer);
                        }
                        continue;
                    }
                };
                let text = match message {
                    None => return Trouble::Passing(format!("{} has closed the connection", self.target.edge)),
                    Some(Err(error)) => return self.broken(&error),
                    Some(Ok(Message::Close(frame))) => {
                        let why = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason.as_str()));
                        let why = shortened(&why.unwrap_or_default());
                        return Trouble::Passing(format!("{} has closed the connection{why}", self.target.edge));
                    }
                    Some(Ok(Message::Text(text))) => text,
                    // What a newer version says, or pings of the protocol itself, which are answered beneath.
                    Some(Ok(other)) => {
                        pace.read(other.len()).await;
                        continue;
                    }
                };
                if text.as_str() != PONG
                    && let Some(trouble) = hears.hear(&text).await
                {
                    return trouble;
                }
                if hears.welcomed.is_some() {
                    // Whatever it says, it is there.
                    answer_by = None;
                }
                pace.read(text.len()).await;
            }
        };
        let trouble = tokio::select! { trouble = write => trouble, trouble = read => trouble };
        let welcomed = hears.welcomed;
        drop(hears);
        if welcomed.is_some() {
            let _ = self.said.send(Said::Disconnected).await;
        }
        Over { welcomed, trouble }
    }

    fn broken(&self, error: &tokio_tungstenite::tungstenite::Error) -> Trouble {
        Trouble::Passing(shortened(&format!("the connection to {} broke: {error}", self.target.edge)))
    }
}

/// No more than one message of each direction is held.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// What is heard over one connection.
struct Hears<'a> {
    contact: &'a Contact,
    unwanted: &'a Unwanted,
    tails: Tails,
    /// Until the hub has welcomed us.
    reports: Option<mpsc::Sender<Report>>,
    welcomed: Option<Instant>,
    /// Since when a report is on its way.
    unstored: &'a Mutex<Option<Instant>>,
    /// When the loop was woken last, and when it is to be.
    woken: Instant,
    wakes: BTreeSet<Instant>,
    said_unreadable: bool,
}

impl Hears<'_> {
    /// Does what follows from a message; returns why the connection is over, if it is.
    async fn hear(&mut self, text: &str) -> Option<Trouble> {
        let down = match serde_json::from_str::<Down>(text) {
            Ok(down) => down,
            Err(error) => {
                if !std::mem::replace(&mut self.said_unreadable, true) {
                    let edge = &self.contact.target.edge;
                    tracing::warn!("{edge} says something that is not of a hub, which is passed over: {error}");
                }
                return None;
            }
        };
        let said = match down {
            Down::Refused { code, detail } => return Some(self.contact.target.refused(&code, &detail)),
            Down::Welcome { .. } => {
                let reports = self.reports.take()?;
                self.welcomed = Some(Instant::now());
                self.contact.tell(LinkState::Linked, None);
                Said::Connected(super::Up { reports, rings: true })
            }
            // The first word is the welcome.
            _ if self.welcomed.is_none() => return None,
            Down::Ack { number } => {
                *lock(self.unstored) = None;
                Said::Stored(number)
            }
            Down::Wake { after_ms } => {
                let now = Instant::now();
                let at = (now + Duration::from_millis(after_ms).min(WAKE_AHEAD_MAX)).max(self.woken + WAKE_PAUSE);
                if at <= now {
                    self.wake().await;
                } else if self.wakes.len() < WAKES_MAX && self.wakes.range(at..at + WAKE_PAUSE).next().is_none() {
                    self.wakes.insert(at);
                }
                return None;
            }
            Down::Cancel { jobs } => {
                let _ = self.unwanted.send(jobs).await;
                return None;
            }
            Down::Ask { jobs } => Said::Asked(jobs),
            Down::Tail { job_id, stream, from } => {
                self.tails.open(job_id, stream, from).await;
                return None;
            }
            Down::Untail { job_id, stream } => {
                self.tails.close(job_id, stream);
                return None;
            }
            Down::Unknown => return None,
        };
        let _ = self.contact.said.send(said).await;
        None
    }

    async fn wake(&mut self) {
        self.woken = Instant::now();
        self.wakes.retain(|at| *at > self.woken);
        let _ = self.contact.said.send(Said::Woken).await;
    }
}

/// How much was read in the present second.
struct Pace {
    since: Instant,
    messages: u32,
    bytes: usize,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), messages: 0, bytes: 0 }
    }

    /// A message of so many bytes was read. Waits once it is too much.
    async fn read(&mut self, bytes: usize) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        self.messages += 1;
        self.bytes += bytes;
        if self.messages > MESSAGES_A_SECOND || self.bytes > BYTES_A_SECOND {
            sleep_until(self.since + Duration::from_secs(1)).await;
        }
    }
}
