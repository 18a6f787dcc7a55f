//! Results that the queue has refused. Either it takes none, for a reason that passes or that a person mends, or one of
//! them is not fit for it: which one shows when others are taken and it is refused again.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::JobId;

/// How many records are refused, one by one and none taken in between, before the queue is not asked at once for
/// others.
const REFUSED_MAX: usize = 3;

/// How long a record that was refused waits for its next try while there are others.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// How long a daemon that is to end when it is idle tries to publish what is refused.
const REFUSED_PATIENCE: Duration = Duration::from_secs(300);

/// Results that were refused when they were sent alone.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<JobId, Refusals>);

/// The refusals of one result.
#[derive(Debug)]
struct Refusals {
    first: Duration,
    last: Duration,
    /// Did the queue take others since?
    others_were_taken: bool,
}

impl Suspects {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, job_id: &JobId) -> bool {
        self.0.contains_key(job_id)
    }

    pub(crate) fn remove(&mut self, job_id: &JobId) {
        self.0.remove(job_id);
    }

    /// The queue takes results: what it refused before and refuses again is not fit for it.
    pub(crate) fn others_are_taken(&mut self) {
        self.0.values_mut().for_each(|refusals| refusals.others_were_taken = true);
    }

    /// The queue refuses a result that was sent alone. Is it known by now that it will never take it?
    pub(crate) fn is_refused(&mut self, job_id: &JobId, now: Duration) -> bool {
        if self.0.get(job_id).is_some_and(|refusals| refusals.others_were_taken) {
            return true;
        }
        let first = self.0.get(job_id).map_or(now, |refusals| refusals.first);
        self.0.insert(job_id.clone(), Refusals { first, last: now, others_were_taken: false });
        if self.unproven() >= REFUSED_MAX {
            // It is not about single ones, whatever was taken before.
            self.0.values_mut().for_each(|refusals| refusals.others_were_taken = false);
        }
        false
    }

    /// One that is to be tried once more, however many others there are: they tell whether the queue takes anything.
    pub(crate) fn due(&self, now: Duration) -> Option<&JobId> {
        let due = |refusals: &Refusals| refusals.others_were_taken && now >= refusals.last + REFUSED_WAIT;
        self.0.iter().find(|(_, refusals)| due(refusals)).map(|(job_id, _)| job_id)
    }

    /// Were some refused, and too few to think that all will be?
    pub(crate) fn are_few(&self) -> bool {
        (1..REFUSED_MAX).contains(&self.unproven())
    }

    /// Have all been refused for so long that a daemon need not wait for them?
    pub(crate) fn are_old(&self, now: Duration) -> bool {
        self.0.values().all(|refusals| now >= refusals.first + REFUSED_PATIENCE)
    }

    /// How many were refused alone, and none was taken since.
    fn unproven(&self) -> usize {
        self.0.values().filter(|refusals| !refusals.others_were_taken).count()
    }
}
