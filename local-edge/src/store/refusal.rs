//! Why the store did not do what it was asked to.

use leased_queue::Refused;

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreRefusal {
    /// A queue says no.
    #[error(transparent)]
    Queue(#[from] Refused),
    /// There is no such queue.
    #[error("queue not found: no queue of this account has {0}")]
    QueueNotFound(String),
    /// There is no such consumer.
    #[error("consumer not found: the queue has no consumer with this id")]
    ConsumerNotFound,
    /// A queue has one consumer at most.
    #[error("consumer already exists: a queue has one consumer; update or delete it")]
    ConsumerExists,
    /// The name of a dead letter queue is that of the queue itself.
    #[error("a queue cannot be its own dead letter queue")]
    DeadLetterCycle,
    /// The name is no name of a queue.
    #[error("invalid queue name: 1 to 63 letters, digits and hyphens, the first and last a letter or digit")]
    InvalidName,
    /// Another queue has this name.
    #[error("queue name {0:?} is already taken")]
    NameTaken(String),
    /// An account has a limited number of queues.
    #[error("the account has {0} queues, which is the limit")]
    TooManyQueues(usize),
    /// Too many requests wait already.
    #[error("Queue is overloaded. Please back off.")]
    Overloaded,
    /// The disk failed, or the server stops.
    #[error("the store cannot be written; nothing was done, and the log of local-edge says why")]
    Unavailable,
}

/// Why work within a transaction ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// This one request is refused; nothing was changed by it.
    #[error(transparent)]
    Refused(#[from] StoreRefusal),
    /// The disk failed, and with it the whole transaction.
    #[error(transparent)]
    Disk(#[from] rusqlite::Error),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(StoreRefusal::Queue(refused))
    }
}
