//! Claims and runs, the keeper that holds them, and how often a job is tried.

use super::*;

fn cut_off(job_id: &str, attempt: u32) -> Event {
    Event::RunCutOff(run(job_id, attempt), "reboot".to_owned())
}

fn said_cut_off(job_id: &str, attempt: u32, again: bool) -> Effect {
    Effect::Say(Notice::CutOff { run: run(job_id, attempt), what: "reboot".to_owned(), again })
}

#[test]
fn a_launch_is_recorded_in_the_step_of_its_claim_under_the_attempt_that_was_claimed() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(job("a", "L1"));
    let step = daemon.step(claimed("a", 3));
    assert_eq!(step.facts, [launch("a", 3)]);
    assert_eq!(step.effects, [Effect::Start(run("a", 3))]);
}

#[test]
fn a_slot_is_free_when_the_processes_of_its_job_are_gone() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    assert_eq!(daemon.tick(SECOND), [], "no slot, no pull");
    assert_eq!(daemon.step(ended("a", 1)).effects, [conclude("a", 1, seen()), Effect::Pull(1)]);
    daemon.start("b", job("b", "L2"));
    assert_eq!((daemon.phase("a"), daemon.phase("b")), (Some(Phase::Ending), Some(Phase::Running)));
}

#[test]
fn a_job_that_has_its_record_already_is_published_and_not_run() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(job("a", "L1"));
    let step = daemon.step(Event::Claimed(id("a"), Claimed::Finished(record("a"))));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    assert_eq!(step.effects, [publish(&["a"]), Effect::Pull(1)]);
}

#[test]
fn a_job_that_another_daemon_holds_is_looked_at_again_later() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(job("a", "L1"));
    let step = daemon.step(Event::Claimed(id("a"), Claimed::Elsewhere));
    let effects = vec![Effect::Say(Notice::Elsewhere(id("a"))), Effect::Pull(1)];
    assert_eq!(step, Step { facts: vec![], effects }, "meanwhile its slot is for others");
    assert_eq!(daemon.sleeps(), Some(20 * SECOND));
    assert_eq!(daemon.tick(20 * SECOND - MILLISECOND), []);
    assert_eq!(daemon.tick(MILLISECOND), [claim("a", 0)]);
}

#[test]
fn a_run_that_another_daemon_has_taken_over_is_dropped_and_nothing_is_acknowledged() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let step = daemon.step(Event::Concluded(run("a", 1), Concluded::TakenOver));
    assert_eq!(step, Step { facts: vec![Fact::Released(id("a"))], effects: vec![forget("a", 1)] });
    assert_eq!(daemon.state.held(), 0);
    assert_eq!(daemon.tick(EARLY_ACK), []);
}

#[test]
fn a_run_that_can_begin_nowhere_is_rejected_and_not_tried_again() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""rerunnable":true"#));
    let rejected = || Event::RunRejected(run("a", 1), "it asks for too much".to_owned());
    let ending = Ending::Rejected("it asks for too much".to_owned());
    assert_eq!(daemon.step(rejected()).effects[0], conclude("a", 1, ending));
    assert_eq!(daemon.step(rejected()).effects, [], "it is being dealt with");
    let step = daemon.step(recorded("a", 1));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    assert!(step.effects.contains(&forget("a", 1)), "{step:?}");
    assert_eq!(daemon.step(Event::RunRejected(run("b", 1), String::new())).effects, [forget("b", 1)]);
}

#[test]
fn a_task_that_fails_is_tried_as_often_as_its_user_allows() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""retries":2"#));
    for attempt in 1..=3 {
        let effects = daemon.step(ended("a", attempt)).effects;
        let may_retry = attempt <= 2;
        assert_eq!(effects[0], Effect::Conclude { run: run("a", attempt), ending: seen(), may_retry });
        if may_retry {
            let step = daemon.step(task_failed("a", attempt));
            assert_eq!(step.facts, [Fact::Again(id("a"), Failures { task: attempt, ..Failures::default() })]);
            let what = format!(
                "attempt {attempt} failed: exit code 3; attempt {} follows (retry {attempt} of 2)",
                attempt + 1
            );
            assert_eq!(daemon.state.remark(&id("a")).as_deref(), Some(what.as_str()));
            let said = Effect::Say(Notice::TriedAgain { run: run("a", attempt), what });
            assert_eq!(step.effects, [said, forget("a", attempt), claim("a", attempt)]);
            daemon.step(claimed("a", attempt + 1));
        }
    }
    assert_eq!(daemon.step(recorded("a", 3)).facts, [Fact::Recorded(id("a"), record("a"))]);
}

#[test]
fn a_job_that_is_cut_off_is_started_again_but_not_for_ever_and_not_at_the_cost_of_its_retries() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""retries":1"#));
    for attempt in 1..=10 {
        let step = daemon.step(cut_off("a", attempt));
        assert_eq!(step.facts, [Fact::Again(id("a"), Failures { cut_off: attempt, ..Failures::default() })]);
        assert_eq!(step.effects, [said_cut_off("a", attempt, true), forget("a", attempt), claim("a", attempt)]);
        daemon.step(claimed("a", attempt + 1));
    }
    let step = daemon.step(cut_off("a", 11));
    assert_eq!(step.facts, []);
    let ending = Ending::CutOff("reboot".to_owned());
    let lost = Effect::Conclude { run: run("a", 11), ending, may_retry: true };
    assert_eq!(step.effects[..2], [said_cut_off("a", 11, false), lost]);
}

#[test]
fn a_job_that_may_not_be_started_again_is_lost_when_it_is_cut_off() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""rerunnable":false"#));
    let step = daemon.step(cut_off("a", 1));
    let lost = conclude("a", 1, Ending::CutOff("reboot".to_owned()));
    let effects = vec![said_cut_off("a", 1, false), lost, Effect::Pull(1)];
    assert_eq!(step, Step { facts: vec![], effects });
    let step = daemon.step(recorded("a", 1));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    assert_eq!(step.effects, [forget("a", 1), publish(&["a"])]);
}

#[test]
fn runs_that_are_not_ours_are_ended_or_forgotten() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(job("a", "L1"));
    daemon.step(claimed("a", 2));
    let gone = Sighting::CutOff("reboot".to_owned());
    let step = daemon.step(observed(&[
        (run("a", 1), Sighting::Alive),
        (run("a", 2), Sighting::Alive),
        (run("x", 1), Sighting::Alive),
        (run("y", 1), Sighting::Ended(finished())),
        (run("z", 1), gone),
    ]));
    let ends = [
        Effect::End(run("a", 1), EndReason::NotHeld),
        Effect::End(run("x", 1), EndReason::NotHeld),
        forget("y", 1),
        forget("z", 1),
    ];
    assert_eq!((step.facts, step.effects), (vec![], ends.to_vec()));
    assert_eq!(daemon.step(ended("x", 1)).effects, [forget("x", 1)]);
    assert_eq!(daemon.step(cut_off("a", 1)).effects, [forget("a", 1)], "an older attempt says nothing of this one");
    assert_eq!(daemon.phase("a"), Some(Phase::Running));
}

#[test]
fn what_comes_late_or_twice_changes_nothing() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""retries":1"#));
    assert_eq!(daemon.step(claimed("a", 7)), Step::default());
    assert_eq!(daemon.step(recorded("a", 1)), Step::default(), "it still runs");
    daemon.step(ended("a", 1));
    assert_eq!(daemon.step(ended("a", 1)), Step::default());
    assert_eq!(
        daemon.step(observed(&[(run("a", 1), Sighting::Ended(finished()))])),
        Step::default(),
        "it is being dealt with"
    );
    daemon.step(task_failed("a", 1));
    daemon.step(claimed("a", 2));
    daemon.step(ended("a", 2));
    assert_eq!(daemon.step(recorded("a", 1)), Step::default());
    assert_eq!(daemon.phase("a"), Some(Phase::Ending));
}

#[test]
fn without_a_keeper_nothing_is_started_or_pulled_and_it_is_asked_for_until_it_is_there() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(job("a", "L1"));
    daemon.step(pulled(&[]));
    daemon.step(Event::ExecutorGone(None));
    let step = daemon.step(claimed("a", 1));
    assert_eq!(step, Step { facts: vec![launch("a", 1)], effects: vec![] });
    assert_eq!(daemon.tick(SECOND), [Effect::Observe]);
    daemon.step(Event::ExecutorGone(None));
    assert_eq!(daemon.tick(SECOND), [Effect::Observe]);
    assert_eq!(daemon.step(observed(&[])).effects, [Effect::Start(run("a", 1)), Effect::Pull(1)]);
}

#[test]
fn a_run_that_the_keeper_never_got_is_begun_under_the_same_attempt() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(Event::ExecutorGone(None));
    daemon.tick(SECOND);
    assert_eq!(daemon.step(observed(&[])), Step { facts: vec![], effects: vec![Effect::Start(run("a", 1))] });
}

#[test]
fn a_run_that_was_told_to_the_keeper_after_it_was_asked_is_not_begun_twice() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.now += 58 * SECOND;
    daemon.step(pulled(&[]));
    assert_eq!(daemon.tick(SECOND), [Effect::Pull(1)]);
    daemon.accept(job("a", "L1"));
    assert_eq!(daemon.tick(SECOND), [Effect::Observe], "it is asked once a minute");
    assert_eq!(daemon.step(claimed("a", 1)).effects, [Effect::Start(run("a", 1))]);
    assert_eq!(daemon.step(observed(&[])), Step::default());
    // It is in the next list, or was never begun.
    assert_eq!(daemon.tick(60 * SECOND), [Effect::Observe, acks(&["L1"])]);
    assert_eq!(daemon.step(observed(&[])).effects, [Effect::Start(run("a", 1))]);
}

#[test]
fn a_claim_is_made_with_the_input_and_what_follows_without_it() {
    let mut daemon = Daemon::pulling(slots(1));
    let body = r#"{"v":1,"job_id":"a","task":"echo","input":[1],"retries":1}"#.to_owned();
    daemon.accept(Delivery { body, ..job("a", "L1") });
    let input =
        |message: Option<&std::sync::Arc<protocol::JobMessage>>| message.map(|job| job.spec.input.as_str().to_owned());
    assert_eq!(input(daemon.state.message(&id("a"))), Some("[1]".to_owned()));
    daemon.step(claimed("a", 1));
    assert_eq!(input(daemon.state.message(&id("a"))), None);
    assert_eq!(input(daemon.state.brief(&id("a"))), Some("null".to_owned()));
    daemon.step(ended("a", 1));
    daemon.step(task_failed("a", 1));
    assert_eq!(daemon.phase("a"), Some(Phase::Claiming));
    assert_eq!(input(daemon.state.message(&id("a"))), None, "the next claim needs the input, which the store has");
}

#[test]
fn messages_in_memory_are_bounded() {
    let mut daemon = Daemon::pulling(slots(100));
    for number in 0..100 {
        let name = format!("job{number}");
        let input = format!(r#""input":"{}""#, "x".repeat(100_000));
        let body = format!(r#"{{"v":1,"job_id":"{name}","task":"echo",{input}}}"#);
        daemon.accept(Delivery { body, ..job(&name, &name) });
    }
    let kept = (0..100).filter(|number| daemon.state.message(&id(&format!("job{number}"))).is_some()).count();
    // Each is there as it came and as it was read.
    assert!((5..7).contains(&kept), "1 MiB holds {kept} messages of 100 KB");
}
