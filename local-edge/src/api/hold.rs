//! A pull that is held open until something comes (`protocol::hold`): an extension, and the only operation that waits.
//!
//! Out of scope: the pull itself, which is the store's.
//! Invariants: nothing is leased before it is answered. While a pull waits, no message is held for it: a client that
//! gives up closes its connection, with which this ends, and what comes then goes to others. A server that stops
//! answers at once. Pulls of a queue that wait are answered in the order in which they came: who has just given a
//! message back comes after those who were there before.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use protocol::hold;
use tokio::time::Instant;

use super::ApiError;
use crate::http::header_text;
use crate::server::App;
use crate::store::{Arrival, Pulled, QueueRef};

/// What a pull asks the store for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) queue: QueueRef,
    pub(super) batch_size: Option<u64>,
    pub(super) visibility_timeout_ms: Option<u64>,
}

/// For how long a request asks to be held, and will be.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let asked = header_text(headers, hold::PREFER_HEADER).map(|prefer| hold::asked(&prefer))?;
    Some(asked.min(hold::MAX)).filter(|wait| !wait.is_zero())
}

/// Pulls until there is something, for as long as `wait` at most. The second value is how long it was held.
pub(super) async fn pull(app: &App, ask: Ask, wait: Duration) -> Result<(Pulled, Duration), ApiError> {
    let begun = Instant::now();
    let mut stopping = app.stopping.clone();
    let mut over = pin!(async {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // An error is the end of the server, too.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
    let (mut waits, mut first_in_line) = (true, None);
    loop {
        let (held, asked) = (begun.elapsed(), ask.clone());
        let pulled = app
            .store
            .call(move |registry| registry.pull(&asked.queue, asked.batch_size, asked.visibility_timeout_ms))
            .await?;
        match pulled.next {
            Some(next) if waits => {
                first_in_line = first_in_line.or_else(|| Arc::clone(&next.line).try_acquire_owned().ok());
                tokio::select! {
                    () = arrival(&next), if first_in_line.is_some() => {}
                    // It never closes. What came meanwhile went to those before.
                    turn = Arc::clone(&next.line).acquire_owned(), if first_in_line.is_none() => first_in_line = turn.ok(),
                    // One last look.
                    () = &mut over => waits = false,
                }
            }
            next => return Ok((Pulled { next, ..pulled }, held)),
        }
    }
}

/// Waits until a message may be there.
async fn arrival(next: &Arrival) {
    let (mut changed, after) = (next.changed.clone(), next.after);
    let due = async {
        match after {
            // Never at once: whatever the clocks say, this must not become a loop without a pause.
            Some(after) => tokio::time::sleep(after.max(Duration::from_millis(1))).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // An error: the queue is not what it was. The next pull meets what it is now.
        _ = changed.changed() => {}
        () = due => {}
    }
}

/// Says in the answer to a pull what there is to know: that pulls are held here, and how long this one was.
pub(super) fn announce(response: &mut Response, held: Option<Duration>) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(hold::MAX_HEADER), HeaderValue::from(hold::MAX.as_secs()));
    if let Some(held) = held {
        let milliseconds = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static(hold::HELD_HEADER), HeaderValue::from(milliseconds));
    }
}
