//! The fleet: its rules, one small history each; and all of it in a world that lies, forgets and loses, where nothing
//! is lost, nothing runs twice, and nothing is above the quota.

#![allow(clippy::unwrap_used)]

mod rules;
mod world;

use std::panic::catch_unwind;

use world::{Sabotage, Trouble, World, settings, workers};

/// Everything that may go wrong does, some time.
const WILD: Trouble = Trouble {
    daemon_dies: 10,
    answer_lost: 200,
    submission_lost: 150,
    submitted_twice: 100,
    controller_goes: 5,
    controller_comes: 20,
    keeper_dies: 5,
    connection_lost: 20,
    listing_empty: 100,
    look_fails: 100,
};

fn run(world: &mut World, seconds: u64, until: impl Fn(&World) -> bool) -> bool {
    for _ in 0..seconds {
        if until(world) {
            return true;
        }
        world.step();
    }
    until(world)
}

fn plain(seed: u64) -> World {
    let pools = [("cpu", workers(6, 2, false)), ("mpi", workers(3, 1, true))];
    World::new(seed, Trouble::NONE, settings(&pools, 8))
}

#[test]
fn pools_grow_from_zero_run_what_there_is_and_go_back_to_zero() {
    let mut most_pending = 0;
    for seed in 0..20 {
        let mut world = plain(seed);
        assert!(!run(&mut world, 300, |world| world.submissions > 0), "nothing is asked for without jobs");
        assert_eq!(world.listings, 0, "and Slurm is not asked anything");
        world.add_jobs("cpu", 60);
        world.add_jobs("mpi", 12);
        assert!(run(&mut world, 3_000, World::all_done), "{} done\n{}", world.done(), world.holding());
        assert_eq!(world.cut_offs, 0);
        assert!(world.most_keepers >= 5, "{}", world.most_keepers);
        most_pending = most_pending.max(world.most_pending);
        assert!(run(&mut world, 300, World::is_empty), "{}", world.holding());
        let asked = world.listings;
        assert!(!run(&mut world, 500, |world| world.listings > asked + 1), "nothing is left to be asked for");
    }
    assert_eq!(most_pending, 4, "as many may wait in Slurm at a time, and what waits does not run");
}

#[test]
fn whatever_dies_nothing_is_lost_and_nothing_runs_twice() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let (mut cut_offs, mut said) = (0, std::collections::BTreeSet::new());
    for seed in 0..seeds {
        let mut world = plain(seed);
        // Half of them with a daemon that lives on: what it forgets nobody finds again for it.
        world.trouble = if seed % 2 == 0 { WILD } else { Trouble { daemon_dies: 0, ..WILD } };
        world.add_jobs("cpu", 40);
        world.add_jobs("mpi", 8);
        run(&mut world, 6_000, World::all_done);
        world.trouble = Trouble::NONE;
        // A person looks, and has the daemon begin anew.
        while run(&mut world, 20_000, |world| world.all_done() || world.is_paused()) && world.is_paused() {
            world.restart();
        }
        assert!(run(&mut world, 1, World::all_done), "seed {seed}: {} done\n{}", world.done(), world.holding());
        assert!(run(&mut world, 2_000, World::is_empty), "seed {seed}: {}", world.holding());
        cut_offs += world.cut_offs;
        said.extend(world.said);
    }
    assert!(cut_offs > 0, "keepers have died");
    for notice in ["Unclear", "Away", "Nobodys", "Ended"] {
        assert!(said.contains(notice), "{notice} in {said:?}");
    }
}

/// A daemon that dies, answers that are lost, and a listing that is empty now and then; and what is in Slurm is
/// counted, also what waits there.
fn counted(seed: u64, sabotage: Option<Sabotage>) {
    let mut world = plain(seed);
    let (daemon_dies, answer_lost, submission_lost, listing_empty, connection_lost) = (10, 200, 150, 100, 20);
    world.trouble =
        Trouble { daemon_dies, answer_lost, submission_lost, listing_empty, connection_lost, ..Trouble::NONE };
    (world.strict, world.sabotage) = (true, sabotage);
    world.add_jobs("cpu", 40);
    world.add_jobs("mpi", 8);
    assert!(run(&mut world, 20_000, World::all_done), "seed {seed}: {} done\n{}", world.done(), world.holding());
    assert!(!world.is_paused() && world.cut_offs == 0, "seed {seed}: no keeper has died");
}

#[test]
fn what_waits_in_slurm_is_within_the_quota_whatever_is_not_heard() {
    (0..40).for_each(|seed| counted(seed, None));
}

/// Each of these is a mistake that others have made.
#[test]
fn what_is_done_wrong_is_seen() {
    for sabotage in [Sabotage::ConcludesFromAnEmptyAnswer, Sabotage::ForgetsTheName, Sabotage::CountsPendingAsRunning] {
        let seen = (0..40).any(|seed| catch_unwind(|| counted(seed, Some(sabotage))).is_err());
        assert!(seen, "{sabotage:?} harms nothing that is looked at");
    }
}

#[test]
fn a_controller_that_is_away_for_long_is_asked_seldom_and_nothing_is_concluded() {
    let mut world = plain(1);
    world.add_jobs("cpu", 500);
    assert!(run(&mut world, 1_000, |world| world.done() > 20));
    world.trouble = Trouble { controller_goes: 1000, controller_comes: 0, ..Trouble::NONE };
    world.step();
    let (asked, submitted) = (world.listings, world.submissions);
    run(&mut world, 6 * 3_600, |_| false);
    assert!(world.listings - asked < 90, "{}", world.listings - asked);
    assert!(world.submissions - submitted <= 2, "{}", world.submissions - submitted);
    assert_eq!(world.cut_offs, 0);
    world.trouble = Trouble::NONE;
    assert!(run(&mut world, 20_000, World::all_done), "{} done\n{}", world.done(), world.holding());
}
