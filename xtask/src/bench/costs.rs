//! What the hub costs in a service that counts: requests, messages, rows and time, of a job and of an idle day.
//!
//! A real daemon, linked to the compiled Worker in workerd, whose object counts what Cloudflare counts
//! (`xtask/bench/counted.mjs`). A day is reckoned of what was counted in minutes; the table is that of `docs/costs.md`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::consumer::{Daemon, Node};
use super::results::Results;
use super::table::{Aim, Row};
use super::{access_log, hub};
use crate::http::Connection;
use crate::processes::LocalEdge;
use crate::tools::{Kind, Tools};
use crate::worker;
use crate::workerd::Workerd;
use crate::workspace::{Profile, Workspace};

/// The daemon has its link by then, and has told what it has.
const LINKED: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(150);
const DAY: f64 = 86_400.0;

/// Jobs that come alone.
const SINGLE: usize = 60;
/// How long after one the next one comes.
const PAUSE: Duration = Duration::from_millis(400);
/// Jobs that come in batches, and run eight at once.
const MANY: usize = 1_000;
const BATCH: usize = 100;

/// Incoming messages of a WebSocket that are counted as one request.
const MESSAGES_OF_A_REQUEST: f64 = 20.0;
/// What an object is counted to hold, in GB.
const OBJECT_GB: f64 = 0.128;
/// Pings, answered by the runtime, which come in as messages do.
const PINGS_OF_A_DAY: f64 = DAY / 30.0;
/// An idle daemon with a link looks so often.
const POLLS_OF_A_DAY: f64 = DAY / 600.0;

/// The free plan, a day.
const FREE: [(&str, f64); 6] = [
    ("queue operations", 10_000.0),
    ("Worker requests", 100_000.0),
    ("object requests", 100_000.0),
    ("rows written", 100_000.0),
    ("rows read", 5_000_000.0),
    ("GB-seconds", 13_000.0),
];

/// What was counted of something.
type Count = [f64; 6];

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::WORKER)?;
    let built = worker::build(workspace, &tools)?;
    let edge = access_log::start(workspace, Profile::Release, folder)?;
    let workerd = hub::workers(workspace, &tools, &built, folder, &edge)?;
    let run = Run { url: workerd.url("http-counted")?, edge: &edge, workerd: &workerd, connection: Connection::new() };

    let node = Node::new(folder, "node")?;
    let mut command = node.bare(workspace, &edge, "/bin/true", 8);
    command.env_remove("POLL_INTERVAL_SECONDS").env_remove("POLL_INTERVAL_MAX_SECONDS");
    command.env("EDGE_URL", &run.url);
    let mut daemon = node.start(command)?;
    thread::sleep(LINKED);
    daemon.runs()?;

    let begin = Instant::now();
    let idle = run.count(|| {
        thread::sleep(IDLE);
        Ok(())
    })?;
    let days = DAY / begin.elapsed().as_secs_f64();
    let idle = idle.map(|count| count * days);
    let single = run.jobs(&mut daemon, SINGLE, 1)?.map(|count| count / SINGLE as f64);
    let many = run.jobs(&mut daemon, MANY, BATCH)?.map(|count| count / MANY as f64);
    daemon.stop()?;

    // What is known of a day better than by its minutes: polls of the daemon, and pings.
    let idle = [POLLS_OF_A_DAY, idle[1], idle[2] + PINGS_OF_A_DAY / MESSAGES_OF_A_REQUEST, idle[3], idle[4], idle[5]];
    print(&idle, &single, &many);
    let of_2000 = |at: usize| idle[at] + 2_000.0 * single[at];
    let row = |at: usize| {
        let (what, free) = FREE[at];
        Row {
            measure: format!("hub: {what} of a day with 2,000 jobs and a linked site"),
            here: format!("{:.0}", of_2000(at)),
            against: format!("{free:.0}, the free plan"),
            ratio: of_2000(at) / free,
            aim: Aim::Under(1.0),
        }
    };
    Ok((0..FREE.len()).map(row).collect())
}

struct Run<'a> {
    url: String,
    edge: &'a LocalEdge,
    workerd: &'a Workerd,
    connection: Connection,
}

impl Run<'_> {
    /// What is counted while something is done, in the order of [`FREE`].
    fn count(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Count> {
        let before = self.counters()?;
        work()?;
        // Reports that follow the last result.
        thread::sleep(Duration::from_secs(3));
        let after = self.counters()?;
        Ok(std::array::from_fn(|at| after[at] - before[at]))
    }

    fn counters(&self) -> anyhow::Result<Count> {
        let counters = self.connection.get(&format!("{}/counters", self.url), &[])?.json(200)?;
        let of = |name: &str| counters[name].as_f64().with_context(|| format!("no {name} in {counters}"));
        let requests = of("objectRequests")? + of("alarms")? + of("messages")? / MESSAGES_OF_A_REQUEST;
        // Of whatever is pulled, acknowledged or sent, besides the messages themselves.
        let jobs_queue = self.edge.settings.get("CF_JOBS_QUEUE_ID")?;
        let pulls = access_log::requests(self.edge, &format!("{jobs_queue}/messages/pull")) as f64;
        let seconds = processor_seconds(self.workerd.id())?;
        Ok([pulls, of("workerRequests")?, requests, of("rowsWritten")?, of("rowsRead")?, seconds * OBJECT_GB])
    }

    /// Submits so many jobs, in requests of `batch`, and waits for their results.
    fn jobs(&self, daemon: &mut Daemon, jobs: usize, batch: usize) -> anyhow::Result<Count> {
        let headers = [("x-api-key", self.edge.settings.get("API_KEY")?)];
        let mut results = Results::of(self.edge)?;
        let mut count = self.count(|| {
            for _ in 0..jobs / batch {
                let job = json!({"task": "simulate", "input": {"walkers": 10_000, "seed": 7}});
                let (path, body) = match batch {
                    1 => ("/jobs", job),
                    _ => ("/jobs/batch", json!({"jobs": vec![job; batch]})),
                };
                let url = format!("{}{path}", self.url);
                self.connection.post(&url, &headers, body.to_string().as_bytes())?.json(202)?;
                if batch == 1 {
                    thread::sleep(PAUSE);
                }
            }
            let begin = Instant::now();
            while results.count()? < jobs {
                daemon.runs()?;
                ensure!(begin.elapsed() < Duration::from_secs(300), "the jobs have not all ended within five minutes");
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })?;
        results.take(jobs)?;
        // Written, read and deleted: as a job, and as a result. Of the pulls, those that found nothing are one more.
        let found = if batch == 1 { jobs } else { 0 };
        count[0] = 6.0 * jobs as f64 + (count[0] - found as f64).max(0.0);
        Ok(count)
    }
}

/// What a process has used of processors: at least as long as the object was at work in it.
pub(super) fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

fn print(idle: &Count, single: &Count, many: &Count) {
    let shown = |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    println!("\n| a day | a job alone | a job of many | idle | 10 jobs | 1,000 jobs | 100,000 jobs | free |");
    println!("|---|---|---|---|---|---|---|---|");
    for (at, (what, free)) in FREE.iter().enumerate() {
        let alone = |jobs: f64| idle[at] + jobs * single[at];
        let of_many = idle[at] + 100_000.0 * many[at];
        let columns = [single[at], many[at], idle[at], alone(10.0), alone(1_000.0), of_many, *free];
        println!("| {what} | {} |", columns.map(shown).join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name() {
        assert!(processor_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(processor_seconds(u32::MAX).is_err());
    }
}
