//! The kinds of faults, and what requests ask for, by the names that plans and counts have for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The connection closes, and nothing was done.
    DropRequest,
    /// It is done, and the connection closes without an answer.
    DropResponse,
    /// It takes time.
    Delay,
    /// 429.
    TooManyRequests,
    /// 429: the allowance of the free plan is used up.
    FreeTierLimitExceeded,
    /// 429: the queue is disabled.
    QueueDisabled,
    /// 500 to 599.
    ServerError,
    /// 409: the delivery is paused.
    Paused,
    /// 200, with a body that is no answer.
    Garbage,
    /// A leased message is delivered again before its lease has lapsed.
    DuplicateDelivery,
    /// Messages come in another order.
    Reorder,
    /// The server's clock is wrong by so much more.
    ClockJump,
    /// A transaction finds the disk full.
    DiskFull,
}

/// What a request asks for, as far as faults tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// Pull messages.
    Pull,
    /// Acknowledge messages and give them back.
    Ack,
    /// Push one message.
    Push,
    /// Push several messages.
    PushBatch,
    /// Look at messages.
    Peek,
    /// Remove messages that were looked at.
    Purge,
    /// The metrics of a queue.
    Metrics,
    /// Anything about queues themselves.
    Queues,
    /// Anything about consumers.
    Consumers,
    /// Anything that a Worker's queue binding asks for.
    Send,
    /// Submit jobs.
    Jobs,
}

impl Kind {
    pub(super) const ALL: [Self; 13] = [
        Self::DropRequest,
        Self::DropResponse,
        Self::Delay,
        Self::TooManyRequests,
        Self::FreeTierLimitExceeded,
        Self::QueueDisabled,
        Self::ServerError,
        Self::Paused,
        Self::Garbage,
        Self::DuplicateDelivery,
        Self::Reorder,
        Self::ClockJump,
        Self::DiskFull,
    ];

    /// As it stands in plans and counts.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DropRequest => "drop_request",
            Self::DropResponse => "drop_response",
            Self::Delay => "delay",
            Self::TooManyRequests => "too_many_requests",
            Self::FreeTierLimitExceeded => "free_tier_limit_exceeded",
            Self::QueueDisabled => "queue_disabled",
            Self::ServerError => "server_error",
            Self::Paused => "paused",
            Self::Garbage => "garbage",
            Self::DuplicateDelivery => "duplicate_delivery",
            Self::Reorder => "reorder",
            Self::ClockJump => "clock_jump",
            Self::DiskFull => "disk_full",
        }
    }

    /// The fields that go with it, besides `probability` and `count`, which go with all.
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::DropRequest
            | Self::DropResponse
            | Self::FreeTierLimitExceeded
            | Self::QueueDisabled
            | Self::Paused
            | Self::DuplicateDelivery
            | Self::Reorder => &["operations"],
            Self::Delay | Self::ClockJump => &["operations", "milliseconds"],
            Self::TooManyRequests => &["operations", "retry_after_seconds"],
            Self::ServerError => &["operations", "status", "done"],
            Self::Garbage => &["operations", "done"],
            Self::DiskFull => &[],
        }
    }

    /// Can only a pull have it?
    pub(super) fn is_of_pulls(self) -> bool {
        matches!(self, Self::Paused | Self::DuplicateDelivery | Self::Reorder)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_plans_and_counts() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
