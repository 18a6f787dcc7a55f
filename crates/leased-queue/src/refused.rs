//! Why a queue refuses an operation, with the service's code for it.

use std::time::Duration;

use protocol::limits;

use crate::BACKLOG_BYTES_MAX;
use crate::settings::{BATCH_SIZE, VISIBILITY_TIMEOUT_MS};

/// Why an operation was refused. Nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A message is larger than a queue takes.
    #[error(
        "message {index} has {bytes} bytes, {metadata} bytes of metadata included; the limit is {max}",
        metadata = limits::MESSAGE_METADATA_BYTES,
        max = limits::MESSAGE_BYTES_MAX
    )]
    MessageTooLarge {
        /// Its place in the batch, counted from 0.
        index: usize,
        /// Its size, metadata included.
        bytes: usize,
    },
    /// The messages together are larger than one write takes.
    #[error("the batch has {bytes} bytes, metadata included; the limit is {max}", max = limits::BATCH_BYTES_MAX)]
    BatchTooLarge {
        /// The size of all messages, metadata included.
        bytes: usize,
    },
    /// More messages than one write takes.
    #[error("the batch has {count} messages; the limit is {max}", max = limits::BATCH_COUNT_MAX)]
    BatchTooMany {
        /// How many.
        count: usize,
    },
    /// A message's own delay is too long.
    #[error("the delay of message {index} is {} s; the limit is {} s", .delay.as_secs(), limits::DELAY_MAX.as_secs())]
    MessageDelay {
        /// Its place in the batch, counted from 0.
        index: usize,
        /// The delay that was asked for.
        delay: Duration,
    },
    /// The delay of the whole batch is too long.
    #[error("the delay of the batch is {} s; the limit is {} s", .delay.as_secs(), limits::DELAY_MAX.as_secs())]
    BatchDelay {
        /// The delay that was asked for.
        delay: Duration,
    },
    /// The delay of a retry is too long.
    #[error("the delay of retry {index} is {} s; the limit is {} s", .delay.as_secs(), limits::DELAY_MAX.as_secs())]
    RetryDelay {
        /// Its place among the retries, counted from 0.
        index: usize,
        /// The delay that was asked for.
        delay: Duration,
    },
    /// The queue holds as much as it may.
    #[error("the queue holds {max} bytes, which is all that it takes; pull, or purge it", max = BACKLOG_BYTES_MAX)]
    StorageLimit,
    /// There is no consumer of type `http_pull`.
    #[error("messages cannot be pulled unless http_pull mode is enabled")]
    PullNotEnabled,
    /// The delivery is paused.
    #[error("queue_delivery_paused")]
    DeliveryPaused,
    /// A pull asks for no message, or for too many.
    #[error("`batch_size` is {given}; it must be {} to {}", BATCH_SIZE.start(), BATCH_SIZE.end())]
    BatchSize {
        /// What was asked for.
        given: u64,
    },
    /// A pull asks for no lease, or for too long a one.
    #[error(
        "`visibility_timeout_ms` is {given}; it must be {} to {}",
        VISIBILITY_TIMEOUT_MS.start(),
        VISIBILITY_TIMEOUT_MS.end()
    )]
    VisibilityTimeout {
        /// What was asked for.
        given: u64,
    },
    /// A setting of a queue is out of its bounds.
    #[error("`settings.{field}` is {given}; it must be {min} to {max}")]
    QueueSetting {
        /// Which setting.
        field: &'static str,
        /// What was asked for.
        given: u64,
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// A setting of a consumer is out of its bounds.
    #[error("`settings.{field}` is {given}; it must be {min} to {max}")]
    ConsumerSetting {
        /// Which setting.
        field: &'static str,
        /// What was asked for.
        given: u64,
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
}

impl Refused {
    /// The service's code. 0 is what it really sends where a pull is not possible, outside of its own specification.
    pub fn code(&self) -> u32 {
        match self {
            Self::PullNotEnabled | Self::DeliveryPaused => 0,
            Self::BatchSize { .. } | Self::VisibilityTimeout { .. } | Self::RetryDelay { .. } => 10026,
            Self::BatchDelay { .. } => 10202,
            Self::MessageDelay { .. } => 10203,
            Self::MessageTooLarge { .. } => 10204,
            Self::BatchTooLarge { .. } => 10205,
            Self::BatchTooMany { .. } => 10206,
            Self::StorageLimit => 10251,
            Self::ConsumerSetting { .. } => 100_127,
            Self::QueueSetting { .. } => 100_128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DELIVERY_DELAY, MAX_RETRIES, MESSAGE_RETENTION_PERIOD, RETRY_DELAY};

    #[test]
    fn the_bounds_are_those_that_the_texts_name() {
        assert_eq!(DELIVERY_DELAY, 0..=86_400);
        assert_eq!(MESSAGE_RETENTION_PERIOD, 60..=1_209_600);
        assert_eq!(MAX_RETRIES, 0..=100);
        assert_eq!(RETRY_DELAY, 0..=86_400);
        assert_eq!(
            Refused::VisibilityTimeout { given: 0 }.to_string(),
            "`visibility_timeout_ms` is 0; it must be 1 to 43200000"
        );
        assert_eq!(
            Refused::MessageTooLarge { index: 1, bytes: 128_001 }.to_string(),
            "message 1 has 128001 bytes, 100 bytes of metadata included; the limit is 128000"
        );
        assert_eq!(
            Refused::MessageDelay { index: 0, delay: Duration::from_secs(86_401) }.to_string(),
            "the delay of message 0 is 86401 s; the limit is 86400 s"
        );
    }
}
