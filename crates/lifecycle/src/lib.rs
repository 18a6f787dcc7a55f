//! The life of a job on the cluster, as a function: [`Lifecycle::step`] takes an event and the time, and returns the
//! effects that the daemon is to carry out. Each effect ends in an event, and so on.
//!
//! ```text
//! Delivered ──► Running ──► Ending ──► Recorded ──► Published ──► forgotten
//!     │            │          │           publish      acknowledge
//!     │            └──────────┴─► given back with a delay (the node failed, not the job)
//!     └─► rejected: Recorded, or stored aside when it has no id
//! ```
//!
//! What holds in every state, and is checked by [`Lifecycle::check`]:
//! 1. No more jobs run than there are slots, and no more messages are asked for than there are free slots. A slot is
//!    free when the processes of its job are gone: the next job need not wait for the disk to take a record.
//! 2. A delivery is acknowledged only after its job's result was published, or when it holds no job at all.
//! 3. A job that is held is not run a second time: a further delivery of it only adds a lease to be settled.
//! 4. While the node is broken nothing is pulled, and the jobs that it could not run go back with a delay.
//! 5. On drain nothing is pulled, what runs goes on, and what is owed is still published.
//!
//! Out of scope: how any of this is done, clocks and randomness. `now` is the time since the daemon's start by a clock
//! that never goes back. If the process dies in the middle, the queue still has every message that was not
//! acknowledged, and the record on disk of each finished job keeps it from running again.

mod event;
mod pauses;
mod state;

pub use event::{Delivery, Effect, Event, Failure, Notice, RunEnd};
pub use state::{Lifecycle, Settings};
