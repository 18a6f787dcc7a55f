//! The rules of the lifecycle, one small history each: events in, effects out, and nothing unexpected left over.

use std::time::Duration;

use lifecycle::{Delivery, Effect, Event, Failure, Lifecycle, Notice, RunEnd, Settings};
use protocol::{FailureClass, JobId};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        slots: 2,
        batch_size: 100,
        poll_interval: SECOND,
        poll_interval_max: 8 * SECOND,
        retry_delay: 60 * SECOND,
        exit_when_idle: false,
    }
}

/// A lifecycle whose node is ready and whose first pull is on its way.
fn pulling(settings: Settings) -> Lifecycle {
    let slots = settings.slots;
    let mut state = Lifecycle::new(settings);
    assert_eq!(state.step(Event::Tick, Duration::ZERO), [Effect::Probe]);
    assert_eq!(state.step(Event::Probed(Ok(())), Duration::ZERO), [Effect::Pull(slots)]);
    state
}

fn job(id: &str, lease: &str) -> Delivery {
    Delivery { lease_id: lease.to_owned(), body: format!(r#"{{"v":1,"job_id":"{id}","task":"echo","input":null}}"#) }
}

fn id(text: &str) -> JobId {
    text.parse().expect("the tests use valid ids")
}

fn failure(class: FailureClass) -> Failure {
    Failure { class, what: "it failed".to_owned(), jitter: 1.0 }
}

fn recorded(text: &str) -> Event {
    Event::RunEnded(id(text), RunEnd::Recorded(format!("record of {text}")))
}

fn acks(leases: &[&str]) -> Effect {
    Effect::Settle { acks: leases.iter().map(ToString::to_string).collect(), retries: vec![] }
}

fn step(state: &mut Lifecycle, event: Event, now: Duration) -> Vec<Effect> {
    let effects = state.step(event, now);
    state.check().expect("the invariants hold after every step");
    effects
}

fn runs(effects: &[Effect]) -> Vec<String> {
    let run = |effect: &Effect| match effect {
        Effect::Run(job) => Some(job.job_id.to_string()),
        _ => None,
    };
    effects.iter().filter_map(run).collect()
}

#[test]
fn a_job_is_run_published_acknowledged_and_forgotten() {
    let mut state = pulling(settings());
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    assert_eq!(runs(&effects), ["a"]);
    assert_eq!(effects[1..], [Effect::Pull(1)], "one slot is taken, one is asked for");
    assert_eq!(step(&mut state, recorded("a"), SECOND), [Effect::Publish(vec!["record of a".to_owned()])]);
    assert_eq!(step(&mut state, Event::Published(Ok(())), SECOND), [acks(&["L1"])]);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), SECOND), []);
    assert_eq!((state.running(), state.owed()), (0, 0));
}

#[test]
fn a_slot_is_free_when_the_processes_of_its_job_are_gone() {
    let mut state = pulling(Settings { slots: 1, ..settings() });
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    assert_eq!(effects.len(), 1, "no slot, no pull");
    assert_eq!(step(&mut state, Event::RunExited(id("a")), SECOND), [Effect::Pull(1)]);
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("b", "L2"), job("a", "L3")])), SECOND);
    assert_eq!((runs(&effects), effects.len()), (vec!["b".to_owned()], 1), "a is still held");
    step(&mut state, Event::Drain, SECOND);
    step(&mut state, recorded("b"), SECOND);
    step(&mut state, Event::Published(Ok(())), SECOND);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), SECOND), [], "a has no record yet");
    assert_eq!(step(&mut state, recorded("a"), SECOND), [Effect::Publish(vec!["record of a".to_owned()])]);
    assert_eq!(step(&mut state, Event::Published(Ok(())), SECOND), [acks(&["L1", "L3"])]);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), SECOND), [Effect::Exit]);
}

#[test]
fn a_further_delivery_of_a_held_job_is_settled_without_a_second_run() {
    let mut state = pulling(settings());
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L1"), job("a", "L2")])), SECOND);
    assert_eq!(runs(&effects), ["a"]);
    assert_eq!(runs(&step(&mut state, Event::Pulled(Ok(vec![job("a", "L3")])), SECOND)), Vec::<String>::new());
    step(&mut state, recorded("a"), SECOND);
    let effects = step(&mut state, Event::Published(Ok(())), SECOND);
    assert_eq!(effects, [acks(&["L1", "L2", "L3"])]);
}

#[test]
fn nothing_is_pulled_without_a_free_slot_and_what_comes_unasked_goes_back_at_once() {
    let mut state = pulling(settings());
    let three = vec![job("a", "L1"), job("b", "L2"), job("c", "L3")];
    let effects = step(&mut state, Event::Pulled(Ok(three)), SECOND);
    assert_eq!(runs(&effects), ["a", "b"]);
    let back = Effect::Settle { acks: vec![], retries: vec![("L3".to_owned(), Duration::ZERO)] };
    assert_eq!(effects[2..], [back]);
    step(&mut state, Event::Settled(Ok(())), SECOND);
    assert_eq!(step(&mut state, Event::Tick, 100 * SECOND), []);
}

#[test]
fn a_broken_node_gives_the_job_back_and_pulls_again_only_after_a_probe() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    let broken = Event::RunEnded(id("a"), RunEnd::NodeBroken("disk full".to_owned()));
    let effects = step(&mut state, broken, SECOND);
    let back = Effect::Settle { acks: vec![], retries: vec![("L1".to_owned(), 60 * SECOND)] };
    assert_eq!(effects, [Effect::Say(Notice::NodeBroken("disk full".to_owned())), back]);
    step(&mut state, Event::Settled(Ok(())), SECOND);
    // The pull that was on its way comes back empty, and no other follows.
    assert_eq!(step(&mut state, Event::Pulled(Ok(vec![])), 2 * SECOND), []);
    assert_eq!(step(&mut state, Event::Tick, 5 * SECOND), []);
    assert_eq!(state.wake_at(), Some(11 * SECOND));
    assert_eq!(step(&mut state, Event::Tick, 11 * SECOND), [Effect::Probe]);
    assert_eq!(step(&mut state, Event::Probed(Err("disk full".to_owned())), 11 * SECOND), [], "it is said once");
    assert_eq!(step(&mut state, Event::Tick, 21 * SECOND), [Effect::Probe]);
    let effects = step(&mut state, Event::Probed(Ok(())), 21 * SECOND);
    assert_eq!(effects, [Effect::Say(Notice::NodeReady), Effect::Pull(1)], "one job is tried first");
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L2")])), 22 * SECOND);
    assert_eq!((runs(&effects).len(), effects.len()), (1, 1), "and no other until it has ended");
    let effects = step(&mut state, recorded("a"), 23 * SECOND);
    assert_eq!(effects[1..], [Effect::Pull(2)], "then the node is trusted again");
}

#[test]
fn a_node_that_passes_its_probe_and_breaks_again_is_looked_at_less_and_less() {
    let mut state = pulling(settings());
    let mut now = SECOND;
    for (lease, pause) in [("L1", 10), ("L2", 20), ("L3", 40)] {
        step(&mut state, Event::Pulled(Ok(vec![job("a", lease)])), now);
        step(&mut state, Event::RunEnded(id("a"), RunEnd::NodeBroken("no".to_owned())), now);
        step(&mut state, Event::Settled(Ok(())), now);
        // A pull may be on its way.
        step(&mut state, Event::Pulled(Ok(vec![])), now);
        assert_eq!(state.wake_at(), Some(now + pause * SECOND));
        now += pause * SECOND;
        assert_eq!(step(&mut state, Event::Tick, now), [Effect::Probe]);
        let effects = step(&mut state, Event::Probed(Ok(())), now);
        assert!(effects.contains(&Effect::Say(Notice::NodeReady)));
        now += 2 * SECOND;
        step(&mut state, Event::Tick, now);
    }
}

#[test]
fn a_new_cause_of_a_broken_node_is_said() {
    let mut state = Lifecycle::new(settings());
    step(&mut state, Event::Tick, Duration::ZERO);
    let broken = |what: &str| Event::Probed(Err(what.to_owned()));
    let said = |what: &str| Effect::Say(Notice::NodeBroken(what.to_owned()));
    assert_eq!(step(&mut state, broken("no apptainer"), Duration::ZERO), [said("no apptainer")]);
    for (seconds, what, effects) in
        [(10, "no apptainer", vec![]), (20, "no image", vec![said("no image")]), (30, "no image", vec![])]
    {
        step(&mut state, Event::Tick, seconds * SECOND);
        assert_eq!(step(&mut state, broken(what), seconds * SECOND), effects);
    }
}

#[test]
fn what_is_pulled_while_the_node_breaks_or_the_daemon_drains_goes_back() {
    let mut state = pulling(settings());
    step(&mut state, Event::Drain, SECOND);
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    assert_eq!(effects, [Effect::Settle { acks: vec![], retries: vec![("L1".to_owned(), Duration::ZERO)] }]);

    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    step(&mut state, Event::RunEnded(id("a"), RunEnd::NodeBroken("no".to_owned())), SECOND);
    step(&mut state, Event::Settled(Ok(())), SECOND);
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("b", "L2")])), SECOND);
    assert_eq!(effects, [Effect::Settle { acks: vec![], retries: vec![("L2".to_owned(), 60 * SECOND)] }]);
}

#[test]
fn a_stray_message_does_not_take_the_place_of_a_job_of_the_same_pull() {
    let mut state = pulling(settings());
    let stray = Delivery { lease_id: "L1".to_owned(), body: r#"{"v":2,"job_id":"a","task":"echo"}"#.to_owned() };
    let effects = step(&mut state, Event::Pulled(Ok(vec![stray, job("a", "L2")])), SECOND);
    assert_eq!(runs(&effects), ["a"]);
    assert!(matches!(&effects[1], Effect::PutAway { job_id: None, .. }), "{effects:?}");
}

#[test]
fn when_nothing_gets_better_running_jobs_still_end_and_are_published() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    let effects = step(&mut state, Event::Pulled(Err(failure(FailureClass::Fatal))), SECOND);
    assert_eq!(effects, [Effect::Say(Notice::CannotGoOn { what: "it failed".to_owned(), running: 1 })]);
    assert_eq!(step(&mut state, Event::Tick, 100 * SECOND), [], "nothing more is taken");
    assert_eq!(step(&mut state, recorded("a"), 100 * SECOND), [Effect::Publish(vec!["record of a".to_owned()])]);
    assert_eq!(step(&mut state, Event::Published(Ok(())), 100 * SECOND), [acks(&["L1"])]);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), 100 * SECOND), [Effect::Fail("it failed".to_owned())]);

    // The same where the results are refused as well: tried once, and said.
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    step(&mut state, Event::Pulled(Err(failure(FailureClass::Fatal))), SECOND);
    step(&mut state, recorded("a"), SECOND);
    let effects = step(&mut state, Event::Published(Err(failure(FailureClass::Fatal))), SECOND);
    assert_eq!(effects, [Effect::Say(Notice::LeftOver { results: 1 }), Effect::Fail("it failed".to_owned())]);
}

#[test]
fn a_result_that_is_refused_does_not_hold_up_the_others() {
    let mut state = pulling(Settings { slots: 3, ..settings() });
    let jobs = vec![job("a", "L1"), job("b", "L2"), job("c", "L3")];
    step(&mut state, Event::Pulled(Ok(jobs)), SECOND);
    step(&mut state, recorded("a"), SECOND);
    step(&mut state, recorded("b"), SECOND);
    step(&mut state, recorded("c"), SECOND);
    step(&mut state, Event::Published(Ok(())), SECOND);
    // b and c are on their way together, and refused; then one by one.
    let mut now = SECOND;
    let mut refused = |state: &mut Lifecycle| {
        let mut effects = step(state, Event::Published(Err(failure(FailureClass::Refused))), now);
        now += 100 * SECOND;
        effects.extend(step(state, Event::Tick, now));
        effects
    };
    let publish = |ids: &[&str]| Effect::Publish(ids.iter().map(|id| format!("record of {id}")).collect());
    assert!(refused(&mut state).contains(&publish(&["b"])));
    let effects = refused(&mut state);
    let given_up = Notice::ResultRefused { job_id: id("b"), what: "it failed".to_owned() };
    assert!(effects.contains(&Effect::Say(given_up)) && effects.contains(&publish(&["c"])), "{effects:?}");
    step(&mut state, Event::Published(Ok(())), 1_000 * SECOND);
    assert_eq!((state.owed(), state.running()), (0, 0));
}

#[test]
fn told_to_stop_it_does_not_wait_for_a_queue_that_is_away() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    step(&mut state, Event::Pulled(Ok(vec![])), SECOND);
    step(&mut state, Event::Stop, SECOND);
    step(&mut state, Event::RunEnded(id("a"), RunEnd::Stopped), SECOND);
    step(&mut state, Event::Settled(Err(failure(FailureClass::Unavailable))), SECOND);
    let mut now = SECOND;
    loop {
        assert!(now < 20 * SECOND);
        now = state.wake_at().expect("it has something to do");
        let effects = step(&mut state, Event::Tick, now);
        if effects.contains(&Effect::Exit) {
            break;
        }
        step(&mut state, Event::Settled(Err(failure(FailureClass::Unavailable))), now);
    }
    assert_eq!(now, 11 * SECOND);
}

#[test]
fn messages_that_are_no_jobs_are_put_away_and_settled() {
    let mut state = pulling(settings());
    let bodies = ["\u{0}binary", r#"{"v":9,"job_id":"b","task":"echo"}"#];
    let messages = bodies.map(|body| Delivery { lease_id: body.to_owned(), body: body.to_owned() });
    let effects = step(&mut state, Event::Pulled(Ok(messages.to_vec())), SECOND);
    let ids: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::PutAway { job_id, .. } => job_id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [None, Some(id("b"))]);
    let stored = Event::PutAway { lease_id: bodies[0].to_owned(), record: None };
    assert_eq!(step(&mut state, stored, SECOND), [acks(&[bodies[0]])]);
    let stored = Event::PutAway { lease_id: bodies[1].to_owned(), record: Some((id("b"), "rejected b".to_owned())) };
    let effects = step(&mut state, stored, SECOND);
    assert_eq!(effects, [Effect::Publish(vec!["rejected b".to_owned()]), Effect::Pull(2)]);
    step(&mut state, Event::Settled(Ok(())), SECOND);
    assert_eq!(step(&mut state, Event::Published(Ok(())), SECOND), [acks(&[bodies[1]])]);
}

#[test]
fn empty_pulls_slow_down_and_a_message_speeds_up_again() {
    let mut state = pulling(settings());
    let mut now = Duration::ZERO;
    for pause in [1, 2, 4, 8, 8] {
        assert_eq!(step(&mut state, Event::Pulled(Ok(vec![])), now), []);
        assert_eq!(state.wake_at(), Some(now + pause * SECOND));
        now += pause * SECOND;
        assert_eq!(step(&mut state, Event::Tick, now), [Effect::Pull(2)]);
    }
    let effects = step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), now);
    assert_eq!(effects[1..], [Effect::Pull(1)]);
    step(&mut state, Event::Pulled(Ok(vec![])), now);
    assert_eq!(state.wake_at(), Some(now + SECOND));
}

#[test]
fn results_are_pushed_until_the_queue_takes_them_and_only_then_acknowledged() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    let mut now = SECOND;
    let publish = Effect::Publish(vec!["record of a".to_owned()]);
    assert_eq!(step(&mut state, recorded("a"), now), std::slice::from_ref(&publish));
    for (try_number, pause) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let effects = step(&mut state, Event::Published(Err(failure(FailureClass::Unavailable))), now);
        assert_eq!(effects.len(), usize::from(try_number == 0), "the trouble is said once");
        assert_eq!(step(&mut state, Event::Tick, now + pause * SECOND - Duration::from_millis(1)), []);
        now += pause * SECOND;
        assert_eq!(step(&mut state, Event::Tick, now), std::slice::from_ref(&publish));
    }
    assert_eq!(step(&mut state, Event::Published(Ok(())), now), [Effect::Say(Notice::QueueBack), acks(&["L1"])]);
}

#[test]
fn failures_of_the_queue_are_met_by_class() {
    let cases = [
        (FailureClass::Paused, 30),
        (FailureClass::QuotaExhausted, 900),
        (FailureClass::Throttled(Some(7 * SECOND)), 7),
        (FailureClass::Throttled(None), 1),
        (FailureClass::Unavailable, 1),
        (FailureClass::PullNotEnabled, 1),
    ];
    for (class, pause) in cases {
        let mut state = pulling(settings());
        step(&mut state, Event::Pulled(Err(failure(class))), SECOND);
        assert_eq!(state.wake_at(), Some(SECOND + pause * SECOND), "{class:?}");
    }
    let mut state = pulling(settings());
    let effects = step(&mut state, Event::Pulled(Err(failure(FailureClass::Fatal))), SECOND);
    assert_eq!(effects, [Effect::Fail("it failed".to_owned())]);
}

#[test]
fn a_queue_that_stays_without_pull_consumer_is_a_mistake() {
    let mut state = pulling(settings());
    let mut now = Duration::ZERO;
    loop {
        let effects = step(&mut state, Event::Pulled(Err(failure(FailureClass::PullNotEnabled))), now);
        if effects == [Effect::Fail("it failed".to_owned())] {
            break;
        }
        assert!(now < 120 * SECOND, "it must give up");
        now = state.wake_at().expect("it tries again");
        step(&mut state, Event::Tick, now);
    }
    assert!(now >= 60 * SECOND, "a new consumer needs some time");
}

#[test]
fn drain_takes_nothing_new_and_exits_when_nothing_is_owed() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    step(&mut state, Event::Pulled(Ok(vec![])), SECOND);
    assert_eq!(step(&mut state, Event::Drain, SECOND), []);
    assert_eq!(step(&mut state, Event::Tick, 100 * SECOND), []);
    assert_eq!(step(&mut state, recorded("a"), 100 * SECOND), [Effect::Publish(vec!["record of a".to_owned()])]);
    step(&mut state, Event::Published(Ok(())), 100 * SECOND);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), 100 * SECOND), [Effect::Exit]);
    assert_eq!(step(&mut state, Event::Tick, 101 * SECOND), []);
}

#[test]
fn a_job_that_was_stopped_goes_back_at_once() {
    let mut state = pulling(settings());
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    step(&mut state, Event::Pulled(Ok(vec![])), SECOND);
    step(&mut state, Event::Drain, SECOND);
    let effects = step(&mut state, Event::RunEnded(id("a"), RunEnd::Stopped), SECOND);
    assert_eq!(effects, [Effect::Settle { acks: vec![], retries: vec![("L1".to_owned(), Duration::ZERO)] }]);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), SECOND), [Effect::Exit]);
}

#[test]
fn told_to_exit_when_idle_it_finishes_first() {
    let mut state = pulling(Settings { exit_when_idle: true, ..settings() });
    step(&mut state, Event::Pulled(Ok(vec![job("a", "L1")])), SECOND);
    assert_eq!(step(&mut state, Event::Pulled(Ok(vec![])), SECOND), [], "a job still runs");
    step(&mut state, recorded("a"), SECOND);
    step(&mut state, Event::Published(Ok(())), SECOND);
    assert_eq!(step(&mut state, Event::Settled(Ok(())), SECOND), [Effect::Exit]);
}
