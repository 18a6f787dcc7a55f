//! Random histories in virtual time on the real `lifecycle` and the real queue model of `edge`: several daemons, one
//! queue and one shared file system; crashes before and after every effect and every commit, lost requests and lost
//! responses, duplicates, reordering, reboots, keepers that die, pauses, outages, broken nodes, clocks set back.
//!
//! After every step the lifecycle and the queue check themselves, each effect is checked against what is on disk, and
//! the world checks the promises from outside, in books of its own (`promises.rs`). A seed gives the same history each
//! time.
//!
//! `HPC_QUEUE_SIM_SEEDS=0..100000 cargo test -p hpc-queue-tests --test simulation` runs more of them. A seed that fails
//! prints the end of its history, and becomes a named test in `seeds.rs`. `sabotage.rs` shows that the simulation
//! bites.
//!
//! Out of scope: how effects are carried out by the real daemon; the world carries them out as their documentation
//! says. It assumes of the real keeper and the real file system: requests to the keeper and its messages stay in order;
//! it begins no run whose claim is not its daemon's any more, and tells that it has ended; after a pause it ends the
//! runs that were taken over; after a reboot it says that its list is not complete until all that was to run is
//! settled.

mod daemon;
mod effects;
mod faults;
mod files;
mod keeper;
mod plan;
mod promises;
mod queues;
mod report;
mod sabotage;
mod seeds;
mod world;

use report::Report;
use world::history;

/// How many histories are run as a rule. They are of minutes up to the 335th; then follow those of hours, days and
/// weeks.
const SEEDS: u64 = 800;

/// One history without sabotage. It panics with the end of the history if a promise is broken.
pub(crate) fn keeps_the_promises(seed: u64) -> Report {
    // What happened is only written down when it is known that somebody will read it.
    match history(seed, None, false) {
        Ok(report) => report,
        Err(quiet) => panic!("{}", history(seed, None, true).err().unwrap_or(quiet)),
    }
}

/// The seeds of `HPC_QUEUE_SIM_SEEDS`, as `from..to`, or of one of them.
fn seeds_asked_for() -> Option<std::ops::Range<u64>> {
    let text = std::env::var("HPC_QUEUE_SIM_SEEDS").ok()?;
    let number = |text: &str| {
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("HPC_QUEUE_SIM_SEEDS is `from..to` or a number: {text:?}"))
    };
    Some(match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    })
}

#[test]
fn every_history_keeps_the_promises() {
    let asked_for = seeds_asked_for();
    let mut total = Report::default();
    for seed in asked_for.clone().unwrap_or(0..SEEDS) {
        total.add(keeps_the_promises(seed));
    }
    println!("{total}");
    // Histories in which nothing happens prove nothing.
    if asked_for.is_none() {
        assert!(total.runs > SEEDS, "hardly anything ran: {total}");
        assert!(total.crashes > SEEDS, "hardly anything crashed: {total}");
        assert!(total.taken_over > 0, "no claim was taken over: {total}");
        assert!(total.cut_off > 0, "no run was cut off: {total}");
    }
}
