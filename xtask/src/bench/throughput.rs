//! Jobs that do nothing, without a container, from the queue to the queue of results: all that is left is our own cost.
//! The floor is what `xargs` takes to start as many, right before and right after.
//!
//! And the requests to the API of the queues for as many, counted in a round of their own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::consumer::{self, Node};
use super::results::Results;
use super::table::{Aim, Row};
use super::{access_log, median, ratios, subfolder};
use crate::command;
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const JOBS: usize = 10_000;
const ROUNDS: usize = 3;
const PAIRS: usize = 5;
const SLOTS: usize = 2;
const PROGRAM: &str = "/bin/true";
/// Takes away what confines jobs without a container, and what an earlier version does not have.
const UNCONFINED: [(&str, &str); 2] = [("BARE_CONFINEMENT", "none"), ("SESSION_KEYRING", "inherited")];
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut ours = Vec::new();
    let mut floors = vec![xargs()?];
    for round in 0..ROUNDS {
        ours.push(daemon(workspace, &subfolder(folder, &format!("round-{round}"))?, &[])?);
        floors.push(xargs()?);
    }
    let mut unconfined = Vec::new();
    let mut confined = Vec::new();
    for round in 0..PAIRS {
        unconfined.push(daemon(workspace, &subfolder(folder, &format!("unconfined-{round}"))?, &UNCONFINED)?);
        confined.push(daemon(workspace, &subfolder(folder, &format!("confined-{round}"))?, &[])?);
    }
    let floors: Vec<f64> = floors.windows(2).map(|around| f64::midpoint(around[0], around[1])).collect();
    let requests = requests(workspace, &subfolder(folder, "requests")?)?;
    Ok(vec![
        Row {
            measure: "hpc-consumer: jobs of /bin/true per second, bare, two slots, against xargs -P2 -n1".to_owned(),
            here: format!("{:.0}/s", median(&ours)),
            against: format!("{:.0}/s", median(&floors)),
            ratio: median(&ratios(&ours, &floors)),
            aim: Aim::AtLeast(0.6),
        },
        Row {
            measure: "hpc-consumer: the same, confined against not confined".to_owned(),
            here: format!("{:.0}/s", median(&confined)),
            against: format!("{:.0}/s", median(&unconfined)),
            ratio: median(&ratios(&confined, &unconfined)),
            aim: Aim::AtLeast(0.95),
        },
        Row {
            measure: "hpc-consumer: requests to the queues per job under load".to_owned(),
            here: format!("{requests} requests"),
            against: format!("{JOBS} jobs"),
            ratio: requests as f64 / JOBS as f64,
            aim: Aim::Under(0.1),
        },
    ])
}

/// The same jobs with the programs of an earlier commit, in turns, and without what that does not have.
pub(super) fn against(workspace: &Workspace, earlier: &Workspace, name: &str, folder: &Path) -> anyhow::Result<Row> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..PAIRS {
        ours.push(daemon(workspace, &subfolder(folder, &format!("today-{round}"))?, &UNCONFINED)?);
        theirs.push(daemon(earlier, &subfolder(folder, &format!("earlier-{round}"))?, &UNCONFINED)?);
    }
    Ok(Row {
        measure: "all programs: jobs of /bin/true per second, bare, two slots, against an earlier commit".to_owned(),
        here: format!("{:.0}/s", median(&ours)),
        against: format!("{:.0}/s, {name}", median(&theirs)),
        ratio: median(&ratios(&ours, &theirs)),
        aim: Aim::AtLeast(1.1),
    })
}

/// Jobs per second, from the start of the daemon until all results are in the queue.
fn daemon(workspace: &Workspace, folder: &Path, settings: &[(&str, &str)]) -> anyhow::Result<f64> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    consumer::submit(&edge, &json!({"task": "true"}), JOBS)?;
    settle();
    let mut command = node.bare(workspace, &edge, PROGRAM, SLOTS);
    command.envs(settings.iter().copied());
    let seconds = node.seconds_for(&edge, command, JOBS)?;
    Ok(JOBS as f64 / seconds)
}

/// Processes per second.
fn xargs() -> anyhow::Result<f64> {
    settle();
    let begin = Instant::now();
    let line = format!("seq {JOBS} | xargs -P{SLOTS} -n1 {PROGRAM}");
    command::capture(Command::new("sh").args(["-c", &line]))?;
    Ok(JOBS as f64 / begin.elapsed().as_secs_f64())
}

/// What came before may have left the system much to write; that must not slow down what comes next.
fn settle() {
    rustix::fs::sync();
}

/// All requests of a daemon to the API of the queues, from its start to its end.
fn requests(workspace: &Workspace, folder: &Path) -> anyhow::Result<usize> {
    let edge = access_log::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    consumer::submit(&edge, &json!({"task": "true"}), JOBS)?;
    let mut command = node.bare(workspace, &edge, PROGRAM, SLOTS);
    command.arg("--exit-when-idle");
    node.start(command)?.ends_by_itself(PATIENCE)?;
    let count = access_log::requests(&edge, "/client/v4/");
    // Only now: what the check asks for is not the daemon's.
    Results::of(&edge)?.take(JOBS)?;
    Ok(count)
}
