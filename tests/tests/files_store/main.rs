//! Files through the edge's API and the store that `local-edge` holds itself, as curl would have them there: whole and
//! in parts, resumed after SIGKILL, refused with a reason.

#![allow(clippy::unwrap_used)]

mod full;
mod kill;
mod put;
mod wrong;

use std::fs;
use std::path::PathBuf;

use edge::files::sigv4::{self, Key, Signed};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::Edge;
use testkit::http::{Answer, block_on, client, send};

const MIB: usize = 1024 * 1024;

/// The length of a part.
const PART: usize = 16 * MIB;

/// A content that nobody else has.
#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    sha256: String,
}

impl Content {
    fn of_size(size: usize) -> Self {
        let mut bytes = vec![0; size];
        // Random enough at its beginning, and fast to make.
        bytes.iter_mut().take(100_000).for_each(|byte| *byte = fastrand::u8(..));
        if let Some(last) = bytes.last_mut() {
            *last = 7;
        }
        let sha256 = sigv4::hex(&Sha256::digest(&bytes));
        Self { bytes, sha256 }
    }

    fn to_json(&self) -> Value {
        json!({"sha256": self.sha256, "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("/files/{}", self.sha256)
    }
}

/// Asks the edge, with the key of people.
fn ask(edge: &Edge, method: Method, path: &str) -> RequestBuilder {
    let url = format!("{}{path}", edge.producer().url);
    client().request(method, url).header("x-api-key", edge.setting("API_KEY"))
}

fn offer(edge: &Edge, content: &Content) -> Answer {
    send(ask(edge, Method::POST, "/files").json(&json!({"files": [content.to_json()]})))
}

/// What is to be done with a content.
fn place(edge: &Edge, content: &Content) -> Value {
    let answer = offer(edge, content);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["files"][0].take()
}

fn complete(edge: &Edge, content: &Content, body: &Value) -> Answer {
    send(ask(edge, Method::POST, &format!("{}/complete", content.path())).json(body))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A request to put bytes at an address of a place.
fn put(place: &Value, bytes: &[u8]) -> RequestBuilder {
    let headers = place["headers"].as_array().cloned().unwrap_or_default();
    let request = client().put(text(place, "url")).body(bytes.to_vec());
    headers
        .iter()
        .fold(request, |request, header| request.header(header[0].as_str().unwrap(), header[1].as_str().unwrap()))
}

/// Puts a whole content there, in one piece or in parts, as far as it is not there; returns how many requests that
/// took.
fn put_all(edge: &Edge, content: &Content) -> usize {
    let place = place(edge, content);
    match text(&place, "state") {
        "have" => 0,
        "put" => {
            assert_eq!(send(put(&place, &content.bytes)).status, 200);
            assert_eq!(complete(edge, content, &json!({})).status, 200);
            1
        }
        _ => {
            let size = usize::try_from(place["part_bytes"].as_u64().unwrap()).unwrap();
            let mut done = place["done"].as_array().cloned().unwrap_or_default();
            let missing = place["parts"].as_array().unwrap();
            for part in missing {
                let number = part["number"].as_u64().unwrap();
                let begin = size * usize::try_from(number - 1).unwrap();
                let end = content.bytes.len().min(begin + size);
                let answer = send(put(part, &content.bytes[begin..end]));
                // Somebody else has put the same there meanwhile.
                if answer.status == 404 {
                    return put_all(edge, content);
                }
                assert_eq!(answer.status, 200, "{answer:?}");
                done.push(json!({"number": number, "etag": answer.header("etag")}));
            }
            let answer = complete(edge, content, &json!({"upload": place["upload"], "parts": done}));
            if answer.status == 409 {
                return put_all(edge, content);
            }
            assert_eq!(answer.status, 200, "{answer:?}");
            missing.len()
        }
    }
}

/// What is there of a content.
fn get(edge: &Edge, content: &Content, range: Option<&str>) -> (u16, Vec<u8>) {
    let link = send(ask(edge, Method::GET, &content.path()));
    assert_eq!(link.status, 302, "{link:?}");
    let request = client().get(link.header("location").unwrap());
    let request = range.into_iter().fold(request, |request, range| request.header("range", range));
    block_on(async {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    })
}

fn data_dir(edge: &Edge) -> PathBuf {
    edge.env_file().with_file_name("data")
}

/// The files of the store on the disk.
fn pieces(edge: &Edge) -> Vec<PathBuf> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries(data_dir(edge).join("files")).flat_map(entries).collect()
}

/// The keys of the store.
fn keys(edge: &Edge) -> (String, String) {
    let text = fs::read_to_string(data_dir(edge).join("credentials.json")).unwrap();
    let credentials: Value = serde_json::from_str(&text).unwrap();
    let key = |name: &str| text_of(&credentials, name);
    (key("files_access_key_id"), key("files_secret_access_key"))
}

fn text_of(value: &Value, name: &str) -> String {
    text(value, name).to_owned()
}

/// An address of an object in the store, signed as of so many seconds after now.
fn signed(edge: &Edge, method: &str, path: &str, seconds: i64) -> String {
    let (id, secret) = keys(edge);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = i64::try_from(now).unwrap() + seconds;
    let at = sigv4::date_time(protocol::timestamp_from_millis(at * 1_000));
    let key = Key::new(&secret, &at, "auto");
    let (credential, host) = (format!("{id}/{}", key.scope()), edge.address());
    let query = [
        ("X-Amz-Algorithm", sigv4::ALGORITHM),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", &at),
        ("X-Amz-Expires", "3600"),
        ("X-Amz-SignedHeaders", "host"),
    ];
    let headers = [("host", host.as_str())];
    let request = Signed { method, path, query: &query, headers: &headers, payload: sigv4::UNSIGNED_PAYLOAD };
    let signature = key.sign(&at, &request);
    let pairs: String = query.iter().map(|(name, value)| format!("{name}={}&", sigv4::encode(value))).collect();
    format!("http://{host}{}?{pairs}X-Amz-Signature={signature}", sigv4::encode_path(path))
}
