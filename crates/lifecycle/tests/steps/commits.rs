//! When facts leave for the disk.

use lifecycle::{Driver, Output};

use super::*;

/// All that leaves at a time.
fn outputs(driver: &mut Driver, now: Duration) -> Vec<Output> {
    std::iter::from_fn(|| driver.next_output(now)).collect()
}

/// When the launch of the second job of [`driver_with`] begins to be written.
const BEGIN: Duration = START.saturating_add(SECOND);

/// A driver with so many jobs that wait for one slot, whose first job has ended, so that its pool is trusted.
fn driver_with(waiting: usize) -> Driver {
    let mut book = Book::default();
    (0..waiting).for_each(|no| book.apply(&accepted(&format!("j{no}"), "l")));
    book.entries.iter_mut().for_each(|entry| entry.since = START);
    let mut driver = Driver::new(Lifecycle::restore(slots(1), book.entries, START));
    let before = [Event::Tick, observed(&[]), looked(Ok(())), claimed("j0", 1), ended("j0", 1), recorded("j0", 1)];
    for (event, now) in before.into_iter().zip(0..) {
        let now = START + now * 10 * MILLISECOND;
        driver.handle(event, now);
        outputs(&mut driver, now);
        driver.committed();
        outputs(&mut driver, now);
    }
    driver.handle(claimed("j1", 1), BEGIN);
    let outputs = outputs(&mut driver, BEGIN);
    assert!(matches!(outputs.last(), Some(Output::Commit(facts)) if facts.contains(&launch("j1", 1))), "{outputs:?}");
    driver
}

#[test]
fn while_many_jobs_wait_what_follows_soon_is_written_together() {
    let mut driver = driver_with(50);
    driver.handle(claimed("j2", 1), BEGIN + MILLISECOND);
    driver.committed();
    let at_once = outputs(&mut driver, BEGIN + MILLISECOND);
    let begins = |output: &Output| matches!(output, Output::Perform(Effect::Start(one)) if *one == run("j1", 1));
    assert!(at_once.iter().any(begins), "what is on disk has its effect at once: {at_once:?}");
    assert!(!at_once.iter().any(|output| matches!(output, Output::Commit(_))), "{at_once:?}");
    assert_eq!(driver.wake_at(), Some(BEGIN + 3 * MILLISECOND));
    for event in [ended("j1", 1), recorded("j1", 1)] {
        driver.handle(event, BEGIN + 2 * MILLISECOND);
    }
    let soon = outputs(&mut driver, BEGIN + 2 * MILLISECOND);
    assert!(!soon.iter().any(|output| matches!(output, Output::Commit(_))), "{soon:?}");
    let Some(Output::Commit(facts)) = driver.next_output(BEGIN + 3 * MILLISECOND) else { panic!("they are due") };
    assert!(matches!(&facts[..], [first, Fact::Recorded(..)] if *first == launch("j2", 1)), "{facts:?}");
    // A clock that was set back holds up nothing.
    driver.committed();
    outputs(&mut driver, BEGIN + 3 * MILLISECOND);
    driver.handle(claimed("j3", 1), BEGIN - SECOND);
    let back = outputs(&mut driver, BEGIN - SECOND);
    assert!(back.contains(&Output::Commit(vec![launch("j3", 1)])), "{back:?}");
}

#[test]
fn where_few_wait_each_is_written_at_once() {
    let mut driver = driver_with(10);
    driver.handle(claimed("j2", 1), BEGIN + MILLISECOND);
    driver.committed();
    let at_once = outputs(&mut driver, BEGIN + MILLISECOND);
    assert!(at_once.contains(&Output::Commit(vec![launch("j2", 1)])), "{at_once:?}");
}
