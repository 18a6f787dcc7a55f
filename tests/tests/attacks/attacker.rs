//! Two users of one machine who have no name and nothing in common, and what one of them does that a shell cannot. To
//! become them, the tests are run as root, as CI does.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Gid, Uid};
use tempfile::TempDir;
use testkit::compile;

/// Who runs our programs.
pub(crate) const VICTIM: u32 = 64_001;

/// Who is on the same machine.
pub(crate) const ATTACKER: u32 = 64_002;

/// Has a command run by this user.
pub(crate) fn by(user: u32, command: &mut Command) -> &mut Command {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts programs as two ordinary users: run it as root, `sudo -E cargo nextest run ...`"
    );
    command.uid(user).gid(user)
}

/// Gives a file or a directory to this user.
pub(crate) fn give(path: &Path, user: u32) {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::fs::chown(path, Some(uid), Some(gid)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The attacks that no shell can do, as a program for everybody; see `attack.c`.
pub(crate) struct Tool {
    folder: TempDir,
}

impl Tool {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/attack.c");
        let tool = Self { folder };
        compile(&source, &tool.program());
        give(tool.folder.path(), ATTACKER);
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(tool.folder.path(), open).expect("our own directory takes a mode");
        tool
    }

    /// Where it is.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("attack")
    }

    pub(crate) fn command(&self, user: u32, words: &[&str]) -> Command {
        let mut command = testkit::command(&self.program(), Path::new("/"));
        by(user, command.args(words));
        command
    }

    /// Runs it to its end, and returns whether it had success, and what it said.
    pub(crate) fn run(&self, user: u32, words: &[&str]) -> (bool, String) {
        let output = self.command(user, words).output().expect("it can be started");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}
