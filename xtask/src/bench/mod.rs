//! `cargo xtask bench`: the measures, each against something in the same run, so that the ratio means the same on every
//! machine. Release builds of the programs, real parts, nothing simulated.

mod access_log;
mod at_once;
mod consumer;
mod containment;
mod costs;
mod edge;
mod files;
mod hub;
mod idle;
mod latency;
mod load;
mod machine;
mod memory;
mod mosaic;
mod overhead;
mod parking;
mod pools;
mod results;
mod slurm;
mod startup;
mod table;
mod throughput;
mod worker;
mod workflows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::earlier;
use crate::page;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};

/// A group of measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Requests per second and size of the compiled Worker
    Worker,
    /// Messages per second through the queues of local-edge
    Edge,
    /// What the hub adds to a submission, and how fast it stores and lists
    Hub,
    /// What the hub costs for a job and for a day, counted; it prints what stands in docs/costs.md
    Costs,
    /// Files to the store and back, against curl and cp, and what the laptop has in memory meanwhile
    Files,
    /// What the daemon adds to the time of a container
    Overhead,
    /// What its containment adds to the start of a container
    Containment,
    /// Jobs per second without a container, and requests to the queues per job
    Throughput,
    /// The time of one job in an idle system
    Latency,
    /// Resident memory of the daemon and its keeper, idle and under load
    Memory,
    /// The programs as they are released, with nothing to do: size, --help, memory, processor, looks at the queue
    Idle,
    /// What several pools cost, and what jobs that wait in one cost the others
    Pools,
    /// What a round of parking costs in time and memory, and what it saves of held processors
    Parking,
    /// Workflows as one message: against the simulation of their traces, single submissions, and HyperFlow's engine
    Workflows,
    /// Jobs in a worker of a real Slurm, against jobs here and against sbatch and srun
    Slurm,
    /// The time until a daemon that has run a million jobs takes the next one
    Startup,
}

/// How large parts are of which that may be said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The file of the part `files`.
    pub(crate) gigabytes: u64,
    /// The jobs of the part `slurm`.
    pub(crate) jobs: usize,
}

/// Measures the parts, or all of them, prints the table and keeps it.
pub(crate) fn run(workspace: &Workspace, parts: &[Part], sizes: &Sizes) -> anyhow::Result<ExitCode> {
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    // Without its tools, an edge with the page of a few lines is measured.
    let _ = page::build_with(workspace, &Tools::set_up(workspace, &[Kind::PagePackages])?)?;
    if parts.iter().any(|part| *part != Part::Idle) {
        workspace.build(Profile::Release, &["local-edge", "hpc-consumer", "laptop-consumer"])?;
    }
    let mut rows = Vec::new();
    for part in parts {
        eprintln!("Measuring: {}", format!("{part:?}").to_lowercase());
        // A folder for each part: what one leaves behind must not slow down the next.
        let folder = folder(workspace)?;
        let measured = match part {
            Part::Worker => worker::measure(workspace, folder.path()),
            Part::Edge => edge::measure(workspace, folder.path()),
            Part::Hub => hub::measure(workspace, folder.path()),
            Part::Costs => costs::measure(workspace, folder.path()),
            Part::Files => files::measure(workspace, folder.path(), sizes.gigabytes),
            Part::Overhead => overhead::measure(workspace, folder.path()),
            Part::Containment => containment::measure(workspace, folder.path()),
            Part::Throughput => throughput::measure(workspace, folder.path()),
            Part::Latency => latency::measure(workspace, folder.path()),
            Part::Memory => memory::measure(workspace, folder.path()),
            Part::Idle => idle::measure(workspace, folder.path()),
            Part::Pools => pools::measure(workspace, folder.path()),
            Part::Parking => parking::measure(workspace, folder.path()),
            Part::Workflows => workflows::measure(workspace, folder.path()),
            Part::Slurm => slurm::measure(workspace, folder.path(), sizes.jobs),
            Part::Startup => startup::measure(workspace, folder.path()),
        };
        rows.extend(measured.with_context(|| format!("cannot measure the part {part:?}"))?);
    }
    keep(workspace, &rows)
}

/// Measures in pairs with the programs of an earlier commit, prints the table and keeps it.
pub(crate) fn against(workspace: &Workspace, commit: &str) -> anyhow::Result<ExitCode> {
    workspace.build(Profile::Release, &["local-edge", "hpc-consumer"])?;
    let (hash, earlier) = earlier::programs(workspace, commit, Profile::Release)?;
    let folder = folder(workspace)?;
    let name = &hash[..hash.len().min(7)];
    let mut rows = vec![throughput::against(workspace, &earlier, name, folder.path())?];
    rows.extend(latency::against(workspace, &earlier, name, folder.path())?);
    keep(workspace, &rows)
}

fn keep(workspace: &Workspace, rows: &[table::Row]) -> anyhow::Result<ExitCode> {
    let document = workspace.root.join("docs/benchmarks.md");
    let table = table::keep(&document, &machine::describe(), &machine::today()?, rows)?;
    println!("\n{table}");
    for row in rows.iter().filter(|row| !row.meets_aim()) {
        println!("Aim missed: {}", row.measure);
    }
    // A miss is a fact to print and to work on; only a measure that cannot be taken is a failure.
    Ok(ExitCode::SUCCESS)
}

/// A folder on the disk of the target directory, not in memory: durability is part of what is measured.
fn folder(workspace: &Workspace) -> anyhow::Result<TempDir> {
    let scratch = workspace.scratch()?;
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&scratch)
        .with_context(|| format!("cannot create a folder in {}", scratch.display()))
}

/// An empty folder within another.
fn subfolder(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// The middle of the values; of an even number, the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The ratios of pairs that were measured next to each other.
fn ratios(ours: &[f64], others: &[f64]) -> Vec<f64> {
    ours.iter().zip(others).map(|(ours, other)| ours / other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]), [2.0, 3.0]);
    }
}
