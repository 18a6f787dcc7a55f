//! What an attempt was begun as: recorded when it is launched, told in its result.

use serde::{Deserialize, Serialize};

use crate::PoolName;

/// What a run was begun as, where a site's file says it. What it leaves is judged by this, whatever the file says by
/// then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// Where.
    pub pool: PoolName,
    /// In which image, as a person finds it again: the reference with its digest; or the path, and from the begin of
    /// the run on also the length and the time of the file, and where it is known the digest of what it was pulled
    /// from. Nothing without a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The words of its command.
    pub command: Vec<String>,
    /// How long it may run, in milliseconds.
    pub time_limit_ms: u64,
    /// The largest output, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes_max: Option<u64>,
    /// How much of the files that it leaves may be sent, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_files_bytes_max: Option<u64>,
}
