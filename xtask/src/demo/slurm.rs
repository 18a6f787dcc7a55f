//! `cargo xtask demo --slurm`: a pool that grows from nothing to its quota and back, on a real Slurm of two nodes.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Laptop, daemon, own_folder, with_settings};
use crate::cluster::Cluster;
use crate::http::Connection;
use crate::local::{self, Runtime};
use crate::processes::{LocalEdge, Process, clear_settings};
use crate::report::Report;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};
use crate::{command, env_file};

const JOBS: usize = 24;
const NODES: usize = 2;

/// The most allocations at a time.
const QUOTA: usize = 3;

/// How long all of it may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often the queue of Slurm is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the demo.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let (folder, _lock) = own_folder(workspace)?;
    let mut report = Report::new();

    report.step("Get the tools");
    let kinds: Vec<Kind> = Kind::LOCAL.into_iter().chain([Kind::Slurm24]).collect();
    let tools = Tools::set_up(workspace, &kinds)?;
    tools.print();

    report.step("Build the programs and the runtime image");
    let runtime = local::build(workspace, &tools, &report)?;
    workspace.build(Profile::Dev, &["hpc-queue-tests"])?;

    let began = Instant::now();
    report.step("Start a Slurm of two nodes, and the edge and the queues of this machine");
    let cluster = Cluster::start(workspace, &tools, &folder, NODES)?;
    report.note(format!("To look into it from elsewhere:\n{}", cluster.exports()));
    let edge = LocalEdge::start(workspace, Profile::Dev, &folder)?;

    report.step("Say what runs on the cluster, and where: a pool in Slurm");
    let site_file = folder.join("site.toml");
    let site = site(&runtime);
    env_file::write_private(&site_file, &site)?;
    report.note(site.trim_end());
    let mut check = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
    check.args(["site", "check"]).arg(&site_file);
    report.command(command::line(&check));
    clear_settings(&mut check);
    check.envs(cluster.environment());
    report.note(String::from_utf8_lossy(&command::output(&mut check)?.stdout).trim_end());

    report.step("Start the daemon, as on a login node");
    let mut daemon = daemon(workspace, &folder, &edge.env_file, &runtime);
    daemon.env("SITE_FILE", &site_file);
    report.command(with_settings(&daemon));
    daemon.envs(cluster.environment());
    let mut daemon = Process::start("hpc-consumer", &mut daemon, &folder)?;
    report.note(format!("With nothing to do, Slurm has {} allocations of it.", cluster.allocations()?.0));

    report.step(format!("Submit {JOBS} jobs, and watch the pool grow and shrink"));
    let ids = submit(&edge)?;
    let laptop = Laptop { workspace, env_file: &edge.env_file, folder: &folder };
    let mut words = vec!["wait"];
    words.extend(ids.iter().map(String::as_str));
    let mut wait = laptop.command(&words);
    wait.args(["--output", "json"]).env("RESULTS_POLL_INTERVAL_SECONDS", "0.5");
    let mut waiting = Process::start("laptop-consumer", &mut wait, &folder)?;
    let (most, problem) = watch(&report, workspace, &folder, &cluster, &mut waiting)?;

    report.step("Look at the results");
    let mut problems: Vec<String> = problem.into_iter().collect();
    let results: Vec<Value> = waiting.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let good = |result: &&Value| result["status"] == "completed" && result["slurm_job_id"].is_string();
    let completed = results.iter().filter(good).count();
    report.note(format!(
        "{completed} of {JOBS} completed in allocations of Slurm, {most} of which were there at the most."
    ));
    if completed != JOBS {
        problems.push(format!("{completed} of {JOBS} jobs completed in Slurm"));
    }
    if !(2..=QUOTA).contains(&most) {
        problems.push(format!("there were {most} allocations at the most, and 2 to {QUOTA} should have been"));
    }

    report.step("Ask why the pool was as large as it was");
    let mut replay = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
    replay.args(["scaling", "replay"]).arg(folder.join("state/slurm/scaling.jsonl"));
    report.command(command::line(&replay));
    clear_settings(&mut replay);
    let told = String::from_utf8_lossy(&command::output(&mut replay)?.stdout).into_owned();
    let mut lines: Vec<&str> = told.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
    lines.dedup();
    report.note(lines.join("\n"));

    report.step("Stop everything");
    let mut stopped = daemon.stop();
    let LocalEdge { process: mut edge, .. } = edge;
    stopped &= edge.stop();
    drop(cluster);
    if !stopped {
        problems.push("a program did not end when it was asked to, and was killed".to_owned());
    }
    if problems.is_empty() {
        report.close(
            true,
            format!("From nothing to {most} allocations and back, in {:.1} s.", began.elapsed().as_secs_f64()),
        );
        Ok(ExitCode::SUCCESS)
    } else {
        report.close(false, format!("The demo failed.\n{}", problems.join("\n")));
        Ok(ExitCode::FAILURE)
    }
}

/// A pool of small workers that end soon.
fn site(runtime: &Runtime) -> String {
    format!(
        "[quota]\nallocations = {QUOTA}\n\n[pool.cpu]\ndefault = true\n{}\nwhere = \"slurm\"\n\
         slot = {{ cpus = 1, memory = \"200MiB\" }}\nslurm = {{ partition = \"main\", time = \"10m\" }}\n\
         workers = {{ max = 8, slots = 2, idle = \"3s\", pending = {QUOTA} }}\n",
        runtime.pool()
    )
}

fn submit(edge: &LocalEdge) -> anyhow::Result<Vec<String>> {
    let url = format!("{}/jobs/batch", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'));
    let input = json!({"walkers": 20_000, "steps": 3_000, "dimensions": 2, "seed": 7});
    let jobs = vec![json!({"task": "simulate", "input": input}); JOBS];
    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let answer = Connection::new().post(&url, &headers, json!({ "jobs": jobs }).to_string().as_bytes())?.json(202)?;
    let jobs = answer["jobs"].as_array().context("the answer to the batch has no list of jobs")?;
    let id = |job: &Value| job["job_id"].as_str().map(str::to_owned);
    jobs.iter().map(id).collect::<Option<_>>().context("not every job of the batch was accepted")
}

/// Shows what Slurm has whenever that is something else than before, until all jobs have ended and nothing is there.
/// Returns the most that there were, and what went wrong.
fn watch(
    report: &Report,
    workspace: &Workspace,
    folder: &Path,
    cluster: &Cluster,
    waiting: &mut Process,
) -> anyhow::Result<(usize, Option<String>)> {
    let (begin, mut before, mut most) = (Instant::now(), 0, 0);
    let mut pools = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
    pools.arg("pools").env("STATE_DIR", folder.join("state"));
    report.command(with_settings(&pools));
    clear_settings(&mut pools);
    loop {
        let (count, listed) = cluster.allocations()?;
        if count != before {
            report.note(format!("\nafter {:.1} s: {count} allocations\n{listed}", begin.elapsed().as_secs_f64()));
            report.note(String::from_utf8_lossy(&command::output(&mut pools)?.stdout).trim_end());
        }
        (before, most) = (count, most.max(count));
        if waiting.has_ended()? && count == 0 {
            return Ok((most, None));
        }
        if begin.elapsed() > PATIENCE {
            return Ok((most, Some(format!("after {PATIENCE:?} there were still {count} allocations, or jobs"))));
        }
        std::thread::sleep(LOOK);
    }
}
