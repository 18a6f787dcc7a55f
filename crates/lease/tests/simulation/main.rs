//! Random histories of a lease in virtual time: crashes around every effect, faults of the vendor, clients that come
//! and go. What the world does is in `world`, what must hold at each step and at the end in the tests here.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of an integration test for product code")]

mod world;

use std::time::Duration;

use lease::Lookup;

use crate::world::{Plan, World};

/// How many histories of each kind. Each takes about a tenth of a second.
const HISTORIES: u64 = 80;

fn run(plan: Plan, seed: u64) -> World {
    let mut world = World::new(plan, seed);
    while world.now < Duration::from_secs(600) {
        world.act();
    }
    world.calm();
    world
}

#[test]
fn what_is_looked_up_reliably_is_neither_paid_twice_nor_lost() {
    let (mut crashes, mut looked_up, mut completed) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let world = run(Plan { lookup: Lookup::Reliable, crashes: true, faults: true }, seed);
        assert_eq!(world.lost(), 0, "seed {seed}: nothing is lost that can be looked up");
        assert_eq!(world.paid_twice(), 0, "seed {seed}: a task was paid twice");
        crashes += world.crashes;
        looked_up += world.vendor.lookups;
        completed += world.completed();
    }
    assert!(crashes > 500 && looked_up > 500 && completed > 2_000, "{crashes} {looked_up} {completed}: too tame");
}

#[test]
fn what_cannot_be_looked_up_reliably_is_lost_and_not_paid_twice() {
    let mut lost = 0;
    for seed in 0..HISTORIES {
        let world = run(Plan { lookup: Lookup::Unreliable, crashes: true, faults: true }, seed);
        assert_eq!(world.paid_twice(), 0, "seed {seed}: a task was paid twice");
        assert!(world.lost() <= world.vague.len(), "seed {seed}: more is lost than nobody could be sure of");
        lost += world.lost();
    }
    assert!(lost > 100, "only {lost} are lost");
}

#[test]
fn without_faults_every_task_is_done_once() {
    for seed in 0..HISTORIES / 4 {
        let world = run(Plan { lookup: Lookup::Unreliable, crashes: false, faults: false }, seed);
        assert_eq!((world.lost(), world.paid_twice(), world.failed()), (0, 0, 0), "seed {seed}");
        assert_eq!(world.vague.len(), 0, "seed {seed}");
    }
}
