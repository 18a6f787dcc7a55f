//! The life of a job on the cluster, as a function: [`Lifecycle::step`] takes an event and the time, and returns facts
//! and effects. The daemon puts the facts on disk and then performs the effects; each effect ends in an event, and so
//! on.
//!
//! ```text
//! delivered ─► waiting ─► claiming ─► ready ─► running ─► ending ─► recorded ─► published, acknowledged, forgotten
//!              accepted   exclusive   launch   started    exit      result      (its id is remembered)
//!              (a fact)   claim       intended            known     (a fact)
//!                                     (a fact)
//! ```
//!
//! What holds, whatever dies and whenever:
//! 1. Record before act: the facts of a step are on disk before any of its effects leaves the process; a start waits
//!    only for its own launch (see [`Driver`]).
//! 2. A delivery is acknowledged when its result was published, or shortly before its lease would lapse. From its
//!    acceptance on the job is ours in either case, whatever the queue forgets.
//! 3. A job that is held or has ended does not run again: a further delivery only adds a lease to be settled. On a
//!    shared file system the claim of the job directory decides between daemons.
//! 4. Every run can be found again: a launch is recorded with its name before it is begun, and the executor, which
//!    outlives the daemon, tells what became of it.
//! 5. What cannot be known is said to be `lost`; it is never guessed.
//! 6. One final result per job: once recorded, the same bytes are published on every try.
//! 7. Output is complete and synced before the end is recorded: a job is `ending` until then.
//! 8. While a pool is broken nothing is pulled for it or started in it; a job that the node failed goes back with a
//!    delay, or waits here. The other pools go on.
//! 9. No more runs than a pool has room for, no GPU has two, and no more is pulled than what will find room soon (see
//!    [`AHEAD`]); what comes for a full pool waits, as many as the pool holds, and what is beyond goes back with a
//!    delay. What was not started goes back at once on drain.
//! 10. No job runs without its files: between waiting and claiming they are staged, for each attempt. A job with
//!     outputs has its record once these are uploaded, between ending and recorded. Neither takes a slot, and a store
//!     that is away holds up nothing else.
//! 11. A job may leave children behind: then it is parked, in no slot, until they have ended, and begins its next
//!     round. The parent judges them, and none outlives it for long. Only the result of the job at the top is
//!     published.
//!
//! 12. A job that needs services waits for them in no slot, and never runs without a place in a ready instance of each.
//!     No instance has more users than places, and one that nobody needs ends. Its end is no fault of its users.
//!
//! [`Lifecycle::check`] checks the state after each step, [`permitted`] each effect against what is on disk. The
//! [`Driver`] is the loop around it: the daemon and the simulation, which goes through crashes before and after every
//! effect, run the same one.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `event`, `effect`, `run` | the closed lists of events and effects, and what they speak of |
//! | `fact` | what is remembered on disk, and what each fact means |
//! | `driver` | which effects wait for which facts, and in which order all leaves |
//! | `lifecycle` | one step, and all that is possible after it |
//! | `phases`, `table` | the phases of a job and the changes between them; the jobs that are held |
//! | `lane` | the orders of the jobs of one pool, and what they use of it |
//! | `intake`, `publisher` with `suspects`, `settler` | when the queue is asked, what is pushed, what is settled |
//! | `pools`, `pool`, `refusal` | which pool takes a job; the health of each; jobs that none takes |
//! | `executor`, `shutdown` | who holds the runs; the end of the daemon |
//! | `thrift` | what the queues may cost a day, and what of it is owed |
//! | `requests` | requests of one kind, and how long to wait before the next try |
//! | `delivery`, `results` | what comes from the queue, and what goes to it |
//! | `execution`, `trouble`, `returning`, `leaving` | runs; what the node fails; jobs that go back; the ways out |
//! | `transfers` | files that a job needs before it can begin, and outputs that its end waits for |
//! | `report`, `reporter` | what there is to say of jobs and pools; what of it the hub was told, and what is to be |
//! | `parking` | jobs that wait for other jobs, and their next rounds |
//! | `services`, `needs` | instances of services, and how many there are; jobs that need them, and their places |
//! | `unfolding` | jobs that are graphs of others |
//! | `cancel` | jobs that a person does not want any more |
//! | `blame` | whose the end of a run was: the task's, or the node's |
//! | `disk` | a disk that is full when a run is over, and whether the job filled it |
//! | `audit` | what must be on disk for an effect to leave the process |
//!
//! Out of scope: how any of this is done, clocks and randomness. `now` is the time since the Unix epoch, by a clock
//! that never goes back in the life of one process; between two lives it may.

mod audit;
mod blame;
mod cancel;
mod delivery;
mod disk;
mod driver;
mod effect;
mod event;
mod execution;
mod executor;
mod fact;
mod intake;
mod lane;
mod leaving;
mod lifecycle;
mod needs;
mod parking;
mod phases;
mod pool;
mod pools;
mod publisher;
mod refusal;
mod report;
mod reporter;
mod requests;
mod results;
mod returning;
mod run;
mod services;
mod settler;
mod shutdown;
mod suspects;
mod table;
mod thrift;
mod transfers;
mod trouble;
mod unfolding;

pub use audit::permitted;
pub use blame::{Blame, Evidence, blame};
pub use disk::Share;
pub use driver::{Driver, Output};
pub use effect::{Effect, Fatal, Notice, Round};
pub use event::{
    Claimed, Concluded, Delivery, Ending, Event, Failure, FilledDisk, Problem, Pulled, Recalled, Room, Staged, Uploaded,
};
pub use fact::{Book, Entry, Fact, Failures, Launched, Lease, Origin, Parent, Parking, Stage, Terms};
pub use lifecycle::{Lifecycle, PoolState, Settings, Step};
pub use phases::{Phase, TRANSITIONS, diagram};
pub use pool::AHEAD;
pub use report::EndedChildren;
pub use reporter::Reporter;
pub use run::{Attempt, EndReason, Finished, Observation, Run, RunEnd, Sighting};
pub use services::{InstanceState, ServiceState};
pub use table::{Change, Changes};
pub use thrift::Expenses;
pub use unfolding::Unfolded;
