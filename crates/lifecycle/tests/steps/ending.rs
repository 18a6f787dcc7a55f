//! How a daemon comes to its end: drain, stop, a queue that will never answer, nothing left to do.

use super::*;

fn left_over(running: usize, waiting: usize, results: usize) -> Effect {
    Effect::Say(Notice::LeftOver { running, waiting, results })
}

fn failed() -> Effect {
    Effect::Fail(Fatal::Refused("it failed".to_owned()))
}

#[test]
fn drain_takes_nothing_new_and_exits_when_nothing_is_owed() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.step(pulled(&[]));
    assert_eq!(daemon.step(Event::Drain), Step::default());
    assert_eq!(daemon.tick(20 * SECOND), []);
    assert_eq!(daemon.step(ended("a", 1)).effects, [conclude("a", 1, seen())]);
    assert_eq!(daemon.step(recorded("a", 1)).effects, [forget("a", 1), publish(&["a"])]);
    assert_eq!(daemon.step(Event::Published(Ok(()))).effects, [acks(&["L1"])]);
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [Effect::Exit]);
    assert_eq!(daemon.state.wake_at(), None);
    assert_eq!(daemon.tick(100 * SECOND), [], "it is over");
}

#[test]
fn drain_gives_back_at_once_what_was_not_started() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.step(pulled(&[job("a", "L1"), job("b", "L2"), job("c", "L3")]));
    daemon.step(recalled(&["a", "b", "c"]));
    daemon.step(claimed("a", 1));
    let step = daemon.step(Event::Drain);
    assert_eq!(step.facts, [Fact::Released(id("b")), Fact::Released(id("c"))]);
    assert_eq!(step.effects, [back(&["L2", "L3"], Duration::ZERO)]);
    assert_eq!(daemon.state.held(), 1);
}

#[test]
fn drain_gives_up_the_claim_for_what_was_about_to_start_and_a_restart_would_claim_it_anew() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(job("a", "L1"));
    assert_eq!(daemon.step(Event::Drain), Step::default(), "the claim is under way");
    let step = daemon.step(claimed("a", 1));
    assert_eq!(step.facts, [launch("a", 1), Fact::Again(id("a"), Failures::default())]);
    assert_eq!(step.effects, [Effect::Unclaim(run("a", 1))]);
    let step = daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Released(id("a"))], effects: vec![back(&["L1"], Duration::ZERO)] });
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [Effect::Exit]);
}

#[test]
fn drain_gives_back_what_a_pull_still_brings() {
    let mut daemon = Daemon::pulling(settings());
    assert_eq!(daemon.step(Event::Drain), Step::default(), "the pull is under way");
    assert_eq!(daemon.step(pulled(&[job("a", "L1"), job("b", "L2")])).effects, [Effect::Recall(ids(&["a", "b"]))]);
    let step = daemon.step(Event::Recalled(vec![(id("a"), Recalled::New), (id("b"), Recalled::Ended(None))]));
    let settle = Effect::Settle { acks: vec!["L2".to_owned()], retries: vec![("L1".to_owned(), Duration::ZERO)] };
    assert_eq!(step, Step { facts: vec![], effects: vec![settle] });
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [Effect::Exit]);
}

#[test]
fn drain_holds_what_may_be_elsewhere_too() {
    // Delivered twice.
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.accept(second_delivery("b", "L2"));
    assert_eq!(daemon.step(Event::Drain), Step::default());
    assert_eq!(daemon.phase("b"), Some(Phase::Waiting));
    // Acknowledged already, so the queue has forgotten it.
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.accept(job("b", "L2"));
    assert_eq!(daemon.tick(EARLY_ACK), [acks(&["L1", "L2"])]);
    assert_eq!(daemon.step(Event::Drain), Step::default());
    // Found on the disk of a version that did not write down how often it was delivered.
    let mut old = accepted("a", "L1");
    if let Fact::Accepted { origin: Origin::Queue(lease), .. } = &mut old {
        lease.deliveries = None;
    }
    let mut daemon = Daemon::restore(slots(1), &[old]);
    daemon.step(Event::Tick);
    let step = daemon.step(Event::Drain);
    assert_eq!(step, Step { facts: vec![], effects: vec![left_over(0, 1, 0), Effect::Exit] });
    // Tried here before: no other daemon could claim it.
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""retries":1"#));
    daemon.step(Event::Drain);
    daemon.step(ended("a", 1));
    let step = daemon.step(task_failed("a", 1));
    assert_eq!(step.facts, [Fact::Again(id("a"), Failures { task: 1, ..Failures::default() })]);
    assert_eq!(step.effects[1..], [forget("a", 1), left_over(0, 1, 0), Effect::Exit]);
}

#[test]
fn drain_ends_in_time_and_leaves_the_rest_to_the_next_daemon() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(Event::Drain);
    assert_eq!(daemon.sleeps(), Some(30 * SECOND));
    daemon.tick(10 * SECOND);
    daemon.step(Event::Drain);
    assert_eq!(daemon.tick(20 * SECOND - MILLISECOND), [], "a second drain makes it no longer");
    assert_eq!(daemon.tick(MILLISECOND), [left_over(1, 0, 0), Effect::Exit]);
}

#[test]
fn drain_does_not_wait_for_ever_for_a_queue_that_is_away() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.finish("a");
    daemon.step(pulled(&[]));
    daemon.step(Event::Drain);
    let mut effects = vec![];
    while !effects.contains(&Effect::Exit) {
        assert!(daemon.now < START + 30 * SECOND, "it must give up");
        daemon.step(Event::Published(Err(failure(FailureClass::Unavailable))));
        let pause = daemon.sleeps().expect("it has something to wait for");
        effects = daemon.tick(pause);
    }
    assert_eq!(daemon.now, START + 30 * SECOND);
    assert!(effects.contains(&left_over(0, 0, 1)), "{effects:?}");
}

#[test]
fn stop_exits_at_once_and_gives_nothing_back() {
    let mut daemon = Daemon::pulling(slots(2));
    daemon.start("a", job("a", "L1"));
    daemon.start("b", job("b", "L2"));
    daemon.finish("b");
    daemon.accept(job("c", "L3"));
    let step = daemon.step(Event::Stop);
    assert_eq!(step, Step { facts: vec![], effects: vec![left_over(1, 1, 1), Effect::Exit] });
    assert_eq!(daemon.step(ended("a", 1)), Step::default(), "it is over");
    assert_eq!(daemon.state.wake_at(), None);

    let mut idle = Daemon::pulling(settings());
    assert_eq!(idle.step(Event::Stop).effects, [Effect::Exit], "nothing is left over");
    let mut draining = Daemon::pulling(settings());
    draining.start("a", job("a", "L1"));
    draining.step(Event::Drain);
    assert_eq!(draining.step(Event::Stop).effects, [left_over(1, 0, 0), Effect::Exit]);
}

#[test]
fn when_nothing_gets_better_it_fails_and_what_runs_is_left_to_the_next_daemon() {
    let fatal = || Event::Pulled(Err(failure(FailureClass::Fatal)));
    let mut idle = Daemon::pulling(settings());
    assert_eq!(idle.step(fatal()).effects, [failed()]);
    let mut running = Daemon::pulling(settings());
    running.start("a", job("a", "L1"));
    assert_eq!(running.step(fatal()).effects, [left_over(1, 0, 0), failed()]);
}

#[test]
fn when_nothing_gets_better_it_still_tries_to_hand_over_what_is_owed() {
    let owing = || {
        let mut daemon = Daemon::pulling(settings());
        daemon.start("a", job("a", "L1"));
        daemon.finish("a");
        assert_eq!(daemon.step(Event::Pulled(Err(failure(FailureClass::Fatal)))), Step::default());
        daemon
    };
    let mut taken = owing();
    assert_eq!(taken.step(Event::Published(Ok(()))).effects, [acks(&["L1"])]);
    assert_eq!(taken.step(Event::Settled(Ok(()))).effects, [failed()]);

    let mut refused = owing();
    let step = refused.step(Event::Published(Err(failure(FailureClass::Fatal))));
    assert_eq!(step, Step { facts: vec![], effects: vec![left_over(0, 0, 1), failed()] });

    let mut unanswered = owing();
    assert_eq!(unanswered.sleeps(), Some(10 * SECOND));
    assert_eq!(unanswered.tick(10 * SECOND), [left_over(0, 0, 1), failed()]);
}

#[test]
fn a_refusal_that_will_last_gives_back_what_was_not_started() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.accept(job("b", "L2"));
    let step = daemon.step(Event::Pulled(Err(failure(FailureClass::Fatal))));
    assert_eq!(step, Step { facts: vec![Fact::Released(id("b"))], effects: vec![back(&["L2"], Duration::ZERO)] });
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [left_over(1, 0, 0), failed()]);
}

#[test]
fn told_to_exit_when_idle_it_finishes_first() {
    let mut daemon = Daemon::pulling(Settings { exit_when_idle: true, ..settings() });
    daemon.start("a", job("a", "L1"));
    assert_eq!(daemon.step(pulled(&[])).effects, [], "a job still runs");
    daemon.finish("a");
    daemon.step(Event::Published(Ok(())));
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [Effect::Exit]);
}

#[test]
fn handing_over_waits_for_what_is_on_its_way_and_not_for_what_runs() {
    let mut daemon = Daemon::pulling(slots(2));
    daemon.start("a", job("a", "L1"));
    assert_eq!(daemon.step(Event::HandOver), Step::default(), "a pull is under way");
    assert_eq!(daemon.step(pulled(&[job("b", "L2")])).effects, [Effect::Recall(ids(&["b"]))], "and no further pull");
    let step = daemon.step(recalled(&["b"]));
    assert_eq!(step, Step { facts: vec![accepted("b", "L2")], effects: vec![claim("b", 0)] });
    let step = daemon.step(claimed("b", 1));
    assert_eq!(step.facts, [launch("b", 1)]);
    assert_eq!(step.effects, [Effect::Start(run("b", 1)), left_over(2, 0, 0), Effect::Exit]);
}

#[test]
fn handing_over_is_bounded() {
    let mut daemon = Daemon::pulling(slots(1));
    assert_eq!(daemon.step(Event::HandOver), Step::default(), "a pull is under way");
    assert_eq!(daemon.tick(60 * SECOND - MILLISECOND), []);
    assert_eq!(daemon.tick(MILLISECOND).last(), Some(&Effect::Exit));
}
