//! A control group for each run that has a limit of memory, where this process may make any: there the kernel holds the
//! limit, at once, and kills all of the run and nothing else. Elsewhere a watch looks once a second ([`footprint`]).
//!
//! [`footprint`]: super::footprint
//!
//! ```text
//! …/hpc-consumer.service/   delegated to us, and no process is in it
//!   daemon/                 where systemd has put us (`DelegateSubgroup=`, from 254 on)
//!   run-PID-NUMBER/         a run: `memory.max` is its limit
//! ```
//!
//! Groups of version 2 only. Nobody is moved but the run: a group with processes in it can hold none to a limit, and
//! to leave ours would be to leave where systemd looks for us. What systemd has not delegated is not touched, although
//! this user may write to it: it is systemd's alone.
//!
//! Out of scope: runs without a limit, because to move a process costs more than a short job. In an allocation of Slurm
//! it is Slurm that holds the limit.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, getxattr, open, unlinkat};
use service::unit::DELEGATED_GROUP;

/// Where systemd mounts them.
const MOUNT: &str = "/sys/fs/cgroup";

/// By this the manager of the system says that what is below a group is somebody else's. The manager of a user says it
/// of none (systemd 257): there it is the group in which we are that tells.
const DELEGATED: &str = "user.delegate";

/// What the names of groups of runs begin with.
const OF_RUNS: &str = "run-";

/// The group below which those of runs are made, or why none can be.
static PLACE: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let place = place(Path::new(MOUNT), &own, is_delegated)?;
    divide(&place).map_err(|error| format!("memory cannot be divided in {}: {error}", place.display()))?;
    sweep(&place, |pid| Path::new("/proc").join(pid).exists());
    Ok(place)
});

/// Numbers the groups of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The group of a run. It goes with this, once nothing of the run is alive.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    limit: u64,
    /// Where its processes are written down. It is open before a run is: who starts a confined one may open no such
    /// file.
    processes: File,
}

/// May groups be made here for runs? Otherwise the text says why not.
pub(crate) fn groups_can_be_had() -> Result<(), String> {
    PLACE.as_ref().map(drop).map_err(Clone::clone)
}

impl Group {
    /// One whose processes may together use so much memory; none where that cannot be had.
    pub(super) fn with_limit(limit: u64) -> Option<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PLACE.as_ref().ok()?.join(format!("{OF_RUNS}{}-{number}", std::process::id()));
        Self::make(path, limit)
            .inspect_err(|error| tracing::warn!("a run has no control group, and a watch on its memory: {error}"))
            .ok()
    }

    fn make(path: PathBuf, limit: u64) -> io::Result<Self> {
        files::new_dir(&path)?;
        let group = Self { processes: to_write(&path.join("cgroup.procs"))?, path, limit };
        put(&group.path.join("memory.max"), &limit.to_string())?;
        // A system without swap has no such file, and an old kernel not the other one.
        let _ = put(&group.path.join("memory.swap.max"), "0");
        let _ = put(&group.path.join("memory.oom.group"), "1");
        Ok(group)
    }

    /// Takes in a process, and with it all that it starts from now on.
    pub(super) fn take_in(&self, pid: u32) -> io::Result<()> {
        (&self.processes).write_all(pid.to_string().as_bytes())
    }

    /// Has the kernel killed something in it, because it had used all of its memory? Then in words.
    pub(super) fn killed(&self) -> Option<String> {
        let kills = super::memory::kills_in(&fs::read_to_string(self.path.join("memory.events")).ok()?)?;
        (kills > 0).then(|| {
            format!(
                "its processes used all of the {} of memory that they may use together, and the kernel ended them",
                protocol::size::shown(self.limit)
            )
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is left of a process that cannot be ended keeps it; then it goes when the next keeper begins.
        let _ = unlinkat(CWD, &self.path, AtFlags::REMOVEDIR);
    }
}

/// The group above the one that a process is in, by its `/proc/self/cgroup`, if groups can be made there.
fn place(mount: &Path, own: &str, is_delegated: impl Fn(&Path) -> bool) -> Result<PathBuf, String> {
    if !mount.join("cgroup.controllers").exists() {
        return Err("this system has no control groups of version 2".to_owned());
    }
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let Some(above) = Path::new(own).parent() else {
        return Err("this process is in no control group of its own".to_owned());
    };
    let place = mount.join(above);
    let is_of_our_unit =
        Path::new(own).ends_with(DELEGATED_GROUP) && above.extension().is_some_and(|end| end == "service");
    if !(is_of_our_unit || is_delegated(&place)) {
        return Err(format!(
            "the control group {} is not delegated to this user; a service of systemd 254 and later has one: `hpc-consumer service install`",
            place.display()
        ));
    }
    let has = |name: &str, word: &str| {
        fs::read_to_string(place.join(name)).is_ok_and(|text| text.split_whitespace().any(|found| found == word))
    };
    if has("cgroup.controllers", "memory") {
        return Ok(place);
    }
    Err(format!("the control group {} has no `memory` among its controllers", place.display()))
}

fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 8];
    getxattr(group, DELEGATED, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"1"))
}

/// Has groups below this one hold limits of memory.
fn divide(place: &Path) -> io::Result<()> {
    put(&place.join("cgroup.subtree_control"), "+memory")
}

/// Removes groups of processes like this one that are not there any more, as far as nothing is left in them.
fn sweep(place: &Path, is_there: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(OF_RUNS)?.split('-').next());
        if pid.is_some_and(|pid| !is_there(pid)) {
            let _ = unlinkat(CWD, entry.path(), AtFlags::REMOVEDIR);
        }
    }
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    to_write(path)?.write_all(text.as_bytes()).map_err(|error| named(path, error))
}

fn to_write(path: &Path) -> io::Result<File> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    file.map(File::from).map_err(|error| named(path, error.into()))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files as the kernel shows it: a service, and the group in it that we are in.
    fn tree(controllers: &str) -> (tempfile::TempDir, PathBuf) {
        let mount = tempfile::tempdir().unwrap();
        let service = mount.path().join("user.slice/hpc.service");
        fs::create_dir_all(service.join("daemon")).unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(service.join("cgroup.controllers"), controllers).unwrap();
        (mount, service)
    }

    #[test]
    fn groups_are_made_beside_ours_where_that_is_delegated() {
        let (mount, service) = tree("memory pids\n");
        let own = "1:name=systemd:/elsewhere\n0::/user.slice/hpc.service/other\n";
        let found = |own: &str, delegated: bool| place(mount.path(), own, |group| delegated && group == service);
        assert_eq!(found(own, true), Ok(service.clone()));
        assert!(found(own, false).unwrap_err().contains("service install"), "not ours to divide");
        let of_the_unit = "0::/user.slice/hpc.service/daemon\n";
        assert_eq!(found(of_the_unit, false), Ok(service.clone()), "the manager of a user marks nothing");
        assert!(found("0::/user.slice/daemon\n", false).is_err(), "a slice is systemd's alone");
        for own in ["0::/\n", "", "4:memory:/user.slice/hpc.service/daemon\n", "0::/user.slice/hpc.service\n"] {
            assert!(found(own, true).is_err(), "{own}");
        }
        let (mount, _service) = tree("pids memory_like\n");
        assert!(place(mount.path(), own, |_| true).unwrap_err().contains("memory"));
        let nothing = tempfile::tempdir().unwrap();
        assert!(place(nothing.path(), own, |_| true).unwrap_err().contains("version 2"));
    }

    #[test]
    fn only_groups_of_who_is_gone_are_swept() {
        let (_mount, service) = tree("memory\n");
        for name in ["run-1-0", "run-2-0", "run-2-1", "other"] {
            fs::create_dir(service.join(name)).unwrap();
        }
        fs::write(service.join("run-2-1/left"), "").unwrap();
        sweep(&service, |pid| pid == "1");
        let is_there = |name: &str| service.join(name).exists();
        assert!(is_there("run-1-0") && is_there("other") && is_there("daemon") && is_there("run-2-1"));
        assert!(!is_there("run-2-0"));
    }
}
