//! When to look at the queue again after looks that failed, and when to give up. After those that succeed: `pace`.

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use protocol::FailureClass;
use queues::Backoff;

use crate::error::Remedy;
use crate::spent;

/// A pull consumer that was just added takes some seconds to work; after this long, it is missing.
const NOT_ENABLED_PATIENCE: Duration = Duration::from_secs(30);

/// The pause while the queue has no pull consumer.
const NOT_ENABLED_PAUSE: Duration = Duration::from_secs(2);

/// So long after midnight the allowance of the new day is there.
const BEHIND_MIDNIGHT: Duration = Duration::from_secs(10);

/// The pause while somebody has paused the queue.
const PAUSED_PAUSE: Duration = Duration::from_secs(30);

/// How much trouble a command bears before it ends with [`GaveUp`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long there may be nothing but trouble; for ever without a value.
    trouble: Option<Duration>,
    /// Does it sit out a day's allowance that is used up?
    sits_out_quota: bool,
}

impl Patience {
    /// Of a command that looks once.
    pub const ONE_LOOK: Self = Self { trouble: Some(Duration::from_secs(30)), sits_out_quota: false };
    /// Of a command that empties the queue.
    pub const UNTIL_IDLE: Self = Self { trouble: Some(Duration::from_secs(300)), sits_out_quota: false };
    /// Of a command that waits for jobs, and may have a time limit of its own.
    pub const OF_A_WAIT: Self = Self { trouble: None, sits_out_quota: false };
    /// Of a command that runs for ever.
    pub const FOR_EVER: Self = Self { trouble: None, sits_out_quota: true };
}

/// There is no use in looking at the queue again, or not now.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct GaveUp {
    /// What is wrong.
    pub cause: queues::Error,
    /// What can be done about it.
    pub remedy: Remedy,
}

/// The pauses of looks that fail, and when to give up.
#[derive(Debug)]
pub struct Troubles {
    patience: Patience,
    backoff: Backoff,
    since: Option<Instant>,
    not_enabled_since: Option<Instant>,
    /// What was said already: one sentence for each kind of trouble is enough.
    told: Option<Discriminant<FailureClass>>,
}

impl Troubles {
    /// No trouble yet.
    pub fn new(patience: Patience) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Self { patience, backoff, since: None, not_enabled_since: None, told: None }
    }

    /// Says what is wrong, unless it was said; returns the pause, or the end of patience.
    pub fn met(&mut self, error: queues::Error, now: Instant) -> Result<Duration, GaveUp> {
        match self.pause(error.class, now) {
            Ok(pause) => {
                if self.told.replace(discriminant(&error.class)) != Some(discriminant(&error.class)) {
                    match error.class {
                        FailureClass::QuotaExhausted => {
                            let minutes = pause.as_secs() / 60;
                            let (hours, minutes) = (minutes / 60, minutes % 60);
                            tracing::warn!("{error}; trying again in {hours} h {minutes} min");
                        }
                        _ => tracing::warn!("{error}; trying again"),
                    }
                }
                Ok(pause)
            }
            Err(remedy) => Err(GaveUp { cause: error, remedy }),
        }
    }

    /// A look has succeeded.
    pub fn over(&mut self) {
        if self.told.take().is_some() {
            tracing::warn!("the queue answers again");
        }
        self.backoff.reset();
        (self.since, self.not_enabled_since) = (None, None);
    }

    fn pause(&mut self, class: FailureClass, now: Instant) -> Result<Duration, Remedy> {
        let since = *self.since.get_or_insert(now);
        let pause = match class {
            FailureClass::Fatal | FailureClass::Refused => return Err(Remedy::Unexpected),
            FailureClass::PullNotEnabled => {
                let since = *self.not_enabled_since.get_or_insert(now);
                let is_missing = now.duration_since(since) >= NOT_ENABLED_PATIENCE;
                return if is_missing { Err(Remedy::Unexpected) } else { Ok(NOT_ENABLED_PAUSE) };
            }
            FailureClass::QuotaExhausted if !self.patience.sits_out_quota => return Err(Remedy::TryLater),
            // Two programs that ask at the same time are no crowd.
            FailureClass::QuotaExhausted => allowance::pause_of_used_up(spent::now(), 0.0) + BEHIND_MIDNIGHT,
            FailureClass::Paused => PAUSED_PAUSE,
            FailureClass::Throttled(Some(pause)) => pause,
            FailureClass::Throttled(None) | FailureClass::Unavailable => self.backoff.pause(),
        };
        match self.patience.trouble {
            Some(longest) if now.duration_since(since) + pause >= longest => Err(Remedy::TryLater),
            _ => Ok(pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_bears_its_own_troubles() {
        let first = |patience, class| Troubles::new(patience).pause(class, Instant::now());
        for patience in [Patience::ONE_LOOK, Patience::UNTIL_IDLE, Patience::OF_A_WAIT, Patience::FOR_EVER] {
            assert_eq!(first(patience, FailureClass::Fatal), Err(Remedy::Unexpected));
            assert_eq!(first(patience, FailureClass::Refused), Err(Remedy::Unexpected));
            assert_eq!(first(patience, FailureClass::PullNotEnabled), Ok(NOT_ENABLED_PAUSE));
            let second = Duration::from_secs(1);
            assert_eq!(first(patience, FailureClass::Throttled(Some(second))), Ok(second));
            assert!(first(patience, FailureClass::Unavailable).is_ok_and(|pause| pause <= second));
        }
        assert_eq!(first(Patience::ONE_LOOK, FailureClass::Paused), Err(Remedy::TryLater));
        assert_eq!(first(Patience::UNTIL_IDLE, FailureClass::Paused), Ok(PAUSED_PAUSE));
        assert_eq!(first(Patience::OF_A_WAIT, FailureClass::QuotaExhausted), Err(Remedy::TryLater));
        let sits_out = first(Patience::FOR_EVER, FailureClass::QuotaExhausted).unwrap();
        assert!(sits_out > BEHIND_MIDNIGHT && sits_out <= Duration::from_hours(23) + BEHIND_MIDNIGHT, "{sits_out:?}");
    }

    #[test]
    fn patience_ends_and_begins_anew_after_a_success() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut troubles = Troubles::new(Patience::ONE_LOOK);
        assert!(troubles.pause(FailureClass::Unavailable, start).is_ok());
        assert_eq!(troubles.pause(FailureClass::Unavailable, after(30)), Err(Remedy::TryLater));
        troubles.over();
        assert!(troubles.pause(FailureClass::Unavailable, after(31)).is_ok());

        let mut troubles = Troubles::new(Patience::FOR_EVER);
        assert!(troubles.pause(FailureClass::PullNotEnabled, start).is_ok());
        assert!(troubles.pause(FailureClass::PullNotEnabled, after(29)).is_ok());
        assert_eq!(troubles.pause(FailureClass::PullNotEnabled, after(30)), Err(Remedy::Unexpected));
        assert!(troubles.pause(FailureClass::Unavailable, after(1_000_000)).is_ok());
    }
}
