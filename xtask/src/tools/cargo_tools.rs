//! The programs that `cargo install` builds, each at one version: that of a package in `Cargo.lock`, or one named here.

use std::path::Path;

use super::store::Session;
use super::{Missing, Place, Tool};
use crate::command;
use crate::workspace::Workspace;

/// A program from the registry.
pub(super) struct CargoTool {
    /// The package that is installed.
    package: &'static str,
    /// Which version it must have.
    version: Version,
    /// The program, and the start of the folder's name.
    program: &'static str,
    /// Features, in place of the default ones.
    features: Option<&'static str>,
    /// Does the one on the `PATH` do as well, whichever version it is?
    any_on_path: bool,
}

/// Which version a program must have.
enum Version {
    /// That of this package in `Cargo.lock`.
    Of(&'static str),
    /// This one.
    Pinned(&'static str),
}

/// It must be of the very version of the library, or it refuses the file.
pub(super) const WASM_BINDGEN: CargoTool =
    CargoTool::new("wasm-bindgen-cli", Version::Of("wasm-bindgen"), "wasm-bindgen");

/// It and `worker` are released together.
pub(super) const WORKER_BUILD: CargoTool = CargoTool::new("worker-build", Version::Of("worker"), "worker-build");

/// It is large, so one that is there is taken; `.config/nextest.toml` says how old that may be.
pub(super) const NEXTEST: CargoTool = CargoTool {
    features: Some("default-no-update"),
    any_on_path: true,
    ..CargoTool::new("cargo-nextest", Version::Pinned("0.9.143"), "cargo-nextest")
};

/// Licenses, bans and sources of dependencies.
pub(super) const DENY: CargoTool = CargoTool::new("cargo-deny", Version::Pinned("0.20.2"), "cargo-deny");

/// Dependencies that are not used. It reads sources and compiles nothing.
pub(super) const MACHETE: CargoTool = CargoTool::new("cargo-machete", Version::Pinned("0.9.2"), "cargo-machete");

/// Runs the fuzz targets. What it is told here it can do with the pinned compiler.
pub(super) const FUZZ: CargoTool = CargoTool::new("cargo-fuzz", Version::Pinned("0.13.2"), "cargo-fuzz");

/// Makes a book of the documents.
pub(super) const MDBOOK: CargoTool =
    CargoTool { features: Some("search"), ..CargoTool::new("mdbook", Version::Pinned("0.5.4"), "mdbook") };

/// A server that speaks S3, for tests by what nobody here wrote. The next version wants a newer compiler.
pub(super) const S3S_FS: CargoTool =
    CargoTool { features: Some("binary"), ..CargoTool::new("s3s-fs", Version::Pinned("0.13.0-alpha.3"), "s3s-fs") };

impl CargoTool {
    const fn new(package: &'static str, version: Version, program: &'static str) -> Self {
        Self { package, version, program, features: None, any_on_path: false }
    }

    pub(super) fn find(&self, place: &Place) -> Result<Option<Tool>, Missing> {
        if self.any_on_path
            && let Some(path) = command::on_path(self.program)
        {
            return Ok(Some(Tool { path, version: "the one on the PATH".to_owned() }));
        }
        let version = self.version(place.workspace)?;
        let path = place.store.folder(&self.folder(&version)).join("bin").join(self.program);
        Ok(command::is_program(&path).then_some(Tool { path, version }))
    }

    pub(super) fn install(&self, place: &Place, session: &Session) -> Result<(), Missing> {
        let version = self.version(place.workspace)?;
        println!("Building {} {version}; this takes a few minutes, once.", self.package);
        session
            .place(&self.folder(&version), |folder| {
                // A registry mirror may lag behind the lock file of the package by a patch release of some dependency.
                self.cargo_install(place.workspace, session, folder, &version, true)
                    .or_else(|_| self.cargo_install(place.workspace, session, folder, &version, false))
            })
            .map_err(|error| {
                let remedy = format!("Run `cargo install {} --version {version}` to see what it needs.", self.package);
                Missing::because(self.program, &error, remedy)
            })
    }

    fn cargo_install(
        &self,
        workspace: &Workspace,
        session: &Session,
        folder: &Path,
        version: &str,
        locked: bool,
    ) -> anyhow::Result<()> {
        let mut command = workspace.cargo("install");
        command.args([self.package, "--version", version, "--root"]).arg(folder);
        if let Some(features) = self.features {
            command.args(["--no-default-features", "--features", features]);
        }
        if locked {
            command.arg("--locked");
        }
        command
            // Out of the workspace, whose settings are not meant for these programs.
            .current_dir(session.scratch())
            // One folder for all of them: they share most of their dependencies.
            .env("CARGO_TARGET_DIR", session.scratch().join("target"))
            // They run for a second or two; what counts is how long they take to build.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        command::run(&mut command)
    }

    fn version(&self, workspace: &Workspace) -> Result<String, Missing> {
        let follows = match self.version {
            Version::Of(package) => package,
            Version::Pinned(version) => return Ok(version.to_owned()),
        };
        workspace.locked_version(follows).map_err(|error| {
            Missing::because(self.program, &error, "Run `cargo generate-lockfile` if Cargo.lock is damaged.")
        })
    }

    fn folder(&self, version: &str) -> String {
        format!("{}-{version}", self.program)
    }
}
