//! Results on their way to the queue, and a queue that fails.

use super::*;

fn published(outcome: Result<(), FailureClass>) -> Event {
    Event::Published(outcome.map_err(failure))
}

/// A daemon that finds so many results of this size.
fn owing(results: usize, bytes: usize) -> Daemon {
    let facts = (0..results).flat_map(|number| {
        let job_id = format!("job{number}");
        [accepted(&job_id, &job_id), Fact::Recorded(id(&job_id), "x".repeat(bytes))]
    });
    Daemon::restore(settings(), &facts.collect::<Vec<_>>())
}

#[test]
fn results_are_pushed_until_the_queue_takes_them_and_only_then_acknowledged() {
    let mut daemon = Daemon::pulling(Settings { lease: 3_600 * SECOND, ..settings() });
    daemon.start("a", job("a", "L1"));
    assert!(daemon.finish("a").effects.contains(&publish(&["a"])));
    for (try_number, pause) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let effects = daemon.step(published(Err(FailureClass::Unavailable))).effects;
        let said = if try_number == 0 { vec![trouble(SECOND)] } else { vec![] };
        assert_eq!(effects, said, "the trouble is said once");
        assert_eq!(only(&daemon.tick(pause * SECOND - MILLISECOND), is_publish), []);
        assert_eq!(only(&daemon.tick(MILLISECOND), is_publish), [publish(&["a"])]);
    }
    let step = daemon.step(published(Ok(())));
    assert_eq!(step.facts, [Fact::Finished(id("a"))]);
    assert_eq!(step.effects, [Effect::Say(Notice::QueueBack), acks(&["L1"])]);
}

#[test]
fn under_load_results_and_acknowledgements_are_gathered_and_in_quiet_they_go_at_once() {
    let mut daemon = Daemon::pulling(slots(4));
    for (job_id, lease_id) in [("a", "L1"), ("b", "L2"), ("c", "L3"), ("d", "L4")] {
        daemon.start(job_id, job(job_id, lease_id));
    }
    assert_eq!(only(&daemon.finish("a").effects, is_publish), [publish(&["a"])], "the first goes at once");
    assert_eq!(daemon.step(published(Ok(()))).effects, [acks(&["L1"])]);
    daemon.step(Event::Settled(Ok(())));
    daemon.now += 10 * MILLISECOND;
    assert_eq!(only(&daemon.finish("b").effects, is_publish), []);
    daemon.now += 10 * MILLISECOND;
    assert_eq!(only(&daemon.finish("c").effects, is_publish), []);
    assert_eq!(daemon.sleeps(), Some(80 * MILLISECOND), "a tenth of a second after the last push");
    assert_eq!(daemon.tick(80 * MILLISECOND), [publish(&["b", "c"])]);
    assert_eq!(daemon.step(published(Ok(()))).effects, []);
    assert_eq!(daemon.sleeps(), Some(900 * MILLISECOND), "a second after the last acknowledgement");
    assert_eq!(daemon.tick(900 * MILLISECOND), [acks(&["L2", "L3"])]);
    daemon.step(Event::Settled(Ok(())));
    // With the last job nothing can follow soon.
    assert_eq!(daemon.finish("d").effects[1..], [publish(&["d"])]);
    assert_eq!(daemon.step(published(Ok(()))).effects, [acks(&["L4"])]);
}

#[test]
fn a_push_holds_what_one_request_may_hold() {
    let mut daemon = owing(101, 10);
    let sizes = |effects: &[Effect]| -> Vec<usize> {
        let size = |effect: &Effect| match effect {
            Effect::Publish(jobs) => Some(jobs.len()),
            _ => None,
        };
        effects.iter().filter_map(size).collect()
    };
    assert_eq!(sizes(&daemon.step(Event::Tick).effects), [100]);
    assert_eq!(sizes(&daemon.step(published(Ok(()))).effects), [1]);

    let mut daemon = owing(3, 100_000);
    assert_eq!(sizes(&daemon.step(Event::Tick).effects), [2]);
    assert_eq!(sizes(&daemon.step(published(Ok(()))).effects), [1]);

    let mut daemon = owing(2, 300_000);
    assert_eq!(sizes(&daemon.step(Event::Tick).effects), [1], "the queue is to say that it is too large");
}

#[test]
fn no_more_jobs_are_taken_while_too_many_results_are_owed() {
    let entry = |number: usize| lifecycle::Entry {
        job_id: id(&format!("job{number}")),
        launched: None,
        message: None,
        stage: Stage::Recorded(1),
        attempt: Some(Attempt::FIRST),
        terms: Terms::default(),
        failures: Failures::default(),
        lease: None,
        parent: None,
        service: None,
        idle_since: None,
        parking: None,
        unwanted: false,
        since: START,
    };
    // Without the check after each step, which would compare each result with each other.
    let mut state = Lifecycle::restore(settings(), (0..10_000).map(entry).collect(), START);
    state.step(Event::Tick, START);
    state.step(observed(&[]), START);
    assert_eq!(state.step(looked(Ok(())), START).effects, []);
    assert_eq!(only(&state.step(published(Ok(())), START).effects, is_pull), [Effect::Pull(2)]);
}

#[test]
fn a_result_that_is_refused_does_not_hold_up_the_others() {
    let mut daemon = Daemon::pulling(slots(3));
    for (job_id, lease_id) in [("a", "L1"), ("b", "L2"), ("c", "L3")] {
        daemon.start(job_id, job(job_id, lease_id));
    }
    daemon.finish("a");
    daemon.finish("b");
    daemon.finish("c");
    assert_eq!(only(&daemon.step(published(Ok(()))).effects, is_publish), [publish(&["b", "c"])]);
    daemon.step(Event::Settled(Ok(())));
    // Refused together, they go in smaller batches, and what is refused alone waits for the others.
    assert_eq!(daemon.step(published(Err(FailureClass::Refused))).effects, [trouble(SECOND)]);
    assert_eq!(daemon.tick(SECOND), [publish(&["b"])]);
    assert_eq!(daemon.step(published(Err(FailureClass::Refused))).effects, [publish(&["c"])]);
    let step = daemon.step(published(Ok(())));
    assert_eq!(step.facts, [Fact::Finished(id("c"))]);
    assert_eq!(step.effects, [Effect::Say(Notice::QueueBack), publish(&["b"]), acks(&["L3"])]);
    daemon.step(Event::Settled(Ok(())));
    // The queue takes results, and not this one.
    let step = daemon.step(published(Err(FailureClass::Refused)));
    let given_up = Notice::ResultRefused { job_id: id("b"), what: "it failed".to_owned() };
    assert_eq!(step.facts, [Fact::Finished(id("b"))]);
    assert_eq!(step.effects, [trouble(SECOND), Effect::Say(given_up), Effect::Say(Notice::QueueBack), acks(&["L2"])]);
}

#[test]
fn a_queue_that_refuses_everything_for_a_time_costs_no_result() {
    let mut daemon = owing(3, 10);
    daemon.step(Event::Tick);
    for _ in 0..100 {
        let effects = daemon.step(published(Err(FailureClass::Refused))).effects;
        assert_eq!(only(&effects, |effect| matches!(effect, Effect::Say(Notice::ResultRefused { .. }))), []);
        if only(&effects, is_publish).is_empty() {
            daemon.until(is_publish);
        }
    }
    assert!(daemon.now - START > 90 * 60 * SECOND, "it is asked once a minute, whatever waits");
    assert_eq!(daemon.state.owed(), 3);
    let mut rest = daemon.step(published(Ok(()))).effects;
    while let Some(effect) = rest.pop() {
        rest.extend(daemon.answer(&effect).map(|event| daemon.step(event).effects).unwrap_or_default());
    }
    assert_eq!(daemon.state.held(), 0);
}

#[test]
fn after_a_refusal_batches_grow_again() {
    let mut daemon = owing(200, 10);
    daemon.step(Event::Tick);
    let size = |effects: &[Effect]| match only(effects, is_publish).as_slice() {
        [Effect::Publish(batch)] => batch.len(),
        other => panic!("{other:?}"),
    };
    daemon.step(published(Err(FailureClass::Refused)));
    let mut effects = daemon.tick(SECOND);
    assert_eq!(size(&effects), 50);
    effects = daemon.step(published(Ok(()))).effects;
    assert_eq!(size(&effects), 100);
}

#[test]
fn a_request_settles_what_one_request_may_hold() {
    let mut daemon = owing(250, 10);
    daemon.step(Event::Tick);
    let sizes = |effects: &[Effect]| -> Vec<usize> {
        let size = |effect: &Effect| match effect {
            Effect::Settle { acks, retries } => Some(acks.len() + retries.len()),
            _ => None,
        };
        effects.iter().filter_map(size).collect()
    };
    assert_eq!(sizes(&daemon.step(published(Ok(()))).effects), [100]);
    assert!(sizes(&daemon.step(published(Ok(()))).effects).is_empty(), "one request at a time");
    assert!(sizes(&daemon.step(published(Ok(()))).effects).is_empty());
    assert_eq!(sizes(&daemon.step(Event::Settled(Ok(()))).effects), [100]);
    assert_eq!(sizes(&daemon.step(Event::Settled(Ok(()))).effects), [50]);
    assert!(sizes(&daemon.step(Event::Settled(Ok(()))).effects).is_empty());
}

#[test]
fn leases_that_are_refused_are_not_sent_again() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.tick(EARLY_ACK);
    let step = daemon.step(Event::Settled(Err(failure(FailureClass::Refused))));
    // It may be delivered again; of the queue nothing is wanted any more.
    assert_eq!(step, Step { facts: vec![], effects: vec![trouble(SECOND), Effect::Say(Notice::QueueBack)] });
    assert_eq!(daemon.tick(10 * SECOND), []);
}

#[test]
fn failures_of_the_queue_are_met_by_class() {
    let cases = [
        (FailureClass::Paused, 30),
        // Until midnight, and two minutes.
        (FailureClass::QuotaExhausted, 86_400 - START.as_secs() % 86_400 + 120),
        (FailureClass::Throttled(Some(7 * SECOND)), 7),
        (FailureClass::Throttled(None), 1),
        (FailureClass::Unavailable, 1),
        (FailureClass::PullNotEnabled, 1),
    ];
    for (class, pause) in cases {
        let mut daemon = Daemon::pulling(settings());
        let effects = daemon.step(Event::Pulled(Err(failure(class)))).effects;
        assert_eq!(effects, [trouble(Duration::from_secs(pause))], "{class:?}");
        assert_eq!(daemon.until(is_pull), Duration::from_secs(pause), "{class:?}");
        assert_eq!(daemon.step(pulled(&[])).effects, [Effect::Say(Notice::QueueBack)]);
    }
}

#[test]
fn a_queue_that_stays_without_pull_consumer_is_a_mistake() {
    let mut daemon = Daemon::pulling(settings());
    let mut effects = daemon.step(Event::Pulled(Err(failure(FailureClass::PullNotEnabled)))).effects;
    while effects != [Effect::Fail(Fatal::Refused("it failed".to_owned()))] {
        assert!(daemon.now < START + 120 * SECOND, "it must give up");
        daemon.until(is_pull);
        effects = daemon.step(Event::Pulled(Err(failure(FailureClass::PullNotEnabled)))).effects;
    }
    assert!(daemon.now >= START + 60 * SECOND, "a new consumer needs some time");
}

#[test]
fn a_refused_result_has_its_turn_however_many_others_there_are() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.finish("a");
    daemon.step(published(Err(FailureClass::Refused)));
    let mut given_up = 0;
    let mut most_owed = 0;
    for number in 0..200 {
        daemon.now += SECOND;
        let name = format!("job{number}");
        let delivered = pulled(&[job(&name, &name)]);
        for event in [delivered, recalled(&[&name]), claimed(&name, 1), ended(&name, 1), recorded(&name, 1)] {
            let mut effects = VecDeque::from(daemon.step(event).effects);
            while let Some(effect) = effects.pop_front() {
                given_up += usize::from(matches!(effect, Effect::Say(Notice::ResultRefused { .. })));
                let event = match &effect {
                    Effect::Publish(jobs) if jobs.contains(&id("a")) => Some(published(Err(FailureClass::Refused))),
                    // The queue has more; it comes as the next job.
                    Effect::Pull(_) => None,
                    effect => daemon.answer(effect),
                };
                effects.extend(event.map(|event| daemon.step(event).effects).unwrap_or_default());
            }
        }
        most_owed = most_owed.max(daemon.state.owed());
    }
    assert!(most_owed < 10, "the others are published meanwhile: {most_owed}");
    assert_eq!(given_up, 1);
    assert_eq!(daemon.state.phase_of(&id("a")), None);
}

#[test]
fn a_daemon_that_ends_when_it_is_idle_does_not_wait_for_ever_for_a_queue_that_refuses() {
    let mut daemon = owing(1, 10);
    daemon.state =
        Lifecycle::restore(Settings { exit_when_idle: true, ..settings() }, daemon.book.entries.clone(), START);
    let mut effects = VecDeque::from(daemon.step(Event::Tick).effects);
    let mut ended = false;
    for _ in 0..1_000 {
        while let Some(effect) = effects.pop_front() {
            ended |= effect == Effect::Exit;
            let event = match &effect {
                Effect::Publish(_) => Some(published(Err(FailureClass::Refused))),
                effect => daemon.answer(effect),
            };
            effects.extend(event.map(|event| daemon.step(event).effects).unwrap_or_default());
        }
        let Some(at) = daemon.state.wake_at() else { break };
        daemon.now = at;
        effects.extend(daemon.step(Event::Tick).effects);
    }
    assert!(ended && daemon.now < START + 600 * SECOND);
    assert_eq!(daemon.book.entries.len(), 1, "it is the next one's");
}
