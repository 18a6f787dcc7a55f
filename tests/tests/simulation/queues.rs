//! The queue service: two queues of `leased-queue` with their bodies, and requests to them that get lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use leased_queue::{Candidates, Consumer, Fact, Handle, MessageId, NewMessage, Queue, Removal, Retry, Seq, Settings};
use lifecycle::{Delivery, Event, Failure, Pulled};
use protocol::{FailureClass, JobId};

use crate::plan::{DAY, MINUTE, SECOND, Time, duration};
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// How long a pull is held at most.
const HOLD_MAX: Time = 25 * SECOND;

/// A message that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Whose job it is; nonsense is nobody's.
    pub(crate) job_id: Option<JobId>,
    pub(crate) body: String,
}

/// A pull, and who waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull {
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) count: usize,
    /// When it arrived.
    pub(crate) since: Time,
    /// Does it ask to be held?
    pub(crate) asks: bool,
}

/// Both queues.
pub(crate) struct Queues {
    jobs: Queue,
    results: Queue,
    next_seq: Seq,
    /// What is in the queue of jobs.
    messages: BTreeMap<Seq, Sent>,
    /// What left it since somebody asked.
    gone: Vec<(Sent, Removal)>,
    /// Pulls that are held, by their numbers.
    held: BTreeMap<u64, Pull>,
    next_held: u64,
    /// Until when each lease is kept that was ever given.
    leases: BTreeMap<String, Time>,
    /// Until when the service cannot be used, and what it says.
    pub(crate) down_until: Time,
    pub(crate) answer: FailureClass,
    /// Does it deliver no message twice of its own accord?
    pub(crate) orderly: bool,
    /// What daemons have had it do on each day, as the service counts that.
    pub(crate) spent: Rc<RefCell<BTreeMap<Time, u64>>>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        let settings = Settings { message_retention_period: 14 * 86_400, ..Settings::default() };
        let consumer = Consumer { max_retries: 100, ..Consumer::default() };
        Self {
            jobs: Queue::new(settings.clone(), Some(consumer)),
            results: Queue::new(settings, None),
            next_seq: 1,
            messages: BTreeMap::new(),
            gone: Vec::new(),
            held: BTreeMap::new(),
            next_held: 0,
            leases: BTreeMap::new(),
            down_until: 0,
            answer: FailureClass::Unavailable,
            orderly: false,
            spent: Rc::default(),
        }
    }

    fn new_message(&mut self, bytes: usize) -> NewMessage {
        let seq = self.next_seq;
        self.next_seq += 1;
        let id = MessageId(u128::try_from(seq).unwrap_or_default().to_be_bytes());
        NewMessage { seq, id, bytes, delay: None }
    }

    /// A message comes into the queue of jobs.
    pub(crate) fn send(&mut self, now: Time, job_id: Option<JobId>, body: String) -> Checked {
        let message = self.new_message(body.len());
        let mut facts = Vec::new();
        self.jobs.push(now, &[message], None, &mut facts).map_err(|refused| refused.to_string())?;
        self.messages.insert(message.seq, Sent { job_id, body });
        self.note(facts);
        Ok(())
    }

    /// Mostly what the service does; sometimes in another order, or with messages that are leased already.
    fn pull(&mut self, now: Time, count: usize, lease: Time, rng: &mut Rng) -> Checked<Vec<Delivery>> {
        let (reordered, again) = (rng.u8(..) < 60, rng.u8(..) < 15 && !self.orderly);
        let choose = |candidates: &Candidates| {
            let mut chosen: Vec<Seq> = candidates.ready.iter().map(|message| message.seq).collect();
            if again {
                // Not so often that this alone would use up the deliveries of a message.
                chosen.extend(
                    candidates.leased.iter().filter(|message| message.attempts < 20).map(|message| message.seq),
                );
            }
            if reordered {
                rng.shuffle(&mut chosen);
            }
            chosen
        };
        let (size, timeout) = (u64::try_from(count).ok(), u64::try_from(lease).ok());
        let mut facts = Vec::new();
        let pulled = self.jobs.pull_chosen(now, size, timeout, choose, &mut facts);
        self.note(facts);
        let delivery = |message: &leased_queue::Message| {
            let body = self.messages.get(&message.seq)?.body.clone();
            Some(Delivery { lease_id: message.lease().to_string(), body, deliveries: u64::from(message.attempts) })
        };
        let pulled = pulled.map_err(|refused| refused.to_string())?;
        self.leases.extend(pulled.iter().map(|message| (message.lease().to_string(), message.visible_at)));
        Ok(pulled.iter().filter_map(delivery).collect())
    }

    /// Until when a lease is kept, if it was ever given.
    pub(crate) fn kept_until(&self, lease: &str) -> Option<Time> {
        self.leases.get(lease).copied()
    }

    fn settle(&mut self, now: Time, acks: &[String], retries: &[(String, Duration)]) -> Checked {
        let acks: Vec<&str> = acks.iter().map(String::as_str).collect();
        let retries: Vec<Retry<'_>> =
            retries.iter().map(|(lease, delay)| Retry { lease: lease.as_str(), delay: Some(*delay) }).collect();
        let mut facts = Vec::new();
        let settled = self.jobs.settle(now, &acks, &retries, &mut facts);
        self.note(facts);
        settled.map(|_| ()).map_err(|refused| refused.to_string())
    }

    fn publish(&mut self, now: Time, records: &[(JobId, String)]) -> Checked {
        let messages: Vec<NewMessage> = records.iter().map(|(_, record)| self.new_message(record.len())).collect();
        self.results.push(now, &messages, None, &mut Vec::new()).map_err(|refused| refused.to_string())
    }

    fn note(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            let (seq, removal) = match fact {
                Fact::Removed(message, removal) => (message.seq, removal),
                Fact::DeadLettered(message, _) => (message.seq, Removal::Exhausted),
                Fact::Added(_) | Fact::Changed(_) | Fact::Cleared => continue,
            };
            self.gone.extend(self.messages.remove(&seq).map(|sent| (sent, removal)));
        }
    }

    /// The message that a lease is of, while the queue holds it.
    fn leased_as(&self, lease: &str) -> Option<Sent> {
        let handle: Handle = lease.parse().ok()?;
        self.messages.get(&handle.seq).cloned()
    }

    /// Does the queue hold a message of this job?
    pub(crate) fn holds(&self, job_id: &JobId) -> bool {
        self.messages.values().any(|sent| sent.job_id.as_ref() == Some(job_id))
    }

    /// How many messages the queue of jobs holds.
    pub(crate) fn backlog(&self) -> usize {
        self.messages.len()
    }

    /// Do the parts of the queues agree?
    pub(crate) fn check(&self) -> Checked {
        self.jobs.check()?;
        self.results.check()?;
        let (counted, known) = (self.jobs.metrics().backlog_count, self.messages.len());
        if usize::try_from(counted) != Ok(known) {
            return Err(format!("the queue holds {counted} messages, and {known} bodies are known"));
        }
        Ok(())
    }
}

impl World {
    /// A message comes into the queue of jobs.
    pub(crate) fn send(&mut self, job_id: Option<JobId>, body: String) -> Checked {
        self.queues.send(self.now, job_id, body)?;
        self.ring();
        self.hub_rings();
        Ok(())
    }

    /// Something may be there now: pulls that are held look again.
    fn ring(&mut self) {
        let numbers: Vec<u64> = self.queues.held.keys().copied().collect();
        for number in numbers {
            let at = self.now + self.rng.i64(0..=5);
            self.schedule(at, Happening::LookAgain(number));
        }
    }

    /// Looks for a pull. Where there is nothing it may be held; then there is no answer yet.
    pub(crate) fn answer_pull(&mut self, pull: Pull) -> Checked<Option<Event>> {
        let Pull { node, life, count, since, asks } = pull;
        let pulled = self.pull(node, count)?;
        let held = self.now - since;
        if self.nodes[node].number() == Some(life) {
            self.report.held += u64::from(held > 0);
            if let (Ok(_), true, Some(life)) = (&pulled, self.plan.holds, &mut self.nodes[node].life) {
                life.knows_of_holding = true;
            }
        } else {
            self.report.held_for_nobody += u64::from(held > 0 && pulled.as_ref().is_ok_and(|found| !found.is_empty()));
        }
        Ok(Some(Event::Pulled(match pulled {
            Ok(deliveries) if deliveries.is_empty() && asks && held < HOLD_MAX => {
                self.hold(pull);
                return Ok(None);
            }
            Ok(deliveries) => {
                let more = if self.sabotage == Some(Sabotage::HeldForLonger) { MINUTE } else { 0 };
                Ok(Pulled { deliveries, held: asks.then(|| duration(held + more)), spared: false })
            }
            Err(failure) => Err(failure),
        })))
    }

    /// Nothing is kept for a pull that is held: it looks again when it is rung, when a message can be delivered again,
    /// and at its end.
    fn hold(&mut self, pull: Pull) {
        let (number, end) = (self.queues.next_held, pull.since + HOLD_MAX);
        self.queues.next_held += 1;
        self.queues.held.insert(number, pull);
        let next = self.queues.jobs.next_ready_at().map_or(end, |at| at.clamp(self.now + 1, end));
        self.schedule(next, Happening::LookAgain(number));
    }

    pub(crate) fn look_again(&mut self, number: u64) -> Checked {
        let Some(pull) = self.queues.held.remove(&number) else { return Ok(()) };
        let event = self.answer_pull(pull)?;
        self.answer(pull.node, pull.life, event)
    }

    /// The pull of this process that is held, if there is one.
    fn held_of(&self, n: usize, life: u64) -> Option<u64> {
        let is_of = |pull: &Pull| (pull.node, pull.life) == (n, life);
        self.queues.held.iter().find(|(_, pull)| is_of(pull)).map(|(number, _)| *number)
    }

    /// Who waits for the answer is gone. The service sees that at once, or only when it answers.
    pub(crate) fn abandon_pull(&mut self, n: usize, life: u64) {
        if let Some(number) = self.held_of(n, life)
            && self.rng.bool()
        {
            self.queues.held.remove(&number);
        }
    }

    /// A daemon that takes nothing new does not wait for something to come: it closes the connection.
    pub(crate) fn give_up_pull(&mut self, n: usize) {
        let Some(life) = self.nodes[n].number() else { return };
        let Some(number) = self.held_of(n, life) else { return };
        if let Some(pull) = self.queues.held.get_mut(&number) {
            // Nobody's: no process has this number.
            pull.life = 0;
        }
        self.abandon_pull(n, 0);
        self.schedule(self.now, Happening::Arrive { node: n, life, event: Event::Pulled(Ok(Pulled::default())) });
    }

    pub(crate) fn pull(&mut self, n: usize, count: usize) -> Checked<Result<Vec<Delivery>, Failure>> {
        if count == 0 || count > self.plan.batch_size {
            return Err(format!("daemon {n} asks for {count} messages; its largest batch is {}", self.plan.batch_size));
        }
        if let Some(failure) = self.request_lost() {
            return Ok(Err(failure));
        }
        let deliveries = self.queues.pull(self.now, count, self.plan.lease, &mut self.rng)?;
        if self.queues.orderly
            && let Some(again) = deliveries.iter().find(|delivery| delivery.deliveries > 1)
        {
            return Err(format!("nothing goes wrong, and daemon {n} gets a message once more: {}", again.body));
        }
        self.costs(n, deliveries.len().max(1))?;
        if self.sabotage == Some(Sabotage::AckBeforeAccept) {
            let leases: Vec<String> = deliveries.iter().map(|delivery| delivery.lease_id.clone()).collect();
            self.settle_now(n, &leases, &[])?;
        }
        self.queue_forgot()?;
        Ok(self.response_lost().map_or(Ok(deliveries), Err))
    }

    pub(crate) fn settle(
        &mut self,
        n: usize,
        acks: &[String],
        retries: &[(String, Duration)],
    ) -> Checked<Result<(), Failure>> {
        if let Some(failure) = self.request_lost() {
            return Ok(Err(failure));
        }
        if !self.calm && self.plan.lost > 0 && self.rng.u8(0..100) == 0 {
            return Ok(Err(self.failure(FailureClass::Refused)));
        }
        self.settle_now(n, acks, retries)?;
        Ok(self.response_lost().map_or(Ok(()), Err))
    }

    fn settle_now(&mut self, n: usize, acks: &[String], retries: &[(String, Duration)]) -> Checked {
        for lease in acks {
            if let Some(sent) = self.queues.leased_as(lease)
                && !self.is_safe(&sent)
            {
                let Sent { job_id, body } = sent;
                return Err(format!("daemon {n} acknowledges the message of {job_id:?}, and nobody has it: {body}"));
            }
        }
        let mut acks = acks.to_vec();
        if self.sabotage == Some(Sabotage::LoseEarlyAcks) {
            let has_ended = |sent: Sent| sent.job_id.is_none_or(|job_id| self.files.records.contains_key(&job_id));
            acks.retain(|lease| self.queues.leased_as(lease).is_none_or(has_ended));
        }
        self.queues.settle(self.now, &acks, retries)?;
        self.costs(n, acks.len())?;
        if !retries.is_empty() {
            self.ring();
        }
        self.queue_forgot()
    }

    /// Whatever left the queue without an acknowledgement must be in safe hands as well.
    fn queue_forgot(&mut self) -> Checked {
        for (sent, removal) in std::mem::take(&mut self.queues.gone) {
            if removal != Removal::Acknowledged && !self.is_safe(&sent) {
                let Sent { job_id, body } = sent;
                return Err(format!("the queue gave the message of {job_id:?} up ({removal:?}): {body}"));
            }
        }
        Ok(())
    }

    pub(crate) fn publish(&mut self, n: usize, mut records: Vec<(JobId, String)>) -> Checked<Result<(), Failure>> {
        if let Some(failure) = self.request_lost() {
            return Ok(Err(failure));
        }
        if self.refuses(&records) {
            self.report.refusals += 1;
            return Ok(Err(self.failure(FailureClass::Refused)));
        }
        if self.sabotage == Some(Sabotage::ForgetRecordBytes) {
            for (_, record) in &mut records {
                record.push_str(&format!(" at {}", self.now));
            }
        }
        self.queues.publish(self.now, &records)?;
        self.costs(n, records.len())?;
        for (job_id, record) in records {
            self.was_published(n, &job_id, record)?;
        }
        Ok(self.response_lost().map_or(Ok(()), Err))
    }

    /// A daemon has had the service do so much. Messages are small here.
    fn costs(&mut self, n: usize, operations: usize) -> Checked {
        let mut spent = self.queues.spent.borrow_mut();
        let today = spent.entry(self.now / DAY).or_default();
        *today += u64::try_from(operations).unwrap_or(u64::MAX);
        match self.plan.operations_per_day {
            Some(limit) if *today > limit => {
                Err(format!("daemon {n} passes the allowance of the day, {limit} operations: {today} are spent"))
            }
            _ => Ok(()),
        }
    }

    /// Does the queue of results refuse these? One that it never takes spoils a whole push.
    fn refuses(&self, records: &[(JobId, String)]) -> bool {
        let passing = self.plan.refusal.is_some_and(|(from, until)| (from..until).contains(&self.now));
        (passing && !self.calm) || records.iter().any(|(job_id, _)| self.plan.is_unfit(job_id))
    }

    /// A request that does not reach the service, or that it does not carry out.
    fn request_lost(&mut self) -> Option<Failure> {
        if self.queues.down_until > self.now {
            return Some(self.failure(self.queues.answer));
        }
        if self.calm || self.rng.u8(0..100) >= self.plan.lost {
            return None;
        }
        let class = match self.rng.u8(0..60) {
            0 => FailureClass::Fatal,
            1 => FailureClass::QuotaExhausted,
            2..=6 => FailureClass::Throttled(Some(duration(5 * SECOND))),
            7..=9 => FailureClass::Paused,
            _ => FailureClass::Unavailable,
        };
        Some(self.failure(class))
    }

    /// The service has carried it out, and its answer does not come back.
    fn response_lost(&mut self) -> Option<Failure> {
        let lost = !self.calm && self.rng.u8(0..100) < self.plan.lost;
        lost.then(|| self.failure(FailureClass::Unavailable))
    }

    fn failure(&mut self, class: FailureClass) -> Failure {
        Failure { class, what: "it went wrong".to_owned(), jitter: self.rng.f64() }
    }
}
