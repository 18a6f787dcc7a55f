//! How many allocations each pool should have, and why.
//!
//! A decision is a function of a [`Snapshot`] and of nothing else, so that it can be written down, made again, and
//! explained: each number comes with its [`Why`], which is a sentence for a person.
//!
//! ```text
//! cap   never more than the own backlog can fill, nor than the pool's maximum
//! want  the minimum; then one for each pool with a backlog, longest waiting first; then one by one to the pool with
//!       the most work for what it has (D'Hondt), as far as the quota goes
//! start what is wanted and not there, as many as may be pending, as far as the quota goes beside all that is there
//! stop  idle workers only: after their time, or at once while another pool wants what the quota no longer has
//! place a job where the time left is enough, in the fullest worker, so that others can empty
//! ```
//!
//! Why these and not shares of the quota in proportion to queue lengths: those ask for all of the quota for the last
//! job of all, and let idle workers starve others.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `snapshot` | what a decision is made of |
//! | `decide` | the rule |
//! | `why` | its reasons, in words |
//! | `log` | decisions with what they were made of, to be made again |
//! | `place` | which worker a job goes to |
//! | `trace` | a workflow as WfCommons write it |
//! | `simulate` | the rule played against a trace, in virtual time |
//!
//! Out of scope: asking for allocations and ending workers, clocks, files.
//!
//! Invariants: no more is started than the quota has room for beside all that is there; a worker with a job is never
//! stopped; a pool never wants more than its maximum or than its backlog fills, but for its minimum.

mod decide;
mod log;
mod place;
mod simulate;
mod snapshot;
mod trace;
mod why;

pub use decide::{Decision, PoolDecision, decide};
pub use log::{Difference, Logged};
pub use place::{Room, place};
pub use simulate::{Outcome, PoolShape, Simulation};
pub use snapshot::{Amount, History, PoolState, Quota, Snapshot, Worker};
pub use trace::{InvalidTrace, Task, Trace};
pub use why::{Pause, Why};
