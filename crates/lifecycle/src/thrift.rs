//! What the queues may cost a day: what of it is spent and owed here, and what is said of it.
//!
//! Out of scope: the rule by which it is spent (`allowance`), and what others spend, which the daemon hears.

use std::time::Duration;

use allowance::{Allowance, Care, OF_A_DELETION, OF_A_MESSAGE_TO_COME, State, operations};

use crate::lifecycle::{Lifecycle, Step};
use crate::{Effect, Notice, Pulled};

/// The allowance, and what was said of it.
#[derive(Debug)]
pub(crate) struct Thrift {
    pub(crate) allowance: Allowance,
    /// How many messages are asked for by a pull that is on its way.
    pub(crate) asked_for: usize,
    /// How careful it was said to be, and on which day.
    said: (u64, Care),
}

/// What of the day's allowance is spent, and what is owed of it, at one moment.
#[derive(Debug, Clone)]
pub struct Expenses {
    /// What is spent.
    pub allowance: Allowance,
    /// What is not spent yet, and will be.
    pub owed: u64,
    /// When.
    pub now: Duration,
}

impl Expenses {
    /// How many messages of a pull that is on its way may be asked for, now that so many operations are known to be
    /// spent besides.
    pub fn permit(mut self, count: usize, day: u64, operations: u64, sharers: u64) -> usize {
        self.allowance.spent_besides(day, operations, sharers, self.now);
        let owed = self.owed.saturating_sub(count as u64 * OF_A_MESSAGE_TO_COME);
        self.allowance.messages(count, owed, self.now)
    }
}

impl Thrift {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self { allowance, asked_for: 0, said: (0, Care::None) }
    }
}

impl Lifecycle {
    /// A pull came back. After one that has brought nothing the next may have to wait.
    pub(crate) fn has_cost(&mut self, pulled: &Pulled) {
        if pulled.spared {
            return;
        }
        // What more it is to delete a large one is spent now: that it will be is certain.
        let each = |body: &String| 2 * operations(body.len()) - OF_A_DELETION;
        let cost: u64 = pulled.deliveries.iter().map(|delivery| each(&delivery.body)).sum();
        self.thrift.allowance.spend(cost.max(1), self.now);
        if pulled.deliveries.is_empty() {
            let pause = self.thrift.allowance.pause(Duration::ZERO, self.owed_operations(), self.now);
            self.intake.pulls.wait_at_least_until(self.now + pause);
        }
    }

    /// What the jobs that are held will cost yet, without those of a pull that is on its way.
    pub(crate) fn owed_operations(&self) -> u64 {
        if !self.thrift.allowance.is_limited() {
            return 0;
        }
        self.jobs.owed_operations() + self.settler.acks() as u64 * OF_A_DELETION
    }

    /// When there is a new allowance, while nothing may be taken for want of one.
    pub(crate) fn next_day_at(&self) -> Option<Duration> {
        self.is_spent().then(|| allowance::next_day(self.now))
    }

    /// Is nothing taken any more today?
    pub(crate) fn is_spent(&self) -> bool {
        self.allowance().is_some_and(|state| state.care == Care::Stop)
    }

    /// How it is with the day's allowance, where there is one.
    pub fn allowance(&self) -> Option<State> {
        self.thrift.allowance.state(self.owed_operations(), self.now)
    }

    /// What of the day's allowance is spent, and what is owed of it, a pull that is on its way included, for who tells
    /// others of it; where there is one.
    pub fn expenses(&self) -> Option<Expenses> {
        let allowance = &self.thrift.allowance;
        let expenses = || {
            let to_come = self.thrift.asked_for as u64 * OF_A_MESSAGE_TO_COME;
            Expenses { allowance: allowance.clone(), owed: self.owed_operations() + to_come, now: self.now }
        };
        allowance.is_limited().then(expenses)
    }

    /// Says once a day that there is need to be careful, and once that nothing is left.
    pub(crate) fn say_how_careful(&mut self, step: &mut Step) {
        let Some(state) = self.allowance() else { return };
        let (day, said) = self.thrift.said;
        let today = allowance::day(self.now);
        let before = if day == today { said } else { Care::None };
        if state.care > before {
            self.thrift.said = (today, state.care);
            let until = allowance::next_day(self.now);
            step.effects.push(Effect::Say(Notice::Allowance { state, resets_in: until.saturating_sub(self.now) }));
        }
    }
}
