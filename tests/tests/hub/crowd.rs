//! A thousand who look at one log.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;
use testkit::PATIENCE;

use crate::both::{Side, on_both};
use crate::contract::piece;
use crate::link::{Link, hello, job};

/// So many look.
const CROWD: usize = 1_000;

/// What is printed, in pieces of the greatest size: less than is kept for one, and for all of them much more than for
/// all.
const PIECES: usize = 8;
const PIECE_BYTES: usize = 48_000;

/// What an edge may take for it, in bytes. In a Worker each piece is a value of JavaScript for each of them, and these
/// are collected when memory is wanted.
const MEMORY: u64 = 50_000_000;
const MEMORY_OF_A_WORKER: u64 = 500_000_000;

const LAST: &str = "and nothing more";

/// One who looks.
struct Follower(TcpStream);

impl Follower {
    fn of(side: &Side, id: &str) -> Self {
        let address = side.address();
        let mut stream = TcpStream::connect(&address).expect("the edge listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        let head = format!(
            "GET /jobs/{id}/logs?follow=1&stream=stdout&from=0 HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\n\r\n",
            side.producer().api_key
        );
        stream.write_all(head.as_bytes()).expect("a request is taken");
        let mut follower = Self(stream);
        let head = follower.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        follower
    }

    /// What comes, up to these words.
    fn read_until(&mut self, words: &str) -> String {
        let (mut text, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while !String::from_utf8_lossy(&text[text.len().saturating_sub(1_000)..]).contains(words) {
            let read = self.0.read(&mut buffer).expect("it goes on");
            assert!(read > 0, "it ends after {} bytes, before {words:?}", text.len());
            text.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn a_thousand_who_follow_one_log_are_told_all_of_it_and_cost_little_memory() {
    on_both(|side| {
        let id = side.submit("a", &json!({"task": "simulate"}));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        link.report(1, json!({"jobs": [job(&id, "running", 1, "2026-11-30T04:00:00.000Z")]}));
        let mut crowd: Vec<Follower> = (0..CROWD).map(|_| Follower::of(side, &id)).collect();
        let before = side.peak_resident_bytes();
        // Nobody reads meanwhile.
        for number in 0..PIECES {
            link.say(&piece(&id, "stdout", number * PIECE_BYTES, &[b'x'; PIECE_BYTES], false));
        }
        link.say(&piece(&id, "stdout", PIECES * PIECE_BYTES, LAST.as_bytes(), true));
        for follower in &mut crowd {
            let text = follower.read_until(LAST);
            assert_eq!(text.matches('x').count() / PIECE_BYTES, PIECES, "at {}", side.name);
        }
        let grown = side.peak_resident_bytes() - before;
        eprintln!("{}: {:.1} MB more for {CROWD} who look", side.name, grown as f64 / 1e6);
        let most = if side.is_worker() { MEMORY_OF_A_WORKER } else { MEMORY };
        assert!(grown < most, "{} has taken {grown} bytes for it", side.name);
        assert_eq!(side.get("/jobs").status, 200);
    });
}
