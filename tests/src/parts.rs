//! The real parts that are not built by `cargo build`: where they are, as `cargo xtask test` says.
//!
//! This is the testkit's one reader of settings. A part that is missing fails the test that needs it, with the
//! reason that `cargo xtask test` found; a test never passes for the want of a part.

use std::env;
use std::path::PathBuf;

/// A program of this project, built for the host: `local-edge`, `hpc-consumer` or `laptop-consumer`.
pub fn program(name: &str) -> PathBuf {
    let directory = env::var_os("HPC_QUEUE_BIN_DIR").map_or_else(
        || {
            // target/debug/deps/<test> → target/debug
            let test = env::current_exe().expect("a test knows its own program");
            let directory = test.parent().and_then(|deps| deps.parent());
            directory.expect("a test program lies in target/<profile>/deps").to_owned()
        },
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.is_file(), "{} is not there: run `cargo build`, or `cargo xtask test`", path.display());
    path
}

/// The program `apptainer`.
pub fn apptainer() -> PathBuf {
    part("APPTAINER", "Apptainer")
}

/// The program `task-runner`, which needs nothing of where it runs.
pub fn task_runner() -> PathBuf {
    part("TASK_RUNNER", "the static task runner")
}

/// The image of the runtime, with the task runner.
pub fn runtime_sif() -> PathBuf {
    part("RUNTIME_SIF", "the runtime image")
}

/// The same with Debian's Python and a shell.
pub fn python_sif() -> PathBuf {
    part("PYTHON_SIF", "the image with Python")
}

/// The image with Qiskit and its simulator.
pub fn quantum_sif() -> PathBuf {
    part("QUANTUM_SIF", "the image with Qiskit")
}

/// The program `workerd`.
pub fn workerd() -> PathBuf {
    part("WORKERD", "workerd")
}

/// The directory of the compiled Worker: `index.js` and `index_bg.wasm`.
pub fn worker_dir() -> PathBuf {
    part("WORKER_DIR", "the compiled Worker")
}

/// A Python that has Cloudflare's SDK.
pub fn python() -> PathBuf {
    part("PYTHON", "Python with Cloudflare's SDK")
}

/// A directory whose `node_modules` has Cloudflare's SDK for TypeScript.
pub fn node_tools() -> PathBuf {
    part("NODE_TOOLS", "Cloudflare's SDK for TypeScript")
}

/// A directory whose `node_modules` has what looks at the page: Playwright and axe.
pub fn page_tools() -> PathBuf {
    part("PAGE_TOOLS", "what the page is tested with")
}

/// The program `chromium`, or one like it.
pub fn chromium() -> PathBuf {
    part("CHROMIUM", "Chromium")
}

/// A Python that has Snakemake, with its executor for any cluster.
pub fn snakemake() -> PathBuf {
    part("SNAKEMAKE", "Python with Snakemake")
}

/// A Python that has Schemathesis.
pub fn schemathesis() -> PathBuf {
    part("SCHEMATHESIS", "Python with Schemathesis")
}

/// A Python that has the library of Standard Webhooks.
pub fn standard_webhooks() -> PathBuf {
    part("STANDARD_WEBHOOKS", "Python with Standard Webhooks")
}

/// A Python that has actionlint.
pub fn actionlint() -> PathBuf {
    part("ACTIONLINT", "Python with actionlint")
}

/// A Python that has `mpi4py`, with the library of MPICH.
pub fn mpi() -> PathBuf {
    part("MPI", "Python with MPI")
}

/// A Python that has moto, whose server speaks S3, and boto3, the client of AWS.
pub fn moto() -> PathBuf {
    part("MOTO", "Python with moto and boto3")
}

/// The program `s3s-fs`, a server that speaks S3.
pub fn s3s_fs() -> PathBuf {
    part("S3S_FS", "s3s-fs")
}

/// The program `rclone`.
pub fn rclone() -> PathBuf {
    part("RCLONE", "rclone")
}

/// The program `docker-registry`, a registry of images.
pub fn docker_registry() -> PathBuf {
    part("DOCKER_REGISTRY", "docker-registry")
}

/// The directory of the package `@hyperflow/hyperflow`.
pub fn hyperflow() -> PathBuf {
    part("HYPERFLOW", "HyperFlow")
}

/// The program `redis-server`.
pub fn redis() -> PathBuf {
    part("REDIS", "Redis")
}

/// A directory with an unpacked image that has Montage.
pub fn montage() -> PathBuf {
    part("MONTAGE", "the image with Montage")
}

/// A directory with a Slurm of this version, as `22.05`: its programs, and those of its accounting.
pub fn slurm(version: &str) -> PathBuf {
    part(&format!("SLURM_{}", version.replace('.', "_")), &format!("Slurm {version}"))
}

/// The program `systemd`, with which `systemctl` and `systemd-analyze` have come.
pub fn systemd() -> PathBuf {
    part("SYSTEMD", "systemd")
}

/// The directory of a virtual machine: `qemu`, `linux`, `modules` and `root`.
pub fn vm() -> PathBuf {
    part("VM", "the virtual machine")
}

/// The directory of the workspace.
pub fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("this crate lies within the workspace").to_owned()
}

/// The home directory of whoever runs the tests.
pub fn home() -> PathBuf {
    env::var_os("HOME").map(PathBuf::from).expect("HOME is set")
}

/// A program of the system that is on the `PATH`, or `None`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}

fn part(name: &str, what: &str) -> PathBuf {
    if let Some(path) = env::var_os(format!("HPC_QUEUE_{name}")) {
        let path = PathBuf::from(path);
        assert!(path.exists(), "{what} is to be at {}, where nothing is", path.display());
        return path;
    }
    match env::var(format!("HPC_QUEUE_MISSING_{name}")) {
        Ok(why) => panic!("{what} is missing: {why}"),
        Err(_) => panic!("{what} is missing: run `cargo xtask test`, which installs it"),
    }
}
