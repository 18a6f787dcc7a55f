//! Both edges, asked the same; what they answer must be the same.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::files::Asked;
use testkit::http::{Answer, block_on, client, send};
use testkit::{Edge, PATIENCE, Producer, Worker, wait_for};

/// One of the edges, with what it has answered.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    edge: Edge,
    worker: Option<Worker>,
    /// What was asked, and what came, without what is of chance or of the clock.
    told: Vec<(String, Value)>,
}

/// Has both edges go through a story.
pub(crate) fn on_both(story: impl Fn(&mut Side)) {
    compare([Side::local(), Side::worker()], story);
}

/// The same, with settings that both have by these names.
pub(crate) fn on_both_with(settings: &[(&str, &str)], story: impl Fn(&mut Side)) {
    compare(Side::both_with(settings), story);
}

fn compare(sides: [Side; 2], story: impl Fn(&mut Side)) {
    let [local, worker] = sides.map(|mut side| {
        story(&mut side);
        assert!(side.worker.as_mut().is_none_or(Worker::is_running));
        side.told
    });
    for (local, worker) in local.iter().zip(&worker) {
        assert_eq!(local, worker, "local-edge (left) and the Worker (right) differ");
    }
    assert_eq!(local.len(), worker.len());
}

impl Asked for Side {
    fn producer(&self) -> Producer {
        Self::producer(self)
    }
}

impl Side {
    pub(crate) fn local() -> Self {
        Self { name: "local-edge", edge: Edge::start(), worker: None, told: Vec::new() }
    }

    pub(crate) fn worker() -> Self {
        let edge = Edge::start();
        let worker = Some(Worker::start(&edge));
        Self { name: "the Worker", edge, worker, told: Vec::new() }
    }

    /// Both, with settings that they have by these names.
    pub(crate) fn both_with(settings: &[(&str, &str)]) -> [Self; 2] {
        let local = Self { name: "local-edge", edge: Edge::start_set(settings), worker: None, told: Vec::new() };
        let behind = Edge::start();
        let worker = Some(Worker::start_with(&behind, settings));
        [local, Self { name: "the Worker", edge: behind, worker, told: Vec::new() }]
    }

    pub(crate) fn producer(&self) -> Producer {
        self.worker.as_ref().map_or_else(|| self.edge.producer(), Worker::producer)
    }

    /// As `host:port`.
    pub(crate) fn address(&self) -> String {
        self.producer().url.trim_start_matches("http://").to_owned()
    }

    pub(crate) fn site_key(&self) -> &str {
        self.edge.setting("SITE_KEY")
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.worker.as_ref().map_or_else(|| self.edge.peak_resident_bytes(), Worker::peak_resident_bytes)
    }

    pub(crate) fn restart(&mut self) {
        self.worker.as_mut().map_or_else(|| self.edge.restart(), Worker::restart);
    }

    pub(crate) fn wipe_hub(&mut self) {
        if let Some(worker) = &mut self.worker {
            return worker.wipe_hub();
        }
        self.edge.kill();
        self.edge.forget_hub();
        self.edge.restart();
    }

    /// A request with the key of people.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let Producer { url, api_key } = self.producer();
        client().request(method, format!("{url}{path}")).header("x-api-key", api_key)
    }

    /// Sends a request, and keeps the answer for the comparison.
    pub(crate) fn ask(&mut self, what: &str, request: RequestBuilder) -> Answer {
        let answer = send(request);
        for leak in ["panicked", "RuntimeError", ".rs:", self.site_key()] {
            assert!(!answer.body.contains(leak), "{leak:?} in {answer:?}");
        }
        self.note(what, comparable(&answer));
        answer
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(path, self.request(Method::GET, path))
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.ask(&format!("{path} {body}"), self.request(Method::POST, path).json(body))
    }

    /// Says something as a site without a link does.
    pub(crate) fn report(&mut self, ups: Value) -> Answer {
        let producer = self.producer();
        let request = client().post(format!("{}/report", producer.url)).header("x-site-key", self.site_key());
        self.ask("/report", request.json(&json!({"up": ups})))
    }

    /// Keeps something else for the comparison.
    pub(crate) fn note(&mut self, what: &str, mut value: Value) {
        without_chance(&mut value);
        self.told.push((what.to_owned(), value));
    }

    /// Submits a job, the id of which the key decides, and waits until the hub has heard of it.
    pub(crate) fn submit(&mut self, key: &str, job: &Value) -> String {
        self.submit_text(key, &job.to_string())
    }

    pub(crate) fn submit_text(&mut self, key: &str, job: &str) -> String {
        let request = self.producer().post("/jobs").header("idempotency-key", key).body(job.to_owned());
        let id = send(request).json()["job_id"].as_str().expect("the job is taken").to_owned();
        self.wait_for(&id, |_| true);
        id
    }

    /// Waits until the hub says something of a job.
    pub(crate) fn wait_for(&self, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{} to know of {id}", self.name), PATIENCE, || {
            let answer = send(self.request(Method::GET, &format!("/jobs/{id}")));
            (answer.status == 200).then(|| answer.json()).filter(&fits)
        })
    }

    /// Begins to read a stream.
    pub(crate) fn stream(&self, path: &str, last_event_id: Option<&str>) -> Events {
        let mut request = self.request(Method::GET, path);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        // Its time limit begins within the runtime.
        let response = block_on(async { request.send().await }).expect("a stream begins");
        assert_eq!(response.status(), 200, "{path} at {}", self.name);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Events {
    /// The next one; `None` when the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = parsed(event);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let chunk = block_on(async { tokio::time::timeout(PATIENCE, self.response.chunk()).await });
            let chunk = chunk.expect("something comes in time").ok().flatten()?;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The next one of this name.
    pub(crate) fn next_named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.name == name {
                return event;
            }
        }
    }
}

/// `None`: a comment.
fn parsed(text: &str) -> Option<Event> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned);
    let data = serde_json::from_str(&field("data")?).expect("the data of an event is JSON");
    Some(Event { name: field("event").expect("an event has a name"), id: field("id"), data })
}

fn comparable(answer: &Answer) -> Value {
    let headers = ["content-type", "allow", "www-authenticate", "retry-after", "cache-control", "vary"];
    let mut headers = headers.map(|name| answer.header(name).map(str::to_owned)).to_vec();
    let of_origins = answer.headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control"));
    let mut of_origins: Vec<_> = of_origins.map(|(name, value)| Some(format!("{name}: {value:?}"))).collect();
    of_origins.sort();
    headers.extend(of_origins);
    let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
    json!({"status": answer.status, "headers": headers, "body": body})
}

/// Without times, which differ.
fn without_chance(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(without_chance),
        Value::Array(values) => values.iter_mut().for_each(without_chance),
        Value::String(text) if is_time(text) => *text = "a time".to_owned(),
        _ => {}
    }
}

fn is_time(text: &str) -> bool {
    text.len() == "2026-11-30T04:00:00.000Z".len() && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T')
}

/// How long something is waited for that must not come.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);
