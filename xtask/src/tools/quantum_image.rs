//! The image of `containers/quantum.def`, made without root and without a base image: the folder of the Python image,
//! and in it the wheels of `containers/quantum.txt`.
//!
//! Other images are made anew by each command. This one stays in the cache, as a file: to compress it takes half a
//! minute.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::store::{Session, remove_if_there};
use super::{Kind, Missing, Place, Tool, debian, python_image};
use crate::{command, image};

const WHAT: &str = "the image with Qiskit";

/// The recipe that says the same for a machine with a network, and every package with its version and hashes.
const RECIPE: [&str; 2] =
    [include_str!("../../../containers/quantum.def"), include_str!("../../../containers/quantum.txt")];

/// The number changes with how this module makes it.
const MADE_AS: u32 = 1;

/// Where Debian's Python looks for what it does not have itself.
const PACKAGES: &str = "usr/local/lib/python3.13/dist-packages";

/// What packages there start, which pip would leave with the path of its own Python.
const TASK_RUNNER: &str =
    "#!/usr/bin/python3\nimport sys\nfrom qrmi.tools.task_runner.main import run\nsys.exit(run())\n";

/// The `.sif`.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let path = place.store.folder(&folder_name()).join("quantum.sif");
    path.is_file().then(|| Tool { path, version: format!("Qiskit {}", version_of("qiskit")) })
}

pub(super) fn install(place: &Place, session: &Session) -> Result<(), Missing> {
    let python = python_image::find(place).ok_or_else(|| {
        Missing::new(WHAT, "the image with Python, which it is built on, is not there", "Run `cargo xtask setup`.")
    })?;
    let apptainer = Kind::Apptainer
        .find(place)?
        .ok_or_else(|| Missing::new(WHAT, "Apptainer, which builds it, is not there", "Run `cargo xtask setup`."))?;
    println!("Fetching Qiskit, Aer and QRMI with pip, and making an image of them; that takes a minute.");
    session.place(&folder_name(), |folder| make(session, &python.path, &apptainer.path, folder)).map_err(|error| {
        Missing::because(
            WHAT,
            &error,
            "Install Python 3 with its modules venv and pip (on Debian: `apt install python3-venv`), and see to it that \
             pip reaches its registry.",
        )
    })
}

/// A folder for each content of the recipe.
fn folder_name() -> String {
    let mut hasher = DefaultHasher::new();
    (RECIPE, python_image::FOLDER, MADE_AS).hash(&mut hasher);
    format!("quantum-image-{:016x}", hasher.finish())
}

/// The version of a package.
fn version_of(package: &str) -> &'static str {
    let line = RECIPE[1].lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
    line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default()
}

fn make(session: &Session, python: &Path, apptainer: &Path, folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    command::capture(Command::new("cp").arg("--archive").arg(python).arg(&root))?;
    // Aer needs the library of C++.
    let apt = debian::Apt::of(session.scratch(), &[python_image::SUITE])?;
    debian::unpack(&apt.download(["libstdc++6"])?, &root)?;
    remove_if_there(&root.join("usr/share/doc"))?;
    remove_if_there(&root.join("usr/share/gdb"))?;

    let packages = root.join(PACKAGES);
    fetch(folder, &packages)?;
    remove_if_there(&packages.join("bin"))?;
    remove_tests(&packages)?;
    let starter = root.join("usr/local/bin/task_runner");
    std::fs::write(&starter, TASK_RUNNER).with_context(|| format!("cannot write {}", starter.display()))?;
    image::set_mode(&starter, 0o755)?;
    let own_python = own_python(&root)?;
    // With compiled modules an import takes half as long. By hash, for times of files are not kept on the way.
    let words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-p", "/"];
    let mut compile = own_python();
    command::capture(compile.args(words).arg("-s").arg(&root).arg(&packages))?;
    command::capture(own_python().args(["-c", "import qiskit, qiskit_aer, qrmi"]).env("PYTHONDONTWRITEBYTECODE", "1"))?;

    command::capture(Command::new(apptainer).arg("build").arg(folder.join("quantum.sif")).arg(&root))?;
    remove_if_there(&root)
}

/// Has pip unpack the wheels for the image's Python, which need not be the one that pip runs on.
fn fetch(folder: &Path, packages: &Path) -> anyhow::Result<()> {
    let python = command::on_path("python3").context("there is no `python3` on the PATH")?;
    let environment = folder.join("pip");
    command::capture(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))?;
    let locked = folder.join("quantum.txt");
    std::fs::write(&locked, RECIPE[1]).with_context(|| format!("cannot write {}", locked.display()))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]);
    pip.args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--ignore-requires-python"]);
    pip.args([
        "--implementation",
        "cp",
        "--python-version",
        "3.13",
        "--abi",
        "cp313",
        "--abi",
        "abi3",
        "--abi",
        "none",
    ]);
    for tag in ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17"] {
        pip.args(["--platform", &format!("{tag}_{}", std::env::consts::ARCH)]);
    }
    command::capture(pip.arg("--target").arg(packages).arg("--requirement").arg(&locked))?;
    remove_if_there(&environment)
}

/// The tests of packages, which nobody runs here, are a tenth of them.
fn remove_tests(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == "tests" {
            remove_if_there(&entry.path())?;
        } else {
            remove_tests(&entry.path())?;
        }
    }
    Ok(())
}

/// The image's own Python, started without a container: with its own loader, libraries and modules.
fn own_python(root: &Path) -> anyhow::Result<impl Fn() -> Command> {
    let debian::Processor { libraries, loader, .. } = debian::processor()?;
    let folder = root.join("usr/lib").join(libraries);
    let (python, home) = (root.join("usr/bin/python3.13"), root.join("usr"));
    let packages = root.join(PACKAGES);
    Ok(move || {
        let mut command = Command::new(folder.join(loader));
        command.arg("--library-path").arg(&folder).arg(&python).env("PYTHONHOME", &home).env("PYTHONPATH", &packages);
        command
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_the_image_has_a_version_and_a_hash() {
        let lines: Vec<_> = RECIPE[1].lines().filter(|line| !line.starts_with('#')).collect();
        let packages = lines.iter().filter(|line| line.contains("==")).count();
        assert!(packages >= 3 && !version_of("qiskit").is_empty() && !version_of("qrmi").is_empty(), "{packages}");
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("==")) {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            assert!(next.trim_start().starts_with("--hash=sha256:"), "{line} has no hash");
        }
    }

    #[test]
    fn tests_go_and_what_is_beside_them_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("numpy/linalg/tests")).unwrap();
        std::fs::write(folder.path().join("numpy/linalg/tests/test_x.py"), "").unwrap();
        std::fs::write(folder.path().join("numpy/tests.py"), "").unwrap();
        remove_tests(folder.path()).unwrap();
        assert!(folder.path().join("numpy/tests.py").exists() && !folder.path().join("numpy/linalg/tests").exists());
    }
}
