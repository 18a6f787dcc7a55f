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
use reqwest::Method;
use serde_json::json;
use testkit::Edge;
use testkit::files::{Asked as _, Content, put, text};
use testkit::http::{Answer, client, send};

const MIB: usize = 1024 * 1024;

/// The length of a part.
const PART: usize = 16 * MIB;

fn data_dir(edge: &Edge) -> PathBuf {
    edge.env_file().with_file_name("data")
}

/// The files of the store on the disk.
fn pieces(edge: &Edge) -> Vec<PathBuf> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries(data_dir(edge).join("files")).flat_map(entries).collect()
}

/// An address of an object in the store, signed as of so many seconds after now.
fn signed(edge: &Edge, method: &str, path: &str, seconds: i64) -> String {
    let (id, secret) = edge.files_keys();
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
