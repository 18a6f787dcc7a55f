//! The part of a message that the model of a queue does not know: its body, and what that is.

use std::sync::Arc;
use std::time::Duration;

use leased_queue::{Message, Metrics};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use tokio::sync::{Semaphore, watch};

/// What a body is, as its producer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentType {
    /// UTF-8 text.
    Text,
    /// A JSON text.
    Json,
    /// Any bytes.
    Bytes,
    /// A value in V8's own serialization, which only Workers can read.
    V8,
}

impl ContentType {
    /// As it stands in requests, answers and on disk.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Bytes => "bytes",
            Self::V8 => "v8",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Json, Self::Bytes, Self::V8].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The HTTP API.
    Http,
    /// The queue binding of a Worker, or the edge's own `POST /jobs`, which stands for one.
    Worker,
}

impl Source {
    /// As it stands in answers and on disk.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Worker => "worker",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Http, Self::Worker].into_iter().find(|source| source.as_str() == name)
    }
}

/// The name of a value in the tables.
macro_rules! stored_by_name {
    ($type:ty) => {
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
            }
        }
    };
}

stored_by_name!(ContentType);
stored_by_name!(Source);

/// A message to be pushed.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) content_type: ContentType,
    pub(crate) source: Source,
    pub(crate) body: Vec<u8>,
    /// How long it stays out of sight, where it says so itself.
    pub(crate) delay: Option<Duration>,
}

/// A message that is pulled or peeked at.
#[derive(Debug)]
pub(crate) struct PulledMessage {
    pub(crate) message: Message,
    pub(crate) content_type: ContentType,
    pub(crate) source: Source,
    pub(crate) body: Vec<u8>,
}

/// What a pull brings.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) messages: Vec<PulledMessage>,
    pub(crate) metrics: Metrics,
    /// What can be waited for, where there is no message.
    pub(crate) next: Option<Arrival>,
}

/// The next message of a queue that had none to give.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Sees every change that can make a message ready, from the very pull on. Closed when the queue is deleted, or
    /// read from the disk again.
    pub(crate) changed: watch::Receiver<()>,
    /// When time alone can make one ready.
    pub(crate) after: Option<Duration>,
    /// Has one place, for the first of those who wait.
    pub(crate) line: Arc<Semaphore>,
}
