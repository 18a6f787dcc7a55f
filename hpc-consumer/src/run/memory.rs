//! How often the kernel has killed a process for want of memory: in the cgroup that this process and its runs are in,
//! or else on this machine. That it did while a run was killed is the only sign of why. And whom it kills first.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::{Mode, OFlags, open};
use tokio::process::Child;

/// More than any of the files holds that count them.
const READ_MAX: usize = 16 << 10;

/// The file that counts them, held open: it is asked for each run. It stays the same as long as this process is not
/// moved.
static COUNTED_IN: LazyLock<Option<File>> = LazyLock::new(|| {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let places = places(&own).into_iter().map(|place| Path::new("/sys/fs/cgroup").join(place));
    let counts = |path: PathBuf| File::open(path).ok().filter(|file| count(file).is_some());
    places.chain(["/proc/vmstat".into()]).find_map(counts)
});

/// How much sooner than this process a run is to be killed: as if it had so many thousandths of all memory more.
const SOONER: i32 = 500;

/// Version 1 has no word for no limit, but a number of this size.
const UNLIMITED: u64 = 1 << 60;

/// What the kernel adds to the size of a process when it looks for one to kill, and the most that this may be.
const SCORE: &str = "oom_score_adj";
const SCORE_MAX: i32 = 1_000;

/// This process's own.
static OWN: LazyLock<i32> = LazyLock::new(|| {
    fs::read_to_string(Path::new("/proc/self").join(SCORE))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
});

/// Has the kernel kill a run before the processes that record its end, should it want memory back. The first process
/// hands it on to all that it starts from now on, which is nothing yet.
pub(super) fn offer(child: &Child) {
    let raised = (*OWN + SOONER).min(SCORE_MAX);
    let Some(pid) = child.id() else { return };
    let path = Path::new("/proc").join(pid.to_string()).join(SCORE);
    // It fails for what has another user's rights, as a setuid program: that is killed no sooner than we are.
    if let Ok(score) = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = File::from(score).write_all(raised.to_string().as_bytes());
    }
}

/// How often it did so far, where the kernel says it.
pub(super) fn kills() -> Option<u64> {
    count(COUNTED_IN.as_ref()?)
}

/// How much memory all that is in the cgroup of this process may use together, if there is a limit.
pub(crate) fn memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = places(&own).into_iter().flat_map(|place| {
        // A limit of a group above is one as well.
        let groups: Vec<PathBuf> = place.ancestors().skip(1).map(Path::to_owned).collect();
        let name = if place.ends_with("memory.events") { "memory.max" } else { "memory.limit_in_bytes" };
        groups.into_iter().map(move |group| Path::new("/sys/fs/cgroup").join(group).join(name))
    });
    limits
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .filter(|limit| *limit < UNLIMITED)
        .min()
}

fn count(file: &File) -> Option<u64> {
    let mut text = [0; READ_MAX];
    let length = file.read_at(&mut text, 0).ok()?;
    kills_in(str::from_utf8(text.get(..length)?).ok()?)
}

/// A line `oom_kill N`, in all of these files.
pub(super) fn kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Where the count of a cgroup may be, from `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`, without controllers for
/// version 2.
fn places(own: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            places.push(Path::new(path).join("memory.events"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            places.push(Path::new("memory").join(path).join("memory.oom_control"));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_where_each_version_has_it() {
        let places = |own: &str| places(own).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(places("0::/user.slice/a:b\n"), ["user.slice/a:b/memory.events"]);
        assert_eq!(
            places("9:name=systemd:/\n4:cpu,memory:/job_7\n0::/\n"),
            ["memory/job_7/memory.oom_control", "memory.events"]
        );
        assert_eq!(kills_in("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(kills_in("nr_free_pages 1\n"), None);
    }
}
