//! Random histories. Whatever happens, in whichever order: the parts of the queue agree, replaying the facts gives the
//! same queue, no message is delivered twice at once or too often, and none is lost without a word.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One time in three a delay of 0 to 4 s.
    fn delay(&mut self) -> Option<Duration> {
        (self.below(3) == 0).then(|| Duration::from_secs(self.below(5)))
    }
}

/// What a client knows of a message.
#[derive(Debug, Default)]
struct Known {
    deliveries: u32,
    leases: Vec<String>,
    /// Nobody may get it before this: the end of its delay or lease.
    hidden_until: Millis,
}

struct History {
    random: Random,
    queue: Queue,
    now: Millis,
    /// Only ever changed by facts, as the store on disk is.
    stored: BTreeMap<Seq, Message>,
    known: BTreeMap<Seq, Known>,
    pushed: u64,
    gone: u64,
    last_seq: Seq,
    max_retries: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let max_retries = random.below(4);
        let consumer = Consumer {
            max_retries,
            retry_delay: random.below(3),
            visibility_timeout_ms: 1_000 + random.below(2_000),
            dead_letter_queue: (random.below(2) == 0).then(|| "dlq".to_owned()),
            ..Consumer::default()
        };
        let settings =
            Settings { delivery_delay: random.below(2), message_retention_period: 60, ..Settings::default() };
        Self {
            random,
            queue: Queue::new(settings, Some(consumer)),
            now: 1_800_000_000_000,
            stored: BTreeMap::new(),
            known: BTreeMap::new(),
            pushed: 0,
            gone: 0,
            last_seq: 0,
            max_retries,
        }
    }

    fn step(&mut self) {
        let mut facts = Vec::new();
        match self.random.below(16) {
            0..=3 => self.push(&mut facts),
            4..=7 => self.pull(&mut facts),
            8..=11 => self.settle(&mut facts),
            12 => {
                let seen = self.queue.peek(self.now, Some(3), &mut facts).unwrap();
                if self.random.below(4) == 0 {
                    let references: Vec<String> = seen.iter().map(|message| message.reference().to_string()).collect();
                    let references: Vec<&str> = references.iter().map(String::as_str).collect();
                    assert_eq!(self.queue.purge(self.now, &references, &mut facts), []);
                }
            }
            13 if self.random.below(40) == 0 => {
                self.queue.purge_all(&mut facts);
            }
            // Mostly small steps of time, now and then one beyond the retention period.
            14 if self.random.below(20) == 0 => self.now += 61_000,
            _ => self.now += i64::try_from(self.random.below(2_500)).unwrap(),
        }
        self.record(&facts);
        self.check();
    }

    fn push(&mut self, facts: &mut Vec<Fact>) {
        let batch_delay = self.random.delay();
        let mut messages = Vec::new();
        for _ in 0..=self.random.below(4) {
            self.last_seq += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.random.next().to_be_bytes());
            let bytes = usize::try_from(self.random.below(1_000)).unwrap();
            messages.push(NewMessage { seq: self.last_seq, id: MessageId(id), bytes, delay: self.random.delay() });
        }
        self.queue.push(self.now, &messages, batch_delay, facts).unwrap();
        self.pushed += messages.len() as u64;
        let of_queue = Duration::from_secs(self.queue.settings().delivery_delay);
        for message in &messages {
            let delay = message.delay.or(batch_delay).unwrap_or(of_queue);
            let hidden_until = self.now + i64::try_from(delay.as_millis()).unwrap();
            self.known.insert(message.seq, Known { hidden_until, ..Known::default() });
        }
    }

    fn pull(&mut self, facts: &mut Vec<Fact>) {
        let timeout = 500 + self.random.below(3_000);
        let size = 1 + self.random.below(5);
        for message in self.queue.pull(self.now, Some(size), Some(timeout), facts).unwrap() {
            let known = self.known.get_mut(&message.seq).expect("only what was pushed is delivered");
            assert!(known.hidden_until <= self.now, "{message:?} came before {known:?}");
            known.deliveries += 1;
            assert_eq!(message.attempts, known.deliveries);
            assert!(u64::from(message.attempts) <= self.max_retries + 1, "{message:?} came too often");
            known.hidden_until = self.now + i64::try_from(timeout).unwrap();
            known.leases.push(message.lease().to_string());
        }
    }

    fn settle(&mut self, facts: &mut Vec<Fact>) {
        let (mut acks, mut retries) = (Vec::new(), Vec::new());
        for (seq, known) in &self.known {
            if known.leases.is_empty() || self.random.below(4) != 0 {
                continue;
            }
            // Any lease, the newest or an old one.
            let pick = usize::try_from(self.random.below(known.leases.len() as u64)).unwrap();
            let lease = known.leases[pick].clone();
            if self.random.below(2) == 0 {
                acks.push(lease);
            } else {
                let current = pick + 1 == known.leases.len() && known.hidden_until > self.now;
                retries.push((*seq, lease, self.random.delay(), current));
            }
        }
        let acks: Vec<&str> = acks.iter().map(String::as_str).collect();
        let given: Vec<Retry<'_>> = retries.iter().map(|(_, lease, delay, _)| Retry { lease, delay: *delay }).collect();
        let settled = self.queue.settle(self.now, &acks, &given, facts).unwrap();
        let answered = settled.acked + settled.retried + settled.warnings.len() as u64;
        assert_eq!(answered, (acks.len() + given.len()) as u64);
        for (seq, lease, delay, current) in &retries {
            let took_effect = settled.warnings.iter().all(|(warned, _)| warned != lease);
            assert!(*current || !took_effect, "a stale lease gave message {seq} back");
            if took_effect {
                let delay = delay.unwrap_or(Duration::from_secs(self.queue.consumer().unwrap().retry_delay));
                let known = self.known.get_mut(seq).expect("it was just iterated");
                known.hidden_until = self.now + i64::try_from(delay.as_millis()).unwrap();
            }
        }
    }

    fn record(&mut self, facts: &[Fact]) {
        for fact in facts {
            match fact {
                Fact::Added(message) => assert_eq!(self.stored.insert(message.seq, *message), None),
                Fact::Changed(message) => assert!(self.stored.insert(message.seq, *message).is_some()),
                Fact::Removed(message, _) | Fact::DeadLettered(message, _) => {
                    assert_eq!(self.stored.remove(&message.seq).as_ref(), Some(message));
                    self.known.remove(&message.seq);
                    self.gone += 1;
                }
                Fact::Cleared => {
                    self.gone += self.stored.len() as u64;
                    self.stored.clear();
                    self.known.clear();
                }
            }
        }
    }

    fn check(&self) {
        self.queue.check().unwrap();
        let metrics = self.queue.metrics();
        assert_eq!(metrics.backlog_count, self.pushed - self.gone);
        let consumer = self.queue.consumer().cloned();
        let replayed = Queue::restore(self.queue.settings().clone(), consumer, self.stored.values().copied());
        assert_eq!(replayed, self.queue);
    }
}

#[test]
fn random_histories_keep_every_promise() {
    for seed in 0..200 {
        let mut history = History::new(seed);
        for _ in 0..300 {
            history.step();
        }
        assert!(history.pushed > 0 && history.gone > 0, "seed {seed} tested nothing");
    }
}
