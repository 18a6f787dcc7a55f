//! Deliveries that are settled: acknowledged, or given back with a delay.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use protocol::{FailureClass, JobId, limits};

use crate::Effect;
use crate::requests::Requests;

/// Under load, deliveries are settled this often at most: nobody waits for an acknowledgement.
const INTERVAL: Duration = Duration::from_secs(1);

/// A lease to acknowledge.
#[derive(Debug)]
struct Ack {
    lease_id: String,
    /// The job, if it goes on after that.
    job_id: Option<JobId>,
}

/// A lease to give back.
#[derive(Debug)]
struct Retry {
    lease_id: String,
    delay: Duration,
    /// For how long after that others have the first look.
    for_others: Duration,
}

/// What a request has settled.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The jobs whose messages were acknowledged although they go on.
    pub(crate) acknowledged: Vec<JobId>,
    /// After how long messages that were given back are to be looked for.
    pub(crate) returns: BTreeSet<Duration>,
}

/// Leases to settle, in order.
#[derive(Debug, Default)]
pub(crate) struct Settler {
    pub(crate) requests: Requests,
    acks: VecDeque<Ack>,
    retries: VecDeque<Retry>,
    under_way: UnderWay,
    /// Must the next request not wait for more to come?
    urgent: bool,
}

/// How many of each are on their way.
#[derive(Debug, Default, Clone, Copy)]
struct UnderWay {
    acks: usize,
    retries: usize,
}

impl Settler {
    /// Jobs have ended: their messages are not needed any more.
    pub(crate) fn acknowledge(&mut self, leases: impl IntoIterator<Item = String>) {
        self.acks.extend(leases.into_iter().map(|lease_id| Ack { lease_id, job_id: None }));
    }

    /// A job goes on and its lease is about to lapse.
    pub(crate) fn acknowledge_early(&mut self, job_id: &JobId, leases: impl IntoIterator<Item = String>) {
        self.urgent = true;
        self.acks.extend(leases.into_iter().map(|lease_id| Ack { lease_id, job_id: Some(job_id.clone()) }));
    }

    /// Messages go back, and may be delivered again after this delay; others are to have the first look for so long.
    pub(crate) fn give_back(
        &mut self,
        leases: impl IntoIterator<Item = String>,
        delay: Duration,
        for_others: Duration,
    ) {
        self.urgent = true;
        self.retries.extend(leases.into_iter().map(|lease_id| Retry { lease_id, delay, for_others }));
    }

    /// How many acknowledgements are to be made, those that are on their way as well.
    pub(crate) fn acks(&self) -> usize {
        self.acks.len()
    }

    /// How many of them are on their way.
    pub(crate) fn acks_under_way(&self) -> usize {
        self.under_way.acks
    }

    /// Is nothing to be settled, or on its way?
    pub(crate) fn is_done(&self) -> bool {
        self.acks.is_empty() && self.retries.is_empty()
    }

    /// Is something to be given back, or a request on its way? It is not to be seen again only after its lease.
    pub(crate) fn is_giving_back(&self) -> bool {
        self.requests.is_busy() || !self.retries.is_empty()
    }

    /// When deliveries may be settled next, if there are any.
    pub(crate) fn next(&self, quiet: bool) -> Option<Duration> {
        self.requests.next().filter(|_| !self.is_done()).map(|at| at.max(self.not_before(quiet)))
    }

    /// The request to make now, if it is time.
    pub(crate) fn begin(&mut self, quiet: bool, now: Duration) -> Option<Effect> {
        if self.is_done() || !self.requests.free(now) || now < self.not_before(quiet) {
            return None;
        }
        let retries = self.retries.len().min(limits::BATCH_COUNT_MAX);
        let acks = self.acks.len().min(limits::BATCH_COUNT_MAX - retries);
        self.under_way = UnderWay { acks, retries };
        self.urgent = self.acks.len() > acks || self.retries.len() > retries;
        self.requests.begin(now);
        Some(Effect::Settle {
            acks: self.acks.iter().take(acks).map(|ack| ack.lease_id.clone()).collect(),
            retries: self.retries.iter().take(retries).map(|retry| (retry.lease_id.clone(), retry.delay)).collect(),
        })
    }

    /// They are settled.
    pub(crate) fn settled(&mut self) -> Settled {
        self.requests.succeeded();
        self.drop_under_way()
    }

    /// The request failed, and [`Self::requests`] knows.
    pub(crate) fn failed(&mut self, class: &FailureClass) {
        self.urgent = true;
        if *class == FailureClass::Refused {
            // These leases will never be taken. Their messages come again, and what is remembered answers them.
            self.drop_under_way();
        }
        self.under_way = UnderWay::default();
    }

    /// What does not hold, if anything does not. These leases must not be kept by a job as well.
    pub(crate) fn check(&self) -> Result<BTreeSet<&str>, String> {
        let UnderWay { acks, retries } = self.under_way;
        if acks > self.acks.len() || retries > self.retries.len() {
            return Err("more deliveries are being settled than there are".to_owned());
        }
        Ok(self.acks.iter().map(|ack| ack.lease_id.as_str()).collect())
    }

    fn drop_under_way(&mut self) -> Settled {
        let UnderWay { acks, retries } = std::mem::take(&mut self.under_way);
        Settled {
            acknowledged: self.acks.drain(..acks).filter_map(|ack| ack.job_id).collect(),
            returns: self.retries.drain(..retries).map(|retry| retry.delay + retry.for_others).collect(),
        }
    }

    fn not_before(&self, quiet: bool) -> Duration {
        let full = self.acks.len() + self.retries.len() >= limits::BATCH_COUNT_MAX;
        if full || self.urgent || quiet { Duration::ZERO } else { self.requests.begun() + INTERVAL }
    }
}
