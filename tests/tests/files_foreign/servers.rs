//! Both edges, with an object store that nobody here wrote.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge::files::sigv4::{self, Key, Signed};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::files::{Asked, Content, had, put, text};
use testkit::http::{client, send};
use testkit::{Edge, ObjectStore, PATIENCE, Worker, wait_until};

const MIB: usize = 1024 * 1024;

/// The length of a part.
const PART: usize = 16 * MIB;

/// What a server makes of it is its own, and known.
struct Ways {
    /// Does it compare a checksum with the bytes?
    checks: bool,
    /// Does it refuse addresses that have expired?
    expires: bool,
    /// Does it list what parts are called?
    names_parts: bool,
}

/// moto stands in for AWS in tests of other projects: it answers as AWS does, and is lenient about who asks what.
const MOTO: Ways = Ways { checks: false, expires: false, names_parts: true };

const S3S_FS: Ways = Ways { checks: true, expires: true, names_parts: false };

fn goes_through(edge: &impl Asked, store: &ObjectStore, ways: &Ways) {
    // Whole, with ranges.
    let small = Content::of_size(100_000);
    let offered = edge.place(&small);
    assert!(text(&offered, "url").starts_with(&format!("{}/hpc-files/sha256/", store.endpoint())), "{offered}");
    let mut wrong = small.bytes.clone();
    wrong[7] ^= 1;
    let answer = send(put(&offered, &wrong));
    assert_eq!(answer.status, if ways.checks { 400 } else { 200 }, "{answer:?}");
    // A length that is not that of the content is noticed at any store.
    assert!(matches!(send(put(&offered, &small.bytes[..99])).status, 200 | 400));
    let refused = edge.complete(&small, &json!({}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("upload_refused")), "{refused:?}");
    assert_eq!(edge.put_all(&small), 1);
    assert_eq!(edge.put_all(&small), 0);
    assert_eq!(edge.download(&small, None), (200, small.bytes.clone()));
    assert_eq!(edge.download(&small, Some("bytes=10-19")), (206, small.bytes[10..20].to_vec()));
    assert_eq!(edge.download(&small, Some("bytes=99990-")), (206, small.bytes[99_990..].to_vec()));
    assert_eq!(edge.download(&small, Some("bytes=100000-")).0, 416);
    // Somebody has put other bytes there since, of the same length: who notices says so, and who has it puts it anew.
    assert_eq!(send(client().put(signed(store, "PUT", &small, 0)).body(wrong.clone())).status, 200);
    assert_eq!(edge.download(&small, None), (200, wrong));
    let doubted = send(edge.ask(Method::POST, &format!("{}/wrong", small.path())));
    assert_eq!((doubted.status, doubted.json()["size"].as_u64()), (202, Some(100_000)), "{doubted:?}");
    assert_eq!((edge.put_all(&small), edge.put_all(&small)), (1, 0));
    assert_eq!(edge.download(&small, None), (200, small.bytes.clone()));
    let empty = Content::of("");
    edge.put_all(&empty);
    assert_eq!(edge.download(&empty, None), (200, Vec::new()));

    // In parts: gone on with, and wrong parts refused.
    let large = Content::of_size(65 * MIB + 1);
    let first = edge.place(&large);
    assert_eq!(first["parts"].as_array().map(Vec::len), Some(5), "{first}");
    assert_eq!(send(put(&first["parts"][4], &large.bytes[4 * PART..])).status, 200);
    let again = edge.place(&large);
    assert_eq!(again["upload"], first["upload"]);
    let missing = if ways.names_parts { 4 } else { 5 };
    assert_eq!(again["parts"].as_array().map(Vec::len), Some(missing), "{again}");
    assert_eq!(edge.put_all(&large), missing);
    assert_eq!(edge.put_all(&large), 0);
    let (status, bytes) = edge.download(&large, None);
    assert!(status == 200 && bytes == large.bytes, "it is what was put");
    let across = edge.download(&large, Some(&format!("bytes={}-{}", PART - 3, PART + 2)));
    assert_eq!(across, (206, large.bytes[PART - 3..PART + 3].to_vec()));
    // An answer that nobody has heard: the store has finished it, and the edge does not know.
    let finished = Content::of_size(65 * MIB);
    let place = edge.place(&finished);
    let parts: String = (0..5)
        .map(|at| {
            let end = finished.bytes.len().min((at + 1) * PART);
            let answer = send(put(&place["parts"][at], &finished.bytes[at * PART..end]));
            let etag = answer.header("etag").expect("a part has a name");
            format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", at + 1, etag.replace('"', "&quot;"))
        })
        .collect();
    let xmlns = "http://s3.amazonaws.com/doc/2006-03-01/";
    let list = format!("<CompleteMultipartUpload xmlns=\"{xmlns}\">{parts}</CompleteMultipartUpload>");
    let of_upload = ("uploadId", text(&place, "upload"));
    let answer = send(client().post(signed_with(store, "POST", &finished, 0, Some(of_upload))).body(list));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(edge.place(&finished)["state"], "have", "it is not sent again");
    // And one that the store has given up.
    let given_up = Content::of_size(65 * MIB);
    let place = edge.place(&given_up);
    let of_upload = ("uploadId", text(&place, "upload"));
    let answer = send(client().delete(signed_with(store, "DELETE", &given_up, 0, Some(of_upload))));
    assert_eq!(answer.status, 204, "{answer:?}");
    // s3s-fs lists no parts of whatever it does not know.
    if ways.names_parts {
        assert_ne!(edge.place(&given_up)["upload"], place["upload"]);
        assert_eq!(edge.put_all(&given_up), 5);
    }

    // One that is shorter than was said.
    let short = Content::of_size(65 * MIB);
    let place = edge.place(&short);
    let parts: Vec<Value> = (0..5)
        .map(|at| {
            let begin = at * PART + usize::from(at == 4);
            let answer = send(put(&place["parts"][at], &short.bytes[begin..short.bytes.len().min((at + 1) * PART)]));
            json!({"number": at + 1, "etag": answer.header("etag")})
        })
        .collect();
    let answer = edge.complete(&short, &json!({"upload": place["upload"], "parts": parts}));
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("has 68157439 bytes, and the content was offered with 68157440"), "{answer:?}");

    // Addresses are good for a while, and for what they were made for.
    let expired = signed(store, "GET", &small, -3_700);
    assert_eq!(had(&expired, None).0, if ways.expires { 403 } else { 200 });
    let fresh = signed(store, "GET", &small, -60);
    assert_eq!(had(&fresh, None), (200, small.bytes.clone()), "clocks are never quite right");
    if ways.expires {
        let other = Content::of_size(10);
        let address = text(&edge.place(&other), "url").replace(&other.sha256, &small.sha256);
        assert_eq!(send(client().put(address).body("x")).status, 403, "it is of another content");
    }
}

/// An address of a content in the store, signed as of so many seconds after now.
fn signed(store: &ObjectStore, method: &str, content: &Content, seconds: i64) -> String {
    signed_with(store, method, content, seconds, None)
}

/// The same with another field.
fn signed_with(
    store: &ObjectStore,
    method: &str,
    content: &Content,
    seconds: i64,
    field: Option<(&str, &str)>,
) -> String {
    let settings: std::collections::BTreeMap<_, _> = store.settings().into_iter().collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let at = i64::try_from(now).expect("it is not that late") + seconds;
    let at = sigv4::date_time(protocol::timestamp_from_millis(at * 1_000));
    let key = Key::new(settings["FILES_SECRET_ACCESS_KEY"], &at, settings["FILES_REGION"]);
    let credential = format!("{}/{}", settings["FILES_ACCESS_KEY_ID"], key.scope());
    let host = store.endpoint().trim_start_matches("http://");
    let path = format!("/{}/sha256/{}", settings["FILES_BUCKET"], content.sha256);
    let query = [
        ("X-Amz-Algorithm", sigv4::ALGORITHM),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", &at),
        ("X-Amz-Expires", "3600"),
        ("X-Amz-SignedHeaders", "host"),
    ];
    let query: Vec<(&str, &str)> = query.into_iter().chain(field).collect();
    let headers = [("host", host)];
    let request = Signed { method, path: &path, query: &query, headers: &headers, payload: sigv4::UNSIGNED_PAYLOAD };
    let signature = key.sign(&at, &request);
    let pairs: String = query.iter().map(|(name, value)| format!("{name}={}&", sigv4::encode(value))).collect();
    format!("http://{host}{path}?{pairs}X-Amz-Signature={signature}")
}

#[test]
fn local_edge_keeps_files_in_moto() {
    let store = ObjectStore::moto();
    goes_through(&Edge::start_set(&store.settings()), &store, &MOTO);
}

#[test]
fn local_edge_keeps_files_in_s3s_fs() {
    let store = ObjectStore::s3s_fs();
    goes_through(&Edge::start_set(&store.settings()), &store, &S3S_FS);
}

#[test]
fn the_worker_keeps_files_in_moto() {
    let store = ObjectStore::moto();
    let behind = Edge::start();
    goes_through(&Worker::start_with(&behind, &store.settings()), &store, &MOTO);
}

#[test]
fn the_worker_keeps_files_in_s3s_fs() {
    let store = ObjectStore::s3s_fs();
    let behind = Edge::start();
    goes_through(&Worker::start_with(&behind, &store.settings()), &store, &S3S_FS);
}

/// The hub looks for what is to go a minute after it begins, and the test makes what is there old.
#[test]
fn what_nobody_needs_any_more_goes_from_the_store() {
    thread::scope(|scope| {
        for store in [ObjectStore::moto(), ObjectStore::s3s_fs()] {
            scope.spawn(move || what_is_old_goes(&store));
        }
    });
}

fn what_is_old_goes(store: &ObjectStore) {
    let mut edge = Edge::start_set(&store.settings());
    let [old, needed, young] = [10, 20, 30].map(Content::of_size);
    let given_up = Content::of_size(65 * MIB);
    for content in [&old, &needed, &young] {
        edge.put_all(content);
    }
    let upload = edge.place(&given_up);
    let put_part = |at: usize, bytes: &[u8]| send(put(&upload["parts"][at], bytes)).status;
    assert_eq!(put_part(1, &given_up.bytes[PART..2 * PART]), 200);
    let id = edge.producer().submit(&json!({"task": "t", "files": [needed.as_file("in")]}));
    wait_until("the hub to know the job", PATIENCE, || {
        send(edge.ask(Method::GET, &format!("/jobs/{id}"))).status == 200
    });
    let addresses = [&old, &needed, &young].map(|content| {
        let link = send(edge.ask(Method::GET, &content.path()));
        link.header("location").expect("it is there").to_owned()
    });
    edge.kill();
    let hub = rusqlite::Connection::open(edge.env_file().with_file_name("data").join("hub.sqlite"));
    let month = Duration::from_hours(31 * 24).as_millis();
    let sql = format!("UPDATE file SET at = at - {month} WHERE sha256 <> '{}'", young.sha256);
    assert_eq!(hub.and_then(|hub| hub.execute(&sql, [])), Ok(3));
    edge.restart();
    let there = |at: usize| had(&addresses[at], None).0;
    wait_until("what is old to go", 2 * PATIENCE, || there(0) == 404);
    wait_until("the upload to be given up", PATIENCE, || put_part(0, &given_up.bytes[..10]) != 200);
    assert_eq!([there(1), there(2)], [200, 200], "a job needs the one, and the other is young");
    assert_eq!(edge.place(&old)["state"], "put", "it can be put again");
    assert_eq!(edge.place(&needed)["state"], "have");
}
