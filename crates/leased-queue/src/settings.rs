//! The settings of a queue and of its pull consumer, with the defaults and bounds of the service.
//!
//! Field names and units are the service's own, since both are stored and shown as JSON.

use std::ops::RangeInclusive;
use std::time::Duration;

use protocol::limits;
use serde::{Deserialize, Serialize};

use crate::Refused;

pub(crate) const BATCH_SIZE: RangeInclusive<u64> = 1..=limits::BATCH_COUNT_MAX as u64;
pub(crate) const VISIBILITY_TIMEOUT_MS: RangeInclusive<u64> = 1..=limits::VISIBILITY_TIMEOUT_MAX.as_secs() * 1_000;
pub(crate) const DELIVERY_DELAY: RangeInclusive<u64> = 0..=limits::DELAY_MAX.as_secs();
pub(crate) const RETRY_DELAY: RangeInclusive<u64> = DELIVERY_DELAY;
pub(crate) const MAX_RETRIES: RangeInclusive<u64> = 0..=100;
pub(crate) const MESSAGE_RETENTION_PERIOD: RangeInclusive<u64> = 60..=limits::RETENTION_MAX.as_secs();

/// The settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a message stays out of sight after it was pushed, in seconds, where the push says nothing.
    pub delivery_delay: u64,
    /// Nothing is delivered while this is set; producers go on, and messages expire.
    pub delivery_paused: bool,
    /// How long a message is kept, in seconds.
    pub message_retention_period: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { delivery_delay: 0, delivery_paused: false, message_retention_period: 345_600 }
    }
}

impl Settings {
    /// Checks the bounds of every setting.
    pub fn validate(&self) -> Result<(), Refused> {
        for (field, given, bounds) in [
            ("delivery_delay", self.delivery_delay, DELIVERY_DELAY),
            ("message_retention_period", self.message_retention_period, MESSAGE_RETENTION_PERIOD),
        ] {
            if !bounds.contains(&given) {
                return Err(Refused::QueueSetting { field, given, min: *bounds.start(), max: *bounds.end() });
            }
        }
        Ok(())
    }

    pub(crate) fn retention(&self) -> Duration {
        Duration::from_secs(self.message_retention_period)
    }
}

/// The `http_pull` consumer of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// How many messages a pull gets, where it does not say.
    pub batch_size: u64,
    /// How often a message that failed is delivered again: `max_retries + 1` deliveries in all.
    pub max_retries: u64,
    /// How long a message that failed stays out of sight, in seconds, where the retry says nothing.
    pub retry_delay: u64,
    /// How long a delivery is leased, in milliseconds, where the pull says nothing.
    pub visibility_timeout_ms: u64,
    /// The name of the queue for messages that failed for the last time; without one they are deleted.
    pub dead_letter_queue: Option<String>,
}

impl Default for Consumer {
    fn default() -> Self {
        Self { batch_size: 5, max_retries: 3, retry_delay: 0, visibility_timeout_ms: 30_000, dead_letter_queue: None }
    }
}

impl Consumer {
    /// Checks the bounds of every setting. Whether the dead letter queue exists is the owner's to know.
    pub fn validate(&self) -> Result<(), Refused> {
        for (field, given, bounds) in [
            ("batch_size", self.batch_size, BATCH_SIZE),
            ("max_retries", self.max_retries, MAX_RETRIES),
            ("retry_delay", self.retry_delay, RETRY_DELAY),
            ("visibility_timeout_ms", self.visibility_timeout_ms, VISIBILITY_TIMEOUT_MS),
        ] {
            if !bounds.contains(&given) {
                return Err(Refused::ConsumerSetting { field, given, min: *bounds.start(), max: *bounds.end() });
            }
        }
        Ok(())
    }

    pub(crate) fn retry_delay(&self) -> Duration {
        Duration::from_secs(self.retry_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_service() {
        let json = r#"{"delivery_delay":0,"delivery_paused":false,"message_retention_period":345600}"#;
        assert_eq!(serde_json::to_string(&Settings::default()).unwrap(), json);
        let json = r#"{"batch_size":5,"max_retries":3,"retry_delay":0,"visibility_timeout_ms":30000,"dead_letter_queue":null}"#;
        assert_eq!(serde_json::to_string(&Consumer::default()).unwrap(), json);
        Settings::default().validate().unwrap();
        Consumer::default().validate().unwrap();
    }

    #[test]
    fn every_setting_has_bounds() {
        let queue = Settings::default();
        for (settings, well) in [
            (Settings { delivery_delay: 86_400, ..queue.clone() }, true),
            (Settings { delivery_delay: 86_401, ..queue.clone() }, false),
            (Settings { message_retention_period: 60, ..queue.clone() }, true),
            (Settings { message_retention_period: 59, ..queue.clone() }, false),
            (Settings { message_retention_period: 1_209_600, ..queue.clone() }, true),
            (Settings { message_retention_period: 1_209_601, ..queue }, false),
        ] {
            let code = settings.validate().err().map(|refused| refused.code());
            assert_eq!(code, (!well).then_some(100_128), "{settings:?}");
        }
        let consumer = Consumer::default();
        for (consumer, well) in [
            (Consumer { batch_size: 100, ..consumer.clone() }, true),
            (Consumer { batch_size: 101, ..consumer.clone() }, false),
            (Consumer { batch_size: 0, ..consumer.clone() }, false),
            (Consumer { max_retries: 0, ..consumer.clone() }, true),
            (Consumer { max_retries: 100, ..consumer.clone() }, true),
            (Consumer { max_retries: 101, ..consumer.clone() }, false),
            (Consumer { retry_delay: 86_401, ..consumer.clone() }, false),
            (Consumer { visibility_timeout_ms: 0, ..consumer.clone() }, false),
            (Consumer { visibility_timeout_ms: 43_200_000, ..consumer.clone() }, true),
            (Consumer { visibility_timeout_ms: 43_200_001, ..consumer }, false),
        ] {
            let code = consumer.validate().err().map(|refused| refused.code());
            assert_eq!(code, (!well).then_some(100_127), "{consumer:?}");
        }
    }
}
