//! Two ordinary users of one machine, who share a group, and what they do.
//!
//! No account is needed for them: a number is a user. But only root can be any of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;
use testkit::{Edge, PATIENCE, Process, command, parts, signal, wait_until, words_of};

/// Whom a machine belongs to.
pub(crate) const ROOT: User = User(0);
/// Whom things are done to.
pub(crate) const VICTIM: User = User(64_001);
/// Who does them.
pub(crate) const ATTACKER: User = User(64_002);
/// The group of both, should they belong to one.
pub(crate) const GROUP: u32 = 64_100;

/// A user by number, whose own group has the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User(pub(crate) u32);

/// A machine: a directory that all may enter, the home of each user in it, and programs that all may run.
pub(crate) struct Machine {
    folder: TempDir,
    state_dirs: Vec<PathBuf>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs to be root, to be two ordinary users one after the other: run it as root, as CI does"
        );
        let folder = tempfile::tempdir().expect("a directory can be made");
        chmod(folder.path(), 0o755);
        let machine = Self { folder, state_dirs: Vec::new() };
        machine.make("bin", ROOT, 0o755);
        for program in ["hpc-consumer", "local-edge", "laptop-consumer"] {
            let place = machine.path("bin").join(program);
            // The way to the directory that they are built in may be closed to others.
            let built = parts::program(program);
            fs::hard_link(&built, &place)
                .or_else(|_| fs::copy(&built, &place).map(drop))
                .expect("a program can be copied");
        }
        for user in [VICTIM, ATTACKER] {
            machine.make(&user.0.to_string(), user, 0o755);
        }
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self, user: User) -> PathBuf {
        self.path(&user.0.to_string())
    }

    /// Makes a directory.
    pub(crate) fn make(&self, name: &str, user: User, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        own(&path, user, mode);
        path
    }

    /// A program of ours, run by a user.
    pub(crate) fn program(&self, name: &str, user: User) -> Command {
        let mut command = command(&self.path("bin").join(name), &self.home(user));
        command.env_remove("ALLOW_ROOT").uid(user.0).gid(user.0);
        command
    }

    /// The same of the victim where they have a name, and a group of that name with no other members, as many systems
    /// make them: in mounts of its own.
    pub(crate) fn known(&self, command: &Command) -> Command {
        let mut line = String::new();
        for (name, user) in [
            ("passwd", format!("victim:x:{0}:{0}::{1}:/bin/sh\n", VICTIM.0, self.home(VICTIM).display())),
            ("group", format!("victim:x:{}:\n", VICTIM.0)),
        ] {
            let (place, system) = (self.path(name), Path::new("/etc").join(name));
            let known = fs::read_to_string(&system).expect("there are users and groups");
            fs::write(&place, known + &user).expect("the machine can be written to");
            chmod(&place, 0o644);
            line.push_str(&format!("mount --bind {} {} && ", place.display(), system.display()));
        }
        line.push_str(&format!("exec setpriv --reuid {0} --regid {0} --clear-groups \"$@\"", VICTIM.0));
        let mut known = testkit::command(Path::new("unshare"), &self.home(VICTIM));
        known.args(["--mount", "sh", "-c", &line, "sh"]).arg(command.get_program()).args(command.get_args());
        known.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("ALLOW_ROOT");
        known
    }

    /// A line of a shell, run by a user.
    pub(crate) fn shell(&self, user: User, line: &str) -> Output {
        let mut command = command(Path::new("/bin/sh"), &self.home(user));
        command.args(["-c", line]).uid(user.0).gid(user.0);
        command.output().expect("a shell can be started")
    }

    /// A line that must do what it says.
    pub(crate) fn done(&self, user: User, line: &str) {
        let output = self.shell(user, line);
        assert!(output.status.success(), "{user:?} cannot {line}: {output:?}");
    }

    /// `hpc-consumer run` of the victim without a container: each job is a shell script in its `input`.
    pub(crate) fn consumer(&mut self, edge: &Edge, results_dir: &Path, state_dir: &Path) -> Command {
        self.state_dirs.push(state_dir.to_owned());
        let settings = self.home(VICTIM).join("settings.env");
        fs::copy(edge.env_file(), &settings).expect("settings can be copied");
        own(&settings, VICTIM, 0o600);
        let mut command = self.program("hpc-consumer", VICTIM);
        command.arg("run").arg("--env-file").arg(settings).env("RUNTIME", "bare");
        command.env("CONTAINER_CMD", testkit::SCRIPT).env("MAX_PARALLEL_JOBS", "2");
        command.env("RESULTS_DIR", results_dir).env("STATE_DIR", state_dir).env("POLL_INTERVAL_SECONDS", "0.1");
        command
    }

    /// Starts a program that says what it does into the directory of the machine.
    pub(crate) fn start(&self, name: &str, command: &mut Command) -> Process {
        Process::start(name, command, self.folder.path())
    }

    /// Runs a program to its end, and returns its exit code and its log.
    pub(crate) fn ended(&self, name: &str, command: &mut Command) -> (Option<i32>, String) {
        let mut process = self.start(name, command);
        let status = process.wait(PATIENCE);
        (status.code(), process.log())
    }
}

impl Drop for Machine {
    /// Keepers outlive their daemons, as they should.
    fn drop(&mut self) {
        for state_dir in &self.state_dirs {
            let card = fs::read_to_string(state_dir.join("keeper/keeper.json")).unwrap_or_default();
            let card: serde_json::Value = serde_json::from_str(&card).unwrap_or_default();
            let Some(keeper) = card["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) else { continue };
            // One that has ended leaves its card, and its number to somebody else's process.
            let is_there = || words_of(keeper).iter().any(|word| word == "keeper");
            if is_there() {
                signal(keeper, Signal::TERM);
            }
            if !std::thread::panicking() {
                wait_until("the keeper to be gone", PATIENCE, || !is_there());
            }
        }
    }
}

pub(crate) fn own(path: &Path, user: User, mode: u32) {
    chown(path, Some(user.0), Some(user.0)).expect("root can give anything away");
    chmod(path, mode);
}

pub(crate) fn own_in_group(path: &Path, user: User, mode: u32) {
    chown(path, Some(user.0), Some(GROUP)).expect("root can give anything away");
    chmod(path, mode);
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("root can change any mode");
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}
