//! What every program of a user does: submit jobs, pull their results, keep them in an inbox, wait for them, and ask
//! the hub about them.
//!
//! ```text
//! submit ──POST──► edge            queue hpc-results ──pull──► inbox (on disk, synced) ──ack──► the program
//! ```
//!
//! Out of scope: commands, settings, what is printed, exit codes (the programs); what a job is (`protocol`); requests
//! to the queue (`queues`).
//!
//! Invariants: a message is acknowledged only after it is on disk ([`Receiver`], [`Inbox`]); nothing here prints or
//! reads the environment; every wait has a bound or can be ended between two steps.

pub mod download;
mod error;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hub;
pub mod inbox;
pub mod many;
pub mod names;
mod pace;
pub mod poll;
pub mod receive;
mod spent;
pub mod submit;
mod turn;
pub mod upload;
mod waiting;
mod watch;

pub use error::{Error, Remedy};
pub use follow::Follower;
pub use inbox::{Arrived, Inbox};
pub use poll::{Patience, Troubles};
pub use receive::{Received, Receiver, ResultsQueue};
pub use submit::{Queued, Taken, submit, submit_batch};
pub use transfer::Edge;
pub use waiting::{Came, Waiting, take_arrived};
pub use watch::Watch;
