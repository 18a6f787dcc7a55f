//! What a site runs, and where: its file, and from a job to the plan of its run.
//!
//! In scope: the file `site.toml`, with everything that is wrong in it told at once; which pool takes a job, and by
//! which rule; with which image, command, limits and resources it runs there; and what of a pool is in use.
//! Out of scope: reading the file, and whether an image or a secret is there (the shell looks, and is told the place in
//! the file of each); which allocations there are (`scaling`); and running anything.
//!
//! Invariants: no file, clock, environment or randomness. No secret's value ever gets in here, only its name and the
//! path of its file. The same job and the same site give the same plan.

mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod init;
mod pattern;
mod plan;
mod problem;
mod read;
mod reference;
mod resources;
mod route;
mod settings;
mod together;
mod types;

pub use file::{Need, Needed, Notice, SiteFile, bind_source};
pub use pattern::{InvalidPattern, Pattern};
pub use plan::{Because, Explanation, Limits, Plan};
pub use problem::{Position, Problem, Problems};
pub use reference::{Reference, Which, is_digest};
pub use resources::{Capacity, Grant, Held, InUse, Resources, Shortage};
pub use route::{Refusal, Route, Rule};
pub use settings::Settings;
pub use together::{Together, TooMuch};
pub use types::{
    Defaults, Image, Lease, Pool, Quota, Ready, Runtime, Secret, Service, Site, Slot, Slurm, Task, TaskKind, Where,
    Workers,
};
