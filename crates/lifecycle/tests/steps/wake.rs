//! What becomes of the word that there may be something in the queue.

use super::*;

/// A daemon of an empty queue to which somebody says when there is something.
fn linked() -> Daemon {
    linked_in(Daemon::pulling(settings()))
}

fn linked_in(mut daemon: Daemon) -> Daemon {
    daemon.step(Event::Linked(true));
    // The pull that was under way, the one for what was said before the link, and the two looks after it.
    assert!(matches!(daemon.step(pulled(&[])).effects[..], [Effect::Pull(_)]));
    for look in [1, 3] {
        assert_eq!(daemon.step(pulled(&[])).effects, []);
        assert!(matches!(daemon.tick(look * SECOND)[..], [Effect::Pull(_)]));
    }
    assert_eq!(daemon.step(pulled(&[])).effects, []);
    daemon.now += 30 * SECOND;
    daemon
}

/// How long until the next pull, should nothing be said; it brings nothing.
fn until_next_pull(daemon: &mut Daemon) -> Duration {
    let waited = daemon.until(is_pull);
    daemon.step(pulled(&[]));
    waited
}

#[test]
fn with_a_link_an_empty_queue_is_asked_seldom_and_without_one_as_often_as_ever() {
    let mut daemon = linked();
    assert_eq!(until_next_pull(&mut daemon), 570 * SECOND);
    for _ in 0..3 {
        assert_eq!(until_next_pull(&mut daemon), 600 * SECOND);
    }
    daemon.step(Event::Linked(true));
    assert_eq!(until_next_pull(&mut daemon), 600 * SECOND, "that is no news");
    daemon.step(Event::Linked(false));
    for seconds in [1, 1, 2, 4, 8, 8] {
        assert!(until_next_pull(&mut daemon) <= seconds * SECOND, "{seconds} s");
    }
}

#[test]
fn who_is_woken_pulls_at_once_and_looks_again_because_a_queue_may_be_late() {
    let mut daemon = linked();
    daemon.step(Event::Tick);
    assert!(!daemon.state.is_awake());
    assert_eq!(daemon.step(Event::Woken).effects, [Effect::Pull(2)]);
    assert!(daemon.state.is_awake(), "nothing spares this pull");
    daemon.step(pulled(&[]));
    let looks = [until_next_pull(&mut daemon), until_next_pull(&mut daemon), until_next_pull(&mut daemon)];
    assert_eq!(looks, [SECOND, 3 * SECOND, 600 * SECOND]);
    assert!(!daemon.state.is_awake());
}

#[test]
fn a_burst_wakes_once() {
    let mut daemon = linked();
    assert_eq!(daemon.step(Event::Woken).effects, [Effect::Pull(2)]);
    for _ in 0..100 {
        assert_eq!(daemon.step(Event::Woken).effects, [], "a pull is under way");
    }
    assert_eq!(daemon.step(pulled(&[])).effects, [Effect::Pull(2)], "it may have come too early: one more");
    assert_eq!(daemon.step(pulled(&[])).effects, []);
}

#[test]
fn who_is_woken_in_vain_again_and_again_asks_no_more_often_than_without_a_link() {
    let mut daemon = linked();
    let mut pulls = 0;
    let seconds = 3 * 3_600;
    for _ in 0..10 * seconds {
        daemon.now += SECOND / 10;
        let effects = daemon.step(Event::Woken).effects;
        if effects.iter().any(is_pull) {
            pulls += 1;
            // Said once more while the pull is under way.
            daemon.step(Event::Woken);
            let again = daemon.step(pulled(&[])).effects;
            if again.iter().any(is_pull) {
                pulls += 1;
                daemon.step(pulled(&[]));
            }
        }
    }
    // The longest pause of these settings is 8 s.
    assert!(pulls < seconds / 8 + 100, "{pulls}");
    // What brings something is heeded again.
    daemon.until(is_pull);
    daemon.step(pulled(&[job("a", "L1")]));
    daemon.step(pulled(&[]));
    daemon.now += 30 * SECOND;
    assert_eq!(daemon.step(Event::Woken).effects, [Effect::Pull(1)]);
}

/// It costs nothing to ask such a queue, and it answers the moment that it has something.
#[test]
fn a_queue_that_holds_pulls_is_asked_at_once_however_often_that_was_said_in_vain() {
    let mut daemon = linked();
    daemon.step(Event::Woken);
    for _ in 0..100 {
        daemon.step(Event::Woken);
        daemon.now += 5 * SECOND;
        let empty = Pulled { held: Some(5 * SECOND), deliveries: Vec::new(), spared: false };
        let effects = daemon.step(Event::Pulled(Ok(empty))).effects;
        assert!(effects.iter().any(is_pull), "{effects:?} at {:?}", daemon.now);
    }
}

#[test]
fn what_goes_back_to_the_queue_is_asked_for_when_it_can_come_again() {
    let mut daemon = linked();
    daemon.step(Event::Woken);
    daemon.accept(job("a", "L1"));
    daemon.step(Event::Claimed(id("a"), Claimed::NodeBroken("the disk is full".into())));
    daemon.step(pulled(&[]));
    daemon.step(looked(Err("the disk is full".into())));
    daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    daemon.step(Event::Settled(Ok(())));
    daemon.step(looked(Ok(())));
    assert_eq!(daemon.phase("a"), None, "it is back in the queue, for a minute");
    assert_eq!(until_next_pull(&mut daemon) + until_next_pull(&mut daemon), 61 * SECOND, "when it is there for sure");
    assert_eq!(until_next_pull(&mut daemon), 600 * SECOND);
}

/// One that comes back late is no reason to look late for the others.
#[test]
fn what_comes_back_earlier_is_asked_for_earlier() {
    let mut daemon = linked_in(pools::ready(pools::TWO, &[]));
    daemon.until(is_pull);
    let [often, seldom] =
        [("a", 5), ("b", 1)].map(|(job_id, deliveries)| Delivery { deliveries, ..pools::job_in("qpu", job_id) });
    daemon.step(pulled(&[often, seldom]));
    daemon.step(recalled(&["a", "b"]));
    daemon.step(Event::Settled(Ok(())));
    daemon.step(pulled(&[]));
    let waited: Vec<_> = (0..3).map(|_| until_next_pull(&mut daemon)).collect();
    assert_eq!(waited, [13 * SECOND, 30 * SECOND, 600 * SECOND], "2 s and 32 s, and the first look is for others");
}

#[test]
fn a_job_for_another_site_is_not_taken_again_before_others_could_have_it() {
    let mut daemon = linked_in(pools::ready(pools::TWO, &[]));
    daemon.until(is_pull);
    let effects = daemon.accept(pools::job_in("qpu", "a")).effects;
    assert!(effects.contains(&back(&["La"], 2 * SECOND)), "{effects:?}");
    daemon.step(pulled(&[]));
    daemon.now += SECOND;
    daemon.step(Event::Settled(Ok(())));
    assert_eq!(until_next_pull(&mut daemon), 13 * SECOND, "since the queue has it back");
}

#[test]
fn a_queue_that_does_not_answer_is_asked_no_earlier_for_being_woken() {
    let mut daemon = linked();
    daemon.step(Event::Woken);
    let refused = daemon.now;
    daemon.step(Event::Pulled(Err(failure(FailureClass::QuotaExhausted))));
    assert_eq!(daemon.step(Event::Woken).effects, []);
    daemon.step(Event::Linked(false));
    daemon.step(Event::Linked(true));
    assert_eq!(daemon.until(is_pull), allowance::pause_of_used_up(refused, 1.0));
}

#[test]
fn who_has_no_room_when_woken_pulls_as_soon_as_there_is_some() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.step(Event::Linked(true));
    daemon.start("a", job("a", "L1"));
    daemon.now += 30 * SECOND;
    assert_eq!(daemon.step(Event::Woken).effects, []);
    daemon.now += 30 * SECOND;
    assert!(daemon.step(ended("a", 1)).effects.iter().any(is_pull));
}
