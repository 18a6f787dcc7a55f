//! The tools that are not in this repository: found, or fetched into the user's cache, or named as missing.
//!
//! Invariants: a tool in the cache is whole (it is made elsewhere and renamed, or marked when it is done); two setups
//! at the same time wait for each other; what cannot be had never ends the others, and is reported with its reason and
//! the way to get it. When everything is there, nothing is written and no network is used.

mod apptainer;
mod apptainer_debian;
mod cargo_tools;
mod chromium;
mod debian;
mod hyperflow;
mod montage;
mod npm;
mod page;
mod python;
mod python_image;
mod quantum_image;
mod rclone;
mod registry;
mod rust_targets;
mod slurm;
mod store;
mod systemd;
mod vm;

use std::fmt;
use std::path::PathBuf;

use crate::workspace::{Workspace, shown};
use store::{Session, Store};

pub(crate) use npm::{esbuild, workerd};
pub(crate) use store::cache;

/// A tool that some command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rust's target for the Worker.
    WasmTarget,
    /// Rust's target for static Linux programs.
    MuslTarget,
    /// The program `wasm-bindgen`, at the version of `Cargo.lock`.
    WasmBindgen,
    /// The program `worker-build`, at the version of `worker` in `Cargo.lock`.
    WorkerBuild,
    /// The folder with esbuild, workerd and Cloudflare's TypeScript client.
    NodePackages,
    /// The folder with what the page is built from and tested with.
    PagePackages,
    /// The program `chromium`, or one like it.
    Chromium,
    /// A Python with Cloudflare's Python client.
    Python,
    /// Apptainer, proven by running a container.
    Apptainer,
    /// A Python with Snakemake, a workflow engine.
    Snakemake,
    /// A Python with Schemathesis, which tests an API by its description.
    Schemathesis,
    /// A Python with actionlint, which checks workflows of GitHub.
    Actionlint,
    /// A Python with the library by which those who are called check who calls.
    StandardWebhooks,
    /// The folder of HyperFlow, a workflow engine.
    HyperFlow,
    /// The program `redis-server`, which HyperFlow needs.
    Redis,
    /// The folder of Slurm 22.05.
    Slurm22,
    /// The folder of Slurm 24.11.
    Slurm24,
    /// A folder with an unpacked image that holds Debian's Python.
    PythonImage,
    /// The file of the image with Qiskit.
    QuantumImage,
    /// A folder with an unpacked image that holds Montage.
    Montage,
    /// A Python with moto, whose server speaks S3, and boto3, the client of AWS.
    Moto,
    /// A Python with MPI, and the library of MPICH.
    Mpi,
    /// The program `s3s-fs`, another server that speaks S3.
    S3sFs,
    /// The program `rclone`.
    Rclone,
    /// The program `docker-registry`, a registry of images.
    Registry,
    /// The program `systemd`, which is the manager of a user in tests.
    Systemd,
    /// The folder of a virtual machine: QEMU, a kernel, and a Debian.
    Vm,
    /// The program `cargo-nextest`, which runs the tests.
    Nextest,
    /// The program `cargo-deny`, which looks at what dependencies are.
    CargoDeny,
    /// The program `cargo-machete`, which looks for those that are not used.
    CargoMachete,
    /// The program `cargo-fuzz`, which runs the fuzz targets.
    CargoFuzz,
    /// The program `mdbook`, which makes a book of the documents.
    MdBook,
}

impl Kind {
    /// Every tool, in an order in which each finds what it needs itself.
    pub(crate) const ALL: [Self; 31] = [
        Self::WasmTarget,
        Self::MuslTarget,
        Self::NodePackages,
        Self::PagePackages,
        Self::Chromium,
        Self::Python,
        Self::Apptainer,
        Self::Snakemake,
        Self::Schemathesis,
        Self::StandardWebhooks,
        Self::Actionlint,
        Self::HyperFlow,
        Self::Redis,
        Self::Slurm22,
        Self::Slurm24,
        Self::PythonImage,
        Self::QuantumImage,
        Self::Montage,
        Self::Moto,
        Self::Mpi,
        Self::S3sFs,
        Self::Rclone,
        Self::Registry,
        Self::Systemd,
        Self::Vm,
        Self::WasmBindgen,
        Self::WorkerBuild,
        Self::Nextest,
        Self::CargoDeny,
        Self::CargoMachete,
        Self::CargoFuzz,
    ];

    /// What the tests need.
    pub(crate) const TEST: [Self; 28] = [
        Self::WasmTarget,
        Self::MuslTarget,
        Self::NodePackages,
        Self::PagePackages,
        Self::Chromium,
        Self::Python,
        Self::Apptainer,
        Self::Snakemake,
        Self::Schemathesis,
        Self::StandardWebhooks,
        Self::Actionlint,
        Self::HyperFlow,
        Self::Redis,
        Self::Slurm22,
        Self::Slurm24,
        Self::PythonImage,
        Self::QuantumImage,
        Self::Montage,
        Self::Moto,
        Self::Mpi,
        Self::S3sFs,
        Self::Rclone,
        Self::Registry,
        Self::Systemd,
        Self::Vm,
        Self::WasmBindgen,
        Self::WorkerBuild,
        Self::Nextest,
    ];

    /// What looks at the dependencies.
    pub(crate) const DEPENDENCIES: [Self; 2] = [Self::CargoDeny, Self::CargoMachete];

    /// What building and running the Worker needs.
    pub(crate) const WORKER: [Self; 5] =
        [Self::WasmTarget, Self::NodePackages, Self::PagePackages, Self::WasmBindgen, Self::WorkerBuild];

    /// What is released is built with these.
    pub(crate) const RELEASE: [Self; 6] = [
        Self::WasmTarget,
        Self::MuslTarget,
        Self::NodePackages,
        Self::PagePackages,
        Self::WasmBindgen,
        Self::WorkerBuild,
    ];

    /// What building and running the runtime image needs.
    pub(crate) const IMAGE: [Self; 2] = [Self::MuslTarget, Self::Apptainer];

    /// What the quantum half of the demo runs in.
    pub(crate) const QUANTUM: [Self; 2] = [Self::PythonImage, Self::QuantumImage];

    /// What the programs of one machine are built with.
    pub(crate) const LOCAL: [Self; 3] = [Self::PagePackages, Self::MuslTarget, Self::Apptainer];

    fn label(self) -> &'static str {
        match self {
            Self::WasmTarget => "Rust target for the Worker",
            Self::MuslTarget => "Rust target for static programs",
            Self::WasmBindgen => "wasm-bindgen",
            Self::WorkerBuild => "worker-build",
            Self::NodePackages => "Node.js packages",
            Self::PagePackages => "what the page is built from",
            Self::Chromium => "Chromium",
            Self::Python => "Python with Cloudflare's client",
            Self::Apptainer => "Apptainer",
            Self::Snakemake => "Python with Snakemake",
            Self::Schemathesis => "Python with Schemathesis",
            Self::StandardWebhooks => "Python with Standard Webhooks",
            Self::Actionlint => "Python with actionlint",
            Self::HyperFlow => "HyperFlow",
            Self::Redis => "Redis, for HyperFlow",
            Self::Slurm22 => "Slurm 22.05, with MariaDB",
            Self::Slurm24 => "Slurm 24.11, with MariaDB",
            Self::PythonImage => "image with Python",
            Self::QuantumImage => "image with Qiskit",
            Self::Montage => "image with Montage",
            Self::Moto => "Python with moto and boto3",
            Self::Mpi => "Python with MPI",
            Self::S3sFs => "s3s-fs",
            Self::Rclone => "rclone",
            Self::Registry => "docker-registry",
            Self::Systemd => "systemd",
            Self::Vm => "virtual machine",
            Self::Nextest => "cargo-nextest",
            Self::CargoDeny => "cargo-deny",
            Self::CargoMachete => "cargo-machete",
            Self::CargoFuzz => "cargo-fuzz",
            Self::MdBook => "mdbook",
        }
    }

    /// Looks for the tool. `None`: it is not there, and installing it may help.
    fn find(self, place: &Place) -> Result<Option<Tool>, Missing> {
        match self {
            Self::WasmTarget => rust_targets::find(crate::workspace::WASM_TARGET),
            Self::MuslTarget => rust_targets::find(&crate::workspace::musl_target()),
            Self::WasmBindgen => cargo_tools::WASM_BINDGEN.find(place),
            Self::WorkerBuild => cargo_tools::WORKER_BUILD.find(place),
            Self::NodePackages => npm::find(place),
            Self::PagePackages => page::find(place),
            Self::Chromium => chromium::find(place),
            Self::Python => Ok(python::CLOUDFLARE.find(place)),
            Self::Apptainer => apptainer::find(place),
            Self::Snakemake => Ok(python::SNAKEMAKE.find(place)),
            Self::Schemathesis => Ok(python::SCHEMATHESIS.find(place)),
            Self::StandardWebhooks => Ok(python::STANDARD_WEBHOOKS.find(place)),
            Self::Actionlint => Ok(python::ACTIONLINT.find(place)),
            Self::HyperFlow => hyperflow::find(place),
            Self::Redis => Ok(hyperflow::find_redis(place)),
            Self::Slurm22 => Ok(slurm::SLURM_22_05.find(place)),
            Self::Slurm24 => Ok(slurm::SLURM_24_11.find(place)),
            Self::PythonImage => Ok(python_image::find(place)),
            Self::QuantumImage => Ok(quantum_image::find(place)),
            Self::Montage => Ok(montage::find(place)),
            Self::Moto => Ok(python::MOTO.find(place)),
            Self::Mpi => Ok(python::MPI.find(place)),
            Self::S3sFs => cargo_tools::S3S_FS.find(place),
            Self::Rclone => Ok(rclone::find(place)),
            Self::Registry => Ok(registry::find(place)),
            Self::Systemd => systemd::find(),
            Self::Vm => Ok(vm::find(place)),
            Self::Nextest => cargo_tools::NEXTEST.find(place),
            Self::CargoDeny => cargo_tools::DENY.find(place),
            Self::CargoMachete => cargo_tools::MACHETE.find(place),
            Self::CargoFuzz => cargo_tools::FUZZ.find(place),
            Self::MdBook => cargo_tools::MDBOOK.find(place),
        }
    }

    fn install(self, place: &Place, session: &Session) -> Result<(), Missing> {
        match self {
            Self::WasmTarget => rust_targets::install(crate::workspace::WASM_TARGET),
            Self::MuslTarget => rust_targets::install(&crate::workspace::musl_target()),
            Self::WasmBindgen => cargo_tools::WASM_BINDGEN.install(place, session),
            Self::WorkerBuild => cargo_tools::WORKER_BUILD.install(place, session),
            Self::NodePackages => npm::install(session),
            Self::PagePackages => page::install(session),
            Self::Chromium => chromium::install(session),
            Self::Python => python::CLOUDFLARE.install(session),
            Self::Apptainer => apptainer::install(place, session),
            Self::Snakemake => python::SNAKEMAKE.install(session),
            Self::Schemathesis => python::SCHEMATHESIS.install(session),
            Self::StandardWebhooks => python::STANDARD_WEBHOOKS.install(session),
            Self::Actionlint => python::ACTIONLINT.install(session),
            Self::HyperFlow => hyperflow::install(session),
            Self::Redis => hyperflow::install_redis(session),
            Self::Slurm22 => slurm::SLURM_22_05.install(session),
            Self::Slurm24 => slurm::SLURM_24_11.install(session),
            Self::PythonImage => python_image::install(session),
            Self::QuantumImage => quantum_image::install(place, session),
            Self::Montage => montage::install(session),
            Self::Moto => python::MOTO.install(session),
            Self::Mpi => python::MPI.install(session),
            Self::S3sFs => cargo_tools::S3S_FS.install(place, session),
            Self::Rclone => rclone::install(session),
            Self::Registry => registry::install(session),
            // Found, or told of as missing.
            Self::Systemd => Ok(()),
            Self::Vm => vm::install(session),
            Self::Nextest => cargo_tools::NEXTEST.install(place, session),
            Self::CargoDeny => cargo_tools::DENY.install(place, session),
            Self::CargoMachete => cargo_tools::MACHETE.install(place, session),
            Self::CargoFuzz => cargo_tools::FUZZ.install(place, session),
            Self::MdBook => cargo_tools::MDBOOK.install(place, session),
        }
    }
}

/// A tool that is there.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// The program, or the folder.
    pub(crate) path: PathBuf,
    /// Which version it is.
    pub(crate) version: String,
}

/// A tool that is not there.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    what: String,
    why: String,
    remedy: String,
}

impl Missing {
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// The same for an error with its causes.
    fn because(what: impl Into<String>, error: &anyhow::Error, remedy: impl Into<String>) -> Self {
        Self::new(what, format!("{error:#}"), remedy)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used: {}. {}", self.what, self.why.trim_end_matches('.'), self.remedy)
    }
}

impl std::error::Error for Missing {}

/// Where tools are looked for.
struct Place<'a> {
    workspace: &'a Workspace,
    store: &'a Store,
}

/// What was found of the tools that were asked for.
pub(crate) struct Tools {
    found: Vec<(Kind, Result<Tool, Missing>)>,
}

impl Tools {
    /// Finds the tools, and installs those that are not there.
    pub(crate) fn set_up(workspace: &Workspace, kinds: &[Kind]) -> anyhow::Result<Self> {
        let store = Store::open()?;
        let place = Place { workspace, store: &store };
        let mut session = None;
        let mut found = Vec::new();
        for &kind in kinds {
            let tool = match kind.find(&place) {
                Ok(Some(tool)) => Ok(tool),
                Err(missing) => Err(missing),
                Ok(None) => {
                    let session: &Session = match &session {
                        Some(session) => session,
                        None => session.insert(store.begin()?),
                    };
                    get(kind, &place, session)
                }
            };
            found.push((kind, tool));
        }
        Ok(Self { found })
    }

    /// Where a tool is. It must be among those that were asked for.
    pub(crate) fn get(&self, kind: Kind) -> Result<&Tool, Missing> {
        match self.found.iter().find(|(candidate, _)| *candidate == kind) {
            Some((_, Ok(tool))) => Ok(tool),
            Some((_, Err(missing))) => Err(missing.clone()),
            None => Err(Missing::new(kind.label(), "this command does not set it up", "Run `cargo xtask setup`.")),
        }
    }

    /// What cannot be used.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Missing> {
        self.found.iter().filter_map(|(_, tool)| tool.as_ref().err())
    }

    /// Prints each tool, where it is, and what is missing.
    pub(crate) fn print(&self) {
        for (kind, tool) in &self.found {
            if let Ok(tool) = tool {
                println!("  {:<32}{}\n  {:<32}{}", kind.label(), tool.version, "", shown(&tool.path));
            }
        }
        for missing in self.missing() {
            println!("\n  MISSING  {missing}");
        }
    }
}

fn get(kind: Kind, place: &Place, session: &Session) -> Result<Tool, Missing> {
    // Another setup may have brought it while we waited for the lock.
    if let Some(tool) = kind.find(place)? {
        return Ok(tool);
    }
    kind.install(place, session)?;
    kind.find(place)?.ok_or_else(|| {
        Missing::new(
            kind.label(),
            "its installation ended without an error, and yet it is not there",
            format!("Remove its folder in {} and run `cargo xtask setup` again.", session.root().display()),
        )
    })
}

/// The folder of a platform in the names of npm packages: `linux-x64`, `darwin-arm64`.
fn npm_platform(x86_64: &'static str) -> (&'static str, &'static str) {
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let processor = if cfg!(target_arch = "aarch64") { "arm64" } else { x86_64 };
    (system, processor)
}
