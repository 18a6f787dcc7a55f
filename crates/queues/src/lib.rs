//! Client of the Cloudflare Queues HTTP API: pull, acknowledge, push, look, and make queues.
//!
//! Each call is one request and tells precisely what became of it. Nothing is retried in here: the callers have
//! obligations of different patience, and each error says by its [`protocol::FailureClass`] what a caller may do
//! ([`Backoff`] helps).
//!
//! Out of scope: what a message means (`protocol`), what to do with it (the programs).
//! Invariant: only this crate speaks to the queue API, and nothing in it panics or grows without bound on whatever
//! the other end answers. No token leaves without TLS but to a listener of this user, unless told ([`PlainHttp`]).

mod address;
mod backoff;
mod client;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod manage;
mod plain_http;
mod wire;

pub use address::{Address, UnusableUrl};
pub use backoff::Backoff;
pub use client::{Client, Consumer, Delivery, Pulled, QueueInfo, Settled};
pub use endpoint::{Endpoint, UnusableToken, http_client, is_id};
pub use error::{Error, Fault, transport_text};
pub use plain_http::{PlainHttp, Unsent};
