//! What `/proc` tells of processes: who descends from whom, and what each was started with.
//!
//! Out of scope: which of them belong to a run (`tree`, `leftovers`). A process may end while it is looked at; then it
//! is as if it had not been there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a read asks for at first: more than the files have that are read most.
const READ_AT_ONCE: usize = 4_096;

/// The most that is read of one file; a list of children is the longest.
const READ_MAX: u64 = 16 << 20;

/// The first process of a run. Its number alone may be given to another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstProcess {
    pub(crate) pid: i32,
    /// In clock ticks since the machine started.
    pub(crate) started: u64,
}

/// A line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) zombie: bool,
    /// In clock ticks since the machine started.
    pub(super) started: u64,
}

/// Where a process is, seen from this one: in our PID namespace or in one within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    Ours,
    /// The first process of a namespace directly within ours. With it the kernel ends the whole namespace.
    Init,
    Within,
}

/// Does this very process run? One that has ended and only waits to be noticed does not.
pub(crate) fn is_running(first: FirstProcess) -> bool {
    process(first.pid).is_some_and(|process| !process.zombie && process.started == first.started)
}

/// When a process started, in clock ticks since the machine did; 0 when there is no such process.
pub(crate) fn started_at(pid: i32) -> u64 {
    process(pid).map_or(0, |process| process.started)
}

/// Every process of the machine that can be seen.
pub(super) fn processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

/// Is the process, or one that it descends from, among the roots?
pub(super) fn descends(processes: &BTreeMap<i32, Process>, mut pid: i32, is_root: impl Fn(i32) -> bool) -> bool {
    // Bounded, because the parents were read one after the other and may not be a tree.
    for _ in 0..processes.len() {
        if is_root(pid) {
            return true;
        }
        match processes.get(&pid) {
            Some(process) if process.parent > 1 => pid = process.parent,
            _ => return false,
        }
    }
    false
}

/// Does a process descend from this one, as those of runs do? What cannot be followed to its end counts as if it did:
/// it has ended, or one that it descends from has in this moment, or it took pains.
pub(crate) fn descends_from_us(pid: i32) -> bool {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let parent = |pid: i32| process(pid).map(|process| process.parent);
    (0..LOOKS_MAX).all(|_| is_below(pid, own, parent))
}

/// How often a process is looked at before it counts as one that descends from us, and how far up.
const LOOKS_MAX: usize = 3;
const GENERATIONS_MAX: usize = 128;

/// Is a process below another one, if parents are these? What is not known counts as below.
fn is_below(mut pid: i32, above: i32, parent: impl Fn(i32) -> Option<i32>) -> bool {
    for _ in 0..GENERATIONS_MAX {
        match parent(pid) {
            Some(parent) if parent == above => return true,
            // The parent of the first one of all, and of one whose parent is in no namespace of ours.
            Some(0) => return false,
            Some(parent) => pid = parent,
            None => return true,
        }
    }
    true
}

/// The variables that a process was started with; it may have overwritten them since. None if they cannot be read:
/// then the process is of another user, or does not want to be looked at.
pub(super) fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// The single variables of an environment.
pub(super) fn variables(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    environment.split(|byte| *byte == 0)
}

/// What a process of a run has used of processors, with all descendants that somebody among them has waited for. Asked
/// for after its end, and before its parent has waited for it.
pub(super) fn cpu_time(first: FirstProcess) -> Option<Duration> {
    let stat = read(Path::new(&format!("/proc/{}/stat", first.pid))).ok()?;
    let started = parse_stat(&stat)?.started;
    if started != first.started { None } else { parse_cpu_time(&stat, rustix::param::clock_ticks_per_second()) }
}

/// The children of a process of a run, whichever of its threads has started them. None where the kernel does not say.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| read(&thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// How much of a process is in memory, in bytes.
pub(super) fn resident(pid: i32) -> Option<u64> {
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    parse_resident(&read(Path::new(&format!("/proc/{pid}/statm"))).ok()?, page)
}

/// Its share of that, in which memory counts a half that it shares with one other process. The kernel goes through all
/// its pages for it. None if it does not want to be looked at.
pub(super) fn share(pid: i32) -> Option<u64> {
    parse_share(&read(Path::new(&format!("/proc/{pid}/smaps_rollup"))).ok()?)
}

/// The inodes of the sockets that a process has open; none where it does not want to be looked at.
pub(super) fn sockets(pid: i32) -> Vec<u64> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let target = |file: io::Result<fs::DirEntry>| fs::read_link(file.ok()?.path()).ok();
    let inode = |target: std::path::PathBuf| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    open.filter_map(target).filter_map(inode).collect()
}

/// The soft limit `RLIMIT_RTTIME` of a process, if it has one.
pub(super) fn realtime_limit(pid: i32) -> Option<u64> {
    parse_realtime_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// What a process is called, in up to 15 bytes.
pub(super) fn name(pid: i32) -> Option<String> {
    read(Path::new(&format!("/proc/{pid}/comm"))).ok()
}

/// In which PID namespace a process is. What cannot be read counts as ours.
pub(super) fn namespace(pid: i32) -> Namespace {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(Namespace::Ours, |status| parse_namespace(&status))
}

/// The children of this process, by their numbers. The kernel has one list for each thread that started any.
pub(super) fn children_of_thread(thread: i32) -> io::Result<String> {
    read(Path::new(&format!("/proc/self/task/{thread}/children")))
}

fn process(pid: i32) -> Option<Process> {
    parse_stat(&read(Path::new(&format!("/proc/{pid}/stat"))).ok()?)
}

/// Reads a file of the kernel's, which does not tell its length, in as few steps as that takes.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(READ_AT_ONCE);
    File::open(path)?.take(READ_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// `pid (name) state parent group session …`; the name may hold anything, closing brackets too.
pub(super) fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // The start is field 22, and the session was field 6.
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { parent, group, session, zombie: matches!(state, "Z" | "X"), started })
}

/// Fields 14 to 17, in clock ticks: its own time as a user and in the kernel, and that of those it has waited for.
fn parse_cpu_time(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields = rest.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok());
    let ticks = fields.collect::<Option<Vec<_>>>().filter(|fields| fields.len() == 4)?.into_iter().sum::<u64>();
    Some(Duration::from_millis(ticks.checked_mul(1_000)?.checked_div(ticks_per_second)?))
}

/// The second field is what is resident, in pages.
pub(super) fn parse_resident(statm: &str, page: u64) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page)
}

/// `Pss: N kB`
pub(super) fn parse_share(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// `Max realtime timeout      SOFT      HARD      us`
pub(super) fn parse_realtime_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `NSpid: OURS [WITHIN …]`: the number of the process in each namespace, from ours to its own.
pub(super) fn parse_namespace(status: &str) -> Namespace {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    match numbers.split_whitespace().collect::<Vec<_>>()[..] {
        [] | [_] => Namespace::Ours,
        [_, "1"] => Namespace::Init,
        _ => Namespace::Within,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse() {
        let process = parse_stat("12 (a) S 9) ) Z 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 5000").unwrap();
        assert_eq!((process.parent, process.group, process.session, process.zombie), (1, 2, 3, true));
        assert_eq!(process.started, 4711);
        assert!(parse_stat("12 (a) S").is_none());
    }

    #[test]
    fn processor_time_is_that_of_a_process_and_of_those_it_has_waited_for() {
        let stat = "12 (a) S) Z 1 2 3 0 -1 0 0 0 0 0 20 3 400 5 20 0 1 0 4711 5000";
        assert_eq!(parse_cpu_time(stat, 100), Some(Duration::from_millis(4_280)));
        assert_eq!(parse_cpu_time("12 (a) Z 1 2 3 0 -1 0 0 0 0 0 20 3 400", 100), None);
        assert_eq!(parse_cpu_time(stat, 0), None);
    }

    #[test]
    fn whoever_cannot_be_followed_up_counts_as_a_descendant() {
        // 1 ─ 5 ─ 7 (the keeper) ─ 8 ─ 9, and 5 ─ 6.
        let parent = |pid| match pid {
            1 => Some(0),
            5 => Some(1),
            6 | 7 => Some(5),
            8 => Some(7),
            9 => Some(8),
            _ => None,
        };
        for (pid, below) in [(8, true), (9, true), (7, false), (6, false), (5, false), (1, false), (12, true)] {
            assert_eq!(is_below(pid, 7, parent), below, "{pid}");
        }
        assert!(is_below(4, 7, |pid| Some(pid + 1000)), "an endless line of parents");
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!descends_from_us(own) && !descends_from_us(1));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(descends_from_us(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(descends_from_us(pid), "it has ended");
    }

    #[test]
    fn limits_and_namespaces_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max realtime priority     0                    0                    \n\
                      Max realtime timeout      4611686018427400249  unlimited            us        \n";
        assert_eq!(parse_realtime_limit(limits), Some(4_611_686_018_427_400_249));
        assert_eq!(parse_realtime_limit(&limits.replace("4611686018427400249", "unlimited")), None);
        assert_eq!(realtime_limit(i32::MAX), None);
        for (status, namespace) in [
            ("Name:\tsh\nNSpid:\t7\nNSpgid:\t7\n", Namespace::Ours),
            ("Name:\tsh\n", Namespace::Ours),
            ("NSpid:\t2007\t1\n", Namespace::Init),
            ("NSpid:\t2027\t14\n", Namespace::Within),
            ("NSpid:\t2028\t15\t1\n", Namespace::Within),
        ] {
            assert_eq!(parse_namespace(status), namespace, "{status:?}");
        }
        assert_eq!(namespace(i32::try_from(std::process::id()).unwrap()), Namespace::Ours);
    }
}
