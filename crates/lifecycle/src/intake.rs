//! What comes from the queue: when it is asked, and what is on its way in.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::requests::Requests;
use crate::{Delivery, Lease, Pulled, Settings};

/// When it is looked again after somebody has said that there is something: a queue shows a message to some of those
/// who ask before it shows it to all.
const LOOKS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// How many times in a row it may be said in vain before it is heeded no more often than an empty queue is polled. Who
/// says so may be wrong, and with several daemons at one queue it is another one that finds the message.
const VAIN_MAX: u32 = 8;

/// After so long without a word, what was said in vain is forgotten.
const VAIN_FORGOTTEN: Duration = Duration::from_secs(600);

/// For how long a pull counts as one that was asked for: until after the last of these looks.
const AWAKE: Duration = Duration::from_secs(5);

/// Pulls, and messages that are no jobs and are being put away.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(crate) pulls: Requests,
    /// When the queue leased what the last pull brought, by our clock, or later.
    leased_at: Duration,
    /// How many pulls in a row brought nothing.
    empty_pulls: u32,
    /// How many pulls in a row brought only jobs that no pool had room for.
    misses: u32,
    /// When the queue shows messages again that we gave back, in whole seconds: there are few, however many come.
    returns: BTreeSet<u64>,
    putting_away: usize,
    /// When it was said last that there may be something.
    woken_at: Option<Duration>,
    /// It was said while a pull was under way, which may have come too early.
    woken_meanwhile: bool,
    /// How many times in a row that was in vain, and until when it is not heeded for that.
    in_vain: u32,
    unheeded_until: Duration,
    /// Is there somebody who says so?
    linked: bool,
}

impl Intake {
    /// Somebody says that there may be something in the queue. Said many times while a pull is under way, it is one
    /// more pull.
    pub(crate) fn woken(&mut self, settings: &Settings, now: Duration) {
        if self.woken_at.is_none_or(|before| now > before + VAIN_FORGOTTEN) {
            self.in_vain = 0;
        }
        self.woken_at = Some(now);
        let again = self.woken_meanwhile;
        self.woken_meanwhile |= self.pulls.is_busy();
        if again || now < self.unheeded_until {
            return self.wait_at_most_until(self.unheeded_until);
        }
        self.in_vain = self.in_vain.saturating_add(1);
        if let Some(more) = self.in_vain.checked_sub(VAIN_MAX + 1) {
            self.unheeded_until = now + doubled(settings, more);
        }
        self.wait_at_most_until(now);
    }

    /// Somebody is there who says so, or is gone. What was said before that was not heard.
    pub(crate) fn linked(&mut self, linked: bool, settings: &Settings, now: Duration) {
        if linked == std::mem::replace(&mut self.linked, linked) {
            return;
        }
        if linked {
            return self.woken(settings, now);
        }
        self.expect_messages();
        self.wait_at_most_until(now + settings.poll_interval);
    }

    /// Was it said just now?
    pub(crate) fn is_awake(&self, now: Duration) -> bool {
        self.woken_at.is_some_and(|at| now <= at + AWAKE)
    }

    /// A queue that does not answer is asked no earlier for that.
    fn wait_at_most_until(&mut self, at: Duration) {
        if !self.pulls.is_busy() && !self.pulls.in_trouble() {
            self.pulls.wait_at_most_until(at);
        }
    }

    /// When there may be something although a pull brings nothing and nobody says so.
    fn may_come_at(&self, now: Duration) -> Option<Duration> {
        let looks = self.woken_at.into_iter().flat_map(|at| LOOKS.map(|pause| at + pause));
        let looks = looks.filter(|at| *at >= self.unheeded_until);
        let returns = self.returns.iter().map(|seconds| Duration::from_secs(*seconds)).filter(|_| self.linked);
        looks.chain(returns).filter(|at| *at > now).min()
    }

    /// A pull came back.
    pub(crate) fn pulled(&mut self, pulled: &Pulled, settings: &Settings, now: Duration) {
        self.pulls.succeeded();
        let woken_meanwhile = std::mem::take(&mut self.woken_meanwhile);
        let held = pulled.held.unwrap_or_default();
        self.leased_at = (self.pulls.begun() + held).min(now);
        // What came back before it was asked for is in this answer.
        self.returns = self.returns.split_off(&self.pulls.begun().as_secs().saturating_add(1));
        if !pulled.deliveries.is_empty() {
            (self.empty_pulls, self.in_vain, self.unheeded_until) = (0, 0, Duration::ZERO);
            return;
        }
        if pulled.held.is_some() {
            // The queue would have answered had there been anything, whatever was said: that was the pause.
            (self.empty_pulls, self.in_vain, self.unheeded_until) = (1, 0, Duration::ZERO);
            return self.pulls.wait_until(now + settings.poll_interval.saturating_sub(held));
        }
        if woken_meanwhile {
            return self.pulls.wait_until(self.unheeded_until);
        }
        let pause = if self.linked { settings.linked_poll_interval } else { doubled(settings, self.empty_pulls) };
        self.empty_pulls = self.empty_pulls.saturating_add(1);
        let at = now + pause;
        self.pulls.wait_until(self.may_come_at(now).map_or(at, |early| at.min(early)));
    }

    /// The last pull brought jobs; was any of them for a pool that has room?
    pub(crate) fn brought(&mut self, any_fits: bool) {
        self.misses = if any_fits { 0 } else { self.misses.saturating_add(1) };
    }

    /// How many messages to ask for where so many are wanted, a batch at most. While the queue brings only jobs that
    /// have to wait here, what is wanted lies behind them, and each pull costs the same: it takes twice as many.
    pub(crate) fn count(&self, wanted: usize, batch_size: usize) -> usize {
        wanted.saturating_mul(1 << self.misses.min(16)).min(batch_size)
    }

    /// There may be something in the queue, whatever the last pull brought.
    pub(crate) fn expect_messages(&mut self) {
        self.empty_pulls = 0;
    }

    /// The queue has taken messages back, and shows them again at this time or a little earlier.
    pub(crate) fn comes_back(&mut self, at: Duration) {
        let seconds = at.as_secs().saturating_add(1);
        self.expect_messages();
        self.returns.insert(seconds);
        if self.linked {
            self.wait_at_most_until(Duration::from_secs(seconds));
        }
    }

    /// Is the queue empty as far as we know?
    pub(crate) fn found_it_empty(&self, now: Duration) -> bool {
        self.empty_pulls > 0 && self.returns.last().is_none_or(|seconds| now >= Duration::from_secs(*seconds))
    }

    /// Did the last pull bring nothing, or fail?
    pub(crate) fn has_looked(&self) -> bool {
        self.empty_pulls > 0 || self.pulls.in_trouble()
    }

    /// Did any pull come back, or fail?
    pub(crate) fn has_been_answered(&self) -> bool {
        self.leased_at > Duration::ZERO || self.pulls.in_trouble()
    }

    /// A message that is no job is being put away.
    pub(crate) fn puts_away(&mut self) {
        self.putting_away += 1;
    }

    /// One was put away, or could not be.
    pub(crate) fn has_put_away(&mut self) {
        self.putting_away -= 1;
    }

    /// Are messages that are no jobs being put away? Until they are, no more is taken: the disk may be full.
    pub(crate) fn is_putting_away(&self) -> bool {
        self.putting_away > 0
    }

    /// Is anything on its way in?
    pub(crate) fn is_under_way(&self) -> bool {
        self.pulls.is_busy() || self.is_putting_away()
    }

    /// The lease of a delivery that the last pull brought, by our clock.
    pub(crate) fn lease_of(&self, delivery: &Delivery, settings: &Settings) -> Lease {
        let (id, deliveries) = (delivery.lease_id.clone(), Some(delivery.deliveries));
        Lease { id, until: self.leased_at + settings.lease, deliveries }
    }
}

/// How long to wait after this many pulls of an empty queue before the last one.
fn doubled(settings: &Settings, before: u32) -> Duration {
    let doubled = settings.poll_interval.saturating_mul(1 << before.min(16));
    doubled.min(settings.poll_interval_max.max(settings.poll_interval))
}
