//! Jobs that wait for other jobs without a slot.

use protocol::{Continuation, JobSpec, When};

use super::*;

/// A run has ended well, and leaves these tasks to be run.
pub(crate) fn parks(job_id: &str, attempt: u32, tasks: &[&str], when: When) -> Event {
    let spec = |task: &&str| JobSpec { task: (*task).to_owned(), ..JobSpec::default() };
    let continuation = Continuation { run: tasks.iter().map(spec).collect(), when };
    Event::Concluded(run(job_id, attempt), Concluded::Parks(continuation))
}

/// The claim for a round after the first.
fn goes_on(job_id: &str, last_attempt: u32, number: u32, children: u32) -> Effect {
    let round = Round { number, children };
    Effect::Claim { job_id: id(job_id), last_attempt: Attempt::new(last_attempt), rerunnable: true, round }
}

fn has_finished(job_id: &str) -> [Fact; 2] {
    [Fact::Recorded(id(job_id), record(job_id)), Fact::Finished(id(job_id))]
}

/// A daemon with one slot in which `a` has left these behind.
fn parked(tasks: &[&str], when: When) -> (Daemon, Step) {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let step = daemon.step(parks("a", 1, tasks, when));
    (daemon, step)
}

/// A job begins and ends as its first attempt, and is recorded.
fn through(daemon: &mut Daemon, job_id: &str) -> Step {
    daemon.step(claimed(job_id, 1));
    daemon.finish(job_id)
}

#[test]
fn a_job_waits_for_its_children_in_no_slot_and_goes_on_in_its_next_round() {
    let (mut daemon, step) = parked(&["b", "c"], When::All);
    let parking = Parking { rounds: 1, children: 2, seen: 0, when: When::All };
    let [Fact::Parked(parent, found), first, second] = step.facts.as_slice() else { panic!("{step:?}") };
    assert_eq!((parent, *found), (&id("a"), parking), "all of it is one commit");
    for (fact, child, task) in [(first, "a-1", "b"), (second, "a-2", "c")] {
        let Fact::Accepted { job_id, message, origin: Origin::Parent(of), .. } = fact else { panic!("{fact:?}") };
        assert_eq!((job_id, of), (&id(child), &Parent { job_id: id("a"), generation: 1 }));
        assert_eq!(protocol::JobMessage::parse(message).unwrap().spec.task, task);
    }
    assert!(step.effects.contains(&claim("a-1", 0)), "its slot is free: {step:?}");
    assert_eq!(daemon.phase("a"), Some(Phase::Parked));
    assert!(daemon.state.remark(&id("a")).unwrap().contains("2 of 2 go on"));

    let step = through(&mut daemon, "a-1");
    assert_eq!(step.facts[..2], has_finished("a-1"), "nothing of it is published");
    assert!(!step.effects.iter().any(is_publish), "{step:?}");
    assert_eq!(daemon.phase("a"), Some(Phase::Parked), "one goes on");
    let step = through(&mut daemon, "a-2");
    assert!(step.effects.contains(&goes_on("a", 1, 2, 2)), "{step:?}");

    let step = daemon.step(claimed("a", 2));
    assert_eq!(step.facts, [launch("a", 2)]);
    assert_eq!(step.effects[0], Effect::Start(run("a", 2)));
    daemon.step(ended("a", 2));
    let step = daemon.step(recorded("a", 2));
    assert!(step.effects.contains(&publish(&["a"])), "the job at the top has its result: {step:?}");
}

#[test]
fn a_job_may_go_on_when_any_child_has_ended_and_again_for_the_next() {
    let (mut daemon, _) = parked(&["b", "c", "d"], When::Any);
    let step = through(&mut daemon, "a-1");
    assert!(step.effects.contains(&goes_on("a", 1, 2, 3)), "before those that came later: {step:?}");
    daemon.step(claimed("a", 2));
    daemon.step(ended("a", 2));
    // The one that it has seen does not count again.
    daemon.step(parks("a", 2, &[], When::Any));
    assert_eq!(daemon.phase("a"), Some(Phase::Parked));
    let step = through(&mut daemon, "a-2");
    assert!(step.effects.contains(&goes_on("a", 2, 3, 3)), "{step:?}");
    daemon.step(claimed("a", 3));
    daemon.step(ended("a", 3));
    // It ends, and nobody wants the third.
    let step = daemon.step(recorded("a", 3));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a")), Fact::Unwanted(id("a-3"))]);
    let step = daemon.step(claimed("a-3", 1));
    assert!(step.effects.contains(&conclude("a-3", 1, Ending::Cancelled(None))), "{step:?}");
}

/// A daemon in which the last child of `a` has ended while the second round ran, which has not seen it.
fn unseen() -> Daemon {
    let mut daemon = Daemon::pulling(slots(2));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    daemon.step(parks("a", 1, &["b", "c"], When::Any));
    daemon.step(claimed("a-2", 1));
    through(&mut daemon, "a-1");
    daemon.step(claimed("a", 2));
    daemon.finish("a-2");
    daemon.step(ended("a", 2));
    daemon
}

#[test]
fn whoever_ended_while_the_round_ran_lets_it_go_on_at_once() {
    let mut daemon = unseen();
    let step = daemon.step(parks("a", 2, &["d"], When::Any));
    assert!(step.effects.contains(&goes_on("a", 2, 3, 3)), "{step:?}");
}

#[test]
fn a_job_that_waits_for_the_last_one_finds_it_although_it_ended_while_the_round_ran() {
    let mut daemon = unseen();
    let step = daemon.step(parks("a", 2, &[], When::All));
    assert!(step.effects.contains(&goes_on("a", 2, 3, 2)), "{step:?}");
}

#[test]
fn each_round_has_budgets_of_its_own() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", with_fields("a", "L1", r#""retries":1"#));
    daemon.step(ended("a", 1));
    daemon.step(task_failed("a", 1));
    daemon.step(claimed("a", 2));
    daemon.step(ended("a", 2));
    let step = daemon.step(parks("a", 2, &["b"], When::All));
    assert_eq!(step.facts[0], Fact::Again(id("a"), Failures::default()));
    through(&mut daemon, "a-1");
    daemon.step(claimed("a", 3));
    let step = daemon.step(ended("a", 3));
    assert!(matches!(step.effects[0], Effect::Conclude { may_retry: true, .. }), "{step:?}");
}

#[test]
fn a_child_that_another_daemon_has_is_not_waited_for() {
    let (mut daemon, _) = parked(&["b"], When::All);
    daemon.step(claimed("a-1", 1));
    daemon.step(ended("a-1", 1));
    let step = daemon.step(Event::Concluded(run("a-1", 1), Concluded::TakenOver));
    assert!(step.effects.contains(&goes_on("a", 1, 2, 1)), "{step:?}");
}

#[test]
fn no_more_than_a_thousand_go_on_at_once() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let tasks = ["b"; 600];
    daemon.step(parks("a", 1, &tasks, When::Any));
    through(&mut daemon, "a-1");
    daemon.step(claimed("a", 2));
    daemon.step(ended("a", 2));
    let step = daemon.step(parks("a", 2, &tasks, When::Any));
    assert!(
        format!("{step:?}").contains("asks for 600 jobs while 599 go on, and 1000 at once is the most"),
        "{step:?}"
    );
}

#[test]
fn what_cannot_be_had_is_the_jobs_own_fault() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let step = daemon.step(parks("a", 1, &[], When::All));
    let [Effect::Conclude { ending: Ending::Unparkable(_, why), .. }] = step.effects.as_slice() else {
        panic!("{step:?}")
    };
    assert!(why.contains("nothing to wait for"), "{why}");

    let long = "x".repeat(63);
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start(&long, job(&long, "L1"));
    daemon.step(ended(&long, 1));
    let step = daemon.step(parks(&long, 1, &["b"], When::All));
    assert!(format!("{step:?}").contains("too long"), "{step:?}");

    let mut daemon = Daemon::pulling(slots(2));
    daemon.start("a-1", job("a-1", "L2"));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let step = daemon.step(parks("a", 1, &["b"], When::All));
    assert!(format!("{step:?}").contains("there is one of that id already"), "{step:?}");
}

#[test]
fn there_is_an_end_to_generations() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    let mut job_id = "a".to_owned();
    for generation in 1..=4 {
        daemon.step(ended(&job_id, 1));
        let step = daemon.step(parks(&job_id, 1, &["b"], When::All));
        assert_eq!(daemon.phase(&job_id), Some(Phase::Parked), "{generation}: {step:?}");
        job_id.push_str("-1");
        daemon.step(claimed(&job_id, 1));
    }
    daemon.step(ended(&job_id, 1));
    let step = daemon.step(parks(&job_id, 1, &["b"], When::All));
    assert!(format!("{step:?}").contains("children of the generation 5"), "{step:?}");
}

#[test]
fn who_is_cancelled_takes_its_children_along() {
    let (mut daemon, _) = parked(&["b", "c"], When::All);
    daemon.step(claimed("a-1", 1));
    let step = daemon.step(cancel("a"));
    assert_eq!(step.effects, [conclude("a", 1, Ending::Cancelled(Some(number(1))))]);
    let step = daemon.step(recorded("a", 1));
    let unwanted = [Fact::Unwanted(id("a-1")), Fact::Unwanted(id("a-2"))];
    assert_eq!(step.facts[1..], unwanted);
    assert!(step.effects.contains(&Effect::End(run("a-1", 1), EndReason::Cancelled)), "{step:?}");
    let step = daemon.step(claimed("a-2", 1));
    assert!(step.effects.contains(&conclude("a-2", 1, Ending::Cancelled(None))), "{step:?}");
    // That is not forgotten with the daemon.
    let book = daemon.book.clone();
    let mut next = Daemon { state: Lifecycle::restore(slots(1), book.entries.clone(), START), book, now: START };
    next.step(Event::Tick);
    next.step(looked(Ok(())));
    let step = next.step(observed(&[(run("a-1", 1), Sighting::Alive)]));
    assert!(step.effects.contains(&Effect::End(run("a-1", 1), EndReason::Cancelled)), "{step:?}");
}

#[test]
fn a_job_that_is_cancelled_while_its_last_run_is_dealt_with_has_no_children() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    daemon.step(cancel("a"));
    let step = daemon.step(parks("a", 1, &["b"], When::All));
    assert_eq!(step, Step { facts: vec![], effects: vec![conclude("a", 1, Ending::Cancelled(Some(number(1))))] });
}

#[test]
fn a_restart_finds_who_waits_for_whom() {
    let (daemon, _) = parked(&["b", "c"], When::All);
    for ended in 0..=2 {
        let mut book = daemon.book.clone();
        for child in &["a-1", "a-2"][..ended] {
            has_finished(child).iter().for_each(|fact| book.apply(fact));
        }
        let state = Lifecycle::restore(slots(1), book.entries.clone(), START);
        let mut next = Daemon { state, book, now: START };
        next.step(Event::Tick);
        next.step(looked(Ok(())));
        let step = next.step(observed(&[]));
        let expected = match ended {
            0 => claim("a-1", 0),
            1 => claim("a-2", 0),
            _ => goes_on("a", 1, 2, 2),
        };
        assert!(step.effects.contains(&expected), "{ended}: {step:?}");
    }
}

#[test]
fn a_round_that_was_cut_off_is_begun_again_and_its_children_stay() {
    let (mut daemon, _) = parked(&["b"], When::All);
    through(&mut daemon, "a-1");
    daemon.step(claimed("a", 2));
    let step = daemon.step(Event::RunCutOff(run("a", 2), "the keeper died".to_owned()));
    assert!(step.effects.contains(&goes_on("a", 2, 2, 1)), "the same round: {step:?}");
}

#[test]
fn a_parent_whose_node_fails_it_does_not_go_back_to_the_queue() {
    let (mut daemon, _) = parked(&["b"], When::All);
    through(&mut daemon, "a-1");
    daemon.step(claimed("a", 2));
    daemon.step(ended("a", 2));
    let step = daemon.step(Event::Concluded(run("a", 2), Concluded::NodeFailed("no disk".into())));
    assert_eq!(daemon.phase("a"), Some(Phase::Waiting), "another daemon would know of no children: {step:?}");
}

#[test]
fn a_child_that_no_pool_takes_is_rejected_at_once_and_its_parent_goes_on() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.step(ended("a", 1));
    let resources = protocol::ResourceRequest { cpus: Some(100), ..Default::default() };
    let spec =
        JobSpec { task: "b".to_owned(), pool: "other".parse().ok(), resources: Some(resources), ..JobSpec::default() };
    let continuation = Continuation { run: vec![spec], when: When::All };
    daemon.step(Event::Concluded(run("a", 1), Concluded::Parks(continuation)));
    // Without a site's file every pool is the one pool.
    assert_eq!(daemon.phase("a-1"), Some(Phase::Claiming));
}

#[test]
fn a_message_with_the_id_of_a_child_has_its_result() {
    let (mut daemon, _) = parked(&["b"], When::All);
    daemon.step(pulled(&[job("a-1", "L2")]));
    daemon.step(claimed("a-1", 1));
    let step = daemon.finish("a-1");
    assert_eq!(step.facts, [Fact::Recorded(id("a-1"), record("a-1"))]);
    assert!(step.effects.contains(&goes_on("a", 1, 2, 1)), "its parent does not wait for that: {step:?}");
    assert_eq!(daemon.phase("a-1"), Some(Phase::Recorded), "who sent it waits for its result");
}
