//! The day's allowance of operations of the queues: what is taken, when an empty queue is asked, and what is said.

use allowance::Care;
use lifecycle::{Delivery, Notice};

use super::*;

fn thrifty(operations: u64) -> Settings {
    Settings { operations_per_day: Some(operations), ..slots(100) }
}

/// How careful the daemon says that it is.
fn said(effects: &[Effect]) -> Option<Care> {
    effects.iter().find_map(|effect| match effect {
        Effect::Say(Notice::Allowance { state, .. }) => Some(state.care),
        _ => None,
    })
}

fn asks_for(effects: &[Effect]) -> Option<usize> {
    effects.iter().find_map(|effect| match effect {
        Effect::Pull(count) => Some(*count),
        _ => None,
    })
}

/// Results leave whatever is left, and jobs are not taken for which there would be nothing left then.
#[test]
fn no_job_is_taken_whose_result_could_not_be_sent_today_and_results_are_sent_all_the_same() {
    let mut daemon = Daemon::restore(thrifty(24), &[]);
    daemon.step(Event::Tick);
    daemon.step(observed(&[]));
    assert_eq!(daemon.step(looked(Ok(()))).effects, [Effect::Pull(4)]);
    let jobs: Vec<Delivery> = (0..3).map(|no| job(&format!("j{no}"), &format!("L{no}"))).collect();
    let effects = daemon.step(pulled(&jobs)).effects;
    assert_eq!(said(&effects), None);
    // Three were read; for each there is kept what it is to delete it and to send its result: 12 are left.
    let state = daemon.state.allowance().unwrap();
    assert_eq!((state.spent, state.limit), (3, 24));
    assert_eq!(asks_for(&effects), Some(2));
    let effects = daemon.step(pulled(&[job("j3", "L3"), job("j4", "L4")])).effects;
    assert_eq!(said(&effects), Some(Care::Stop));
    assert_eq!(asks_for(&effects), None);
    daemon.now += SECOND;
    assert_eq!(asks_for(&daemon.step(Event::Tick).effects), None);
    daemon.now = allowance::next_day(daemon.now);
    assert!(asks_for(&daemon.step(Event::Tick).effects).is_some_and(|count| count > 0), "it is another day");
    assert_eq!(daemon.state.allowance().unwrap().spent, 0);
}

#[test]
fn what_others_have_spent_is_as_good_as_spent() {
    let mut daemon = Daemon::pulling(thrifty(600));
    daemon.step(pulled(&[]));
    let day = allowance::day(daemon.now);
    daemon.step(Event::SpentBesides { day, operations: 599, sharers: 1 });
    assert_eq!(daemon.state.allowance().map(|state| state.care), Some(Care::Stop));
    daemon.step(Event::SpentBesides { day, operations: 549, sharers: 1 });
    assert_eq!(daemon.state.allowance().map(|state| state.care), Some(Care::Slow));
    assert_eq!(daemon.until(is_pull), SECOND, "that look was due already");
    daemon.step(pulled(&[]));
    // Half of the half of what is left, for the rest of the day.
    let rest = allowance::next_day(daemon.now) - daemon.now;
    assert_eq!(daemon.until(is_pull), rest / 12);
}

#[test]
fn a_queue_that_another_daemon_has_found_empty_costs_nothing() {
    let mut daemon = Daemon::pulling(thrifty(600));
    daemon.step(pulled(&[]));
    assert_eq!(daemon.state.allowance().unwrap().spent, 1);
    daemon.until(is_pull);
    daemon.step(Event::Pulled(Ok(Pulled { spared: true, ..Pulled::default() })));
    assert_eq!(daemon.state.allowance().unwrap().spent, 1);
}

#[test]
fn without_an_end_to_it_nothing_is_said_or_slower() {
    let mut daemon = Daemon::pulling(settings());
    assert_eq!(daemon.step(pulled(&[])).effects, []);
    assert!(daemon.state.allowance().is_none() && daemon.state.expenses().is_none());
}
