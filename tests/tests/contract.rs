//! The contract of `POST /jobs`, `POST /jobs/batch` and `GET /health`, asked of both edges over HTTP: `local-edge`, and
//! the compiled Worker in a real workerd. Each answer must be the expected one, and both edges must give the same.

use protocol::{JobId, JobMessage, limits};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::{Answer, client, raw, send};
use testkit::{Edge, Front, Producer, Queue, Refusal, Worker};

const ECHO: &str = r#"{"task":"echo"}"#;

const WRONG_KEY: &str = "wrong-key-7";

/// A request, and what is wanted for an answer.
struct Case {
    what: &'static str,
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    code: Option<&'static str>,
    field: Option<&'static str>,
    /// How many messages are in the queue because of it.
    queued: usize,
}

impl Case {
    /// A proper submission, to be spoiled by the calls that follow.
    fn post(what: &'static str, path: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            what,
            method: Method::POST,
            path,
            headers: vec![("content-type", "application/json".to_owned()), ("x-api-key", "KEY".to_owned())],
            body: body.into(),
            status: 202,
            code: None,
            field: None,
            queued: 1,
        }
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.retain(|(given, _)| *given != name);
        self.headers.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    fn queues(mut self, messages: usize) -> Self {
        self.queued = messages;
        self
    }

    fn refused(mut self, status: u16, code: &'static str, field: Option<&'static str>) -> Self {
        (self.status, self.code, self.field, self.queued) = (status, Some(code), field, 0);
        self
    }

    fn send(&self, producer: &Producer) -> Answer {
        let mut request = client().request(self.method.clone(), format!("{}{}", producer.url, self.path));
        for (name, value) in &self.headers {
            let value = if value == "KEY" { &producer.api_key } else { value };
            request = request.header(*name, value);
        }
        send(request.body(self.body.clone()))
    }

    fn check(&self, edge: &str, answer: &Answer) {
        let what = format!("{} at {edge}: {answer:?}", self.what);
        assert_eq!(answer.status, self.status, "{what}");
        let body = answer.json();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        assert_eq!((text("code"), text("field")), (self.code, self.field), "{what}");
        let content_type = if self.code.is_some() { "application/problem+json" } else { "application/json" };
        assert_eq!(answer.header("content-type"), Some(content_type), "{what}");
        if self.code.is_some() {
            assert_eq!(body["status"], self.status, "{what}");
            assert!(text("title").is_some() && text("detail").is_some() && body["retryable"].is_boolean(), "{what}");
        }
        // Nothing of the inside, and no secret, not even a wrong one.
        for leak in ["panicked", "RuntimeError", ".rs:", WRONG_KEY] {
            assert!(!answer.body.contains(leak), "{leak:?} in {what}");
        }
    }
}

/// What two edges must agree on: status, headers that are ours, and the body without what is random or of the clock.
fn comparable(answer: &Answer) -> (u16, Vec<Option<String>>, Value) {
    let headers = ["content-type", "allow", "www-authenticate", "retry-after"];
    let headers = headers.map(|name| answer.header(name).map(str::to_owned)).to_vec();
    let mut body = answer.json();
    without_chance(&mut body);
    (answer.status, headers, body)
}

fn without_chance(value: &mut Value) {
    // The length of a message depends on the milliseconds of its time, of which trailing zeros are not written.
    let of_the_clock = matches!(value["code"].as_str(), Some("message_too_large" | "batch_too_large"));
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let random = name == "job_id" || (of_the_clock && matches!(name.as_str(), "size" | "detail"));
                if random {
                    *value = json!("…");
                } else {
                    without_chance(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_chance),
        _ => {}
    }
}

/// Job JSON whose message has `size` bytes if its time is written with `time` characters.
fn job_of(size: usize, time: usize) -> String {
    let envelope = r#"{"v":1,"job_id":"","task":"echo","input":"","created_at":""}"#.len();
    let input = size - envelope - 36 - time;
    format!(r#"{{"task":"echo","input":"{}"}}"#, "x".repeat(input))
}

const LONGEST_TIME: usize = "2026-11-21T01:15:27.123Z".len();
const SHORTEST_TIME: usize = "2026-11-21T01:15:27Z".len();

fn batch_of(jobs: &[String]) -> String {
    format!(r#"{{"jobs":[{}]}}"#, jobs.join(","))
}

fn cases() -> Vec<Case> {
    let jobs = |what, body: &str| Case::post(what, "/jobs", body);
    let batch = |what, body: &str| Case::post(what, "/jobs/batch", body);
    let invalid = "invalid_job";
    let largest = limits::MESSAGE_BODY_BYTES_MAX;
    let padded = |size: usize| format!("{ECHO}{}", " ".repeat(size - ECHO.len()));
    vec![
        jobs("a job", r#"{"task":"echo","input":{"a":[1.0,"é"]},"metadata":{"name":"x"}}"#),
        jobs("a job with charset", ECHO).header("content-type", Some("application/json; charset=utf-8")),
        Case::post("a job with a query", "/jobs?from=test", ECHO),
        // Who asks
        jobs("no key", ECHO).header("x-api-key", None).refused(401, "unauthorized", None),
        jobs("a wrong key", ECHO).header("x-api-key", Some(WRONG_KEY)).refused(401, "unauthorized", None),
        jobs("an empty key", ECHO).header("x-api-key", Some("")).refused(401, "unauthorized", None),
        batch("no key for a batch", r#"{"jobs":[]}"#).header("x-api-key", None).refused(401, "unauthorized", None),
        // Where, and how
        Case::post("the root", "/", ECHO).refused(405, "method_not_allowed", None),
        Case::post("a slash too many", "/jobs/", ECHO).refused(404, "not_found", None),
        Case::post("an unknown path", "/jobs/7/x", ECHO).refused(404, "not_found", None),
        jobs("DELETE", "").method(Method::DELETE).refused(405, "method_not_allowed", None),
        jobs("PUT", ECHO).method(Method::PUT).refused(405, "method_not_allowed", None),
        batch("DELETE of a batch", "").method(Method::DELETE).refused(405, "method_not_allowed", None),
        Case::post("POST to health", "/health", "").refused(405, "method_not_allowed", None),
        // Content types
        jobs("no content type", ECHO).header("content-type", None).refused(415, "unsupported_media_type", None),
        jobs("text", ECHO).header("content-type", Some("text/plain")).refused(415, "unsupported_media_type", None),
        jobs("a form", "task=echo").header("content-type", Some("application/x-www-form-urlencoded")).refused(
            415,
            "unsupported_media_type",
            None,
        ),
        // Bodies
        jobs("an empty body", "").refused(400, "malformed_json", None),
        jobs("half a body", r#"{"task":"#).refused(400, "malformed_json", None),
        jobs("two bodies", r#"{"task":"a"}{"task":"b"}"#).refused(400, "malformed_json", None),
        Case::post("a body that is not UTF-8", "/jobs", b"{\"task\":\"\xff\xfe\"}".to_vec()).refused(
            400,
            "malformed_json",
            None,
        ),
        jobs("a list", "[]").refused(422, invalid, None),
        jobs("a number", "7").refused(422, invalid, None),
        jobs("no task", r#"{"input":{}}"#).refused(422, invalid, Some("task")),
        jobs("null for a task", r#"{"task":null}"#).refused(422, invalid, Some("task")),
        jobs("a number for a task", r#"{"task":7}"#).refused(422, invalid, Some("task")),
        jobs("an empty task", r#"{"task":""}"#).refused(422, invalid, Some("task")),
        jobs("a task with a NUL", r#"{"task":"a\u0000"}"#).refused(422, invalid, Some("task")),
        jobs("a list of notes", r#"{"task":"a","metadata":[]}"#).refused(422, invalid, Some("metadata")),
        jobs("no time", r#"{"task":"a","time_limit_seconds":0}"#).refused(422, invalid, Some("time_limit_seconds")),
        jobs("too many retries", r#"{"task":"a","retries":101}"#).refused(422, invalid, Some("retries")),
        jobs("a word for a truth", r#"{"task":"a","rerunnable":"no"}"#).refused(422, invalid, Some("rerunnable")),
        jobs("a typing error", r#"{"task":"a","inputs":{}}"#).refused(422, invalid, Some("inputs")),
        jobs("an id of one's own", r#"{"task":"a","job_id":"../x"}"#).refused(422, invalid, Some("job_id")),
        // Sizes
        jobs("the largest job", &job_of(largest, LONGEST_TIME)),
        jobs("a larger job", &job_of(largest + 1, SHORTEST_TIME)).refused(413, "message_too_large", None),
        jobs("the largest body", &padded(limits::REQUEST_BYTES_MAX)),
        // Idempotency
        jobs("a key", ECHO).header("idempotency-key", Some("key-1")),
        jobs("the same key", ECHO).header("idempotency-key", Some("key-1")),
        jobs("a long key", ECHO).header("idempotency-key", Some("k".repeat(255).as_str())),
        jobs("a key too long", ECHO).header("idempotency-key", Some("k".repeat(256).as_str())).refused(
            422,
            invalid,
            Some("Idempotency-Key"),
        ),
        jobs("a malformed key", ECHO).header("idempotency-key", Some("a\tb")).refused(
            422,
            invalid,
            Some("Idempotency-Key"),
        ),
        jobs("a malformed key in the body", r#"{"task":"a","idempotency_key":"\n"}"#).refused(
            422,
            invalid,
            Some("idempotency_key"),
        ),
        // Batches
        batch("a mixed batch", r#"{"jobs":[{"task":"a"},{},{"task":"b"},7,{"task":"c"}]}"#).queues(3),
        batch("the longest batch", &batch_of(&vec![ECHO.to_owned(); 100])).queues(100),
        batch("a longer batch", &batch_of(&vec![ECHO.to_owned(); 101])).refused(413, "batch_too_many", None),
        batch("the largest batch", &batch_of(&[job_of(127_900, LONGEST_TIME), job_of(127_900, LONGEST_TIME)]))
            .queues(2),
        batch("a larger batch", &batch_of(&vec![job_of(90_000, SHORTEST_TIME); 3])).refused(
            413,
            "batch_too_large",
            None,
        ),
        batch("one job too large", &batch_of(&[ECHO.to_owned(), job_of(largest + 1, SHORTEST_TIME)])),
        batch("a batch of keys", &batch_of(&vec![ECHO.to_owned(); 3]))
            .header("idempotency-key", Some("key-2"))
            .queues(3),
        batch("an empty batch", r#"{"jobs":[]}"#).refused(422, invalid, Some("jobs")),
        batch("no batch", r#"{"task":"echo"}"#).refused(422, invalid, Some("jobs")),
        batch("half a batch", r#"{"jobs":["#).refused(400, "malformed_json", None),
    ]
}

#[test]
fn both_edges_give_the_same_answers() {
    // Each with a queue of its own, so that it can be told what came in through which.
    let (local, behind_worker) = (Edge::start(), Edge::start());
    let mut worker = Worker::start(&behind_worker);
    let mut queued = 0;
    for case in cases() {
        let (by_local, by_worker) = (case.send(&local.producer()), case.send(&worker.producer()));
        case.check("local-edge", &by_local);
        case.check("the Worker", &by_worker);
        assert_eq!(comparable(&by_local), comparable(&by_worker), "{}: the edges differ", case.what);
        queued += case.queued as u64;
        for edge in [&local, &behind_worker] {
            assert_eq!(edge.backlog(Queue::Jobs), queued, "messages in the queue after: {}", case.what);
        }
    }
    assert!(worker.is_running());
}

#[test]
fn both_edges_queue_the_same_jobs_under_the_same_ids() {
    let (local, behind_worker) = (Edge::start(), Edge::start());
    let worker = Worker::start(&behind_worker);
    for (edge, producer) in [(&local, local.producer()), (&behind_worker, worker.producer())] {
        let health = send(client().get(format!("{}/health", producer.url)));
        assert_eq!((health.status, health.json()), (200, json!({"status": "ok"})));

        let job = r#"{ "task": "simulate", "input": {"b": 1.50, "a": ["é", null]}, "metadata": {"n": 1}, "time_limit_seconds": 9, "retries": 2, "rerunnable": false }"#;
        let one = |key: &str| send(producer.post("/jobs").header("idempotency-key", key).body(job)).json();
        let id = JobId::from_idempotency_key("k", None);
        assert_eq!(one("k"), json!({"status": "queued", "job_id": id, "queue": "hpc-jobs"}));
        assert_eq!(one("k")["job_id"], id.as_str());
        let batch = send(producer.post("/jobs/batch").header("idempotency-key", "b").body(batch_of(&[
            job.to_owned(),
            "{}".to_owned(),
            job.to_owned(),
        ])));
        let places = [0, 2].map(|place| JobId::from_idempotency_key("b", Some(place)));
        assert_eq!(batch.json()["jobs"][0]["job_id"], places[0].as_str());
        assert_eq!(batch.json()["jobs"][1]["problem"]["field"], "task");
        assert_eq!(batch.json()["jobs"][2]["job_id"], places[1].as_str());

        let mut ids = Vec::new();
        for delivery in edge.pull(Queue::Jobs) {
            let text = protocol::body::json_text(&delivery.body).expect("an edge sends JSON");
            let message = JobMessage::parse(&text).expect("an edge sends jobs");
            assert_eq!((message.spec.task.as_str(), message.spec.time_limit_seconds), ("simulate", Some(9)));
            assert_eq!((message.spec.retries, message.spec.rerunnable), (Some(2), Some(false)));
            // Not a digit, and not the order of the fields, has changed on the way.
            assert_eq!(message.spec.input.as_str(), r#"{"b":1.50,"a":["é",null]}"#);
            assert_eq!(message.spec.metadata.expect("it was sent").as_str(), r#"{"n":1}"#);
            assert!(message.created_at.is_some());
            ids.push(message.job_id);
        }
        ids.sort();
        let mut expected = [vec![id.clone(), id], places.to_vec()].concat();
        expected.sort();
        assert_eq!(ids, expected);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_by_what_was_announced() {
    let edge = Edge::start();
    let worker = Worker::start(&edge);
    for producer in [edge.producer(), worker.producer()] {
        // Not a byte of the body follows: who waits for it would hang.
        let (address, key) = (producer.url.trim_start_matches("http://"), &producer.api_key);
        let length = limits::REQUEST_BYTES_MAX + 1;
        let head = format!(
            "POST /jobs HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(address, &head);
        assert_eq!(answer.status, 413, "{answer:?}");
        let body = answer.json();
        assert_eq!(
            (&body["code"], &body["limit"], &body["size"]),
            (&json!("request_too_large"), &json!(1_000_000), &json!(1_000_001)),
            "{body}"
        );
    }
    assert_eq!(edge.backlog(Queue::Jobs), 0);
}

#[test]
fn a_request_that_is_not_http_is_refused_and_forgotten() {
    let edge = Edge::start();
    let worker = Worker::start(&edge);
    for producer in [edge.producer(), worker.producer()] {
        let address = producer.url.trim_start_matches("http://");
        let answer = raw(address, "POST /jobs HTTP/1.1\r\nhost: x\r\nno colon here\r\n\r\n");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(send(producer.post("/jobs").body(ECHO)).status, 202);
    }
}

/// What a queue that has too much to do answers to a queue binding.
fn binding_refusal(path_suffix: &'static str, status: u16, code: &'static str, cause: &'static str) -> Refusal {
    let headers = vec![("cf-queues-error-code", code), ("cf-queues-error-cause", cause)];
    Refusal { path_suffix, status, headers, body: String::new() }
}

#[test]
fn the_worker_answers_202_only_for_what_is_in_the_queue() {
    let mut edge = Edge::start();
    let front = Front::before(&edge.address());
    let worker = Worker::start_on(&edge, front.address());
    let producer = worker.producer();
    let post = || send(producer.post("/jobs").body(ECHO));
    let overloaded = binding_refusal("/message", 429, "10250", "Queue is overloaded");

    // Twice overloaded: the Worker comes again, and the job is in the queue once.
    front.refuse(2, &overloaded);
    assert_eq!(post().status, 202);
    assert_eq!((front.statuses("/message"), edge.backlog(Queue::Jobs)), (vec![429, 429, 200], 1));

    // Overloaded for longer than a person waits.
    front.refuse(4, &overloaded);
    let answer = post();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")), "{answer:?}");
    assert_eq!((&answer.json()["code"], &answer.json()["retryable"]), (&json!("queue_full"), &json!(true)));
    assert_eq!((front.refusals_left(), edge.backlog(Queue::Jobs)), (0, 1));

    // The day's allowance is used up: one try is enough.
    front.refuse(1, &binding_refusal("/message", 429, "10253", "Free tier limit exceeded"));
    let answer = post();
    let until_midnight: u64 =
        answer.header("retry-after").and_then(|text| text.parse().ok()).expect("it says until when");
    assert!(answer.status == 429 && (1..=86_400).contains(&until_midnight), "{answer:?}");
    assert_eq!((front.refusals_left(), edge.backlog(Queue::Jobs)), (0, 1));

    // Server errors, and an answer that is none.
    let garbage = Refusal { path_suffix: "/message", status: 200, headers: Vec::new(), body: "<html>".to_owned() };
    for broken in [binding_refusal("/message", 500, "15000", "Unknown internal error"), garbage] {
        front.refuse(4, &broken);
        let answer = post();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
        assert_eq!(answer.json()["code"], "queue_unavailable");
        assert_eq!((front.refusals_left(), edge.backlog(Queue::Jobs)), (0, 1));
    }

    // A batch is one write, and is refused and taken as a whole.
    let batch = || send(producer.post("/jobs/batch").body(batch_of(&[ECHO.to_owned(), ECHO.to_owned()])));
    let overloaded = binding_refusal("/batch", 429, "10250", "Queue is overloaded");
    front.refuse(4, &overloaded);
    assert_eq!((batch().status, edge.backlog(Queue::Jobs)), (429, 1));
    front.refuse(1, &overloaded);
    assert_eq!((batch().status, edge.backlog(Queue::Jobs)), (202, 3));

    // No queue at all; and everything that was answered 202 is there when it comes back.
    edge.kill();
    let answer = post();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("queue_unavailable")), "{answer:?}");
    edge.restart();
    assert_eq!(edge.backlog(Queue::Jobs), 3);
    assert_eq!((post().status, edge.backlog(Queue::Jobs)), (202, 4));
}
