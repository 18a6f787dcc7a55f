//! Every answer of the hub, asked of both edges: each must be the expected one, and both edges must give the same.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::{block_on, client, raw, send};
use testkit::{Edge, PATIENCE, Queue, Worker, wait_until};
use tokio_tungstenite::tungstenite::Message;

use crate::both::{A_WHILE, Side, on_both, on_both_with};
use crate::link::{Heard, Link, hello, job, record};

const THEN: &str = "2026-11-30T04:00:00.000Z";
const LATER: &str = "2026-11-30T04:00:05.000Z";

const LIMIT_OF_A_MESSAGE: usize = 1_000_000;

fn ids(page: &Value) -> Vec<&str> {
    let jobs = page["jobs"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    jobs.iter().map(|job| job["job_id"].as_str().expect("a job has an id")).collect()
}

#[test]
fn jobs_are_listed_by_what_they_are() {
    on_both(|side| {
        let five: Vec<String> = [("a", "simulate"), ("b", "simulate"), ("c", "plot"), ("d", "plot"), ("e", "simulate")]
            .map(|(key, task)| {
                side.submit(key, &json!({"task": task, "name": format!("it's {key}"), "input": {"n": 1}}))
            })
            .to_vec();
        let newest_first = |wanted: &[usize]| wanted.iter().map(|at| five[*at].as_str()).collect::<Vec<_>>();
        assert_eq!(ids(&side.get("/jobs").json()), newest_first(&[4, 3, 2, 1, 0]));
        side.report(json!([
            hello("alpha", "d1"),
            {"type": "report", "jobs": [
                job(&five[0], "held", 0, THEN), job(&five[1], "running", 1, THEN), job(&five[2], "parked", 1, THEN)
            ]}
        ]));
        for (filter, wanted) in [
            ("task=simulate", &[4, 1, 0][..]),
            ("state=queued", &[4, 3]),
            ("state=held,running", &[1, 0]),
            ("state=queued&task=plot", &[3]),
            ("site=alpha", &[2, 1, 0]),
            ("pool=default", &[2, 1, 0]),
            ("name=it%27s+c", &[2]),
            ("name=%27+OR+1=1+--", &[]),
            ("task=a%22b%27%3B+DROP+TABLE+job", &[]),
            ("state=&task=plot", &[3, 2]),
        ] {
            assert_eq!(ids(&side.get(&format!("/jobs?{filter}")).json()), newest_first(wanted), "{filter}");
        }
        // Page by page, to the end.
        let (mut seen, mut path) = (Vec::new(), "/jobs?limit=2".to_owned());
        loop {
            let page = side.get(&path).json();
            seen.extend(ids(&page).iter().map(|id| (*id).to_owned()));
            let Some(after) = page["after"].as_str() else { break };
            path = format!("/jobs?limit=2&after={after}");
        }
        assert_eq!(seen, newest_first(&[4, 3, 2, 1, 0]));
        for made_up in ["-1", "0", "1", "9999999999", "9223372036854775807"] {
            assert_eq!(side.get(&format!("/jobs?after={made_up}")).status, 200, "{made_up}");
        }
        for (query, field) in [
            ("after=made-up", Some("after")),
            ("after=99999999999999999999", Some("after")),
            ("limit=many", Some("limit")),
            ("state=canceled", Some("state")),
            ("tsak=a", Some("tsak")),
            ("name=%ff", None),
        ] {
            let answer = side.get(&format!("/jobs?{query}"));
            assert_eq!((answer.status, answer.json()["field"].as_str()), (400, field), "{query}");
        }
    });
}

#[test]
fn how_far_a_job_is_can_be_asked_and_waited_for() {
    on_both(|side| {
        assert_eq!(side.get("/jobs/nobody-knows").status, 404);
        assert_eq!(side.get("/jobs/..%2f").status, 404);
        let id = side.submit_text("a", r#"{"task": "simulate", "name": "n", "input": {"b":1.50,"a":[null]}}"#);
        let path = format!("/jobs/{id}");
        let queued = side.get(&path);
        assert_eq!((queued.json()["state"].as_str(), queued.json()["attempt"].as_u64()), (Some("queued"), Some(0)));
        // Not a digit has changed.
        assert!(queued.body.contains(r#"{"b":1.50,"a":[null]}"#), "{}", queued.body);

        let began = Instant::now();
        assert_eq!(side.get(&format!("{path}?wait=0.2")).json()["state"], "queued");
        assert_eq!(side.get(&format!("{path}?wait=-5")).json()["state"], "queued");
        assert!(began.elapsed().as_millis() >= 200, "it did not wait");

        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&id, "running", 1, THEN)]}));
        assert_eq!(side.get(&path).json()["timeline"].as_array().map(Vec::len), Some(2));

        // Held until it has ended: by nobody's clock.
        let waiting = side.request(Method::GET, &format!("{path}?wait=1e9"));
        let waiting = std::thread::spawn(move || send(waiting));
        std::thread::sleep(A_WHILE);
        assert!(!waiting.is_finished(), "it was answered before it had ended");
        let mut ended = job(&id, "completed", 1, LATER);
        ended["result"] = record(&id, "completed");
        link.report(2, json!({"jobs": [ended]}));
        let answer = waiting.join().expect("the request is answered");
        assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("completed")));
        let again = side.get(&path);
        assert_eq!(answer.json(), again.json());
        assert_eq!(again.json()["result"], record(&id, "completed"));
        assert_eq!(side.get(&format!("{path}?wait=60")).json()["state"], "completed");

        // What is said late, twice or for another job changes nothing.
        link.report(3, json!({"jobs": [job(&id, "running", 1, LATER), job(&id, "running", 1, THEN)]}));
        let mut of_another = job("another", "completed", 1, LATER);
        of_another["result"] = record(&id, "failed");
        link.report(4, json!({"jobs": [of_another]}));
        assert_eq!(side.get(&path).json(), again.json());
        assert_eq!(side.get("/jobs/another").json().get("result"), None);
        assert_eq!(side.get(&format!("{path}?wait=soon")).status, 400);
    });
}

#[test]
fn a_cancel_is_taken_before_during_and_after() {
    on_both(|side| {
        // Nobody has told of it yet.
        let answer = side.post("/jobs/not-yet/cancel", &json!({}));
        assert_eq!((answer.status, answer.json()["state"].as_str()), (202, Some("unknown")));
        let id = side.submit("a", &json!({"task": "simulate"}));
        let running = side.submit("b", &json!({"task": "simulate"}));
        let ended = side.submit("c", &json!({"task": "simulate"}));
        let path = format!("/jobs/{id}/cancel");
        assert_eq!(side.post(&path, &json!({})).json()["cancel"], "requested");
        let again = side.post(&path, &json!({}));
        assert_eq!((again.status, again.json()["cancel"].as_str()), (202, Some("requested")));
        assert!(side.get(&format!("/jobs/{id}")).json()["cancel_requested_at"].is_string());

        // A site that comes hears of all of them.
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "cancel", "jobs": ["not-yet", id]})));
        link.report(1, json!({"jobs": [job(&running, "running", 1, THEN), job(&ended, "failed", 1, THEN)]}));
        assert_eq!(side.post(&format!("/jobs/{running}/cancel"), &json!({})).status, 202);
        assert_eq!(link.hear(), Heard::Message(json!({"type": "cancel", "jobs": [running]})));
        let answer = side.post(&format!("/jobs/{ended}/cancel"), &json!({}));
        assert_eq!((answer.status, answer.json()["cancel"].as_str()), (200, Some("ended")));
        assert_eq!(answer.json()["state"], "failed");

        link.report(2, json!({"jobs": [job(&running, "cancelled", 1, LATER)]}));
        assert_eq!(side.get(&format!("/jobs/{running}")).json()["state"], "cancelled");
        // One that has ended meanwhile is not told of again.
        link.close();
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "cancel", "jobs": ["not-yet", id]})));
    });
}

#[test]
fn many_are_cancelled_by_what_they_are() {
    on_both(|side| {
        let jobs: Vec<String> = (0..6)
            .map(|number| {
                let task = if number % 2 == 0 { "even" } else { "odd" };
                side.submit(&number.to_string(), &json!({"task": task, "name": "it's"}))
            })
            .collect();
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&jobs[0], "completed", 1, THEN), job(&jobs[2], "held", 0, THEN)]}));
        let dry = side.post("/jobs/cancel", &json!({"task": "even", "dry_run": true}));
        assert_eq!((dry.status, dry.json()), (200, json!({"jobs": 2, "more": false})));
        assert_eq!(side.post("/jobs/cancel", &json!({"task": "even", "state": "held"})).json()["jobs"], 1);
        assert_eq!(link.hear(), Heard::Message(json!({"type": "cancel", "jobs": [jobs[2]]})));
        assert_eq!(side.post("/jobs/cancel", &json!({"name": "it's", "task": "odd"})).json()["jobs"], 3);
        assert_eq!(link.hear(), Heard::Message(json!({"type": "cancel", "jobs": [jobs[1], jobs[3], jobs[5]]})));
        assert_eq!(side.post("/jobs/cancel", &json!({"task": "' OR 1=1 --"})).json()["jobs"], 0);
        // A typing error must not be a filter that does not filter.
        for wrong in
            [json!({}), json!({"dry_run": true}), json!({"state": "x"}), json!({"tsak": "odd"}), json!([]), json!(7)]
        {
            assert_eq!(side.post("/jobs/cancel", &wrong).status, 400, "{wrong}");
        }
        let large = json!({"task": "x".repeat(10_001)});
        assert_eq!(side.post("/jobs/cancel", &large).status, 413);
        let left = side.post("/jobs/cancel", &json!({"name": "it's", "dry_run": true}));
        assert_eq!(left.json()["jobs"], 1);
    });
}

/// A piece of what a job prints.
pub(crate) fn piece(id: &str, stream: &str, offset: usize, text: &[u8], end: bool) -> Value {
    let data = STANDARD.encode(text);
    json!({"type": "log", "job_id": id, "attempt": 1, "stream": stream, "offset": offset, "data": data, "end": end})
}

fn tail(id: &str, stream: &str, from: i64) -> Heard {
    Heard::Message(json!({"type": "tail", "job_id": id, "stream": stream, "from": from}))
}

fn untail(id: &str, stream: &str) -> Heard {
    Heard::Message(json!({"type": "untail", "job_id": id, "stream": stream}))
}

#[test]
fn what_a_job_prints_is_followed_and_gone_on_with() {
    on_both(|side| {
        let id = side.submit("a", &json!({"task": "simulate"}));
        let path = format!("/jobs/{id}/logs");
        assert_eq!(side.get("/jobs/nobody-knows/logs").status, 404);
        let nothing = side.get(&path);
        assert_eq!((nothing.status, nothing.json()["code"].as_str()), (404, Some("no_logs")));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&id, "running", 1, THEN)]}));

        let mut follower = side.stream(&format!("{path}?follow=1&stream=stdout&from=0"), None);
        assert_eq!(link.hear(), tail(&id, "stdout", 0));
        // Half a character is kept until its other half comes; control characters come as they are within JSON.
        link.say(&piece(
            &id,
            "stdout",
            0,
            "one\u{1b}[2J\n\u{fc}".as_bytes().strip_suffix(b"\xbc").expect("its end"),
            false,
        ));
        let first = follower.next_named("log");
        assert_eq!(
            first.data,
            json!({"attempt": 1, "stream": "stdout", "offset": 0, "next": 8, "text": "one\u{1b}[2J\n"})
        );
        link.say(&piece(&id, "stdout", 9, b"\xbctwo\n", false));
        let second = follower.next_named("log");
        assert_eq!(second.data["text"], "\u{fc}two\n");
        // A second one who looks is given what is here: the site is not asked again.
        let mut other = side.stream(&format!("{path}?follow=1&stream=stdout&from=8"), None);
        assert_eq!(other.next_named("log").data["text"], "\u{fc}two\n");
        drop(other);
        drop(follower);
        // Nobody looks any more: it is said at the latest when something comes.
        let mut end = 14;
        wait_until("the site to be told that nobody looks", PATIENCE, || {
            link.say(&piece(&id, "stdout", end, b".", false));
            end += 1;
            link.report(9, json!({})).iter().any(|message| Heard::Message(message.clone()) == untail(&id, "stdout"))
        });

        // It goes on where it was, and not a byte twice.
        let mut follower = side.stream(&format!("{path}?follow=1&stream=stdout"), second.id.as_deref());
        assert_eq!(link.hear(), tail(&id, "stdout", 14));
        link.say(&piece(&id, "stdout", 12, b"o\n...", false));
        let third = follower.next_named("log").data;
        assert_eq!((third["offset"].as_u64(), third["text"].as_str()), (Some(14), Some("...")));
        link.say(&piece(&id, "stdout", 17, b"end\xff", true));
        assert_eq!(follower.next_named("log").data["text"], "end\u{fffd}");
        let mut ended = job(&id, "completed", 1, LATER);
        ended["result"] = record(&id, "completed");
        let said = link.report(2, json!({"jobs": [ended]}));
        assert!(said.iter().all(|message| message["type"] == "untail"), "{said:?}");
        let last = follower.next_named("end");
        assert_eq!(last.data, json!({"state": "completed"}));
        assert_eq!(follower.next(), None);
        for (what, event) in [("first", first), ("second", second), ("last", last)] {
            side.note(what, json!([event.name, event.id, event.data]));
        }

        // Past: what came with the result, when the site does not send it.
        link.close();
        wait_until("the link to be gone", PATIENCE, || {
            send(side.request(Method::GET, "/sites")).json()["sites"][0]["linked"] == json!(false)
        });
        let past = side.get(&path);
        assert_eq!((past.status, past.body.as_str()), (200, "the end of it\n"));
        assert!(past.header("content-type").is_some_and(|value| value.starts_with("text/plain")));
        for query in ["stream=stdin", "follow=yes", "from=here", "form=0"] {
            assert_eq!(side.get(&format!("{path}?{query}")).status, 400, "{query}");
        }
    });
}

#[test]
fn who_does_not_read_is_cut_off_and_disturbs_nobody() {
    on_both(|side| {
        let id = side.submit("a", &json!({"task": "simulate"}));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&id, "running", 1, THEN)]}));
        // A follower that asks and never reads.
        let address = side.address();
        let mut lazy = std::net::TcpStream::connect(&address).expect("the edge listens");
        let head = format!(
            "GET /jobs/{id}/logs?follow=1&stream=stdout&from=0 HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\n\r\n",
            side.producer().api_key
        );
        std::io::Write::write_all(&mut lazy, head.as_bytes()).expect("a request is taken");
        assert_eq!(link.hear(), tail(&id, "stdout", 0));
        // 100 MB: more than the buffers of the connection, and than is kept for one.
        let (text, mut offset, mut cut_off) = (vec![b'x'; 48_000], 0, false);
        for number in 0..2_000 {
            link.say(&piece(&id, "stdout", offset, &text, false));
            offset += text.len();
            if number % 10 == 0 {
                let heard = link.report(number, json!({}));
                cut_off |= heard.iter().any(|message| Heard::Message(message.clone()) == untail(&id, "stdout"));
            }
            if cut_off {
                break;
            }
        }
        assert!(cut_off, "{} keeps 100 MB for somebody who does not read", side.name);
        assert_eq!(side.get("/jobs").status, 200);
        drop(lazy);
    });
}

#[test]
fn events_tell_of_jobs_and_sites_as_they_come() {
    on_both(|side| {
        let mut events = side.stream("/events", None);
        let id = side.submit("a", &json!({"task": "simulate", "name": "n"}));
        let queued = events.next_named("job").data;
        assert_eq!((queued["job_id"].as_str(), queued["state"].as_str()), (Some(id.as_str()), Some("queued")));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let came = events.next_named("sites").data;
        assert_eq!((&came["sites"][0]["site"], &came["sites"][0]["linked"]), (&json!("alpha"), &json!(true)));
        link.report(
            1,
            json!({
                "site": {"held": 1, "running": 0, "owed": 0, "trouble": "the disk is full"},
                "pools": [{"pool": "cpu", "ready": true, "capacity": {"cpus": 4, "gpus": 0}}],
                "jobs": [job(&id, "held", 0, THEN)]
            }),
        );
        let held = events.next_named("job").data;
        assert_eq!(held["state"], "held");
        let pools = events.next_named("pools").data;
        assert_eq!(pools["pools"][0]["pool"], "cpu");
        link.close();
        let gone = loop {
            let sites = events.next_named("sites").data;
            if sites["sites"][0]["linked"] == json!(false) {
                break sites;
            }
        };
        assert_eq!(gone["sites"][0]["trouble"], "the disk is full");
        for (what, data) in [("queued", queued), ("came", came), ("held", held), ("pools", pools), ("gone", gone)] {
            side.note(what, data);
        }
        assert_eq!(side.get("/events?state=x").status, 400);
    });
}

#[test]
fn pools_and_sites_are_shown_as_they_said() {
    on_both(|side| {
        assert_eq!(side.get("/sites").json(), json!({"sites": [], "queue": {"queued": 0}}));
        assert_eq!(side.get("/pools").json(), json!({"pools": []}));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let pool = json!({
            "pool": "gpu", "ready": false, "problem": "no node", "held": 3, "running": 2, "hold": 10,
            "capacity": {"cpus": 8, "memory": 1024, "gpus": 2}, "in_use": {"cpus": 1, "gpus": 1},
            "allocations": 1, "want": 2, "why": "3 jobs wait"
        });
        link.report(1, json!({"pools": [pool], "site": {"held": 3, "running": 2, "owed": 1}}));
        let report = side.report(json!([
            hello("beta", "d2"),
            {"type": "report", "number": 1, "pools": [{"pool": "cpu", "ready": true}], "site": {"draining": true}}
        ]));
        let down = json!({"down": [{"type": "welcome", "v": 1}, {"type": "ack", "number": 1}]});
        assert_eq!((report.status, report.json()), (200, down));
        side.submit("a", &json!({"task": "simulate"}));
        let sites = side.get("/sites").json();
        assert_eq!(sites["queue"]["queued"], 1);
        assert_eq!((&sites["sites"][0]["held"], &sites["sites"][1]["draining"]), (&json!(3), &json!(true)));
        let pools = side.get("/pools").json();
        assert_eq!((&pools["pools"][0]["why"], &pools["pools"][1]["site"]), (&json!("3 jobs wait"), &json!("beta")));
        assert_eq!(pools["pools"][0].get("history"), None);
        let history = side.get("/pools?history=1").json();
        assert_eq!(history["pools"][0]["history"].as_array().map(Vec::len), Some(1));
        assert_eq!(side.get("/pools?history=all").status, 400);
        // A site without a link is told by the answer that something waits.
        let woken = side.report(json!([hello("beta", "d2")])).json();
        assert_eq!(woken["down"][1], json!({"type": "wake"}));
    });
}

#[test]
fn a_submission_wakes_one_site_and_a_batch_wakes_it_once() {
    on_both(|side| {
        let mut one = Link::hello(side, &hello("alpha", "d1"));
        side.submit("a", &json!({"task": "simulate"}));
        assert_eq!(one.hear(), Heard::Message(json!({"type": "wake"})));
        let jobs = vec![json!({"task": "simulate"}); 100];
        let batch = side.producer().post("/jobs/batch").header("idempotency-key", "b");
        let batch = send(batch.body(json!({"jobs": jobs}).to_string())).json();
        let last = batch["jobs"][99]["job_id"].as_str().expect("all are taken").to_owned();
        side.wait_for(&last, |_| true);
        assert_eq!(one.report(1, json!({})), [json!({"type": "wake"})]);
        assert_eq!(side.get("/sites").json()["queue"]["queued"], 101);
    });
}

#[test]
fn a_job_that_nobody_takes_wakes_all_sites_by_the_alarm() {
    on_both(|side| {
        let mut links = [("alpha", "d1"), ("beta", "d2")].map(|(site, daemon)| Link::hello(side, &hello(site, daemon)));
        side.submit("a", &json!({"task": "simulate"}));
        let woken = json!({"type": "wake"});
        // One of them at once, and both when the job still waits after a few seconds.
        let at_once: usize = links.iter_mut().map(|link| link.report(1, json!({})).len()).sum();
        assert_eq!(at_once, 1);
        assert_eq!(links.each_mut().map(Link::hear), [Heard::Message(woken.clone()), Heard::Message(woken)]);
    });
}

#[test]
fn without_the_right_key_nothing_is_told() {
    on_both(|side| {
        let url = side.producer().url;
        let paths = [
            (Method::GET, "/jobs"),
            (Method::GET, "/jobs/x"),
            (Method::POST, "/jobs/x/cancel"),
            (Method::POST, "/jobs/cancel"),
            (Method::GET, "/jobs/x/logs?follow=1"),
            (Method::GET, "/events"),
            (Method::GET, "/pools"),
            (Method::GET, "/sites"),
        ];
        for (method, path) in &paths {
            let site_key = side.site_key().to_owned();
            for key in [None, Some("wrong-key-7"), Some(""), Some(site_key.as_str())] {
                let request = client().request(method.clone(), format!("{url}{path}"));
                let request = key.iter().fold(request, |request, key| request.header("x-api-key", *key));
                let answer = side.ask(&format!("{method} {path} {}", key.is_some()), request);
                assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("x-api-key")), "{path}");
            }
        }
        let api_key = side.producer().api_key;
        for key in [None, Some("wrong-key-7"), Some(""), Some(api_key.as_str())] {
            let request = client().post(format!("{url}/report")).json(&json!({"up": []}));
            let request = key.iter().fold(request, |request, key| request.header("x-site-key", *key));
            let answer = side.ask("a report", request);
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("x-site-key")));
            assert_eq!(Link::try_open(side, key).err(), Some(401));
        }
        // The key is right, and it is no WebSocket.
        let answer =
            side.ask("no WebSocket", client().get(format!("{url}/link")).header("x-site-key", side.site_key()));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (426, Some("upgrade_required")));
    });
}

#[test]
fn other_methods_and_other_origins_get_nothing() {
    on_both(|side| {
        for path in ["/jobs", "/jobs/x", "/jobs/x/logs", "/events", "/pools", "/sites", "/jobs/x/cancel", "/report"] {
            for method in [Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
                let request = side.request(method.clone(), path).header("origin", "https://elsewhere.example");
                let request = request.header("access-control-request-method", "GET");
                let answer = send(request);
                assert_eq!(answer.status, 405, "{method} {path} at {}", side.name);
                let allow = answer.header("allow").map(str::to_owned);
                side.note(&format!("{method} {path}"), json!([answer.status, allow]));
            }
        }
        // Nor does a request that a page of another origin may send be readable there.
        let request = side.request(Method::GET, "/jobs").header("origin", "https://elsewhere.example");
        let answer = side.ask("a page elsewhere", request);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        for path in
            ["/jobs/", "/jobs//logs", "/jobs/x/log", "/jobs/x/cancel/", "/site", "/openapi", "//", "/jobs/x/y/z"]
        {
            assert_eq!(side.get(path).status, 404, "{path}");
        }
    });
}

#[test]
fn a_link_that_says_what_it_should_not_is_closed_and_no_other() {
    on_both(|side| {
        let mut good = Link::hello(side, &hello("alpha", "d1"));
        let mut refused = |what: &str, text: &str| {
            let mut link = Link::open(side);
            link.text(text);
            let Heard::Message(said) = link.hear() else { panic!("{what} was not refused") };
            assert_eq!(said["type"], "refused", "{what}");
            let closed = link.hear();
            side.note(what, json!([said, format!("{closed:?}")]));
            let Heard::Closed(code, _) = closed else { panic!("{what}: {closed:?}") };
            (code, said["code"].as_str().unwrap_or_default().to_owned())
        };
        let report = json!({"type": "report", "number": 1}).to_string();
        assert_eq!(refused("a report before a hello", &report), (4400, "bad_message".to_owned()));
        assert_eq!(refused("garbage", "\u{0}\u{1f600}}{").0, 4400);
        assert_eq!(refused("no object", "7").0, 4400);
        assert_eq!(refused("deep", &"[".repeat(100_000)).0, 4400);
        assert_eq!(refused("a hello of nobody", &hello("alpha", "").to_string()).0, 4400);
        assert_eq!(refused("a hello with a long name", &hello("alpha", &"x".repeat(129)).to_string()).0, 4400);
        let mut other = hello("alpha", "d2");
        other["results"] = json!("another directory");
        assert_eq!(refused("another site of that name", &other.to_string()), (4409, "name_taken".to_owned()));
        // The longest that is looked at, and one byte more.
        let padded = |length: usize| format!("7{}", " ".repeat(length - 1));
        assert_eq!(refused("a long message", &padded(LIMIT_OF_A_MESSAGE)).0, 4400);
        assert_eq!(refused("a longer message", &padded(LIMIT_OF_A_MESSAGE + 1)).0, 1009);

        let mut binary = Link::open(side);
        binary.socket.send(Message::binary(vec![0, 159, 146, 150])).expect("the link is open");
        assert_eq!(binary.hear(), Heard::Closed(1003, "text_only".to_owned()));

        // Far too long a message ends the link, at the latest.
        let mut flood = Link::hello(side, &hello("beta", "d3"));
        let _ = flood.socket.send(Message::text("x".repeat(100_000_000)));
        while flood.socket.read().is_ok() {}

        let jobs: Vec<Value> = (0..501).map(|number| job(&format!("j{number}"), "held", 0, THEN)).collect();
        let mut many = Link::hello(side, &hello("gamma", "d4"));
        many.say(&json!({"type": "report", "number": 1, "jobs": jobs}));
        assert!(matches!(many.hear(), Heard::Message(said) if said["code"] == "too_many_jobs"));
        assert!(matches!(many.hear(), Heard::Closed(1009, _)));
        // Nobody else has noticed.
        assert_eq!(good.report(1, json!({"jobs": [job("j1", "held", 0, THEN)]})), [] as [Value; 0]);
        assert_eq!(ids(&side.get("/jobs").json()), ["j1"]);
        // A daemon that links again takes the place of its dead link.
        let mut again = Link::hello(side, &hello("alpha", "d1"));
        assert!(matches!(good.hear(), Heard::Closed(4410, _)));
        again.text("ping");
        assert_eq!(again.hear(), Heard::Message(json!("pong")));
    });
}

#[test]
fn a_report_of_any_kind_is_stored_or_refused() {
    on_both(|side| {
        // Of a newer version: what is not known is passed over.
        let newer = side.report(json!([
            {"type": "hello", "v": 9, "site": "alpha", "daemon": "d1", "results": "r", "mood": "good"},
            {"type": "dream", "of": 1},
            {"type": "report", "number": 5, "site": 7, "pools": "x", "jobs": [
                {"job_id": "j1", "state": "parked", "attempt": 1, "at": THEN, "colour": "red"},
                job("j2", "running", 1, "2099-01-01T00:00:00.000Z"),
                job("j3", "held", 0, "1970-01-01T00:00:00.000Z")
            ]}
        ]));
        assert_eq!((newer.status, &newer.json()["down"][1]["number"]), (200, &json!(5)));
        assert_eq!(side.get("/jobs/j1").json()["state"], "parked");
        // Of a clock that is ahead it is believed that it means now.
        let ahead = side.get("/jobs/j2").json()["updated_at"].as_str().expect("a time").to_owned();
        assert!(ahead.as_str() < "2098", "{ahead}");
        assert_eq!(side.get("/jobs/j3").json()["state"], "held");

        let jobs: Vec<Value> = (0..501).map(|number| job(&format!("j{number}"), "held", 0, THEN)).collect();
        let many = side.report(json!([hello("beta", "d2"), {"type": "report", "jobs": jobs}]));
        assert_eq!((many.status, many.json()["code"].as_str()), (409, Some("too_many_jobs")));
        let mut taken = hello("alpha", "d3");
        taken["results"] = json!("another directory");
        let taken = side.report(json!([taken]));
        assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("name_taken")));
        assert_eq!(side.report(json!([{"type": "report"}])).status, 409);
        assert_eq!(side.report(json!([])).status, 200);

        // Of a million jobs, not a byte is waited for.
        let site_key = side.site_key().to_owned();
        let address = side.address();
        let million = raw(
            &address,
            &format!(
                "POST /report HTTP/1.1\r\nhost: {address}\r\nx-site-key: {site_key}\r\n\
                 content-type: application/json\r\ncontent-length: 80000000\r\nconnection: close\r\n\r\n"
            ),
        );
        side.note("a million jobs", million.json());
        assert_eq!((million.status, &million.json()["size"]), (413, &json!(80_000_000)));

        let url = format!("{}/report", side.producer().url);
        let mut body = |what: &str, body: Vec<u8>| {
            let request = client().post(&url).header("x-site-key", &site_key);
            side.ask(what, request.header("content-type", "application/json").body(body)).status
        };
        for (what, wrong) in [
            ("nothing", &b""[..]),
            ("half", br#"{"up":["#),
            ("no UTF-8", b"{\"up\":[\"\xff\"]}"),
            ("a list", b"[]"),
            ("a word", br#"{"up":["hello"]}"#),
            ("no time", br#"{"up":[{"type":"report","jobs":[{"job_id":"j","state":"held","at":"yesterday"}]}]}"#),
            (
                "a path",
                br#"{"up":[{"type":"report","jobs":[{"job_id":"../x","state":"held","at":"2026-11-30T04:00:00Z"}]}]}"#,
            ),
        ] {
            assert_eq!(body(what, wrong.to_vec()), 400, "{what}");
        }
    });
}

#[test]
fn the_view_outlives_a_restart_and_comes_back_after_a_wipe() {
    on_both(|side| {
        let [submitted, held, ended] = ["a", "b", "c"].map(|key| side.submit(key, &json!({"task": "simulate"})));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let mut end = job(&ended, "completed", 1, LATER);
        end["result"] = record(&ended, "completed");
        let report = json!({
            "jobs": [job(&held, "held", 0, THEN), end.clone()], "complete": true,
            "pools": [{"pool": "cpu", "ready": true}], "site": {"held": 1}
        });
        link.report(1, report.clone());
        let before = side.get("/jobs").json();
        assert_eq!(side.get("/sites").json()["sites"][0]["linked"], true);

        side.restart();
        let after = wait_for_answer(side, "/jobs");
        assert_eq!(after, before);
        assert_eq!(side.get(&format!("/jobs/{ended}")).json()["result"], record(&ended, "completed"));
        assert_eq!(side.get("/sites").json()["sites"][0]["linked"], false);
        // What the hub believes and the site does not hold is asked for.
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.say(&json!({"type": "report", "number": 1, "complete": true}));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "ack", "number": 1})));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "ask", "jobs": [held]})));

        side.wipe_hub();
        assert_eq!(wait_for_answer(side, "/jobs"), json!({"jobs": []}));
        assert_eq!(side.get(&format!("/jobs/{held}")).status, 404);
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, report);
        // All but the job that the queue alone knows.
        let mut back = side.get("/jobs").json();
        assert_eq!(ids(&back).len(), 2);
        assert_eq!(side.get(&format!("/jobs/{held}")).json()["state"], "held");
        assert_eq!(side.get(&format!("/jobs/{ended}")).json()["result"], record(&ended, "completed"));
        assert_eq!(side.get("/pools").json()["pools"][0]["pool"], "cpu");
        back["jobs"].as_array_mut().expect("a page").clear();
        assert_eq!(side.get(&format!("/jobs/{submitted}")).status, 404);
        // And it goes on from there.
        side.submit("d", &json!({"task": "simulate"}));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "wake"})));
    });
}

/// After a restart, when a connection to the server before it may still be in the pool.
fn wait_for_answer(side: &mut Side, path: &str) -> Value {
    testkit::wait_for("an answer after the restart", PATIENCE, || {
        testkit::http::try_send(side.request(Method::GET, path)).ok()
    });
    side.get(path).json()
}

#[test]
fn a_link_outlives_the_sleep_of_the_object() {
    // Only the object of the Worker sleeps: workerd evicts one that has had nothing to do for ten seconds.
    let mut side = Side::worker();
    let mut link = Link::hello(&side, &hello("alpha", "d1"));
    let began = Instant::now();
    wait_until("the object to have slept", PATIENCE, || {
        link.text("ping");
        assert_eq!(link.hear(), Heard::Message(json!("pong")));
        std::thread::sleep(A_WHILE);
        began.elapsed().as_secs() >= 12
    });
    side.submit("a", &json!({"task": "simulate"}));
    assert_eq!(link.hear(), Heard::Message(json!({"type": "wake"})));
    assert_eq!(link.report(1, json!({"jobs": [job("j", "held", 0, THEN)]})), [] as [Value; 0]);
    assert_eq!(side.get("/jobs/j").json()["site"], "alpha");
}

#[test]
fn without_its_object_the_worker_takes_jobs_as_before() {
    let edge = Edge::start();
    let worker = Worker::start_without_hub(&edge);
    let producer = worker.producer();
    assert_eq!(send(producer.post("/jobs").body(r#"{"task":"a"}"#)).status, 202);
    assert_eq!(edge.backlog(Queue::Jobs), 1);
    for path in ["/jobs", "/jobs/x", "/jobs/x/logs", "/events", "/pools", "/sites"] {
        let answer = send(client().get(format!("{}{path}", producer.url)).header("x-api-key", &producer.api_key));
        assert_eq!((answer.status, answer.json()["code"].as_str()), (501, Some("no_hub")), "{path}");
    }
    let site_key = edge.setting("SITE_KEY");
    let report = client().post(format!("{}/report", producer.url)).header("x-site-key", site_key);
    assert_eq!(send(report.json(&json!({"up": []}))).status, 501);
    let address = producer.url.trim_start_matches("http://");
    let link = format!(
        "GET /link HTTP/1.1\r\nhost: {address}\r\nx-site-key: {site_key}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    assert_eq!(raw(address, &link).status, 501);
}

#[test]
fn a_hub_that_is_broken_keeps_no_job_out() {
    let edge = Edge::start();
    let mut worker = Worker::start(&edge);
    let get = |worker: &Worker, path: &str| {
        let producer = worker.producer();
        send(client().get(format!("{}{path}", producer.url)).header("x-api-key", &producer.api_key))
    };
    assert_eq!(get(&worker, "/jobs").status, 200);
    worker.spoil_hub();
    wait_until("the restarted Worker to answer", PATIENCE, || {
        testkit::http::try_send(client().get(format!("{}/health", worker.producer().url))).is_ok()
    });
    for _ in 0..3 {
        assert_eq!(send(worker.producer().post("/jobs").body(r#"{"task":"a"}"#)).status, 202);
        let answer = get(&worker, "/jobs");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("hub_unavailable")), "{answer:?}");
    }
    assert_eq!(edge.backlog(Queue::Jobs), 3);
    assert!(worker.is_running());
}

#[test]
fn pages_of_origins_that_the_operator_names_may_ask() {
    on_both_with(&[("CORS_ORIGINS", "https://lab.example, https://other.example/")], |side| {
        for (origin, allowed) in [
            ("https://lab.example", true),
            ("https://other.example", true),
            ("https://lab.example.evil.example", false),
            ("null", false),
        ] {
            let what = |kind: &str| format!("{kind} of {origin}");
            let preflight = client().request(Method::OPTIONS, format!("{}/jobs", side.producer().url));
            let preflight = preflight.header("origin", origin).header("access-control-request-method", "POST");
            let answer = side.ask(&what("a preflight"), preflight);
            assert_eq!(answer.status, if allowed { 204 } else { 405 }, "{origin}");
            for path in ["/jobs", "/jobs/nobody-knows", "/health", "/nowhere"] {
                let answer = side.ask(&what(path), side.request(Method::GET, path).header("origin", origin));
                let expected = allowed.then_some(origin);
                assert_eq!(answer.header("access-control-allow-origin"), expected, "{path}: {answer:?}");
            }
            let head = side.ask(&what("HEAD"), side.request(Method::HEAD, "/jobs").header("origin", origin));
            assert_eq!((head.status, head.body.as_str()), (200, ""));
            let without_key = client().get(format!("{}/jobs", side.producer().url)).header("origin", origin);
            assert_eq!(side.ask(&what("no key"), without_key).status, 401);
        }
    });
}

/// Somebody who wants to be called, and answers with these statuses, the last one again and again.
struct Called {
    url: String,
    calls: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Called {
    fn start(statuses: &[u16]) -> Self {
        let calls: Arc<Mutex<Vec<(HeaderMap, String)>>> = Arc::default();
        let (kept, statuses) = (Arc::clone(&calls), statuses.to_vec());
        let answer = move |headers: HeaderMap, body: String| {
            let mut calls = kept.lock().expect("nothing panics under this lock");
            calls.push((headers, body));
            let status = statuses[(calls.len() - 1).min(statuses.len() - 1)];
            let moved = [("location", "http://127.0.0.1:1/elsewhere")];
            async move { (StatusCode::from_u16(status).expect("a status"), moved) }
        };
        let router = Router::new().fallback(answer);
        let address = block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
            let address = listener.local_addr().expect("a bound listener has an address");
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        Self { url: format!("http://{address}"), calls }
    }

    fn calls(&self) -> Vec<(HeaderMap, String)> {
        self.calls.lock().expect("nothing panics under this lock").clone()
    }
}

#[test]
fn who_wants_to_be_called_is_called_until_it_takes_it() {
    // Each edge calls once in vain, follows no redirect, and comes again by its alarm.
    let called = Called::start(&[307, 200, 200, 307, 200, 200]);
    on_both_with(&[("CALLBACK_ALLOW", &called.url)], |side| {
        let before = called.calls().len();
        let hook = json!({"url": format!("{}/hook", called.url), "events": ["running", "completed"]});
        let id = side.submit("a", &json!({"task": "simulate", "callback": hook}));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&id, "running", 1, THEN)]}));
        wait_until("the call to be made again", PATIENCE, || called.calls().len() >= before + 2);
        let mut ended = job(&id, "completed", 1, LATER);
        ended["result"] = record(&id, "completed");
        link.report(2, json!({"jobs": [ended]}));
        let status = side.wait_for(&id, |status| {
            let callbacks = status["callbacks"].as_array().map_or(&[][..], Vec::as_slice);
            callbacks.len() == 2 && callbacks.iter().all(|callback| callback["state"] == "delivered")
        });
        side.note("the calls in the status", status["callbacks"].clone());
        let calls = called.calls().split_off(before);
        let ids = calls.iter().map(|(headers, _)| headers["webhook-id"].to_str().expect("text").to_owned());
        let [running, completed] = ["running", "completed"].map(|event| format!("{id}.{event}"));
        assert_eq!(ids.collect::<Vec<_>>(), [running.clone(), running, completed], "at {}", side.name);
        for (headers, body) in calls {
            assert!(headers["webhook-signature"].to_str().is_ok_and(|text| text.starts_with("v1,")));
            assert_eq!(headers["content-type"], "application/json");
            side.note("a call", serde_json::from_str(&body).expect("a call is JSON"));
        }
    });
    // What is not public is refused at the door, unless it is named.
    on_both_with(&[("CALLBACK_ALLOW", &called.url)], |side| {
        for url in ["http://127.0.0.1:1/", "https://127.0.0.1/", "https://localhost/", "http://example.org/", "ftp://x"]
        {
            let job = json!({"task": "a", "callback": {"url": url}}).to_string();
            let answer = side.ask(url, side.producer().post("/jobs").body(job));
            assert_eq!((answer.status, answer.json()["field"].as_str()), (422, Some("callback")), "{url}");
        }
    });
}

#[test]
fn the_call_of_noetl_is_answered_when_the_job_has_ended() {
    on_both(|side| {
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let call = json!({
            "task": {"type": "python", "code": "def main(n): return n", "with": {"n": 1}}, "execution_id": "e1"
        });
        let post = side.producer().post("/api/worker/task/execute").header("idempotency-key", "k");
        let waiting = std::thread::spawn(move || send(post.body(call.to_string())));
        assert_eq!(link.hear(), Heard::Message(json!({"type": "wake"})));
        let id = side.get("/jobs").json()["jobs"][0]["job_id"].as_str().expect("it is listed").to_owned();
        std::thread::sleep(A_WHILE);
        assert!(!waiting.is_finished(), "it was answered before the job had ended");
        let mut ended = job(&id, "completed", 1, LATER);
        ended["result"] = record(&id, "completed");
        link.report(1, json!({"jobs": [ended]}));
        let answer = waiting.join().expect("it is answered");
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("success")), "{answer:?}");
        side.note("the answer", answer.json());
        let wrong = side.producer().post("/api/worker/task/execute").body(r#"{"task":{"type":"shell"}}"#);
        assert_eq!(side.ask("another type of task", wrong).status, 422);
    });
}
