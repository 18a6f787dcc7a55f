//! Failed requests to the queue service, by what can be done about them.
//!
//! It stands here because the client that meets a failure (`queues`) and the function that decides what follows
//! (`lifecycle`) share nothing else.

use std::time::Duration;

/// What can be done about a request to the queue service that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Nothing will change by itself: credentials, ids, settings. Stop and tell a person.
    Fatal,
    /// The queue has no `http_pull` consumer. One that was just made needs some seconds; later it is a setting.
    PullNotEnabled,
    /// A person has paused the queue: no error, look again now and then.
    Paused,
    /// Too much at once: wait this long, where the service says how long.
    Throttled(Option<Duration>),
    /// The day's allowance is used up: wait long.
    QuotaExhausted,
    /// This one request can never succeed (too large, not valid); others can.
    Refused,
    /// No connection, no answer, a server error or an answer that cannot be read: the request may have been carried
    /// out or not. Try again with growing pauses.
    Unavailable,
}
