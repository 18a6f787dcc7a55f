use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn bare(pids: &[i32]) -> Event {
    Event::Seen(Seen { job: pids.to_vec(), ..Seen::default() })
}

fn nothing() -> Event {
    Event::Seen(Seen::default())
}

/// Apptainer's process 10, its init 11, the helper 12 that serves the image, and the job's own.
fn container(job: &[i32]) -> Event {
    let init = if job.is_empty() { vec![] } else { vec![11] };
    Event::Seen(Seen { job: job.to_vec(), init, first: Some(10), helpers: vec![12] })
}

fn signal(signal: Signal, pids: &[i32]) -> Order {
    Order::Signal(signal, pids.to_vec())
}

/// A run of 2 s with a grace of 8 s whose time has just passed.
fn timed_out() -> Ending {
    let mut ending = Ending::new(2 * SECOND, 8 * SECOND, None);
    assert_eq!(ending.wake_at(), Some(2 * SECOND));
    assert_eq!(ending.step(Event::Time, 2 * SECOND), [Order::Look]);
    ending
}

#[test]
fn what_ends_by_itself_and_leaves_nothing_is_over_at_once() {
    let mut ending = Ending::new(SECOND, SECOND, None);
    assert_eq!(ending.step(Event::Time, ms(10)), []);
    assert_eq!(ending.step(Event::FirstEnded, ms(20)), [Order::Look]);
    assert_eq!(ending.step(nothing(), ms(20)), []);
    assert!(ending.is_over() && ending.cause().is_none() && ending.wake_at().is_none());
}

#[test]
fn what_is_left_by_a_first_process_that_ended_by_itself_is_killed() {
    let mut ending = Ending::new(SECOND, SECOND, None);
    ending.step(Event::FirstEnded, ms(20));
    assert_eq!(ending.step(bare(&[7]), ms(20)), [signal(Signal::KILL, &[7])]);
    assert_eq!(ending.step(Event::Time, ending.wake_at().unwrap()), [Order::Look]);
    assert_eq!(ending.step(bare(&[8]), ms(30)), [signal(Signal::KILL, &[8])], "it was started meanwhile");
    assert_eq!(ending.step(nothing(), ms(50)), []);
    assert!(ending.is_over() && ending.cause().is_none());
}

#[test]
fn the_grace_is_the_whole_trees_and_everybody_hears_once() {
    let mut ending = timed_out();
    assert_eq!(ending.step(bare(&[3, 4]), 2 * SECOND), [signal(Signal::TERM, &[3, 4]), signal(Signal::CONT, &[3, 4])]);
    // The shell ends at once; the solver, and what its handler starts, have their time.
    assert_eq!(ending.step(Event::FirstEnded, ms(2_005)), [Order::Look]);
    for (at, pids) in [(2_005, vec![4]), (5_000, vec![4, 5]), (9_900, vec![5])] {
        assert_eq!(ending.step(bare(&pids), ms(at)), []);
        assert!(!ending.is_over() && ending.wake_at() <= Some(10 * SECOND));
    }
    assert_eq!(ending.step(nothing(), ms(9_950)), []);
    assert!(ending.is_over());
    assert_eq!(ending.cause(), Some(Cause::TimeLimit));
}

#[test]
fn what_outlasts_its_grace_is_killed() {
    let mut ending = timed_out();
    ending.step(bare(&[3, 4]), 2 * SECOND);
    assert_eq!(ending.wake_at(), Some(10 * SECOND), "its first process says when it ends, so nobody has to look");
    assert_eq!(ending.step(Event::Time, 10 * SECOND), [Order::Look]);
    assert_eq!(ending.step(bare(&[3, 4]), 10 * SECOND), [signal(Signal::KILL, &[3, 4])]);
    ending.step(Event::FirstEnded, ms(10_001));
    assert_eq!(ending.step(nothing(), ms(10_001)), []);
    assert!(ending.is_over());
}

#[test]
fn who_is_told_again_has_no_more_time_than_before() {
    let mut ending = Ending::new(100 * SECOND, SECOND, None);
    assert_eq!(ending.step(Event::Told(8 * SECOND), SECOND), [Order::Look]);
    ending.step(bare(&[3]), SECOND);
    assert_eq!(ending.step(Event::Told(20 * SECOND), 2 * SECOND), []);
    assert_eq!(ending.wake_at(), Some(9 * SECOND));
    assert_eq!(ending.step(Event::Told(3 * SECOND), 2 * SECOND), []);
    assert_eq!(ending.wake_at(), Some(5 * SECOND));
    assert_eq!(ending.step(Event::Told(Duration::ZERO), 3 * SECOND), [Order::Look]);
    assert_eq!(ending.step(bare(&[3]), 3 * SECOND), [signal(Signal::KILL, &[3])]);
    assert_eq!(ending.cause(), Some(Cause::Told));
}

#[test]
fn in_a_container_only_the_job_hears_and_its_image_outlives_it() {
    let mut ending = timed_out();
    assert_eq!(
        ending.step(container(&[20, 21]), 2 * SECOND),
        [signal(Signal::TERM, &[20, 21]), signal(Signal::CONT, &[20, 21])]
    );
    assert_eq!(ending.step(Event::Time, 10 * SECOND), [Order::Look]);
    assert_eq!(ending.step(container(&[21]), 10 * SECOND), [signal(Signal::KILL, &[21, 11])]);
    // The runtime unmounts and ends by itself.
    assert_eq!(ending.step(container(&[]), ms(10_010)), []);
    ending.step(Event::FirstEnded, ms(10_100));
    assert_eq!(ending.step(nothing(), ms(10_100)), []);
    assert!(ending.is_over());
}

#[test]
fn a_runtime_that_does_not_end_after_its_job_is_killed_too() {
    let mut ending = timed_out();
    ending.step(container(&[20]), 2 * SECOND);
    ending.step(Event::Time, 10 * SECOND);
    ending.step(container(&[20]), 10 * SECOND);
    assert_eq!(ending.step(container(&[]), ms(10_010)), []);
    assert_eq!(ending.step(container(&[]), ms(15_009)), []);
    assert_eq!(ending.step(container(&[]), ms(15_010)), [signal(Signal::KILL, &[10, 12])]);
    ending.step(Event::FirstEnded, ms(15_020));
    ending.step(nothing(), ms(15_020));
    assert!(ending.is_over());
}

#[test]
fn a_container_whose_runtime_was_killed_ends_before_its_helper() {
    let mut ending = Ending::new(100 * SECOND, SECOND, None);
    let left = |job: &[i32]| Event::Seen(Seen { job: job.to_vec(), helpers: vec![12], ..Seen::default() });
    ending.step(Event::FirstEnded, SECOND);
    assert_eq!(ending.step(left(&[20]), SECOND), [signal(Signal::KILL, &[20])]);
    assert_eq!(ending.step(left(&[]), ms(1_010)), [], "the helper sees by itself that nobody needs it");
    assert_eq!(ending.step(left(&[]), ms(6_010)), [signal(Signal::KILL, &[12])]);
    ending.step(nothing(), ms(6_020));
    assert!(ending.is_over());
}

#[test]
fn without_a_namespace_the_runtime_hands_the_signal_on() {
    let mut ending = timed_out();
    let seen = || Event::Seen(Seen { first: Some(10), helpers: vec![12, 13], ..Seen::default() });
    assert_eq!(ending.step(seen(), 2 * SECOND), [signal(Signal::TERM, &[10]), signal(Signal::CONT, &[10])]);
    assert_eq!(ending.wake_at(), Some(10 * SECOND), "it has its grace, though nothing of the job is seen");
}

#[test]
fn a_warning_comes_in_time_and_no_signal_comes_twice() {
    for (chosen, later) in [(Signal::USR1, vec![Signal::TERM, Signal::CONT]), (Signal::TERM, vec![Signal::CONT])] {
        let warning = Warning { signal: chosen, before: 3 * SECOND };
        let mut ending = Ending::new(10 * SECOND, SECOND, Some(warning));
        assert_eq!(ending.wake_at(), Some(7 * SECOND));
        assert_eq!(ending.step(Event::Time, 7 * SECOND), [Order::Look]);
        assert_eq!(ending.step(bare(&[3]), 7 * SECOND), [signal(chosen, &[3]), signal(Signal::CONT, &[3])]);
        assert_eq!(ending.wake_at(), Some(10 * SECOND));
        ending.step(Event::Time, 10 * SECOND);
        let orders = ending.step(bare(&[3]), 10 * SECOND);
        assert_eq!(orders, later.iter().map(|&sent| signal(sent, &[3])).collect::<Vec<_>>());
    }
}

#[test]
fn that_something_does_not_end_is_said_once() {
    let mut ending = timed_out();
    ending.step(bare(&[3]), 2 * SECOND);
    ending.step(Event::Time, 10 * SECOND);
    ending.step(bare(&[3]), 10 * SECOND);
    let at = 10 * SECOND + STUBBORN;
    assert_eq!(ending.step(bare(&[3]), at), [Order::Say(vec![3]), signal(Signal::KILL, &[3])]);
    assert_eq!(ending.step(bare(&[3]), at + SECOND), [signal(Signal::KILL, &[3])]);
    assert!(ending.wake_at() <= Some(at + SECOND + LOOK_MAX) && !ending.is_over(), "it is waited for");
}
