//! A task at its vendor: what is asked next, and what follows from the answer.
//!
//! Invariant: a task that the vendor may have already is never submitted; it is looked up first, and goes back into the
//! queue only if it is surely not there.

use std::time::Duration;

use crate::lease::{Lease, Step};
use crate::table::{Dialogue, Next, State};
use crate::{Answer, Ask, Effect, EndKind, Fact, Fault, FaultKind, Lookup, Phase, Question, TaskId};

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A vendor that says more is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// How often in a row a vendor refuses to say how a task is, before it is believed.
const REFUSED_MAX: u32 = 3;

/// How often nobody could say whether the vendor has taken a task that it then surely did not have. With the pauses
/// between two tries that is a quarter of an hour.
const UNKNOWN_MAX: u32 = 20;

/// How often in a row a vendor takes nothing, before a person is told: once is what vendors do.
const TOLD_AT: u32 = 2;

/// The longest id of a vendor.
const VENDOR_ID_BYTES_MAX: usize = 512;

impl Lease {
    /// Gives tasks to vendors, as many as may be there. One that took nothing is tried with one task at a time.
    pub(crate) fn start(&mut self, now: Duration, step: &mut Step) {
        for (name, qpu) in &self.settings.qpus {
            let Some(machine) = self.machines.get_mut(name) else { continue };
            while machine.in_flight.len() < qpu.max_in_flight
                && machine.pause_until <= now
                && (machine.strikes == 0 || machine.submitting.is_empty())
                && let Some(id) = machine.queue.next()
                && let Some(task) = self.table.get_mut(&id)
            {
                machine.in_flight.insert(id.clone());
                machine.submitting.insert(id.clone());
                self.asked += 1;
                let mut dialogue = Dialogue::new(Next::Find, qpu.poll.0, now);
                dialogue.asking = Some((self.asked, Question::Submit));
                task.state = State::Submitting(dialogue);
                step.facts.push(Fact::Submitting(id.clone()));
                let ask = Ask { task: id, qpu: name.clone(), number: self.asked, question: Question::Submit };
                step.effects.push(Effect::Ask(ask));
            }
        }
    }

    /// The time has come to ask about this task.
    pub(crate) fn ask_next(&mut self, id: &TaskId, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let (question, dialogue) = match &mut task.state {
            State::Submitting(dialogue) => (Question::Find, dialogue),
            State::Running(vendor_id, dialogue) => {
                let question = match dialogue.next {
                    Next::Result => Question::Result(vendor_id.clone()),
                    Next::Cancel => Question::Cancel(vendor_id.clone()),
                    Next::Status | Next::Find => Question::Status(vendor_id.clone()),
                };
                (question, dialogue)
            }
            State::Queued | State::Ended(..) => return,
        };
        if dialogue.asking.is_some() {
            return;
        }
        self.asked += 1;
        dialogue.asking = Some((self.asked, question.clone()));
        let ask = Ask { task: id.clone(), qpu: task.qpu.clone(), number: self.asked, question };
        step.effects.push(Effect::Ask(ask));
    }

    /// An answer has come. One that nobody waits for, because it comes twice or too late, changes nothing.
    pub(crate) fn answered(&mut self, id: &TaskId, number: u64, answer: Answer, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let Some(dialogue) = task.dialogue() else { return };
        let Some((_, question)) = dialogue.asking.take_if(|(asked, _)| *asked == number) else { return };
        if let Some(machine) = self.machines.get_mut(&task.qpu) {
            machine.submitting.remove(id);
        }
        match (&question, self.checked(id, answer)) {
            (Question::Submit, Answer::Taken { vendor_id, .. }) | (Question::Find, Answer::Found { vendor_id, .. }) => {
                self.runs(id, vendor_id, now, step);
            }
            (Question::Submit, Answer::Fault(fault)) => self.not_taken(id, &fault, now, step),
            (Question::Submit, _) => self.not_taken(id, &something_else(), now, step),
            (Question::Find, Answer::NotFound) => self.not_found(id, now, step),
            (Question::Find, Answer::Fault(Fault { kind: FaultKind::Refused, message, .. })) => {
                let why = format!("whether the vendor has taken it cannot be looked up: {message}");
                self.end(id, EndKind::Lost, Some(why), None, now, step);
            }
            (Question::Status(_), Answer::Status { phase, message, .. }) => self.seen(id, phase, message, now, step),
            (Question::Result(_), Answer::Result { result, .. }) => {
                self.end(id, EndKind::Completed, None, Some(result), now, step);
            }
            (Question::Cancel(_), Answer::Cancelling) => self.cancel_told(id, now),
            // It comes too late, or this vendor does not do that: how the task ends is seen as of any other.
            (Question::Cancel(_), Answer::Fault(Fault { kind: FaultKind::Refused, .. })) => self.cancel_told(id, now),
            (question, Answer::Fault(fault)) => self.silent(id, question, &fault, now, step),
            (question, _) => self.silent(id, question, &something_else(), now, step),
        }
    }

    /// An answer, unless it is of somebody else's task.
    fn checked(&self, id: &TaskId, answer: Answer) -> Answer {
        let (tag, vendor_id) = match &answer {
            Answer::Taken { vendor_id, tag } => (tag.as_deref(), Some(vendor_id)),
            Answer::Found { vendor_id, tag } => (Some(tag.as_str()), Some(vendor_id)),
            Answer::Status { tag, .. } | Answer::Result { tag, .. } => (tag.as_deref(), None),
            Answer::NotFound | Answer::Cancelling | Answer::Fault(_) => (None, None),
        };
        let fault = |message: &str| {
            Answer::Fault(Fault { kind: FaultKind::Unknown, retry_after: None, message: message.to_owned() })
        };
        if tag.is_some_and(|tag| tag != id.tag()) {
            return fault("the vendor has answered with a task that has another tag, which is not taken");
        }
        let Some(vendor_id) = vendor_id else { return answer };
        if vendor_id.is_empty() || vendor_id.len() > VENDOR_ID_BYTES_MAX {
            return fault("the vendor has answered with an id that is empty or too long");
        }
        let machine = self.table.get(id).and_then(|task| self.machines.get(&task.qpu));
        match machine.and_then(|machine| machine.vendor_ids.get(vendor_id)) {
            Some(other) if other != id => fault("the vendor has answered with the id of another task of ours"),
            _ => answer,
        }
    }

    fn runs(&mut self, id: &TaskId, vendor_id: String, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let Some(machine) = self.machines.get_mut(&task.qpu) else { return };
        let Some(qpu) = self.settings.qpus.get(&task.qpu) else { return };
        let was_told = machine.strikes >= TOLD_AT;
        machine.strikes = 0;
        machine.pause_until = Duration::ZERO;
        machine.trouble = None;
        if was_told {
            step.effects.push(Effect::Say(format!("{} takes tasks again", task.qpu)));
        }
        machine.vendor_ids.insert(vendor_id.clone(), id.clone());
        step.facts.push(Fact::Running(id.clone(), vendor_id.clone()));
        let (next, due) = if task.is_unwanted() { (Next::Cancel, now) } else { (Next::Status, now + qpu.poll.0) };
        task.state = State::Running(vendor_id, Dialogue::new(next, qpu.poll.0, now));
        self.table.set_due(id, Some(due));
    }

    /// The vendor has not said that it has taken the task.
    fn not_taken(&mut self, id: &TaskId, fault: &Fault, now: Duration, step: &mut Step) {
        if fault.kind == FaultKind::Refused {
            let why = format!("the vendor has refused it: {}", fault.message);
            return self.end(id, EndKind::Failed, Some(why), None, now, step);
        }
        self.strike(id, fault, now, step);
        let Some(task) = self.table.get_mut(id) else { return };
        if fault.kind != FaultKind::Unknown {
            return self.returns(id, true, now, step);
        }
        task.unknown += 1;
        if let Some(dialogue) = task.dialogue() {
            dialogue.heard = now;
        }
        self.table.set_due(id, Some(now));
    }

    fn not_found(&mut self, id: &TaskId, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let Some(qpu) = self.settings.qpus.get(&task.qpu) else { return };
        let lookup = qpu.lookup;
        let unknown = task.unknown;
        // Whoever asked the vendor has ended by the first answer to a look, and not always before.
        let looked = task.dialogue().map_or(now, |dialogue| *dialogue.looked.get_or_insert(now));
        let shown = looked + qpu.settle;
        if now < shown {
            return self.table.set_due(id, Some(shown));
        }
        if lookup == Lookup::Unreliable {
            let why = "the vendor was asked to take it, no answer came, and it is not found there; as this vendor may \
                       have it all the same, it is not tried again"
                .to_owned();
            self.end(id, EndKind::Lost, Some(why), None, now, step);
        } else if unknown >= UNKNOWN_MAX {
            let why = format!("{unknown} times no answer came from the vendor, which does not have it");
            self.end(id, EndKind::Failed, Some(why), None, now, step);
        } else {
            self.returns(id, false, now, step);
        }
    }

    /// The task is surely not at the vendor.
    fn returns(&mut self, id: &TaskId, in_turn: bool, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get(id) else { return };
        if task.is_unwanted() {
            return self.end(id, EndKind::Cancelled, None, None, now, step);
        }
        self.leave(id);
        let Some(task) = self.table.get_mut(id) else { return };
        task.state = State::Queued;
        step.facts.push(Fact::Returned(id.clone()));
        let Some(machine) = self.machines.get_mut(&task.qpu) else { return };
        if in_turn {
            machine.queue.give_back(&task.job, task.order, id.clone());
        } else {
            machine.queue.add(&task.job, task.order, id.clone());
        }
    }

    fn seen(&mut self, id: &TaskId, phase: Phase, message: Option<String>, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let Some(qpu) = self.settings.qpus.get(&task.qpu) else { return };
        let (cancel, forsaken) = (task.cancel, task.forsaken);
        let unwanted = task.is_unwanted();
        let Some(dialogue) = task.dialogue() else { return };
        dialogue.silent = 0;
        dialogue.refused = 0;
        dialogue.heard = now;
        match phase {
            Phase::Active if unwanted && !dialogue.cancel_told => {
                dialogue.next = Next::Cancel;
                let wait = if dialogue.cancel_tried { dialogue.interval } else { Duration::ZERO };
                dialogue.interval = (dialogue.interval * 3 / 2).min(qpu.poll.1);
                self.table.set_due(id, Some(now + wait));
            }
            Phase::Active => {
                let wait = dialogue.interval;
                dialogue.interval = (wait * 3 / 2).min(qpu.poll.1);
                self.table.set_due(id, Some(now + wait));
            }
            // Nobody will look at what came of it.
            Phase::Completed if forsaken => self.end(id, EndKind::Completed, None, None, now, step),
            Phase::Completed => {
                dialogue.next = Next::Result;
                self.table.set_due(id, Some(now));
            }
            Phase::Failed => {
                let why = message.unwrap_or_else(|| "the vendor says that it failed, and not why".to_owned());
                self.end(id, EndKind::Failed, Some(why), None, now, step);
            }
            Phase::Cancelled => {
                let why = if cancel { message } else { Some(message.unwrap_or("the vendor has ended it".to_owned())) };
                self.end(id, EndKind::Cancelled, why, None, now, step);
            }
        }
    }

    fn cancel_told(&mut self, id: &TaskId, now: Duration) {
        let Some(dialogue) = self.table.get_mut(id).and_then(|task| task.dialogue()) else { return };
        dialogue.cancel_told = true;
        dialogue.silent = 0;
        dialogue.heard = now;
        dialogue.next = Next::Status;
        self.table.set_due(id, Some(now));
    }

    /// There is no answer to a question about a task that the vendor has, or may have.
    fn silent(&mut self, id: &TaskId, question: &Question, fault: &Fault, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id) else { return };
        let give_up = self.settings.qpus.get(&task.qpu).map_or(Duration::MAX, |qpu| qpu.give_up);
        // Where the task is to be cancelled and is not, one looks how it is in between.
        let Some(dialogue) = task.dialogue() else { return };
        if matches!(question, Question::Cancel(_)) {
            dialogue.next = Next::Status;
            dialogue.cancel_tried = true;
        }
        if fault.kind == FaultKind::Refused {
            dialogue.refused += 1;
            if dialogue.refused >= REFUSED_MAX {
                let (kind, what) = match question {
                    Question::Result(_) => (EndKind::Failed, "it is completed, and its result cannot be had"),
                    _ => (EndKind::Lost, "the vendor has taken it and does not know it any more"),
                };
                return self.end(id, kind, Some(format!("{what}: {}", fault.message)), None, now, step);
            }
        }
        dialogue.silent += 1;
        if now.saturating_sub(dialogue.heard) >= give_up {
            let why = format!("for {} s nothing could be heard of it: {}", give_up.as_secs(), fault.message);
            return self.end(id, EndKind::Lost, Some(why), None, now, step);
        }
        let due = now + pause(fault, dialogue.silent);
        self.table.set_due(id, Some(due));
    }

    /// The vendor took nothing: it is left in peace for a while.
    fn strike(&mut self, id: &TaskId, fault: &Fault, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get(id) else { return };
        let Some(machine) = self.machines.get_mut(&task.qpu) else { return };
        // Of several that were on their way, the first one counts.
        if machine.strikes == 0 || machine.pause_until <= now {
            machine.strikes = machine.strikes.saturating_add(1);
            if machine.strikes == TOLD_AT {
                let (qpu, why) = (&task.qpu, &fault.message);
                step.effects.push(Effect::Say(format!("{qpu} takes no tasks, and is tried again: {why}")));
            }
        }
        machine.pause_until = machine.pause_until.max(now + pause(fault, machine.strikes));
        machine.trouble = Some(fault.message.clone());
    }
}

fn something_else() -> Fault {
    let message = "the adapter has answered something else than what it was asked".to_owned();
    Fault { kind: FaultKind::Unknown, retry_after: None, message }
}

/// How long to wait after so many tries in a row.
fn pause(fault: &Fault, tries: u32) -> Duration {
    let growing = Duration::from_secs(1 << tries.saturating_sub(1).min(6)).min(PAUSE_MAX);
    fault.retry_after.map_or(growing, |said| said.clamp(Duration::from_secs(1), RETRY_AFTER_MAX))
}
