//! The files of a job, and one attempt at it from claim to record.
//!
//! ```text
//! RESULTS_DIR/
//!   <job_id>/          the job directory, /work in the container
//!     input.json       what the task works on
//!     output.json      what it leaves behind
//!     stdout.log stderr.log
//!     meta.json        which attempt this is, where and when
//!   <job_id>.json      the final record: the bytes of the published result, written last and whole
//!   _rejected/         messages that were no jobs, and records that could not be read
//! ```
//!
//! [`files`] knows these names and nobody else does; [`output`] reads what a stranger's program wrote; [`attempt`]
//! goes through one attempt. Out of scope: processes (`run`), the queue (`daemon`).

pub(crate) mod attempt;
pub(crate) mod files;
mod output;
