//! What goes into a queue and what comes out of it: messages, and the facts about them.

use std::time::Duration;

use crate::{Handle, MessageId, Millis, Seq};

/// What a queue knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub seq: Seq,
    /// Its id.
    pub id: MessageId,
    /// The size of its body.
    pub bytes: u32,
    /// When it was published; kept when it moves to a dead letter queue.
    pub published_at: Millis,
    /// When it came into this queue, from which the retention period counts.
    pub arrived_at: Millis,
    /// When it can be delivered: the end of its delay, or of its lease.
    pub visible_at: Millis,
    /// Is `visible_at` the end of a lease?
    pub leased: bool,
    /// How often it was delivered.
    pub attempts: u32,
}

impl Message {
    /// The lease id of its last delivery.
    pub fn lease(&self) -> Handle {
        Handle { seq: self.seq, attempt: self.attempts, id: self.id }
    }

    /// What names it without a delivery.
    pub fn reference(&self) -> Handle {
        Handle { seq: self.seq, attempt: 0, id: self.id }
    }
}

/// A message that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMessage {
    /// Its number, larger than that of any message before it.
    pub seq: Seq,
    /// Its id.
    pub id: MessageId,
    /// The size of its body.
    pub bytes: usize,
    /// How long it stays out of sight, where it says so itself.
    pub delay: Option<Duration>,
}

/// A delivery that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry<'a> {
    /// Its lease id.
    pub lease: &'a str,
    /// How long the message stays out of sight, where the retry says so; else the consumer's `retry_delay`.
    pub delay: Option<Duration>,
}

/// Something that has changed, to be stored before it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A message came.
    Added(Message),
    /// The time, the lease or the number of deliveries of a message changed.
    Changed(Message),
    /// A message is gone.
    Removed(Message, Removal),
    /// A message failed for the last time, and moves to the queue of this name: see [`crate::Queue::adopt`].
    DeadLettered(Message, String),
    /// All messages are gone.
    Cleared,
}

/// Why a message is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// A consumer acknowledged it.
    Acknowledged,
    /// It was purged by its reference.
    Purged,
    /// It is older than the retention period.
    Expired,
    /// It failed for the last time, and there is no dead letter queue.
    Exhausted,
}

/// What became of acknowledgements and retries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many messages were acknowledged.
    pub acked: u64,
    /// How many messages were given back.
    pub retried: u64,
    /// What was not done, and why.
    pub warnings: Vec<(String, Warning)>,
}

/// Why a lease or a reference had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The queue holds no such message: it never did, or it was acknowledged, purged, expired or dead-lettered.
    #[error("no message of this queue has this id; it was settled before, or it is gone")]
    Unknown,
    /// Only the holder of the current lease can give a message back.
    #[error("the lease has expired, so the message was or will be delivered again anyway; this retry changed nothing")]
    Stale,
}

/// How much a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Messages that are not acknowledged: waiting, delayed and leased.
    pub backlog_count: u64,
    /// The size of their bodies.
    pub backlog_bytes: u64,
    /// When the one that is here for the longest time was published.
    pub oldest_message_at: Option<Millis>,
}
