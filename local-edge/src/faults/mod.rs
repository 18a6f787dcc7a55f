//! Faults on demand: what goes wrong between programs and a queue service, made to go wrong here, as a plan says and
//! as often, so that the others can be tested against it. Only `serve --faults` makes a [`Faults`]; without one, none
//! of this runs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `plan` | the plan, as `PUT /faults` takes it |
//! | `kind` | what can go wrong, and with which requests |
//! | `dice` | what the plan comes to, request by request, by its seed |
//! | `prng` | its numbers |
//! | `layer` | the hook around every operation |
//! | `control` | `/faults`: set a plan, look at the counts, take it away |
//!
//! The hook in the store is at the transaction ([`Faults::clock_offset`], [`Faults::fills_disk`]) and at the pull
//! ([`Faults::choose`]).
//!
//! Invariant: a fault is one that a network or a service can have. What is answered as done is done, what is answered
//! as not done is not, and the disk and the models agree.

mod control;
mod dice;
mod kind;
mod layer;
mod plan;
mod prng;

use std::sync::{Mutex, MutexGuard, PoisonError};

use leased_queue::{Candidates, Millis, Seq};

use dice::{Dice, Verdict};
use plan::Plan;

pub(crate) use control::router;
pub(crate) use kind::Operation;
pub(crate) use layer::disturbed;

/// The plan in force, shared by the threads of HTTP and of the store.
pub(crate) struct Faults(Mutex<Dice>);

impl Faults {
    /// Without a plan, which is without a fault.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Dice::new()))
    }

    /// How far the server's clock is ahead of the machine's.
    pub(crate) fn clock_offset(&self) -> Millis {
        self.dice().clock_offset()
    }

    /// Is it for the plan to say what pulls deliver?
    pub(crate) fn disturbs_deliveries(&self) -> bool {
        self.dice().disturbs_deliveries()
    }

    /// What a pull delivers.
    pub(crate) fn choose(&self, candidates: &Candidates) -> Vec<Seq> {
        self.dice().deliveries(candidates)
    }

    /// Does a transaction that has written find the disk full?
    pub(crate) fn fills_disk(&self) -> bool {
        self.dice().fills_disk()
    }

    fn request(&self, operation: Operation) -> Verdict {
        self.dice().request(operation)
    }

    fn set(&self, plan: Option<Plan>) {
        self.dice().set(plan);
    }

    fn report(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.dice().report())
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        // Every change is whole when a panic could come.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
