//! Growing pauses between tries.

use std::time::Duration;

/// Pauses that double from one to the next, up to a longest one, each shortened at random by up to a half so that many
/// clients that failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Something succeeded: begin again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        for full in [1, 2, 4, 5, 5] {
            let pause = backoff.pause();
            assert!(pause >= seconds(full) / 2 && pause <= seconds(full), "{pause:?} of {full} s");
        }
        backoff.reset();
        assert!(backoff.pause() <= seconds(1));
    }
}
