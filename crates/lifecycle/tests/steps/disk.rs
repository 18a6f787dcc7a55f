//! A disk that takes nothing when a run is over: the job that fills it again and again fails, and nobody else.

use super::*;

const FULL: &str = "no room";

fn held(held: u64) -> Share {
    Share::Bytes { held, used: Some(1_000) }
}

/// The run of this attempt ends, and the disk is found full.
fn fills(daemon: &mut Daemon, attempt: u32, share: Share) -> Step {
    daemon.step(ended("a", attempt));
    daemon.step(Event::Concluded(run("a", attempt), Concluded::DiskFull(FULL.into(), share)))
}

fn filled(attempt: u32, times: u32, again: bool) -> Effect {
    let (finished, problem) = (*finished(), FULL.into());
    conclude(
        "a",
        attempt,
        Ending::FilledDisk(Box::new(FilledDisk { finished, problem, share: held(900), times, again })),
    )
}

/// What the attempt left is removed; the next one begins after a pause.
fn cleared_and_claimed(daemon: &mut Daemon, attempt: u32) -> Step {
    let step = daemon.step(Event::Concluded(run("a", attempt), Concluded::NodeFailed(FULL.into())));
    daemon.until(is_claim);
    daemon.step(claimed("a", attempt + 1));
    step
}

#[test]
fn a_job_that_fills_the_disk_again_and_again_fails_and_not_its_node() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    for attempt in [1, 2] {
        let step = fills(&mut daemon, attempt, held(900));
        assert_eq!(step, Step { facts: vec![], effects: vec![filled(attempt, attempt, true)] });
        let step = cleared_and_claimed(&mut daemon, attempt);
        assert_eq!(step.facts, [Fact::Again(id("a"), Failures { node: attempt, ..Failures::default() })]);
        // It does not go back, where that would be forgotten.
        assert!(step.effects.contains(&broken(FULL)) && step.effects.contains(&forget("a", attempt)), "{step:?}");
    }
    assert_eq!(fills(&mut daemon, 3, held(900)).effects, [filled(3, 3, false)]);
    assert_eq!(daemon.state.node_problem(), None, "the node is not to blame");
    let held_up = daemon.step(Event::Concluded(run("a", 3), Concluded::NodeBroken("still full".into())));
    assert_eq!(held_up.effects, [probe()], "its record waits for room");
    daemon.step(looked(Ok(())));
    assert_eq!(daemon.tick(SECOND), [filled(3, 3, false)], "and it is not run again");
    assert_eq!(daemon.step(recorded("a", 3)).facts, [Fact::Recorded(id("a"), record("a"))]);
}

#[test]
fn a_job_with_little_on_a_full_disk_is_not_to_blame_and_goes_back() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    let step = fills(&mut daemon, 1, held(200));
    assert_eq!(step.facts, [Fact::Again(id("a"), Failures { node: 1, ..Failures::default() })]);
    assert_eq!(step.effects, [broken(FULL), Effect::Unclaim(run("a", 1)), forget("a", 1)]);
}

#[test]
fn only_attempts_in_a_row_count() {
    let others = [
        Concluded::TaskFailed("it failed".to_owned()),
        Concluded::NodeFailed("no image".into()),
        Concluded::DiskFull(FULL.into(), held(200)),
    ];
    for other in others {
        let mut daemon = Daemon::pulling(slots(1));
        daemon.start("a", Delivery { deliveries: 2, ..with_fields("a", "L1", r#""retries":1"#) });
        for attempt in [1, 2] {
            fills(&mut daemon, attempt, held(900));
            cleared_and_claimed(&mut daemon, attempt);
        }
        daemon.step(ended("a", 3));
        let step = daemon.step(Event::Concluded(run("a", 3), other));
        if !step.effects.iter().any(is_claim) {
            daemon.until(is_claim);
        }
        daemon.step(claimed("a", 4));
        daemon.step(ended("a", 4));
        let step = daemon.step(Event::Concluded(run("a", 4), Concluded::DiskFull(FULL.into(), held(900))));
        let first = |effect: &Effect| matches!(effect, Effect::Conclude { ending: Ending::FilledDisk(filled), .. } if filled.times == 1 && filled.again);
        assert!(step.effects.iter().any(first), "{step:?}");
    }
}

#[test]
fn a_quarter_of_a_disk_is_a_large_share_and_of_a_quota_a_gibibyte() {
    for (share, large) in [
        (held(250), true),
        (held(249), false),
        (Share::Bytes { held: 0, used: Some(0) }, false),
        (Share::Bytes { held: 1 << 30, used: None }, true),
        (Share::Bytes { held: (1 << 30) - 1, used: None }, false),
        (Share::Files { held: 25, used: 100 }, true),
        (Share::Files { held: 24, used: 100 }, false),
    ] {
        assert_eq!(share.is_large(), large, "{share:?}");
    }
}
