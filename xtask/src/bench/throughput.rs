//! Jobs that do nothing, without a container, from the queue to the final record: all that is left is our own cost.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use super::table::{Aim, Row};
use super::{consumer, median, ratios, subfolder};
use crate::command;
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const JOBS: usize = 500;
const ROUNDS: usize = 4;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let results = subfolder(folder, &format!("results-{round}"))?;
        consumer::submit(&edge, &json!({"task": "true"}), JOBS)?;
        let mut command = consumer::command(workspace, &edge, &results);
        command.env("RUNTIME", "bare").env("CONTAINER_CMD", "/bin/true").env("MAX_PARALLEL_JOBS", "2");
        ours.push(JOBS as f64 / consumer::seconds_for(command, folder, &results, JOBS)?);
        others.push(JOBS as f64 / xargs()?);
    }
    Ok(vec![Row {
        measure: "hpc-consumer: jobs of /bin/true per second, bare, two slots, against xargs -P2 -n1".to_owned(),
        here: format!("{:.0}/s", median(&ours)),
        against: format!("{:.0}/s", median(&others)),
        ratio: median(&ratios(&ours, &others)),
        aim: Aim::None,
    }])
}

/// The seconds that xargs takes for as many.
fn xargs() -> anyhow::Result<f64> {
    let begin = Instant::now();
    command::capture(Command::new("sh").args(["-c", &format!("seq {JOBS} | xargs -P2 -n1 /bin/true")]))?;
    Ok(begin.elapsed().as_secs_f64())
}
