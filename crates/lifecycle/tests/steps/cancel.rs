//! Jobs that a person does not want any more.

use super::*;

fn cancelled(after: u32) -> Ending {
    Ending::Cancelled(Attempt::new(after))
}

fn end_run(job_id: &str, attempt: u32) -> Effect {
    Effect::End(run(job_id, attempt), EndReason::Cancelled)
}

/// A run that its keeper ended, and what the keeper says of it.
fn ended_by(job_id: &str, attempt: u32, why: EndReason) -> Event {
    Event::RunEnded(run(job_id, attempt), Box::new(Finished { end: RunEnd::EndedBy(why), ..*finished() }))
}

#[test]
fn a_job_that_waits_has_its_result_at_once_although_no_slot_is_free() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.accept(job("b", "L2"));
    assert_eq!(daemon.phase("b"), Some(Phase::Waiting));
    assert_eq!(daemon.step(cancel("b")).effects, [conclude("b", 1, cancelled(0))]);
    let step = daemon.step(recorded("b", 1));
    assert!(step.facts.contains(&Fact::Recorded(id("b"), record("b"))), "{step:?}");
    assert!(step.effects.contains(&publish(&["b"])), "{step:?}");
    assert_eq!(daemon.step(cancel("b")), Step::default(), "it has its result");
}

#[test]
fn a_job_that_runs_is_ended_keeps_its_output_and_is_not_tried_again() {
    for why in [EndReason::Cancelled, EndReason::Unsaid] {
        let mut daemon = Daemon::pulling(settings());
        daemon.start("a", with_fields("a", "L1", r#""retries":3"#));
        assert_eq!(daemon.step(cancel("a")).effects, [end_run("a", 1)]);
        assert_eq!(daemon.step(cancel("a")).effects, [], "its keeper was told");
        let ending = Finished { end: RunEnd::EndedBy(EndReason::Cancelled), ..*finished() };
        let wanted = conclude("a", 1, Ending::Finished(Box::new(ending)));
        assert_eq!(daemon.step(ended_by("a", 1, why)).effects, [wanted], "a keeper of an earlier version, too");
    }
}

#[test]
fn a_run_that_ends_first_counts_as_it_ended_and_no_other_follows() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", with_fields("a", "L1", r#""retries":3"#));
    daemon.step(cancel("a"));
    assert_eq!(daemon.step(ended("a", 1)).effects, [conclude("a", 1, seen())], "may_retry is false");

    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", with_fields("a", "L1", r#""retries":3"#));
    daemon.step(ended("a", 1));
    assert_eq!(daemon.step(cancel("a")).effects, [], "it is being dealt with");
    let step = daemon.step(task_failed("a", 1));
    assert!(step.effects.contains(&conclude("a", 1, cancelled(1))), "{step:?}");
    assert!(!step.effects.iter().any(is_claim), "{step:?}");
}

#[test]
fn a_job_that_comes_later_is_not_begun() {
    let mut daemon = Daemon::pulling(settings());
    assert_eq!(daemon.step(cancel("a")), Step::default());
    let step = daemon.accept(job("a", "L1"));
    assert_eq!((step.facts, step.effects), (vec![accepted("a", "L1")], vec![conclude("a", 1, cancelled(0))]));
}

#[test]
fn what_is_cancelled_while_its_claim_is_made_is_not_begun() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(job("a", "L1"));
    assert_eq!(daemon.phase("a"), Some(Phase::Claiming));
    assert_eq!(daemon.step(cancel("a")).effects, []);
    assert_eq!(daemon.step(claimed("a", 1)).effects, [conclude("a", 1, cancelled(0))]);
}

#[test]
fn a_job_of_another_daemon_is_left_to_that_until_it_can_be_claimed() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(second_delivery("a", "L1"));
    daemon.step(Event::Claimed(id("a"), Claimed::Elsewhere));
    assert_eq!(daemon.step(cancel("a")).effects, []);
    let effects = daemon.tick(20 * SECOND);
    assert!(effects.contains(&claim("a", 0)), "{effects:?}");
    let step = daemon.step(claimed("a", 3));
    assert_eq!(step.effects, [conclude("a", 3, cancelled(2))], "it was taken over");

    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("b", job("b", "L0"));
    daemon.accept(second_delivery("a", "L1"));
    daemon.step(cancel("a"));
    let step = daemon.step(Event::Concluded(run("a", 1), Concluded::TakenOver));
    assert_eq!(daemon.phase("a"), Some(Phase::Waiting), "another daemon has claimed it meanwhile: {step:?}");
}

#[test]
fn a_run_that_was_cut_off_is_not_begun_again() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.step(cancel("a"));
    let step = daemon.step(Event::RunCutOff(run("a", 1), "its keeper was killed".to_owned()));
    assert_eq!(step.effects, [conclude("a", 1, cancelled(1))]);
}

#[test]
fn a_job_that_the_node_failed_does_not_go_back_to_the_queue() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    daemon.step(cancel("a"));
    let step = daemon.step(Event::Concluded(run("a", 1), Concluded::NodeFailed("no image".into())));
    assert!(step.effects.contains(&conclude("a", 1, cancelled(1))), "{step:?}");
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Unclaim(_))), "{step:?}");
}

#[test]
fn after_a_restart_a_run_is_ended_once_its_keeper_is_known() {
    let facts = [accepted("a", "L1"), launch("a", 1)];
    let mut daemon = Daemon::restore(settings(), &facts);
    daemon.step(Event::Tick);
    assert_eq!(daemon.step(cancel("a")).effects, []);
    let step = daemon.step(observed(&[(run("a", 1), Sighting::Alive)]));
    assert!(step.effects.contains(&end_run("a", 1)), "{step:?}");
}

#[test]
fn a_run_that_still_goes_on_is_told_again_because_the_word_may_have_been_lost() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    assert_eq!(daemon.step(cancel("a")).effects, [end_run("a", 1)]);
    daemon.step(Event::ExecutorGone(None));
    assert!(daemon.tick(SECOND).contains(&Effect::Observe));
    let step = daemon.step(observed(&[(run("a", 1), Sighting::Alive)]));
    assert!(step.effects.contains(&end_run("a", 1)), "{step:?}");
}

#[test]
fn a_cancellation_is_remembered_for_as_long_as_a_message_lives() {
    let mut daemon = Daemon::pulling(settings());
    daemon.step(cancel("a"));
    daemon.now += 13 * 24 * 3_600 * SECOND;
    daemon.step(cancel("b"));
    assert!(daemon.state.is_cancelled(&id("a")));
    daemon.now += 2 * 24 * 3_600 * SECOND;
    daemon.step(cancel("c"));
    assert!(!daemon.state.is_cancelled(&id("a")) && daemon.state.is_cancelled(&id("b")));
}

/// Each looks at the job that it is about, and not at all that are being cancelled.
#[test]
fn very_many_are_cancelled_at_once() {
    const JOBS: usize = 10_000;
    let facts: Vec<Fact> = (0..JOBS).map(|no| accepted(&format!("j{no}"), &format!("L{no}"))).collect();
    let mut book = Book::default();
    facts.iter().for_each(|fact| book.apply(fact));
    let mut state = Lifecycle::restore(settings(), book.entries, START);
    let begun = std::time::Instant::now();
    let mut concluded = 0;
    for no in 0..JOBS {
        let effects = state.step(cancel(&format!("j{no}")), START).effects;
        concluded += effects.iter().filter(|effect| matches!(effect, Effect::Conclude { .. })).count();
    }
    for no in 0..JOBS {
        state.step(recorded(&format!("j{no}"), 1), START);
    }
    assert_eq!((concluded, state.owed()), (JOBS, JOBS));
    // Otherwise it takes minutes.
    assert!(begun.elapsed() < 20 * SECOND, "{:?}", begun.elapsed());
}
