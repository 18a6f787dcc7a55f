//! The queue itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::limits;

use crate::settings::{BATCH_SIZE, VISIBILITY_TIMEOUT_MS};
use crate::{
    BACKLOG_BYTES_MAX, Consumer, Fact, Handle, Message, Metrics, Millis, NewMessage, Refused, Removal, Retry, Seq,
    Settings, Settled, Warning,
};

/// One queue. Each operation costs the logarithm of the number of messages, times the messages that it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    settings: Settings,
    consumer: Option<Consumer>,
    /// By number, which is the order of arrival.
    messages: BTreeMap<Seq, Message>,
    /// Messages that are not leased, by the time when they can be delivered.
    waiting: BTreeSet<(Millis, Seq)>,
    /// Messages that are leased, by the end of the lease.
    leased: BTreeSet<(Millis, Seq)>,
    backlog_bytes: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(settings: Settings, consumer: Option<Consumer>) -> Self {
        Self::restore(settings, consumer, [])
    }

    /// The queue that holds these messages, as [`Fact`]s told of them.
    pub fn restore(
        settings: Settings,
        consumer: Option<Consumer>,
        messages: impl IntoIterator<Item = Message>,
    ) -> Self {
        let mut queue = Self {
            settings,
            consumer,
            messages: BTreeMap::new(),
            waiting: BTreeSet::new(),
            leased: BTreeSet::new(),
            backlog_bytes: 0,
        };
        for message in messages {
            queue.put(message);
        }
        queue
    }

    /// The queue's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the settings. A new retention period holds for the messages that are here, too; a new delay does not.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), Refused> {
        settings.validate()?;
        self.settings = settings;
        Ok(())
    }

    /// The pull consumer.
    pub fn consumer(&self) -> Option<&Consumer> {
        self.consumer.as_ref()
    }

    /// Sets, changes or removes the pull consumer. Leases that were given out stay valid.
    pub fn set_consumer(&mut self, consumer: Option<Consumer>) -> Result<(), Refused> {
        if let Some(consumer) = &consumer {
            consumer.validate()?;
        }
        self.consumer = consumer;
        Ok(())
    }

    /// Adds messages, all or none. The delay of a message goes before that of the batch, and that before the queue's.
    pub fn push(
        &mut self,
        now: Millis,
        messages: &[NewMessage],
        batch_delay: Option<Duration>,
        facts: &mut Vec<Fact>,
    ) -> Result<(), Refused> {
        self.check_push(messages, batch_delay)?;
        self.advance(now, facts);
        let delay = batch_delay.unwrap_or(Duration::from_secs(self.settings.delivery_delay));
        for new in messages {
            let message = Message {
                seq: new.seq,
                id: new.id,
                bytes: u32::try_from(new.bytes).expect("the limit of a message was checked above"),
                published_at: now,
                arrived_at: now,
                visible_at: now + millis(new.delay.unwrap_or(delay)),
                leased: false,
                attempts: 0,
            };
            self.put(message);
            facts.push(Fact::Added(message));
        }
        Ok(())
    }

    fn check_push(&self, messages: &[NewMessage], batch_delay: Option<Duration>) -> Result<(), Refused> {
        if messages.len() > limits::BATCH_COUNT_MAX {
            return Err(Refused::BatchTooMany { count: messages.len() });
        }
        if let Some(delay) = batch_delay
            && delay > limits::DELAY_MAX
        {
            return Err(Refused::BatchDelay { delay });
        }
        let mut total = 0;
        for (index, message) in messages.iter().enumerate() {
            let bytes = message.bytes.saturating_add(limits::MESSAGE_METADATA_BYTES);
            if bytes > limits::MESSAGE_BYTES_MAX {
                return Err(Refused::MessageTooLarge { index, bytes });
            }
            if let Some(delay) = message.delay
                && delay > limits::DELAY_MAX
            {
                return Err(Refused::MessageDelay { index, delay });
            }
            total += bytes;
        }
        if total > limits::BATCH_BYTES_MAX {
            return Err(Refused::BatchTooLarge { bytes: total });
        }
        if self.backlog_bytes + total as u64 > BACKLOG_BYTES_MAX {
            return Err(Refused::StorageLimit);
        }
        Ok(())
    }

    /// Takes in a message that another queue has dead-lettered, under a new number. It keeps its id and the time of its
    /// publication; deliveries and retention count anew, and no delay applies.
    pub fn adopt(&mut self, now: Millis, seq: Seq, message: &Message, facts: &mut Vec<Fact>) {
        let adopted = Message { seq, arrived_at: now, visible_at: now, leased: false, attempts: 0, ..*message };
        self.put(adopted);
        facts.push(Fact::Added(adopted));
    }

    /// Leases messages that can be delivered, those that are ready for the longest time first. What the pull says goes
    /// before what the consumer says.
    pub fn pull(
        &mut self,
        now: Millis,
        batch_size: Option<u64>,
        visibility_timeout_ms: Option<u64>,
        facts: &mut Vec<Fact>,
    ) -> Result<Vec<Message>, Refused> {
        let (count, timeout) = self.terms_of_pull(batch_size, visibility_timeout_ms)?;
        self.advance(now, facts);
        let ready = self.ready(now, count);
        Ok(self.lease(ready, now + timeout, facts))
    }

    /// How many messages a pull gets at most, and for how long.
    pub(crate) fn terms_of_pull(
        &self,
        batch_size: Option<u64>,
        visibility_timeout_ms: Option<u64>,
    ) -> Result<(u64, Millis), Refused> {
        let consumer = self.consumer.as_ref().ok_or(Refused::PullNotEnabled)?;
        if self.settings.delivery_paused {
            return Err(Refused::DeliveryPaused);
        }
        let count = batch_size.unwrap_or(consumer.batch_size);
        if !BATCH_SIZE.contains(&count) {
            return Err(Refused::BatchSize { given: count });
        }
        let timeout = visibility_timeout_ms.unwrap_or(consumer.visibility_timeout_ms);
        if !VISIBILITY_TIMEOUT_MS.contains(&timeout) {
            return Err(Refused::VisibilityTimeout { given: timeout });
        }
        Ok((count, millis(Duration::from_millis(timeout))))
    }

    /// Delivers messages, each under a new lease.
    pub(crate) fn lease(&mut self, messages: Vec<Message>, until: Millis, facts: &mut Vec<Fact>) -> Vec<Message> {
        messages
            .into_iter()
            .map(|message| {
                let delivery = Message { visible_at: until, leased: true, attempts: message.attempts + 1, ..message };
                self.put(delivery);
                facts.push(Fact::Changed(delivery));
                delivery
            })
            .collect()
    }

    /// Acknowledges and gives back deliveries; acknowledgements first.
    ///
    /// An acknowledgement counts for as long as the message lives: after the lease has expired, and even after the
    /// message was delivered again. A retry counts only with the current lease; after that the message comes back by
    /// itself, and a retry of an earlier holder must not take it out of the hands of the present one.
    pub fn settle(
        &mut self,
        now: Millis,
        acks: &[&str],
        retries: &[Retry<'_>],
        facts: &mut Vec<Fact>,
    ) -> Result<Settled, Refused> {
        for (index, retry) in retries.iter().enumerate() {
            if let Some(delay) = retry.delay
                && delay > limits::DELAY_MAX
            {
                return Err(Refused::RetryDelay { index, delay });
            }
        }
        self.advance(now, facts);
        let mut settled = Settled::default();
        for &lease in acks {
            let Some((message, _)) = self.delivered(lease) else {
                settled.warnings.push((lease.to_owned(), Warning::Unknown));
                continue;
            };
            self.take_out(&message);
            facts.push(Fact::Removed(message, Removal::Acknowledged));
            settled.acked += 1;
        }
        for retry in retries {
            match self.delivered(retry.lease) {
                None => settled.warnings.push((retry.lease.to_owned(), Warning::Unknown)),
                Some((message, attempt)) if !message.leased || attempt != message.attempts => {
                    settled.warnings.push((retry.lease.to_owned(), Warning::Stale));
                }
                Some((message, _)) => {
                    let delay = retry.delay.unwrap_or(self.retry_delay());
                    self.give_back(message, now + millis(delay), facts);
                    settled.retried += 1;
                }
            }
        }
        Ok(settled)
    }

    /// The messages that a pull would get, without leasing them or counting a delivery.
    pub fn peek(
        &mut self,
        now: Millis,
        batch_size: Option<u64>,
        facts: &mut Vec<Fact>,
    ) -> Result<Vec<Message>, Refused> {
        let count = batch_size.unwrap_or(Consumer::default().batch_size);
        if !BATCH_SIZE.contains(&count) {
            return Err(Refused::BatchSize { given: count });
        }
        self.advance(now, facts);
        Ok(self.ready(now, count))
    }

    /// Removes the messages that these references of [`Self::peek`] name, whoever holds them.
    pub fn purge(&mut self, now: Millis, references: &[&str], facts: &mut Vec<Fact>) -> Vec<(String, Warning)> {
        self.advance(now, facts);
        let mut warnings = Vec::new();
        for &reference in references {
            let named = reference.parse::<Handle>().ok().filter(|handle| handle.attempt == 0);
            let Some(message) = named.and_then(|handle| self.find(&handle)) else {
                warnings.push((reference.to_owned(), Warning::Unknown));
                continue;
            };
            self.take_out(&message);
            facts.push(Fact::Removed(message, Removal::Purged));
        }
        warnings
    }

    /// Removes all messages, delayed and leased ones too, and says how many.
    pub fn purge_all(&mut self, facts: &mut Vec<Fact>) -> usize {
        let count = self.messages.len();
        self.messages.clear();
        self.waiting.clear();
        self.leased.clear();
        self.backlog_bytes = 0;
        facts.push(Fact::Cleared);
        count
    }

    /// How much the queue holds, as of the last operation.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            backlog_count: self.messages.len() as u64,
            backlog_bytes: self.backlog_bytes,
            oldest_message_at: self.messages.first_key_value().map(|(_, message)| message.published_at),
        }
    }

    /// When a message can be delivered at the earliest if nothing but time comes: the first one that waits, or the
    /// first lease that lapses. As of the last operation.
    pub fn next_ready_at(&self) -> Option<Millis> {
        let waiting = self.waiting.first().map(|(visible_at, _)| *visible_at);
        let lapsing = self.leased.first().map(|(lapses_at, _)| lapses_at + millis(self.retry_delay()));
        waiting.into_iter().chain(lapsing).min()
    }

    /// Lets time pass: messages beyond the retention period go, leased or not, and leases that have expired end, which
    /// is a failed delivery without a word. Every other operation begins with this; the owner of several queues calls
    /// it for all of them, since a message may come from one to another.
    pub fn advance(&mut self, now: Millis, facts: &mut Vec<Fact>) {
        let retention = millis(self.settings.retention());
        while let Some(&(lapsed_at, seq)) = self.leased.first() {
            if lapsed_at > now {
                break;
            }
            let message = self.messages[&seq];
            if message.arrived_at + retention <= lapsed_at {
                self.expire(&message, facts);
            } else {
                // From the end of the lease, not from the moment when somebody looks: the history is the same then.
                self.give_back(message, lapsed_at + millis(self.retry_delay()), facts);
            }
        }
        while let Some(message) = self.messages.first_key_value().map(|(_, message)| *message) {
            // In the order of arrival. Should the clock go back, a message waits for those that came before it.
            if message.arrived_at + retention > now {
                break;
            }
            self.expire(&message, facts);
        }
    }

    fn expire(&mut self, message: &Message, facts: &mut Vec<Fact>) {
        self.take_out(message);
        facts.push(Fact::Removed(*message, Removal::Expired));
    }

    /// Checks that the parts of the queue agree; says what does not.
    pub fn check(&self) -> Result<(), String> {
        let bytes: u64 = self.messages.values().map(|message| u64::from(message.bytes)).sum();
        if bytes != self.backlog_bytes {
            return Err(format!("the messages have {bytes} bytes, counted are {}", self.backlog_bytes));
        }
        if self.waiting.len() + self.leased.len() != self.messages.len() {
            let (waiting, leased) = (self.waiting.len(), self.leased.len());
            return Err(format!("{waiting} wait and {leased} are leased, of {}", self.messages.len()));
        }
        for (seq, message) in &self.messages {
            let index = if message.leased { &self.leased } else { &self.waiting };
            if message.seq != *seq || !index.contains(&(message.visible_at, *seq)) {
                return Err(format!("message {seq} is not where it should be: {message:?}"));
            }
            if message.leased && message.attempts == 0 {
                return Err(format!("message {seq} is leased, but was never delivered"));
            }
        }
        Ok(())
    }

    /// Messages that can be delivered, those that are ready for the longest time first.
    pub(crate) fn ready(&self, now: Millis, count: u64) -> Vec<Message> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let ready = self.waiting.iter().take_while(|(visible_at, _)| *visible_at <= now).take(count);
        ready.map(|(_, seq)| self.messages[seq]).collect()
    }

    /// Messages that are leased, by the end of the lease.
    pub(crate) fn leased(&self) -> impl Iterator<Item = Message> {
        self.leased.iter().map(|(_, seq)| self.messages[seq])
    }

    fn find(&self, handle: &Handle) -> Option<Message> {
        self.messages.get(&handle.seq).filter(|message| message.id == handle.id).copied()
    }

    /// The message of a lease that was really given out, and which delivery of it that was.
    fn delivered(&self, lease: &str) -> Option<(Message, u32)> {
        let handle: Handle = lease.parse().ok()?;
        let message = self.find(&handle)?;
        (1..=message.attempts).contains(&handle.attempt).then_some((message, handle.attempt))
    }

    fn retry_delay(&self) -> Duration {
        self.consumer.as_ref().map(Consumer::retry_delay).unwrap_or_default()
    }

    /// Ends a delivery that failed. Without a consumer nobody says how often is enough, and the message stays.
    fn give_back(&mut self, message: Message, visible_at: Millis, facts: &mut Vec<Fact>) {
        let exhausted = self.consumer.as_ref().filter(|consumer| u64::from(message.attempts) > consumer.max_retries);
        let Some(consumer) = exhausted else {
            let waiting = Message { visible_at, leased: false, ..message };
            self.put(waiting);
            facts.push(Fact::Changed(waiting));
            return;
        };
        facts.push(match &consumer.dead_letter_queue {
            Some(queue) => Fact::DeadLettered(message, queue.clone()),
            None => Fact::Removed(message, Removal::Exhausted),
        });
        self.take_out(&message);
    }

    /// Adds a message, or replaces what is known of it.
    fn put(&mut self, message: Message) {
        let index = if message.leased { &mut self.leased } else { &mut self.waiting };
        index.insert((message.visible_at, message.seq));
        self.backlog_bytes += u64::from(message.bytes);
        if let Some(before) = self.messages.insert(message.seq, message) {
            self.backlog_bytes -= u64::from(before.bytes);
            if (before.leased, before.visible_at) != (message.leased, message.visible_at) {
                self.unindex(&before);
            }
        }
    }

    fn take_out(&mut self, message: &Message) {
        if self.messages.remove(&message.seq).is_some() {
            self.backlog_bytes -= u64::from(message.bytes);
            self.unindex(message);
        }
    }

    fn unindex(&mut self, message: &Message) {
        let index = if message.leased { &mut self.leased } else { &mut self.waiting };
        index.remove(&(message.visible_at, message.seq));
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 2)
}
