//! The two programs that `cargo install` builds, each at the version that `Cargo.lock` asks for.

use std::path::Path;

use super::store::Session;
use super::{Missing, Place, Tool};
use crate::command;
use crate::workspace::Workspace;

/// A program from the registry.
pub(super) struct CargoTool {
    /// The package that is installed.
    package: &'static str,
    /// The package in `Cargo.lock` whose version must be the same.
    follows: &'static str,
    /// The program, and the start of the folder's name.
    program: &'static str,
}

/// It must be of the very version of the library, or it refuses the file.
pub(super) const WASM_BINDGEN: CargoTool =
    CargoTool { package: "wasm-bindgen-cli", follows: "wasm-bindgen", program: "wasm-bindgen" };

/// It and `worker` are released together.
pub(super) const WORKER_BUILD: CargoTool =
    CargoTool { package: "worker-build", follows: "worker", program: "worker-build" };

impl CargoTool {
    pub(super) fn find(&self, place: &Place) -> Result<Option<Tool>, Missing> {
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
        if locked {
            command.arg("--locked");
        }
        command
            // Out of the workspace, whose settings are not meant for these programs.
            .current_dir(session.scratch())
            // One folder for both programs: they share most of their dependencies.
            .env("CARGO_TARGET_DIR", session.scratch().join("target"))
            // They run for a second or two; what counts is how long they take to build.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        command::run(&mut command)
    }

    fn version(&self, workspace: &Workspace) -> Result<String, Missing> {
        workspace.locked_version(self.follows).map_err(|error| {
            Missing::because(self.program, &error, "Run `cargo generate-lockfile` if Cargo.lock is damaged.")
        })
    }

    fn folder(&self, version: &str) -> String {
        format!("{}-{version}", self.program)
    }
}
