//! The one setting, which comes from the environment. Nothing else in this program reads it.

use std::env;
use std::path::PathBuf;

/// `WORK_DIR`: where `input.json` is and `output.json` goes. Set but empty counts as not set.
pub(crate) fn work_dir() -> PathBuf {
    env::var_os("WORK_DIR").filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/work"), PathBuf::from)
}
