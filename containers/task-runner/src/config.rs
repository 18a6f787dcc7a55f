//! The settings, which come from the environment. Nothing else in this program reads it.

use std::env;
use std::path::PathBuf;

/// `HPC_QUEUE_WORKFLOW_DIR`: where the command of a task of a workflow runs, if it is one.
pub(crate) fn workflow_dir() -> Option<PathBuf> {
    env::var_os("HPC_QUEUE_WORKFLOW_DIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `WORK_DIR`: where `input.json` is and `output.json` goes. Set but empty counts as not set.
pub(crate) fn work_dir() -> PathBuf {
    env::var_os("WORK_DIR").filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/work"), PathBuf::from)
}
