//! The ways out: drained, handed over, idle, stopped, or with nothing left that can be done.

use std::time::Duration;

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::requests::Requests;
use crate::{Effect, Fact, Notice};

impl Lifecycle {
    /// Is it time to exit? What runs is left to the executor and to the next daemon.
    pub(crate) fn end(&mut self, step: &mut Step) {
        let under_way = self.intake.is_under_way()
            || [Phase::Asked, Phase::Claiming, Phase::Returning].iter().any(|phase| self.jobs.count(*phase) > 0);
        let held = self.jobs.len();
        let nothing_to_do = held == 0 || self.publisher.has_given_up_on(held, self.now);
        let idle = self.settings.exit_when_idle && self.intake.found_it_empty(self.now) && nothing_to_do;
        if idle && !under_way && self.settler.is_done() {
            return self.leave(step);
        }
        if self.shutdown.is_handing_over() {
            let on_the_way = under_way || self.settler.is_giving_back();
            if !on_the_way || self.shutdown.has_handed_over_long_enough(self.now) {
                return self.leave(step);
            }
        }
        if !self.draining() {
            return;
        }
        let owes_results = !self.jobs.outbox().is_empty() && !self.shutdown.are_settings_wrong();
        let handed_over = !owes_results && self.settler.is_done();
        // Outputs that wait for a store that is away may do so for weeks, and the next daemon goes on with them.
        let at_work = self.running() + self.jobs.count(Phase::Ending) + self.uploading() > 0;
        let drained = !under_way && handed_over && !at_work;
        // With a token that is refused nothing can be handed over; what runs needs no daemon to go on.
        let tried = |requests: &Requests, nothing_owed: bool| nothing_owed || requests.was_tried();
        let hopeless = self.shutdown.is_fatal()
            && !under_way
            && tried(&self.publisher.pushes, !owes_results)
            && tried(&self.settler.requests, self.settler.is_done());
        if drained || hopeless || self.shutdown.has_drained_long_enough(self.settler.is_giving_back(), self.now) {
            self.leave(step);
        }
    }

    /// Is it known how each pool is and what runs, as far as can be?
    fn knows_what_is_there(&self) -> bool {
        let later = |at: Option<Duration>| at.is_none_or(|at| at > self.now);
        let looked_at = |no| {
            let pool = self.pools.get(no);
            pool.is_ready() || (pool.problem().is_some() && later(pool.probe_at()) && pool.probe_at().is_some())
        };
        let observed = self.executor.is_known() || self.executor.trouble().is_some();
        self.pools.real().all(looked_at) && observed
    }

    /// The same, and has the queue been asked whether there are jobs?
    pub(crate) fn has_looked_around(&self) -> bool {
        let asked = self.wants_pull() == 0 || self.intake.has_been_answered();
        self.knows_what_is_there() && asked && self.jobs.count(Phase::Asked) == 0
    }

    /// Is all done that can be done by now? What is left runs, waits for its time, or cannot be done yet: a daemon that
    /// is not to stay may hand over ([`Event::HandOver`](crate::Event::HandOver)).
    pub fn has_gone_round(&self) -> bool {
        let pulled = self.wants_pull() == 0 || self.intake.has_looked();
        let published = self.jobs.outbox().is_empty() || self.publisher.pushes.was_tried();
        let settled = self.settler.is_done() || self.settler.requests.was_tried();
        let on_the_way = [Phase::Asked, Phase::Staging, Phase::Claiming, Phase::Ready, Phase::Returning];
        let moving = on_the_way.iter().map(|phase| self.jobs.count(*phase)).sum::<usize>() + self.uploading();
        let ending = self.pools.all().map(|no| self.being_dealt_with(no)).sum::<usize>();
        self.knows_what_is_there()
            && pulled
            && published
            && settled
            && !self.intake.is_putting_away()
            && !self.unfolding.is_busy(self.now)
            && moving + ending == 0
    }

    pub(crate) fn leave(&mut self, step: &mut Step) {
        let fatal = self.shutdown.end();
        for job_id in self.jobs.lanes().flat_map(|lane| lane.ready().cloned()).collect::<Vec<_>>() {
            // It was not begun: we know that, and the next daemon would not after a power cut.
            let failures = self.jobs.get(&job_id).map(|job| job.failures).unwrap_or_default();
            step.facts.push(Fact::Again(job_id, failures));
        }
        step.facts.extend(self.idle_instances());
        if self.held() > 0 {
            let (running, results) = (self.running(), self.owed());
            let waiting = self.held() - running - results;
            step.effects.push(Effect::Say(Notice::LeftOver { running, waiting, results }));
        }
        step.effects.push(fatal.map_or(Effect::Exit, Effect::Fail));
    }
}
