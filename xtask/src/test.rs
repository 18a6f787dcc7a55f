//! `cargo xtask test`: every test, with the real parts where they can be had.
//!
//! The tests learn of the parts through the environment: `HPC_QUEUE_<NAME>` holds a path, and for a part that cannot
//! be had `HPC_QUEUE_MISSING_<NAME>` holds the sentence with which a test that needs it fails. A test is never skipped.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::tools::{self, Kind, Missing, Tools};
use crate::workspace::{Profile, Workspace, shown};
use crate::{command, image, page, worker};

/// Sets up, builds and tests; the arguments go to `cargo nextest run`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<ExitCode> {
    println!("Tools");
    let tools = Tools::set_up(workspace, &Kind::TEST)?;
    tools.print();

    println!("\nThe page, the Worker, the runtime image and the programs");
    let parts = build_parts(workspace, &tools)?;

    println!("\nTests");
    let mut tests = Command::new(&tools.get(Kind::Nextest)?.path);
    tests.current_dir(&workspace.root);
    tests.args(["nextest", "run", "--workspace", "--exclude", "producer-worker", "--no-fail-fast"]).args(arguments);
    for part in &parts {
        part.announce(&mut tests);
    }
    let status = tests.status().with_context(|| format!("cannot start `{}`", command::line(&tests)))?;

    println!("\nReal parts:");
    for part in &parts {
        match &part.found {
            Ok(path) => println!("  {:<14}{}", part.name, shown(path)),
            Err(missing) => println!("  {:<14}MISSING: {missing}", part.name),
        }
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    // Whoever needs the page says so.
    let _ = page::check_with(workspace, tools)?;
    let worker = worker::build_with(workspace, tools)?;
    if let Ok(worker) = &worker {
        println!("{}", worker.size_within_limit()?);
    }
    let image = image::build(workspace, tools)?;
    let python_image = image::build_python(workspace, tools, &image)?;
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
        Part {
            name: "TASK_RUNNER",
            found: image.as_ref().map(|_| image::task_runner(workspace)).map_err(Clone::clone),
        },
        Part { name: "RUNTIME_SIF", found: image },
        Part { name: "PYTHON_SIF", found: python_image },
        Part { name: "QUANTUM_SIF", found: path(Kind::QuantumImage) },
        Part { name: "WORKERD", found: packages.clone().map(|folder| tools::workerd(&folder)) },
        Part { name: "WORKER_DIR", found: worker.map(|worker| worker.folder) },
        Part { name: "PAGE_TOOLS", found: path(Kind::PagePackages) },
        Part { name: "CHROMIUM", found: path(Kind::Chromium) },
        Part { name: "PYTHON", found: path(Kind::Python) },
        Part { name: "NODE_TOOLS", found: packages },
        Part { name: "SNAKEMAKE", found: path(Kind::Snakemake) },
        Part { name: "SCHEMATHESIS", found: path(Kind::Schemathesis) },
        Part { name: "STANDARD_WEBHOOKS", found: path(Kind::StandardWebhooks) },
        Part { name: "ACTIONLINT", found: path(Kind::Actionlint) },
        Part { name: "HYPERFLOW", found: path(Kind::HyperFlow) },
        Part { name: "REDIS", found: path(Kind::Redis) },
        Part { name: "SLURM_22_05", found: path(Kind::Slurm22) },
        Part { name: "SLURM_24_11", found: path(Kind::Slurm24) },
        Part { name: "SYSTEMD", found: path(Kind::Systemd) },
        Part { name: "VM", found: path(Kind::Vm) },
        Part { name: "MONTAGE", found: path(Kind::Montage) },
        Part { name: "MOTO", found: path(Kind::Moto) },
        Part { name: "MPI", found: path(Kind::Mpi) },
        Part { name: "S3S_FS", found: path(Kind::S3sFs) },
        Part { name: "RCLONE", found: path(Kind::Rclone) },
        Part { name: "DOCKER_REGISTRY", found: path(Kind::Registry) },
        Part { name: "BIN_DIR", found: Ok(workspace.target.join(Profile::Dev.folder())) },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

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
