//! What comes from the queue: when it is asked, and what is on its way in.

use std::time::Duration;

use crate::requests::Requests;
use crate::{Delivery, Lease, Pulled, Settings};

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
    /// Until then the queue hides messages that we gave back.
    returns_until: Duration,
    putting_away: usize,
}

impl Intake {
    /// A pull came back.
    pub(crate) fn pulled(&mut self, pulled: &Pulled, settings: &Settings, now: Duration) {
        self.pulls.succeeded();
        let held = pulled.held.unwrap_or_default();
        self.leased_at = (self.pulls.begun() + held).min(now);
        if !pulled.deliveries.is_empty() {
            self.empty_pulls = 0;
            return;
        }
        if pulled.held.is_some() {
            // The queue would have answered had there been anything: that was the pause.
            self.empty_pulls = 1;
            return self.pulls.wait_until(now + settings.poll_interval.saturating_sub(held));
        }
        let doublings = self.empty_pulls.min(16);
        self.empty_pulls = self.empty_pulls.saturating_add(1);
        let pause = settings.poll_interval.saturating_mul(1 << doublings);
        self.pulls.wait_until(now + pause.min(settings.poll_interval_max.max(settings.poll_interval)));
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

    /// Messages go back, and come again after their delay.
    pub(crate) fn gives_back(&mut self, until: Duration) {
        self.expect_messages();
        self.returns_until = self.returns_until.max(until);
    }

    /// Is the queue empty as far as we know?
    pub(crate) fn found_it_empty(&self, now: Duration) -> bool {
        self.empty_pulls > 0 && now >= self.returns_until
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
