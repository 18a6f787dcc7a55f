//! The programs as they are released, when there is nothing to do: how large the daemon is, how soon `--help` is there,
//! what a daemon with all defaults has in memory, what it takes of a processor, and how often it looks at an empty
//! queue in a day.
//!
//! Two daemons at once, with a link to the hub and without, on a way to `local-edge` on which no pull waits.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::consumer::{Daemon, Node};
use super::costs::processor_seconds;
use super::table::{Aim, Row};
use super::{access_log, at_once, median, memory, subfolder};
use crate::command;
use crate::processes::LocalEdge;
use crate::release;
use crate::workspace::{Profile, Workspace};

const PROGRAMS: [&str; 4] = ["hpc-consumer", "local-edge", "laptop-consumer", "qpu-broker"];
const HELPS: usize = 21;
const HELP_AIM_MS: f64 = 10.0;
const MEMORY_AIM: f64 = 10e6;
/// Of one processor.
const LOAD_AIM: f64 = 0.001;
/// By then pauses between looks have grown to what they stay at: 2, 4, 8, 16 and 30 s.
const SETTLED: Duration = Duration::from_secs(75);
/// Long enough for many ticks of the clock that counts processor time, and some looks.
const IDLE: Duration = Duration::from_secs(300);
const DAY: f64 = 86_400.0;
const FREE: f64 = 10_000.0;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    release::build(workspace)?;
    let daemon = workspace.program(Profile::Dist, "hpc-consumer");
    let (bytes, most) = (fs::metadata(&daemon)?.len() as f64, release::DAEMON_BYTES_MAX as f64);
    let mut rows = vec![Row {
        measure: "hpc-consumer: size of the released program".to_owned(),
        here: format!("{:.2} MB", bytes / 1e6),
        against: format!("{:.0} MB, the aim", most / 1e6),
        ratio: bytes / most,
        aim: Aim::Under(1.0),
    }];
    for program in PROGRAMS {
        rows.push(help(workspace, &subfolder(folder, "help")?, program)?);
    }

    let unlinked = Idle::start(workspace, &subfolder(folder, "unlinked")?, false)?;
    let linked = Idle::start(workspace, &subfolder(folder, "linked")?, true)?;
    thread::sleep(SETTLED);
    let (mut unlinked, mut linked) = (unlinked.begin()?, linked.begin()?);
    thread::sleep(IDLE);
    rows.extend(unlinked.rows("without a link")?);
    // In so short a time it looks once or not at all: what that is in a day, nobody can tell.
    rows.extend(linked.rows("with a link to the hub")?.into_iter().take(2));
    unlinked.idle.daemon.stop()?;
    linked.idle.daemon.stop()?;
    Ok(rows)
}

/// How long `--help` takes when the program has to be read from the disk, and when it is in memory.
fn help(workspace: &Workspace, folder: &Path, program: &str) -> anyhow::Result<Row> {
    // One that nobody else has open: the system does not forget what is in use.
    let copy = folder.join(program);
    fs::copy(workspace.program(Profile::Dist, program), &copy).with_context(|| format!("cannot copy {program}"))?;
    fs::File::open(&copy)?.sync_all()?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..HELPS {
        let forget = format!("if={}", copy.display());
        command::capture(Command::new("dd").args([&forget, "iflag=nocache", "count=0", "status=none"]))?;
        cold.push(help_ms(&copy)?);
        warm.push(help_ms(&copy)?);
    }
    let (cold, warm) = (median(&cold), median(&warm));
    Ok(Row {
        measure: format!("{program}: --help, read from the disk; from memory"),
        here: format!("{cold:.1} ms; {warm:.1} ms"),
        against: format!("{HELP_AIM_MS:.0} ms, the aim"),
        ratio: cold / HELP_AIM_MS,
        aim: Aim::Under(1.0),
    })
}

fn help_ms(program: &Path) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let status = Command::new(program).arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).status();
    let taken = begin.elapsed();
    ensure!(status?.success(), "{} --help did not succeed", program.display());
    Ok(taken.as_secs_f64() * 1e3)
}

/// A daemon with all defaults, and its edge.
struct Idle {
    edge: LocalEdge,
    daemon: Daemon,
}

impl Idle {
    fn start(workspace: &Workspace, folder: &Path, linked: bool) -> anyhow::Result<Self> {
        let mut edge = access_log::start(workspace, Profile::Dist, folder)?;
        let direct = edge.settings.get("CF_API_BASE_URL")?.to_owned();
        edge.settings.set("CF_API_BASE_URL", &at_once::in_front_of(&direct)?);
        if !linked {
            edge.settings.set("SITE_KEY", "");
        }
        edge.env_file = folder.join("idle.env");
        edge.settings.write(&edge.env_file)?;
        let node = Node::built(Profile::Dist, folder, "node")?;
        let mut command = node.bare(workspace, &edge, "/bin/true", 2);
        for setting in ["POLL_INTERVAL_SECONDS", "POLL_INTERVAL_MAX_SECONDS", "MAX_PARALLEL_JOBS"] {
            command.env_remove(setting);
        }
        let daemon = node.start(command)?;
        Ok(Self { edge, daemon })
    }

    fn begin(self) -> anyhow::Result<Begun> {
        Ok(Begun { at: Instant::now(), looks: self.looks()?, seconds: self.seconds()?, idle: self })
    }

    fn looks(&self) -> anyhow::Result<usize> {
        let queue = self.edge.settings.get("CF_JOBS_QUEUE_ID")?;
        Ok(access_log::requests(&self.edge, &format!("{queue}/messages/pull")))
    }

    /// What daemon and keeper have used of processors.
    fn seconds(&self) -> anyhow::Result<f64> {
        self.daemon.ids()?.into_iter().map(processor_seconds).sum()
    }
}

/// The same, and where it began.
struct Begun {
    idle: Idle,
    at: Instant,
    looks: usize,
    seconds: f64,
}

impl Begun {
    fn rows(&mut self, link: &str) -> anyhow::Result<[Row; 3]> {
        let taken = self.at.elapsed().as_secs_f64();
        let load = (self.idle.seconds()? - self.seconds) / taken;
        let looks = self.idle.looks()? - self.looks;
        let of_a_day = looks as f64 / taken * DAY;
        let bytes = memory::of_both(&mut self.idle.daemon)?;
        Ok([
            Row {
                measure: format!("idle {link}, as released, all defaults: resident memory, keeper included"),
                here: format!("{:.1} MB", bytes / 1e6),
                against: format!("{:.0} MB, the aim", MEMORY_AIM / 1e6),
                ratio: bytes / MEMORY_AIM,
                aim: Aim::Under(1.0),
            },
            Row {
                measure: format!("idle {link}, as released, all defaults: share of a processor, keeper included"),
                here: format!("{:.3} %", load * 100.0),
                against: format!("{:.1} %, the aim", LOAD_AIM * 100.0),
                ratio: load / LOAD_AIM,
                aim: Aim::Under(1.0),
            },
            Row {
                measure: format!("idle {link}, as released, all defaults: operations of the queue in a day"),
                here: format!("{of_a_day:.0}, of {looks} looks in {:.0} min", taken / 60.0),
                against: format!("{FREE:.0}, the free plan"),
                ratio: of_a_day / FREE,
                aim: Aim::Under(1.0),
            },
        ])
    }
}
