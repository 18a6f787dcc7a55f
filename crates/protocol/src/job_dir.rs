//! The names that have a meaning in a job's directory: what is put there for the job, what is read of what it leaves,
//! and its logs.
//!
//! Out of scope: what is in them.

use crate::WorkPath;

/// What the job was given, as JSON.
pub const INPUT: &str = "input.json";

/// What it has to say in the end, as JSON.
pub const OUTPUT: &str = "output.json";

/// What the daemon knows of its last attempt.
pub const META: &str = "meta.json";

/// Which jobs it wants to wait for.
pub const CONTINUE: &str = "continue.json";

/// The folder in which it finds how those have ended.
pub const CHILDREN: &str = "children";

/// What a workflow has taken over of an earlier one.
pub const RESUMED: &str = "resumed.json";

/// The folder in which it finds the services that it needs.
pub const SERVICES: &str = "services";

/// Where an instance of a service says on which port it listens.
pub const ADDRESS: &str = "address.json";

/// Where its standard output and error go; and where they go if the job has a file of that name by then. None of them
/// may be there before it begins.
pub const LOGS: [&str; 4] = ["stdout.log", "stderr.log", "stdout.hpc-queue.log", "stderr.hpc-queue.log"];

/// Has the name a meaning right in a job's directory?
pub fn is_taken(name: &str) -> bool {
    [META, INPUT, OUTPUT, CONTINUE, CHILDREN, RESUMED, SERVICES].contains(&name) || LOGS.contains(&name)
}

/// The name with a meaning at which a path begins, which therefore no file that a job brings may have.
pub fn taken_by(path: &WorkPath) -> Option<&str> {
    path.as_str().split('/').next().filter(|name| is_taken(name))
}
