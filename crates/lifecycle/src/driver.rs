//! The loop around [`Lifecycle`]: events in, and out what is to be put on disk and what is to be done, in the one order
//! in which both may leave. It performs nothing, so the daemon and the simulation run the same.
//!
//! While many jobs wait for a slot, transactions begin some time apart: what ends meanwhile is written with the next
//! one, and to write is a good part of what a short job costs. What is to run next is claimed ahead, and ready by then.
//!
//! Invariant: no effect leaves before the facts of its step, and of all steps before it, are on disk. The one exception
//! is a start whose launch is there already: it waits for nothing else, because a slot is empty.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::{Changes, Effect, EndedChildren, Event, Fact, Lifecycle, Run, Step};

/// How far transactions are apart while many jobs wait.
const COMMITS_APART: Duration = Duration::from_millis(3);

/// How many wait then, at least. With fewer, what one of them waits for is what counts.
const MANY: usize = 32;

/// What leaves the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Put these on disk, all or none, and then say [`Driver::committed`]. There is one at a time.
    Commit(Vec<Fact>),
    /// Do this. It ends in an event.
    Perform(Effect),
}

/// A [`Lifecycle`], and what waits to leave it.
#[derive(Debug)]
pub struct Driver {
    lifecycle: Lifecycle,
    order: Order,
    commit: Option<Commit>,
    /// When the last one began.
    began: Option<Duration>,
    ready: VecDeque<Effect>,
}

impl Driver {
    /// Drives this lifecycle from here on.
    pub fn new(lifecycle: Lifecycle) -> Self {
        Self { lifecycle, order: Order::default(), commit: None, began: None, ready: VecDeque::new() }
    }

    /// Something has happened. All that has is told before [`Self::next_output`] is asked: the facts of many events
    /// become one transaction.
    pub fn handle(&mut self, event: Event, now: Duration) {
        self.handle_watched(event, now, |_, _| {});
    }

    /// The same, and shows what followed before any of it leaves.
    pub fn handle_watched(&mut self, event: Event, now: Duration, watch: impl FnOnce(&Lifecycle, &Step)) {
        let step = self.lifecycle.step(event, now);
        watch(&self.lifecycle, &step);
        let starts = self.order.add(step);
        self.ready.extend(starts.into_iter().map(Effect::Start));
    }

    /// What leaves next, or nothing until something else happens or [`Self::wake_at`] has come.
    pub fn next_output(&mut self, now: Duration) -> Option<Output> {
        if let Some(effect) = self.ready.pop_front() {
            return Some(Output::Perform(effect));
        }
        let is_early = || self.commit_due().is_some_and(|(began, due)| began <= now && now < due);
        if self.commit.is_some() || is_early() {
            return None;
        }
        let Step { facts, effects } = self.order.take();
        if facts.is_empty() {
            self.ready.extend(in_order(effects));
            return self.ready.pop_front().map(Output::Perform);
        }
        self.began = Some(now);
        self.commit = Some(Commit { launched: facts.iter().filter_map(launched).collect(), effects });
        Some(Output::Commit(facts))
    }

    /// When to say [`Event::Tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let due = self.commit_due().filter(|_| self.commit.is_none()).map(|(_, due)| due);
        due.into_iter().chain(self.lifecycle.wake_at()).min()
    }

    /// When the last transaction began and the next one may, if there is one to come and it has to wait.
    fn commit_due(&self) -> Option<(Duration, Duration)> {
        let began = self.began.filter(|_| !self.order.next.facts.is_empty())?;
        let wait = self.lifecycle.held().saturating_sub(self.lifecycle.running());
        (wait >= MANY).then_some((began, began + COMMITS_APART))
    }

    /// The facts of the last [`Output::Commit`] are on disk.
    pub fn committed(&mut self) {
        let Some(Commit { launched, effects }) = self.commit.take() else { return };
        self.order.are_on_disk(&launched);
        self.ready.extend(in_order(effects));
    }

    /// Is every fact on disk?
    pub fn is_settled(&self) -> bool {
        self.commit.is_none() && self.order.next.facts.is_empty()
    }

    /// What has become of jobs since this was asked last, from the first time on: what came before is in
    /// [`Self::lifecycle`].
    pub fn take_changes(&mut self) -> Changes {
        self.lifecycle.take_changes()
    }

    /// The same of children whose records are among these facts.
    pub fn take_ended(&mut self, facts: &[Fact]) -> EndedChildren {
        self.lifecycle.take_ended(facts)
    }

    /// The state.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }
}

/// Facts on their way to the disk, and what follows once they are there.
#[derive(Debug)]
struct Commit {
    launched: Vec<Run>,
    effects: Vec<Effect>,
}

/// Facts that are not on their way to the disk yet, and effects that wait for them.
#[derive(Debug, Default)]
struct Order {
    next: Step,
    /// Runs whose launch is not on disk yet.
    launching: BTreeSet<Run>,
}

impl Order {
    /// Takes the next step in. Returns the runs that may begin at once.
    fn add(&mut self, step: Step) -> Vec<Run> {
        let Step { facts, effects } = step;
        self.launching.extend(facts.iter().filter_map(launched));
        self.next.facts.extend(facts);
        let mut starts = Vec::new();
        for effect in effects {
            match effect {
                Effect::Start(run) if !self.launching.contains(&run) => starts.push(run),
                effect => self.next.effects.push(effect),
            }
        }
        starts
    }

    fn take(&mut self) -> Step {
        std::mem::take(&mut self.next)
    }

    fn are_on_disk(&mut self, launched: &[Run]) {
        for run in launched {
            self.launching.remove(run);
        }
    }
}

/// Effects of several steps as they leave: what is forgotten in one message and after all else, because the executor is
/// to hear first what is urgent; the end of the daemon last.
fn in_order(effects: Vec<Effect>) -> impl Iterator<Item = Effect> {
    let mut forgotten = Vec::new();
    let mut end = None;
    let mut others = Vec::new();
    for effect in effects {
        match effect {
            Effect::Forget(runs) => forgotten.extend(runs),
            Effect::Exit | Effect::Fail(_) => end = Some(effect),
            effect => others.push(effect),
        }
    }
    let forget = (!forgotten.is_empty()).then_some(Effect::Forget(forgotten));
    others.into_iter().chain(forget).chain(end)
}

fn launched(fact: &Fact) -> Option<Run> {
    match fact {
        Fact::Launching(job_id, attempt, _) => Some(Run { job_id: job_id.clone(), attempt: *attempt }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Attempt, Launched};

    fn run(id: &str) -> Run {
        Run { job_id: id.parse().unwrap(), attempt: Attempt::FIRST }
    }

    fn launch(id: &str) -> Fact {
        let launched = Launched { pool: None, grant: site::Grant::default(), services: BTreeMap::new() };
        Fact::Launching(id.parse().unwrap(), Attempt::FIRST, launched)
    }

    fn step(facts: Vec<Fact>, effects: Vec<Effect>) -> Step {
        Step { facts, effects }
    }

    #[test]
    fn a_start_waits_for_its_own_launch_and_for_nothing_else() {
        let mut order = Order::default();
        // The launch and the start in one step, in two steps of one transaction, and over several transactions.
        assert_eq!(order.add(step(vec![launch("j1")], vec![Effect::Start(run("j1"))])), []);
        assert_eq!(order.add(step(vec![launch("j2"), launch("j3")], vec![])), []);
        assert_eq!(order.add(step(vec![], vec![Effect::Start(run("j2"))])), []);
        assert_eq!(order.take().effects, [Effect::Start(run("j1")), Effect::Start(run("j2"))]);
        assert_eq!(order.add(step(vec![], vec![Effect::Start(run("j3"))])), [], "its launch is still on its way");
        assert_eq!(order.take().effects, [Effect::Start(run("j3"))]);
        order.are_on_disk(&[run("j1"), run("j2"), run("j3")]);
        assert_eq!(order.add(step(vec![launch("j4")], vec![Effect::Start(run("j3")), Effect::Observe])), [run("j3")]);
        assert_eq!(order.take().effects, [Effect::Observe]);
    }

    #[test]
    fn what_was_added_while_facts_were_written_is_not_taken_for_written() {
        let mut order = Order::default();
        order.add(step(vec![launch("j1")], vec![]));
        order.take();
        order.add(step(vec![launch("j2")], vec![]));
        order.are_on_disk(&[run("j1")]);
        assert_eq!(order.add(step(vec![], vec![Effect::Start(run("j2")), Effect::Start(run("j1"))])), [run("j1")]);
    }

    #[test]
    fn what_is_forgotten_leaves_at_once_and_the_end_comes_last() {
        let effects = vec![
            Effect::Exit,
            Effect::Forget(vec![run("j1")]),
            Effect::Start(run("j3")),
            Effect::Forget(vec![run("j2")]),
        ];
        let forgotten = Effect::Forget(vec![run("j1"), run("j2")]);
        let ordered: Vec<Effect> = in_order(effects).collect();
        assert_eq!(ordered, [Effect::Start(run("j3")), forgotten, Effect::Exit]);
    }
}
