//! Random histories in virtual time on the real `lifecycle` and the real `leased-queue`: several daemons, one queue and
//! one shared file system; crashes before and after every effect and every commit, lost requests and lost responses,
//! duplicates, reordering, reboots, keepers that die, pauses, outages, broken nodes, clocks set back; claims that fail
//! halfway, jobs that cannot be claimed on one node, results that the queue refuses for a time or for ever; jobs that
//! are cancelled, before they come and in whatever they do; in a third of the histories of minutes and hours the queue
//! holds pulls until something comes. In a quarter of all the site has several pools (`sites.rs`): one breaks alone,
//! one is small, holds little, and is taken out of the site's file and put back, and one is nobody's. In a third of all
//! there is a hub (`hub.rs`), which loses, repeats and delays what it says and hears. In two fifths jobs have files and
//! outputs (`transfers.rs`), in a store that is away for seconds and days, loses answers, does not have all that it
//! had, and lies about what it has (`lies.rs`). In half of all some jobs leave children behind and go on after them, in
//! several rounds and generations, or are graphs of others (`families.rs`). In an eighth of all some jobs need
//! services, whose instances die at any time (`services.rs`).
//!
//! After every step the lifecycle and the queue check themselves, each effect is checked against what is on disk, and
//! the world checks the promises from outside, in books of its own (`promises.rs`). A seed gives the same history each
//! time.
//!
//! `HPC_QUEUE_SIM_SEEDS=0..100000 cargo test -p hpc-queue-tests --test simulation` runs more of them. A seed that fails
//! prints the end of its history, and becomes a named test in `seeds.rs`, which is empty as long as no history of the
//! present world has failed: a change of the world is another history for each seed. `sabotage.rs` shows that the
//! simulation bites.
//!
//! Out of scope: how effects are carried out by the real daemon; the world carries them out as their documentation
//! says, and what it has in place of the files and the keeper is held against the real ones (`stand_ins`).
//!
//! It assumes of the real keeper that requests to it and its messages stay in order.

mod daemon;
mod effects;
mod families;
mod faults;
mod files;
mod hub;
mod keeper;
mod lies;
mod plan;
mod promises;
mod queues;
mod report;
mod sabotage;
mod seeds;
mod services;
mod sites;
mod stand_ins;
mod transfers;
mod world;

use report::Report;
use sabotage::{Kind, Sabotage};
use world::{history, quiet_history, stranded_history, thrifty_history};

/// How many histories are run as a rule. They are of minutes up to the 335th; then follow those of hours, days and
/// weeks.
const SEEDS: u64 = 800;

/// Histories of several daemons with jobs of several of the longest leases, by construction.
pub(crate) const SEEDS_OF_MANY_LEASES: [u64; 2] = [397, 398];

/// The effects before and after which a daemon must have died in some history.
const EFFECTS: [&str; 21] = [
    "probe",
    "observe",
    "reconciled",
    "pull",
    "recall",
    "stage",
    "unstage",
    "upload",
    "stop upload",
    "serve",
    "withdraw",
    "unfold",
    "claim",
    "unclaim",
    "start",
    "end",
    "conclude",
    "forget",
    "put away",
    "publish",
    "settle",
];

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
        assert!(total.in_pools > SEEDS / 4, "hardly anything ran in one of several pools: {total}");
        assert!(total.rejected > SEEDS / 40, "hardly any job was rejected: {total}");
        assert!(total.crashes > SEEDS, "hardly anything crashed: {total}");
        assert!(total.taken_over > 0, "no claim was taken over: {total}");
        assert!(total.cut_off > 0, "no run was cut off: {total}");
        assert!(total.half_claims > 0, "no claim failed and stood: {total}");
        assert!(total.given_up > 0, "no job was given up: {total}");
        assert!(total.disks_filled > 0, "no job failed because it filled disks: {total}");
        assert!(total.cancelled > SEEDS / 4, "hardly any job was cancelled: {total}");
        assert!(total.staged > SEEDS / 2 && total.sent > SEEDS / 4, "hardly anything was fetched or sent: {total}");
        assert!(total.uploads_stopped > SEEDS / 100, "hardly anything was sent that is not wanted: {total}");
        assert!(total.store_away > SEEDS / 2, "the store was hardly ever away: {total}");
        assert!(total.lied_to > SEEDS / 8, "hardly any job was handed a wrong file: {total}");
        assert!(total.lied_about > SEEDS / 40, "hardly any output was kept wrong: {total}");
        assert!(total.held > SEEDS, "hardly any pull was held: {total}");
        assert!(total.held_for_nobody > 0, "no pull was held for a daemon that was gone: {total}");
        assert!(total.links > SEEDS, "hardly any daemon was linked: {total}");
        assert!(total.reports > 10 * SEEDS, "hardly anything was reported: {total}");
        assert!(total.wakes > SEEDS / 4 && total.asks > 0, "nobody was woken or asked: {total}");
        assert!(total.instances > SEEDS / 4 && total.served > SEEDS / 8, "hardly any service was used: {total}");
        assert!(total.service_failed > SEEDS / 80, "hardly any instance took its users along: {total}");
        assert!(total.unfolded > SEEDS / 4, "hardly anything was a graph: {total}");
        assert!(total.rounds > SEEDS / 4 && total.children > SEEDS / 2, "hardly any job had children: {total}");
        assert!(total.refusals > 0, "no result was refused: {total}");
        assert!(total.unfit > 0, "no result was given up: {total}");
        assert!(total.many_leases > 0, "no run was longer than several of the longest leases: {total}");
        assert!(total.long_outages > 0, "no run of days had an outage of a week: {total}");
        for kind in EFFECTS {
            for when in ["before", "after"] {
                assert!(total.died_around.contains_key(&(kind, when)), "no daemon died {when} {kind}: {total}");
            }
        }
    }
}

#[test]
fn when_nothing_goes_wrong_each_message_is_delivered_once() {
    let mut total = Report::default();
    // Of minutes, of hours, of days, of weeks.
    for seed in (0..20).chain(335..340).chain(395..400) {
        match quiet_history(seed, None, false) {
            Ok(report) => total.add(report),
            Err(untold) => {
                let violation = quiet_history(seed, None, true).err().unwrap_or(untold);
                panic!("where nothing goes wrong: {violation}");
            }
        }
    }
    assert!(total.early_acks > 0, "no job was longer than its lease: {total}");
    assert_eq!(total.crashes + total.taken_over + total.cut_off, 0, "something went wrong: {total}");
}

#[test]
fn an_allowance_is_never_passed_and_nothing_is_lost_for_it() {
    let (mut total, mut days, mut waited) = (Report::default(), 0, 0);
    // Of minutes, of hours, of days.
    for seed in (0..60).chain(335..345).chain(395..399) {
        match thrifty_history(seed, None, false) {
            Ok((report, spent)) => {
                total.add(report);
                days += spent.len();
                waited += usize::from(spent.len() > 1);
            }
            Err(untold) => {
                let violation = thrifty_history(seed, None, true).err().unwrap_or(untold);
                panic!("where a day allows little: {violation}");
            }
        }
    }
    assert!(waited > 20 && days > 90, "hardly anything had to wait for the next day: {waited}, {days} days: {total}");
}

#[test]
fn while_the_store_of_files_is_away_all_else_goes_on_and_all_ends_when_it_is_back() {
    let mut total = Report::default();
    for seed in 0..60 {
        match stranded_history(seed, None, false) {
            Ok(report) => total.add(report),
            Err(untold) => {
                let violation = stranded_history(seed, None, true).err().unwrap_or(untold);
                panic!("where the store is away: {violation}");
            }
        }
    }
    assert!(total.store_away > 600 && total.staged > 60 && total.sent > 60, "hardly anything waited: {total}");
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in [0, 1, 2, 40, 335] {
        let told = |sabotage| match history(seed, sabotage, true) {
            Ok(report) => format!("{report:?}"),
            Err(violation) => violation.to_string(),
        };
        for sabotage in [None, Some(Sabotage::Forget(Kind::Launching))] {
            assert_eq!(told(sabotage), told(sabotage), "seed {seed}");
        }
    }
}
