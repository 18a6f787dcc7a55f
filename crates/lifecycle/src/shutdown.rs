//! Whether the daemon is to end, in which way, and until when it is waited for what.

use std::time::Duration;

use crate::Fatal;

/// How long a daemon that hands over to the next one waits for what is on its way.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(60);

/// How much longer than its time a drain waits for the queue to take back what was not begun.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a daemon that cannot go on still tries to hand over what it owes.
const FATAL_PATIENCE: Duration = Duration::from_secs(10);

/// The end of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// Told to drain: until then what runs is waited for.
    draining_until: Option<Duration>,
    /// Told to hand over: until then what is on its way is waited for.
    handing_over_until: Option<Duration>,
    stopped: bool,
    /// Why the daemon cannot go on.
    fatal: Option<Fatal>,
    over: bool,
}

impl Shutdown {
    /// Nothing new is taken; what runs has this long.
    pub(crate) fn drain(&mut self, patience: Duration, now: Duration) {
        self.draining_until.get_or_insert(now + patience);
    }

    pub(crate) fn hand_over(&mut self, now: Duration) {
        self.handing_over_until.get_or_insert(now + HAND_OVER_PATIENCE);
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// The daemon cannot go on.
    pub(crate) fn fail(&mut self, why: Fatal, now: Duration) {
        let until = now + FATAL_PATIENCE;
        self.draining_until = Some(self.draining_until.map_or(until, |earlier| earlier.min(until)));
        self.fatal.get_or_insert(why);
    }

    /// It ends now; returns why it had to.
    pub(crate) fn end(&mut self) -> Option<Fatal> {
        self.over = true;
        self.fatal.take()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn is_fatal(&self) -> bool {
        self.fatal.is_some()
    }

    /// Is it proven that the settings are wrong? Then nothing is sent anywhere but back to where it came from.
    pub(crate) fn are_settings_wrong(&self) -> bool {
        matches!(self.fatal, Some(Fatal::WrongSettings(_)))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining_until.is_some()
    }

    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over_until.is_some()
    }

    /// Was what runs waited for long enough? What is being given back has a little longer.
    pub(crate) fn has_drained_long_enough(&self, giving_back: bool, now: Duration) -> bool {
        self.draining_until.is_some_and(|until| now >= until && (!giving_back || now >= until + SETTLE_PATIENCE))
    }

    /// Was what is on its way waited for long enough?
    pub(crate) fn has_handed_over_long_enough(&self, now: Duration) -> bool {
        self.handing_over_until.is_some_and(|until| now >= until)
    }

    /// The times at which patience ends.
    pub(crate) fn ends(&self) -> [Option<Duration>; 3] {
        [self.draining_until, self.draining_until.map(|until| until + SETTLE_PATIENCE), self.handing_over_until]
    }
}
