//! Requests of one kind to the queue: one at a time, and how long to wait before the next after a failure.

use std::time::Duration;

use protocol::FailureClass;

use crate::Failure;

/// The first pause after a failure that may pass soon.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause between tries: an outage of weeks costs one request a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// Between looks at a queue that a person has paused.
const PAUSED: Duration = Duration::from_secs(30);

/// How long a queue may say that pulling is not enabled before we believe it: a new consumer needs some seconds.
const NOT_ENABLED_PATIENCE: Duration = Duration::from_secs(60);

/// One kind of request: what failed lately, and when the next is due.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Is one on its way?
    busy: bool,
    /// No other before this time.
    not_before: Duration,
    /// When the last one began.
    begun: Duration,
    failures: u32,
    not_enabled_since: Option<Duration>,
}

/// What follows from a failure.
pub(crate) enum Verdict {
    /// Try again after this pause; `said` when this trouble was known already.
    Again { pause: Duration, said: bool },
    /// Give up for good.
    Never,
}

impl Requests {
    pub(crate) fn free(&self, now: Duration) -> bool {
        !self.busy && now >= self.not_before
    }

    /// Is one on its way?
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// When the last one began.
    pub(crate) fn begun(&self) -> Duration {
        self.begun
    }

    /// The next is not before this time.
    pub(crate) fn wait_until(&mut self, at: Duration) {
        self.not_before = at;
    }

    /// The next may be from this time on, however long it was to wait.
    pub(crate) fn wait_at_most_until(&mut self, at: Duration) {
        self.not_before = self.not_before.min(at);
    }

    /// The next is not before this time either.
    pub(crate) fn wait_at_least_until(&mut self, at: Duration) {
        self.not_before = self.not_before.max(at);
    }

    /// Has it been tried since it was needed, and failed?
    pub(crate) fn was_tried(&self) -> bool {
        !self.busy && self.in_trouble()
    }

    /// Has the last request failed?
    pub(crate) fn in_trouble(&self) -> bool {
        self.failures > 0
    }

    /// Should it be tried all the same, for what is owed, then not often.
    fn never(&mut self, now: Duration) -> Verdict {
        self.not_before = now + LONGEST;
        Verdict::Never
    }

    /// The time of the next try, when it is in the future.
    pub(crate) fn next(&self) -> Option<Duration> {
        (!self.busy).then_some(self.not_before)
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self) {
        *self = Self { begun: self.begun, ..Self::default() };
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.busy = true;
        self.begun = now;
    }

    pub(crate) fn failed(&mut self, failure: &Failure, now: Duration) -> Verdict {
        self.busy = false;
        let said = self.failures > 0;
        self.failures = self.failures.saturating_add(1);
        let doubling = FIRST.saturating_mul(1 << (self.failures - 1).min(10)).min(LONGEST);
        let spread = |pause: Duration| pause.mul_f64(0.5 + failure.jitter.clamp(0.0, 1.0) / 2.0);
        let pause = match failure.class {
            FailureClass::Fatal => return self.never(now),
            FailureClass::PullNotEnabled => {
                let since = *self.not_enabled_since.get_or_insert(now);
                if now.saturating_sub(since) >= NOT_ENABLED_PATIENCE {
                    return self.never(now);
                }
                spread(doubling.min(Duration::from_secs(5)))
            }
            FailureClass::Paused => PAUSED,
            FailureClass::QuotaExhausted => allowance::pause_of_used_up(now, failure.jitter),
            // The service may ask for more than we would wait, never for less.
            FailureClass::Throttled(after) => spread(doubling).max(after.unwrap_or_default()),
            FailureClass::Refused | FailureClass::Unavailable => spread(doubling),
        };
        self.not_before = now + pause;
        Verdict::Again { pause, said }
    }
}
