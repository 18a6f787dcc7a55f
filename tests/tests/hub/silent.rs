//! A site that is not there any more, and nothing has said so: its node has lost its power, or its network.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::both::Side;
use crate::link::{Heard, Link, hello};

/// A site that is there says so every 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(90);

fn is_linked(sites: &Value, site: &str) -> bool {
    let sites = sites["sites"].as_array().expect("it is a list");
    sites.iter().any(|found| found["site"] == site && found["linked"] == json!(true))
}

fn watch(mut side: Side) {
    let mut there = Link::hello(&side, &hello("beta", "d2"));
    let mut silent = Link::hello(&side, &hello("alpha", "d1"));
    let begun = Instant::now();
    while is_linked(&side.get("/sites").json(), "alpha") {
        assert!(begun.elapsed() < 2 * SILENCE_MAX, "a site that says nothing stays linked at {}", side.name);
        there.text("ping");
        assert_eq!(there.hear(), Heard::Message(json!("pong")));
        thread::sleep(Duration::from_secs(5));
    }
    assert!(begun.elapsed() > SILENCE_MAX - Duration::from_secs(1), "{} was in a hurry", side.name);
    assert!(is_linked(&side.get("/sites").json(), "beta"), "the other one is there, at {}", side.name);
    assert_eq!(silent.hear(), Heard::Closed(4408, "silent".to_owned()));
}

#[test]
fn a_site_that_says_nothing_for_long_is_not_linked_any_more() {
    thread::scope(|scope| {
        for side in [Side::local(), Side::worker()] {
            scope.spawn(move || watch(side));
        }
    });
}
