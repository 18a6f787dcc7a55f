//! The ways out: drained, handed over, idle, stopped, or with nothing left that can be done.

use std::time::Duration;

use crate::pauses::Line;
use crate::phases::Phase;
use crate::state::{Lifecycle, Step};
use crate::{Effect, Fact, Notice};

/// How much longer than its time a drain waits for the queue to take back what was not begun.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

impl Lifecycle {
    /// Is it time to exit? What runs is left to the keeper and to the next daemon.
    pub(crate) fn end(&mut self, step: &mut Step) {
        let under_way = self.pull.busy
            || self.putting_away > 0
            || [Phase::Asked, Phase::Claiming, Phase::Returning].iter().any(|phase| self.jobs.count(*phase) > 0);
        let empty = self.empty_pulls > 0 && self.now >= self.returns_until;
        let nothing_to_do = self.jobs.len() == 0 || self.only_refused_are_left();
        let idle = self.settings.exit_when_idle && empty && nothing_to_do;
        if idle && !under_way && !self.unsettled() {
            return self.leave(step);
        }
        if let Some(until) = self.handing_over_until {
            let on_the_way = under_way || self.settle.busy || !self.retries.is_empty();
            if !on_the_way || self.now >= until {
                return self.leave(step);
            }
        }
        let Some(until) = self.draining_until else { return };
        let handed_over = self.jobs.outbox().is_empty() && !self.unsettled();
        let at_work = self.running() + self.jobs.count(Phase::Ending) > 0;
        let drained = !under_way && handed_over && !at_work;
        // With a token that is refused nothing can be handed over; what runs needs no daemon to go on.
        let tried = |line: &Line, nothing_owed: bool| nothing_owed || (!line.busy && line.in_trouble());
        let hopeless = self.fatal.is_some()
            && !under_way
            && tried(&self.publish, self.jobs.outbox().is_empty())
            && tried(&self.settle, !self.unsettled());
        // What is being given back is not to be seen again only after its lease.
        let giving_back = self.settle.busy || !self.retries.is_empty();
        let late = self.now >= until && (!giving_back || self.now >= until + SETTLE_PATIENCE);
        if drained || hopeless || late {
            self.leave(step);
        }
    }

    pub(crate) fn leave(&mut self, step: &mut Step) {
        self.over = true;
        for job_id in self.jobs.ready() {
            // It was not begun: we know that, and the next daemon would not after a power cut.
            let failures = self.jobs.get(&job_id).map(|job| job.failures).unwrap_or_default();
            step.facts.push(Fact::Again(job_id, failures));
        }
        if self.held() > 0 {
            let (running, results) = (self.running(), self.owed());
            let waiting = self.held() - running - results;
            step.effects.push(Effect::Say(Notice::LeftOver { running, waiting, results }));
        }
        step.effects.push(match self.fatal.take() {
            Some(why) => Effect::Fail(why),
            None => Effect::Exit,
        });
    }
}
