//! Files as curl would have them at an edge and its store: offered, put whole or in parts, and had.

use std::time::Duration;

use protocol::Digest;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::{Answer, block_on, client, send};
use crate::{PATIENCE, Producer};

/// How long a request may take that carries, or moves, many bytes.
const LONG: Duration = PATIENCE.saturating_mul(2);

/// A content, and what it is called.
#[derive(Debug, Clone)]
pub struct Content {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its name.
    pub sha256: String,
}

impl Content {
    /// One of these bytes.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let sha256 = Digest::new(Sha256::digest(&bytes).into()).to_string();
        Self { bytes, sha256 }
    }

    /// One that nobody else has.
    pub fn of_size(size: usize) -> Self {
        let mut bytes = vec![0; size];
        // Random enough at its beginning, and fast to make.
        bytes.iter_mut().take(100_000).for_each(|byte| *byte = fastrand::u8(..));
        if let Some(last) = bytes.last_mut() {
            *last = 7;
        }
        Self::of(bytes)
    }

    /// As it is offered.
    pub fn to_json(&self) -> Value {
        json!({"sha256": self.sha256, "size": self.bytes.len()})
    }

    /// As a file of a job.
    pub fn as_file(&self, path: &str) -> Value {
        json!({"path": path, "sha256": self.sha256, "size": self.bytes.len()})
    }

    /// Where the edge is asked for it.
    pub fn path(&self) -> String {
        format!("/files/{}", self.sha256)
    }
}

/// Who is asked, and with which key.
pub trait Asked {
    /// The address and the key of people.
    fn producer(&self) -> Producer;

    /// A request with that key.
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let Producer { url, api_key } = self.producer();
        client().request(method, format!("{url}{path}")).timeout(LONG).header("x-api-key", api_key)
    }

    /// Offers a content.
    fn offer(&self, content: &Content) -> Answer {
        send(self.ask(Method::POST, "/files").json(&json!({"files": [content.to_json()]})))
    }

    /// What is to be done with a content.
    fn place(&self, content: &Content) -> Value {
        let answer = self.offer(content);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["files"][0].take()
    }

    /// Says that a content is there.
    fn complete(&self, content: &Content, body: &Value) -> Answer {
        send(self.ask(Method::POST, &format!("{}/complete", content.path())).json(body))
    }

    /// Puts a whole content there, in one piece or in parts, as far as it is not there; returns how many requests that
    /// took.
    fn put_all(&self, content: &Content) -> usize {
        let place = self.place(content);
        match text(&place, "state") {
            "have" => 0,
            "put" => {
                let answer = send(put(&place, &content.bytes));
                assert_eq!(answer.status, 200, "{answer:?}");
                let answer = self.complete(content, &json!({}));
                assert_eq!(answer.status, 200, "{answer:?}");
                1
            }
            _ => {
                let size = place["part_bytes"].as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.expect("a part has a length");
                let mut done = place["done"].as_array().cloned().unwrap_or_default();
                let missing = place["parts"].as_array().expect("parts are a list");
                for part in missing {
                    let number = part["number"].as_u64().expect("a part has a number");
                    let begin = size * usize::try_from(number - 1).expect("it fits in memory");
                    let end = content.bytes.len().min(begin + size);
                    let answer = send(put(part, &content.bytes[begin..end]));
                    // Somebody else has put the same there meanwhile.
                    if answer.status == 404 {
                        return self.put_all(content);
                    }
                    assert_eq!(answer.status, 200, "{answer:?}");
                    done.push(json!({"number": number, "etag": answer.header("etag")}));
                }
                let answer = self.complete(content, &json!({"upload": place["upload"], "parts": done}));
                if answer.status == 409 {
                    return self.put_all(content);
                }
                assert_eq!(answer.status, 200, "{answer:?}");
                missing.len()
            }
        }
    }

    /// What is there of a content.
    fn download(&self, content: &Content, range: Option<&str>) -> (u16, Vec<u8>) {
        let link = send(self.ask(Method::GET, &content.path()));
        assert_eq!(link.status, 302, "{link:?}");
        had(link.header("location").expect("a link leads somewhere"), range)
    }
}

impl Asked for crate::Edge {
    fn producer(&self) -> Producer {
        Self::producer(self)
    }
}

impl Asked for crate::Worker {
    fn producer(&self) -> Producer {
        Self::producer(self)
    }
}

/// What is at an address.
pub fn had(url: &str, range: Option<&str>) -> (u16, Vec<u8>) {
    let request =
        range.into_iter().fold(client().get(url).timeout(LONG), |request, range| request.header("range", range));
    block_on(async {
        let answer = request.send().await.expect("the store answers");
        (answer.status().as_u16(), answer.bytes().await.expect("the answer is whole").to_vec())
    })
}

/// A request to put bytes at an address of a place.
pub fn put(place: &Value, bytes: &[u8]) -> RequestBuilder {
    let headers = place["headers"].as_array().cloned().unwrap_or_default();
    let request = client().put(text(place, "url")).timeout(LONG).body(bytes.to_vec());
    headers.iter().fold(request, |request, header| request.header(text_at(header, 0), text_at(header, 1)))
}

fn text_at(list: &Value, at: usize) -> String {
    list[at].as_str().unwrap_or_else(|| panic!("no text in {list}")).to_owned()
}

/// A text of an object.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}
