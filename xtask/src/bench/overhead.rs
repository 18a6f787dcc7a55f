//! What the daemon adds to the time of a container: jobs through the daemon, against shell loops of the same command,
//! as many at once as the daemon has slots. With two slots the daemon may save as well: it starts containers from an
//! image that it has unpacked, and the loops from the `.sif`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::consumer::{self, Node};
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::processes::{LocalEdge, clear_settings};
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};
use crate::{command, image};

const ROUNDS: usize = 5;

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::set_up(workspace, &Kind::IMAGE)?;
    let image = image::build(workspace, &tools)??;
    let apptainer = tools.get(Kind::Apptainer)?.path.clone();
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let row = |measure: &str, slots: usize, jobs: usize, unpack: bool, aim: Aim| -> anyhow::Result<Row> {
        let folder = subfolder(folder, &format!("slots-{slots}"))?;
        let setup = Setup {
            workspace,
            folder: &folder,
            edge: &edge,
            apptainer: &apptainer,
            image: &image,
            slots,
            jobs,
            unpack,
        };
        let (ours, others) = setup.measure()?;
        Ok(Row {
            measure: measure.to_owned(),
            here: format!("{:.2} s", median(&ours)),
            against: format!("{:.2} s", median(&others)),
            ratio: median(&ratios(&ours, &others)),
            aim,
        })
    };
    Ok(vec![
        row(
            "hpc-consumer: 100 jobs in Apptainer, one slot, against a shell loop of the same command",
            1,
            100,
            false,
            Aim::Under(1.05),
        )?,
        row(
            "hpc-consumer: 200 jobs in Apptainer with APPTAINER_UNPACK_DIR, two slots, against two shell loops from the .sif",
            2,
            200,
            true,
            Aim::Under(1.0),
        )?,
    ])
}

/// One comparison.
struct Setup<'a> {
    workspace: &'a Workspace,
    folder: &'a Path,
    edge: &'a LocalEdge,
    apptainer: &'a Path,
    image: &'a Path,
    slots: usize,
    jobs: usize,
    /// Does the daemon unpack the image?
    unpack: bool,
}

impl Setup<'_> {
    /// The seconds of the daemon, and of the loops.
    fn measure(&self) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        // The first container reads everything from the disk; that round does not count.
        self.shell(ROUNDS)?;
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                ours.push(self.daemon(round)?);
                others.push(self.shell(round)?);
            } else {
                others.push(self.shell(round)?);
                ours.push(self.daemon(round)?);
            }
        }
        Ok((ours, others))
    }

    /// From the start of the daemon until all results are in the queue.
    fn daemon(&self, round: usize) -> anyhow::Result<f64> {
        let node = Node::new(self.folder, &format!("node-{round}"))?;
        consumer::submit(self.edge, &job(round), self.jobs)?;
        let mut command = node.command(self.workspace, self.edge);
        self.with_runtime(&mut command);
        command.env("MAX_PARALLEL_JOBS", self.slots.to_string());
        if self.unpack {
            command.env("APPTAINER_UNPACK_DIR", self.folder.join("unpacked"));
        }
        node.seconds_for(self.edge, command, self.jobs)
    }

    /// As many loops as there are slots; the jobs are dealt out in turn.
    fn shell(&self, round: usize) -> anyhow::Result<f64> {
        let folder = subfolder(self.folder, &format!("shell-{round}"))?;
        let mut scripts = vec!["set -e\n".to_owned(); self.slots];
        for number in 0..self.jobs {
            let directory = subfolder(&folder, &number.to_string())?;
            fs::write(directory.join("input.json"), job(round).to_string())?;
            let mut show = Command::new(self.workspace.program(Profile::Release, "hpc-consumer"));
            show.arg("command").arg("--env-file").arg(&self.edge.env_file).arg("--job-dir").arg(&directory);
            self.with_runtime(&mut show);
            // Containers are contained with what lies there.
            show.env("STATE_DIR", folder.join("state"));
            clear_settings(&mut show);
            let line = command::capture(&mut show)?;
            let logs = ["stdout.log", "stderr.log"].map(|name| command::quoted(directory.join(name)));
            scripts[number % self.slots].push_str(&format!("( {} ) > {} 2> {}\n", line.trim(), logs[0], logs[1]));
        }
        let mut files = Vec::new();
        for (number, script) in scripts.iter().enumerate() {
            let file = folder.join(format!("loop-{number}.sh"));
            fs::write(&file, script)?;
            files.push(file);
        }
        let seconds = run_loops(&files)?;
        let mut outputs = (0..self.jobs).map(|number| folder.join(number.to_string()).join("output.json"));
        match outputs.find(|output| !output.is_file()) {
            Some(output) => bail!("the shell loops left no {}", output.display()),
            None => Ok(seconds),
        }
    }

    fn with_runtime(&self, command: &mut Command) {
        command.env("RUNTIME", "apptainer").env("APPTAINER_BIN", self.apptainer).env("APPTAINER_IMAGE", self.image);
    }
}

fn job(round: usize) -> Value {
    json!({"task": "echo", "input": {"round": round}})
}

/// The seconds until the last of the scripts has ended; all of them run at once.
fn run_loops(files: &[PathBuf]) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let loops = files.iter().map(|file| start_loop(file)).collect::<anyhow::Result<Vec<Child>>>();
    let mut failed = None;
    for (file, mut child) in files.iter().zip(loops?) {
        let status = child.wait().context("cannot wait for sh")?;
        if !status.success() {
            failed = Some(format!("the shell loop {} ended with {status}", file.display()));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    match failed {
        Some(what) => bail!(what),
        None => Ok(seconds),
    }
}

fn start_loop(file: &Path) -> anyhow::Result<Child> {
    let path = file.with_extension("log");
    let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut shell = Command::new("sh");
    shell.arg(file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    shell.spawn().context("cannot start sh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_run_at_once_and_one_that_fails_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // Each waits for the other one's file.
        let script = |own: &str, other: &str, end: &str| {
            let place = folder.path().display();
            format!("set -e\n: > {place}/{own}\nwhile [ ! -e {place}/{other} ]; do sleep 0.01; done\n{end}\n")
        };
        let files = [folder.path().join("one.sh"), folder.path().join("two.sh")];
        fs::write(&files[0], script("a", "b", "true")).unwrap();
        fs::write(&files[1], script("b", "a", "true")).unwrap();
        assert!(run_loops(&files).unwrap() > 0.0);
        fs::write(&files[1], script("b", "a", "false")).unwrap();
        let error = run_loops(&files).unwrap_err().to_string();
        assert!(error.contains("two.sh ended with exit status: 1"), "{error}");
    }
}
