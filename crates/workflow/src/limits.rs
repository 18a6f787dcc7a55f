//! How large a workflow may be. More than what is known of real ones, and little enough to be read in a few seconds.

/// The longest document, in bytes. It is held in memory whole while it is read.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// The most tasks.
pub const TASKS_MAX: usize = 20_000;

/// How often tasks name each other and files, and how many arguments their commands have, all together, at the most.
pub const REFERENCES_MAX: usize = 2_000_000;

/// The longest argument of a command. Linux takes 32 pages for one, its end included (`MAX_ARG_STRLEN`, `execve(2)`).
pub const ARGUMENT_BYTES_MAX: usize = 131_071;

/// The longest command, program and arguments together: half of what Linux takes where the stack may have 8 MiB, for
/// the environment is counted with it (`execve(2)`).
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// How many problems are told of a document; of more there is their number.
pub const PROBLEMS_TOLD_MAX: usize = 100;
