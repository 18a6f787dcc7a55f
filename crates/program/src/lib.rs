//! What every program does in the same way: where settings come from, words for times and numbers, logging, exit codes,
//! the look of errors and results, whom the user trusts with directories, where programs are found, and what a process
//! hides from others.
//!
//! Out of scope: the settings themselves; each program's `config.rs` names and checks its own.

mod ask;
mod completions;
mod directory;
mod environment;
mod exit;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod harden;
mod logging;
mod machine;
mod number;
mod operations;
mod output;
mod pretty;
mod printer;
mod questions;
mod reference;
mod search;
mod settings;
mod stream;
mod style;
mod table;
mod tree;
mod trust;
mod verbs;

pub use ask::{can_be_asked, confirmed, is_meant};
pub use completions::{Shell, completions};
pub use directory::{UserDirectory, user_directory};
pub use environment::variables;
pub use exit::{Exit, Failure, finish};
pub use filter::{JobFilter, Listed};
pub use harden::{harden, with_given_core_limit};
pub use logging::{LogArgs, LogFormat, init_logging};
pub use machine::{boot_id, host};
pub use number::{counted, whole};
pub use operations::{Operations, operations};
pub use output::{OutputFormat, print};
pub use printer::{Printer, StdoutClosed};
pub use protocol::duration;
pub use protocol::text::{escaped, escaped_json, escaped_lines, is_hazardous};
pub use questions::{Question, Questions, write_agreed, write_settings};
pub use reference::ReferenceArgs;
pub use search::{absolute_entries, is_executable, on_path};
pub use settings::{Bare, FileArgs, Files, Given, Origin, Origins, Shared, Sources, read, read_trusted};
pub use stream::Stream;
pub use style::{may_color, say};
pub use table::{age, fit, one_line, pairs, stdout_width, table};
pub use tree::{Node, tree};
pub use trust::{TrustArgs, TrustedGroup, is_root, private_dir, told_of};
pub use verbs::StatusLine;
