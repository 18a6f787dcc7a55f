//! Files over real tables, with a store that the test plays.

use std::collections::BTreeMap;

use protocol::Digest;
use serde_json::{Value as Any, json};

use super::*;
use crate::hub::Settings as HubSettings;
use crate::hub::World;

const DAY: i64 = 24 * 60 * 60 * 1_000;
const MIB: u64 = 1024 * 1024;

/// What a store has.
#[derive(Default)]
struct Shelf {
    /// The lengths of objects, by the path.
    objects: BTreeMap<String, u64>,
    /// The parts of uploads: number, and length.
    uploads: BTreeMap<String, Vec<(u32, u64)>>,
    /// Is it away?
    away: bool,
    /// Does it refuse everything?
    denies: bool,
    /// Does it refuse uploads that it does not know?
    denies_unknown: bool,
    /// Does it list no parts of those?
    lists_unknown: bool,
    /// What it was asked, in words.
    asked: Vec<String>,
}

impl Shelf {
    fn answer(&mut self, call: &StoreCall) -> Result<StoreAnswer, String> {
        let (path, query) = call.url.split_once('?').unwrap_or((&call.url, ""));
        let names: Vec<&str> = call.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["authorization", "x-amz-content-sha256", "x-amz-date"], "{}", call.url);
        let path = path.split_once("/files/").unwrap().1.to_owned();
        let upload = query.split('&').find_map(|pair| pair.strip_prefix("uploadId=")).map(str::to_owned);
        let word = if query.starts_with("uploads=") { "create" } else { "" };
        self.asked.push(format!("{} {word}{}", call.method, upload.clone().unwrap_or_default()).trim().to_owned());
        if self.away {
            return Err("no answer within 30 s".to_owned());
        }
        let date = Some("Thu, 01 Jan 1970 01:00:00 GMT".to_owned());
        let answer = |status, body: String| Ok(StoreAnswer { status, length: None, date: date.clone(), body });
        let denied = "<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>";
        if self.denies {
            return answer(403, denied.to_owned());
        }
        let unknown = || match self.denies_unknown {
            true => answer(403, denied.to_owned()),
            false => answer(404, "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>".to_owned()),
        };
        match (call.method, upload) {
            ("POST", None) => {
                let upload = format!("u{}", self.uploads.len());
                self.uploads.insert(upload.clone(), Vec::new());
                answer(200, format!("<UploadId>{upload}</UploadId>"))
            }
            ("GET", Some(upload)) => match self.uploads.get(&upload) {
                None if self.lists_unknown => answer(200, String::new()),
                None => unknown(),
                Some(parts) => {
                    let part = |(number, size): &(u32, u64)| {
                        format!(
                            "<Part><PartNumber>{number}</PartNumber><ETag>\"e{number}\"</ETag><Size>{size}</Size></Part>"
                        )
                    };
                    // Two at a time.
                    let after: u32 = query
                        .split('&')
                        .find_map(|pair| pair.strip_prefix("part-number-marker="))
                        .map_or(0, |after| after.parse().unwrap());
                    let left: Vec<_> = parts.iter().filter(|(number, _)| *number > after).collect();
                    let (more, some) = (left.len() > 2, &left[..left.len().min(2)]);
                    let last = some.last().map_or(0, |(number, _)| *number);
                    let parts: String = some.iter().map(|part_of| part(part_of)).collect();
                    answer(
                        200,
                        format!(
                            "<IsTruncated>{more}</IsTruncated><NextPartNumberMarker>{last}</NextPartNumberMarker>{parts}"
                        ),
                    )
                }
            },
            ("POST", Some(upload)) => match self.uploads.get(&upload) {
                None => unknown(),
                Some(_) if call.body.contains("\"wrong\"") || call.body.contains("wrong") => {
                    answer(400, "<Error><Code>InvalidPart</Code><Message>no such part</Message></Error>".to_owned())
                }
                Some(parts) => {
                    self.objects.insert(path, parts.iter().map(|(_, size)| size).sum());
                    self.uploads.remove(&upload);
                    answer(200, String::new())
                }
            },
            ("HEAD", None) => match self.objects.get(&path) {
                None => answer(404, String::new()),
                Some(length) => Ok(StoreAnswer { status: 200, length: Some(*length), date: None, body: String::new() }),
            },
            ("DELETE", None) => {
                self.objects.remove(&path);
                answer(204, String::new())
            }
            ("DELETE", Some(upload)) => match self.uploads.remove(&upload) {
                None => unknown(),
                Some(_) => answer(204, String::new()),
            },
            other => panic!("{other:?}"),
        }
    }
}

struct Files {
    world: World,
    shelf: Shelf,
}

impl Files {
    fn with(bytes_max: u64) -> Self {
        let keys = Keys { access_key_id: "id".to_owned(), secret_access_key: "secret".to_owned() };
        let store = Store::at("https://store.example", "files", "auto", keys).unwrap();
        let files = Some(Settings { store, keep_for: Settings::KEEP_FOR, bytes_max });
        Self { world: World::with(HubSettings { files, ..HubSettings::default() }), shelf: Shelf::default() }
    }

    fn new() -> Self {
        Self::with(Settings::BYTES_MAX)
    }

    /// Has the store answer, until nothing is asked of it any more; returns all effects that are none of that.
    fn settle(&mut self) -> Vec<Effect> {
        let (mut others, mut calls) = (Vec::new(), std::mem::take(&mut self.world.effects));
        while !calls.is_empty() {
            for effect in std::mem::take(&mut calls) {
                match effect {
                    Effect::Store(call) => {
                        let outcome = self.shelf.answer(&call);
                        self.world.handle(crate::hub::Event::Stored { call, outcome });
                        calls.append(&mut self.world.effects);
                    }
                    other => others.push(other),
                }
            }
        }
        others
    }

    fn ask(&mut self, method: &str, path: &str, body: &Any) -> (u16, Any) {
        let follower = self.world.ask_with(method, path, &body.to_string(), None);
        self.world.effects = self.settle();
        self.world.answer(follower).unwrap_or_else(|| panic!("{path} waits"))
    }

    fn offer(&mut self, contents: &[Content]) -> (u16, Any) {
        self.ask("POST", "/files", &json!({"files": contents}))
    }

    fn place(&mut self, content: Content) -> Any {
        let (status, mut offered) = self.offer(&[content]);
        assert_eq!(status, 200, "{offered}");
        offered["files"][0].take()
    }

    fn complete(&mut self, content: Content, body: &Any) -> (u16, Any) {
        self.ask("POST", &format!("/files/{}/complete", content.sha256), body)
    }

    /// Puts a small content there.
    fn put(&mut self, content: Content) {
        assert_eq!(self.place(content)["state"], "put");
        self.shelf.objects.insert(format!("sha256/{}", content.sha256), content.size);
        assert_eq!(self.complete(content, &json!({})).0, 200);
    }

    /// A job has this result.
    fn ends(&mut self, job_id: &str, mut result: Any) {
        for (name, value) in [("job_id", json!(job_id)), ("status", json!("completed")), ("attempt", json!(1))] {
            result[name] = value;
        }
        let at = "1970-01-01T00:00:02Z";
        let ended = json!({"job_id": job_id, "state": "completed", "attempt": 1, "at": at, "result": result});
        self.world.hello("s", "alpha", "d");
        self.world.report("s", &[ended]);
    }

    fn time_passes(&mut self, millis: i64) {
        self.world.now += millis;
        self.world.handle(crate::hub::Event::Alarm);
        self.settle();
    }

    fn total(&mut self) -> u64 {
        tables::total(&mut self.world.tables, "people").unwrap()
    }
}

fn content(number: u8, size: u64) -> Content {
    Content { sha256: Digest::new([number; 32]), size }
}

fn code(answer: &(u16, Any)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[test]
fn a_content_that_is_in_the_store_is_had_although_the_tables_were_lost() {
    let mut files = Files::new();
    let (small, never) = (content(1, 5), content(2, 5));
    files.put(small);
    let shelf = std::mem::take(&mut files.shelf);
    let mut files = Files { shelf, ..Files::new() };
    files.shelf.asked.clear();
    let path = |content: Content| format!("/files/{}", content.sha256);
    for _ in 0..2 {
        let (status, _) = files.ask("GET", &path(small), &json!(null));
        assert_eq!((status, files.shelf.asked.as_slice()), (302, &["HEAD".to_owned()][..]), "it is asked once");
    }
    assert_eq!((files.total(), files.place(small)["state"].as_str()), (5, Some("have")));
    assert_eq!(code(&files.ask("GET", &path(never), &json!(null))), (404, "unknown_file"));
    files.shelf.away = true;
    assert_eq!(code(&files.ask("GET", &path(never), &json!(null))).0, 503, "nobody knows, so a job waits");
    files.shelf.away = false;
    // It goes by its age, as any other.
    files.time_passes(i64::try_from(Settings::KEEP_FOR.as_millis()).unwrap() + 2 * super::expiry::HOUR);
    assert!(files.shelf.objects.is_empty(), "{:?}", files.shelf.objects);
}

#[test]
fn a_small_content_is_put_as_a_whole_looked_at_and_had() {
    let mut files = Files::new();
    let small = content(1, 5);
    let place = files.place(small);
    assert!(place["url"].as_str().unwrap().starts_with("https://store.example/files/sha256/0101"), "{place}");
    assert_eq!(place["headers"], json!([["x-amz-checksum-sha256", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]]));
    assert!(place["url"].as_str().unwrap().contains("X-Amz-SignedHeaders=host%3Bx-amz-checksum-sha256"));
    let path = format!("/files/{}", small.sha256);
    assert_eq!(code(&files.complete(small, &json!({}))), (409, "upload_refused"), "it was not put");
    assert_eq!(code(&files.ask("GET", &path, &json!(null))), (404, "unknown_file"));
    files.shelf.objects.insert(format!("sha256/{}", small.sha256), 4);
    let other = files.complete(small, &json!({}));
    assert_eq!(code(&other), (409, "upload_refused"));
    assert!(other.1["detail"].as_str().unwrap().contains("has 4 bytes, and the content was offered with 5"));
    files.shelf.objects.insert(format!("sha256/{}", small.sha256), 5);
    assert_eq!(files.complete(small, &json!({})), (200, json!({"state": "have", "sha256": small.sha256})));
    files.shelf.asked.clear();
    assert_eq!(files.place(small)["state"], "have");
    assert_eq!(files.complete(small, &json!({})).0, 200);
    assert_eq!(files.ask("GET", &path, &json!(null)).0, 302);
    assert!(files.shelf.asked.is_empty(), "what is there costs the store nothing: {:?}", files.shelf.asked);
    assert_eq!(code(&files.offer(&[content(1, 6)])), (409, "upload_refused"), "it has another length");
}

#[test]
fn a_large_content_is_put_in_parts_and_its_upload_is_gone_on_with() {
    let mut files = Files::new();
    let large = content(2, 5 * 16 * MIB - 7);
    let first = files.place(large);
    assert_eq!((&first["state"], &first["part_bytes"]), (&json!("parts"), &json!(16 * MIB)));
    assert_eq!(first["parts"].as_array().unwrap().len(), 5);
    // The third was put by somebody who counts otherwise.
    let parts = [(1, 16 * MIB), (2, 16 * MIB), (3, 7), (5, 16 * MIB - 7)];
    files.shelf.uploads.insert("u0".to_owned(), parts.to_vec());
    let again = files.place(large);
    assert_eq!(again["upload"], first["upload"]);
    let numbers = |list: &Any| list.as_array().unwrap().iter().map(|part| part["number"].as_u64().unwrap()).collect();
    let (missing, done): (Vec<u64>, Vec<u64>) = (numbers(&again["parts"]), numbers(&again["done"]));
    assert_eq!((missing, done), (vec![3, 4], vec![1, 2, 5]));
    assert_eq!(files.shelf.asked, ["POST create", "GET u0", "GET u0"], "the upload is begun once, its list has pages");
    files.shelf.uploads.insert("u0".to_owned(), (1..=4).map(|n| (n, 16 * MIB)).chain([(5, 16 * MIB - 7)]).collect());
    let named = |etag: &str, count: u32| {
        let parts: Vec<Any> = (1..=count).map(|number| json!({"number": number, "etag": etag})).collect();
        json!({"upload": "u0", "parts": parts})
    };
    assert!(
        files.complete(large, &named("e", 4)).1["detail"].as_str().unwrap().contains("has 5 parts, and 4 were named")
    );
    let wrong = files.complete(large, &named("wrong", 5));
    assert_eq!(code(&wrong), (409, "upload_refused"));
    assert!(wrong.1["detail"].as_str().unwrap().contains("InvalidPart: no such part"), "{wrong:?}");
    let mut gap = named("e", 5);
    gap["parts"][2]["number"] = json!(7);
    assert_eq!(code(&files.complete(large, &gap)), (400, "invalid_request"));
    assert_eq!(files.complete(large, &named("e", 5)).0, 200);
    assert_eq!(files.place(large)["state"], "have");
}

#[test]
fn who_has_not_heard_that_it_is_complete_says_it_again() {
    let mut files = Files::new();
    let large = content(2, 65 * MIB);
    files.place(large);
    // The store has finished it, and nobody has heard of it.
    files.shelf.uploads.clear();
    files.shelf.objects.insert(format!("sha256/{}", large.sha256), large.size);
    let parts = json!((1..=5).map(|number| json!({"number": number, "etag": "a"})).collect::<Vec<_>>());
    assert_eq!(files.complete(large, &json!({"upload": "u0", "parts": parts})).0, 200);
}

#[test]
fn who_has_not_heard_that_it_is_complete_and_offers_it_again_sends_nothing_again() {
    for (denies_unknown, lists_unknown) in [(false, false), (true, false), (true, true)] {
        let mut files = Files::new();
        (files.shelf.denies_unknown, files.shelf.lists_unknown) = (denies_unknown, lists_unknown);
        let large = content(2, 65 * MIB);
        files.place(large);
        files.shelf.uploads.clear();
        files.shelf.objects.insert(format!("sha256/{}", large.sha256), large.size);
        assert_eq!(files.place(large)["state"], "have", "{:?}", files.shelf.asked);
        let parts = json!((1..=5).map(|number| json!({"number": number, "etag": "a"})).collect::<Vec<_>>());
        assert_eq!(files.complete(large, &json!({"upload": "u0", "parts": parts})).0, 200);
    }
}

#[test]
fn an_upload_that_the_store_has_forgotten_is_begun_anew() {
    for denies_unknown in [false, true] {
        let mut files = Files::new();
        files.shelf.denies_unknown = denies_unknown;
        let large = content(3, 65 * MIB);
        files.place(large);
        files.shelf.uploads = BTreeMap::from([("x".to_owned(), Vec::new())]);
        // What has another length is not the content.
        files.shelf.objects.insert(format!("sha256/{}", large.sha256), 7);
        assert_eq!(files.place(large)["upload"], "u1");
        assert_eq!(files.total(), large.size);
        files.shelf.uploads.clear();
        files.time_passes(2 * DAY);
        assert_eq!((files.total(), files.shelf.objects.len()), (0, 0), "what is given up goes");
    }
}

#[test]
fn a_store_that_refuses_everything_is_told_with_both_times_and_keeps_what_it_has() {
    let mut files = Files::new();
    let large = content(2, 65 * MIB);
    assert_eq!(files.place(large)["upload"], "u0");
    files.shelf.denies = true;
    let parts = json!((1..=5).map(|number| json!({"number": number, "etag": "a"})).collect::<Vec<_>>());
    for denied in [files.offer(&[large]), files.complete(large, &json!({"upload": "u0", "parts": parts}))] {
        assert_eq!(code(&denied), (503, "store_unavailable"));
        let detail = denied.1["detail"].as_str().unwrap();
        let says = "with 403 AccessDenied: not yours; see its keys, its bucket and the clocks: it says Thu, 01 Jan 1970 \
                    01:00:00 GMT, and here it is 1970-01-01T00:1";
        assert!(detail.contains(says), "{detail}");
    }
    files.time_passes(2 * DAY);
    files.shelf.denies = false;
    assert_eq!(files.shelf.uploads.len(), 1);
    files.time_passes(DAY);
    assert_eq!((files.shelf.uploads.len(), files.total()), (0, 0));
}

#[test]
fn two_who_offer_one_content_at_once_have_one_upload() {
    let mut files = Files::new();
    let large = content(4, 65 * MIB);
    let body = json!({"files": [large]}).to_string();
    let first = files.world.ask_with("POST", "/files", &body, None);
    let call = std::mem::take(&mut files.world.effects);
    let second = files.world.ask_with("POST", "/files", &body, None);
    assert!(!files.world.effects.iter().any(|effect| matches!(effect, Effect::Store(_))), "the other one waits");
    files.world.effects = call;
    files.world.effects = files.settle();
    let upload = |follower| files.world.answer(follower).unwrap().1["files"][0]["upload"].clone();
    assert_eq!(upload(first), upload(second));
}

#[test]
fn the_store_is_asked_no_more_often_for_one_answer_than_it_may_be() {
    let mut files = Files::new();
    let many: Vec<Content> = (0..60).map(|number| content(number, 65 * MIB)).collect();
    let named = |offered: &Any| {
        let places = offered["files"].as_array().unwrap();
        let with_parts = places.iter().map(|place| place["parts"].as_array().unwrap().len());
        with_parts.filter(|parts| *parts == 5).count()
    };
    let first = files.offer(&many).1;
    assert_eq!((named(&first), files.shelf.asked.len()), (40, 40));
    assert_eq!(first["files"].as_array().unwrap().len(), 60, "each has its place, if with no part");
    assert_eq!(named(&files.offer(&many[40..]).1), 20);
}

#[test]
fn a_store_that_is_away_is_nobodys_fault() {
    let mut files = Files::new();
    let (small, large) = (content(1, 5), content(2, 65 * MIB));
    files.place(small);
    files.shelf.away = true;
    let away = files.offer(&[small, large]);
    assert_eq!(code(&away), (503, "store_unavailable"));
    assert!(away.1["detail"].as_str().unwrap().contains("no answer within 30 s") && away.1["retryable"] == json!(true));
    assert_eq!(code(&files.complete(small, &json!({}))), (503, "store_unavailable"));
    files.shelf.away = false;
    assert_eq!(files.place(large)["state"], "parts");
}

#[test]
fn what_is_old_goes_unless_a_job_needs_it() {
    let mut files = Files::new();
    let [old, needed, young, given_up] = [content(1, 5), content(2, 6), content(3, 7), content(4, 65 * MIB)];
    files.put(old);
    files.put(needed);
    files.place(given_up);
    files.world.handle(crate::hub::Event::Submitted {
        messages: vec![json!({"v": 1, "job_id": "j", "task": "t", "input": 1}).to_string()],
    });
    tables::need(&mut files.world.tables, &"j".parse().unwrap(), &[needed.sha256]).unwrap();
    files.time_passes(2 * DAY);
    assert!(files.shelf.uploads.is_empty(), "nobody has said anything of it for a day");
    assert_eq!(files.total(), old.size + needed.size);
    files.time_passes(27 * DAY);
    files.put(young);
    files.shelf.away = true;
    files.time_passes(2 * DAY);
    assert_eq!(code(&files.ask("GET", &format!("/files/{}", old.sha256), &json!(null))), (404, "unknown_file"));
    assert_eq!(code(&files.offer(&[old])), (503, "store_unavailable"), "nobody knows whether it is there");
    files.shelf.away = false;
    files.time_passes(DAY);
    assert_eq!(files.shelf.objects.len(), 2, "{:?}", files.shelf.objects);
    assert_eq!(files.total(), needed.size + young.size);
    assert_eq!(files.place(old)["state"], "put", "it can be put again");
    tables::need_none(&mut files.world.tables, &"j".parse().unwrap()).unwrap();
    files.time_passes(DAY);
    assert!(!files.shelf.objects.contains_key(&format!("sha256/{}", needed.sha256)));
}

#[test]
fn who_has_as_much_there_as_allowed_is_told_the_numbers() {
    let mut files = Files::with(10);
    files.put(content(1, 6));
    let full = files.offer(&[content(2, 5)]);
    assert_eq!(code(&full), (507, "files_full"));
    assert_eq!((&full.1["limit"], &full.1["size"]), (&json!(10), &json!(5)));
    assert!(full.1["detail"].as_str().unwrap().contains("6 bytes are there already"), "{full:?}");
    assert_eq!(files.place(content(1, 6))["state"], "have", "what is there is no more");
    assert_eq!(files.place(content(3, 4))["state"], "put");
    assert_eq!(code(&files.offer(&[content(4, 1)])), (507, "files_full"), "what is on its way counts");
}

#[test]
fn lists_that_nobody_can_mean_are_refused() {
    let mut files = Files::new();
    let many: Vec<Content> = (0..=250).chain(0..=250).map(|number| content(number, 1)).collect();
    assert_eq!(code(&files.offer(&many)), (413, "too_many_files"));
    assert_eq!(code(&files.offer(&[content(1, 5_000_000_000_001)])), (413, "file_too_large"));
    assert_eq!(code(&files.offer(&[content(1, 1), content(1, 2)])), (400, "invalid_request"));
    assert_eq!(
        code(&files.ask("POST", "/files", &json!({"files": [{"sha256": "x", "size": 1}]}))),
        (400, "malformed_json")
    );
    assert_eq!(code(&files.ask("GET", "/files/x", &json!(null))), (404, "unknown_file"));
    assert_eq!(files.offer(&[]).1["files"], json!([]));
}

#[test]
fn what_a_job_has_left_is_listed_with_links() {
    let mut files = Files::new();
    assert_eq!(code(&files.ask("GET", "/jobs/j/files", &json!(null))), (404, "unknown_job"));
    files.world.submit("j", "t");
    assert_eq!(files.ask("GET", "/jobs/j/files", &json!(null)), (200, json!({"files": []})));
    let [plot, old, output] = [content(1, 5), content(2, 6), content(3, 7)];
    files.put(plot);
    files.put(output);
    // Offered again, and not put yet.
    files.place(old);
    let file = |path: &str, content: Content| json!({"path": path, "size": content.size, "sha256": content.sha256});
    let left = [file("plots/a b.svg", plot), file("old.png", old)];
    files.ends("j", json!({"files": left, "output_file": output}));
    let (status, listed) = files.ask("GET", "/jobs/j/files", &json!(null));
    assert_eq!((status, &listed["gone"]), (200, &json!([file("old.png", old)])), "what has expired has no address");
    let [plot, output] = [0, 1].map(|at| listed["files"][at].clone());
    assert_eq!((&plot["path"], &output["path"]), (&json!("plots/a b.svg"), &json!("output.json")));
    let url = plot["url"].as_str().unwrap();
    for part in ["/files/sha256/0101", "response-content-type=image%2Fsvg%2Bxml", "a%2520b.svg"] {
        assert!(url.contains(part), "{part} in {url}");
    }
    // Whoever wants the output as a file of the directory has it once.
    let named = [file("output.json", content(3, 7))];
    files.world.submit("k", "t");
    files.ends("k", json!({"files": named, "output_file": content(3, 7)}));
    assert_eq!(files.ask("GET", "/jobs/k/files", &json!(null)).1["files"].as_array().unwrap().len(), 1);
}

#[test]
fn what_a_job_needs_is_registered_from_its_message_and_goes_with_it() {
    let mut files = Files::new();
    let [data, input, never_offered] = [content(1, 5), content(2, 6), content(3, 7)];
    files.put(data);
    files.put(input);
    let file = |path: &str, content: Content| json!({"path": path, "size": content.size, "sha256": content.sha256});
    let submit = |files: &mut Files, id: &str| {
        let needed = [file("a", data), file("b", data), file("c", never_offered)];
        let job = json!({"v": 2, "job_id": id, "task": "t", "files": needed, "input_file": input});
        files.world.handle(crate::hub::Event::Submitted { messages: vec![job.to_string()] });
    };
    let needed = |files: &mut Files| {
        let rows = files.world.tables.run("SELECT job_id, sha256 FROM job_file ORDER BY 1, 2", &[]).unwrap();
        rows.iter()
            .map(|row| format!("{} {}", crate::hub::text_at(row, 0), &crate::hub::text_at(row, 1)[..2]))
            .collect()
    };
    submit(&mut files, "j");
    submit(&mut files, "k");
    let all: Vec<String> = needed(&mut files);
    assert_eq!(all, ["j 01", "j 02", "k 01", "k 02"], "each once, and nothing that nobody has offered");
    files.time_passes(40 * DAY);
    assert_eq!(files.shelf.objects.len(), 2, "jobs that have no result need them");
    files.ends("j", json!({}));
    let left: Vec<String> = needed(&mut files);
    assert_eq!(left, ["k 01", "k 02"]);
    // The hub forgets the job: more came after it.
    for number in 0..1_000 {
        files.world.submit(&format!("n{number}"), "t");
    }
    assert_eq!(code(&files.ask("GET", "/jobs/k/files", &json!(null))), (404, "unknown_job"));
    let left: Vec<String> = needed(&mut files);
    assert_eq!(left, [] as [String; 0]);
    files.time_passes(2 * DAY);
    assert_eq!(files.shelf.objects.len(), 0);
}

#[test]
fn without_a_store_nobody_is_told_of_one() {
    let mut files = Files { world: World::without_files(), shelf: Shelf::default() };
    assert_eq!(code(&files.offer(&[content(1, 1)])), (501, "no_files"));
}

#[test]
fn a_content_of_which_other_bytes_came_is_put_anew_by_whoever_offers_it() {
    let mut files = Files::new();
    let [small, large] = [content(1, 5), content(2, 65 * MIB)];
    let doubt = |files: &mut Files, content: Content| {
        code(&files.ask("POST", &format!("/files/{}/wrong", content.sha256), &json!(null))).0
    };
    assert_eq!(doubt(&mut files, small), 404, "nobody was told that it is here");
    files.put(small);
    let parts = |count: u32| (1..=count).map(|number| (number, 16 * MIB)).chain([(5, MIB)]).collect::<Vec<_>>();
    let complete = |files: &mut Files, upload: &Any| {
        let parts = json!((1..=5).map(|number| json!({"number": number, "etag": "e"})).collect::<Vec<_>>());
        files.complete(large, &json!({"upload": upload, "parts": parts})).0
    };
    let upload = files.place(large)["upload"].clone();
    files.shelf.uploads.insert("u0".to_owned(), parts(4));
    assert_eq!(complete(&mut files, &upload), 200);
    let total = files.total();
    for content in [small, large] {
        assert_eq!(doubt(&mut files, content), 202);
        let path = format!("/files/{}", content.sha256);
        assert_eq!(files.ask("GET", &path, &json!(null)).0, 302, "it may be a lie");
        assert_ne!(files.place(content)["state"], "have");
        assert_eq!(files.ask("GET", &path, &json!(null)).0, 302, "also while it is put anew");
    }
    assert_eq!(files.complete(small, &json!({})).0, 200);
    assert_eq!(files.place(small)["state"], "have");
    let upload = files.place(large)["upload"].clone();
    files.shelf.uploads.insert(upload.as_str().unwrap().to_owned(), parts(4));
    assert_eq!(files.place(large)["done"].as_array().unwrap().len(), 5, "what was begun is gone on with");
    assert_eq!(complete(&mut files, &upload), 200);
    assert_eq!((files.place(large)["state"].clone(), files.total()), (json!("have"), total));
    // What is doubted gets old as well, also with an upload of which nobody has said anything more.
    assert_eq!([small, large].map(|content| doubt(&mut files, content)), [202, 202]);
    files.place(large);
    files.time_passes(31 * DAY);
    assert_eq!((files.total(), files.shelf.objects.len(), files.shelf.uploads.len()), (0, 0, 0));
}

#[test]
fn an_upload_of_what_is_doubted_that_is_lost_does_not_make_it_right() {
    let mut files = Files::new();
    let large = content(2, 65 * MIB);
    files.place(large);
    files.shelf.uploads.clear();
    files.shelf.objects.insert(format!("sha256/{}", large.sha256), large.size);
    assert_eq!(files.place(large)["state"], "have");
    files.ask("POST", &format!("/files/{}/wrong", large.sha256), &json!(null));
    let upload = files.place(large)["upload"].clone();
    files.shelf.uploads.clear();
    let again = files.place(large);
    assert_eq!(again["state"], "parts", "what is there may be what is wrong");
    assert_eq!((upload, again["upload"].clone()), (json!("u0"), json!("u0")));
}
