//! Operations on messages.

use std::sync::Arc;
use std::time::Duration;

use leased_queue::{Candidates, Message, MessageId, Metrics, NewMessage, Retry, Settled, Warning};

use super::{QueueRef, QueueView, Registry};
use crate::random;
use crate::store::database::QueueNo;
use crate::store::message::{Arrival, Payload, Pulled, PulledMessage};
use crate::store::refusal::Failure;

impl Registry {
    /// Adds messages, all or none.
    pub(crate) fn push(
        &mut self,
        queue: &QueueRef,
        payloads: &[Payload],
        batch_delay: Option<Duration>,
    ) -> Result<Metrics, Failure> {
        let no = self.find(queue)?;
        let new: Vec<NewMessage> = payloads
            .iter()
            .map(|payload| NewMessage {
                seq: self.next_seq(),
                id: MessageId(random::bytes()),
                bytes: payload.body.len(),
                delay: payload.delay,
            })
            .collect();
        let (now, mut facts) = (self.now, Vec::with_capacity(new.len()));
        let model = &mut self.entry_mut(no).model;
        model.push(now, &new, batch_delay, &mut facts)?;
        let metrics = model.metrics();
        self.record(no, facts, payloads)?;
        Ok(metrics)
    }

    /// Leases messages.
    pub(crate) fn pull(
        &mut self,
        queue: &QueueRef,
        batch_size: Option<u64>,
        visibility_timeout_ms: Option<u64>,
    ) -> Result<Pulled, Failure> {
        let no = self.find(queue)?;
        let (now, mut facts) = (self.now, Vec::new());
        let faults = self.faults.clone().filter(|faults| faults.disturbs_deliveries());
        let model = &mut self.entry_mut(no).model;
        let messages = match faults {
            None => model.pull(now, batch_size, visibility_timeout_ms, &mut facts)?,
            Some(faults) => {
                let choose = |candidates: &Candidates| faults.choose(candidates);
                model.pull_chosen(now, batch_size, visibility_timeout_ms, choose, &mut facts)?
            }
        };
        let metrics = model.metrics();
        self.record(no, facts, &[])?;
        let next = messages.is_empty().then(|| self.next_arrival(no));
        Ok(Pulled { messages: self.with_bodies(messages)?, metrics, next })
    }

    fn next_arrival(&self, no: QueueNo) -> Arrival {
        let entry = self.entry(no);
        let after = entry.model.next_ready_at().map(|at| u64::try_from(at - self.now).unwrap_or_default());
        let (changed, line) = (entry.arrivals.subscribe(), Arc::clone(&entry.line));
        Arrival { changed, line, after: after.map(Duration::from_millis) }
    }

    /// Looks at messages.
    pub(crate) fn peek(&mut self, queue: &QueueRef, batch_size: Option<u64>) -> Result<Vec<PulledMessage>, Failure> {
        let no = self.find(queue)?;
        let (now, mut facts) = (self.now, Vec::new());
        let messages = self.entry_mut(no).model.peek(now, batch_size, &mut facts)?;
        self.record(no, facts, &[])?;
        Ok(self.with_bodies(messages)?)
    }

    fn with_bodies(&self, messages: Vec<Message>) -> rusqlite::Result<Vec<PulledMessage>> {
        messages.into_iter().map(|message| self.database.with_body(message)).collect()
    }

    /// Acknowledges and gives back deliveries.
    pub(crate) fn settle(
        &mut self,
        queue: &QueueRef,
        acks: &[String],
        retries: &[(String, Option<Duration>)],
    ) -> Result<Settled, Failure> {
        let no = self.find(queue)?;
        let acks: Vec<&str> = acks.iter().map(String::as_str).collect();
        let retries: Vec<Retry<'_>> = retries.iter().map(|(lease, delay)| Retry { lease, delay: *delay }).collect();
        let (now, mut facts) = (self.now, Vec::new());
        let settled = self.entry_mut(no).model.settle(now, &acks, &retries, &mut facts)?;
        self.record(no, facts, &[])?;
        Ok(settled)
    }

    /// Removes messages that a peek has shown.
    pub(crate) fn purge(&mut self, queue: &QueueRef, references: &[String]) -> Result<Vec<(String, Warning)>, Failure> {
        let no = self.find(queue)?;
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        let (now, mut facts) = (self.now, Vec::new());
        let warnings = self.entry_mut(no).model.purge(now, &references, &mut facts);
        self.record(no, facts, &[])?;
        Ok(warnings)
    }

    /// Removes all messages.
    pub(crate) fn purge_all(&mut self, queue: &QueueRef) -> Result<QueueView, Failure> {
        let no = self.find(queue)?;
        let (now, mut facts) = (self.now, Vec::new());
        let entry = self.entry_mut(no);
        let count = entry.model.purge_all(&mut facts);
        entry.purged_at = Some(now);
        tracing::info!(queue = %entry.name, count, "all messages were purged");
        self.record(no, facts, &[])?;
        self.store(no)?;
        Ok(self.view(no))
    }

    /// How much a queue holds.
    pub(crate) fn metrics(&self, queue: &QueueRef) -> Result<Metrics, Failure> {
        Ok(self.entry(self.find(queue)?).model.metrics())
    }
}
