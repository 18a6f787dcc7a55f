//! The hub over real tables, with the shells played by the test.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::timestamp_from_millis;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value as Any, json};

mod children;
mod crowd;
mod submissions;

use super::*;
use crate::files::{Keys, Store};
use crate::{Config, Head, Route, Secret, route};

pub(crate) struct Tables(Connection);

impl Database for Tables {
    type Error = rusqlite::Error;

    fn run(&mut self, sql: &str, values: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let values = values.iter().map(|value| match value {
            Value::Null => rusqlite::types::Value::Null,
            Value::Integer(number) => rusqlite::types::Value::Integer(*number),
            Value::Text(text) => rusqlite::types::Value::Text(text.clone()),
        });
        let mut rows = statement.query(params_from_iter(values))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let value = |column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                    _ => Value::Null,
                })
            };
            all.push((0..columns).map(value).collect::<rusqlite::Result<_>>()?);
        }
        Ok(all)
    }
}

/// A hub with tables, a clock, and what came of it.
pub(crate) struct World {
    hub: Hub,
    pub(crate) tables: Tables,
    pub(crate) now: i64,
    followers: Follower,
    pub(crate) effects: Vec<Effect>,
    /// The alarm that is set.
    alarm: Option<i64>,
    files: bool,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn without_files() -> Self {
        Self { files: false, ..Self::new() }
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let tables = Tables(Connection::open_in_memory().unwrap());
        SCHEMA.iter().for_each(|step| tables.0.execute_batch(step).unwrap());
        let (hub, effects, alarm) = (Hub::new(settings), Vec::new(), None);
        Self { hub, tables, now: 1_000_000, followers: 0, effects, alarm, files: true }
    }

    fn store(&self) -> Option<Store> {
        let keys = Keys { access_key_id: "id".to_owned(), secret_access_key: "secret".to_owned() };
        self.files.then(|| Store::own("/s3", "files", "auto", keys))
    }

    pub(crate) fn handle(&mut self, event: Event) -> &[Effect] {
        self.now += 1;
        self.alarm = self.alarm.filter(|_| !matches!(event, Event::Alarm));
        self.effects = self.hub.handle(&mut self.tables, event, timestamp_from_millis(self.now)).unwrap();
        for effect in &self.effects {
            if let Effect::Alarm(at) = effect {
                self.alarm = Some(at.as_millisecond());
            }
        }
        &self.effects
    }

    /// The time comes of the alarm that is set, if one is.
    fn alarm(&mut self) -> bool {
        let Some(at) = self.alarm else { return false };
        self.now = self.now.max(at - 1);
        self.handle(Event::Alarm);
        true
    }

    /// The object is put to sleep, and wakes with its tables and these links.
    fn sleeps(&mut self, sockets: &[&str]) {
        self.hub = Hub::new(Settings::default());
        let sockets = sockets.iter().map(|socket| (*socket).to_owned()).collect();
        self.handle(Event::Restarted { sockets });
    }

    pub(crate) fn ask_with(&mut self, method: &str, target: &str, body: &str, last_event_id: Option<&str>) -> Follower {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (api_key, site_key, content_type) = (Some("key"), Some("site"), Some("application/json"));
        let head = Head { method, path, query, content_type, api_key, site_key, last_event_id, ..Head::default() };
        let key = |text| Secret::new(text);
        let config =
            Config { api_key: key("key"), site_key: key("site"), hub: true, files: self.store(), ..Config::default() };
        self.followers += 1;
        let follower = self.followers;
        match route(&head, &config) {
            Route::Hub(opening) => match opening.with_body(body.as_bytes()) {
                Ok(request) => drop(self.handle(Event::Request { follower, request })),
                Err(problem) => self.effects = vec![Effect::Answer(follower, problem.response())],
            },
            Route::Answer(answer) => self.effects = vec![Effect::Answer(follower, answer)],
            other => panic!("{target}: {other:?}"),
        }
        follower
    }

    fn ask(&mut self, method: &str, target: &str) -> Follower {
        self.ask_with(method, target, "", None)
    }

    /// The answer to a follower among what came last.
    pub(crate) fn answer(&self, follower: Follower) -> Option<(u16, Any)> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Answer(to, answer) if *to == follower => {
                let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
                Some((answer.status, body))
            }
            _ => None,
        })
    }

    fn get(&mut self, target: &str) -> (u16, Any) {
        let follower = self.ask("GET", target);
        self.answer(follower).unwrap_or_else(|| panic!("{target} waits: {:?}", self.effects))
    }

    fn post(&mut self, target: &str, body: &str) -> (u16, Any) {
        let follower = self.ask_with("POST", target, body, None);
        self.answer(follower).unwrap()
    }

    pub(crate) fn submit(&mut self, id: &str, task: &str) {
        let message = json!({"v": 1, "job_id": id, "task": task, "input": {"n": 1}}).to_string();
        self.handle(Event::Submitted { messages: vec![message] });
    }

    fn says(&mut self, socket: &str, message: Any) -> Vec<Any> {
        self.handle(Event::LinkMessage(socket.to_owned(), message.to_string()));
        self.sent(socket)
    }

    fn sent(&self, socket: &str) -> Vec<Any> {
        let sent = self.effects.iter().filter_map(|effect| match effect {
            Effect::Send(to, text) if to == socket => Some(serde_json::from_str(text).unwrap()),
            _ => None,
        });
        sent.collect()
    }

    pub(crate) fn hello(&mut self, socket: &str, site: &str, daemon: &str) -> Vec<Any> {
        self.handle(Event::LinkOpened(socket.to_owned()));
        let results = format!("results of {site}");
        self.says(socket, json!({"type":"hello","v":1,"site":site,"daemon":daemon,"results":results,"host":"h"}))
    }

    pub(crate) fn report(&mut self, socket: &str, jobs: &[Any]) -> Vec<Any> {
        self.says(socket, json!({"type":"report","number":7,"jobs":jobs}))
    }

    fn pieces(&self, follower: Follower) -> String {
        let pieces = self.effects.iter().filter_map(|effect| match effect {
            Effect::Piece(to, piece) if *to == follower => Some(piece.as_ref()),
            _ => None,
        });
        pieces.collect()
    }
}

fn job(id: &str, state: &str, attempt: u32) -> Any {
    json!({"job_id": id, "state": state, "attempt": attempt, "at": "1970-01-01T00:00:01Z", "pool": "cpu"})
}

fn ended(id: &str) -> Any {
    let result = json!({"job_id": id, "status": "completed", "attempt": 1, "output": [1, 2], "stdout_tail": "bye"});
    json!({"job_id": id, "state": "completed", "attempt": 1, "at": "1970-01-01T00:00:02Z", "result": result})
}

fn log(id: &str, offset: u64, text: &str, end: bool) -> Any {
    let data = STANDARD.encode(text);
    json!({"type":"log","job_id":id,"attempt":1,"stream":"stdout","offset":offset,"data":data,"end":end})
}

#[test]
fn a_job_is_followed_from_its_submission_to_its_result() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.submit("j", "simulate");
    assert_eq!(world.sent("s"), [json!({"type": "wake"})]);
    let (status, body) = world.get("/jobs/j");
    assert_eq!((status, &body["state"], &body["input"]), (200, &json!("queued"), &json!({"n": 1})));
    let waits = world.ask("GET", "/jobs/j?wait=30");
    assert_eq!(world.answer(waits), None);
    assert!(world.effects.contains(&Effect::Wait(waits, Duration::from_secs(30))));
    assert_eq!(world.report("s", &[job("j", "running", 1)]), [json!({"type": "ack", "number": 7})]);
    assert_eq!(world.answer(waits), None);
    assert_eq!(world.get("/jobs/j").1["site"], "alpha");
    world.report("s", &[ended("j")]);
    let (status, body) = world.answer(waits).unwrap();
    assert_eq!((status, &body["state"], &body["result"]["output"]), (200, &json!("completed"), &json!([1, 2])));
    let events: Vec<_> = body["timeline"].as_array().unwrap().iter().map(|moment| moment["event"].clone()).collect();
    assert_eq!(events, ["running", "completed", "queued"], "by the clocks of who saw it");
    world.report("s", &[job("j", "running", 1)]);
    assert_eq!(world.get("/jobs/j?wait=9").1["state"], "completed", "what is repeated changes nothing");
}

#[test]
fn a_job_that_is_still_on_its_way_here_is_waited_for_a_moment() {
    let mut world = World::new();
    let early = world.ask("GET", "/jobs/j");
    assert_eq!(world.answer(early), None);
    world.handle(Event::TimedOut(early));
    assert_eq!(world.answer(early).unwrap().1["code"], "unknown_job");
    let early = world.ask("GET", "/jobs/j");
    world.submit("j", "simulate");
    world.handle(Event::TimedOut(early));
    assert_eq!(world.answer(early).unwrap().1["state"], "queued");
    let gone = world.ask("GET", "/jobs/k");
    world.handle(Event::Gone(gone));
    assert!(world.handle(Event::TimedOut(gone)).is_empty());
}

/// Who gave it back does not take it again at that moment, and would keep it from them.
#[test]
fn when_a_site_gives_a_job_back_the_others_are_woken_for_when_it_can_be_had() {
    let mut world = World::new();
    for (socket, site) in [("s", "alpha"), ("t", "beta"), ("u", "gamma")] {
        world.hello(socket, site, site);
    }
    let back = |again_at: &str| {
        json!({"job_id": "j", "state": "queued", "at": "1970-01-01T00:00:01Z", "again_at": again_at,
               "message": "this site has no pool qpu"})
    };
    let ack = json!({"type": "ack", "number": 7});
    assert_eq!(world.report("s", &[back("1970-01-01T00:00:33.500Z")]), std::slice::from_ref(&ack));
    for other in ["t", "u"] {
        assert_eq!(world.sent(other), [json!({"type": "wake", "after_ms": 32_500})]);
    }
    assert_eq!(world.get("/jobs/j").1["message"], "this site has no pool qpu");
    // What makes no sense, and what is not said, is bounded.
    world.report("s", &[back("1971-01-01T00:00:00Z")]);
    assert_eq!(world.sent("t"), [json!({"type": "wake", "after_ms": 3_600_000})]);
    assert_eq!(world.report("s", &[job("k", "queued", 0)]), [ack]);
    assert_eq!(world.sent("t"), [json!({"type": "wake", "after_ms": 60_000})]);
}

#[test]
fn lists_have_filters_and_a_cursor() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    for number in 0..120 {
        world.submit(&format!("j{number}"), if number % 3 == 0 { "third" } else { "it's \"other\"" });
    }
    world.report("s", &[job("j5", "held", 0), job("j6", "running", 1)]);
    let ids = |body: &Any| {
        let jobs = body["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["job_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    let mut target = "/jobs".to_owned();
    loop {
        let (_, body) = world.get(&target);
        all.extend(ids(&body));
        match body["after"].as_str() {
            Some(after) => target = format!("/jobs?after={after}"),
            None => break,
        }
    }
    let newest_first: Vec<_> = (0..120).rev().map(|number| format!("j{number}")).collect();
    assert_eq!(all, newest_first);
    assert_eq!(ids(&world.get("/jobs?state=held").1), ["j5"]);
    assert_eq!(ids(&world.get("/jobs?state=held,running").1), ["j6", "j5"]);
    assert_eq!(ids(&world.get("/jobs?site=alpha&pool=cpu").1), ["j6", "j5"]);
    assert_eq!(ids(&world.get("/jobs?task=third&limit=2").1), ["j117", "j114"]);
    assert_eq!(ids(&world.get("/jobs?task=it%27s+%22other%22&limit=1").1), ["j119"]);
    assert_eq!(ids(&world.get("/jobs?name=x%27+OR+1%3D1+--").1), Vec::<String>::new());
    assert_eq!(world.get("/jobs?after=made-up").1["code"], "invalid_request");
    assert_eq!(ids(&world.get("/jobs?after=99999999").1).len(), 50);
    for after in ["-3", "-9223372036854775808", "0"] {
        assert_eq!(world.get(&format!("/jobs?task=third&after={after}")), (200, json!({"jobs": []})), "{after}");
    }
}

#[test]
fn a_job_is_cancelled_at_any_time_and_sites_hear_of_it_until_it_has_ended() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    let (status, body) = world.post("/jobs/j/cancel", "");
    assert_eq!((status, &body["cancel"], &body["state"]), (202, &json!("requested"), &json!("unknown")));
    assert_eq!(world.sent("s"), [json!({"type": "cancel", "jobs": ["j"]})]);
    world.submit("j", "simulate");
    assert!(world.get("/jobs/j").1["cancel_requested_at"].is_string());
    // A site that was away, and one whose connection nobody has seen break.
    let down = world.hello("t", "alpha", "d");
    assert_eq!(down, [json!({"type": "welcome", "v": 1}), json!({"type": "cancel", "jobs": ["j"]})]);
    assert!(world.effects.contains(&Effect::Close("s".to_owned(), 4410, "replaced")));
    let result = json!({"job_id": "j", "status": "failed", "reason": "cancelled"});
    let gone = json!({"job_id": "j", "state": "cancelled", "at": "1970-01-01T00:00:02Z", "result": result});
    world.report("t", &[gone]);
    assert_eq!(world.hello("u", "alpha", "d").len(), 1);
    let (status, body) = world.post("/jobs/j/cancel", "");
    assert_eq!((status, &body["cancel"], &body["state"]), (200, &json!("ended"), &json!("cancelled")));
}

#[test]
fn many_are_cancelled_by_a_filter() {
    let mut world = World::new();
    for number in 0..2_500 {
        world.submit(&format!("j{number}"), "sweep");
    }
    world.submit("other", "keep");
    world.hello("s", "alpha", "d");
    world.report("s", &[ended("j1")]);
    let dry = json!({"task": "sweep", "dry_run": true}).to_string();
    assert_eq!(world.post("/jobs/cancel", &dry), (200, json!({"jobs": 2_499, "more": false})));
    assert_eq!(world.sent("s").len(), 0);
    let all = json!({"task": "sweep"}).to_string();
    assert_eq!(world.post("/jobs/cancel", &all), (202, json!({"jobs": 2_000, "more": true})));
    assert_eq!(world.sent("s").len(), 4, "500 at a time");
    assert_eq!(world.post("/jobs/cancel", &all), (202, json!({"jobs": 499, "more": false})));
    assert_eq!(world.post("/jobs/cancel", &all), (202, json!({"jobs": 0, "more": false})));
    assert!(world.get("/jobs/other").1["cancel_requested_at"].is_null());
}

#[test]
fn a_hub_that_was_wiped_is_told_again_and_asks_after_what_it_believes() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.submit("a", "t");
    world.report("s", &[job("a", "held", 0), job("b", "running", 1), job("c", "held", 0)]);
    world.hello("t", "alpha", "d");
    world.says("t", json!({"type":"report","jobs":[job("b", "running", 1)]}));
    let down = world.says("t", json!({"type":"report","number":2,"jobs":[],"complete":true}));
    assert_eq!(down, [json!({"type":"ack","number":2}), json!({"type":"ask","jobs":["a","c"]})]);
    world.report("t", &[ended("a"), json!({"job_id":"c","state":"unknown","at":"1970-01-01T00:00:09Z"})]);
    assert_eq!(
        (world.get("/jobs/a").1["state"].clone(), world.get("/jobs/c").1["state"].clone()),
        (json!("completed"), json!("unknown"))
    );
    // Jobs that another daemon of the site holds are not this one's to tell.
    world.hello("u", "alpha", "e");
    assert_eq!(world.says("u", json!({"type":"report","number":1,"complete":true})).len(), 1);
    let mut wiped = World::new();
    wiped.hello("s", "alpha", "d");
    wiped.report("s", &[job("b", "running", 1)]);
    assert_eq!(wiped.get("/jobs/b").1["state"], "running");
}

#[test]
fn what_has_been_in_the_queue_for_long_is_asked_for_while_links_hold() {
    let asks = |world: &World, socket| world.sent(socket).iter().any(|down| down["type"] == "ask");
    let mut world = World::new();
    world.submit("e", "t");
    assert!(!world.alarm(), "there is nobody to ask");
    // Two of one directory of results, and one of another.
    world.submit("q", "t");
    world.submit("back", "t");
    for (socket, site, daemon) in [("s", "alpha", "d"), ("t", "alpha", "f"), ("u", "beta", "g")] {
        world.hello(socket, site, daemon);
    }
    let back = json!({"job_id": "back", "state": "queued", "attempt": 0, "at": "1970-01-01T00:16:40Z"});
    world.report("s", &[job("back", "held", 0), back]);
    assert!(world.alarm(), "while something is queued there is an alarm");
    assert!(!asks(&world, "s"), "it was not there for long");
    assert!(world.alarm());
    let ask = json!({"type": "ask", "jobs": ["e", "q", "back"]});
    assert_eq!((world.sent("s"), world.sent("t"), world.sent("u")), (vec![ask.clone()], vec![], vec![ask.clone()]));
    // One was over, and whoever was to tell it was killed; the others are in the queue in truth.
    let unknown = |id: &str| json!({"job_id": id, "state": "unknown", "at": "1970-01-01T01:00:00Z"});
    world.report("s", &[ended("e"), unknown("q"), unknown("back"), unknown("never-heard-of")]);
    let state = |world: &mut World, id: &str| world.get(&format!("/jobs/{id}")).1["state"].clone();
    assert_eq!((state(&mut world, "e"), state(&mut world, "q")), (json!("completed"), json!("queued")));
    assert_eq!(state(&mut world, "back"), "queued", "who gave it back knows nothing more of it");
    assert_eq!(world.get("/jobs?state=unknown").1["jobs"], json!([]));
    // An object that was asleep does not know when it has asked, and is not put off by what wakes it.
    let before = world.now;
    for _ in 0..5 {
        world.sleeps(&["s", "t", "u"]);
    }
    assert!(world.alarm() && world.now - before < 61_000, "{}", world.now - before);
    assert_eq!(world.sent("u"), [json!({"type": "ask", "jobs": ["q", "back"]})]);
    world.handle(Event::Alarm);
    assert!(!asks(&world, "u"), "one that was set for something else comes too early");
    world.report("s", &[job("q", "held", 0), job("back", "running", 1)]);
    world.alarm();
    assert!(!world.alarm(), "nothing is in the queue");
}

#[test]
fn very_many_that_wait_are_asked_for_in_turn() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    for number in 0..450 {
        world.submit(&format!("j{number}"), "t");
    }
    world.now += 120_000;
    world.handle(Event::Alarm);
    let mut counts = Vec::new();
    let mut asked = HashSet::new();
    for _ in 0..4 {
        let sent = world.sent("s");
        let jobs = sent[0]["jobs"].as_array().unwrap();
        counts.push(jobs.len());
        asked.extend(jobs.iter().map(|id| id.as_str().unwrap().to_owned()));
        assert!(world.alarm());
    }
    assert_eq!((counts, asked.len()), (vec![200, 200, 50, 200], 450));
}

#[test]
fn sites_are_linked_until_they_are_not() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    let pools = json!([{"pool":"cpu","ready":true,"held":2,"running":1,"capacity":{"cpus":4,"gpus":0}}]);
    world.says("s", json!({"type":"report","number":1,"site":{"held":2,"running":1},"pools":pools}));
    let (_, body) = world.get("/sites");
    let site = &body["sites"][0];
    assert_eq!((&site["site"], &site["linked"], &site["held"]), (&json!("alpha"), &json!(true), &json!(2)));
    let (_, body) = world.get("/pools?history=1");
    assert_eq!((&body["pools"][0]["pool"], &body["pools"][0]["history"][0]["held"]), (&json!("cpu"), &json!(2)));
    assert!(world.get("/pools").1["pools"][0]["history"].is_null());
    world.sleeps(&["s"]);
    assert_eq!(world.get("/sites").1["sites"][0]["linked"], true);
    assert_eq!(world.report("s", &[]).len(), 1, "whose link it is is in the tables");
    world.handle(Event::LinkClosed("s".to_owned()));
    assert_eq!(world.get("/sites").1["sites"][0]["linked"], false, "at once");
    world.now += 100_000;
    world.hello("t", "alpha", "d");
    world.sleeps(&[]);
    world.now += 100_000;
    assert_eq!(world.get("/pools").1["pools"][0]["linked"], false);
}

#[test]
fn two_sites_of_one_name_are_told_apart() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    let other = json!({"type":"hello","v":1,"site":"alpha","daemon":"e","results":"others"});
    let down = world.says("t", other.clone());
    assert_eq!((&down[0]["type"], &down[0]["code"]), (&json!("refused"), &json!("name_taken")));
    assert!(world.effects.contains(&Effect::Close("t".to_owned(), 4409, "name_taken")));
    world.handle(Event::LinkClosed("s".to_owned()));
    world.now += 100_000;
    assert_eq!(world.says("u", other)[0]["type"], "welcome");
}

#[test]
fn what_a_site_may_not_say_closes_its_link() {
    let mut world = World::new();
    for (message, code) in [
        ("garbage".to_owned(), 4400),
        (json!({"type":"report","number":1}).to_string(), 4400),
        (json!({"type":"hello","v":1,"site":"Not Plain","daemon":"d","results":"r"}).to_string(), 4400),
        (" ".repeat(1_000_001), 1009),
    ] {
        world.handle(Event::LinkMessage("s".to_owned(), message));
        assert!(matches!(world.effects.last(), Some(Effect::Close(_, closed, _)) if *closed == code), "{code}");
    }
    world.hello("s", "alpha", "d");
    let many: Vec<Any> = (0..501).map(|number| job(&format!("j{number}"), "held", 0)).collect();
    assert_eq!(world.report("s", &many)[0]["code"], "too_many_jobs");
    assert_eq!(world.get("/jobs").1["jobs"], json!([]));
}

#[test]
fn a_site_without_a_link_reports_by_requests() {
    let mut world = World::new();
    world.submit("j", "t");
    world.post("/jobs/k/cancel", "");
    let hello = json!({"type":"hello","v":2,"site":"beta","daemon":"d","results":"r"});
    let up = json!({"up": [hello, {"type":"report","number":4,"jobs":[job("i", "running", 1)]}, {"type":"dream"}]});
    let (status, body) = world.post("/report", &up.to_string());
    let cancel = json!({"type":"cancel","jobs":["k"]});
    let expected = json!([{"type":"welcome","v":1}, cancel, {"type":"ack","number":4}, {"type":"wake"}]);
    assert_eq!((status, &body["down"]), (200, &expected));
    assert_eq!(world.get("/sites").1["sites"][0]["linked"], true);
    world.now += 100_000;
    assert_eq!(world.get("/sites").1["sites"][0]["linked"], false);
    // It is asked for what it does not name any more, and for what has been in the queue for long.
    let hello = json!({"type":"hello","v":2,"site":"beta","daemon":"d","results":"r"});
    let up = json!({"up": [hello, {"type":"report","number":1,"jobs":[job("n", "running", 1)],"complete":true}]});
    let (_, body) = world.post("/report", &up.to_string());
    let asks: Vec<_> = body["down"].as_array().unwrap().iter().filter(|down| down["type"] == "ask").collect();
    assert_eq!(asks, [&json!({"type":"ask","jobs":["i"]}), &json!({"type":"ask","jobs":["j"]})]);
    assert_eq!(world.post("/report", r#"{"up":[{"type":"report"}]}"#).1["code"], "bad_message");
    assert_eq!(world.post("/report", "{").1["code"], "malformed_json");
}

#[test]
fn one_site_is_woken_first_and_all_when_jobs_still_wait() {
    let mut world = World::new();
    let pool = |name: &str| json!([{"pool":name,"ready":true,"capacity":{"cpus":4,"gpus":0}}]);
    for (socket, site, pools) in [("s", "alpha", pool("cpu")), ("t", "beta", pool("cpu")), ("u", "gamma", pool("gpu"))]
    {
        world.hello(socket, site, site);
        world.says(socket, json!({"type":"report","pools":pools}));
    }
    let woken = |world: &World| ["s", "t", "u"].map(|socket| world.sent(socket).len());
    world.submit("a", "t");
    let first = woken(&world);
    assert_eq!(first.iter().sum::<usize>(), 1);
    let at = timestamp_from_millis(world.now + 3_000);
    assert!(world.effects.contains(&Effect::Alarm(at)), "{:?}", world.effects);
    world.submit("b", "t");
    assert!(woken(&world) != first && woken(&world).iter().sum::<usize>() == 1, "they take turns");
    let wants_gpu = json!({"job_id":"c","task":"t","pool":"gpu"}).to_string();
    world.handle(Event::Submitted { messages: vec![wants_gpu] });
    assert_eq!(woken(&world), [0, 0, 1]);
    world.now += 3_000;
    world.handle(Event::Alarm);
    assert_eq!(woken(&world), [1, 1, 1]);
    world.report("s", &["a", "b", "c"].map(|id| job(id, "held", 0)));
    world.submit("d", "t");
    world.report("t", &[job("d", "held", 0)]);
    world.now += 3_000;
    world.handle(Event::Alarm);
    assert_eq!(woken(&world), [0, 0, 0]);
}

#[test]
fn a_log_is_followed_live_and_sent_once_however_many_look() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.report("s", &[job("j", "held", 0)]);
    let first = world.ask("GET", "/jobs/j/logs?follow=1&stream=stdout&from=0");
    assert!(world.effects.contains(&Effect::Stream(first)));
    assert_eq!(world.sent("s"), [json!({"type":"tail","job_id":"j","stream":"stdout","from":0})]);
    world.report("s", &[job("j", "running", 1)]);
    assert_eq!(world.sent("s").len(), 2, "an ack, and a tail of what runs now");
    world.says("s", log("j", 0, "héllo", false));
    let expected = "event: log\nid: 1.6.0\ndata: {\"attempt\":1,\"stream\":\"stdout\",\"offset\":0,\"next\":6,\"text\":\"héllo\"}\n\n";
    assert_eq!(world.pieces(first), expected);
    let second = world.ask("GET", "/jobs/j/logs?follow=1&stream=stdout&from=3");
    assert!(world.pieces(second).contains(r#""offset":3,"next":6,"text":"llo""#), "{}", world.pieces(second));
    assert_eq!(world.sent("s").len(), 0, "it is kept");
    world.says("s", log("j", 6, "\u{1b}[2J\n", false));
    assert!(world.pieces(first).contains(r"\u001b[2J\n") && world.pieces(second).contains(r#""offset":6"#));
    // Cut off, and back.
    world.handle(Event::Gone(second));
    assert_eq!(world.sent("s").len(), 0);
    let second = world.ask_with("GET", "/jobs/j/logs?follow=1&stream=stdout", "", Some("1.6.0"));
    assert!(world.pieces(second).contains(r#""offset":6"#));
    world.handle(Event::TimedOut(first));
    assert_eq!(world.pieces(first), ":\n\n");
    assert_eq!(world.sent("s")[0]["from"], 11, "the site is asked again before it stops");
    world.report("s", &[ended("j")]);
    assert_eq!(world.pieces(first), "");
    world.says("s", log("j", 11, "end", true));
    assert!(world.pieces(first).ends_with("event: end\ndata: {\"state\":\"completed\"}\n\n"));
    assert!(world.effects.contains(&Effect::End(first)) && world.effects.contains(&Effect::End(second)));
    assert_eq!(world.sent("s"), [json!({"type":"untail","job_id":"j","stream":"stdout"})], "nobody looks any more");
}

#[test]
fn what_was_printed_is_asked_of_the_site_and_else_comes_with_the_result() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.report("s", &[ended("j"), job("k", "running", 1)]);
    let asked = world.ask("GET", "/jobs/j/logs");
    assert_eq!(world.sent("s")[0]["from"], -16_384);
    world.says("s", log("j", 90, "all \u{1b}[31m\n", true));
    assert_eq!(world.answer(asked), Some((200, json!("all \\u{1b}[31m\n"))));
    let slow = world.ask("GET", "/jobs/j/logs");
    world.handle(Event::TimedOut(slow));
    assert_eq!(world.answer(slow), Some((200, json!("bye"))));
    world.handle(Event::LinkClosed("s".to_owned()));
    assert_eq!(world.get("/jobs/j/logs"), (200, json!("bye")));
    let follows = world.ask("GET", "/jobs/j/logs?follow=1");
    assert!(world.pieces(follows).contains("bye") && world.effects.contains(&Effect::End(follows)));
    assert_eq!(world.get("/jobs/k/logs").1["code"], "no_logs");
    assert_eq!(world.get("/jobs/j/logs?stream=stderr").1["code"], "no_logs", "the result says nothing of it");
    assert_eq!(world.get("/jobs/x/logs").1["code"], "unknown_job");
    // A site that comes back is asked by itself.
    let follows = world.ask("GET", "/jobs/k/logs?follow=1&stream=stdout");
    assert!(world.hello("t", "alpha", "d").iter().any(|down| down["type"] == "tail"));
    world.says("t", log("k", 0, "a", false));
    assert!(world.pieces(follows).contains(r#""text":"a""#));
}

#[test]
fn who_listens_hears_of_jobs_sites_and_pools() {
    let mut world = World::new();
    let listens = world.ask("GET", "/events");
    world.submit("j", "t");
    assert!(world.pieces(listens).starts_with("event: job\ndata: {\"job_id\":\"j\",\"state\":\"queued\""));
    world.hello("s", "alpha", "d");
    assert!(world.pieces(listens).contains("event: sites\n"));
    world.report("s", &[job("j", "held", 0)]);
    assert!(world.pieces(listens).contains("\"state\":\"held\""));
    world.report("s", &[job("j", "held", 0)]);
    assert_eq!(world.pieces(listens), "", "nothing new");
    world.handle(Event::Gone(listens));
    world.report("s", &[job("j", "running", 1)]);
    assert_eq!(world.pieces(listens), "");
}

#[test]
fn what_is_old_makes_room() {
    let settings = Settings { keep_jobs: 500, keep_for: Duration::from_hours(1), ..Settings::default() };
    let mut world = World::with(settings.clone());
    for number in 0..2_000 {
        if number % 50 == 0 {
            // As between two jobs that come alone.
            world.hub = Hub::new(settings.clone());
        }
        world.submit(&format!("j{number}"), "t");
    }
    let count = |world: &mut World| match world.tables.run("SELECT count(*) FROM job", &[]).unwrap()[0][0] {
        Value::Integer(count) => count,
        _ => panic!("a count is a number"),
    };
    assert!((500..=700).contains(&count(&mut world)), "{}", count(&mut world));
    world.now += 2 * 3_600_000;
    for number in 0..800 {
        world.submit(&format!("k{number}"), "t");
    }
    assert_eq!(world.get("/jobs/k799").0, 200);
    assert!((500..=800).contains(&count(&mut world)), "{}", count(&mut world));
}

#[test]
fn too_many_who_wait_are_refused() {
    let mut world = World::new();
    for _ in 0..FOLLOWERS_MAX {
        world.ask("GET", "/events");
    }
    assert_eq!(world.get("/jobs/j?wait=1").1["code"], "hub_busy");
    assert_eq!(world.get("/jobs").0, 200);
}

#[test]
fn an_address_is_called_once_for_each_state_until_it_answers() {
    let secret = crate::SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").ok();
    let mut world =
        World::with(Settings { callbacks: Callbacks { secret, allowed: Vec::new() }, ..Settings::default() });
    let calls = |world: &World| {
        let calls = world.effects.iter().filter_map(|effect| match effect {
            Effect::Call(call) => Some(call.clone()),
            _ => None,
        });
        calls.collect::<Vec<_>>()
    };
    let called = |world: &mut World, event: &str, outcome: Result<u16, String>| {
        world.handle(Event::Called { job_id: "j".parse().unwrap(), event: event.to_owned(), outcome });
    };
    let callback = json!({"url": "https://a.example/x", "events": ["running", "completed"]});
    let message = json!({"job_id": "j", "task": "t", "callback": callback}).to_string();
    world.handle(Event::Submitted { messages: vec![message] });
    assert_eq!(calls(&world), []);
    world.hello("s", "alpha", "d");
    world.report("s", &[job("j", "running", 1)]);
    let [call] = calls(&world).try_into().unwrap();
    assert_eq!((call.event.as_str(), call.url.as_str()), ("running", "https://a.example/x"));
    let body: Any = serde_json::from_str(&call.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["job_id"]), (&json!("job.running"), &json!("j")));
    assert!(call.headers.contains(&("webhook-id", "j.running".to_owned())));
    called(&mut world, "running", Ok(204));
    world.report("s", &[job("j", "held", 2), job("j", "running", 2)]);
    assert_eq!(calls(&world), [], "each state once");
    world.report("s", &[ended("j")]);
    assert_eq!(calls(&world).len(), 1);
    // Nobody answers; the object is put to sleep in between, and a day passes.
    let mut tries = 1;
    called(&mut world, "completed", Err("no answer within 10 s".to_owned()));
    while let Some(Effect::Alarm(at)) = world.effects.iter().find(|effect| matches!(effect, Effect::Alarm(_))).cloned()
    {
        world.now = world.now.max(at.as_millisecond() - 1);
        world.handle(Event::Alarm);
        if calls(&world).is_empty() {
            break;
        }
        tries += 1;
        called(&mut world, "completed", if tries % 2 == 0 { Ok(302) } else { Ok(500) });
    }
    assert!((10..20).contains(&tries), "{tries}");
    let (_, body) = world.get("/jobs/j");
    let states: Vec<_> = body["callbacks"].as_array().unwrap().iter().map(|call| call["state"].clone()).collect();
    assert_eq!(states, ["delivered", "given_up"]);
}
