//! Starting this very program a second time, as a process that outlives us.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// This program, even when its file was replaced or removed while it ran.
const SELF: &str = "/proc/self/exe";

/// Starts this program with other arguments and nothing of our environment: it holds our secrets. The process stays
/// when the returned handle is dropped.
pub(crate) fn start_service(arguments: &[OsString], directory: &Path, log: File) -> io::Result<Child> {
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(SELF));
    Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}
