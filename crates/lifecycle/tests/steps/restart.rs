//! What a daemon does with what it finds on its disk.

use super::*;

const REBOOT: &str = "the machine was started anew";

fn launching(job_id: &str) -> [Fact; 2] {
    [accepted(job_id, "L1"), launch(job_id, 1)]
}

/// A daemon with one slot that has found a launch, and has asked the keeper what became of it.
fn asking(facts: &[Fact]) -> Daemon {
    let mut daemon = Daemon::restore(slots(1), facts);
    assert_eq!(daemon.step(Event::Tick).effects, [probe(), Effect::Observe]);
    assert_eq!(daemon.step(looked(Ok(()))), Step::default(), "it may be running: nothing is started");
    daemon
}

#[test]
fn a_job_that_was_accepted_is_claimed_anew_with_its_last_attempt() {
    let failures = Failures { task: 1, ..Failures::default() };
    let facts = [accepted("a", "L1"), launch("a", 3), Fact::Again(id("a"), failures)];
    for (facts, last_attempt) in [(&facts[..1], 0), (&facts[..], 3)] {
        let mut daemon = Daemon::restore(slots(1), facts);
        assert_eq!(daemon.step(Event::Tick).effects, [probe(), Effect::Observe]);
        assert_eq!(daemon.step(looked(Ok(()))), Step::default(), "not before the keeper is there");
        assert_eq!(daemon.step(observed(&[])).effects, [claim("a", last_attempt)]);
    }
}

#[test]
fn what_has_failed_before_a_restart_counts_after_it() {
    let terms = Terms { retries: 1, rerunnable: true, needs_files: false, is_graph: false };
    let accepted = Fact::Accepted { job_id: id("a"), message: body("a"), terms, origin: Origin::Queue(lease("L1")) };
    let failures = Failures { task: 1, ..Failures::default() };
    let again = Fact::Again(id("a"), failures);
    let mut daemon = asking(&[accepted, launch("a", 1), again, launch("a", 2)]);
    let effects = daemon.step(observed(&[(run("a", 2), Sighting::Ended(finished()))])).effects;
    assert_eq!(effects[0], conclude("a", 2, seen()), "its retries are used up");
}

#[test]
fn a_launch_whose_run_is_alive_is_watched() {
    let mut daemon = asking(&launching("a"));
    let step = daemon.step(observed(&[(run("a", 1), Sighting::Alive)]));
    assert_eq!(step, Step { facts: vec![], effects: vec![Effect::Say(Notice::TakenUp { running: 1 })] });
    assert_eq!(daemon.step(ended("a", 1)).effects[0], conclude("a", 1, seen()));
}

#[test]
fn a_launch_whose_run_has_ended_is_concluded() {
    let mut daemon = asking(&launching("a"));
    let step = daemon.step(observed(&[(run("a", 1), Sighting::Ended(finished()))]));
    assert_eq!(step, Step { facts: vec![], effects: vec![conclude("a", 1, seen()), Effect::Pull(1)] });
}

#[test]
fn a_launch_whose_run_was_cut_off_becomes_the_next_attempt() {
    let mut daemon = asking(&launching("a"));
    let step = daemon.step(observed(&[(run("a", 1), Sighting::CutOff(REBOOT.to_owned()))]));
    let said = Effect::Say(Notice::CutOff { run: run("a", 1), what: REBOOT.to_owned(), again: true });
    assert_eq!(step.facts, [Fact::Again(id("a"), Failures { cut_off: 1, ..Failures::default() })]);
    assert_eq!(step.effects, [said, forget("a", 1), claim("a", 1)]);
}

#[test]
fn a_launch_that_surely_never_began_is_started_under_the_same_attempt() {
    let mut daemon = asking(&launching("a"));
    assert_eq!(daemon.step(observed(&[])), Step { facts: vec![], effects: vec![Effect::Start(run("a", 1))] });
}

#[test]
fn a_launch_that_may_have_begun_counts_as_cut_off() {
    let unknown = Event::Observed(Observation { runs: vec![], complete: false });
    let mut daemon = asking(&launching("a"));
    let step = daemon.step(unknown.clone());
    assert_eq!(step.facts, [Fact::Again(id("a"), Failures { cut_off: 1, ..Failures::default() })]);
    assert_eq!(step.effects[1..], [forget("a", 1), Effect::Reconciled, claim("a", 1)]);

    let terms = Terms { retries: 0, rerunnable: false, needs_files: false, is_graph: false };
    let accepted = Fact::Accepted { job_id: id("a"), message: body("a"), terms, origin: Origin::Queue(lease("L1")) };
    let mut daemon = asking(&[accepted, launch("a", 1)]);
    let step = daemon.step(unknown);
    assert_eq!(step.facts, []);
    let lost = |effect: &Effect| matches!(effect, Effect::Conclude { ending: Ending::CutOff(_), .. });
    assert_eq!(only(&step.effects, lost).len(), 1, "{step:?}");
}

#[test]
fn more_runs_than_slots_are_taken_up_and_nothing_is_added_to_them() {
    let facts = ["a", "b"].map(launching).concat();
    let mut daemon = asking(&facts);
    let alive = ["a", "b"].map(|job_id| (run(job_id, 1), Sighting::Alive));
    assert_eq!(daemon.step(observed(&alive)).effects, [Effect::Say(Notice::TakenUp { running: 2 })]);
    assert_eq!(daemon.step(ended("a", 1)).effects, [conclude("a", 1, seen())], "and no pull");
}

#[test]
fn a_result_that_is_owed_is_published_before_anything_is_known_of_the_node() {
    let mut daemon = Daemon::restore(settings(), &[accepted("a", "L1"), Fact::Recorded(id("a"), record("a"))]);
    assert_eq!(daemon.step(Event::Tick).effects, [probe(), Effect::Observe, publish(&["a"])]);
    let step = daemon.step(Event::Published(Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Finished(id("a"))], effects: vec![acks(&["L1"])] });
}

#[test]
fn a_lease_that_is_remembered_is_acknowledged_in_time_whatever_the_clock_did() {
    let with_lease = |until: Duration| {
        let lease = Lease { id: "L1".to_owned(), until, deliveries: Some(1) };
        Daemon::restore(slots(1), &[accepted("a", "L0"), launch("a", 1), Fact::Leased(id("a"), lease)])
    };
    let mut lapsed = with_lease(START - 3_600 * SECOND);
    assert_eq!(only(&lapsed.step(Event::Tick).effects, is_settle), [acks(&["L1"])]);
    let mut set_back = with_lease(START + 3_600 * SECOND);
    assert_eq!(only(&set_back.step(Event::Tick).effects, is_settle), []);
    assert_eq!(only(&set_back.tick(EARLY_ACK), is_settle), [acks(&["L1"])]);
    let mut acknowledged = Daemon::restore(slots(1), &[accepted("a", "L1"), Fact::Acknowledged(id("a"))]);
    acknowledged.step(Event::Tick);
    assert_eq!(only(&acknowledged.tick(EARLY_ACK), is_settle), []);
}

#[test]
fn a_list_is_called_complete_only_when_what_is_lost_has_its_record() {
    let terms = Terms { retries: 0, rerunnable: false, needs_files: false, is_graph: false };
    let accepted = Fact::Accepted { job_id: id("a"), message: body("a"), terms, origin: Origin::Queue(lease("L1")) };
    let is_reconciled = |effect: &Effect| *effect == Effect::Reconciled;
    let mut daemon = asking(&[accepted, launch("a", 1)]);
    let step = daemon.step(Event::Observed(Observation { runs: vec![], complete: false }));
    assert_eq!(only(&step.effects, is_reconciled), [], "a daemon that starts now would begin it");
    let held_up = Event::Concluded(run("a", 1), Concluded::NodeBroken("disk full".into()));
    assert_eq!(only(&daemon.step(held_up).effects, is_reconciled), []);
    daemon.tick(10 * SECOND);
    assert_eq!(only(&daemon.step(looked(Ok(()))).effects, is_reconciled), []);
    let step = daemon.step(recorded("a", 1));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    assert_eq!(only(&step.effects, is_reconciled), [Effect::Reconciled]);
}
