//! What `doctor` of every program has in common: a line for each check, with the very next thing to do; what is to be
//! said of the queues and of the machine; and what `--fix` makes at Cloudflare.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [mod@line] | a line, and all of them: how they are shown, and the exit code |
//! | [`queue`] | of what the service tells of queues: what is wrong, and what loses messages |
//! | [`look`] | asking the service for that |
//! | [`machine`] | of clocks, and of room on disks |
//! | [`fix`] | what is missing at Cloudflare, as steps that are shown first |
//!
//! Out of scope: what one program alone can see. Invariants: what is said follows from what was seen, by functions that
//! see nothing themselves; nothing is changed but by [`fix`], after a person has agreed.

pub mod fix;
pub mod line;
pub mod look;
pub mod machine;
pub mod queue;

pub use line::{Line, Report, Verdict};
