//! What the daemon adds to the time of a container: jobs with one slot, against a shell loop of the very same command.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::table::{Aim, Row};
use super::{consumer, median, ratios, subfolder};
use crate::processes::{LocalEdge, clear_settings};
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};
use crate::{command, image};

const JOBS: usize = 100;
const ROUNDS: usize = 5;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::IMAGE)?;
    let image = image::build(workspace, &tools)??;
    let apptainer = &tools.get(Kind::Apptainer)?.path;
    let with_runtime = |command: &mut Command| {
        command.env("RUNTIME", "apptainer").env("APPTAINER_BIN", apptainer).env("APPTAINER_IMAGE", &image);
    };
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;

    let daemon = |round: usize| -> anyhow::Result<f64> {
        let results = subfolder(folder, &format!("results-{round}"))?;
        consumer::submit(&edge, &json!({"task": "echo", "input": {"round": round}}), JOBS)?;
        let mut command = consumer::command(workspace, &edge, &results);
        with_runtime(&mut command);
        command.env("MAX_PARALLEL_JOBS", "1");
        consumer::seconds_for(command, folder, &results, JOBS)
    };
    let shell = |round: usize| -> anyhow::Result<f64> {
        let jobs = subfolder(folder, &format!("shell-{round}"))?;
        let mut script = "set -e\n".to_owned();
        for job in 0..JOBS {
            let directory = subfolder(&jobs, &job.to_string())?;
            fs::write(directory.join("input.json"), json!({"task": "echo", "input": {"round": round}}).to_string())?;
            let mut show = Command::new(workspace.program(Profile::Release, "hpc-consumer"));
            show.arg("command").arg("--env-file").arg(&edge.env_file).arg("--job-dir").arg(&directory);
            with_runtime(&mut show);
            clear_settings(&mut show);
            let line = command::capture(&mut show)?;
            let logs = ["stdout.log", "stderr.log"].map(|name| command::quoted(directory.join(name)));
            script.push_str(&format!("( {} ) > {} 2> {}\n", line.trim(), logs[0], logs[1]));
        }
        let file = jobs.join("loop.sh");
        fs::write(&file, script)?;
        run_loop(&file, &jobs)
    };

    // The first container reads everything from the disk; that round does not count.
    shell(ROUNDS)?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            ours.push(daemon(round)?);
            others.push(shell(round)?);
        } else {
            others.push(shell(round)?);
            ours.push(daemon(round)?);
        }
    }
    Ok(vec![Row {
        measure: format!("hpc-consumer: {JOBS} jobs in Apptainer, one slot, against a shell loop of the same command"),
        here: format!("{:.2} s", median(&ours)),
        against: format!("{:.2} s", median(&others)),
        ratio: median(&ratios(&ours, &others)),
        aim: Aim::Under(1.05),
    }])
}

/// The seconds that the loop takes; every job in it must have left its output.
fn run_loop(file: &Path, jobs: &Path) -> anyhow::Result<f64> {
    let log = File::create(jobs.join("loop.log"))?;
    let begin = Instant::now();
    let status = Command::new("sh")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("cannot start sh")?;
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        bail!("the shell loop {} ended with {status}", file.display());
    }
    for job in 0..JOBS {
        let output = jobs.join(job.to_string()).join("output.json");
        if !output.is_file() {
            bail!("the shell loop left no {}", output.display());
        }
    }
    Ok(seconds)
}
