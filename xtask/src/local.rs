//! The programs and the runtime image as one person uses them on this machine, built: what the demo shows, and what
//! `cargo xtask up` starts. Not here: starting them.

use std::path::{Path, PathBuf};

use crate::report::Report;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace, shown};
use crate::{command, image, page};

/// The programs that a person on one machine needs.
const PROGRAMS: [&str; 3] = ["local-edge", "hpc-consumer", "laptop-consumer"];

/// What wraps the jobs.
pub(crate) enum Runtime {
    /// Containers of the runtime image.
    Apptainer {
        /// The program `apptainer`.
        program: PathBuf,
        /// The runtime image.
        image: PathBuf,
    },
    /// No container.
    Bare {
        /// The tasks of the runtime image, as a program of this machine.
        task_runner: PathBuf,
    },
}

impl Runtime {
    /// The settings of a daemon that runs jobs in it.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        match self {
            Self::Apptainer { program, image } => vec![
                ("RUNTIME", "apptainer".to_owned()),
                ("APPTAINER_BIN", text(program)),
                ("APPTAINER_IMAGE", text(image)),
            ],
            // The setting is split into words as a shell does it.
            Self::Bare { task_runner } => {
                vec![("RUNTIME", "bare".to_owned()), ("CONTAINER_CMD", command::quoted(task_runner))]
            }
        }
    }

    /// The lines of a pool in the file of a site that runs jobs in it.
    pub(crate) fn pool(&self) -> String {
        match self {
            Self::Apptainer { program: _, image } => format!("image = {}", toml_text(image)),
            Self::Bare { task_runner } => format!("runtime = \"bare\"\ncommand = [{}]", toml_text(task_runner)),
        }
    }
}

/// A path as TOML writes a text.
pub(crate) fn toml_text(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

/// Builds the page and the programs, and the runtime image where there is an Apptainer.
pub(crate) fn build(workspace: &Workspace, tools: &Tools, report: &Report) -> anyhow::Result<Runtime> {
    if let Err(missing) = page::build_with(workspace, tools)? {
        report.note(format!("{missing}\nThe edge has no page to look at."));
    }
    let packages: Vec<String> = PROGRAMS.iter().map(|name| format!("--package {name}")).collect();
    report.command(format!("cargo build {}", packages.join(" ")));
    workspace.build(Profile::Dev, &PROGRAMS)?;
    match image::build(workspace, tools)? {
        Ok(image) => {
            report.note(format!("The runtime image is {}", shown(&image)));
            Ok(Runtime::Apptainer { program: tools.get(Kind::Apptainer)?.path.clone(), image })
        }
        Err(missing) => {
            report.note(format!("{missing}\nJobs run with RUNTIME=bare: no container, and no isolation."));
            Ok(Runtime::Bare { task_runner: image::bare_task_runner(workspace)? })
        }
    }
}
