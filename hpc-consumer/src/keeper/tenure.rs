//! How long a keeper stays in its allocation, and what it still begins there. No file, no clock, no connection.

use std::time::Duration;

use tokio::time::Instant;

use super::messages::NotBegun;

/// How long a worker waits for the first daemon: it learns from the files, now and then, that the worker is there.
const FIRST_DAEMON: Duration = Duration::from_secs(120);

/// What of the time of an allocation is kept for writing down how its runs ended. Slurm gives some more, as a rule.
const WRITING: Duration = Duration::from_secs(10);

/// The time of a keeper in its allocation.
#[derive(Debug)]
pub(super) struct Tenure {
    work: Kept,
    /// When the allocation ends.
    ends: Option<Instant>,
    /// How long before that nothing is begun any more.
    margin: Duration,
    /// How long runs have to end when the allocation does.
    pub(super) leave: Duration,
    /// Since when nothing goes on.
    idle_since: Instant,
    /// Does nothing go on, as it was seen last?
    was_idle: bool,
    met_daemon: bool,
    /// Why nothing is begun any more.
    stops: Option<&'static str>,
}

/// What it stays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// At most so many runs at a time, until there was none for so long.
    Slots { slots: usize, idle: Duration },
    /// One run. It is not begun before it is told to the runs.
    One { begun: bool },
}

impl Tenure {
    pub(super) fn new(work: Kept, left: Option<Duration>, margin: Duration, leave: Duration, now: Instant) -> Self {
        let ends = left.and_then(|left| now.checked_add(left));
        let (was_idle, met_daemon, stops) = (true, false, None);
        Self { work, ends, margin, leave, idle_since: now, was_idle, met_daemon, stops }
    }

    /// Why a run is not begun now, while so many go on.
    pub(super) fn refusal(&self, now: Instant, alive: usize) -> Option<NotBegun> {
        match self.work {
            _ if self.stops.is_some() || self.is_nearly_over(now) => Some(NotBegun::EndsSoon),
            Kept::Slots { slots, .. } if alive >= slots => Some(NotBegun::NoRoom),
            Kept::One { begun: true } => Some(NotBegun::NoRoom),
            Kept::Slots { .. } | Kept::One { begun: false } => None,
        }
    }

    pub(super) fn has_begun(&mut self) {
        if let Kept::One { begun } = &mut self.work {
            *begun = true;
        }
    }

    /// Is all of the allocation for one run?
    pub(super) fn is_for_one(&self) -> bool {
        matches!(self.work, Kept::One { .. })
    }

    pub(super) fn has_come(&mut self) {
        self.met_daemon = true;
    }

    /// So many runs go on now.
    pub(super) fn goes_on(&mut self, now: Instant, alive: usize) {
        if alive > 0 || !self.was_idle {
            self.idle_since = now;
        }
        self.was_idle = alive == 0;
    }

    /// Begins nothing any more. The first reason stays.
    pub(super) fn stop(&mut self, why: &'static str) {
        self.stops.get_or_insert(why);
    }

    pub(super) fn stops(&self) -> bool {
        self.stops.is_some()
    }

    /// Why the keeper ends now, in words, if nothing goes on.
    pub(super) fn is_over(&self, now: Instant) -> Option<&'static str> {
        match self.work {
            _ if self.stops.is_some() => self.stops,
            _ if self.is_nearly_over(now) => Some("the time of its allocation is nearly over"),
            Kept::One { begun: true } => Some("its run has ended"),
            Kept::Slots { .. } if self.idle_until().is_some_and(|until| now >= until) => Some("it had nothing to do"),
            Kept::Slots { .. } | Kept::One { begun: false } => None,
        }
    }

    /// Is it time to end whatever goes on, so that how it ended is written before the allocation is gone?
    pub(super) fn is_up(&self, now: Instant) -> bool {
        self.up_at().is_some_and(|at| now >= at)
    }

    /// When to look again, while so many go on.
    pub(super) fn wake_at(&self, now: Instant, alive: usize) -> Option<Instant> {
        let idle = self.idle_until().filter(|_| alive == 0);
        let nearly = self.ends.and_then(|ends| ends.checked_sub(self.margin)).filter(|_| alive == 0);
        // What is past was heeded.
        [idle, nearly, self.up_at()].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn idle_until(&self) -> Option<Instant> {
        let Kept::Slots { idle, .. } = self.work else { return None };
        let patience = if self.met_daemon { idle } else { idle.max(FIRST_DAEMON) };
        self.idle_since.checked_add(patience)
    }

    fn is_nearly_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now + self.margin >= ends)
    }

    fn up_at(&self) -> Option<Instant> {
        self.ends?.checked_sub(self.leave + WRITING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn worker(left: Option<Duration>, now: Instant) -> Tenure {
        Tenure::new(Kept::Slots { slots: 2, idle: 60 * SECOND }, left, 120 * SECOND, 20 * SECOND, now)
    }

    #[test]
    fn a_worker_has_as_many_runs_as_ordered_and_ends_when_it_was_idle() {
        let now = Instant::now();
        let mut worker = worker(None, now);
        assert_eq!((worker.refusal(now, 1), worker.refusal(now, 2)), (None, Some(NotBegun::NoRoom)));
        assert_eq!(worker.wake_at(now, 0), Some(now + FIRST_DAEMON), "the first daemon has yet to find it");
        worker.has_come();
        assert_eq!((worker.is_over(now + 59 * SECOND), worker.wake_at(now, 0)), (None, Some(now + 60 * SECOND)));
        worker.goes_on(now + 10 * SECOND, 1);
        assert_eq!(worker.wake_at(now, 1), None);
        // A run that takes longer than the patience ends.
        worker.goes_on(now + 500 * SECOND, 0);
        assert_eq!(worker.is_over(now + 559 * SECOND), None);
        worker.goes_on(now + 559 * SECOND, 0);
        assert_eq!(worker.is_over(now + 560 * SECOND), Some("it had nothing to do"));
    }

    #[test]
    fn nothing_is_begun_when_the_time_is_nearly_over_and_what_runs_is_ended_before_it_is() {
        let now = Instant::now();
        let worker = worker(Some(600 * SECOND), now);
        assert_eq!((worker.refusal(now + 479 * SECOND, 0), worker.is_over(now)), (None, None));
        assert_eq!(worker.refusal(now + 480 * SECOND, 0), Some(NotBegun::EndsSoon));
        assert!(worker.is_over(now + 480 * SECOND).is_some_and(|why| why.contains("nearly over")));
        assert_eq!(worker.wake_at(now, 1), Some(now + 570 * SECOND), "what runs may go on for as long as can be");
        assert!(!worker.is_up(now + 569 * SECOND) && worker.is_up(now + 570 * SECOND));
        assert_eq!(worker.wake_at(now + 570 * SECOND, 1), None, "no busy loop");
    }

    #[test]
    fn who_was_told_to_stop_begins_nothing_and_ends_with_the_last_run() {
        let now = Instant::now();
        let mut worker = worker(None, now);
        worker.stop("told");
        worker.stop("again");
        assert_eq!((worker.refusal(now, 1), worker.is_over(now)), (Some(NotBegun::EndsSoon), Some("told")));
    }

    #[test]
    fn an_allocation_for_one_run_ends_with_it() {
        let now = Instant::now();
        let mut once = Tenure::new(Kept::One { begun: false }, None, SECOND, SECOND, now);
        assert_eq!((once.refusal(now, 0), once.is_over(now + FIRST_DAEMON * 2)), (None, None));
        once.has_begun();
        assert_eq!((once.refusal(now, 0), once.is_over(now)), (Some(NotBegun::NoRoom), Some("its run has ended")));
    }
}
