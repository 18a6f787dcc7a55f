//! What keeps a program of ours running: which service manager of a machine does it, and the text that this reads.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`start`] | what is started: program, arguments, directory, variables |
//! | [`way`] | systemd, launchd, cron, `scrontab` of Slurm, or nobody: which of them keeps it running, and why |
//! | [`mod@unit`] | the text of a systemd user unit |
//! | [`plist`] | the text of a launchd agent |
//! | [`crontab`] | our lines in a crontab that is a person's |
//! | [`watch`] | what a watchdog line of cron does about a daemon that nobody else watches |
//! | [`notify`] | what is told to systemd |
//!
//! Out of scope: every command that is run, every file that is written.
//! Invariant: what a text cannot hold is refused ([`start::Unwritable`]), and never written in another way.

pub mod crontab;
pub mod notify;
pub mod plist;
pub mod start;
pub mod unit;
pub mod watch;
pub mod way;

pub use start::{Start, Unwritable};
pub use way::{Seen, Way};
