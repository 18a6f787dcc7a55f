//! What every program does in the same way: `.env`, logging, exit codes.
//!
//! Out of scope: the settings themselves; each program's `config.rs` names and reads its own.

mod env_file;
mod exit;
mod logging;

pub use env_file::load_env_file;
pub use exit::Exit;
pub use logging::{LogArgs, LogFormat, init_logging};
