//! What the hub is still to be told of: submissions that came while it was being told of earlier ones.
//!
//! Requests come to one Worker side by side. The first of them tells the object; those that come meanwhile leave their
//! messages here, and it takes them along. So a burst is few requests of the object, and a submission that comes alone
//! is told at once.

use std::collections::VecDeque;

/// How much one request of the object carries, in bytes; a larger message goes alone.
const AT_ONCE_BYTES: usize = 1_000_000;

/// How much waits at the most, in bytes. The hub is not told of more; it hears of them from the sites.
const WAITING_BYTES_MAX: usize = 16_000_000;

/// A request may be ended while it tells: after so long the next one takes its place.
const PATIENCE_MILLIS: i64 = 5_000;

/// The messages that wait.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    waiting: VecDeque<String>,
    bytes: usize,
    /// When somebody who tells took something last.
    teller: Option<i64>,
}

impl Telling {
    /// Leaves messages. `true`: who leaves them is to tell, until [`Self::take`] has nothing more.
    pub(crate) fn leave(&mut self, messages: &[String], now: i64) -> bool {
        let bytes: usize = messages.iter().map(String::len).sum();
        if self.bytes + bytes <= WAITING_BYTES_MAX {
            self.bytes += bytes;
            self.waiting.extend(messages.iter().cloned());
        }
        let somebody_tells = self.teller.is_some_and(|since| (since..since + PATIENCE_MILLIS).contains(&now));
        if !somebody_tells {
            self.teller = Some(now);
        }
        !somebody_tells
    }

    /// What is told next.
    pub(crate) fn take(&mut self, now: i64) -> Vec<String> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(message) = self.waiting.front()
            && (taken.is_empty() || bytes + message.len() <= AT_ONCE_BYTES)
        {
            bytes += message.len();
            taken.extend(self.waiting.pop_front());
        }
        self.bytes -= bytes;
        self.teller = (!taken.is_empty()).then_some(now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> String {
        "x".repeat(length)
    }

    #[test]
    fn one_tells_for_all_who_come_meanwhile() {
        let mut telling = Telling::default();
        assert!(telling.leave(&[text(1)], 0));
        assert_eq!(telling.take(0).len(), 1);
        assert!(!telling.leave(&[text(2)], 10) && !telling.leave(&[text(3), text(4)], 20));
        assert_eq!(telling.take(30), [text(2), text(3), text(4)]);
        assert_eq!(telling.take(40), [] as [String; 0]);
        assert!(telling.leave(&[text(5)], 50), "nobody tells any more");
    }

    #[test]
    fn a_teller_that_does_not_come_back_is_replaced() {
        let mut telling = Telling::default();
        assert!(telling.leave(&[text(1)], 0));
        telling.take(0);
        assert!(!telling.leave(&[text(2)], PATIENCE_MILLIS - 1));
        assert!(telling.leave(&[text(3)], PATIENCE_MILLIS));
        assert_eq!(telling.take(PATIENCE_MILLIS).len(), 2);
        // A clock that goes back is no reason to wait for long.
        assert!(telling.leave(&[text(4)], 1));
    }

    #[test]
    fn what_waits_and_what_is_told_at_once_is_bounded() {
        let mut telling = Telling::default();
        telling.leave(&[text(AT_ONCE_BYTES + 1), text(AT_ONCE_BYTES), text(1)], 0);
        assert_eq!([telling.take(0).len(), telling.take(0).len(), telling.take(0).len()], [1, 1, 1]);
        for _ in 0..100 {
            telling.leave(&[text(AT_ONCE_BYTES)], 0);
        }
        assert_eq!(telling.bytes, WAITING_BYTES_MAX);
        while !telling.take(0).is_empty() {}
        assert_eq!(telling.bytes, 0);
    }
}
