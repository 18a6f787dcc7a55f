//! `hpc-consumer scaling`: the rule by which pools in Slurm grow and shrink, tried against a workflow, and the log of
//! its decisions, decided again. The rule, the simulation and the lines of the log are in the crate `scaling`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use program::duration::shown;
use program::{Exit, Failure, OutputFormat, counted, escaped_json, escaped_lines, say};
use protocol::{JobSpec, Memory};
use scaling::{Amount, Logged, Outcome, PoolDecision, PoolShape, Quota, Simulation, Trace};
use serde::Serialize;
use site::{Capacity, InUse, Pool, Resources, Site, Where};

use crate::site::SiteOf;

/// A trace of a workflow of many thousand tasks is smaller.
const TRACE_BYTES_MAX: u64 = 256 << 20;

/// The log has two files of a few megabytes.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// The version of the JSON.
const VERSION: u64 = 1;

/// What is asked.
pub(crate) enum Asked {
    Simulate { trace: PathBuf, site: SiteOf, start: Duration, interval: Duration, format: OutputFormat },
    Replay { log: PathBuf, format: OutputFormat },
}

impl Asked {
    /// Does it.
    pub(crate) fn answer(self) -> anyhow::Result<Exit> {
        match self {
            Self::Simulate { trace, site, start, interval, format } => simulate(&trace, &site, start, interval, format),
            Self::Replay { log, format } => replay(&log, format),
        }
    }
}

/// How a workflow came out, for programs.
#[derive(Debug, Serialize)]
struct Simulated {
    v: u64,
    tasks: usize,
    /// How long all tasks run, one after the other.
    work_seconds: f64,
    makespan_seconds: f64,
    held_core_hours: f64,
    most_allocations: u64,
    turns: u64,
}

fn simulate(
    path: &Path,
    of: &SiteOf,
    start: Duration,
    interval: Duration,
    format: OutputFormat,
) -> anyhow::Result<Exit> {
    let text = read(path, "the trace", TRACE_BYTES_MAX).map_err(Failure::usage)?;
    let trace = Trace::parse(&text)
        .map_err(|error| Failure::usage(anyhow::anyhow!("{} cannot be used: {error}", path.display())))?;
    let site = of.site()?;
    let pools: Vec<_> = site.pools.keys().cloned().collect();
    let mut pool_of = Vec::with_capacity(trace.tasks.len());
    for task in &trace.tasks {
        let plan = site.plan(&JobSpec { task: task.name.clone(), ..JobSpec::default() });
        let plan = plan.map_err(|refusal| {
            Failure::usage(anyhow::anyhow!("a task of the trace would not run: `{}`: {refusal}", task.name))
        })?;
        pool_of.push(pools.iter().position(|pool| *pool == plan.pool).expect("a plan is of a pool of its site"));
    }
    let simulation = Simulation {
        quota: quota(&site),
        pools: site.pools.iter().map(|(name, pool)| shape(name.as_str(), pool)).collect(),
        start: start.as_secs_f64(),
        interval: interval.as_secs_f64(),
    };
    let outcome = simulation.play(&trace, &pool_of).ok_or_else(|| {
        Failure::with(
            Exit::Unexpected,
            "the workflow never ends: the quota or `workers` of a pool gives its tasks nothing to run in",
        )
    })?;
    let Outcome { makespan, held, most, turns } = outcome;
    let simulated = Simulated {
        v: VERSION,
        tasks: trace.tasks.len(),
        work_seconds: trace.work(),
        makespan_seconds: makespan,
        held_core_hours: held / 3_600.0,
        most_allocations: most,
        turns,
    };
    crate::print(&match format {
        OutputFormat::Json => escaped_json(&serde_json::to_string(&simulated)?) + "\n",
        OutputFormat::Text => format!(
            "{} of {} in all\nmakespan: {}\nheld: {:.2} core hours, {} at the most\nturns from growing to shrinking or \
             back: {turns}\n",
            counted(simulated.tasks, "task"),
            time(simulated.work_seconds),
            time(makespan),
            simulated.held_core_hours,
            counted(usize::try_from(most).unwrap_or(usize::MAX), "allocation"),
        ),
    })?;
    Ok(Exit::Ok)
}

fn time(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { shown(Duration::from_secs(seconds.round() as u64)) }
}

fn quota(site: &Site) -> Quota {
    Quota {
        cpus: site.quota.cpus.map(u64::from),
        memory: site.quota.memory.map(Memory::bytes),
        gpus: site.quota.gpus.map(u64::from),
        allocations: site.quota.allocations.map(u64::from),
    }
}

/// A pool as the rule sees it. One on this node is always there, as one allocation that costs nothing.
fn shape(name: &str, pool: &Pool) -> PoolShape {
    let name = name.to_owned();
    let slot = Resources::of(&pool.slot);
    match &pool.place {
        Where::Here(capacity) => PoolShape {
            name,
            min: 1,
            max: 1,
            slots: slots_in(capacity, &slot),
            cost: Amount::default(),
            pending_max: 1,
            idle: f64::INFINITY,
            weight: 1.0,
        },
        Where::Slurm { workers, .. } => {
            let slots = if workers.once { 1 } else { u64::from(workers.slots) };
            let held = slot.held();
            PoolShape {
                name,
                min: u64::from(workers.min),
                max: u64::from(workers.max),
                slots,
                cost: Amount { cpus: held.cpus * slots, memory: held.memory * slots, gpus: held.gpus * slots },
                pending_max: u64::from(workers.pending),
                idle: if workers.once { 0.0 } else { workers.idle.as_secs_f64() },
                weight: f64::from(workers.weight),
            }
        }
    }
}

fn slots_in(capacity: &Capacity, slot: &Resources) -> u64 {
    InUse::none_of(capacity.clone()).room(site::Held::default(), 0, slot) as u64
}

/// A decision that would be another one now, for programs.
#[derive(Debug, Serialize)]
struct Differs {
    v: u64,
    line: usize,
    was: PoolDecision,
    is: Option<PoolDecision>,
}

fn replay(path: &Path, format: OutputFormat) -> anyhow::Result<Exit> {
    let text = read(path, "the log", LOG_BYTES_MAX).map_err(Failure::usage)?;
    let (mut decided, mut differ, mut output) = (0, 0, String::new());
    let mut unread = 0;
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let logged = match Logged::parse(line) {
            Ok(logged) => logged,
            Err(error) => {
                // The last line of a daemon that was killed may be half of one.
                unread += 1;
                say(&format!("{}:{number}: this is no decision: {error}", path.display()));
                continue;
            }
        };
        decided += 1;
        let differences = logged.replay();
        differ += usize::from(!differences.is_empty());
        if format == OutputFormat::Text {
            for pool in &logged.decision.pools {
                output += &format!("{number}: {}\n", pool.why);
            }
        }
        for difference in differences {
            output += &match format {
                OutputFormat::Text => {
                    let now = difference.is.as_ref().map_or_else(|| "nothing".to_owned(), done);
                    format!(
                        "{number}: DIFFERS: {} was {}, and is {now}\n",
                        difference.was.why.pool,
                        done(&difference.was)
                    )
                }
                OutputFormat::Json => {
                    let differs = Differs { v: VERSION, line: number, was: difference.was, is: difference.is };
                    escaped_json(&serde_json::to_string(&differs)?) + "\n"
                }
            };
        }
    }
    crate::print(&escaped_lines(&output))?;
    if decided == 0 {
        return Err(Failure::usage(anyhow::anyhow!(
            "{} has no decision; the log of a daemon is slurm/scaling.jsonl in its STATE_DIR",
            path.display()
        )));
    }
    let unread = if unread > 0 { format!(", {} cannot be read", counted(unread, "line")) } else { String::new() };
    say(&format!("{}, of which {differ} would be another now{unread}", counted(decided, "decision")));
    Ok(if differ == 0 { Exit::Ok } else { Exit::Unexpected })
}

fn done(pool: &PoolDecision) -> String {
    format!("want {}, start {}, stop {}", pool.want, pool.start, pool.stop.len())
}

fn read(path: &Path, what: &str, bytes_max: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("{what} {} cannot be read", path.display()))?;
    file.take(bytes_max + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{what} {} cannot be read", path.display()))?;
    anyhow::ensure!(text.len() as u64 <= bytes_max, "{what} {} is larger than {bytes_max} bytes", path.display());
    Ok(text)
}
