//! Where a run was.

use serde::{Deserialize, Serialize};

/// Where a run was, if that is not where its daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The name of the node; of the first one, if there were several.
    pub node: String,
    /// The job in Slurm that it was a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_job_id: Option<String>,
}
