//! A stand-in for the hub of an edge, whose every answer a test says: for what the real one does not do.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::laptop::PATIENCE;
use crate::server::{API_KEY, Request};

/// An answer.
pub(crate) enum Reply {
    /// This one: status, content type, body.
    Whole(u16, &'static str, String),
    /// Server-sent events.
    Stream(Vec<Step>),
    /// None: the connection is closed.
    HangUp,
    /// None, and the connection stays open.
    Silence,
    /// The one that this says, once it does.
    Later(Box<dyn Fn() -> Option<Reply> + Send>),
}

/// A part of a stream.
pub(crate) enum Step {
    /// Send this.
    Send(Vec<u8>),
    /// Wait until this is so.
    Until(Box<dyn Fn() -> bool + Send>),
    /// Send the same again and again, until the other end has gone.
    Endless(Vec<u8>),
    /// Break off, as a connection does.
    Break,
    /// Say nothing more, and hold the connection.
    Hold,
}

impl Reply {
    pub(crate) fn json(body: &Value) -> Self {
        Self::Whole(200, "application/json", body.to_string())
    }

    pub(crate) fn problem(status: u16, code: &str) -> Self {
        let problem = json!({"code": code, "detail": "as ordered", "status": status});
        Self::Whole(status, "application/problem+json", problem.to_string())
    }
}

impl Step {
    /// An event.
    pub(crate) fn event(name: &str, id: &str, data: &Value) -> Self {
        Self::Send(format!("event: {name}\nid: {id}\ndata: {data}\n\n").into_bytes())
    }

    /// A piece of what a job prints on standard output, with bytes that are characters.
    pub(crate) fn printed(attempt: u32, offset: usize, text: &str) -> Self {
        let next = offset + text.len();
        let data = json!({"attempt": attempt, "stream": "stdout", "offset": offset, "next": next, "text": text});
        Self::event("log", &format!("{attempt}.{next}.0"), &data)
    }

    pub(crate) fn end() -> Self {
        Self::Send(b"event: end\ndata: {\"state\":\"completed\"}\n\n".to_vec())
    }
}

/// A job, as a hub has it on one line.
pub(crate) fn brief(job_id: &str, state: &str) -> Value {
    json!({"job_id": job_id, "state": state, "task": "t", "site": "alpha", "attempt": 1,
        "submitted_at": "2026-11-30T04:00:00.000Z", "updated_at": "2026-11-30T04:00:01.000Z"})
}

/// The same, as the answer to the question how far it is.
pub(crate) fn status(job_id: &str, state: &str) -> Value {
    let mut status = brief(job_id, state);
    status["timeline"] = json!([]);
    status
}

/// One site, which is linked.
pub(crate) fn sites() -> Value {
    json!({"sites": [{"site": "alpha", "daemon": "d", "host": "login1", "version": "0.1.0", "linked": true,
        "since": "2026-11-30T04:00:00.000Z", "seen_at": "2026-11-30T04:00:00.000Z", "held": 12, "running": 3}],
        "queue": {"queued": 0}})
}

/// A hub.
pub(crate) struct Hub {
    answer: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

impl Hub {
    pub(crate) fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self { answer: Box::new(answer) }
    }

    pub(crate) fn serve(&self, request: &Request, stream: &mut impl Write) -> std::io::Result<()> {
        let key = request.headers.get("x-api-key").map(String::as_str);
        let mut reply = if key == Some(API_KEY) { (self.answer)(request) } else { Reply::problem(401, "unauthorized") };
        while let Reply::Later(when) = &reply {
            reply = until(when);
        }
        match reply {
            Reply::Whole(status, content_type, body) => write!(
                stream,
                "HTTP/1.1 {status} As Ordered\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            ),
            Reply::Stream(steps) => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
                     connection: close\r\n\r\n"
                )?;
                for step in steps {
                    match step {
                        Step::Send(bytes) => chunk(stream, &bytes)?,
                        Step::Until(is_so) => until(|| is_so().then_some(())),
                        Step::Endless(bytes) => loop {
                            chunk(stream, &bytes)?;
                        },
                        Step::Break => return Ok(()),
                        Step::Hold => std::thread::sleep(2 * PATIENCE),
                    }
                }
                stream.write_all(b"0\r\n\r\n")
            }
            Reply::HangUp | Reply::Later(_) => Ok(()),
            Reply::Silence => {
                std::thread::sleep(2 * PATIENCE);
                Ok(())
            }
        }
    }
}

fn chunk(stream: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")?;
    stream.flush()
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < 2 * PATIENCE, "what a test has ordered did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
