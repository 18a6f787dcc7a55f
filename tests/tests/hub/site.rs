//! A site, as far as the hub can see one: a test says what it reports and prints.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::link::{Down, LOG_BYTES_MAX};
use serde_json::{Value, json};
use testkit::http::block_on;
use testkit::{Edge, PATIENCE, wait_for};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// A site with a link. It goes when this value does.
pub(crate) struct Site {
    out: mpsc::UnboundedSender<String>,
    heard: Arc<Mutex<Vec<Down>>>,
    task: JoinHandle<()>,
}

impl Site {
    /// Links a site of this name.
    pub(crate) fn link(edge: &Edge, name: &str) -> Self {
        let (address, key) = (edge.address(), edge.setting("SITE_KEY").to_owned());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let (out, mut outgoing) = mpsc::unbounded_channel::<String>();
        let (runtime, socket) = block_on(async {
            let mut request = format!("ws://{address}/link").into_client_request().expect("it is an address");
            request.headers_mut().insert("x-site-key", key.parse().expect("a key can be carried"));
            let stream = TcpStream::connect(&address).await.expect("local-edge listens");
            let (socket, _) = client_async(request, stream).await.expect("the hub takes a link");
            (Handle::current(), socket)
        });
        let task = runtime.spawn(async move {
            let (mut sink, mut source) = socket.split();
            loop {
                tokio::select! {
                    text = outgoing.recv() => {
                        let Some(text) = text else { break };
                        if sink.send(Message::text(text)).await.is_err() {
                            break;
                        }
                    }
                    message = source.next() => match message {
                        Some(Ok(Message::Text(text))) => {
                            let down = serde_json::from_str(text.as_str()).expect("the hub says what it may");
                            hears.lock().expect("nobody panics with it").push(down);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => break,
                    },
                }
            }
        });
        let site = Self { out, heard, task };
        let daemon = format!("daemon-of-{name}");
        site.say(&json!({"type": "hello", "v": 1, "site": name, "daemon": daemon, "results": name, "host": "login1"}));
        site.wait_for("a welcome", |down| matches!(down, Down::Welcome { .. }).then_some(()));
        site.report(1, &[]);
        site
    }

    fn say(&self, message: &Value) {
        self.say_text(message.to_string());
    }

    fn say_text(&self, message: String) {
        // A hub that is gone hears nothing.
        let _ = self.out.send(message);
    }

    /// Reports jobs, with what else the site does.
    pub(crate) fn report(&self, number: u64, jobs: &[String]) {
        let running = jobs.iter().filter(|job| job.contains(r#""state":"running""#)).count();
        self.say_text(format!(
            r#"{{"type":"report","number":{number},"site":{{"held":12,"running":{running}}},"jobs":[{}],"complete":true}}"#,
            jobs.join(",")
        ));
        let acknowledged = |down: &Down| matches!(down, Down::Ack { number: of } if *of == number).then_some(());
        self.wait_for("the report to be stored", acknowledged);
    }

    /// Sends a piece of what a job prints on standard output.
    pub(crate) fn print(&self, job_id: &str, attempt: u32, offset: usize, bytes: &[u8], end: bool) {
        let mut offset = offset;
        let pieces: Vec<&[u8]> = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(LOG_BYTES_MAX).collect() };
        for (position, piece) in pieces.iter().enumerate() {
            let end = end && position + 1 == pieces.len();
            self.say(
                &json!({"type": "log", "job_id": job_id, "attempt": attempt, "stream": "stdout", "offset": offset,
                "data": STANDARD.encode(piece), "end": end}),
            );
            offset += piece.len();
        }
    }

    /// Says that a job prints nothing more on standard error.
    pub(crate) fn end_stderr(&self, job_id: &str, attempt: u32) {
        self.say(&json!({"type": "log", "job_id": job_id, "attempt": attempt, "stream": "stderr", "offset": 0,
            "data": "", "end": true}));
    }

    /// Waits until the hub says something of this kind.
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl Fn(&Down) -> Option<T>) -> T {
        wait_for(what, PATIENCE, || self.heard.lock().expect("nobody panics with it").iter().rev().find_map(&look))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A job, as a site reports it.
pub(crate) fn job(job_id: &str, state: &str, attempt: u32) -> String {
    let at = "2026-11-30T04:00:00.000Z";
    json!({"job_id": job_id, "state": state, "attempt": attempt, "at": at, "task": "script"}).to_string()
}

/// A job that has ended, with its result, byte for byte.
pub(crate) fn ended(job_id: &str, attempt: u32, result: &str) -> String {
    let job = job(job_id, "completed", attempt);
    format!("{},\"result\":{result}}}", job.trim_end_matches('}'))
}
