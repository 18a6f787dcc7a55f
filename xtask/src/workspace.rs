//! Where things lie in this checkout, and which versions its lock file names.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command;

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
    /// What is released: small, and on Linux static. It is built for a target of its own ([`released_target`]).
    Dist,
}

impl Profile {
    /// The folder within the target directory.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }
}

/// This checkout.
pub(crate) struct Workspace {
    /// The folder that holds the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the checkout that this program was started in.
    pub(crate) fn locate() -> anyhow::Result<Self> {
        // `cargo run` sets the variable; the value at compile time serves when the program is started by hand.
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("the package xtask lies in no folder")?.to_path_buf();
        let metadata = command::capture(
            Command::new(cargo())
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(root.join("Cargo.toml")),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("`cargo metadata` did not print JSON")?;
        let target =
            metadata["target_directory"].as_str().context("`cargo metadata` did not name a target_directory")?;
        Ok(Self { root, target: PathBuf::from(target) })
    }

    /// A cargo command that runs at the root.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo());
        command.arg(subcommand).current_dir(&self.root);
        command
    }

    /// Our own folder within the target directory; it is made when it is not there.
    pub(crate) fn scratch(&self) -> anyhow::Result<PathBuf> {
        let folder = self.target.join("hpc-queue");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// A program of this workspace, as cargo leaves it.
    pub(crate) fn program(&self, profile: Profile, name: &str) -> PathBuf {
        let target = match profile {
            Profile::Dev | Profile::Release => self.target.clone(),
            Profile::Dist => self.target.join(released_target()),
        };
        target.join(profile.folder()).join(name)
    }

    /// Builds programs of this workspace.
    pub(crate) fn build(&self, profile: Profile, packages: &[&str]) -> anyhow::Result<()> {
        let mut command = self.cargo("build");
        match profile {
            Profile::Dev => {}
            Profile::Release => {
                command.arg("--release");
            }
            Profile::Dist => {
                command.args(["--locked", "--profile", profile.folder(), "--target", &released_target()]);
            }
        }
        if profile == Profile::Dist && cfg!(target_os = "linux") {
            // The C in SQLite and ring needs nothing of a C library that the headers at hand do not say alike.
            let variable = format!("CC_{}", released_target().replace('-', "_"));
            if std::env::var_os(&variable).is_none() {
                command.env(variable, "cc");
            }
            // Under their own names musl has these functions for large files as well, and under no others. And no
            // program searches texts or boxes: SQLite is smaller without that.
            command.env(
                "LIBSQLITE3_FLAGS",
                "-DSQLITE_DISABLE_LFS -USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 \
                 -USQLITE_ENABLE_RTREE",
            );
        }
        for package in packages {
            command.args(["--package", package]);
        }
        command::run(&mut command)
    }

    /// The version of a package in `Cargo.lock`.
    pub(crate) fn locked_version(&self, package: &str) -> anyhow::Result<String> {
        let path = self.root.join("Cargo.lock");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        version_in(&text, package).with_context(|| format!("{} has no package {package}", path.display()))
    }
}

/// A path as it is shown: relative to the current directory when it lies within.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let path = here.as_deref().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path);
    path.display().to_string()
}

/// The target triple of static binaries on this machine's processor.
pub(crate) fn musl_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The target triple of what is released for this machine's system.
pub(crate) fn released_target() -> String {
    if cfg!(target_os = "macos") { format!("{}-apple-darwin", std::env::consts::ARCH) } else { musl_target() }
}

/// The target triple of the Worker.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn version_in(lock_file: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock_file.lines().skip_while(|line| *line != name).skip(1);
    Some(lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"worker-build\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"worker\"\nversion = \"0.8.7\"\nsource = \"x\"\n";
        assert_eq!(version_in(lock, "worker").as_deref(), Some("0.8.7"));
        assert_eq!(version_in(lock, "work"), None);
    }
}
