//! The ways out: drained, handed over, idle, stopped, or with nothing left that can be done.

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

    pub(crate) fn leave(&mut self, step: &mut Step) {
        let fatal = self.shutdown.end();
        for job_id in self.jobs.lanes().flat_map(|lane| lane.ready().cloned()).collect::<Vec<_>>() {
            // It was not begun: we know that, and the next daemon would not after a power cut.
            let failures = self.jobs.get(&job_id).map(|job| job.failures).unwrap_or_default();
            step.facts.push(Fact::Again(job_id, failures));
        }
        if self.held() > 0 {
            let (running, results) = (self.running(), self.owed());
            let waiting = self.held() - running - results;
            step.effects.push(Effect::Say(Notice::LeftOver { running, waiting, results }));
        }
        step.effects.push(fatal.map_or(Effect::Exit, Effect::Fail));
    }
}
