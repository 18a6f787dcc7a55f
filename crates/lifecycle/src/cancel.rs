//! Jobs that a person does not want any more.
//!
//! A cancellation may come at any time: before the message of its job, while the job waits or runs, or after its end.
//! It is kept outside of here, where all daemons of a site see it, and told anew to each that starts; so nothing of it
//! is a fact of ours but its consequence, the final record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{JobId, limits};

use crate::lifecycle::{Lifecycle, Step};
use crate::table::State;
use crate::{Attempt, Effect, EndReason, Ending, Run};

/// What is to be cancelled.
#[derive(Debug, Default)]
pub(crate) struct Cancellations {
    /// Since when we know, whether we hold the job or not: its message may come later.
    known: BTreeMap<JobId, Duration>,
    /// Those of jobs that we hold and that have no final record yet, whose run the executor was told to end since it
    /// told last what goes on.
    told: BTreeSet<JobId>,
    /// When to look next for those that no message can need any more. There may be very many.
    forget_at: Duration,
}

/// Between two such looks.
const FORGET_INTERVAL: Duration = Duration::from_hours(1);

impl Cancellations {
    /// Is this job to be cancelled?
    pub(crate) fn contains(&self, job_id: &JobId) -> bool {
        self.known.contains_key(job_id)
    }

    /// No message lives so long: what was never seen never comes.
    fn forget_old(&mut self, now: Duration) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_INTERVAL;
        let Self { known, told, .. } = self;
        known.retain(|_, since| *since + limits::MESSAGE_AGE_MAX >= now);
        told.retain(|job_id| known.contains_key(job_id));
    }
}

impl Lifecycle {
    /// Somebody wants this job cancelled.
    pub(crate) fn cancel(&mut self, job_id: JobId) {
        self.cancellations.forget_old(self.now);
        self.cancellations.known.insert(job_id.clone(), self.now);
        self.jobs.follow(&job_id);
    }

    /// A job is ours from here on.
    pub(crate) fn accepted(&mut self, job_id: &JobId) {
        if self.cancellations.contains(job_id) {
            self.jobs.follow(job_id);
        }
    }

    /// The executor has told what goes on: what still does may not have heard that it is to end.
    pub(crate) fn tell_again_what_to_end(&mut self) {
        self.cancellations.told.clear();
        self.jobs.look_at_all_followed();
    }

    /// Is this job to be cancelled?
    pub fn is_cancelled(&self, job_id: &JobId) -> bool {
        self.cancellations.contains(job_id)
    }

    /// Ends what is to be cancelled, as far as that is possible now. What is on its way comes back here when it has
    /// changed. Thousands may be cancelled at once, so only those are looked at that have.
    pub(crate) fn carry_out_cancellations(&mut self, step: &mut Step) {
        for job_id in self.jobs.take_moved() {
            if !self.is_cancelled(&job_id) {
                // So long ago that it is forgotten.
                self.jobs.unfollow(&job_id);
                continue;
            }
            match self.jobs.get(&job_id).map(|job| &job.state) {
                None | Some(State::Recorded(_)) => {
                    self.jobs.unfollow(&job_id);
                    self.cancellations.told.remove(&job_id);
                }
                // Whoever holds it ends it; and if nobody is left there, a claim tells.
                Some(State::Waiting(_) | State::Staging) if self.jobs.get(&job_id).is_some_and(|job| job.elsewhere) => {
                }
                Some(State::Waiting(_) | State::Staging | State::Ready | State::Parked) => {
                    self.conclude_cancelled(&job_id, step)
                }
                Some(State::Uploading { .. }) => self.cancel_upload(&job_id, step),
                Some(State::Running(_)) => {
                    if self.executor.is_known()
                        && let Some(run) = self.run_of(&job_id)
                        && self.cancellations.told.insert(job_id)
                    {
                        step.effects.push(Effect::End(run, EndReason::Cancelled));
                    }
                }
                Some(State::Asked | State::Claiming | State::Ending { .. } | State::Returning(_)) => {}
            }
        }
    }

    /// Is a job being cancelled of which nothing runs here?
    pub(crate) fn is_being_cancelled(&self, job_id: &JobId) -> bool {
        let state = self.jobs.get(job_id).map(|job| &job.state);
        matches!(state, Some(State::Ending { ending: Ending::Cancelled(_), .. }))
    }

    /// Another daemon holds it.
    pub(crate) fn cancelled_elsewhere(&mut self, run: &Run, step: &mut Step) {
        let why = "it is to be cancelled, and another daemon holds it".to_owned();
        self.again(run, self.settings.claim_patience, why, |_| {}, step);
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.elsewhere = true;
        }
    }

    /// Nothing of it runs.
    pub(crate) fn conclude_cancelled(&mut self, job_id: &JobId, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        let attempt = *job.attempt.get_or_insert(Attempt::FIRST);
        let ran = match job.state {
            // This one was launched and not begun.
            State::Ready => Attempt::new(attempt.get() - 1),
            _ => job.launched,
        };
        let run = Run { job_id: job_id.clone(), attempt };
        self.conclude(&run, Ending::Cancelled(ran), step);
    }
}
