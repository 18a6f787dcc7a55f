//! The resident memory of a daemon and its keeper together: when there is nothing to do, and when there is much.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::consumer::{self, Daemon, Node};
use super::table::{Aim, Row};
use super::{median, subfolder};
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const IDLE_AIM: f64 = 10e6;
const LOADED_AIM: f64 = 50e6;
const WAITING: usize = 10_000;
const RUNNING: usize = 1_000;
/// By then it has polled the queue many times, and nothing grows any more.
const SETTLED: Duration = Duration::from_secs(5);
const SAMPLES: usize = 10;
/// How long until all jobs run.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let idle = idle(workspace, &subfolder(folder, "idle")?)?;
    let loaded = loaded(workspace, &subfolder(folder, "loaded")?)?;
    // What a keeper has for itself before it has a run, each keeper of a single run would have.
    let each = (loaded.keeper_alone - idle.keeper_alone) / RUNNING as f64;
    let row = |state: &str, bytes: f64, aim: f64| Row {
        measure: format!("hpc-consumer: resident memory {state}"),
        here: format!("{:.1} MB", bytes / 1e6),
        against: format!("{:.0} MB, the aim", aim / 1e6),
        ratio: bytes / aim,
        aim: Aim::Under(1.0),
    };
    Ok(vec![
        row("while idle, keeper included", idle.both, IDLE_AIM),
        row(&format!("with {WAITING} jobs waiting and {RUNNING} running"), loaded.both, LOADED_AIM),
        Row {
            measure: format!(
                "keeper: memory for one of {RUNNING} runs, against what a keeper of its own has before it has a run"
            ),
            here: format!("{:.1} KB", each / 1e3),
            against: format!("{:.0} KB", idle.keeper_alone / 1e3),
            ratio: each / idle.keeper_alone,
            aim: Aim::Under(1.0),
        },
    ])
}

/// What daemon and keeper have together, in bytes, once nothing grows any more.
pub(super) fn of_both(daemon: &mut Daemon) -> anyhow::Result<f64> {
    Ok(settled_bytes(daemon)?.both)
}

/// In bytes.
struct Memory {
    /// Of daemon and keeper.
    both: f64,
    /// Of the keeper, what no other process has a share in.
    keeper_alone: f64,
}

fn idle(workspace: &Workspace, folder: &Path) -> anyhow::Result<Memory> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    let mut daemon = node.start(node.bare(workspace, &edge, "/bin/true", 2))?;
    let bytes = settled_bytes(&mut daemon)?;
    daemon.stop()?;
    Ok(bytes)
}

fn loaded(workspace: &Workspace, folder: &Path) -> anyhow::Result<Memory> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    consumer::submit(&edge, &json!({"task": "sleep"}), WAITING + RUNNING)?;
    // Nobody else on the machine sleeps for this long.
    let seconds = format!("600.{}", std::process::id());
    let mut daemon = node.start(node.bare(workspace, &edge, &format!("sleep {seconds}"), RUNNING))?;
    daemon.process.wait_for(&format!("{RUNNING} jobs ran"), PATIENCE, |_| {
        thread::sleep(Duration::from_millis(200));
        (sleepers(&seconds) >= RUNNING).then_some(())
    })?;
    let bytes = settled_bytes(&mut daemon)?;
    let running = sleepers(&seconds);
    daemon.stop()?;
    let left = sleepers(&seconds);
    if running != RUNNING || left > 0 {
        bail!("{running} jobs ran while the memory was measured, and not {RUNNING}; {left} go on after the end");
    }
    Ok(bytes)
}

/// What both processes have once nothing grows any more.
fn settled_bytes(daemon: &mut Daemon) -> anyhow::Result<Memory> {
    thread::sleep(SETTLED);
    let (mut both, mut keeper_alone) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        thread::sleep(Duration::from_millis(200));
        daemon.runs()?;
        let [own, keeper] = daemon.ids()?;
        both.push(resident_bytes(own)? + resident_bytes(keeper)?);
        keeper_alone.push(private_bytes(keeper)?);
    }
    Ok(Memory { both: median(&both), keeper_alone: median(&keeper_alone) })
}

/// How many processes are `sleep <seconds>`, whoever started them.
fn sleepers(seconds: &str) -> usize {
    let words = format!("sleep\0{seconds}\0");
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let of = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    entries.filter_map(Result::ok).filter(is_number).map(of).filter(|line| *line == words.as_bytes()).count()
}

fn is_number(entry: &fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The resident memory of a process, with its share of the pages that it has in common with others: the two processes
/// are of one program, whose pages must not be counted twice.
fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    bytes_of(pid, &["Pss:"])
}

/// What would be free without the process.
fn private_bytes(pid: u32) -> anyhow::Result<f64> {
    bytes_of(pid, &["Private_Clean:", "Private_Dirty:"])
}

fn bytes_of(pid: u32, names: &[&str]) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| {
        format!("cannot read {path}; the programs show their memory to nobody but root, so run this one as root")
    })?;
    let bytes = names.iter().map(|name| bytes_in(&rollup, name));
    bytes.sum::<Option<f64>>().with_context(|| format!("{path} lacks one of {names:?}"))
}

fn bytes_in(rollup: &str, name: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_rollup() {
        assert_eq!(bytes_in("Rss:\t  9000 kB\nPss:     8000 kB\nPss_Dirty: 1 kB\n", "Pss:"), Some(8_192_000.0));
        assert_eq!(bytes_in("Rss: 1 kB\n", "Pss:"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000.0);
        assert!(private_bytes(std::process::id()).unwrap() > 100_000.0);
    }

    #[test]
    fn sleepers_are_counted_by_their_seconds() {
        let seconds = format!("60.{}5", std::process::id());
        assert_eq!(sleepers(&seconds), 0);
        let mut sleeper = std::process::Command::new("sleep").arg(&seconds).spawn().unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        // It may not be itself yet right after its start.
        while sleepers(&seconds) != 1 {
            assert!(std::time::Instant::now() < end, "the process is not found");
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(sleepers(&seconds), 0);
    }
}
