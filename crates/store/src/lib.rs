//! One owner of a SQLite file.
//!
//! ```text
//! open, look   a file that is refused is as it was (`opening`); tables of an earlier version are brought to the newest
//! Sqlite       the file, once it is open: statements, and one transaction for much work
//! Store        a thread that owns it, and work for it from anywhere (`owner`)
//! ```
//!
//! It is not: tables, statements and rows. Each program has its own.
//!
//! Guarded: who is answered that something is done can rely on it, whatever dies after that: each commit is on the
//! medium. Only one process has a file open, and nobody writes to one that a newer program wrote.

mod opening;
mod owner;
mod problem;
mod sqlite;

#[cfg(test)]
mod tests;

pub use opening::{File, Opened, Schema, look, open};
pub use owner::{Answer, Error, Options, Owned, Pace, Store, Thread};
pub use problem::Problem;
pub use sqlite::Sqlite;
