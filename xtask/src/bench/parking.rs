//! Jobs that wait for others without a slot: what a round of parking costs, in time and in memory, and what it saves of
//! held processors where the other half of a job is a machine with a queue.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::consumer::{self, Daemon, Node};
use super::latency::{self, User};
use super::results::Results;
use super::table::{Aim, Row};
use super::{median, memory, pools, subfolder};
use crate::command::quoted;
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const ROUNDS: usize = 40;
const ROUND_AIM: f64 = 0.15;

/// Parents that are parked when the memory is measured, first and then.
const FEW: usize = 100;
const MANY: usize = 1_100;
const MEMORY_AIM: f64 = 4_000.0;

/// How long until so many are parked, or all jobs of a case have ended.
const PATIENCE: Duration = Duration::from_secs(300);

/// Jobs of a case, and as many as run at a time.
const JOBS: usize = 8;
const SLOTS: usize = 4;

/// A hybrid job: in each turn it computes, and then a quantum machine does something. There is one of these.
struct Case {
    /// Seconds, as a site would have them.
    classical: f64,
    quantum: f64,
    /// In the queue of the vendor, before that.
    queued: f64,
    turns: usize,
    /// By so much all times are shortened.
    scale: f64,
}

const CASES: [Case; 3] = [
    Case { classical: 20.0, quantum: 3.0, queued: 0.0, turns: 4, scale: 20.0 },
    Case { classical: 60.0, quantum: 60.0, queued: 0.0, turns: 4, scale: 100.0 },
    Case { classical: 120.0, quantum: 10.0, queued: 600.0, turns: 2, scale: 200.0 },
];

/// What a job holds while the machine is at work for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Its processors, and the machine also while it computes: one job at a time.
    WithBoth,
    /// Its processors.
    InItsSlot,
    /// Nothing.
    Parked,
}

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let rounds = rounds(workspace, &subfolder(folder, "rounds")?)?;
    let memory = parked(workspace, &subfolder(folder, "memory")?)?;
    let mut rows = vec![
        Row {
            measure: "hpc-consumer: a round of parking in a warm pool, bare: both waits for a slot together, above that of a \
                      job for another one's, p50"
                .to_owned(),
            here: format!("{:.1} ms, of {:.1} ms", (rounds.parked - rounds.own) * 1e3, rounds.parked * 1e3),
            against: format!("{:.0} ms, the aim", ROUND_AIM * 1e3),
            ratio: (rounds.parked - rounds.own) / ROUND_AIM,
            aim: Aim::Under(1.0),
        },
        Row {
            measure: format!(
                "hpc-consumer: memory of each of {} parked parents, with the child that it waits for, keeper included",
                MANY - FEW
            ),
            here: format!("{:.1} KB", memory / 1e3),
            against: format!("{:.0} KB, the aim", MEMORY_AIM / 1e3),
            ratio: memory / MEMORY_AIM,
            aim: Aim::Under(1.0),
        },
    ];
    for (number, case) in CASES.iter().enumerate() {
        let play = |waits: Waits| {
            let folder = subfolder(folder, &format!("case-{number}-{waits:?}"))?;
            case.play(workspace, &folder, waits, rounds.own)
        };
        let (both, slot, parked) = (play(Waits::WithBoth)?, play(Waits::InItsSlot)?, play(Waits::Parked)?);
        rows.push(Row {
            measure: format!(
                "hybrid jobs, {} s and then {} s of a quantum machine after {} s in its queue, at 1/{}: share of the held \
                 core time that computes, parked; makespan; the machine's share",
                case.classical, case.quantum, case.queued, case.scale
            ),
            here: parked.shown(),
            against: format!("both held: {}; waiting in the slot: {}", both.shown(), slot.shown()),
            ratio: parked.share,
            aim: Aim::AtLeast(0.9),
        });
    }
    Ok(rows)
}

/// In seconds.
struct Rounds {
    /// From the end of a job to the begin of its child and from the end of that to its own next begin.
    parked: f64,
    /// From the end of a job to the begin of the next one.
    own: f64,
}

/// A daemon of a site with such tasks, and scripts that note when they begin and end.
struct Setup {
    // Declared first, so that it ends first.
    daemon: Daemon,
    node: Node,
    edge: LocalEdge,
    notes: PathBuf,
}

impl Setup {
    /// `tasks` are names, pools and what a shell does between the notes of begin and end.
    fn start(
        workspace: &Workspace,
        folder: &Path,
        pools: &str,
        tasks: &[(&str, &str, String)],
    ) -> anyhow::Result<Self> {
        let notes = folder.join("notes");
        let mut site = pools.to_owned();
        for (name, pool, line) in tasks {
            let script = folder.join(format!("{name}.sh"));
            let to = quoted(&notes);
            fs::write(
                &script,
                format!("set -e\nbegun=$(date +%s%N)\n{line}\necho \"{name} $begun $(date +%s%N)\" >> {to}\n"),
            )?;
            site.push_str(&format!(
                "[task.{name}]\npool = \"{pool}\"\ncommand = [\"/bin/sh\", \"{}\"]\n",
                script.display()
            ));
        }
        let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
        let node = Node::new(folder, "node")?;
        let interval = latency::POLL_INTERVAL.as_secs_f64().to_string();
        let mut command = node.command(workspace, &edge);
        command
            .env("SITE_FILE", pools::site_file(folder, &site)?)
            .env("BARE_WRITABLE", folder)
            .env("BATCH_SIZE", "100")
            .env("POLL_INTERVAL_SECONDS", &interval)
            .env("POLL_INTERVAL_MAX_SECONDS", &interval);
        Ok(Self { daemon: node.start(command)?, node, edge, notes })
    }

    /// What was noted since this was asked last: which task, and when it began and ended.
    fn noted(&self) -> anyhow::Result<Vec<(String, f64, f64)>> {
        let text = fs::read_to_string(&self.notes).context("nothing was noted")?;
        fs::remove_file(&self.notes)?;
        text.lines().map(|line| noted(line).with_context(|| format!("a note is none: {line}"))).collect()
    }

    /// Waits until so many jobs have their results.
    fn take_results(&mut self, jobs: usize) -> anyhow::Result<()> {
        let (begin, mut results) = (Instant::now(), Results::of(&self.edge)?);
        while results.count()? < jobs {
            self.daemon.runs()?;
            ensure!(begin.elapsed() < PATIENCE, "{jobs} jobs have not ended within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        results.take(jobs)
    }
}

fn noted(line: &str) -> Option<(String, f64, f64)> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let mut seconds = || Some(words.next()?.parse::<u64>().ok()? as f64 / 1e9);
    Some((name, seconds()?, seconds()?))
}

/// In one slot, for which parents and children wait in turn, as others do.
fn rounds(workspace: &Workspace, folder: &Path) -> anyhow::Result<Rounds> {
    let pools = "[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n";
    let mut setup = Setup::start(
        workspace,
        folder,
        pools,
        &[
            ("parent", "cpu", parking("child", 1, "true")),
            ("child", "cpu", "true".to_owned()),
            ("plain", "cpu", "true".to_owned()),
        ],
    )?;
    let (mut parked, mut own) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 5 {
        setup.daemon.runs()?;
        User::of(&setup.edge)?.job(&json!({"task": "parent"}))?;
        let family = setup.noted()?;
        consumer::submit(&setup.edge, &json!({"task": "plain"}), 2)?;
        setup.take_results(2)?;
        let pair = setup.noted()?;
        ensure!(family.len() == 3 && pair.len() == 2, "other jobs ran than these: {family:?}, {pair:?}");
        if round >= 5 {
            parked.push((family[1].1 - family[0].2) + (family[2].1 - family[1].2));
            own.push(pair[1].1 - pair[0].2);
        }
    }
    setup.daemon.stop()?;
    Ok(Rounds { parked: median(&parked), own: median(&own) })
}

/// What a shell does in each round of a job that parks so often.
fn parking(child: &str, times: usize, work: &str) -> String {
    format!(
        "if [ \"$HPC_QUEUE_ROUND\" -le {times} ]; then {work}; echo '{{\"run\":[{{\"task\":\"{child}\"}}]}}' > continue.json; fi"
    )
}

/// The bytes of daemon and keeper for each job that is parked, with its child, which waits.
fn parked(workspace: &Workspace, folder: &Path) -> anyhow::Result<f64> {
    let pools = "[pool.free]\ndefault = true\nruntime = \"bare\"\ncapacity = { cpus = 2 }\n\
                 [pool.full]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n";
    let tasks = [("parent", "free", parking("child", 1, "true")), ("child", "full", "exec sleep 600".to_owned())];
    let mut setup = Setup::start(workspace, folder, pools, &tasks)?;
    let mut bytes = Vec::new();
    let mut before = 0;
    for parents in [FEW, MANY] {
        consumer::submit(&setup.edge, &json!({"task": "parent"}), parents - before)?;
        // One child runs, and the others wait.
        let (node, children) = (&setup.node, parents);
        setup.daemon.process.wait_for(&format!("{parents} jobs were parked"), PATIENCE, |_| {
            thread::sleep(Duration::from_millis(500));
            (pools::held_in(workspace, node, "full").unwrap_or(0) + 1 >= children).then_some(())
        })?;
        bytes.push(memory::of_both(&mut setup.daemon)?);
        before = parents;
    }
    setup.daemon.stop()?;
    Ok((bytes[1] - bytes[0]) / (MANY - FEW) as f64)
}

/// How a case came out.
struct Outcome {
    /// Of the held core time, what computes.
    share: f64,
    makespan: f64,
    /// For how much of that the machine was at work.
    busy: f64,
}

impl Outcome {
    fn shown(&self) -> String {
        format!("{:.0} %, {:.1} s, {:.0} %", self.share * 1e2, self.makespan, self.busy * 1e2)
    }
}

impl Case {
    /// Each run holds its slot from its begin to its end, and besides for as long as a slot is empty before it.
    fn play(&self, workspace: &Workspace, folder: &Path, waits: Waits, own: f64) -> anyhow::Result<Outcome> {
        let slots = if waits == Waits::WithBoth { 1 } else { SLOTS };
        let pools = format!(
            "[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncapacity = {{ cpus = {slots} }}\n\
             [pool.qpu]\nruntime = \"bare\"\ncapacity = {{ cpus = {JOBS} }}\n"
        );
        let seconds = |seconds: f64| format!("sleep {:.4}", seconds / self.scale);
        let lock = quoted(folder.join("qpu"));
        let machine = format!("{}; flock {lock} {}", seconds(self.queued), seconds(self.quantum));
        let compute = seconds(self.classical);
        let line = match waits {
            Waits::Parked => parking("machine", self.turns, &compute),
            _ => format!("for turn in $(seq {}); do {compute}; {machine}; done", self.turns),
        };
        let mut setup =
            Setup::start(workspace, folder, &pools, &[("hybrid", "cpu", line), ("machine", "qpu", machine)])?;
        consumer::submit(&setup.edge, &json!({"task": "hybrid"}), JOBS)?;
        setup.take_results(JOBS)?;
        let notes = setup.noted()?;
        setup.daemon.stop()?;
        let runs: Vec<_> = notes.iter().filter(|(name, ..)| name == "hybrid").collect();
        let rounds = if waits == Waits::Parked { self.turns + 1 } else { 1 };
        ensure!(runs.len() == JOBS * rounds, "{} runs were noted, and not {}", runs.len(), JOBS * rounds);
        let held: f64 = runs.iter().map(|(_, begun, ended)| ended - begun + own).sum();
        let begin = notes.iter().map(|note| note.1).fold(f64::INFINITY, f64::min);
        let makespan = notes.iter().map(|note| note.2).fold(0.0, f64::max) - begin;
        let of_all = |seconds: f64| (JOBS * self.turns) as f64 * seconds / self.scale;
        Ok(Outcome { share: of_all(self.classical) / held, makespan, busy: of_all(self.quantum) / makespan })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn notes_are_names_and_times() {
        assert_eq!(noted("child 1500000000 2000000000"), Some(("child".to_owned(), 1.5, 2.0)));
        assert_eq!(noted("child 15"), None);
    }

    #[test]
    fn a_job_parks_so_often_and_then_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let leaves = |round: &str| {
            let line = parking("child", 2, "true");
            let status =
                Command::new("sh").args(["-c", &line]).env("HPC_QUEUE_ROUND", round).current_dir(&folder).status();
            assert!(status.unwrap().success());
            fs::read_to_string(folder.path().join("continue.json")).ok()
        };
        assert_eq!(leaves("3"), None);
        assert_eq!(leaves("2").as_deref(), Some("{\"run\":[{\"task\":\"child\"}]}\n"));
    }
}
