//! The end of a link that is a site's.

use std::net::TcpStream;

use serde_json::{Value, json};
use testkit::PATIENCE;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{HandshakeError, Message, WebSocket};

use crate::both::Side;

/// A link.
pub(crate) struct Link {
    pub(crate) socket: WebSocket<TcpStream>,
}

/// What comes over it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    Message(Value),
    Closed(u16, String),
}

impl Link {
    /// Opens one with this key; a refusal is the status of the answer.
    pub(crate) fn try_open(side: &Side, key: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{}/link", side.address()).into_client_request().expect("it is a URL");
        if let Some(key) = key {
            let key = HeaderValue::from_str(key).expect("a key is a header");
            request.headers_mut().insert("x-site-key", key);
        }
        let stream = TcpStream::connect(side.address()).expect("the edge listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        match tokio_tungstenite::tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(HandshakeError::Failure(tokio_tungstenite::tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("no answer to a link at {}: {error}", side.name),
        }
    }

    pub(crate) fn open(side: &Side) -> Self {
        Self::try_open(side, Some(side.site_key())).expect("the key is right")
    }

    /// Opens one, and says who is there.
    pub(crate) fn hello(side: &Side, hello: &Value) -> Self {
        let mut link = Self::open(side);
        link.say(hello);
        assert_eq!(link.hear(), Heard::Message(json!({"type": "welcome", "v": 1})), "at {}", side.name);
        link
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.text(&message.to_string());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the link is open");
    }

    /// What comes next, within the patience of tests.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let text = text.as_str();
                    return Heard::Message(serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
                }
                Ok(Message::Close(frame)) => {
                    let frame = frame.map(|frame| (frame.code, frame.reason.to_string()));
                    let (code, reason) = frame.unwrap_or((CloseCode::Status, String::new()));
                    return Heard::Closed(code.into(), reason);
                }
                Ok(_) => {}
                Err(error) => panic!("nothing comes over the link: {error}"),
            }
        }
    }

    /// Reports, and waits until that is stored; what else came before that.
    pub(crate) fn report(&mut self, number: u64, mut report: Value) -> Vec<Value> {
        report["type"] = json!("report");
        report["number"] = json!(number);
        self.say(&report);
        let mut before = Vec::new();
        loop {
            match self.hear() {
                Heard::Message(message) if message == json!({"type": "ack", "number": number}) => return before,
                Heard::Message(message) => before.push(message),
                closed @ Heard::Closed(..) => panic!("{closed:?}"),
            }
        }
    }

    pub(crate) fn close(mut self) {
        self.socket.close(None).expect("the link is open");
        // Until the other end has said so as well.
        while self.socket.read().is_ok() {}
    }
}

/// What a daemon says first.
pub(crate) fn hello(site: &str, daemon: &str) -> Value {
    json!({
        "type": "hello", "v": 1, "site": site, "daemon": daemon, "results": format!("results of {site}"),
        "version": "0.1.0", "host": "login1"
    })
}

/// What it says of a job.
pub(crate) fn job(id: &str, state: &str, attempt: u32, at: &str) -> Value {
    json!({"job_id": id, "state": state, "attempt": attempt, "at": at, "pool": "default"})
}

/// The record of a job that has ended.
pub(crate) fn record(id: &str, status: &str) -> Value {
    json!({"job_id": id, "status": status, "stdout_tail": "the end of it\n", "output": {"n": 1}})
}
