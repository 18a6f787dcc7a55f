//! Pools in Slurm, on a real one of this host: jobs in a worker against jobs here, and against `sbatch` of each and
//! `srun` in one allocation; the time of one job, in a worker that is there and from nothing; what it all costs the
//! controller.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::consumer::{self, Daemon, Node};
use super::latency::{self, User};
use super::results::Results;
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::cluster::Cluster;
use crate::command;
use crate::env_file::write_private;
use crate::processes::LocalEdge;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};

const PROGRAM: &str = "/bin/true";
const NODES: usize = 2;
const ROUNDS: usize = 3;

/// So many jobs are given to Slurm itself: one allocation each, and one step each.
const ALLOCATIONS: usize = 60;
const STEPS: usize = 200;

/// So often nothing is there when a job comes.
const FROM_ZERO: usize = 8;

/// So many jobs are the unit in which requests to the controller are counted.
const COUNTED: usize = 1_000;
const REQUESTS_AIM: f64 = 20.0;

/// So many allocations are watched, and looked at so often.
const WATCHED: usize = 200;
const LOOKS: u32 = 100;

const THROUGHPUT_AIM: f64 = 0.9;
const WARM_AIM: f64 = 0.1;
const FROM_ZERO_AIM: f64 = 1.0;

const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(15);

pub(super) fn measure(workspace: &Workspace, folder: &Path, jobs: usize) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &[Kind::Slurm24])?;
    workspace.build(Profile::Dev, &["hpc-queue-tests"])?;
    let bench = Bench { workspace, folder, cluster: Cluster::start(workspace, &tools, folder, NODES)? };
    let mut rows = bench.requests()?;
    rows.extend(bench.jobs(jobs)?);
    rows.extend(bench.one_of_none()?);
    // At the end: for some minutes the controller lists what has ended as well.
    rows.extend(bench.watched()?);
    Ok(rows)
}

struct Bench<'a> {
    workspace: &'a Workspace,
    folder: &'a Path,
    cluster: Cluster,
}

/// A daemon with its edge. A worker is there, if there is to be one.
struct Running {
    daemon: Daemon,
    node: Node,
    edge: LocalEdge,
}

/// Where the jobs of a pool run.
#[derive(Clone, Copy)]
enum Place {
    Here,
    /// In a worker that ends after so long without a job.
    Worker {
        idle: &'static str,
    },
}

impl Bench<'_> {
    fn start(&self, name: &str, place: Place) -> anyhow::Result<Running> {
        let folder = subfolder(self.folder, name)?;
        let edge = LocalEdge::start(self.workspace, Profile::Release, &folder)?;
        let node = Node::new(&folder, "node")?;
        let site = folder.join("site.toml");
        let place = match place {
            Place::Here => "capacity = { cpus = 2 }".to_owned(),
            Place::Worker { idle } => format!(
                "where = \"slurm\"\nslot = {{ cpus = 1, memory = \"100MiB\" }}\nslurm = {{ time = \"2h\" }}\n\
                 workers = {{ max = 1, slots = 2, idle = \"{idle}\" }}"
            ),
        };
        write_private(
            &site,
            &format!("[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncommand = [\"{PROGRAM}\"]\n{place}\n"),
        )?;
        let interval = latency::POLL_INTERVAL.as_secs_f64().to_string();
        let mut command = node.command(self.workspace, &edge);
        command
            .env("SITE_FILE", &site)
            .env("POLL_INTERVAL_SECONDS", &interval)
            .env("POLL_INTERVAL_MAX_SECONDS", &interval)
            .envs(self.cluster.environment());
        Ok(Running { daemon: node.start(command)?, node, edge })
    }

    /// Jobs per second and the time of one, here and in a worker, in turns; and per second as Slurm has them.
    fn jobs(&self, jobs: usize) -> anyhow::Result<Vec<Row>> {
        let (mut here, mut worker) = (Measured::default(), Measured::default());
        for round in 0..ROUNDS {
            here.add(self.start(&format!("here-{round}"), Place::Here)?, jobs)?;
            worker.add(self.start(&format!("worker-{round}"), Place::Worker { idle: "30m" })?, jobs)?;
            self.cluster.cancel_all()?;
        }
        let (sbatch, srun) = (self.sbatch()?, self.srun()?);
        let per_second = median(&worker.per_second);
        let against = |what: &str, other: f64, ratio: f64, aim: Aim| Row {
            measure: format!(
                "hpc-consumer: jobs of {PROGRAM} per second, bare, in a worker in Slurm with two slots, against {what}"
            ),
            here: format!("{per_second:.0}/s"),
            against: format!("{other:.1}/s"),
            ratio,
            aim,
        };
        let same_run = median(&ratios(&worker.per_second, &here.per_second));
        let (warm, warm_here) = (median(&worker.seconds), median(&here.seconds));
        Ok(vec![
            against("two slots here", median(&here.per_second), same_run, Aim::AtLeast(THROUGHPUT_AIM)),
            against("sbatch of each", sbatch, per_second / sbatch, Aim::None),
            against("two srun at a time in one allocation", srun, per_second / srun, Aim::None),
            Row {
                measure:
                    "hpc-consumer: from POST /jobs to the result in a worker that is there, idle, more than here, p50"
                        .to_owned(),
                here: format!(
                    "{:.1} ms: {:.1} ms less {:.1} ms",
                    (warm - warm_here) * 1e3,
                    warm * 1e3,
                    warm_here * 1e3
                ),
                against: format!("{:.0} ms, the aim", WARM_AIM * 1e3),
                ratio: (warm - warm_here) / WARM_AIM,
                aim: Aim::Under(1.0),
            },
        ])
    }

    /// Jobs per second, each with an allocation of its own, from the first submission to the end of the last.
    fn sbatch(&self) -> anyhow::Result<f64> {
        let line = format!(
            "for i in $(seq {ALLOCATIONS}); do sbatch -Q -n1 --mem=50 -o /dev/null --export=NONE --wrap {PROGRAM}; done"
        );
        let begin = Instant::now();
        command::capture(self.cluster.client("sh").args(["-c", &line]).current_dir(self.folder))?;
        self.cluster.wait_until_empty(Duration::from_millis(100))?;
        Ok(ALLOCATIONS as f64 / begin.elapsed().as_secs_f64())
    }

    /// Jobs per second as steps of one allocation, two at a time.
    fn srun(&self) -> anyhow::Result<f64> {
        // Each says that it was done: one that is refused takes no time.
        let step = format!("srun -Q -n1 -c1 --exact --mem=50 --input=none {PROGRAM} && echo done");
        let line = format!("date +%s%N; seq {STEPS} | xargs -P2 -I_ sh -c '{step}'; date +%s%N");
        let words = ["-Q", "-N1", "-n2", "--mem=200", "sh", "-c", &line];
        let said = command::capture(self.cluster.client("salloc").args(words).current_dir(self.folder))?;
        self.cluster.wait_until_empty(Duration::from_millis(100))?;
        let times: Vec<f64> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let done = said.lines().filter(|line| line.trim() == "done").count();
        ensure!(done == STEPS, "of {STEPS} steps {done} were done");
        let [begin, end] = times[..] else { bail!("salloc said {said:?}") };
        Ok(STEPS as f64 / ((end - begin) / 1e9))
    }

    /// One job when nothing of the pool is there, and an empty script of Slurm's own, in turns.
    fn one_of_none(&self) -> anyhow::Result<Vec<Row>> {
        let Running { mut daemon, node, edge } = self.start("zero", Place::Worker { idle: "1s" })?;
        let (mut ours, mut slurms) = (Vec::new(), Vec::new());
        let mut user = User::of(&edge)?;
        user.one_job()?;
        for _ in 0..FROM_ZERO {
            self.wait_until_gone(&node)?;
            slurms.push(self.empty_script()?);
            daemon.runs()?;
            ours.push(user.one_job()?);
        }
        daemon.stop()?;
        self.cluster.cancel_all()?;
        let (ours, slurms) = (median(&ours), median(&slurms));
        Ok(vec![
            Row {
                measure: "hpc-consumer: from POST /jobs to the result when nothing is in Slurm, against sbatch to the start of an empty script, p50".to_owned(),
                here: format!("{ours:.2} s"),
                against: format!("{slurms:.2} s"),
                ratio: ours / slurms,
                aim: Aim::None,
            },
            Row {
                measure: "hpc-consumer: what of that is not Slurm's own time".to_owned(),
                here: format!("{:.2} s", ours - slurms),
                against: format!("{FROM_ZERO_AIM:.0} s, the aim"),
                ratio: (ours - slurms) / FROM_ZERO_AIM,
                aim: Aim::Under(1.0),
            },
        ])
    }

    /// The seconds from the call of `sbatch` until its script has begun.
    fn empty_script(&self) -> anyhow::Result<f64> {
        let began = self.folder.join("began");
        let script = format!("date +%s%N > {0}.new && mv {0}.new {0}", command::quoted(&began));
        let begin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let words = ["-Q", "-n1", "-c2", "--mem=200", "-o", "/dev/null", "--export=NONE", "--wrap", &script];
        command::capture(self.cluster.client("sbatch").args(words).current_dir(self.folder))?;
        let end = Instant::now() + PATIENCE;
        while !began.exists() {
            ensure!(Instant::now() < end, "an empty script has not begun within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
        let nanoseconds: f64 = fs::read_to_string(&began)?.trim().parse()?;
        fs::remove_file(&began)?;
        self.cluster.wait_until_empty(Duration::from_millis(100))?;
        Ok(nanoseconds / 1e9 - begin)
    }

    /// Waits until the daemon has no allocation any more, without asking the controller, whose requests are counted.
    fn wait_until_gone(&self, node: &Node) -> anyhow::Result<()> {
        let folder = node.state().join("slurm");
        let end = Instant::now() + PATIENCE;
        loop {
            let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            if !entries.flatten().any(|entry| entry.path().is_dir()) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "an allocation is there after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// All requests to the controller for as many jobs, from nothing and back to it.
    fn requests(&self) -> anyhow::Result<Vec<Row>> {
        let Running { daemon, node, edge } = self.start("requests", Place::Worker { idle: "2s" })?;
        let before = self.cluster.requests()?;
        consumer::submit(&edge, &json!({"task": "true"}), COUNTED)?;
        let mut results = Results::of(&edge)?;
        wait_for(&results, COUNTED)?;
        self.wait_until_gone(&node)?;
        let mut made = self.cluster.requests()?;
        for (name, count) in before {
            if let Some(now) = made.get_mut(&name) {
                *now -= count;
            }
        }
        results.take(COUNTED)?;
        daemon.stop()?;
        self.cluster.cancel_all()?;
        let count = made.values().sum::<u64>();
        let kinds: Vec<String> =
            made.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} {count}")).collect();
        eprintln!("Requests to the controller: {}", kinds.join(", "));
        Ok(vec![Row {
            measure: format!(
                "hpc-consumer: requests to the controller of Slurm for {COUNTED} short jobs, from nothing and back"
            ),
            here: format!("{count} requests"),
            against: format!("{REQUESTS_AIM:.0} requests, the aim"),
            ratio: count as f64 / REQUESTS_AIM,
            aim: Aim::Under(1.0),
        }])
    }

    /// What one look at all that is ours costs the controller, with many allocations and with none.
    fn watched(&self) -> anyhow::Result<Vec<Row>> {
        let none = self.look()?;
        let array = format!("--array=0-{}", WATCHED - 1);
        let words = ["-Q", "--hold", "-n1", "--mem=50", "-o", "/dev/null", "--export=NONE", &array, "--wrap", PROGRAM];
        command::capture(self.cluster.client("sbatch").args(words).current_dir(self.folder))?;
        let many = self.look()?;
        self.cluster.cancel_all()?;
        let row = |what: &str, here: f64, against: f64| Row {
            measure: format!(
                "slurmctld: {what} of one look at {WATCHED} more allocations that wait, against without them"
            ),
            here: format!("{:.1} ms", here * 1e3),
            against: format!("{:.1} ms", against * 1e3),
            ratio: here / against,
            aim: Aim::None,
        };
        Ok(vec![
            row("processor time", many.processor, none.processor),
            row("the time until squeue has ended", many.wall, none.wall),
        ])
    }

    /// Looks as the daemon does: all that is ours, with what has ended of late.
    fn look(&self) -> anyhow::Result<Look> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let words = ["-h", "-r", "-u", &user, "-t", "all", "-o", "%i|%T|%V|%S|%e|%j|%N|%r"];
        let before = self.cluster.controller_seconds()?;
        let begin = Instant::now();
        for _ in 0..LOOKS {
            let status =
                self.cluster.client("squeue").args(words).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "squeue ended with {status}");
        }
        let wall = begin.elapsed().as_secs_f64() / f64::from(LOOKS);
        Ok(Look { processor: (self.cluster.controller_seconds()? - before) / f64::from(LOOKS), wall })
    }
}

/// What one look costs, in seconds.
struct Look {
    /// The controller.
    processor: f64,
    /// Whoever looks.
    wall: f64,
}

/// What was measured in several rounds.
#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    /// The median of each round.
    seconds: Vec<f64>,
}

impl Measured {
    /// Measures a daemon that has just begun, and ends it.
    fn add(&mut self, running: Running, jobs: usize) -> anyhow::Result<()> {
        let Running { mut daemon, edge, node: _ } = running;
        let mut user = User::of(&edge)?;
        // From here on its worker is there.
        user.one_job()?;
        self.seconds.push(median(&latency::of_jobs(&mut daemon, &mut user)?));
        rustix::fs::sync();
        let mut results = Results::of(&edge)?;
        let begin = Instant::now();
        consumer::submit(&edge, &json!({"task": "true"}), jobs)?;
        wait_for(&results, jobs)?;
        self.per_second.push(jobs as f64 / begin.elapsed().as_secs_f64());
        daemon.runs()?;
        results.take(jobs)?;
        daemon.stop()
    }
}

/// Waits until so many results are in the queue.
fn wait_for(results: &Results, jobs: usize) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while results.count().unwrap_or_default() < jobs {
        ensure!(Instant::now() < end, "the results of {jobs} jobs were not in the queue within {PATIENCE:?}");
        thread::sleep(LOOK);
    }
    Ok(())
}
