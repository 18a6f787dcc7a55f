//! Which results go to the queue, when, and how many at a time.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::{FailureClass, JobId, limits};

use crate::requests::Requests;
use crate::suspects::Suspects;

/// Under load, results are pushed this often at most: a request carries a hundred as well as one.
const INTERVAL: Duration = Duration::from_millis(100);

/// Before the next, smaller batch after one was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Pushes of results.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    pub(crate) pushes: Requests,
    /// The jobs whose records are on their way.
    batch: Vec<JobId>,
    /// After a refusal: how many records to send at once.
    at_most: Option<usize>,
    suspects: Suspects,
    /// Was the last push refused?
    refused: bool,
}

/// What a failed push means for the results in it.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Nothing: they are sent again.
    None,
    /// The queue will never take this one.
    ForGood(JobId),
}

impl Publisher {
    /// When results may be pushed next, if there are any; `quiet` tells that no more will come soon.
    pub(crate) fn next(&self, outbox: &VecDeque<JobId>, quiet: bool) -> Option<Duration> {
        let at = self.pushes.next().filter(|_| !outbox.is_empty())?;
        let at = if self.may_pass_refused(outbox) { Duration::ZERO } else { at };
        Some(at.max(self.not_before(outbox, quiet)))
    }

    /// The results to push now, if it is time.
    pub(crate) fn begin(
        &mut self,
        outbox: &VecDeque<JobId>,
        bytes_of: impl Fn(&JobId) -> usize,
        quiet: bool,
        now: Duration,
    ) -> Option<Vec<JobId>> {
        let free = self.pushes.free(now) || (!self.pushes.is_busy() && self.may_pass_refused(outbox));
        if outbox.is_empty() || !free || now < self.not_before(outbox, quiet) {
            return None;
        }
        self.batch = self.next_batch(outbox, bytes_of, now);
        self.pushes.begin(now);
        Some(self.batch.clone())
    }

    /// The push was taken: these are published.
    pub(crate) fn pushed(&mut self) -> Vec<JobId> {
        self.pushes.succeeded();
        self.refused = false;
        let more = self.at_most.map(|most| most * 2);
        self.at_most = more.filter(|most| *most < limits::BATCH_COUNT_MAX);
        self.suspects.others_are_taken();
        std::mem::take(&mut self.batch)
    }

    /// The push failed, and [`Self::pushes`] knows.
    ///
    /// If it was refused, either the queue takes none, or one of the results is not fit for it. Which one shows in ever
    /// smaller batches. That one is given up once others were taken and it is refused again, so that it does not hold
    /// them up.
    pub(crate) fn failed(&mut self, class: &FailureClass, now: Duration) -> Refused {
        let batch = std::mem::take(&mut self.batch);
        self.refused = *class == FailureClass::Refused;
        match batch.as_slice() {
            _ if !self.refused => Refused::None,
            [job_id] if self.suspects.is_refused(job_id, now) => Refused::ForGood(job_id.clone()),
            [_] => Refused::None,
            several => {
                self.at_most = Some((several.len() / 2).max(1));
                self.pushes.wait_at_most_until(now + REFUSED_PAUSE);
                Refused::None
            }
        }
    }

    /// A result is published, or will never be.
    pub(crate) fn done_with(&mut self, job_id: &JobId) {
        self.suspects.remove(job_id);
    }

    /// Are these all the results that a daemon has, refused for so long that it need not wait for them?
    pub(crate) fn has_given_up_on(&self, held: usize, now: Duration) -> bool {
        !self.pushes.is_busy() && held == self.suspects.len() && self.suspects.are_old(now)
    }

    fn not_before(&self, outbox: &VecDeque<JobId>, quiet: bool) -> Duration {
        let full = outbox.len() >= limits::BATCH_COUNT_MAX;
        if full || quiet { Duration::ZERO } else { self.pushes.begun() + INTERVAL }
    }

    fn next_batch(&self, outbox: &VecDeque<JobId>, bytes_of: impl Fn(&JobId) -> usize, now: Duration) -> Vec<JobId> {
        if let Some(job_id) = self.suspects.due(now) {
            return vec![job_id.clone()];
        }
        let (mut bytes, mut count) = (0, 0);
        let fits = |job_id: &&JobId| {
            bytes += bytes_of(job_id) + limits::MESSAGE_METADATA_BYTES;
            count += 1;
            // One record always goes: should it be too large, the queue says so.
            count == 1 || bytes <= limits::BATCH_BYTES_MAX
        };
        let most = self.at_most.unwrap_or(limits::BATCH_COUNT_MAX);
        // What was refused goes again when there is nothing else: others tell whether the queue takes anything.
        let others = self.has_others(outbox);
        let turn = |job_id: &&JobId| !others || !self.suspects.contains(job_id);
        outbox.iter().filter(turn).take(most).take_while(fits).cloned().collect()
    }

    fn has_others(&self, outbox: &VecDeque<JobId>) -> bool {
        outbox.len() > self.suspects.len()
    }

    /// Does the pause after a refusal not hold for others, because too few were refused to think that all will be?
    fn may_pass_refused(&self, outbox: &VecDeque<JobId>) -> bool {
        self.refused && self.suspects.are_few() && self.has_others(outbox) && self.at_most.is_none_or(|most| most == 1)
    }
}
