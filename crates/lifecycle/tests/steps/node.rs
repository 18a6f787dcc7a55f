//! A node that is broken must not eat the queue, and its failures are not those of the jobs.

use super::*;

fn node_failed(job_id: &str, attempt: u32) -> Event {
    Event::Concluded(run(job_id, attempt), Concluded::NodeFailed("disk full".into()))
}

fn claim_failed(job_id: &str) -> Event {
    Event::Claimed(id(job_id), Claimed::NodeBroken("permission denied".into()))
}

/// A claim fails, and a look at the node finds why.
fn claim_fails_and_the_node_is_broken(daemon: &mut Daemon, job_id: &str) {
    let effects = daemon.step(claim_failed(job_id)).effects;
    assert!(effects.contains(&probe()), "{effects:?}");
    let effects = daemon.step(looked(Err("permission denied".into()))).effects;
    assert!(effects.contains(&broken("permission denied")), "{effects:?}");
}

fn held_up(job_id: &str, next_try: Duration) -> Effect {
    Effect::Say(Notice::HeldUp { job_id: id(job_id), problem: "permission denied".into(), next_try })
}

fn again(job_id: &str, node: u32) -> Fact {
    Fact::Again(id(job_id), Failures { node, ..Failures::default() })
}

/// A daemon with one slot that runs a job, and the node fails it.
fn failing(delivery: Delivery) -> (Daemon, Step) {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", delivery);
    daemon.step(ended("a", 1));
    daemon.step(pulled(&[]));
    let step = daemon.step(node_failed("a", 1));
    (daemon, step)
}

#[test]
fn a_cause_is_said_when_it_is_new() {
    let mut daemon = Daemon::restore(settings(), &[]);
    daemon.step(Event::Tick);
    let probed = |what: &str| looked(Err(what.into()));
    assert_eq!(daemon.step(probed("no apptainer")).effects, [broken("no apptainer")]);
    for (what, said) in [("no apptainer", vec![]), ("no image", vec![broken("no image")]), ("no image", vec![])] {
        assert_eq!(daemon.tick(10 * SECOND), [probe()]);
        assert_eq!(daemon.step(probed(what)).effects, said);
        assert_eq!(daemon.state.node_problem(), Some(&what.into()));
    }
    daemon.tick(10 * SECOND);
    daemon.step(observed(&[]));
    let effects = daemon.step(looked(Ok(()))).effects;
    assert_eq!(effects, [Effect::Say(Notice::NodeReady(None)), Effect::Pull(2)]);
    assert_eq!(daemon.state.node_problem(), None);
}

#[test]
fn a_job_that_the_node_failed_goes_back_with_a_delay() {
    let (mut daemon, step) = failing(job("a", "L1"));
    // A restart must not look for the run: that is on disk before the claim is given up.
    assert_eq!(step.facts, [again("a", 1)]);
    assert_eq!(step.effects, [broken("disk full"), Effect::Unclaim(run("a", 1)), forget("a", 1)]);
    let step = daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    assert_eq!(step.facts, [Fact::Released(id("a"))]);
    assert_eq!(step.effects, [back(&["L1"], 60 * SECOND)]);
    assert_eq!(daemon.state.held(), 0);
}

#[test]
fn a_broken_node_pulls_again_only_after_a_probe() {
    let (mut daemon, _) = failing(job("a", "L1"));
    daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    daemon.step(Event::Settled(Ok(())));
    assert_eq!(daemon.sleeps(), Some(10 * SECOND));
    assert_eq!(daemon.tick(10 * SECOND - MILLISECOND), []);
    assert_eq!(daemon.tick(MILLISECOND), [probe()]);
    assert_eq!(daemon.step(looked(Err("disk full".into()))).effects, [], "it is said once");
    assert_eq!(daemon.tick(10 * SECOND), [probe()]);
    let effects = daemon.step(looked(Ok(()))).effects;
    assert_eq!(effects, [Effect::Say(Notice::NodeReady(None)), Effect::Pull(1)]);
}

#[test]
fn a_job_that_cannot_go_back_after_all_waits_here() {
    // The claim could not be given up.
    let (mut daemon, _) = failing(job("a", "L1"));
    assert_eq!(daemon.step(Event::Unclaimed(run("a", 1), Err("disk full".into()))), Step::default());
    assert_eq!(daemon.until(is_claim), 60 * SECOND);
    // The lease ran out meanwhile, so the message may be with somebody else.
    let (mut daemon, _) = failing(job("a", "L1"));
    assert!(daemon.tick(EARLY_ACK).contains(&acks(&["L1"])));
    assert_eq!(daemon.step(Event::Unclaimed(run("a", 1), Ok(()))).facts, []);
    assert_eq!(daemon.phase("a"), Some(Phase::Waiting));
    assert_eq!(daemon.step(Event::Settled(Ok(()))).facts, [Fact::Acknowledged(id("a"))]);
}

#[test]
fn a_job_that_may_be_elsewhere_too_is_tried_here_with_growing_pauses_until_the_node_is_to_blame() {
    let (mut daemon, mut step) = failing(second_delivery("a", "L1"));
    for failures in 1..=30 {
        assert_eq!(step.facts, [again("a", failures)]);
        assert!(step.effects.contains(&forget("a", failures)), "{step:?}");
        let pause = 60 * SECOND * 2_u32.pow((failures - 1).min(6));
        assert_eq!(daemon.until(is_claim), pause.min(3_600 * SECOND), "after {failures} failures");
        daemon.step(claimed("a", failures + 1));
        daemon.step(ended("a", failures + 1));
        step = daemon.step(node_failed("a", failures + 1));
    }
    let given_up = conclude("a", 31, Ending::GivenUp("disk full".into()));
    assert_eq!(step, Step { facts: vec![], effects: vec![broken("disk full"), given_up] });
    assert_eq!(daemon.step(recorded("a", 31)).facts, [Fact::Recorded(id("a"), record("a"))]);
}

#[test]
fn what_a_run_left_behind_is_dealt_with_once_the_node_is_well_again() {
    let reboot = || Ending::CutOff("reboot".to_owned());
    let events = [(ended("a", 1), seen()), (Event::RunCutOff(run("a", 1), "reboot".to_owned()), reboot())];
    for (event, ending) in events {
        let mut daemon = Daemon::pulling(slots(1));
        daemon.start("a", with_fields("a", "L1", r#""rerunnable":false"#));
        assert!(daemon.step(event).effects.contains(&conclude("a", 1, ending.clone())));
        daemon.step(pulled(&[]));
        let step = daemon.step(Event::Concluded(run("a", 1), Concluded::NodeBroken("disk full".into())));
        assert_eq!(step, Step { facts: vec![], effects: vec![probe()] }, "it may be the node or the job");
        assert_eq!(daemon.step(looked(Err("disk full".into()))).effects, [broken("disk full")]);
        assert_eq!(daemon.phase("a"), Some(Phase::Ending), "it is not run again");
        assert_eq!(daemon.tick(10 * SECOND), [probe()]);
        assert_eq!(daemon.step(looked(Err("disk full".into()))), Step::default());
        assert_eq!(daemon.tick(10 * SECOND), [probe()]);
        let effects = daemon.step(looked(Ok(()))).effects;
        assert_eq!(effects, [Effect::Say(Notice::NodeReady(None)), conclude("a", 1, ending)]);
        assert_eq!(daemon.step(recorded("a", 1)).facts, [Fact::Recorded(id("a"), record("a"))]);
    }
}

#[test]
fn after_a_failure_a_single_job_is_tried_before_the_node_is_trusted() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(job("a", "L1"));
    claim_fails_and_the_node_is_broken(&mut daemon, "a");
    daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    daemon.step(Event::Settled(Ok(())));
    daemon.step(pulled(&[]));
    daemon.tick(10 * SECOND);
    let effects = daemon.step(looked(Ok(()))).effects;
    assert_eq!(effects, [Effect::Say(Notice::NodeReady(None)), Effect::Pull(1)]);
    let effects = daemon.step(pulled(&[second_delivery("a", "L2"), job("b", "L3")])).effects;
    assert_eq!(effects, [Effect::Recall(ids(&["a", "b"]))]);
    assert_eq!(daemon.step(recalled(&["a", "b"])).effects, [claim("a", 0)]);
    assert_eq!(daemon.step(claimed("a", 1)).effects, [Effect::Start(run("a", 1))]);
    assert_eq!(daemon.step(ended("a", 1)).effects, [conclude("a", 1, seen())], "it may still be to blame");
    let effects = daemon.step(recorded("a", 1)).effects;
    assert_eq!(effects[1..], [claim("b", 0), publish(&["a"]), Effect::Pull(2)]);
}

#[test]
fn a_node_that_passes_its_probe_and_breaks_again_is_looked_at_less_and_less() {
    let mut daemon = Daemon::pulling(slots(1));
    let mut fail = |pause: Duration| {
        daemon.accept(job("a", "L1"));
        claim_fails_and_the_node_is_broken(&mut daemon, "a");
        daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
        daemon.step(Event::Settled(Ok(())));
        assert_eq!(daemon.until(|effect| *effect == probe()), pause);
        daemon.step(looked(Ok(())));
    };
    for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
        fail(pause * SECOND);
    }
    // A job that ends shows that the node is well.
    daemon.start("b", job("b", "L1"));
    daemon.finish("b");
    daemon.step(Event::Published(Ok(())));
    daemon.step(Event::Settled(Ok(())));
    daemon.accept(job("a", "L1"));
    claim_fails_and_the_node_is_broken(&mut daemon, "a");
    daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    daemon.step(Event::Settled(Ok(())));
    assert_eq!(daemon.until(|effect| *effect == probe()), 10 * SECOND);
}

#[test]
fn all_that_was_not_started_goes_back_when_the_node_breaks() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.step(pulled(&[job("b", "L2"), job("c", "L3"), job("d", "L4")]));
    daemon.step(recalled(&["b", "c"]));
    // The keeper is away, so b is ready and cannot start; c waits; d may have ended before.
    daemon.step(Event::ExecutorGone(None));
    daemon.step(claimed("b", 1));
    daemon.step(ended("a", 1));
    let broke = Event::Concluded(run("a", 1), Concluded::NodeBroken("disk full".into()));
    daemon.step(broke);
    let step = daemon.step(looked(Err("disk full".into())));
    assert_eq!(step.facts, [Fact::Released(id("c")), Fact::Again(id("b"), Failures::default())]);
    let effects = [broken("disk full"), Effect::Unclaim(run("b", 1)), back(&["L3"], 60 * SECOND)];
    assert_eq!(step.effects, effects);
    daemon.step(Event::Settled(Ok(())));
    let step = daemon.step(Event::Unclaimed(run("b", 1), Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Released(id("b"))], effects: vec![back(&["L2"], 60 * SECOND)] });
    daemon.step(Event::Settled(Ok(())));
    let step = daemon.step(recalled(&["d"]));
    assert_eq!(step, Step { facts: vec![], effects: vec![back(&["L4"], 60 * SECOND)] }, "it was never ours");
}

#[test]
fn a_job_whose_claim_failed_goes_back_only_when_no_part_of_the_claim_stands() {
    let failing = || {
        let mut daemon = Daemon::pulling(slots(1));
        daemon.accept(job("a", "L1"));
        let step = daemon.step(claim_failed("a"));
        assert_eq!(step.effects, [held_up("a", 60 * SECOND), Effect::Unclaim(run("a", 1)), probe()]);
        daemon.step(looked(Err("permission denied".into())));
        daemon
    };
    let step = failing().step(Event::Unclaimed(run("a", 1), Ok(())));
    assert_eq!(step.facts, [Fact::Released(id("a"))]);
    assert_eq!(step.effects, [back(&["L1"], 60 * SECOND)]);

    let mut daemon = failing();
    assert_eq!(daemon.step(Event::Unclaimed(run("a", 1), Err("it hangs".into()))), Step::default());
    assert_eq!(daemon.step(Event::Drain).facts, [], "another daemon could not take it");
    assert_eq!(daemon.phase("a"), Some(Phase::Waiting));

    // It was not launched: nothing proves that what stands in its place is ours.
    let mut daemon = failing();
    daemon.step(Event::Unclaimed(run("a", 1), Err("it hangs".into())));
    assert_eq!(daemon.until(|effect| *effect == claim("a", 0)), 60 * SECOND);
}

#[test]
fn a_job_that_can_never_be_claimed_does_not_keep_the_others_from_their_turn() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(second_delivery("a", "L1"));
    for _ in 0..2 {
        assert_eq!(daemon.step(claim_failed("a")).effects, [held_up("a", 60 * SECOND), probe()]);
        daemon.step(looked(Ok(())));
        daemon.until(is_claim);
    }
    // The node has passed its probe each time: it is the job.
    let step = daemon.step(claim_failed("a"));
    assert_eq!(step.facts, [again("a", 1)]);
    assert!(step.effects.contains(&held_up("a", 120 * SECOND)), "{step:?}");
    assert_eq!(daemon.state.node_problem(), None);
    assert_eq!(daemon.until(is_claim), 120 * SECOND);
    for failures in 2..30 {
        assert_eq!(daemon.step(claim_failed("a")).facts, [again("a", failures)]);
        daemon.until(is_claim);
    }
    // Nobody else is kept from its turn meanwhile, and in the end it has a result.
    let step = daemon.step(claim_failed("a"));
    assert_eq!(step.facts, [again("a", 30)]);
    daemon.until(is_claim);
    let step = daemon.step(claim_failed("a"));
    assert_eq!(step.effects[0], conclude("a", 1, Ending::GivenUp("permission denied".into())));
    assert_eq!(daemon.step(recorded("a", 1)).facts, [Fact::Recorded(id("a"), record("a"))]);
}

#[test]
fn a_message_that_the_queue_may_forget_soon_does_not_go_back() {
    let now = START.as_secs() as i64;
    for (age, goes_back) in [(3_600, true), (13 * 3_600, false)] {
        let created = protocol::timestamp_from_millis((now - age) * 1_000);
        let mut daemon = Daemon::pulling(slots(1));
        daemon.start("a", job("a", "L1"));
        daemon.accept(with_fields("b", "L2", &format!(r#""created_at":"{created}""#)));
        daemon.step(Event::Drain);
        assert_eq!(daemon.phase("b").is_none(), goes_back, "sent {age} s ago");
    }
}

#[test]
fn while_draining_the_node_is_probed_for_what_has_ended() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""rerunnable":false"#));
    daemon.step(ended("a", 1));
    daemon.step(pulled(&[]));
    daemon.step(Event::Concluded(run("a", 1), Concluded::NodeBroken("disk full".into())));
    daemon.step(looked(Err("disk full".into())));
    daemon.step(Event::Drain);
    assert_eq!(daemon.tick(10 * SECOND), [probe()]);
    assert_eq!(daemon.step(looked(Ok(()))).effects[1..], [conclude("a", 1, seen())]);
}

#[test]
fn the_bad_directory_of_one_job_is_no_trouble_of_the_node() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.step(pulled(&[job("bad", "L2")]));
    daemon.step(recalled(&["bad"]));
    let effects = daemon.step(claim_failed("bad")).effects;
    assert_eq!(effects, [held_up("bad", 60 * SECOND), Effect::Unclaim(run("bad", 1)), probe()]);
    // It is looked at, at once, and is well: the others go on, and all slots are filled.
    assert_eq!(daemon.step(looked(Ok(()))).effects, [Effect::Pull(1)]);
    assert_eq!(daemon.state.node_problem(), None);
    daemon.step(Event::Unclaimed(run("bad", 1), Ok(())));
    daemon.start("b", job("b", "L3"));
    assert_eq!(daemon.state.running(), 2);
}

#[test]
fn a_trouble_that_one_job_after_another_meets_is_the_nodes_whatever_a_look_says() {
    let mut daemon = Daemon::pulling(settings());
    for number in 1..=3 {
        let name = format!("job{number}");
        daemon.accept(second_delivery(&name, &name));
        assert!(daemon.step(claim_failed(&name)).effects.contains(&probe()));
        daemon.step(looked(Ok(())));
    }
    daemon.accept(second_delivery("job4", "L4"));
    let effects = daemon.step(claim_failed("job4")).effects;
    assert!(effects.contains(&broken("permission denied")) && !effects.contains(&probe()), "{effects:?}");
    assert_eq!(daemon.until(|effect| *effect == probe()), 10 * SECOND);
}
