//! The hub: what it adds to a submission, how fast `local-edge` stores reports and lists jobs, how soon a job is done
//! on an idle site, and the sizes of what is deployed.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rusqlite::{Connection as Database, OpenFlags};
use serde_json::{Value, json};

use super::consumer::Node;
use super::latency::{self, User};
use super::load::Request;
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::http::Connection;
use crate::processes::LocalEdge;
use crate::tools::{self, Kind, Tools};
use crate::worker::{self, BuiltWorker};
use crate::workerd::Workerd;
use crate::workspace::{Profile, Workspace};

const JOB: &str = r#"{"task":"simulate","input":{"walkers":10000,"steps":500,"dimensions":2,"seed":7}}"#;
const THEN: &str = "2026-11-30T04:00:00.000Z";

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(3);

/// Jobs of one report.
const REPORTED: usize = 200;
const REPORTS: usize = 50;
const REPORT_AIM: f64 = 1_000.0;

const LISTED: i64 = 1_000_000;
const LISTS: usize = 50;
const LIST_AIM: f64 = 0.02;

const SOON: f64 = 0.3;
/// By then the daemon has its link, and has said what it has.
const LINKED: Duration = Duration::from_secs(3);

const WASM_AIM: f64 = 350_000.0;
const PAGE_AIM: f64 = 60_000.0;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::WORKER)?;
    let built = worker::build(workspace, &tools)?;
    let mut rows = vec![submissions(workspace, &tools, &built, &subfolder(folder, "submissions")?)?];
    rows.extend(tables(workspace, &subfolder(folder, "tables")?)?);
    rows.extend(idle(workspace, &subfolder(folder, "idle")?)?);
    rows.extend(sizes(workspace, &built)?);
    Ok(rows)
}

/// The three Workers of `xtask/bench/hub.capnp.in`.
pub(super) fn workers(
    workspace: &Workspace,
    tools: &Tools,
    built: &BuiltWorker,
    folder: &Path,
    edge: &LocalEdge,
) -> anyhow::Result<Workerd> {
    let own = workspace.root.join("xtask/bench");
    let template = fs::read_to_string(own.join("hub.capnp.in")).context("cannot read xtask/bench/hub.capnp.in")?;
    let mut modules = built.modules().to_vec();
    modules.push(own.join("counted.mjs"));
    let program = tools::workerd(&tools.get(Kind::NodePackages)?.path);
    Workerd::start(&program, folder, &modules, &template, &edge.settings)
}

/// `POST /jobs` with the hub against without it, in one workerd.
fn submissions(workspace: &Workspace, tools: &Tools, built: &BuiltWorker, folder: &Path) -> anyhow::Result<Row> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let workerd = workers(workspace, tools, built, folder, &edge)?;
    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let url = |socket| workerd.url(socket).map(|url| format!("{url}/jobs"));
    let (hub, bare) = (url("http-hub")?, url("http-bare")?);
    let per_second = |url: &str| {
        Request { url, headers: &headers, body: JOB.as_bytes(), status: 202 }.per_second(CONNECTIONS, ROUND)
    };
    per_second(&hub)?;
    per_second(&bare)?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns, so that a queue that grows favors neither.
        if round % 2 == 0 {
            ours.push(per_second(&hub)?);
            others.push(per_second(&bare)?);
        } else {
            others.push(per_second(&bare)?);
            ours.push(per_second(&hub)?);
        }
    }
    Ok(Row {
        measure: "Worker: POST /jobs per second, with the hub against without, object and Worker on one thread"
            .to_owned(),
        here: format!("{:.0}/s", median(&ours)),
        against: format!("{:.0}/s", median(&others)),
        ratio: median(&ratios(&ours, &others)),
        aim: Aim::AtLeast(0.9),
    })
}

/// What `local-edge` stores of reports in a second, and how long it takes to list 50 of a million jobs.
fn tables(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let reported = reported_per_second(&edge)?;
    let file = folder.join("edge/hub.sqlite");
    let mut process = edge.process;
    ensure!(process.stop(), "local-edge did not end when it was asked to");
    fs::remove_file(&edge.env_file).context("cannot remove the env file")?;
    copy_jobs(&file, LISTED).with_context(|| format!("cannot fill {}", file.display()))?;
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let mut rows = vec![Row {
        measure: "local-edge: jobs per second that sites report to the hub as held, as running and as completed"
            .to_owned(),
        here: format!("{reported:.0}/s"),
        against: format!("{REPORT_AIM:.0}/s, the aim"),
        ratio: reported / REPORT_AIM,
        aim: Aim::AtLeast(1.0),
    }];
    for (what, query) in
        [("", "limit=50"), (" in one state", "limit=50&state=completed"), (" of one task", "limit=50&task=b")]
    {
        let seconds = list(&edge, query)?;
        rows.push(Row {
            measure: format!("local-edge: a list of 50 out of a million jobs{what}"),
            here: format!("{:.1} ms", seconds * 1e3),
            against: format!("{:.0} ms, the aim", LIST_AIM * 1e3),
            ratio: seconds / LIST_AIM,
            aim: Aim::Under(1.0),
        });
    }
    Ok(rows)
}

fn reported_per_second(edge: &LocalEdge) -> anyhow::Result<f64> {
    let url = format!("{}/report", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'));
    let headers = [("x-site-key", edge.settings.get("SITE_KEY")?)];
    let connection = Connection::new();
    let hello = json!({"type": "hello", "v": 1, "site": "alpha", "daemon": "d", "results": "r"});
    let begin = Instant::now();
    for report in 0..REPORTS {
        for (state, attempt) in [("held", 0), ("running", 1), ("completed", 1)] {
            let job = |number: usize| {
                let id = format!("{report:08}-0000-4000-8000-{number:012}");
                let mut job = json!({
                    "job_id": id, "state": state, "attempt": attempt, "at": THEN, "task": "simulate", "pool": "cpu"
                });
                if state == "completed" {
                    job["result"] = json!({"job_id": id, "status": "completed", "output": {"mean": 1.5}});
                }
                job
            };
            let jobs: Vec<Value> = (0..REPORTED).map(job).collect();
            let body = json!({"up": [hello, {"type": "report", "number": 1, "jobs": jobs}]}).to_string();
            connection.post(&url, &headers, body.as_bytes())?.json(200)?;
        }
    }
    Ok((REPORTS * REPORTED) as f64 / begin.elapsed().as_secs_f64())
}

/// Copies one of the jobs in the tables of a hub that does not run, each under an id of its own.
fn copy_jobs(file: &Path, copies: i64) -> anyhow::Result<()> {
    let database = Database::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let inserted = database.execute(
        "WITH RECURSIVE copies(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < ?1)
         INSERT INTO job (job_id, state, task, name, pool, site, updated_at, cancelling, view, input, result)
         SELECT lower(hex(randomblob(16))), state, iif(copies.number % 100, 'a', 'b'), name, pool, site, updated_at,
                cancelling, view, input, result
         FROM copies, (SELECT * FROM job LIMIT 1) AS one",
        [copies],
    )?;
    ensure!(i64::try_from(inserted) == Ok(copies), "{inserted} of {copies} jobs were added");
    Ok(())
}

/// The seconds of one list, the median of some.
fn list(edge: &LocalEdge, query: &str) -> anyhow::Result<f64> {
    let url = format!("{}/jobs?{query}", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'));
    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let connection = Connection::new();
    let one = || {
        let begin = Instant::now();
        let page = connection.get(&url, &headers)?.json(200)?;
        let seconds = begin.elapsed().as_secs_f64();
        let jobs = page["jobs"].as_array().map_or(0, Vec::len);
        ensure!(jobs == 50, "{query} lists {jobs} jobs and not 50");
        Ok(seconds)
    };
    one()?;
    Ok(median(&(0..LISTS).map(|_| one()).collect::<anyhow::Result<Vec<f64>>>()?))
}

/// From `POST /jobs` to the result in the queue, with a daemon that is linked and whose polling is the default.
fn idle(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let node = Node::new(folder, "node")?;
    let mut command = node.bare(workspace, &edge, "/bin/true", 2);
    command.env_remove("POLL_INTERVAL_SECONDS").env_remove("POLL_INTERVAL_MAX_SECONDS");
    let mut daemon = node.start(command)?;
    thread::sleep(LINKED);
    let seconds = latency::of_jobs(&mut daemon, &mut User::of(&edge)?)?;
    daemon.stop()?;
    let row = |what: &str, value: f64, aim: f64| Row {
        measure: format!(
            "hpc-consumer: from POST /jobs to the result in the queue, idle, linked, polling as by default, {what}"
        ),
        here: format!("{:.1} ms", value * 1e3),
        against: format!("{:.0} ms, the aim", aim * 1e3),
        ratio: value / aim,
        aim: Aim::Under(1.0),
    };
    Ok(vec![row("p50", median(&seconds), SOON), row("p95", latency::percentile(&seconds, 95), 1.0)])
}

fn sizes(workspace: &Workspace, built: &BuiltWorker) -> anyhow::Result<Vec<Row>> {
    let page = worker::gzip_bytes(&workspace.root.join("crates/page/dist/index.html"))? as f64;
    // The page is in the WASM as it is: what is left is the code.
    let code = built.size()?.wasm_gzip as f64 - page;
    let row = |what: &str, size: f64, aim: f64| Row {
        measure: format!("Worker: size of {what} after gzip"),
        here: format!("{:.1} KB", size / 1000.0),
        against: format!("{:.0} KB, the aim", aim / 1000.0),
        ratio: size / aim,
        aim: Aim::Under(1.0),
    };
    Ok(vec![row("the WASM without the page", code, WASM_AIM), row("the page", page, PAGE_AIM)])
}
