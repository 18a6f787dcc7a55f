//! What must be on disk before what: the facts of many steps become one transaction, and their effects wait for it.
//!
//! Invariant: no effect begins before the facts of its step, and of all steps before it, are on disk. The one exception
//! is a start whose launch is there already: it waits for nothing else, because a slot is empty.

use std::collections::BTreeSet;

use crate::event::{Effect, Run};
use crate::fact::Fact;
use crate::state::Step;

/// Facts that are not on their way to the disk yet, and effects that wait for them.
#[derive(Debug, Default)]
pub struct Pending {
    next: Step,
    /// Runs whose launch is not on disk yet.
    launching: BTreeSet<Run>,
}

/// What is written at once, and what follows then.
#[derive(Debug, Default)]
pub struct Batch {
    /// What is to be on disk, in order.
    pub facts: Vec<Fact>,
    /// What to do then, in order; at once if there are no facts.
    pub effects: Vec<Effect>,
    launched: Vec<Run>,
}

impl Pending {
    /// Takes the next step in. Returns the runs that may begin at once.
    pub fn add(&mut self, step: Step) -> Vec<Run> {
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

    /// Is there something to write?
    pub fn has_facts(&self) -> bool {
        !self.next.facts.is_empty()
    }

    /// The next transaction.
    pub fn take(&mut self) -> Batch {
        let Step { facts, effects } = std::mem::take(&mut self.next);
        let launched = facts.iter().filter_map(launched).collect();
        Batch { facts, effects, launched }
    }

    /// The facts of this batch are on disk: returns its effects, which may begin now.
    pub fn written(&mut self, batch: Batch) -> Vec<Effect> {
        for run in &batch.launched {
            self.launching.remove(run);
        }
        batch.effects
    }
}

fn launched(fact: &Fact) -> Option<Run> {
    match fact {
        Fact::Launching(job_id, attempt) => Some(Run { job_id: job_id.clone(), attempt: *attempt }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> Run {
        Run { job_id: id.parse().unwrap(), attempt: 1 }
    }

    fn launch(id: &str) -> Fact {
        Fact::Launching(id.parse().unwrap(), 1)
    }

    fn step(facts: Vec<Fact>, effects: Vec<Effect>) -> Step {
        Step { facts, effects }
    }

    #[test]
    fn a_start_waits_for_its_own_launch_and_for_nothing_else() {
        let mut pending = Pending::default();
        // The launch and the start in one step, in two steps of one transaction, and over several transactions.
        assert_eq!(pending.add(step(vec![launch("j1")], vec![Effect::Start(run("j1"))])), []);
        assert_eq!(pending.add(step(vec![launch("j2"), launch("j3")], vec![])), []);
        assert_eq!(pending.add(step(vec![], vec![Effect::Start(run("j2"))])), []);
        let first = pending.take();
        assert_eq!(pending.add(step(vec![], vec![Effect::Start(run("j3"))])), [], "its launch is still on its way");
        assert_eq!(pending.take().effects, [Effect::Start(run("j3"))]);
        assert_eq!(pending.written(first), [Effect::Start(run("j1")), Effect::Start(run("j2"))]);
        assert_eq!(pending.add(step(vec![launch("j4")], vec![Effect::Start(run("j3")), Effect::Observe])), [run("j3")]);
        assert_eq!(pending.take().effects, [Effect::Observe]);
    }

    #[test]
    fn what_was_added_while_facts_were_written_is_not_taken_for_written() {
        let mut pending = Pending::default();
        pending.add(step(vec![launch("j1")], vec![]));
        let first = pending.take();
        pending.add(step(vec![launch("j2")], vec![]));
        pending.written(first);
        assert_eq!(pending.add(step(vec![], vec![Effect::Start(run("j2")), Effect::Start(run("j1"))])), [run("j1")]);
    }
}
