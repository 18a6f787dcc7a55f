//! What a run has used.

use serde::{Deserialize, Serialize};

/// What the processes of a run have used, as far as it was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, of the user's code and of the kernel for it, in milliseconds: that of the first process, and of
    /// all that somebody among its descendants has waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// The most memory that they were seen to have resident together, in bytes. Who looks does so after the first
    /// second, and then more and more rarely, up to once a minute: shorter peaks are not seen, and memory that
    /// processes share counts for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Usage {
    /// It, where anything of it is known.
    pub fn known(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}
