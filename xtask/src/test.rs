//! `cargo xtask test`: every test, with the real parts where they can be had.
//!
//! The tests learn of the parts through the environment: `HPC_QUEUE_<NAME>` holds a path, and for a part that cannot
//! be had `HPC_QUEUE_MISSING_<NAME>` holds the sentence with which a test that needs it fails. A test is never skipped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use crate::tools::{self, Kind, Missing, Tools};
use crate::workspace::{Profile, Workspace, shown};
use crate::{command, image, worker};

/// Sets up, builds and tests; the arguments go to `cargo test`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<ExitCode> {
    println!("Tools");
    let tools = Tools::set_up(workspace, &Kind::ALL)?;
    tools.print();

    println!("\nThe Worker, the runtime image and the programs");
    let parts = build_parts(workspace, &tools)?;

    println!("\nTests");
    let mut tests = workspace.cargo("test");
    tests.args(["--workspace", "--exclude", "producer-worker", "--no-fail-fast"]).args(arguments);
    for part in &parts {
        part.announce(&mut tests);
    }
    let (passed, tally) = run_counted(&mut tests)?;

    println!("\nReal parts:");
    for part in &parts {
        match &part.found {
            Ok(path) => println!("  {:<14}{}", part.name, shown(path)),
            Err(missing) => println!("  {:<14}MISSING: {missing}", part.name),
        }
    }
    println!("{tally}");
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part that tests use, and the name that it has in the environment.
struct Part {
    name: &'static str,
    found: Result<PathBuf, Missing>,
}

impl Part {
    fn announce(&self, command: &mut Command) {
        match &self.found {
            Ok(path) => command.env(format!("HPC_QUEUE_{}", self.name), path),
            Err(missing) => command.env(format!("HPC_QUEUE_MISSING_{}", self.name), missing.to_string()),
        };
    }
}

fn build_parts(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Vec<Part>> {
    let worker = worker::build_with(workspace, tools)?;
    if let Ok(worker) = &worker {
        println!("{}", worker.size_within_limit()?);
    }
    let image = image::build(workspace, tools)?;
    command::run(workspace.cargo("build").args([
        "--workspace",
        "--exclude",
        "producer-worker",
        "--exclude",
        "task-runner",
        "--bins",
    ]))?;
    let path = |kind: Kind| tools.get(kind).map(|tool| tool.path.clone());
    let packages = path(Kind::NodePackages);
    Ok(vec![
        Part { name: "APPTAINER", found: path(Kind::Apptainer) },
        Part { name: "RUNTIME_SIF", found: image },
        Part { name: "WORKERD", found: packages.clone().map(|folder| tools::workerd(&folder)) },
        Part { name: "WORKER_DIR", found: worker.map(|worker| worker.folder) },
        Part { name: "PYTHON", found: path(Kind::Python) },
        Part { name: "NODE_TOOLS", found: packages },
        Part { name: "BIN_DIR", found: Ok(workspace.target.join(Profile::Dev.folder())) },
    ])
}

/// Runs `cargo test`, shows what it prints, and counts.
fn run_counted(command: &mut Command) -> anyhow::Result<(bool, Tally)> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{}`", command::line(command)))?;
    let output = child.stdout.take();
    let mut tally = Tally::default();
    let read = output.map_or(Ok(()), |output| tally.read(BufReader::new(output)));
    // In any case, so that no process is left behind.
    let status = child.wait().context("cannot wait for `cargo test`")?;
    read.context("cannot read the output of `cargo test`")?;
    Ok((status.success(), tally))
}

/// The sum of the lines `test result: …`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Shows the lines and counts.
    fn read(&mut self, output: impl BufRead) -> std::io::Result<()> {
        for line in output.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.count(&line);
        }
        Ok(())
    }

    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |word: &str| {
            let before = result.split(word).next().filter(|before| before.len() < result.len());
            before.and_then(|before| before.split_whitespace().last()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.programs += 1;
        self.passed += number(" passed");
        self.failed += number(" failed");
        self.ignored += number(" ignored");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { programs, passed, failed, ignored } = self;
        write!(f, "{passed} tests passed, {failed} failed, {ignored} ignored, in {programs} test programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut tally = Tally::default();
        tally.count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s");
        tally.count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s");
        tally.count("running 3 tests");
        assert_eq!(tally, Tally { programs: 2, passed: 15, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_missing_part_reaches_the_tests_as_a_sentence() {
        let mut command = Command::new("true");
        let missing = Missing::new("Apptainer", "there is none", "Install it.");
        Part { name: "APPTAINER", found: Err(missing) }.announce(&mut command);
        let set: Vec<_> = command.get_envs().collect();
        assert_eq!(set.len(), 1);
        assert_eq!(set[0].0, "HPC_QUEUE_MISSING_APPTAINER");
        assert_eq!(set[0].1.unwrap(), "Apptainer cannot be used: there is none. Install it.");
    }
}
