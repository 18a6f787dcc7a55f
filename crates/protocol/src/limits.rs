//! The limits of the queue service, and those that we set ourselves. Sizes are bytes; KB is 1,000 bytes, as the service
//! counts. Source: Cloudflare Queues, "Limits" (2026-04) and "Batching, retries and delays".

use std::time::Duration;

/// The largest message that a queue takes, body and internal metadata together.
pub const MESSAGE_BYTES_MAX: usize = 128_000;

/// What the service adds to each message and counts against [`MESSAGE_BYTES_MAX`].
pub const MESSAGE_METADATA_BYTES: usize = 100;

/// The largest body that surely fits into one message.
pub const MESSAGE_BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX - MESSAGE_METADATA_BYTES;

/// The most messages in one batch: pushed, pulled or acknowledged.
pub const BATCH_COUNT_MAX: usize = 100;

/// The largest batch of messages, all bodies and metadata together.
pub const BATCH_BYTES_MAX: usize = 256_000;

/// The largest HTTP request body that the edge reads. White space in the JSON that a user sends does not travel on, so
/// this is more generous than what the queue takes.
pub const REQUEST_BYTES_MAX: usize = 1_000_000;

/// The longest lease (visibility timeout) of a pulled message.
pub const VISIBILITY_TIMEOUT_MAX: Duration = Duration::from_hours(12);

/// The most retries that the consumer of a queue can allow a message.
pub const QUEUE_RETRIES_MAX: u64 = 100;

/// The longest delay of a message, at push or at retry.
pub const DELAY_MAX: Duration = Duration::from_hours(24);

/// The longest time that a queue keeps a message.
pub const RETENTION_MAX: Duration = Duration::from_hours(14 * 24);

/// The longest `task` name.
pub const TASK_BYTES_MAX: usize = 128;

/// The longest `name` of a job, in characters.
pub const NAME_CHARS_MAX: usize = 128;

/// The most processors, GPUs or nodes that a job can ask for.
pub const RESOURCES_MAX: u32 = 1_000_000;

/// How often a job can be tried again after its own task failed, at the most.
pub const RETRIES_MAX: u32 = 100;

/// The longest `continue.json`.
pub const CONTINUATION_BYTES_MAX: u64 = 8_000_000;

/// How many children a job starts in one round, and in all of them, at the most.
pub const CHILDREN_AT_ONCE_MAX: usize = 1_000;
/// See above.
pub const CHILDREN_MAX: u32 = 100_000;

/// How many rounds a job has at the most: one that goes round and round must come to an end.
pub const ROUNDS_MAX: u32 = 100_000;

/// How many generations of children there are below a job that a person has submitted, at the most.
pub const GENERATIONS_MAX: u32 = 4;

/// How many services a job needs, how much it asks of each, and how many facts a service has, at the most.
pub const NEEDS_MAX: usize = 16;
/// See above.
pub const FACTS_MAX: usize = 64;

/// The longest `address.json` of an instance of a service.
pub const ADDRESS_BYTES_MAX: u64 = 100_000;

/// The longest name of a fact of a service, in bytes.
pub const FACT_NAME_BYTES_MAX: usize = 64;
/// The longest text that is a fact, in characters, as a schema counts them.
pub const FACT_CHARS_MAX: usize = 256;

/// The longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The longest path of a file below a job's directory.
pub const WORK_PATH_BYTES_MAX: usize = 1_024;

/// How many files one job brings, and how many contents one request to the edge is about, at the most.
pub const FILES_COUNT_MAX: usize = 500;

/// How many patterns of outputs a job has, at the most.
pub const OUTPUT_PATTERNS_MAX: usize = 100;

/// The largest file that travels.
pub const FILE_BYTES_MAX: u64 = 5_000_000_000_000;

/// The longest address that is told of a job.
pub const CALLBACK_URL_BYTES_MAX: usize = 2_000;

/// How many states it can be told of, at the most.
pub const CALLBACK_EVENTS_MAX: usize = 16;

/// The largest result message. One billed operation of the service is 64 KB, so a result within it costs one.
pub const RESULT_BYTES_MAX: usize = 64_000 - MESSAGE_METADATA_BYTES;

/// The largest `output.json` that travels inside of the result; a larger one stays on the cluster, and the result
/// points to it.
pub const INLINE_OUTPUT_BYTES_MAX: usize = 48_000;

/// How deep the arrays and objects of an output may be nested.
pub const OUTPUT_DEPTH_MAX: usize = 128;

/// No message of a queue lives longer: 14 days is the most that the service keeps one.
pub const MESSAGE_AGE_MAX: Duration = Duration::from_hours(14 * 24);

/// How much of the end of what a task printed, to each of its two streams, travels inside of a result.
pub const STDERR_TAIL_BYTES_MAX: usize = 4_096;

/// Messages that are no jobs or no results, and whatever else is kept for a person to look at: so many files of a kind
/// are kept at the most,
pub const ASIDE_COUNT_MAX: usize = 1_000;

/// and so much of it,
pub const ASIDE_BYTES_MAX: u64 = 64_000_000;

/// and for so long. The oldest go first.
pub const ASIDE_AGE_MAX: Duration = Duration::from_hours(30 * 24);
