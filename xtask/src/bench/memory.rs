//! The resident memory of a daemon that has nothing to do.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::table::{Aim, Row};
use super::{consumer, median, subfolder};
use crate::processes::{LocalEdge, Process};
use crate::workspace::{Profile, Workspace};

const AIM: f64 = 10e6;
/// By then it has polled the empty queue many times, and nothing grows any more.
const SETTLED: Duration = Duration::from_secs(5);
const SAMPLES: usize = 10;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let results = subfolder(folder, "results")?;
    let mut command = consumer::command(workspace, &edge, &results);
    command.env("RUNTIME", "bare").env("CONTAINER_CMD", "/bin/true");
    let mut daemon = Process::start("hpc-consumer", &mut command, folder)?;
    thread::sleep(SETTLED);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        thread::sleep(Duration::from_millis(200));
        if daemon.has_ended()? {
            bail!("the daemon ended instead of waiting for jobs: {}", daemon.log());
        }
        samples.push(resident_bytes(daemon.id())?);
    }
    let bytes = median(&samples);
    Ok(vec![Row {
        measure: "hpc-consumer: resident memory while idle".to_owned(),
        here: format!("{:.1} MB", bytes / 1e6),
        against: format!("{:.0} MB, the aim", AIM / 1e6),
        ratio: bytes / AIM,
        aim: Aim::Under(1.0),
    }])
}

fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    resident_in(&status).with_context(|| format!("{path} has no VmRSS"))
}

fn resident_in(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status() {
        assert_eq!(resident_in("VmHWM:\t  9000 kB\nVmRSS:\t    8000 kB\n"), Some(8_192_000.0));
        assert_eq!(resident_in("Name:\tx\n"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000.0);
    }
}
