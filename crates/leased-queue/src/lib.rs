//! The model of one leased queue: what Cloudflare Queues does with a message, as a value.
//!
//! A [`Queue`] knows the metadata of each message: when it was published, how large it is, how often it was delivered
//! and until when it is out of sight. Bodies, names and ids of queues are the owner's. Every operation takes the time
//! as an argument and appends [`Fact`]s: what the owner must have on disk before it answers. Nothing else changes a
//! queue, so [`Queue::restore`] from the stored messages gives the same queue again; the tests replay every history
//! in this way.
//!
//! ```text
//!            push                pull                      ack
//!   (nothing) ──► waiting until visible ──► leased until … ──► (nothing)
//!                   ▲                          │
//!                   └── retry, or lease lapsed ┴──► dead letter queue, or (nothing), after max_retries + 1 deliveries
//! ```
//!
//! Where the service's documents leave a question open, the answer is at the operation that gives it, and in
//! `docs/local-edge.md`.
//!
//! Out of scope: bodies, storage, HTTP, several queues. No clock and no randomness: both are arguments.

mod chosen;
mod handle;
mod message;
mod model;
mod refused;
mod settings;

#[cfg(test)]
mod history;
#[cfg(test)]
mod tests;

pub use chosen::Candidates;
pub use handle::{Handle, InvalidHandle, MessageId};
pub use message::{Fact, Message, Metrics, NewMessage, Removal, Retry, Settled, Warning};
pub use model::Queue;
pub use refused::Refused;
pub use settings::{Consumer, Settings};

/// Milliseconds since the Unix epoch, as the service counts time.
pub type Millis = i64;

/// The number of a message. The owner gives it, ever increasing over all of its queues: it orders messages, and a
/// message that moves to another queue gets a new one.
pub type Seq = i64;

/// The most that one queue holds, in bytes of bodies.
pub const BACKLOG_BYTES_MAX: u64 = 25_000_000_000;
