//! A pull in which the caller chooses what is delivered: for what a service that promises delivery at least once and no
//! order may do, and [`Queue::pull`] never does. `local-edge` injects faults with it.
//!
//! Invariant: whatever is chosen, the queue stays one that pulls could have brought about: nothing is delivered that is
//! out of sight, and nothing more often than its consumer allows.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Fact, Message, Millis, Queue, Refused, Seq};

/// What a pull may deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Messages that are due, those that are ready for the longest time first.
    pub ready: Vec<Message>,
    /// Messages whose lease has not lapsed, and that may be delivered once more.
    pub leased: Vec<Message>,
    /// How many are delivered at most.
    pub count: usize,
}

impl Queue {
    /// A pull that delivers what `choose` names, in that order. A leased message that is chosen is delivered again
    /// before its lease has lapsed: under a new lease, as one more delivery. What is no candidate, is named for a
    /// second time, or goes beyond the batch, is left out.
    pub fn pull_chosen(
        &mut self,
        now: Millis,
        batch_size: Option<u64>,
        visibility_timeout_ms: Option<u64>,
        choose: impl FnOnce(&Candidates) -> Vec<Seq>,
        facts: &mut Vec<Fact>,
    ) -> Result<Vec<Message>, Refused> {
        let (count, timeout) = self.terms_of_pull(batch_size, visibility_timeout_ms)?;
        self.advance(now, facts);
        let max_retries = self.consumer().map_or(0, |consumer| consumer.max_retries);
        let candidates = Candidates {
            ready: self.ready(now, u64::MAX),
            leased: self.leased().filter(|message| u64::from(message.attempts) <= max_retries).collect(),
            count: usize::try_from(count).unwrap_or(usize::MAX),
        };
        let mut named = BTreeSet::new();
        let mut chosen = choose(&candidates);
        chosen.retain(|seq| named.insert(*seq));
        let mut found: BTreeMap<Seq, Message> = candidates
            .ready
            .iter()
            .chain(&candidates.leased)
            .filter(|message| named.contains(&message.seq))
            .map(|message| (message.seq, *message))
            .collect();
        let messages = chosen.iter().filter_map(|seq| found.remove(seq)).take(candidates.count).collect();
        Ok(self.lease(messages, now + timeout, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Consumer, MessageId, NewMessage, Settings};

    const T0: Millis = 1_800_000_000_000;

    /// A queue with messages 1 to `count`, and one more that is delayed for an hour.
    fn queue(max_retries: u64, count: Seq) -> Queue {
        let mut queue = Queue::new(Settings::default(), Some(Consumer { max_retries, ..Consumer::default() }));
        for seq in 1..=count + 1 {
            let delay = (seq > count).then(|| std::time::Duration::from_secs(3_600));
            let message = NewMessage { seq, id: MessageId([7; 16]), bytes: 10, delay };
            queue.push(T0, &[message], None, &mut Vec::new()).unwrap();
        }
        queue
    }

    fn pull(queue: &mut Queue, now: Millis, size: u64, choice: &[Seq]) -> Vec<(Seq, u32)> {
        let delivered = queue.pull_chosen(now, Some(size), Some(1_000), |_| choice.to_vec(), &mut Vec::new()).unwrap();
        queue.check().unwrap();
        delivered.iter().map(|message| (message.seq, message.attempts)).collect()
    }

    #[test]
    fn the_order_is_the_callers_and_what_cannot_be_delivered_is_left_out() {
        let mut queue = queue(3, 4);
        assert_eq!(
            pull(&mut queue, T0, 3, &[3, 5, 9, 3, 1, 4, 2]),
            [(3, 1), (1, 1), (4, 1)],
            "5 is delayed, 9 is none"
        );
        assert_eq!(pull(&mut queue, T0, 3, &[]), []);
        assert_eq!(pull(&mut queue, T0, 3, &[2]), [(2, 1)]);
    }

    #[test]
    fn the_candidates_are_those_that_are_due_and_those_that_are_leased() {
        let mut queue = queue(3, 3);
        pull(&mut queue, T0, 1, &[2]);
        let look = |candidates: &Candidates| {
            let numbers = |messages: &[Message]| messages.iter().map(|message| message.seq).collect::<Vec<_>>();
            assert_eq!((numbers(&candidates.ready), numbers(&candidates.leased)), (vec![1, 3], vec![2]));
            assert_eq!(candidates.count, 5);
            Vec::new()
        };
        queue.pull_chosen(T0 + 1, Some(5), None, look, &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_leased_message_is_delivered_again_under_a_new_lease_and_not_too_often() {
        let mut queue = queue(1, 1);
        let first = queue.pull(T0, Some(1), Some(60_000), &mut Vec::new()).unwrap()[0];
        let mut facts = Vec::new();
        let again = queue.pull_chosen(T0 + 1, Some(1), Some(1_000), |_| vec![1], &mut facts).unwrap()[0];
        assert_eq!((again.attempts, again.visible_at), (2, T0 + 1_001));
        assert_ne!(again.lease(), first.lease());
        assert_eq!(facts, [Fact::Changed(again)]);
        assert_eq!(pull(&mut queue, T0 + 2, 1, &[1]), [], "it was delivered max_retries + 1 times");
        // The first holder can no longer give it back, but it can acknowledge.
        let lease = first.lease().to_string();
        assert_eq!(queue.settle(T0 + 3, &[&lease], &[], &mut Vec::new()).unwrap().acked, 1);
        queue.check().unwrap();
    }

    #[test]
    fn it_is_refused_as_a_pull_is() {
        let mut queue = queue(1, 1);
        let refused = |queue: &mut Queue, size| {
            let never = |_: &Candidates| -> Vec<Seq> { panic!("nothing is chosen in a pull that is refused") };
            queue.pull_chosen(T0, Some(size), None, never, &mut Vec::new()).unwrap_err()
        };
        assert_eq!(refused(&mut queue, 101), Refused::BatchSize { given: 101 });
        queue.set_consumer(None).unwrap();
        assert_eq!(refused(&mut queue, 1), Refused::PullNotEnabled);
    }
}
