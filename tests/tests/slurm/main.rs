//! A real Slurm: what it says is read as it is meant, and what it is asked it understands, in each version there is;
//! and pools that live in it.

#![allow(clippy::unwrap_used)]

mod allocation;
mod cancel;
mod commands;
mod daemon;
mod ends;
mod jobs;
mod pools;
mod submissions;
mod unreached;
