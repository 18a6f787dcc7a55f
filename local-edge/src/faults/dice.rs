//! What a plan comes to, request by request: pure, and the same for the same seed.
//!
//! Invariant: what happens to the n-th request for an operation (the n-th pull that could be disturbed, the n-th
//! transaction that writes) depends on the seed, the rule and n alone, and not on what other requests came in between:
//! clients run side by side, and a history that nobody can repeat helps nobody. Only `count` is shared by the
//! operations of its rule.

use std::collections::BTreeMap;
use std::time::Duration;

use leased_queue::{Candidates, Millis, Seq};
use serde::Serialize;
use serde_json::value::RawValue;

use super::kind::{Kind, Operation};
use super::plan::{Fault, Plan, Rule};
use super::prng::Random;

/// The farthest that the clock is ever wrong, in milliseconds: ten years.
const OFFSET_MS_MAX: Millis = 315_360_000_000;

/// A plan as far as it has come, and what was injected since the server started.
#[derive(Debug)]
pub(super) struct Dice {
    active: Option<Active>,
    injected: BTreeMap<Kind, u64>,
    clock_offset: Millis,
}

#[derive(Debug)]
struct Active {
    seed: u64,
    rules: Vec<Armed>,
    text: Box<RawValue>,
    seen: BTreeMap<Event, u64>,
}

#[derive(Debug)]
struct Armed {
    index: u64,
    rule: Rule,
    /// How often it may still come; `None`: without end.
    left: Option<u64>,
}

/// Something that rules are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request(Operation),
    Delivery,
    Transaction,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How long it waits before anything else.
    pub(super) delay: Duration,
    /// `None`: it is carried out and answered.
    pub(super) outcome: Option<Outcome>,
}

/// What comes instead of a request being carried out and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    DropRequest,
    DropResponse,
    TooManyRequests {
        retry_after_seconds: u64,
    },
    FreeTierLimitExceeded,
    QueueDisabled,
    ServerError {
        status: u16,
        done: bool,
    },
    Paused,
    /// `choice`, any number, says which garbage.
    Garbage {
        done: bool,
        choice: u64,
    },
}

/// What `GET /faults` tells.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    plan: Option<&'a RawValue>,
    /// Since the server started, over all plans.
    injected: &'a BTreeMap<Kind, u64>,
    clock_offset_ms: Millis,
}

impl Dice {
    pub(super) fn new() -> Self {
        Self { active: None, injected: Kind::ALL.into_iter().map(|kind| (kind, 0)).collect(), clock_offset: 0 }
    }

    /// Goes by another plan from now on, from its beginning, or by none. The clock is right again; the counts go on.
    pub(super) fn set(&mut self, plan: Option<Plan>) {
        self.clock_offset = 0;
        self.active = plan.map(|Plan { seed, rules, text }| {
            let armed = (0..).zip(rules).map(|(index, rule)| Armed { index, left: rule.count, rule });
            Active { seed, rules: armed.collect(), text, seen: BTreeMap::new() }
        });
    }

    pub(super) fn report(&self) -> Report<'_> {
        Report {
            plan: self.active.as_ref().map(|active| &*active.text),
            injected: &self.injected,
            clock_offset_ms: self.clock_offset,
        }
    }

    /// How far the server's clock is ahead of the machine's.
    pub(super) fn clock_offset(&self) -> Millis {
        self.clock_offset
    }

    /// Decides about a request. Delays and jumps of the clock add up; of anything else the first rule that comes wins,
    /// and the others are not used up.
    pub(super) fn request(&mut self, operation: Operation) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(active) = &mut self.active else { return verdict };
        let event = Event::Request(operation);
        let number = active.number(event);
        for armed in &mut active.rules {
            if !armed.rule.concerns(operation) {
                continue;
            }
            let Some(mut random) = armed.draw(active.seed, event, number) else { continue };
            let outcome = match armed.rule.fault {
                Fault::Delay(delay) => {
                    verdict.delay += delay;
                    None
                }
                Fault::ClockJump { milliseconds } => {
                    self.clock_offset = (self.clock_offset + milliseconds).clamp(-OFFSET_MS_MAX, OFFSET_MS_MAX);
                    None
                }
                // Decided where they happen.
                Fault::DuplicateDelivery | Fault::Reorder | Fault::DiskFull => continue,
                Fault::DropRequest => Some(Outcome::DropRequest),
                Fault::DropResponse => Some(Outcome::DropResponse),
                Fault::TooManyRequests { retry_after_seconds } => {
                    Some(Outcome::TooManyRequests { retry_after_seconds })
                }
                Fault::FreeTierLimitExceeded => Some(Outcome::FreeTierLimitExceeded),
                Fault::QueueDisabled => Some(Outcome::QueueDisabled),
                Fault::ServerError { status, done } => Some(Outcome::ServerError { status, done }),
                Fault::Paused => Some(Outcome::Paused),
                Fault::Garbage { done } => Some(Outcome::Garbage { done, choice: random.next() }),
            };
            if outcome.is_some() {
                if verdict.outcome.is_some() {
                    continue;
                }
                verdict.outcome = outcome;
            }
            armed.spend(&mut self.injected);
        }
        verdict
    }

    /// Has the plan anything to say about which messages a pull delivers?
    pub(super) fn disturbs_deliveries(&self) -> bool {
        let disturbs = |armed: &Armed| matches!(armed.rule.fault, Fault::DuplicateDelivery | Fault::Reorder);
        self.active.as_ref().is_some_and(|active| active.rules.iter().any(disturbs))
    }

    /// What a pull delivers: each duplicate is one leased message, and comes first. A rule is used up only by what it
    /// changes.
    pub(super) fn deliveries(&mut self, candidates: &Candidates) -> Vec<Seq> {
        let mut ready: Vec<Seq> = candidates.ready.iter().map(|message| message.seq).collect();
        let mut leased: Vec<Seq> = candidates.leased.iter().map(|message| message.seq).collect();
        let mut again = Vec::new();
        if let Some(active) = &mut self.active {
            let number = active.number(Event::Delivery);
            for armed in &mut active.rules {
                let Some(mut random) = armed.draw(active.seed, Event::Delivery, number) else { continue };
                match armed.rule.fault {
                    Fault::DuplicateDelivery if !leased.is_empty() && again.len() < candidates.count => {
                        again.push(leased.swap_remove(random.below(leased.len())));
                    }
                    Fault::Reorder if ready.len() > 1 => {
                        for last in (1..ready.len()).rev() {
                            ready.swap(last, random.below(last + 1));
                        }
                    }
                    _ => continue,
                }
                armed.spend(&mut self.injected);
            }
        }
        again.into_iter().chain(ready).take(candidates.count).collect()
    }

    /// Does a transaction that has written find the disk full?
    pub(super) fn fills_disk(&mut self) -> bool {
        let Some(active) = &mut self.active else { return false };
        let number = active.number(Event::Transaction);
        for armed in &mut active.rules {
            let full =
                armed.rule.fault == Fault::DiskFull && armed.draw(active.seed, Event::Transaction, number).is_some();
            if full {
                armed.spend(&mut self.injected);
                return true;
            }
        }
        false
    }
}

impl Active {
    /// Counts an event; its number among its like, from 0.
    fn number(&mut self, event: Event) -> u64 {
        let seen = self.seen.entry(event).or_default();
        *seen += 1;
        *seen - 1
    }
}

impl Armed {
    /// Does the rule come? If so, what its further choices are drawn from.
    fn draw(&self, seed: u64, event: Event, number: u64) -> Option<Random> {
        let mut random = Random::of([seed, self.index, event.code(), number]);
        let comes = self.left != Some(0) && random.unit() < self.rule.probability;
        comes.then_some(random)
    }

    fn spend(&mut self, injected: &mut BTreeMap<Kind, u64>) {
        self.left = self.left.map(|left| left.saturating_sub(1));
        *injected.entry(self.rule.fault.kind()).or_default() += 1;
    }
}

impl Event {
    fn code(self) -> u64 {
        match self {
            Self::Request(operation) => operation as u64,
            Self::Delivery => 100,
            Self::Transaction => 101,
        }
    }
}

#[cfg(test)]
mod tests {
    use leased_queue::{Message, MessageId};
    use serde_json::{Value, json};

    use super::*;

    fn dice_of(seed: u64, rules: &str) -> Dice {
        let mut dice = Dice::new();
        dice.set(Some(Plan::parse(format!(r#"{{"seed": {seed}, "rules": [{rules}]}}"#).as_bytes()).unwrap()));
        dice
    }

    /// What becomes of some requests.
    fn outcomes(dice: &mut Dice, operation: Operation, count: usize) -> Vec<Option<Outcome>> {
        (0..count).map(|_| dice.request(operation).outcome).collect()
    }

    fn messages(numbers: std::ops::Range<Seq>) -> Vec<Message> {
        let message = |seq| Message {
            seq,
            id: MessageId([0; 16]),
            bytes: 1,
            published_at: 0,
            arrived_at: 0,
            visible_at: 0,
            leased: false,
            attempts: 1,
        };
        numbers.map(message).collect()
    }

    const OFTEN: &str = r#"{"fault": "drop_request", "probability": 0.3}, {"fault": "garbage", "probability": 0.3}"#;

    #[test]
    fn the_same_seed_gives_the_same_history_and_another_one_another() {
        let history = |seed| outcomes(&mut dice_of(seed, OFTEN), Operation::Pull, 200);
        assert_eq!(history(7), history(7));
        assert_ne!(history(7), history(8));
        // Setting the plan again begins again.
        let mut again = dice_of(7, OFTEN);
        let before = outcomes(&mut again, Operation::Pull, 200);
        again.set(Some(Plan::parse(format!(r#"{{"seed": 7, "rules": [{OFTEN}]}}"#).as_bytes()).unwrap()));
        assert_eq!(outcomes(&mut again, Operation::Pull, 200), before);
    }

    #[test]
    fn what_happens_to_one_operation_does_not_depend_on_the_others() {
        let alone = outcomes(&mut dice_of(7, OFTEN), Operation::Pull, 50);
        let mut dice = dice_of(7, OFTEN);
        let among_others: Vec<_> = (0..50)
            .map(|number| {
                outcomes(&mut dice, Operation::Ack, number % 3);
                dice.fills_disk();
                dice.request(Operation::Pull).outcome
            })
            .collect();
        assert_eq!(among_others, alone);
        assert_ne!(outcomes(&mut dice_of(7, OFTEN), Operation::Ack, 50), alone);
    }

    #[test]
    fn a_probability_is_kept_and_counted() {
        let mut dice = dice_of(1, r#"{"fault": "drop_request", "probability": 0.25}"#);
        let dropped = outcomes(&mut dice, Operation::Push, 10_000).into_iter().flatten().count();
        assert!((2_300..2_700).contains(&dropped), "{dropped} of 10,000");
        assert_eq!(dice.injected[&Kind::DropRequest], dropped as u64);
        let never = r#"{"fault": "drop_request", "probability": 0}"#;
        assert!(outcomes(&mut dice_of(1, never), Operation::Push, 100).iter().all(Option::is_none));
    }

    #[test]
    fn the_next_so_many_and_no_more() {
        let mut dice =
            dice_of(1, r#"{"fault": "paused", "count": 2}, {"fault": "drop_request", "operations": ["ack"]}"#);
        let pulls = outcomes(&mut dice, Operation::Pull, 4);
        assert_eq!(pulls, [Some(Outcome::Paused), Some(Outcome::Paused), None, None]);
        assert_eq!(outcomes(&mut dice, Operation::Ack, 1), [Some(Outcome::DropRequest)]);
        assert_eq!(outcomes(&mut dice, Operation::Push, 1), [None]);
        assert_eq!((dice.injected[&Kind::Paused], dice.injected[&Kind::DropRequest]), (2, 1));
    }

    #[test]
    fn the_first_outcome_wins_and_the_other_is_kept_for_later() {
        let rules = r#"{"fault": "drop_request", "count": 1}, {"fault": "delay", "milliseconds": 5},
                       {"fault": "paused", "count": 1}, {"fault": "delay", "milliseconds": 7}"#;
        let mut dice = dice_of(1, rules);
        let delay = Duration::from_millis(12);
        for outcome in [Some(Outcome::DropRequest), Some(Outcome::Paused), None] {
            assert_eq!(dice.request(Operation::Pull), Verdict { delay, outcome });
        }
        assert_eq!(dice.injected[&Kind::Delay], 6);
    }

    #[test]
    fn the_clock_jumps_and_a_new_plan_sets_it_right() {
        let mut dice = dice_of(1, r#"{"fault": "clock_jump", "milliseconds": -31536000000, "operations": ["peek"]}"#);
        dice.request(Operation::Pull);
        assert_eq!(dice.clock_offset(), 0);
        dice.request(Operation::Peek);
        assert_eq!(dice.clock_offset(), -31_536_000_000);
        outcomes(&mut dice, Operation::Peek, 20);
        assert_eq!(dice.clock_offset(), -OFFSET_MS_MAX);
        dice.set(None);
        assert_eq!((dice.clock_offset(), dice.injected[&Kind::ClockJump]), (0, 21));
    }

    #[test]
    fn a_duplicate_is_a_leased_message_and_waits_until_there_is_one() {
        let mut dice = dice_of(3, r#"{"fault": "duplicate_delivery", "count": 2}"#);
        assert!(dice.disturbs_deliveries());
        let mut candidates = Candidates { ready: messages(1..4), leased: Vec::new(), count: 3 };
        assert_eq!(dice.deliveries(&candidates), [1, 2, 3]);
        candidates.leased = messages(10..20);
        for _ in 0..2 {
            let chosen = dice.deliveries(&candidates);
            assert!((10..20).contains(&chosen[0]), "{chosen:?}");
            assert_eq!(chosen[1..], [1, 2]);
        }
        assert_eq!(dice.deliveries(&candidates), [1, 2, 3]);
        assert_eq!(dice.injected[&Kind::DuplicateDelivery], 2);
    }

    #[test]
    fn a_new_order_has_the_same_messages_and_is_the_same_for_the_same_seed() {
        let candidates = Candidates { ready: messages(0..100), leased: Vec::new(), count: 100 };
        let order = |seed| dice_of(seed, r#"{"fault": "reorder"}"#).deliveries(&candidates);
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(1);
        assert_ne!(sorted, (0..100).collect::<Vec<Seq>>());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<Seq>>());
        // From all that is ready, not only from the first ones.
        let few = Candidates { count: 10, ..candidates.clone() };
        let chosen = dice_of(1, r#"{"fault": "reorder"}"#).deliveries(&few);
        assert_eq!(chosen.len(), 10);
        assert!(chosen.iter().any(|seq| *seq >= 10), "{chosen:?}");
    }

    #[test]
    fn the_disk_is_full_for_so_many_transactions() {
        let mut dice = dice_of(1, r#"{"fault": "disk_full", "count": 2}, {"fault": "drop_request"}"#);
        let full: Vec<bool> = (0..4).map(|_| dice.fills_disk()).collect();
        assert_eq!(full, [true, true, false, false]);
        assert!(!dice.disturbs_deliveries());
        assert_eq!((dice.injected[&Kind::DiskFull], dice.injected[&Kind::DropRequest]), (2, 0));
    }

    #[test]
    fn a_report_repeats_the_plan_and_counts_every_kind() {
        let mut dice = Dice::new();
        let report = |dice: &Dice| serde_json::to_value(dice.report()).unwrap();
        assert_eq!(report(&dice)["plan"], Value::Null);
        assert_eq!(report(&dice)["injected"].as_object().unwrap().len(), Kind::ALL.len());
        let plan = r#"{"seed": 5, "rules": [{"fault": "paused"}]}"#;
        dice.set(Some(Plan::parse(plan.as_bytes()).unwrap()));
        dice.request(Operation::Pull);
        let report = report(&dice);
        assert_eq!(report["plan"], serde_json::from_str::<Value>(plan).unwrap());
        assert_eq!((&report["injected"]["paused"], &report["clock_offset_ms"]), (&json!(1), &json!(0)));
    }
}
