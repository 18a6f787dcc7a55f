//! Calls to an address that a submission names, as somebody who is called sees them.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use testkit::http::{block_on, client, send};
use testkit::{Edge, PATIENCE, Process, command, parts, wait_for};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::report::report;

/// Somebody who is called: the path, the headers and the body of each call are kept.
struct Receiver {
    origin: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<(String, HeaderMap, String)>>,
    /// How the next calls are answered; all others with 204.
    answers: Mutex<VecDeque<Response>>,
}

impl Receiver {
    fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let hears = Arc::clone(&shared);
        let handler = move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let body = String::from_utf8(body.to_vec()).expect("JSON is UTF-8");
            hears.calls.lock().expect("nobody panics with it").push((uri.path().to_owned(), headers, body));
            let answer = hears.answers.lock().expect("nobody panics with it").pop_front();
            answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
        };
        let (origin, task) = block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
            let origin = format!("http://{}", listener.local_addr().expect("it has an address"));
            let router = Router::new().fallback(handler);
            (origin, tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves for ever") }))
        });
        Self { origin, shared, task }
    }

    fn answers(&self, answer: Response) {
        self.shared.answers.lock().expect("nobody panics with it").push_back(answer);
    }

    fn calls(&self) -> Vec<(String, HeaderMap, String)> {
        self.shared.calls.lock().expect("nobody panics with it").clone()
    }

    /// Waits until it was called so often.
    fn wait_for(&self, count: usize) -> Vec<(String, HeaderMap, String)> {
        wait_for(&format!("{count} calls"), PATIENCE, || Some(self.calls()).filter(|calls| calls.len() >= count))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn submit(edge: &Edge, callback: &Value) -> String {
    edge.producer().submit(&json!({"task": "script", "callback": callback}))
}

/// What the hub says of the calls for a job, as soon as it is this.
fn wait_for_status(edge: &Edge, job_id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let producer = edge.producer();
    wait_for(what, PATIENCE, || {
        let request = client().get(format!("{}/jobs/{job_id}", producer.url)).header("x-api-key", &producer.api_key);
        let mut status = send(request).json();
        Some(status["callbacks"].take()).filter(&is)
    })
}

/// What their library says of these calls.
fn verified(edge: &Edge, calls: &[(String, HeaderMap, String)]) -> Vec<Value> {
    let home = tempfile::tempdir().expect("a directory can be made");
    let calls = calls.iter().map(|(_, headers, body)| {
        let texts = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("it is ASCII")));
        json!({"headers": texts.collect::<std::collections::BTreeMap<_, _>>(), "body": body})
    });
    let file = home.path().join("calls.json");
    fs::write(&file, json!(calls.collect::<Vec<_>>()).to_string()).expect("the directory of a test can be written to");
    let page = include_str!("../../../docs/hub.md");
    let (_, example) = page.split_once("```python\n").expect("docs/hub.md has an example");
    let example_file = home.path().join("example.py");
    fs::write(&example_file, example.split("```").next().unwrap_or_default()).expect("as above");
    let mut verifier = command(&parts::standard_webhooks(), home.path());
    verifier.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/webhook.py"));
    verifier.arg(edge.setting("CALLBACK_SECRET")).arg(&file).arg(&example_file);
    let mut process = Process::start("webhook", &mut verifier, home.path());
    let status = process.wait(PATIENCE);
    assert!(status.success(), "the verifier ended with {status}");
    serde_json::from_str(&process.output()).expect("it prints one line of JSON")
}

#[test]
fn the_library_of_standard_webhooks_believes_each_call_and_none_that_is_changed() {
    let receiver = Receiver::start();
    let edge = Edge::start_with(&["--callback-allow", &receiver.origin]);
    let url = format!("{}/hook?key=1", receiver.origin);
    let job_id = submit(&edge, &json!({"url": url, "events": ["running", "completed"]}));

    // The first try fails, and the same is told again.
    receiver.answers(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    report(&edge, &[json!({"job_id": job_id, "state": "held", "attempt": 0})]);
    report(&edge, &[json!({"job_id": job_id, "state": "running", "attempt": 1})]);
    receiver.wait_for(1);
    let failed = wait_for_status(&edge, &job_id, "the first try", |calls| calls[0]["outcome"].is_string());
    assert_eq!(
        (&failed[0]["event"], &failed[0]["state"], &failed[0]["tries"], &failed[0]["outcome"]),
        (&json!("running"), &json!("waiting"), &json!(1), &json!("answered with 500"))
    );
    receiver.wait_for(2);
    let result = json!({"job_id": job_id, "status": "completed", "output": {"é": 1.0}});
    report(&edge, &[json!({"job_id": job_id, "state": "completed", "attempt": 1, "result": result})]);
    let calls = receiver.wait_for(3);
    let told = wait_for_status(&edge, &job_id, "both to be delivered", |calls| {
        calls.as_array().is_some_and(|calls| calls.len() == 2 && calls.iter().all(|call| call["state"] == "delivered"))
    });
    assert_eq!(
        told.as_array()
            .unwrap()
            .iter()
            .map(|call| (&call["event"], &call["tries"], &call["outcome"]))
            .collect::<Vec<_>>(),
        [
            (&json!("running"), &json!(2), &json!("answered with 204")),
            (&json!("completed"), &json!(1), &json!("answered with 204"))
        ]
    );

    let id_of = |call: &(String, HeaderMap, String)| call.1["webhook-id"].to_str().unwrap().to_owned();
    assert_eq!(id_of(&calls[0]), id_of(&calls[1]), "two tries of one call have one id");
    assert_ne!(id_of(&calls[1]), id_of(&calls[2]));
    assert!(calls.iter().all(|(path, headers, _)| path == "/hook" && headers["content-type"] == "application/json"));
    let verified = verified(&edge, &calls);
    let types = ["job.running", "job.running", "job.completed"];
    assert_eq!(verified.len(), types.len());
    for (seen, kind) in verified.iter().zip(types) {
        assert_eq!((&seen["said"]["type"], &seen["said"]["data"]["job_id"]), (&json!(kind), &json!(job_id)), "{seen}");
        assert_eq!(seen["by_example"], seen["said"], "the example of docs/hub.md");
        assert_eq!(seen["changed"], json!([]), "what was changed is believed, too: {seen}");
    }
    assert_eq!(verified[2]["said"]["data"]["result"]["output"], json!({"é": 1.0}));
    assert_eq!(receiver.calls().len(), 3, "each is told once");
}

#[test]
fn a_redirect_is_not_followed() {
    let receiver = Receiver::start();
    let edge = Edge::start_with(&["--callback-allow", &receiver.origin]);
    let elsewhere = format!("{}/elsewhere", receiver.origin);
    receiver.answers((StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere)]).into_response());
    let job_id = submit(&edge, &json!({"url": format!("{}/hook", receiver.origin)}));
    report(&edge, &[json!({"job_id": job_id, "state": "failed", "attempt": 1})]);
    let calls = wait_for_status(&edge, &job_id, "the first try", |calls| calls[0]["outcome"].is_string());
    assert_eq!(calls[0]["outcome"], "answered with 307; a redirect is not followed");
    assert_eq!(calls[0]["state"], "waiting");
    // It is tried again at the same address.
    let paths = receiver.wait_for(2).into_iter().map(|(path, ..)| path).collect::<Vec<_>>();
    assert_eq!(paths, ["/hook"; 2]);
    wait_for_status(&edge, &job_id, "the second try", |calls| calls[0]["state"] == "delivered");
}

#[test]
fn nobody_is_called_who_is_not_public_unless_the_operator_allows_it() {
    let receiver = Receiver::start();
    let port = receiver.origin.rsplit(':').next().unwrap().to_owned();
    let edge = Edge::start();
    let allows_another = Edge::start_with(&["--callback-allow", "http://127.0.0.1:1"]);
    let urls = [
        format!("{}/hook", receiver.origin),
        format!("http://localhost:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ];
    for edge in [&edge, &allows_another] {
        for url in &urls {
            let job = json!({"task": "script", "callback": {"url": url}});
            let answer = send(edge.producer().post("/jobs").body(job.to_string()));
            assert_eq!(answer.status, 422, "{url}: {answer:?}");
            let problem = answer.json();
            assert_eq!((&problem["code"], &problem["field"]), (&json!("invalid_job"), &json!("callback")), "{url}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with("`callback`: its `url` must be"), "{url}: {detail}");
        }
        assert_eq!(edge.backlog(testkit::Queue::Jobs), 0);
    }
    assert!(receiver.calls().is_empty());
}
