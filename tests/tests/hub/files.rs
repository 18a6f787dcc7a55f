//! Files at both edges, whose object store is that of another `local-edge`; and stores that are broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::files::{Asked as _, Content, had, put, text};
use testkit::http::{Answer, block_on, client, send};
use testkit::{Edge, ObjectStore, PATIENCE, Queue};

use crate::both::{Side, on_both_with};
use crate::link::{Link, hello, job, record};

const MIB: usize = 1024 * 1024;
const THEN: &str = "2026-11-30T04:00:00.000Z";

fn code(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json()["code"].clone())
}

#[test]
fn contents_are_put_and_had_by_addresses_in_the_store() {
    let store = ObjectStore::of_edge(Edge::start());
    let within = format!("{}/files/sha256/", store.endpoint());
    on_both_with(&store.settings(), |side| {
        let (small, large) = (Content::of_size(1_000), Content::of_size(65 * MIB));
        let offered = side.place(&small);
        assert!(text(&offered, "url").starts_with(&within), "{offered}");
        side.note("the header of a small one", offered["headers"][0][0].clone());
        let mut wrong = small.bytes.clone();
        wrong[7] ^= 1;
        assert_eq!(send(put(&offered, &wrong)).status, 400, "its checksum is signed");
        let complete = side.complete(&small, &json!({}));
        assert_eq!(complete.status, 409, "{complete:?}");
        side.note("not there", complete.json());
        assert_eq!(side.put_all(&small), 1);
        assert_eq!(side.put_all(&small), 0, "what is there is not sent again");
        assert_eq!(side.download(&small, Some("bytes=10-19")), (206, small.bytes[10..20].to_vec()));

        let first = side.place(&large);
        assert_eq!((first["state"].as_str(), first["parts"].as_array().map(Vec::len)), (Some("parts"), Some(5)));
        let answer = send(put(&first["parts"][4], &large.bytes[64 * MIB..]));
        let again = side.place(&large);
        assert_eq!((&again["upload"], again["parts"].as_array().map(Vec::len)), (&first["upload"], Some(4)));
        assert_eq!(again["done"], json!([{"number": 5, "etag": answer.header("etag")}]));
        let too_few = json!({"upload": first["upload"], "parts": [{"number": 1, "etag": "x"}]});
        side.note("too few parts", side.complete(&large, &too_few).json());
        let wrong: Vec<Value> = (1..=5).map(|number| json!({"number": number, "etag": "x"})).collect();
        let wrong = json!({"upload": first["upload"], "parts": wrong});
        side.note("wrong parts", side.complete(&large, &wrong).json());
        assert_eq!(side.put_all(&large), 4);
        let (status, bytes) = side.download(&large, None);
        assert!(status == 200 && bytes == large.bytes, "it is what was put");

        let unknown = Content::of("nobody has put this anywhere");
        for path in [unknown.path(), "/files/x".to_owned(), "/files/..%2f".to_owned(), "/jobs/nobody/files".to_owned()]
        {
            assert_eq!(side.get(&path).status, 404, "{path}");
        }
        side.post(&format!("{}/complete", unknown.path()), &json!({}));
        side.post(&format!("{}/wrong", unknown.path()), &json!({}));
        for body in [json!({}), json!({"files": [{"sha256": "x", "size": 1}]}), json!({"files": [], "more": 1})] {
            assert_eq!(side.post("/files", &body).status, 400, "{body}");
        }
        assert_eq!(side.post("/files", &json!({"files": []})).json()["files"], json!([]));
    });
}

#[test]
fn people_and_sites_have_a_share_each() {
    let store = ObjectStore::of_edge(Edge::start());
    let settings: Vec<(&str, &str)> = store.settings().into_iter().chain([("FILES_BYTES_MAX", "1KB")]).collect();
    on_both_with(&settings, |side| {
        let (of_people, too_much, of_sites) =
            (Content::of("a".repeat(600)), Content::of("b".repeat(600)), Content::of("c".repeat(600)));
        side.put_all(&of_people);
        let full = side.post("/files", &json!({"files": [too_much.to_json()]}));
        assert_eq!(code(&full), (507, json!("files_full")), "{full:?}");
        let as_site = |method: Method, path: &str| {
            client().request(method, format!("{}{path}", side.producer().url)).header("x-site-key", side.site_key())
        };
        let offered = send(as_site(Method::POST, "/files").json(&json!({"files": [of_sites.to_json()]})));
        assert_eq!((offered.status, offered.json()["files"][0]["state"].as_str()), (200, Some("put")), "{offered:?}");
        let again = as_site(Method::POST, "/files").json(&json!({"files": [too_much.to_json()]}));
        assert_eq!(send(again).status, 507, "theirs is full now, too");
        assert_eq!(send(as_site(Method::GET, &of_people.path())).status, 302);
        assert_eq!(send(as_site(Method::GET, "/jobs/j/files")).status, 401, "that is for people");
        // Nobody says of themselves who they are.
        let feigned = side.request(Method::POST, "/files").header("x-asked-by-a-site", "1");
        assert_eq!(send(feigned.json(&json!({"files": [too_much.to_json()]}))).status, 507);
    });
}

#[test]
fn what_a_job_has_left_is_listed_with_addresses() {
    let store = ObjectStore::of_edge(Edge::start());
    let (plot, output, never_put) = (Content::of("<svg/>"), Content::of("[1]"), Content::of("gone"));
    on_both_with(&store.settings(), |side| {
        side.put_all(&plot);
        side.put_all(&output);
        let needed = json!([plot.as_file("data/in"), never_put.as_file("other")]);
        let wanted = json!({"patterns": ["plots/*.svg"]});
        let id = side.submit("a", &json!({"task": "t", "files": needed, "outputs": wanted}));
        let path = format!("/jobs/{id}/files");
        assert_eq!(side.get(&path).json(), json!({"files": []}), "it has left nothing yet");
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let mut ended = job(&id, "completed", 1, THEN);
        let mut result = record(&id, "completed");
        result["files"] = json!([plot.as_file("plots/a b.svg"), never_put.as_file("plots/c.svg")]);
        result["output_file"] = output.to_json();
        ended["result"] = result;
        link.report(1, json!({"jobs": [ended]}));
        let listed = send(side.request(Method::GET, &path)).json();
        assert_eq!(listed["gone"], json!([never_put.as_file("plots/c.svg")]));
        let urls: Vec<&str> = (0..2).map(|at| text(&listed["files"][at], "url")).collect();
        assert_eq!(had(urls[0], None), (200, plot.bytes.clone()));
        assert_eq!(had(urls[1], None), (200, output.bytes.clone()));
        let shown = send(client().get(urls[0]));
        assert_eq!(shown.header("content-type"), Some("image/svg+xml"));
        assert_eq!(shown.header("content-disposition").map(|text| text.contains("a%20b.svg")), Some(true));
        let origin = store.endpoint().trim_end_matches("/s3");
        let page = side.get("/");
        let policy = page.header("content-security-policy").expect("the page has a policy");
        for part in [format!("img-src {origin} data:"), format!("connect-src {origin} 'self'")] {
            assert!(policy.contains(&part), "{part} in {policy}");
        }
    });
}

#[test]
fn without_a_store_a_worker_takes_no_job_with_files() {
    let mut side = Side::worker();
    let content = Content::of("a");
    for (field, value) in [
        ("files", json!([content.as_file("a")])),
        ("outputs", json!({"patterns": ["*"]})),
        ("input_file", content.to_json()),
    ] {
        let refused = side.post("/jobs", &json!({"task": "t", field: value}));
        assert_eq!((refused.status, refused.json()["field"].as_str()), (422, Some(field)), "{refused:?}");
        assert!(refused.body.contains("FILES_ENDPOINT"), "{refused:?}");
    }
    let offered = side.post("/files", &json!({"files": [content.to_json()]}));
    assert_eq!(code(&offered), (501, json!("no_files")));
    let page = side.get("/");
    let policy = page.header("content-security-policy").expect("the page has a policy");
    assert!(policy.contains("connect-src 'self';") && policy.contains("img-src data:;"), "{policy}");
}

/// A store that does what it must not: how it does, the path says, and how often it was asked where nobody should.
struct Broken {
    address: String,
    led_on: Arc<AtomicUsize>,
}

impl Broken {
    fn start(answer: impl Fn() -> axum::response::Response + Clone + Send + Sync + 'static) -> Self {
        let led_on: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&led_on);
        let elsewhere = move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            "<UploadId>x</UploadId>"
        };
        let router = Router::new().route("/elsewhere", axum::routing::any(elsewhere)).fallback(move || {
            let answer = answer();
            async move { answer }
        });
        let address = block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
            let address = listener.local_addr().expect("a bound listener has an address");
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        Self { address: format!("http://{address}"), led_on }
    }

    fn settings(&self) -> [(&'static str, &str); 4] {
        [
            ("FILES_ENDPOINT", &self.address),
            ("FILES_BUCKET", "b"),
            ("FILES_ACCESS_KEY_ID", "id"),
            ("FILES_SECRET_ACCESS_KEY", "secret"),
        ]
    }
}

/// Offers a large content, for which the store has to be asked.
fn offer_large(side: &Side) -> (Answer, Duration) {
    let began = Instant::now();
    let body = json!({"files": [{"sha256": "0".repeat(64), "size": 100 * MIB}]});
    let request = side.request(Method::POST, "/files").timeout(2 * PATIENCE).json(&body);
    (send(request), began.elapsed())
}

#[test]
fn a_store_that_leads_elsewhere_is_not_followed() {
    let broken = Broken::start(|| {
        let answer = axum::http::Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
        answer.header("location", "/elsewhere").body(Body::empty()).expect("an answer can be made")
    });
    on_both_with(&broken.settings(), |side| {
        let (answer, _) = offer_large(side);
        assert_eq!(code(&answer), (503, json!("store_unavailable")), "{answer:?}");
        assert!(answer.body.contains("it answered with 307"), "{answer:?}");
    });
    assert_eq!(broken.led_on.load(Ordering::SeqCst), 0);
}

#[test]
fn of_an_answer_without_an_end_as_much_is_read_as_is_needed() {
    let broken = Broken::start(|| {
        let pieces = stream::repeat_with(|| Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 100_000])));
        axum::response::Response::new(Body::from_stream(pieces))
    });
    on_both_with(&broken.settings(), |side| {
        let (answer, took) = offer_large(side);
        assert_eq!(code(&answer), (503, json!("store_unavailable")), "{answer:?}");
        assert!(answer.body.contains("names no upload"), "{answer:?}");
        assert!(took < Duration::from_secs(20), "{took:?}: all of the patience was used");
        side.get("/health");
    });
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_half_a_minute() {
    let broken = Broken::start(|| {
        let pieces = stream::pending::<Result<Bytes, std::convert::Infallible>>();
        axum::response::Response::new(Body::from_stream(pieces))
    });
    let sides = Side::both_with(&broken.settings());
    thread::scope(|scope| {
        for side in &sides {
            scope.spawn(move || {
                let (answer, took) = offer_large(side);
                assert_eq!(code(&answer), (503, json!("store_unavailable")), "{answer:?}");
                assert!(answer.body.contains("no answer within 30 s"), "{}: {answer:?}", side.name);
                assert!((25..60).contains(&took.as_secs()), "{}: {took:?}", side.name);
            });
        }
    });
}

#[test]
fn a_store_whose_clock_is_an_hour_off_is_away_and_not_wrong() {
    let edge = Edge::start_with(&["--faults"]);
    let ahead = json!({"fault": "clock_jump", "milliseconds": 61 * 60_000, "operations": ["metrics"], "count": 1});
    edge.set_faults(Some(&json!({"seed": 1, "rules": [ahead]})));
    edge.backlog(Queue::Jobs);
    assert_eq!(edge.injected_faults()["clock_jump"], 1);
    let store = ObjectStore::of_edge(edge);
    let content = Content::of_size(10);
    on_both_with(&store.settings(), |side| {
        let (answer, _) = offer_large(side);
        assert_eq!(code(&answer), (503, json!("store_unavailable")), "{answer:?}");
        assert!(answer.body.contains("see its keys, its bucket and the clocks"), "{answer:?}");
        // Who puts there what is small meets it first.
        let offered = side.place(&content);
        assert_eq!(send(put(&offered, &content.bytes)).status, 403);
        assert_eq!(side.complete(&content, &json!({})).status, 503);
    });
}
