//! What Slurm says, read; what it is asked, written.
//!
//! In scope: the arguments and the script of a submission, and what its answer means; which columns are asked for, and
//! their rows; how an allocation ended, and what that says of the runs that were cut off in it.
//! And all allocations of a daemon with the runs in them, as a state machine.
//! Out of scope: starting `sbatch`, `squeue`, `sacct` and `scancel`, clocks, and how many allocations there should be.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `command` | what became of a program of Slurm |
//! | `request` | what `sbatch` is given |
//! | `answer` | what `sbatch` said: was it submitted? |
//! | `listing` | what `squeue`, `sacct` and `scontrol` are asked, and their rows |
//! | `spent` | what the accounting says that jobs have used |
//! | `state` | the states of a job, and its exit code |
//! | `reason` | why a job waits, in words |
//! | `blame` | how an allocation ended |
//! | [`fleet`] | all allocations and the runs in them |
//!
//! Invariants: text columns with formats of our own, never the default columns nor JSON, whose form differs from
//! version to version. What cannot be read is kept as it is, and nothing is concluded from it: an unknown state is that
//! of a job that is there, and an answer that failed is not an answer that names no jobs. No secret gets in here.

mod answer;
mod blame;
mod command;
pub mod fleet;
mod listing;
mod reason;
mod request;
mod spent;
mod state;

pub use answer::{Answer, Submitted};
pub use blame::{AllocationEnd, Ending};
pub use command::{Ended, Output};
pub use listing::{
    Accounted, Listed, Listing, NoAnswer, NoRecords, Row, Shown, cancel_arguments, queue_arguments, record_arguments,
    show_arguments,
};
pub use reason::{Hopeless, Reason};
pub use request::{Element, Request, Shape};
pub use spent::{Spent, usage_arguments};
pub use state::{ExitCode, State};
