//! Jobs that do not find a place here: the pool is full or broken, this site does not have it, or no pool takes the job
//! at all.
//!
//! What another site may run stays in the queue for about a day, and is delivered there in the meantime. What none may
//! run has failed. A job that was accepted under another site's file goes back if that is possible, and else waits as
//! long here: the file may be changed once more.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::{JobId, PoolName, limits};
use site::Refusal;

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::pools::{Place, PoolNo};
use crate::{Attempt, Effect, Ending, Notice, Run};

/// How long a job waits for a site that has its pool. A queue of the free plan forgets a message after a day, and the
/// job must have failed before that.
const NOBODY_FOR: Duration = Duration::from_hours(23);

/// The first pause before a message for another site may come again: whoever has its place may be there now, and was
/// not the first to see it.
const ELSEWHERE_FIRST: Duration = Duration::from_secs(2);

/// The longest pause before a message that was given back may come again.
const GIVE_BACK_MAX: Duration = Duration::from_hours(1);

/// How many more deliveries of a message there must be before its queue gives it up, for it to be given back: what is
/// given up nobody hears of, and each crash costs a delivery as well.
const DELIVERIES_LEFT: u64 = 10;

/// What was said of jobs that find no place.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Pools that this site does not have, and that jobs are for.
    unknown: BTreeSet<PoolName>,
    /// Pools of which it was said that they are full.
    full: BTreeSet<PoolNo>,
    /// Was all that this daemon has found at its start given back as far as that is possible?
    sorted: bool,
}

impl Place {
    /// From when on a job that waits in this place is claimed, or rejected: this time, unless another site may have it,
    /// and it waits here since then.
    pub(crate) fn is_due_from(&self, at: Duration, since: Duration) -> Duration {
        match self {
            Self::Elsewhere(_) => since + NOBODY_FOR,
            Self::Nowhere(_) | Self::In(_) => at,
        }
    }
}

impl Lifecycle {
    /// Is a job that was just delivered not to be accepted? Returns the pause before it may come again. Nothing of it
    /// is ours yet.
    pub(crate) fn is_to_stay_in_the_queue(&mut self, job_id: &JobId, step: &mut Step) -> Option<Duration> {
        if self.draining() {
            return Some(Duration::ZERO);
        }
        let job = self.jobs.get(job_id)?;
        let deliveries = job.deliveries.unwrap_or(1);
        let first = match job.place {
            Place::Elsewhere(_) => ELSEWHERE_FIRST.min(self.settings.retry_delay),
            Place::In(_) | Place::Nowhere(_) => self.settings.retry_delay,
        };
        let pause = pause_of_delivery(first, deliveries);
        // Of a message that another producer wrote, its deliveries tell about how long it has waited.
        let age = job.sent.map_or_else(|| waited_in_queue(first, deliveries), |sent| self.now.saturating_sub(sent));
        let no = job.lane;
        let pool = self.pools.get(no);
        let is_last = deliveries + DELIVERIES_LEFT > limits::QUEUE_RETRIES_MAX;
        match &job.place {
            // Its result is known, and needs no place.
            _ if self.is_cancelled(job_id) && pool.problem().is_none() => None,
            Place::In(_) if is_last => None,
            Place::In(_) if pool.problem().is_some() || self.is_stranded(job) || self.is_one_too_many(job) => {
                Some(pause)
            }
            Place::In(_) => {
                let (waiting, hold) = (self.waiting_in(no), pool.hold());
                if waiting < hold {
                    if waiting <= hold / 2 {
                        self.refusals.full.remove(&no);
                    }
                    return None;
                }
                if self.refusals.full.insert(no) {
                    step.effects.extend(pool.name().cloned().map(|pool| Effect::Say(Notice::Full { pool, hold })));
                }
                Some(pause)
            }
            Place::Elsewhere(refusal) => {
                if is_last || age + pause > NOBODY_FOR {
                    let why = nobody_has(refusal).into();
                    if let Some(job) = self.jobs.get_mut(job_id) {
                        job.place = Place::Nowhere(why);
                    }
                    return None;
                }
                if let Refusal::NoSuchPool { pool, .. } = &**refusal
                    && self.refusals.unknown.len() < UNKNOWN_MAX
                    && !self.refusals.unknown.contains(pool)
                {
                    self.refusals.unknown.insert(pool.clone());
                    let what = refusal.to_string();
                    step.effects.push(Effect::Say(Notice::NoSuchPool { job_id: job_id.clone(), what }));
                }
                Some(pause)
            }
            Place::Nowhere(_) => None,
        }
    }

    /// How many jobs wait in a pool for their files or for a slot. What waits for the store is bounded by itself, and
    /// takes no place from others.
    fn waiting_in(&self, no: PoolNo) -> usize {
        let lane = self.jobs.lane(no);
        lane.count(Phase::Waiting) + lane.count(Phase::Staging) - self.stranded(no) - lane.needing_count()
    }

    /// Goes on with jobs that no pool takes.
    pub(crate) fn deal_with_refused(&mut self, step: &mut Step) {
        let nowhere = self.pools.nowhere();
        if !std::mem::replace(&mut self.refusals.sorted, true) {
            self.give_unstarted_back(nowhere, self.settings.retry_delay, step);
        }
        while let Some((_, job_id)) = self.jobs.lane(nowhere).first_due() {
            let job_id = job_id.clone();
            let why = match self.jobs.get(&job_id).map(|job| &job.place) {
                Some(Place::Nowhere(why)) => why.to_string(),
                Some(Place::Elsewhere(refusal)) => nobody_has(refusal),
                Some(Place::In(_)) | None => "no pool takes it".to_owned(),
            };
            self.reject(&job_id, why, step);
        }
    }

    /// Nothing of it runs.
    pub(crate) fn reject(&mut self, job_id: &JobId, why: String, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        let attempt = *job.attempt.get_or_insert(Attempt::FIRST);
        self.conclude(&Run { job_id: job_id.clone(), attempt }, Ending::Rejected(why), step);
    }
}

/// The pause before a message that has been delivered so often comes again, where it was so long the first time.
fn pause_of_delivery(first: Duration, deliveries: u64) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(12);
    first.saturating_mul(1 << doublings).min(GIVE_BACK_MAX.max(first))
}

/// For how long a message has waited in the queue, if it was given back after each of its deliveries.
fn waited_in_queue(first: Duration, deliveries: u64) -> Duration {
    (1..deliveries.min(1_000)).map(|so_many| pause_of_delivery(first, so_many)).sum()
}

/// Why a job is rejected that no site has taken for so long.
fn nobody_has(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoSuchPool { pool, .. } => format!("no site has the pool {pool}: {refusal}"),
        Refusal::NoSuchService { service, .. } => format!("no site has the service {service}: {refusal}"),
        Refusal::ServiceDiffers { need, .. } => format!("no site has the service {need}: {refusal}"),
        other => other.to_string(),
    }
}

/// Of how many unknown pools it is said that they are.
const UNKNOWN_MAX: usize = 100;
