//! The keeper: one process for each `STATE_DIR` that is the parent of all runs and outlives the daemon.
//!
//! ```text
//! STATE_DIR/keeper/
//!   lock          held for as long as the keeper lives
//!   keeper.json   who it is and where it listens
//!   socket        where it listens
//!   journal       which runs were begun, and how they ended
//!   keeper.log    what it has to tell a person
//! ```
//!
//! The daemon tells it over a socket which runs to begin, to end and to forget; it tells the daemon how they ended
//! ([`messages`], carried by [`link`]). A daemon that goes away changes nothing for the runs. The next one connects
//! anew, asks for all runs, and misses nothing ([`client`]); it may be of another build ([`dialect`]). [`server`] is
//! the keeper's process, [`runs`] what it does with its runs, [`roster`] what it knows of them, [`finished`] how an end
//! is written, [`folder`] its files, [`heart`] its sign of life for other daemons.
//!
//! In an allocation of Slurm it is the same process, with a folder below `STATE_DIR/slurm` ([`allocation`]). It is
//! reached over the [`network`], or by nobody where it is there for one run; it stays for as long as its [`tenure`]
//! says, has what its [`surroundings`] give, and sees to its folder by a [`watch`].
//!
//! | what dies | what is known after it |
//! | --- | --- |
//! | the daemon | everything; the keeper goes on |
//! | the keeper | what has ended, from the [`journal`]; the next keeper kills what still runs, and calls it cut off |
//! | the machine | what the disk has kept of the journal, and that it may not be all |
//! | an allocation, or its node | what its journal has, which is on the disk before a run begins; the rest is cut off |
//!
//! Out of scope: what a run is (`run`), what its end means (`job`), what follows from it (`lifecycle`).
//!
//! Invariants: there is one keeper for each `STATE_DIR`, and one for each allocation, whatever Slurm starts twice. A
//! run is begun at most once under its name until it is forgotten. It is in the journal before it is begun. How it
//! ended is kept until the daemon says to forget it.

mod allocation;
mod client;
#[cfg(test)]
mod compat;
mod dialect;
mod finished;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod heart;
mod journal;
mod link;
mod messages;
mod network;
mod roster;
mod runs;
mod server;
mod surroundings;
mod tenure;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use allocation::{Beat, Look, Order, end_run, left, look, stop};
pub(crate) use client::{Keeper, Said};
pub(crate) use messages::{NotBegun, Settings};
pub(crate) use server::{serve, serve_allocation};
