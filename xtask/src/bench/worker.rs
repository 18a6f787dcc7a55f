//! The compiled Worker against plain JavaScript that does the same: both in one workerd, with the same queue behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::load::Request;
use super::table::{Aim, Row};
use super::{median, ratios};
use crate::processes::LocalEdge;
use crate::tools::{self, Kind, Tools};
use crate::worker;
use crate::workerd::Workerd;
use crate::workspace::{Profile, Workspace};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(3);

const JOB: &str = r#"{"task":"simulate","input":{"walkers":10000,"steps":500,"dimensions":2,"seed":7},"metadata":{"project":"diffusion","run":17,"note":"a job of the usual size, with a few words of the user's own"}}"#;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::WORKER)?;
    let built = worker::build(workspace, &tools)?;
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let own = workspace.root.join("xtask/bench");
    let template =
        fs::read_to_string(own.join("workerd.capnp.in")).context("cannot read xtask/bench/workerd.capnp.in")?;
    let mut modules = built.modules().to_vec();
    modules.push(own.join("plain-worker.mjs"));
    let program = tools::workerd(&tools.get(Kind::NodePackages)?.path);
    let workerd = Workerd::start(&program, folder, &modules, &template, &edge.settings)?;

    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let urls = ["http-wasm", "http-plain"].map(|socket| workerd.url(socket).map(|url| format!("{url}/jobs")));
    let [wasm, plain] = urls;
    let (wasm, plain) = (wasm?, plain?);
    let per_second = |url: &str| {
        Request { url, headers: &headers, body: JOB.as_bytes(), status: 202 }.per_second(CONNECTIONS, ROUND)
    };
    // Both compile their code while they are warm; the first round of each does not count.
    per_second(&wasm)?;
    per_second(&plain)?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns, so that a queue that grows favors neither.
        if round % 2 == 0 {
            ours.push(per_second(&wasm)?);
            others.push(per_second(&plain)?);
        } else {
            others.push(per_second(&plain)?);
            ours.push(per_second(&wasm)?);
        }
    }
    let (gzip, most) = (built.size()?.wasm_gzip as f64, worker::GZIP_BYTES_MAX as f64);
    Ok(vec![
        Row {
            measure: "Worker: requests per second, WASM against plain JavaScript".to_owned(),
            here: format!("{:.0}/s", median(&ours)),
            against: format!("{:.0}/s", median(&others)),
            ratio: median(&ratios(&ours, &others)),
            aim: Aim::AtLeast(1.0),
        },
        Row {
            measure: "Worker: size of the WASM after gzip".to_owned(),
            here: format!("{:.1} KB", gzip / 1000.0),
            against: format!("{:.0} KB, the limit", most / 1000.0),
            ratio: gzip / most,
            aim: Aim::Under(1.0),
        },
    ])
}
