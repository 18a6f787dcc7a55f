//! What it costs the start of a container that it has no network, a filter of system calls and a read-only `/sys`:
//! starts with all of it and with none, in turns, from the lines that `hpc-consumer command` prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::table::{Aim, Row};
use super::{median, subfolder};
use crate::processes::clear_settings;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};
use crate::{command, image};

const PAIRS: usize = 200;
const AIM_MS: f64 = 5.0;

/// Takes all of it away again.
const WITHOUT: [(&str, &str); 3] = [("JOB_NETWORK", "host"), ("JOB_SECCOMP", "none"), ("APPTAINER_BIND", "/sys")];

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::IMAGE)?;
    let image = image::build(workspace, &tools)??;
    let apptainer = &tools.get(Kind::Apptainer)?.path;
    let line = |name: &str, settings: &[(&str, &str)]| -> anyhow::Result<String> {
        let directory = subfolder(folder, name)?;
        fs::write(directory.join("input.json"), r#"{"job_id":"j1","task":"echo","input":1,"metadata":null}"#)?;
        let mut show = Command::new(workspace.program(Profile::Release, "hpc-consumer"));
        show.arg("command").arg("--job-dir").arg(&directory).env("STATE_DIR", folder.join("state"));
        show.env("RUNTIME", "apptainer").env("APPTAINER_BIN", apptainer).env("APPTAINER_IMAGE", &image);
        show.envs(settings.iter().copied());
        clear_settings(&mut show);
        command::capture(&mut show)
    };
    let (with, without) = (line("with", &[])?, line("without", &WITHOUT)?);
    // The first containers read everything from the disk.
    for line in [&with, &without] {
        start(line)?;
    }
    let (mut ours, mut more) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let (own, other) = if pair % 2 == 0 {
            let own = start(&with)?;
            (own, start(&without)?)
        } else {
            let other = start(&without)?;
            (start(&with)?, other)
        };
        ours.push(own);
        more.push(own - other);
    }
    Ok(vec![Row {
        measure: "hpc-consumer: what its containment adds to the start of a container".to_owned(),
        here: format!("{:.1} ms, of {:.0} ms", median(&more), median(&ours)),
        against: format!("{AIM_MS} ms, the aim"),
        ratio: median(&more) / AIM_MS,
        aim: Aim::Under(1.0),
    }])
}

/// The milliseconds of one container, from its start to its end.
fn start(line: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let status = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.context("cannot start sh")?;
    ensure!(status.success(), "a container ended with {status}: {line}");
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
