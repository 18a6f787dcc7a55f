//! What comes from the queue, and its leases.

use super::*;

#[test]
fn a_job_is_accepted_with_its_terms_and_its_lease_before_it_is_claimed() {
    let mut daemon = Daemon::pulling(settings());
    daemon.now += 5 * SECOND;
    let step = daemon.accept(with_fields("a", "L1", r#""retries":2,"rerunnable":false"#));
    let [Fact::Accepted { job_id, message, terms, origin: Origin::Queue(held) }] = step.facts.as_slice() else {
        panic!("it is accepted: {step:?}");
    };
    assert_eq!(
        (job_id, *terms),
        (&id("a"), Terms { retries: 2, rerunnable: false, needs_files: false, is_graph: false })
    );
    assert!(message.contains(r#""task":"echo""#), "{message}");
    assert_eq!(*held, lease("L1"), "a lease counts from the time at which the pull was sent");
    assert_eq!(
        step.effects,
        [Effect::Claim { job_id: id("a"), last_attempt: None, rerunnable: false, round: Round::FIRST }]
    );
}

#[test]
fn a_message_is_stored_as_it_came() {
    let newer = r#"{ "wants":["b"], "job_id":"a", "task":"echo", "v":1 }"#;
    let as_base64 = "eyAid2FudHMiOlsiYiJdLCAiam9iX2lkIjoiYSIsICJ0YXNrIjoiZWNobyIsICJ2IjoxIH0=";
    for body in [newer, as_base64] {
        let mut daemon = Daemon::pulling(settings());
        let step = daemon.accept(Delivery { body: body.to_owned(), ..job("a", "L1") });
        let [Fact::Accepted { message, .. }] = step.facts.as_slice() else { panic!("it is accepted: {step:?}") };
        assert_eq!(message, newer, "with all that this version does not know");
    }
}

#[test]
fn a_further_delivery_of_a_held_job_adds_a_lease_and_no_run() {
    let twice = |id: &str| Lease { deliveries: Some(2), ..lease(id) };
    let mut daemon = Daemon::pulling(settings());
    let step = daemon.step(pulled(&[job("a", "L1"), second_delivery("a", "L2")]));
    assert_eq!(step.effects[0], Effect::Recall(ids(&["a"])), "it is asked after once");
    assert_eq!(daemon.step(recalled(&["a"])).facts, [accepted_with("a", twice("L2"))]);
    daemon.step(claimed("a", 1));
    let further = |daemon: &mut Daemon, lease_id: &str| {
        let step = daemon.step(pulled(&[second_delivery("a", lease_id)]));
        assert_eq!(step.facts, [Fact::Leased(id("a"), twice(lease_id))]);
        assert!(step.effects.iter().all(is_pull), "nothing but the next pull: {step:?}");
    };
    further(&mut daemon, "L3");
    daemon.step(ended("a", 1));
    further(&mut daemon, "L4");
    daemon.step(recorded("a", 1));
    further(&mut daemon, "L5");
    let effects = daemon.step(Event::Published(Ok(()))).effects;
    assert_eq!(effects, [acks(&["L1", "L2", "L3", "L4", "L5"])]);
}

#[test]
fn a_job_that_has_ended_before_is_only_acknowledged() {
    let mut daemon = Daemon::pulling(settings());
    daemon.step(pulled(&[second_delivery("a", "L1")]));
    let step = daemon.step(Event::Recalled(vec![(id("a"), Recalled::Ended(None))]));
    assert_eq!(step, Step { facts: vec![], effects: vec![acks(&["L1"])] });
    assert_eq!(daemon.state.held(), 0);
}

#[test]
fn a_job_that_has_ended_and_is_asked_for_again_is_answered_with_its_record() {
    let mut daemon = Daemon::pulling(settings());
    daemon.step(pulled(&[job("a", "L1")]));
    let step = daemon.step(Event::Recalled(vec![(id("a"), Recalled::Ended(Some(record("a"))))]));
    assert_eq!(step.facts, [Fact::Owed(id("a"), record("a"), lease("L1"))]);
    assert_eq!(step.effects, [publish(&["a"])], "it is not run");
    let step = daemon.step(Event::Published(Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Finished(id("a"))], effects: vec![acks(&["L1"])] });

    // The same message once more is not asked for by anybody.
    let mut daemon = Daemon::pulling(settings());
    daemon.step(pulled(&[second_delivery("a", "L1")]));
    let step = daemon.step(Event::Recalled(vec![(id("a"), Recalled::Ended(Some(record("a"))))]));
    assert_eq!(step, Step { facts: vec![], effects: vec![acks(&["L1"])] });
}

#[test]
fn a_job_that_goes_on_is_acknowledged_before_its_lease_lapses() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    assert_eq!(daemon.sleeps(), Some(EARLY_ACK));
    assert_eq!(daemon.tick(EARLY_ACK - MILLISECOND), []);
    assert_eq!(daemon.tick(MILLISECOND), [acks(&["L1"])]);
    assert!(daemon.book.entries[0].lease.is_some(), "the queue may still hold it");
    assert_eq!(daemon.step(Event::Settled(Ok(()))), Step { facts: vec![Fact::Acknowledged(id("a"))], effects: vec![] });
    daemon.finish("a");
    let step = daemon.step(Event::Published(Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Finished(id("a"))], effects: vec![] }, "once is enough");
}

#[test]
fn an_early_acknowledgement_is_repeated_until_the_queue_takes_it() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.tick(EARLY_ACK);
    let step = daemon.step(Event::Settled(Err(failure(FailureClass::Unavailable))));
    assert_eq!(step, Step { facts: vec![], effects: vec![trouble(SECOND)] });
    assert_eq!(daemon.tick(SECOND), [acks(&["L1"])]);
    let step = daemon.step(Event::Settled(Ok(())));
    assert_eq!(step.facts, [Fact::Acknowledged(id("a"))]);
    assert_eq!(step.effects, [Effect::Say(Notice::QueueBack)]);
}

#[test]
fn a_message_that_was_delivered_again_meanwhile_is_not_noted_as_acknowledged() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("a", job("a", "L1"));
    daemon.now += EARLY_ACK - SECOND;
    daemon.step(pulled(&[]));
    assert_eq!(daemon.tick(SECOND), [acks(&["L1"]), Effect::Pull(1)]);
    let fresh = Lease { id: "L2".to_owned(), until: daemon.now + 60 * SECOND, deliveries: Some(2) };
    assert_eq!(daemon.step(pulled(&[second_delivery("a", "L2")])).facts, [Fact::Leased(id("a"), fresh)]);
    assert_eq!(daemon.step(Event::Settled(Ok(()))).facts, []);
    daemon.finish("a");
    let effects = daemon.step(Event::Published(Ok(()))).effects;
    assert_eq!(effects, [acks(&["L2"])]);
}

#[test]
fn a_job_whose_lease_ran_out_before_it_was_accepted_is_left_to_the_queue() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.step(pulled(&[job("a", "L1")]));
    assert_eq!(daemon.tick(EARLY_ACK), [], "what is not ours is not acknowledged");
    let step = daemon.step(recalled(&["a"]));
    assert_eq!(step, Step { facts: vec![], effects: vec![Effect::Pull(1)] });
    assert_eq!(daemon.state.held(), 0);
}

#[test]
fn nothing_is_pulled_without_a_free_slot_and_what_comes_unasked_waits_for_one() {
    let mut daemon = Daemon::pulling(settings());
    let all = ["a", "b", "c"];
    let effects = daemon.step(pulled(&[job("a", "L1"), job("b", "L2"), job("c", "L3")])).effects;
    assert_eq!(effects, [Effect::Recall(ids(&all))], "nothing more is asked for");
    assert_eq!(daemon.step(recalled(&all)).effects, [claim("a", 0), claim("b", 0)]);
    assert_eq!(daemon.step(claimed("b", 1)).effects, [Effect::Start(run("b", 1))]);
    assert_eq!(daemon.step(claimed("a", 1)).effects, [Effect::Start(run("a", 1))]);
    assert_eq!(daemon.tick(30 * SECOND), []);
    let effects = daemon.step(ended("b", 1)).effects;
    assert_eq!(effects, [conclude("b", 1, seen()), claim("c", 0)]);
}

#[test]
fn as_many_jobs_are_pulled_ahead_as_have_ended_lately() {
    for (batch_size, ahead) in [(100, 3), (2, 2)] {
        let mut daemon = Daemon::pulling(Settings { batch_size, ..slots(1) });
        let all = ["a", "b", "c", "d"];
        daemon.step(pulled(&all.map(|job_id| job(job_id, job_id))));
        daemon.step(recalled(&all));
        for job_id in &all[..3] {
            daemon.step(claimed(job_id, 1));
            daemon.finish(job_id);
        }
        assert_eq!(daemon.step(claimed("d", 1)).effects, [Effect::Start(run("d", 1))]);
        daemon.step(pulled(&[]));
        assert_eq!(daemon.tick(SECOND), [Effect::Pull(ahead)], "the slot is taken, and will not be for long");
        daemon.step(pulled(&[]));
        assert_eq!(daemon.tick(lifecycle::AHEAD), [], "no job has ended lately");
        assert_eq!(only(&daemon.step(ended("d", 1)).effects, is_pull), [Effect::Pull(1)]);
    }
}

#[test]
fn a_batch_ahead_is_not_filled_up_one_by_one() {
    let mut daemon = Daemon::pulling(slots(1));
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    daemon.step(pulled(&all.map(|job_id| job(job_id, job_id))));
    daemon.step(recalled(&all));
    let mut pulls = Vec::new();
    for job_id in &all[..6] {
        daemon.step(claimed(job_id, 1));
        pulls.extend(only(&daemon.step(ended(job_id, 1)).effects, is_pull));
        pulls.extend(only(&daemon.step(recorded(job_id, 1)).effects, is_pull));
    }
    // Five have ended and three wait when a sixth frees the slot: there is room for three more, which is more than half
    // of the five that may wait. Before that it was never more than half.
    assert_eq!(pulls, [Effect::Pull(3)]);
}

#[test]
fn messages_that_are_no_jobs_are_put_away_and_settled() {
    let mut daemon = Daemon::pulling(settings());
    let messages = [("L1", "\u{0}binary"), ("L2", r#"{"v":9,"job_id":"b","task":"echo"}"#)]
        .map(|(lease_id, body)| Delivery { body: body.to_owned(), ..job("a", lease_id) });
    let effects = daemon.step(pulled(&messages)).effects;
    let whose = |effect: &Effect| match effect {
        Effect::PutAway { lease_id, job_id, .. } => (lease_id.clone(), job_id.clone()),
        other => panic!("{other:?}"),
    };
    let whose: Vec<_> = effects.iter().map(whose).collect();
    assert_eq!(whose, [("L1".to_owned(), None), ("L2".to_owned(), Some(id("b")))]);
    let stored = Event::PutAway { lease_id: "L1".to_owned(), record: None };
    assert_eq!(daemon.step(stored).effects, [acks(&["L1"])], "and no pull while one is being put away");
    let record = (id("b"), "rejected".to_owned());
    let step = daemon.step(Event::PutAway { lease_id: "L2".to_owned(), record: Some(record) });
    let lease = Lease { id: "L2".to_owned(), until: daemon.now, deliveries: None };
    assert_eq!(step.facts, [Fact::Owed(id("b"), "rejected".to_owned(), lease)]);
    assert_eq!(step.effects, [publish(&["b"]), Effect::Pull(2)]);
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [acks(&["L2"])], "its record is on disk");
    assert_eq!(daemon.step(Event::Settled(Ok(()))).facts, [Fact::Acknowledged(id("b"))]);
    let step = daemon.step(Event::Published(Ok(())));
    assert_eq!(step, Step { facts: vec![Fact::Finished(id("b"))], effects: vec![] });
}

#[test]
fn a_stray_message_does_not_take_the_place_of_a_job_of_the_same_pull() {
    let mut daemon = Daemon::pulling(settings());
    let stray = Delivery { body: r#"{"v":99,"job_id":"a","task":"echo"}"#.to_owned(), ..job("a", "L1") };
    let effects = daemon.step(pulled(&[stray, job("a", "L2")])).effects;
    assert_eq!(effects[0], Effect::Recall(ids(&["a"])));
    assert!(matches!(&effects[1..], [Effect::PutAway { job_id: None, .. }]), "{effects:?}");
}

#[test]
fn a_job_that_names_no_task_is_put_away_or_has_the_default_one_and_is_stored_with_it() {
    let old = || Delivery { body: r#"{"job_id":"a","input":1}"#.to_owned(), ..job("a", "L1") };
    let effects = Daemon::pulling(settings()).step(pulled(&[old()])).effects;
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PutAway { .. })), "{effects:?}");

    let mut daemon = Daemon::pulling(Settings { default_task: Some("run".to_owned()), ..settings() });
    let effects = daemon.step(pulled(&[old()])).effects;
    assert_eq!(effects[0], Effect::Recall(ids(&["a"])));
    let facts = daemon.step(recalled(&["a"])).facts;
    let stored = r#"{"job_id":"a","input":1,"task":"run"}"#;
    assert!(matches!(&facts[..], [Fact::Accepted { message, .. }] if message == stored), "{facts:?}");
}

#[test]
fn a_message_that_cannot_be_put_away_goes_back_and_the_node_is_broken() {
    let mut daemon = Daemon::pulling(settings());
    daemon.step(pulled(&[Delivery { body: "no job".to_owned(), ..job("a", "L1") }]));
    let failed = Event::PutAwayFailed { lease_id: "L1".to_owned(), problem: "disk full".into() };
    assert_eq!(daemon.step(failed).effects, [broken("disk full"), back(&["L1"], 60 * SECOND)]);
}

#[test]
fn empty_pulls_slow_down_and_a_message_speeds_up_again() {
    let mut daemon = Daemon::pulling(settings());
    for pause in [1, 2, 4, 8, 8] {
        assert_eq!(daemon.step(pulled(&[])).effects, []);
        assert_eq!(daemon.sleeps(), Some(pause * SECOND));
        assert_eq!(daemon.tick(pause * SECOND), [Effect::Pull(2)]);
    }
    assert_eq!(daemon.step(pulled(&[job("a", "L1")])).effects[1..], [Effect::Pull(1)]);
    daemon.step(pulled(&[]));
    assert_eq!(daemon.sleeps(), Some(SECOND));
}

#[test]
fn after_a_pull_that_was_held_there_is_no_pause_but_what_is_left_of_the_shortest() {
    let mut daemon = Daemon::pulling(settings());
    let held = |held, deliveries: &[Delivery]| {
        Event::Pulled(Ok(Pulled { held: Some(held), deliveries: deliveries.to_vec(), spared: false }))
    };
    for _ in 0..3 {
        daemon.now += 5 * SECOND;
        assert_eq!(daemon.step(held(5 * SECOND, &[])).effects, [Effect::Pull(2)]);
    }
    // A queue that says so and yet answers at once, as one that stops does, is not asked again and again.
    assert_eq!(daemon.step(held(Duration::ZERO, &[])).effects, []);
    assert_eq!(daemon.sleeps(), Some(SECOND));
    assert_eq!(daemon.tick(SECOND), [Effect::Pull(2)]);
    // One that is not held any more slows down from the beginning.
    daemon.step(pulled(&[]));
    assert!(daemon.sleeps() <= Some(2 * SECOND), "{:?}", daemon.sleeps());
}

#[test]
fn a_lease_is_counted_from_the_end_of_the_hold_and_never_from_the_future() {
    let until = |held: Duration, passed: Duration| {
        let mut daemon = Daemon::pulling(settings());
        let begun = daemon.now;
        daemon.now += passed;
        daemon.step(Event::Pulled(Ok(Pulled { held: Some(held), deliveries: vec![job("a", "L1")], spared: false })));
        let step = daemon.step(Event::Recalled(vec![(id("a"), Recalled::New)]));
        let [Fact::Accepted { origin: Origin::Queue(lease), .. }] = step.facts.as_slice() else { panic!("{step:?}") };
        lease.until - begun
    };
    let lease = settings().lease;
    assert_eq!(until(20 * SECOND, 21 * SECOND), 20 * SECOND + lease);
    assert_eq!(until(1_000_000 * SECOND, 21 * SECOND), 21 * SECOND + lease, "whatever the other end says");
}

#[test]
fn what_is_on_its_way_is_not_waited_for_by_the_clock() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(job("a", "L1"));
    daemon.step(Event::Claimed(id("a"), Claimed::Finished(record("a"))));
    // The pull, the push and soon the acknowledgement are under way; only the keeper is looked at by the clock.
    assert_eq!(daemon.tick(EARLY_ACK), [acks(&["L1"])]);
    assert_eq!(daemon.sleeps(), Some(20 * SECOND));
    assert_eq!(daemon.tick(20 * SECOND), [Effect::Observe]);
    assert_eq!(daemon.sleeps(), None);
}

#[test]
fn a_result_among_the_jobs_is_given_back_and_ends_the_daemon_as_wrong_settings_do() {
    let mut daemon = Daemon::pulling(settings());
    daemon.start("owed", job("owed", "L0"));
    daemon.step(pulled(&[]));
    daemon.tick(SECOND);
    let body = r#"{"v":1,"job_id":"b","task":"echo","status":"completed","result_pointer":"file://host/b.json"}"#;
    let result = Delivery { body: body.to_owned(), ..job("b", "L1") };
    let step = daemon.step(pulled(&[result, job("c", "L2")]));
    assert_eq!(only(&step.effects, |effect| matches!(effect, Effect::PutAway { .. })), []);
    assert!(step.effects.contains(&back(&["L1"], Duration::ZERO)), "{step:?}");
    // What comes to an end meanwhile is not sent to a queue that may be the wrong one, and the job that came with it
    // goes back.
    daemon.step(Event::Settled(Ok(())));
    let effects = daemon.step(recalled(&["c"])).effects;
    assert!(effects.contains(&back(&["L2"], Duration::ZERO)), "{effects:?}");
    daemon.step(ended("owed", 1));
    let effects = daemon.step(recorded("owed", 1)).effects;
    assert_eq!(only(&effects, is_publish), []);
    let effects = daemon.step(Event::Settled(Ok(()))).effects;
    let [.., Effect::Fail(Fatal::WrongSettings(why))] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(why.contains("CF_JOBS_QUEUE_ID and CF_RESULTS_QUEUE_ID are swapped"), "{why}");
}
