//! Every decision of the edge, as values: what is taken, under which id, what is refused and how, and what becomes of
//! a queue that does not take a message.

use std::time::Duration;

use edge::{Admission, Config, Decision, Head, Next, Pending, Refusal, Response, Route, Secret, Sent, route};
use protocol::{JobId, JobMessage, limits};
use serde_json::{Value, json};

const KEY: &str = "the-key";

/// 2026-11-21T01:15:27.123Z, whose text is as long as any of this century.
const NOW_MILLIS: i64 = 1_795_223_727_123;

fn config() -> Config {
    Config { api_key: Secret::new(KEY), ..Config::default() }
}

fn head<'a>(method: &'a str, path: &'a str) -> Head<'a> {
    Head { method, path, content_type: Some("application/json"), api_key: Some(KEY), ..Head::default() }
}

fn answer(head: &Head<'_>) -> Response {
    match route(head, &config()) {
        Route::Answer(response) => response,
        other => panic!("the head was let through: {other:?}"),
    }
}

fn admission(head: &Head<'_>) -> Admission {
    match route(head, &config()) {
        Route::ReadBody(admission) => admission,
        other => panic!("the head was refused: {other:?}"),
    }
}

fn decide(head: &Head<'_>, body: &[u8]) -> Decision {
    let mut minted = 0;
    let mut mint = || {
        minted += 1;
        [minted; 16]
    };
    admission(head).admit(body, protocol::timestamp_from_millis(NOW_MILLIS), &mut mint)
}

fn taken(head: &Head<'_>, body: &str) -> Pending {
    match decide(head, body.as_bytes()) {
        Decision::Enqueue(pending) => pending,
        Decision::Answer(response) => panic!("refused: {response:?}"),
    }
}

fn refused(head: &Head<'_>, body: &[u8]) -> Response {
    match decide(head, body) {
        Decision::Answer(response) => response,
        Decision::Enqueue(pending) => panic!("taken: {pending:?}"),
    }
}

fn sent(pending: Pending) -> Response {
    match pending.sent() {
        Sent::Answer(response) => response,
        Sent::Wait(waiting) => panic!("nobody waits: {waiting:?}"),
    }
}

fn body(response: &Response) -> Value {
    serde_json::from_str(&response.body).expect("every answer is JSON")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
}

/// A refusal as the issue wants it: problem+json with a stable code, and the field where there is one.
fn assert_problem(response: &Response, status: u16, code: &str, field: Option<&str>) {
    let body = body(response);
    assert_eq!(response.status, status, "{body}");
    assert_eq!(header(response, "content-type"), Some("application/problem+json"));
    assert_eq!((body["status"].as_u64(), body["code"].as_str()), (Some(u64::from(status)), Some(code)), "{body}");
    assert_eq!(body.get("field").and_then(Value::as_str), field, "{body}");
    assert!(body["title"].is_string() && body["type"] == "about:blank", "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    assert!(body["retryable"].is_boolean(), "{body}");
}

#[test]
fn one_job_becomes_one_message_and_202_only_once_it_is_sent() {
    let pending = taken(&head("POST", "/jobs"), r#"{"task": "echo", "input": {"a": 1.0}, "metadata": {"n": "x"}}"#);
    let id = JobId::from_random([1; 16]);
    let [message] = pending.messages() else { panic!("{pending:?}") };
    let job = JobMessage::parse(message).unwrap();
    assert_eq!((&job.job_id, job.spec.task.as_str(), job.spec.input.as_str()), (&id, "echo", r#"{"a":1.0}"#));
    assert_eq!(job.created_at, Some(protocol::timestamp_from_millis(NOW_MILLIS)));

    let sent = sent(pending);
    assert_eq!((sent.status, header(&sent, "content-type")), (202, Some("application/json")));
    assert_eq!(body(&sent), json!({"status": "queued", "job_id": id, "queue": "hpc-jobs"}));
}

#[test]
fn what_a_job_allows_travels_with_it_and_nothing_is_made_up() {
    let allowed = |fields: &str| {
        let pending = taken(&head("POST", "/jobs"), &format!(r#"{{"task":"echo"{fields}}}"#));
        let message: Value = serde_json::from_str(&pending.messages()[0]).unwrap();
        ["time_limit_seconds", "retries", "rerunnable"].map(|name| message.get(name).cloned())
    };
    assert_eq!(
        allowed(r#","time_limit_seconds":60,"retries":3,"rerunnable":false"#),
        [Some(json!(60)), Some(json!(3)), Some(json!(false))]
    );
    assert_eq!(allowed(""), [None, None, None]);
}

#[test]
fn health_needs_no_key_and_reads_no_body() {
    for method in ["GET", "HEAD"] {
        let response = answer(&Head { api_key: None, content_type: None, ..head(method, "/health") });
        assert_eq!((response.status, body(&response)), (200, json!({"status": "ok"})));
    }
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    for path in ["//", "/job", "/jobs/", "/jobs/batch/x", "/Jobs", "/health/", ""] {
        assert_problem(&answer(&head("POST", path)), 404, "not_found", None);
    }
    for (method, path, allow) in [
        ("GET", "/jobs/batch", "POST"),
        ("PUT", "/jobs/batch", "POST"),
        ("DELETE", "/jobs", "GET, POST"),
        ("OPTIONS", "/jobs", "GET, POST"),
        ("post", "/jobs", "GET, POST"),
        ("POST", "/jobs/j", "GET"),
        ("GET", "/jobs/j/cancel", "POST"),
        ("POST", "/link", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/", "GET"),
    ] {
        let response = answer(&head(method, path));
        assert_problem(&response, 405, "method_not_allowed", None);
        assert_eq!(header(&response, "allow"), Some(allow));
    }
}

#[test]
fn a_stranger_learns_nothing_but_that_a_key_is_wanted() {
    for api_key in [None, Some(""), Some("the-ke"), Some("the-key "), Some("THE-KEY")] {
        // Everything else is wrong as well, and none of it is told.
        let response = answer(&Head {
            api_key,
            content_type: None,
            content_length: Some(u64::MAX),
            idempotency_key: Some(""),
            ..head("POST", "/jobs")
        });
        assert_problem(&response, 401, "unauthorized", None);
        assert!(header(&response, "www-authenticate").is_some());
        assert!(!response.body.contains(KEY));
    }
}

#[test]
fn without_a_key_of_its_own_the_edge_lets_nobody_in() {
    for api_key in [None, Some(""), Some("anything")] {
        let head = Head { api_key, ..head("POST", "/jobs") };
        match route(&head, &Config { hub: true, ..Config::default() }) {
            Route::Answer(response) => assert_problem(&response, 503, "not_configured", None),
            _ => panic!("an edge without a key let {api_key:?} in"),
        }
    }
}

#[test]
fn the_hub_has_a_key_for_people_and_one_for_sites() {
    let sites = Config { site_key: Secret::new("the-site"), hub: true, ..config() };
    let ask = |method, path, api_key, site_key, config: &Config| {
        let content_type = Some("application/json");
        let head =
            Head { method, path, api_key, site_key, content_type, upgrade: Some("WebSocket"), ..Head::default() };
        route(&head, config)
    };
    let status = |answered: Route| match answered {
        Route::Answer(response) => response.status,
        Route::Hub(_) | Route::Link => 200,
        Route::ReadBody(_) => panic!("it is no submission"),
    };
    for (method, path) in [("GET", "/jobs"), ("GET", "/jobs/j"), ("POST", "/jobs/j/cancel"), ("GET", "/events")] {
        assert_eq!(status(ask(method, path, Some(KEY), None, &sites)), 200, "{path}");
        assert_eq!(status(ask(method, path, None, Some("the-site"), &sites)), 401, "{path}");
        assert_eq!(status(ask(method, path, Some(KEY), None, &config())), 501, "{path}");
    }
    for (method, path) in [("GET", "/link"), ("POST", "/report")] {
        assert_eq!(status(ask(method, path, None, Some("the-site"), &sites)), 200, "{path}");
        assert_eq!(status(ask(method, path, Some(KEY), None, &sites)), 401, "{path}");
        assert_eq!(status(ask(method, path, Some(KEY), Some(KEY), &sites)), 401, "{path}");
        assert_eq!(status(ask(method, path, None, Some("the-site"), &config())), 503, "{path}");
    }
    let plain = Head { method: "GET", path: "/link", site_key: Some("the-site"), ..Head::default() };
    assert_eq!(status(route(&plain, &sites)), 426);
}

#[test]
fn only_json_is_read() {
    for content_type in [None, Some(""), Some("text/plain"), Some("application/jsonp"), Some("text/json")] {
        let response = answer(&Head { content_type, ..head("POST", "/jobs") });
        assert_problem(&response, 415, "unsupported_media_type", None);
        let with_hub = Config { hub: true, ..config() };
        match route(&Head { content_type, ..head("POST", "/jobs/cancel") }, &with_hub) {
            Route::Answer(response) => assert_problem(&response, 415, "unsupported_media_type", None),
            _ => panic!("a body of {content_type:?} is read"),
        }
        // There is none to read.
        assert!(matches!(route(&Head { content_type, ..head("POST", "/jobs/j/cancel") }, &with_hub), Route::Hub(_)));
    }
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON;x=y"] {
        admission(&Head { content_type: Some(content_type), ..head("POST", "/jobs") });
    }
}

#[test]
fn what_is_no_job_is_refused_with_its_field() {
    for (text, status, code, field) in [
        ("", 400, "malformed_json", None),
        ("{", 400, "malformed_json", None),
        ("{} {}", 400, "malformed_json", None),
        ("task=echo", 400, "malformed_json", None),
        ("[]", 422, "invalid_job", None),
        ("7", 422, "invalid_job", None),
        ("null", 422, "invalid_job", None),
        ("{}", 422, "invalid_job", Some("task")),
        (r#"{"task":7}"#, 422, "invalid_job", Some("task")),
        (r#"{"task":""}"#, 422, "invalid_job", Some("task")),
        (r#"{"task":"a\nb"}"#, 422, "invalid_job", Some("task")),
        (r#"{"task":"a","metadata":1}"#, 422, "invalid_job", Some("metadata")),
        (r#"{"task":"a","time_limit_seconds":-1}"#, 422, "invalid_job", Some("time_limit_seconds")),
        (r#"{"task":"a","retries":101}"#, 422, "invalid_job", Some("retries")),
        (r#"{"task":"a","rerunnable":"no"}"#, 422, "invalid_job", Some("rerunnable")),
        (r#"{"task":"a","idempotency_key":""}"#, 422, "invalid_job", Some("idempotency_key")),
        (r#"{"task":"a","job_id":"mine"}"#, 422, "invalid_job", Some("job_id")),
    ] {
        let response = refused(&head("POST", "/jobs"), text.as_bytes());
        assert_problem(&response, status, code, field);
        assert_eq!(body(&response)["retryable"], false, "{text}");
    }
    assert_problem(&refused(&head("POST", "/jobs"), b"{\"task\":\"\xff\"}"), 400, "malformed_json", None);
}

#[test]
fn the_largest_job_passes_and_one_byte_more_does_not() {
    let job = |input: usize| format!(r#"{{"task":"echo","input":"{}"}}"#, "x".repeat(input));
    let overhead = taken(&head("POST", "/jobs"), &job(0)).messages()[0].len();
    let largest = limits::MESSAGE_BODY_BYTES_MAX - overhead;
    assert_eq!(
        taken(&head("POST", "/jobs"), &job(largest)).messages()[0].len(),
        limits::MESSAGE_BYTES_MAX - limits::MESSAGE_METADATA_BYTES
    );

    let response = refused(&head("POST", "/jobs"), job(largest + 1).as_bytes());
    assert_problem(&response, 413, "message_too_large", None);
    let body = body(&response);
    assert_eq!((body["limit"].as_u64(), body["size"].as_u64()), (Some(127_900), Some(127_901)), "{body}");
}

#[test]
fn white_space_does_not_count_but_has_a_bound_too() {
    let padded = |spaces: usize| format!(r#"{{"task":"echo"{}}}"#, " ".repeat(spaces));
    let room = limits::REQUEST_BYTES_MAX - padded(0).len();
    assert_eq!(padded(room).len(), admission(&head("POST", "/jobs")).body_limit());
    assert!(taken(&head("POST", "/jobs"), &padded(room)).messages()[0].len() < 200);
    let response = refused(&head("POST", "/jobs"), padded(room + 1).as_bytes());
    assert_problem(&response, 413, "request_too_large", None);

    // Where the length is announced, nothing is read at all.
    let announced = |length: u64| Head { content_length: Some(length), ..head("POST", "/jobs") };
    admission(&announced(limits::REQUEST_BYTES_MAX as u64));
    let response = answer(&announced(limits::REQUEST_BYTES_MAX as u64 + 1));
    assert_problem(&response, 413, "request_too_large", None);
    assert_eq!(body(&response)["size"], 1_000_001);
}

#[test]
fn the_same_key_gives_the_same_job_id() {
    let ids = |idempotency_key: Option<&str>, path: &str, text: &str| -> Vec<JobId> {
        let pending = taken(&Head { idempotency_key, ..head("POST", path) }, text);
        pending.messages().iter().map(|message| JobMessage::parse(message).unwrap().job_id).collect()
    };
    let by_key = JobId::from_idempotency_key;
    let echo = r#"{"task":"echo"}"#;
    assert_eq!(ids(Some("k"), "/jobs", echo), [by_key("k", None)]);
    // A key in the body is the same key, and it is the more precise one.
    let own = r#"{"task":"echo","idempotency_key":"k"}"#;
    assert_eq!(ids(None, "/jobs", own), [by_key("k", None)]);
    assert_eq!(ids(Some("of-the-request"), "/jobs", own), [by_key("k", None)]);
    // The key of a batch makes one key of each place, also when another job before it is refused.
    let batch = format!(r#"{{"jobs":[{echo},{{}},{echo},{own}]}}"#);
    assert_eq!(ids(Some("b"), "/jobs/batch", &batch), [by_key("b", Some(0)), by_key("b", Some(2)), by_key("k", None)]);
    // Without a key every job is another one.
    assert_eq!(
        ids(None, "/jobs/batch", &format!(r#"{{"jobs":[{echo},{echo}]}}"#)),
        [JobId::from_random([1; 16]), JobId::from_random([2; 16])]
    );
}

#[test]
fn malformed_idempotency_keys_are_refused_before_the_body_is_read() {
    for key in ["", "a\tb", "a\u{0}b", "a\u{fffd}", &"k".repeat(256)] {
        let response = answer(&Head { idempotency_key: Some(key), ..head("POST", "/jobs") });
        assert_problem(&response, 422, "invalid_job", Some("Idempotency-Key"));
    }
    admission(&Head { idempotency_key: Some(&"k".repeat(255)), ..head("POST", "/jobs") });
}

#[test]
fn a_batch_is_answered_job_by_job_in_its_order() {
    let jobs = r#"{"jobs":[{"task":"a"},{"task":7},{"task":"b"},{},{"task":"c"}]}"#;
    let pending = taken(&head("POST", "/jobs/batch"), jobs);
    let tasks: Vec<String> =
        pending.messages().iter().map(|message| JobMessage::parse(message).unwrap().spec.task).collect();
    assert_eq!(tasks, ["a", "b", "c"]);

    let sent = sent(pending);
    assert_eq!(sent.status, 202);
    let answers = body(&sent)["jobs"].as_array().unwrap().clone();
    let statuses: Vec<&str> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["queued", "refused", "queued", "refused", "queued"]);
    assert_eq!(answers[2]["job_id"], JobId::from_random([2; 16]).as_str());
    assert_eq!(
        (&answers[1]["problem"]["code"], &answers[1]["problem"]["field"]),
        (&json!("invalid_job"), &json!("task"))
    );
    assert!(answers[3].get("job_id").is_none());
}

#[test]
fn a_batch_without_a_good_job_sends_nothing() {
    let response = refused(&head("POST", "/jobs/batch"), br#"{"jobs":[{},{"task":""}]}"#);
    assert_eq!((response.status, body(&response)["jobs"].as_array().map(Vec::len)), (422, Some(2)));
    for text in ["[]", "{}", r#"{"jobs":{}}"#, r#"{"jobs":[]}"#, r#"{"jobs":[],"more":1}"#] {
        assert_problem(&refused(&head("POST", "/jobs/batch"), text.as_bytes()), 422, "invalid_job", Some("jobs"));
    }
    assert_problem(&refused(&head("POST", "/jobs/batch"), b"{\"jobs\":["), 400, "malformed_json", None);
}

#[test]
fn a_batch_has_at_most_100_jobs_and_256_kilobytes() {
    let batch = |jobs: &[String]| format!(r#"{{"jobs":[{}]}}"#, jobs.join(","));
    let echo = || r#"{"task":"echo"}"#.to_owned();
    assert_eq!(taken(&head("POST", "/jobs/batch"), &batch(&vec![echo(); 100])).messages().len(), 100);
    let response = refused(&head("POST", "/jobs/batch"), batch(&vec![echo(); 101]).as_bytes());
    assert_problem(&response, 413, "batch_too_many", None);
    assert_eq!((&body(&response)["limit"], &body(&response)["size"]), (&json!(100), &json!(101)));

    // Three jobs that fill the batch to the byte: 256,000 with 100 bytes of metadata each.
    let job = |input: usize| format!(r#"{{"task":"echo","input":"{}"}}"#, "x".repeat(input));
    let overhead = taken(&head("POST", "/jobs"), &job(0)).messages()[0].len() + limits::MESSAGE_METADATA_BYTES;
    let room = limits::BATCH_BYTES_MAX - 3 * overhead;
    let (third, rest) = (room / 3, room - 2 * (room / 3));
    assert_eq!(taken(&head("POST", "/jobs/batch"), &batch(&[job(third), job(third), job(rest)])).messages().len(), 3);
    let response = refused(&head("POST", "/jobs/batch"), batch(&[job(third), job(third), job(rest + 1)]).as_bytes());
    assert_problem(&response, 413, "batch_too_large", None);
    assert_eq!((&body(&response)["limit"], &body(&response)["size"]), (&json!(256_000), &json!(256_001)));

    // One job of a batch that is too large alone is refused alone.
    let sent = sent(taken(&head("POST", "/jobs/batch"), &batch(&[echo(), job(130_000)])));
    assert_eq!(body(&sent)["jobs"][1]["problem"]["code"], "message_too_large");
}

#[test]
fn a_queue_that_is_busy_is_offered_the_message_a_few_times_within_seconds() {
    for (refusal, status, code) in [
        (Refusal::Overloaded { retry_after: None }, 429, "queue_full"),
        (Refusal::Unavailable, 503, "queue_unavailable"),
    ] {
        let mut pending = taken(&head("POST", "/jobs"), r#"{"task":"echo"}"#);
        let mut pauses = Vec::new();
        let response = loop {
            match pending.refused(refusal) {
                Next::RetryAfter(pause) => pauses.push(pause),
                Next::Answer(response) => break response,
            }
            assert!(pauses.len() < 10, "the edge would go on for ever");
        };
        assert_eq!(pauses.len(), 3);
        assert!(pauses.is_sorted() && pauses.iter().sum::<Duration>() < Duration::from_secs(5), "{pauses:?}");
        assert_problem(&response, status, code, None);
        assert_eq!((header(&response, "retry-after"), &body(&response)["retryable"]), (Some("5"), &json!(true)));
    }
}

#[test]
fn a_refused_write_can_still_succeed() {
    let mut pending = taken(&head("POST", "/jobs"), r#"{"task":"echo"}"#);
    let before = pending.messages().to_vec();
    assert!(matches!(pending.refused(Refusal::Unavailable), Next::RetryAfter(_)));
    // The same message goes out again: a write that had happened after all is the same job twice, which is one job.
    assert_eq!(pending.messages(), before);
    assert_eq!(sent(pending).status, 202);
}

#[test]
fn what_will_not_get_better_soon_is_answered_at_once() {
    let refused = |refusal| {
        let mut pending = taken(&head("POST", "/jobs"), r#"{"task":"echo"}"#);
        match pending.refused(refusal) {
            Next::Answer(response) => response,
            Next::RetryAfter(pause) => panic!("{refusal:?} is tried again after {pause:?}"),
        }
    };
    let quota = refused(Refusal::QuotaExhausted);
    assert_problem(&quota, 429, "queue_full", None);
    // It is a quarter past one in the morning.
    assert_eq!(header(&quota, "retry-after"), Some("81873"));
    assert!(body(&quota)["detail"].as_str().unwrap().contains("until 2026-11-22T00:00:00Z"), "{}", body(&quota));

    let disabled = refused(Refusal::Disabled);
    assert_problem(&disabled, 429, "queue_full", None);
    assert!(body(&disabled)["detail"].as_str().unwrap().contains("disabled"), "{}", body(&disabled));

    let asked = refused(Refusal::Overloaded { retry_after: Some(Duration::from_millis(30_500)) });
    assert_problem(&asked, 429, "queue_full", None);
    assert_eq!(header(&asked, "retry-after"), Some("31"));

    let too_large = refused(Refusal::TooLarge);
    assert_problem(&too_large, 413, "message_too_large", None);
    assert_eq!(header(&too_large, "retry-after"), None);
}

#[test]
fn pages_of_other_origins_may_ask_only_where_the_operator_says_so() {
    let other = "https://lab.example";
    let open = Config { cors_origins: vec![other.to_owned()], hub: true, ..config() };
    let ask = |method, origin: Option<&'static str>, config: &Config| {
        let head = Head { method, path: "/jobs", api_key: Some(KEY), origin, ..Head::default() };
        let status = match route(&head, config) {
            Route::Answer(response) => response.status,
            Route::Hub(_) => 200,
            other => panic!("{other:?}"),
        };
        (status, config.cors_headers(origin).len())
    };
    assert_eq!(ask("OPTIONS", Some(other), &open), (204, 3));
    assert_eq!(ask("HEAD", Some(other), &open), (200, 3));
    assert_eq!(ask("GET", Some("https://evil.example"), &open), (200, 0));
    assert_eq!(ask("OPTIONS", Some("https://evil.example"), &open), (405, 0));
    let closed = Config { hub: true, ..config() };
    assert_eq!(ask("OPTIONS", Some(other), &closed), (405, 0));
    assert_eq!(ask("HEAD", Some(other), &closed), (405, 0));
    let wild = Config { cors_origins: vec!["*".to_owned()], ..open };
    assert_eq!(ask("OPTIONS", Some(other), &wild), (405, 0), "each is named");
}

#[test]
fn a_job_with_files_needs_an_edge_that_has_a_store_of_them() {
    let content = json!({"size": 1, "sha256": "0".repeat(64)});
    let file = json!({"path": "a", "size": 1, "sha256": "0".repeat(64)});
    let keys = edge::files::Keys { access_key_id: "id".to_owned(), secret_access_key: "secret".to_owned() };
    let store = edge::files::Store::own("/s3", "files", "auto", keys);
    let head = head("POST", "/jobs");
    for (hub, files) in [(true, None), (false, Some(store.clone())), (true, Some(store))] {
        let knows = hub && files.is_some();
        let config = Config { hub, files, ..config() };
        for (field, value) in
            [("files", json!([file])), ("outputs", json!({"patterns": ["*.png"]})), ("input_file", content.clone())]
        {
            let job = json!({"task": "a", field: value}).to_string();
            let Route::ReadBody(admission) = route(&head, &config) else { panic!("the head was refused") };
            match admission.admit(job.as_bytes(), protocol::timestamp_from_millis(NOW_MILLIS), &mut || [0; 16]) {
                Decision::Enqueue(_) => assert!(knows, "{field}: it would wait for files that nobody can give"),
                Decision::Answer(refused) => {
                    assert!(!knows, "{field}: {refused:?}");
                    assert_problem(&refused, 422, "invalid_job", Some(field));
                    assert!(refused.body.contains("names one with FILES_ENDPOINT, FILES_BUCKET"), "{refused:?}");
                }
            }
        }
    }
}
