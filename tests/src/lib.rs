//! The testkit: real programs, started as a user starts them, and looked at from the outside.
//!
//! A test starts an [`Edge`] (`local-edge`), a [`Consumer`] (`hpc-consumer`) and a [`Laptop`] (`laptop-consumer`), each
//! in a directory of its own, on free ports and with a clean environment, and then looks at files, queues and answers.
//! What is not ours (Apptainer, workerd, the official clients) comes from [`parts`]; a real cluster is in [`slurm`].
//!
//! [`Cloudflare`] is what the real service says of accounts, tokens and queues, which `local-edge` has no plan for.
//!
//! A [`Ledger`] counts the runs of jobs from outside, and [`chaos`] kills programs at random and counts at the end.
//!
//! Out of scope: expectations; they stand in the tests. A [`Front`] refuses requests on demand and passes on the rest,
//! so that even trouble is tested against the real server.
//! Invariants: nothing here sleeps but what waits, with a bound, and [`chaos`], which sleeps to strike at any moment; a
//! part that is missing is a failure; every process that was started ends with the value that stands for it.

pub mod chaos;
mod cloudflare;
mod consumer;
mod edge;
pub mod files;
mod front;
pub mod http;
mod image;
mod laptop;
mod ledger;
pub mod parts;
mod process;
mod registry;
pub mod slurm;
mod store;
mod vendor;
pub mod vm;
mod wait;
mod worker;

pub use cloudflare::{Cloudflare, Permission, Plan};
pub use consumer::{Consumer, SCRIPT};
pub use edge::{Edge, Producer, Queue};
pub use front::{Front, Refusal};
pub use image::{build_image, compile, compile_shared, compile_with};
pub use laptop::{Laptop, Said, Spoken};
pub use ledger::{Instance, Ledger, Noted, Runs, allocation_number};
pub use process::{Process, command, is_alive, signal, words_of};
pub use registry::Registry;
pub use store::ObjectStore;
pub use vendor::{Vendor, files_with, write_private};
pub use wait::{wait_for, wait_until};
pub use worker::Worker;

/// How long a test waits for what needs some moments on an idle machine. Generous, because a machine may be busy; it
/// is only ever waited out by a test that fails.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
