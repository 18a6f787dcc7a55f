//! Files with jobs, from the store to the job's directory and back: real `local-edge` with its store, real daemon, real
//! runs; whatever dies, is away, is gone or is wrong in between.

#![allow(clippy::unwrap_used)]

mod away;
mod both_ways;
mod kill;
mod mess;
mod read_only;
mod resend;
mod shared;
mod wrong;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use protocol::{Content, Digest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::http::{block_on, client};
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, wait_for};
use transfer::{Local, Store};

const MB: usize = 1_000_000;

/// The store, as a person has it.
fn store(edge: &Edge) -> Store {
    let address = transfer::Edge::address(&edge.producer().url, queues::PlainHttp::OwnListener).unwrap();
    let http = queues::http_client(&address).unwrap();
    let key = edge.producer().api_key.parse().unwrap();
    let key_origin = "API_KEY of local-edge".to_owned();
    Store::new(http, transfer::Edge { address, key_header: "x-api-key", key, key_origin, setting: "PRODUCER_URL" })
}

/// Puts a content into the store; returns it as a job names it.
fn put(edge: &Edge, bytes: &[u8]) -> Value {
    let local = Local::bytes(bytes.to_vec());
    block_on(store(edge).put(std::slice::from_ref(&local), &transfer::nobody)).unwrap();
    content(local.content())
}

fn content(Content { sha256, size }: Content) -> Value {
    json!({"sha256": sha256, "size": size})
}

/// The same at a path.
fn at(path: &str, content: &Value) -> Value {
    let mut file = content.clone();
    file["path"] = path.into();
    file
}

/// Bytes that nobody else has.
fn random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes.iter_mut().step_by(997).for_each(|byte| *byte = fastrand::u8(..));
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Digest::new(Sha256::digest(bytes).into()).to_string()
}

/// A pack of some files.
fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("pack");
    let mut packer = transfer::Packer::new(fs::File::create(&path).unwrap());
    for (path, content) in files {
        packer.add(&path.parse().unwrap(), content.len() as u64, false, &mut &**content).unwrap();
    }
    packer.finish().unwrap();
    fs::read(path).unwrap()
}

/// A daemon whose jobs run their input as a shell script.
fn scripts(edge: &Edge) -> Consumer {
    Consumer::bare(edge, SCRIPT)
}

fn submit(edge: &Edge, script: &str, files: Value, outputs: Value) -> String {
    let mut job = json!({"task": "script", "input": script});
    for (name, value) in [("files", files), ("outputs", outputs)] {
        if !value.is_null() {
            job[name] = value;
        }
    }
    edge.producer().submit(&job)
}

/// The record of a job that ends meanwhile.
fn record(consumer: &Consumer, daemon: &mut Process, job_id: &str) -> Value {
    wait_for("the record", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(job_id)
    })
}

/// What a job has left, as anybody has it who may ask: by path, with what comes out of packs.
fn left(edge: &Edge, job_id: &str) -> BTreeMap<String, Vec<u8>> {
    let ask = |path: &str| testkit::http::send(edge.producer().get(&format!("/jobs/{job_id}{path}")));
    wait_for("the hub to know of the end", PATIENCE, || {
        ["completed", "failed", "cancelled"].contains(&ask("").json()["state"].as_str()?).then_some(())
    });
    let answer = ask("/files");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut files = BTreeMap::new();
    for file in answer.json()["files"].as_array().unwrap() {
        let bytes = block_on(async {
            let answer = client().get(file["url"].as_str().unwrap()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap()
        });
        assert_eq!(sha256(&bytes), file["sha256"].as_str().unwrap());
        if file["pack"] != true {
            files.insert(file["path"].as_str().unwrap().to_owned(), bytes.to_vec());
            continue;
        }
        let temp = tempfile::tempdir().unwrap();
        let (archive, into) = (temp.path().join("pack"), temp.path().join("files"));
        fs::write(&archive, &bytes).unwrap();
        fs::create_dir(&into).unwrap();
        let bounds = transfer::Bounds { count: 1_000_000, bytes: bytes.len() as u64 };
        for path in transfer::unpack(&archive, &into, &bounds, &|_| true, transfer::Durability::Cached).unwrap() {
            let content = fs::read(into.join(path.as_str())).unwrap();
            assert!(files.insert(path.to_string(), content).is_none(), "{path} is there twice");
        }
    }
    files
}

/// What is in a directory of ours, all of it by its path; nothing if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let (mut names, mut todo) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = todo.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path)
            } else {
                names.push(path.strip_prefix(directory).unwrap().display().to_string())
            }
        }
    }
    names.sort();
    names
}

/// What is on its way: trees of jobs, partial files, packs.
fn on_its_way(consumer: &Consumer) -> Vec<String> {
    let results = consumer.results_dir();
    let folders = [".staging", ".uploads", ".cache/partial"];
    let all = folders
        .iter()
        .flat_map(|folder| names(&results.join(folder)).into_iter().map(move |name| format!("{folder}/{name}")));
    all.collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
