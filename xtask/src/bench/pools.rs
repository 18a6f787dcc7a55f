//! Several pools in one daemon: what they cost when all work, and what jobs that wait in one of them cost the others.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::consumer::{self, Node};
use super::latency::{self, User};
use super::memory;
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::command;
use crate::env_file::write_private;
use crate::processes::{LocalEdge, clear_settings};
use crate::release;
use crate::workspace::{Profile, Workspace};

const JOBS: usize = 10_000;
const PAIRS: usize = 5;
const POOLS: usize = 4;
/// Jobs that wait while others are timed.
const HELD: usize = 10_000;
/// Jobs that wait while the memory is measured.
const MANY: usize = 50_000;
const MEMORY_AIM: f64 = 60e6;
/// How long until so many are accepted.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let (mut several, mut one) = (Vec::new(), Vec::new());
    for round in 0..PAIRS {
        several.push(throughput(workspace, &subfolder(folder, &format!("several-{round}"))?, POOLS)?);
        one.push(throughput(workspace, &subfolder(folder, &format!("one-{round}"))?, 1)?);
    }
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for round in 0..PAIRS {
        let folder = |name: &str| subfolder(folder, &format!("{name}-{round}"));
        beside.push(median(&waiting(workspace, Profile::Release, &folder("beside")?, HELD)?.seconds));
        alone.push(median(&waiting(workspace, Profile::Release, &folder("alone")?, 0)?.seconds));
    }
    // Of the daemon that users have: the pages of the program itself are a fifth of it.
    release::build(workspace)?;
    let bytes = waiting(workspace, Profile::Dist, &subfolder(folder, "many")?, MANY)?.bytes;
    Ok(vec![
        Row {
            measure: format!("hpc-consumer: jobs of /bin/true per second, bare, in {POOLS} pools in turn, against one"),
            here: format!("{:.0}/s", median(&several)),
            against: format!("{:.0}/s", median(&one)),
            ratio: median(&ratios(&several, &one)),
            aim: Aim::AtLeast(0.95),
        },
        Row {
            measure: format!(
                "hpc-consumer: from POST /jobs to the result of a job in a free pool, while {HELD} wait in another, \
                 against an idle daemon, p50"
            ),
            here: format!("{:.1} ms", median(&beside) * 1e3),
            against: format!("{:.1} ms", median(&alone) * 1e3),
            ratio: median(&ratios(&beside, &alone)),
            aim: Aim::Under(1.2),
        },
        Row {
            measure: format!(
                "hpc-consumer, as released: resident memory with {MANY} jobs that wait in a pool, keeper included"
            ),
            here: format!("{:.1} MB", bytes / 1e6),
            against: format!("{:.0} MB, the aim", MEMORY_AIM / 1e6),
            ratio: bytes / MEMORY_AIM,
            aim: Aim::Under(1.0),
        },
    ])
}

/// Jobs per second in so many pools, which have as many slots together as one has.
fn throughput(workspace: &Workspace, folder: &Path, pools: usize) -> anyhow::Result<f64> {
    let slots = POOLS / pools;
    let site = (0..pools).map(|pool| {
        format!("[pool.p{pool}]\nruntime = \"bare\"\ncommand = [\"/bin/true\"]\ncapacity = {{ cpus = {slots} }}\n")
    });
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    let jobs: Vec<Value> = (0..pools).map(|pool| json!({"task": "true", "pool": format!("p{pool}")})).collect();
    consumer::submit_in_turn(&edge, &jobs, JOBS)?;
    rustix::fs::sync();
    let mut command = node.command(workspace, &edge);
    command.env("SITE_FILE", site_file(folder, &site.collect::<String>())?);
    Ok(JOBS as f64 / node.seconds_for(&edge, command, JOBS)?)
}

/// What was measured of a daemon in which jobs wait.
struct Waiting {
    /// The time of each job in a free pool.
    seconds: Vec<f64>,
    /// Of daemon and keeper.
    bytes: f64,
}

/// A daemon in whose full pool so many jobs wait, and whose other pool is free.
fn waiting(workspace: &Workspace, profile: Profile, folder: &Path, held: usize) -> anyhow::Result<Waiting> {
    let site = format!(
        "[pool.full]\nruntime = \"bare\"\ncommand = [\"sleep\", \"600\"]\ncapacity = {{ cpus = 1 }}\nhold = {MANY}\n\
         [pool.free]\nruntime = \"bare\"\ndefault = true\ncommand = [\"/bin/true\"]\ncapacity = {{ cpus = 2 }}\n"
    );
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::built(profile, folder, "node")?;
    if held > 0 {
        consumer::submit(&edge, &json!({"task": "sleep", "pool": "full"}), held + 1)?;
    }
    let interval = latency::POLL_INTERVAL.as_secs_f64().to_string();
    let mut command = node.command(workspace, &edge);
    command
        .env("SITE_FILE", site_file(folder, &site)?)
        .env("BATCH_SIZE", "100")
        .env("POLL_INTERVAL_SECONDS", &interval)
        .env("POLL_INTERVAL_MAX_SECONDS", &interval);
    let mut daemon = node.start(command)?;
    daemon.process.wait_for(&format!("{held} jobs waited"), PATIENCE, |_| {
        thread::sleep(Duration::from_millis(500));
        (held_in(workspace, &node, "full").unwrap_or(0) >= held).then_some(())
    })?;
    let (seconds, bytes) = (latency::of_jobs(&mut daemon, &mut User::of(&edge)?)?, memory::of_both(&mut daemon)?);
    daemon.stop()?;
    Ok(Waiting { seconds, bytes })
}

/// How many jobs wait in a pool, as the daemon says.
pub(super) fn held_in(workspace: &Workspace, node: &Node, pool: &str) -> anyhow::Result<usize> {
    let mut command = Command::new(workspace.program(Profile::Release, "hpc-consumer"));
    clear_settings(&mut command);
    command.args(["pools", "--output", "json"]).env("STATE_DIR", node.state());
    let told: Value = serde_json::from_slice(&command::output(&mut command)?.stdout)?;
    let pools = told["pools"].as_array().context("no pools are told")?;
    let known = pools.iter().find(|known| known["pool"] == pool).context("there is no such pool")?;
    Ok(known["held"].as_u64().and_then(|held| usize::try_from(held).ok()).unwrap_or(0))
}

pub(super) fn site_file(folder: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join("site.toml");
    write_private(&path, text)?;
    Ok(path)
}
