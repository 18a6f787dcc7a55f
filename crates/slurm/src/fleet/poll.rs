//! When Slurm is asked for all that is ours: seldom while nothing changes, soon after a change, and less often when it
//! answers slowly or not at all. It is never asked when nothing of ours is there.

use std::time::Duration;

/// After a change.
const FIRST: Duration = Duration::from_secs(2);

/// While nothing changes. It doubles from [`FIRST`] on.
const LAST: Duration = Duration::from_secs(60);

/// While it does not answer.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// An answer may take this part of the time between two questions.
const BUSY_PART: u32 = 20;

#[derive(Debug)]
pub(crate) struct Poll {
    /// When to ask next.
    next: Duration,
    interval: Duration,
    /// Since when an answer is awaited.
    asked: Option<Duration>,
    /// How often in a row there was none, and why not the last time.
    failures: u32,
    /// Was there ever an answer, or word that there is none?
    heard: bool,
    trouble: Option<String>,
}

impl Poll {
    pub(crate) fn new(now: Duration) -> Self {
        Self { next: now, interval: FIRST, asked: None, failures: 0, heard: false, trouble: None }
    }

    /// Something has changed, or is about to.
    pub(crate) fn soon(&mut self, now: Duration) {
        self.interval = FIRST;
        if self.failures == 0 {
            self.next = self.next.min(now + FIRST);
        }
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.asked.is_none() && self.next <= now
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.asked.is_none().then_some(self.next)
    }

    pub(crate) fn ask(&mut self, now: Duration) {
        self.asked = Some(now);
    }

    /// It answered, or not for this reason. `changed` tells whether the answer was news. Returns when it was asked, and
    /// whether it is news that it is away, or back.
    pub(crate) fn answered(&mut self, problem: Option<String>, changed: bool, now: Duration) -> (Duration, bool) {
        let asked = self.asked.take().unwrap_or(now);
        let took = now.saturating_sub(asked);
        let news = self.trouble.is_some() != problem.is_some();
        (self.trouble, self.heard) = (problem, true);
        if self.trouble.is_some() {
            self.failures += 1;
            let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(AWAY_MAX);
            self.next = now + pause.max(took * BUSY_PART).min(AWAY_MAX);
        } else {
            self.failures = 0;
            self.interval = if changed { FIRST } else { (self.interval * 2).min(LAST) };
            self.next = now + self.interval.max(took * BUSY_PART).min(AWAY_MAX);
        }
        (asked, news)
    }

    /// Is no answer awaited, and was there one?
    pub(crate) fn has_heard(&self) -> bool {
        self.heard && self.asked.is_none()
    }

    /// Why it does not answer, while it does not.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The pauses until each of the next questions, when each is answered like this after so long.
    fn pauses(poll: &mut Poll, count: usize, took: Duration, problem: Option<&str>) -> Vec<u64> {
        let mut now = poll.next;
        let mut pauses = Vec::new();
        for _ in 0..count {
            assert!(poll.is_due(now));
            poll.ask(now);
            assert!(!poll.is_due(now + LAST * 100), "one question at a time");
            now += took;
            poll.answered(problem.map(str::to_owned), false, now);
            pauses.push((poll.next - now).as_secs());
            now = poll.next;
        }
        pauses
    }

    #[test]
    fn slurm_is_asked_often_after_a_change_and_seldom_without_one() {
        let mut poll = Poll::new(at(100));
        assert_eq!(pauses(&mut poll, 7, Duration::ZERO, None), [4, 8, 16, 32, 60, 60, 60]);
        let now = poll.next - at(50);
        poll.soon(now);
        assert_eq!(poll.next, now + FIRST);
        assert_eq!(pauses(&mut poll, 2, Duration::ZERO, None), [4, 8]);
    }

    #[test]
    fn a_slow_controller_and_one_that_is_away_are_asked_less() {
        let mut poll = Poll::new(at(100));
        assert_eq!(pauses(&mut poll, 3, at(5), None), [100, 100, 100]);
        assert_eq!(pauses(&mut poll, 1, at(100), None), [300]);
        let mut poll = Poll::new(at(100));
        assert_eq!(pauses(&mut poll, 8, Duration::ZERO, Some("away")), [4, 8, 16, 32, 64, 128, 256, 300]);
        let next = poll.next;
        poll.soon(next - at(200));
        assert_eq!(poll.next, next, "whatever changes");
    }

    #[test]
    fn that_it_is_away_or_back_is_news_once() {
        let mut poll = Poll::new(at(0));
        let mut answer = |problem: Option<&str>| {
            poll.ask(at(1));
            poll.answered(problem.map(str::to_owned), false, at(1)).1
        };
        assert_eq!([answer(None), answer(Some("a")), answer(Some("b")), answer(None)], [false, true, false, true]);
    }
}
