//! The lease: what a running job has a quantum machine do for it, as a function. [`Lease::step`] takes an event and the
//! time, and returns facts and effects. The program `qpu-broker` puts the facts on disk and then performs the effects.
//!
//! ```text
//! queued ─► submitting ─────────► running ──────────► completed | failed | cancelled | lost ─► forgotten
//!   ▲       its tag is on disk,   the vendor's id     the result is kept until it was
//!   │       then the vendor is    is on disk          fetched, or for a time
//!   │       asked
//!   └────── it is surely not there: busy, not reached, or looked up and not found
//! ```
//!
//! What holds, whatever dies and whenever:
//! 1. Record before act: the facts of a step are on disk before any of its effects leaves the process.
//! 2. Nothing is paid twice. A task goes to a vendor under one tag, and goes there again only once it is surely not
//!    there. Where nobody can say that, it is `lost`.
//! 3. Nothing is lost that need not be: what the vendor's adapter looks up reliably is found again, or submitted again.
//! 4. One queue for each machine, fair by job: the jobs take turns, and of one job the oldest task goes first. While a
//!    job waits, another one has no more than one task go before for each turn of its own; what the vendor did not take
//!    comes again before that, as much as was in flight.
//! 5. No more tasks are at a vendor than `max_in_flight`, those counted of which nobody knows whether they are there.
//! 6. What comes from a vendor under a tag that is not the task's, or under an id that another task has, is not taken.
//! 7. A task belongs to its job and to nobody else. With the end of the job it is cancelled and forgotten; a client
//!    that goes away ends nothing.
//! 8. Bounded: tasks and bytes of each job and in all. A result that was paid for is kept even beyond that, and then
//!    nothing new is taken.
//!
//! [`Lease::check`] checks the state, [`permitted`] each effect against what is on disk.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `names`, `settings` | machines and tasks by name; what may be at once, and for how long |
//! | `event`, `effect`, `fact` | what happens, what is to be done, and what is remembered on disk |
//! | `lease` | one step; what clients ask |
//! | `dialogue` | a task at its vendor: what is asked next, and what follows from the answer |
//! | `queue`, `table` | whose turn it is; the tasks, with their times and bytes |
//!
//! Out of scope: how any of this is done, clocks and randomness. `now` is the time since the Unix epoch, by a clock
//! that never goes back in the life of one process; between two lives it may.

mod dialogue;
mod effect;
mod event;
mod fact;
mod lease;
mod names;
mod queue;
mod settings;
mod table;

pub use effect::{Ask, Effect, Machine, Question, Refusal, Reply, View, ViewStage, permitted};
pub use event::{Answer, Event, Fault, FaultKind, Phase, RequestId, Submission};
pub use fact::{Book, Entry, Fact, Stage};
pub use lease::{Lease, Step};
pub use names::{InvalidName, QpuName, TaskId};
pub use settings::{Limits, Lookup, Qpu, Settings};
pub use table::{End, EndKind};
