//! The nouns on the wire: what a job, a result and an id look like when they travel, and how large they may be.
//!
//! In scope: parsing, validating and writing the messages of version 1 and the records on disk; names and quantities
//! as people write them.
//! Out of scope: deciding whether a job is admitted (`edge`), what becomes of it (`lifecycle`), and any I/O.
//!
//! Invariants: no path, clock, environment or randomness in here; time and ids are arguments. Programs of different
//! ages share one queue, so a reader passes over what it does not know and loses none of it: messages and results are
//! kept as the text that came, and a word of a newer version is a [`Word`]. What is written is pinned by tests named
//! `…_format_unchanged`; what was ever written is read by the tests over `tests/compat`.

mod address;
pub mod body;
mod callback;
mod continuation;
pub mod duration;
mod failure;
mod fields;
mod file;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hold;
pub mod hub;
mod id;
mod isolation;
pub mod job_dir;
mod json;
mod kind;
mod launched;
pub mod limits;
pub mod link;
mod message;
pub mod names;
mod need;
mod not_json;
mod pattern;
mod pool;
mod portable;
mod ran;
mod resources;
mod result;
#[cfg(feature = "schema")]
mod schema;
pub mod size;
mod spec;
mod state;
pub mod text;
mod time;
mod usage;
mod word;

pub use address::{Address, Scheme};
pub use callback::{Callback, CallbackFormat};
pub use continuation::{Continuation, When};
pub use failure::FailureClass;
pub use file::{Content, Digest, InvalidDigest, InvalidWorkPath, JobFile, Outputs, OutputsWhen, WorkPath, meets};
pub use id::{InvalidJobId, JobId};
pub use isolation::{Isolation, MemoryLimit, Namespaces, Network, Reach, Seccomp, SessionKeyring, Sys};
pub use json::Json;
pub use kind::Kind;
pub use launched::Launched;
pub use message::{JobInput, JobMessage, UnreadableJob};
pub use need::{Bound, Fact, Facts, InvalidFacts, InvalidNeeds, Need};
pub use not_json::NotANumber;
pub use pattern::{Fit, Patterns};
pub use pool::{InvalidPoolName, InvalidServiceName, InvalidSiteName, PoolName, ServiceName, SiteName};
pub use portable::{NotPortable, Portability};
pub use ran::Ran;
pub use resources::ResourceRequest;
pub use result::{JobResult, Reason, ResultMessage, RuntimeKind, Status, UnreadableResult};
pub use size::{InvalidMemory, Memory};
pub use spec::{InvalidJob, JobSpec, check_idempotency_key, check_name, check_task};
pub use state::{InvalidJobState, JobState};
pub use usage::{Usage, UsageSource};
pub use word::Word;

/// The version written into the `v` field of every message.
pub const VERSION: u64 = 1;

/// The name of the queue that jobs travel in.
pub const JOBS_QUEUE: &str = "hpc-jobs";

/// The name of the queue that results travel in.
pub const RESULTS_QUEUE: &str = "hpc-results";

/// An instant on the wire: RFC 3339 in UTC, for example `2026-11-21T01:15:27.123Z`.
pub type Timestamp = jiff::Timestamp;

/// The instant `milliseconds` after the Unix epoch, which is how JavaScript, SQLite and the Queues API count time.
/// Instants outside of the years -9999 to 9999 saturate.
pub fn timestamp_from_millis(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(if milliseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
