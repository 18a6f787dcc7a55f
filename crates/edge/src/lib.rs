//! What the edge decides, as functions that return values and perform nothing.
//!
//! Two programs put a shell around this crate: `producer-worker` (a Cloudflare Worker) and `local-edge`. Each reads a
//! request, asks here, and does as it is told, so that the two cannot differ in an answer:
//!
//! ```text
//! Head ──route──► Answer(Response)
//!         └─────► ReadBody(Admission) ──admit──► Answer(Response)
//!                                        └─────► Enqueue(Pending) ──sent──► Sent::Answer(Response)
//!                                                   ▲         └──refused──► Answer(Response)
//!                                                   └── RetryAfter(Duration) ┘
//!         ├─────► Hub(Opening) ──with_body──► hub::Request ──Hub::handle──► hub::Effect…
//!         └─────► Link: a WebSocket, whose messages go to Hub::handle as well
//! ```
//!
//! Out of scope: HTTP itself, the queue itself, clocks, randomness and storage.
//! Invariant: only [`Pending::sent`] makes a `202`, so no job is answered `202` that is not in the queue.

mod admission;
mod auth;
mod callback;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hub;
mod noetl;
#[cfg(test)]
mod openapi;
mod problem;
mod route;

pub use admission::{Admission, Decision, Next, Pending, Refusal, Sent};
pub use auth::Secret;
pub use callback::{Callbacks, InvalidSecret, SigningSecret, Target, is_public};
pub use noetl::Waiting;
pub use problem::Problem;
pub use protocol::{JOBS_QUEUE, RESULTS_QUEUE};
pub use route::{Config, Head, Response, Route, route};
