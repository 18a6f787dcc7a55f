//! The runtime image as a `.sif`: a scratch root file system with the statically linked task runner in it; and another
//! one that has Debian's Python besides.
//!
//! No network and no base image: the task runner needs nothing but the kernel, and Python was unpacked before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command;
use crate::tools::{Kind, Missing, Tools};
use crate::workspace::{Profile, Workspace, musl_target};

/// Where the task runner is within the image.
const TASK_RUNNER: &str = "usr/local/bin/task-runner";

/// The folders and their modes; `containers/README.md` says why each is there.
const FOLDERS: [(&str, u32); 13] = [
    ("", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("work", 0o755),
];

/// Empty files that Apptainer mounts the host's over, or fills in its own copy.
const FILES: [&str; 5] = ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/localtime"];

/// Builds the image; returns the `.sif`.
///
/// The outer error is one that must be mended; the inner one is a missing tool.
pub(crate) fn build(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Result<PathBuf, Missing>> {
    let (apptainer, target) = match (tools.get(Kind::Apptainer), tools.get(Kind::MuslTarget)) {
        (Ok(apptainer), Ok(_)) => (&apptainer.path, musl_target()),
        (Err(missing), _) | (_, Err(missing)) => return Ok(Err(missing)),
    };
    command::run(workspace.cargo("build").args([
        "--release",
        "--package",
        "task-runner",
        "--target",
        target.as_str(),
    ]))?;
    make(workspace, apptainer, "runtime.sif", |root| lay_out(root, &task_runner(workspace))).map(Ok)
}

/// Builds the image with Debian's Python, once the other one is built: the same task runner is in it.
pub(crate) fn build_python(
    workspace: &Workspace,
    tools: &Tools,
    runtime: &Result<PathBuf, Missing>,
) -> anyhow::Result<Result<PathBuf, Missing>> {
    let (apptainer, python) = match (runtime, tools.get(Kind::Apptainer), tools.get(Kind::PythonImage)) {
        (Ok(_), Ok(apptainer), Ok(python)) => (&apptainer.path, &python.path),
        (Err(missing), ..) => return Ok(Err(missing.clone())),
        (_, Err(missing), _) | (_, _, Err(missing)) => return Ok(Err(missing)),
    };
    let lay_out = |root: &Path| {
        command::capture(Command::new("cp").arg("--archive").arg(python).arg(root))?;
        lay_out(root, &task_runner(workspace))
    };
    make(workspace, apptainer, "python.sif", lay_out).map(Ok)
}

/// Makes the image of what is laid out in a folder.
fn make(
    workspace: &Workspace,
    apptainer: &Path,
    name: &str,
    lay_out: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let scratch = workspace.scratch()?;
    let folder = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(&scratch)
        .with_context(|| format!("cannot create a folder in {}", scratch.display()))?;
    let root = folder.path().join("root");
    lay_out(&root)?;
    let image = folder.path().join(name);
    command::capture(Command::new(apptainer).arg("build").arg(&image).arg(&root))?;
    let place = scratch.join(name);
    // In one step: a container of another run may have the old image open.
    fs::rename(&image, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

/// The task runner that was built for the image. It needs nothing of where it runs.
pub(crate) fn task_runner(workspace: &Workspace) -> PathBuf {
    workspace.target.join(musl_target()).join("release/task-runner")
}

/// The task runner for this machine itself, for the runtime `bare`.
pub(crate) fn bare_task_runner(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    workspace.build(Profile::Release, &["task-runner"])?;
    Ok(workspace.program(Profile::Release, "task-runner"))
}

fn lay_out(root: &Path, program: &Path) -> anyhow::Result<()> {
    lay_out_mount_points(root)?;
    let place = root.join(TASK_RUNNER);
    fs::copy(program, &place).with_context(|| format!("cannot copy {} to {}", program.display(), place.display()))?;
    set_mode(&place, 0o755)
}

/// The folders and files that Apptainer mounts over, where they are not there yet.
pub(crate) fn lay_out_mount_points(root: &Path) -> anyhow::Result<()> {
    for (name, mode) in FOLDERS {
        let folder = root.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // Said outright: the image must not depend on the umask of whoever builds it.
        set_mode(&folder, mode)?;
    }
    for name in FILES {
        let file = root.join(name);
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        set_mode(&file, 0o644)?;
    }
    Ok(())
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_holds_the_program_and_what_is_mounted_over() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "binary").unwrap();
        let root = folder.path().join("root");
        lay_out(&root, &program).unwrap();
        assert_eq!(fs::read_to_string(root.join("usr/local/bin/task-runner")).unwrap(), "binary");
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        for (path, expected) in [("", 0o755), ("work", 0o755), ("tmp", 0o1777), ("etc/passwd", 0o644)] {
            assert_eq!(mode(path), expected, "{path:?}");
        }
        assert_eq!(mode("usr/local/bin/task-runner"), 0o755);
    }
}
