//! A stand-in for the edge and for one queue. It keeps its promises (a leased message is not given again before its
//! lease lapses, late acknowledgements count) except where a test orders a fault.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::JobId;
use serde_json::{Value, json};

use crate::hub_server::{Hub, Reply};

pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const QUEUE: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const TOKEN: &str = "the-token";
pub(crate) const API_KEY: &str = "the-key";

/// What to do with the next request to a route, instead of what is right.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Answer with this status, these further header lines and this body.
    Answer(u16, &'static str, String),
    /// Close the connection without an answer.
    HangUp,
}

impl Fault {
    /// An error of the Queues API.
    pub(crate) fn api(status: u16, code: u32) -> Self {
        let body = json!({"success": false, "errors": [{"code": code, "message": "as ordered"}], "result": null});
        Self::Answer(status, "", body.to_string())
    }
}

/// A request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `pull`, `ack` or `metrics` of the queue; `jobs` is a submission, `batch` one of several jobs, and `hub` all that
    /// a hub is asked.
    pub(crate) route: String,
    /// The method and the whole path: `GET /jobs?limit=1`.
    pub(crate) asked: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

#[derive(Debug)]
struct Message {
    body: String,
    leases: Vec<String>,
    leased_until: Option<Instant>,
    acked: bool,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    faults: Vec<(&'static str, Fault)>,
    /// After so many requests to the route.
    later: Vec<(&'static str, usize, Fault)>,
    requests: Vec<Request>,
    /// Without one the edge is of an earlier version.
    hub: Option<Arc<Hub>>,
}

/// The stand-in. It lives until the test process ends.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let server = Self { url: format!("http://{address}"), state: Arc::default() };
        let accepting = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                // A client that goes away in the middle of a request is none of a test's concern.
                thread::spawn(move || server.serve(stream).ok());
            }
        });
        server
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Puts a message into the queue.
    pub(crate) fn push(&self, body: impl Into<String>) {
        let message = Message { body: body.into(), leases: Vec::new(), leased_until: None, acked: false };
        self.state().messages.push(message);
    }

    /// Puts a message into the queue that another program holds.
    pub(crate) fn push_leased(&self, body: impl Into<String>, lease: Duration) {
        self.push(body);
        if let Some(message) = self.state().messages.last_mut() {
            message.leased_until = Some(Instant::now() + lease);
        }
    }

    /// Orders a fault for the next request to a route that has no earlier one.
    pub(crate) fn order(&self, route: &'static str, fault: Fault) {
        self.state().faults.push((route, fault));
    }

    /// The same once so many requests to the route were answered as is right.
    pub(crate) fn order_after(&self, route: &'static str, requests: usize, fault: Fault) {
        let so_far = self.requests(route).len();
        self.state().later.push((route, so_far + requests, fault));
    }

    /// From now on the edge has a hub, which answers so.
    pub(crate) fn set_hub(&self, hub: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.state().hub = Some(Arc::new(Hub::new(hub)));
    }

    /// What the hub was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests("hub").into_iter().map(|request| request.asked).collect()
    }

    /// How many messages are not acknowledged.
    pub(crate) fn backlog(&self) -> usize {
        self.state().messages.iter().filter(|message| !message.acked).count()
    }

    /// The requests to a route so far.
    pub(crate) fn requests(&self, route: &str) -> Vec<Request> {
        self.state().requests.iter().filter(|request| request.route == route).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some(request) = read(&stream)? else { return Ok(()) };
        let hub = {
            let mut state = self.state();
            state.requests.push(request.clone());
            state.hub.clone().filter(|_| request.route == "hub")
        };
        if let Some(hub) = hub {
            // Not under the lock: it may take its time.
            return hub.serve(&request, &mut stream);
        }
        let (status, headers, body) = {
            let mut state = self.state();
            state.bring_due(&request.route);
            match state.faults.iter().position(|(route, _)| *route == request.route) {
                Some(position) => match state.faults.remove(position).1 {
                    Fault::Answer(status, headers, body) => (status, headers, body),
                    Fault::HangUp => return Ok(()),
                },
                None => state.answer(&request),
            }
        };
        write!(
            stream,
            "HTTP/1.1 {status} As Ordered\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
            body.len()
        )?;
        stream.flush()
    }
}

impl State {
    /// Faults whose time has come with the request that was noted last.
    fn bring_due(&mut self, route: &str) {
        let count = self.requests.iter().filter(|request| request.route == route).count();
        let due = self.later.iter().position(|(of, after, _)| *of == route && count > *after);
        if let Some(position) = due {
            let (route, _, fault) = self.later.remove(position);
            self.faults.push((route, fault));
        }
    }

    fn answer(&mut self, request: &Request) -> (u16, &'static str, String) {
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        if request.route == "jobs" {
            assert_eq!((header("x-api-key"), header("content-type")), (API_KEY, "application/json"));
            let job_id = JobId::from_idempotency_key(header("idempotency-key"), None);
            return (202, "", json!({"status": "queued", "job_id": job_id, "queue": "hpc-jobs"}).to_string());
        }
        if request.route == "batch" {
            assert_eq!((header("x-api-key"), header("content-type")), (API_KEY, "application/json"));
            let jobs: Vec<Value> = body["jobs"].as_array().expect("it has jobs").iter().map(answer_of_one).collect();
            assert!((1..=100).contains(&jobs.len()), "{} jobs at once", jobs.len());
            return (202, "", json!({"jobs": jobs}).to_string());
        }
        if request.route == "hub" {
            let is_jobs = request.asked.starts_with("GET /jobs?") || request.asked == "GET /jobs";
            let (status, code) = if is_jobs { (405, "method_not_allowed") } else { (404, "not_found") };
            return (status, "", json!({"code": code, "detail": "as an edge of an earlier version"}).to_string());
        }
        assert_eq!(header("authorization"), format!("Bearer {TOKEN}"));
        let result = match request.route.as_str() {
            "pull" => self.pull(&body),
            "ack" => self.ack(&body),
            "metrics" => json!({"backlog_count": self.messages.iter().filter(|message| !message.acked).count()}),
            route => panic!("there is no route {route}"),
        };
        (200, "", json!({"success": true, "errors": [], "messages": [], "result": result}).to_string())
    }

    fn pull(&mut self, body: &Value) -> Value {
        let now = Instant::now();
        let lease = Duration::from_millis(body["visibility_timeout_ms"].as_u64().expect("a lease has a length"));
        let size = body["batch_size"].as_u64().and_then(|size| usize::try_from(size).ok()).expect("a batch has a size");
        let waiting = |message: &&mut Message| {
            !message.acked && message.leased_until.is_none_or(|leased_until| leased_until <= now)
        };
        let mut given = Vec::new();
        for (number, message) in self.messages.iter_mut().enumerate().filter(|(_, message)| waiting(message)).take(size)
        {
            let lease_id = format!("lease-{number}-{}", message.leases.len());
            message.leases.push(lease_id.clone());
            message.leased_until = Some(now + lease);
            given.push(json!({
                "id": format!("{number:032x}"),
                "lease_id": lease_id,
                "body": message.body,
                "attempts": message.leases.len(),
                "metadata": {},
            }));
        }
        let backlog = self.messages.iter().filter(|message| !message.acked).count();
        json!({"message_backlog_count": backlog, "messages": given})
    }

    fn ack(&mut self, body: &Value) -> Value {
        let leases = |kind: &str| -> Vec<&str> {
            body[kind].as_array().into_iter().flatten().filter_map(|lease| lease["lease_id"].as_str()).collect()
        };
        let (leases, given_back) = (leases("acks"), leases("retries"));
        assert!(leases.len() <= 100, "{} acknowledgements at once", leases.len());
        let mut count = 0;
        for message in &mut self.messages {
            if message.leases.iter().any(|lease| leases.contains(&lease.as_str())) {
                message.acked = true;
                count += 1;
            }
            if message.leases.iter().any(|lease| given_back.contains(&lease.as_str())) {
                message.leased_until = None;
            }
        }
        json!({"ackCount": count, "retryCount": 0, "warnings": {}})
    }
}

/// A job of a batch has a key of its own. One whose input is `refuse` is refused.
fn answer_of_one(job: &Value) -> Value {
    if job["input"] == "refuse" {
        let problem = json!({"code": "invalid_job", "detail": "as ordered", "status": 422});
        return json!({"status": "refused", "problem": problem});
    }
    let key = job["idempotency_key"].as_str().expect("each job has a key");
    json!({"status": "queued", "job_id": JobId::from_idempotency_key(key, None), "queue": "hpc-jobs"})
}

fn read(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let asked = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let route = match asked.strip_prefix(&format!("POST /client/v4/accounts/{ACCOUNT}/queues/{QUEUE}/messages/")) {
        Some(route) => route.to_owned(),
        None if asked.ends_with("/metrics") => "metrics".to_owned(),
        None if asked == "POST /jobs" => "jobs".to_owned(),
        None if asked == "POST /jobs/batch" => "batch".to_owned(),
        None => "hub".to_owned(),
    };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { route, asked, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}
