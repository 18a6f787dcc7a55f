//! Contents to and from the store, by the crate that laptop and daemon use, and by the laptop: against `local-edge`,
//! through a gate that counts, stops and breaks what passes.

#![allow(clippy::unwrap_used)]

mod clock;
mod gate;
mod get;
mod kill;
mod laptop;
mod once;
mod put;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use protocol::Content;
use reqwest::header::HeaderValue;
use testkit::Edge as LocalEdge;
use testkit::http::block_on;
use transfer::{Class, Edge, Error, Local, News, Step, Store};

use crate::gate::{Act, Gate};

const MIB: u64 = 1024 * 1024;

/// The length of a part.
const PART: u64 = 16 * MIB;

/// So many parts are on their way at a time.
const PARALLEL: u64 = 4;

/// The store behind an edge that is reached at this address.
fn store_at(url: &str, edge: &LocalEdge) -> Store {
    let address = Edge::address(url, queues::PlainHttp::OwnListener).unwrap();
    let http = queues::http_client(&address).unwrap();
    let mut key = HeaderValue::from_str(edge.setting("API_KEY")).unwrap();
    key.set_sensitive(true);
    let edge =
        Edge { address, key_header: "x-api-key", key, key_origin: "API_KEY".to_owned(), setting: "PRODUCER_URL" };
    Store::new(http, edge).patient_for(Duration::from_secs(20))
}

/// An edge, a gate before it, and the store as it is reached through that.
fn behind_a_gate() -> (LocalEdge, Gate, Store) {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let store = store_at(&gate.url(), &edge);
    (edge, gate, store)
}

/// A file that no other test has, with no two blocks that are the same.
fn file(path: &Path, size: u64) {
    let mut bytes = vec![0_u8; usize::try_from(size).unwrap()];
    for block in bytes.chunks_mut(4096) {
        let length = block.len().min(8);
        block[..length].copy_from_slice(&fastrand::u64(..).to_le_bytes()[..length]);
    }
    fs::write(path, bytes).unwrap();
}

/// Hears what happens.
#[derive(Default)]
struct Heard(Mutex<Vec<News>>);

impl Heard {
    fn hear(&self, news: News) {
        self.0.lock().unwrap().push(news);
    }

    fn notes(&self) -> String {
        let heard = self.0.lock().unwrap();
        let note = |news: &News| if let News::Note(text) = news { Some(text.clone()) } else { None };
        heard.iter().filter_map(note).collect::<Vec<_>>().join("\n")
    }

    /// What was told last of a step.
    fn last(&self, of: Step) -> Option<(u64, u64)> {
        let heard = self.0.lock().unwrap();
        heard.iter().rev().find_map(|news| match news {
            News::Progress { step, done, total } if *step == of => Some((*done, *total)),
            _ => None,
        })
    }
}

fn local(path: &Path) -> Local {
    block_on(Local::file(path, &transfer::nobody)).unwrap()
}

fn put(store: &Store, path: &Path) -> Result<Content, Error> {
    let local = local(path);
    block_on(store.put(std::slice::from_ref(&local), &transfer::nobody)).map(|()| local.content())
}

fn get(store: &Store, content: &Content, path: &Path) -> Result<(), Error> {
    block_on(store.get_file(content, path, &transfer::nobody)).map(drop)
}

/// What is in a directory, hidden files included.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}
