//! What comes from npm: the bundler of the Worker, the Workers runtime, and Cloudflare's TypeScript client.
//!
//! The versions stand in `xtask/tools/npm/package.json`. The programs are taken out of the packages of the platform,
//! so no package runs a script at installation.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::store::Session;
use super::{Missing, Place, Tool, npm_platform};
use crate::command;

const PACKAGE_JSON: &str = include_str!("../../tools/npm/package.json");

const WHAT: &str = "the Node.js packages (esbuild, workerd, cloudflare)";

/// The folder whose `node_modules` holds the packages.
pub(super) fn find(place: &Place) -> Result<Option<Tool>, Missing> {
    if command::on_path("node").is_none() {
        return Err(Missing::new(WHAT, "there is no `node` on the PATH", "Install Node.js 20 or newer with npm."));
    }
    let path = place.store.folder(&folder_name());
    let client = path.join("node_modules/cloudflare");
    let whole = [esbuild(&path), workerd(&path), client].iter().all(|path| path.exists());
    Ok(whole.then(|| Tool { path, version: versions().join(", ") }))
}

/// The program `esbuild` in the folder.
pub(crate) fn esbuild(folder: &Path) -> PathBuf {
    let (system, processor) = npm_platform("x64");
    folder.join(format!("node_modules/@esbuild/{system}-{processor}/bin/esbuild"))
}

/// The program `workerd` in the folder.
pub(crate) fn workerd(folder: &Path) -> PathBuf {
    let (system, processor) = npm_platform("64");
    folder.join(format!("node_modules/@cloudflare/workerd-{system}-{processor}/bin/workerd"))
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    let remedy = "Install Node.js 20 or newer with npm, and see to it that npm reaches its registry.";
    if command::on_path("npm").is_none() {
        return Err(Missing::new(WHAT, "there is no `npm` on the PATH", remedy));
    }
    println!("Fetching {} with npm.", versions().join(", "));
    session
        .place(&folder_name(), |folder| {
            std::fs::write(folder.join("package.json"), PACKAGE_JSON)?;
            command::capture(
                Command::new("npm")
                    .args(["install", "--ignore-scripts", "--include=optional", "--no-audit", "--no-fund"])
                    .args(["--loglevel=error", "--prefix"])
                    .arg(folder)
                    .current_dir(folder),
            )?;
            Ok(())
        })
        .map_err(|error| Missing::because(WHAT, &error, remedy))
}

/// Fetches what a lock file names, which has every package with its version and hash, into an empty folder. No package
/// runs a script.
pub(super) fn fetch_locked(folder: &Path, package_json: &str, lock: &str, omit: Option<&str>) -> anyhow::Result<()> {
    std::fs::write(folder.join("package.json"), package_json)?;
    std::fs::write(folder.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder);
    if let Some(kind) = omit {
        npm.arg(format!("--omit={kind}"));
    }
    command::capture(&mut npm)?;
    Ok(())
}

/// `name version` of each package.
pub(super) fn versions() -> Vec<String> {
    let package: serde_json::Value = serde_json::from_str(PACKAGE_JSON).expect("a test reads the same text");
    let dependencies = package["dependencies"].as_object().into_iter().flatten();
    dependencies.map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or_default())).collect()
}

/// The versions are in the name, so another checkout with other versions has a folder of its own.
fn folder_name() -> String {
    format!("npm-{}", versions().join("-").replace(' ', "-"))
}

/// Has the lock file a hash of every package, and the address of none? Whoever installs it asks the registry that they
/// have configured.
#[cfg(test)]
pub(super) fn assert_locked(lock: &str) {
    let lock: serde_json::Value = serde_json::from_str(lock).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.len() > 1);
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-")), "{name}");
        assert_eq!(package.get("resolved"), None, "{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_exact() {
        let versions = versions();
        assert_eq!(versions.len(), 3, "{versions:?}");
        for version in versions {
            let number = version.split(' ').nth(1).unwrap();
            assert!(number.split('.').all(|part| part.parse::<u64>().is_ok()), "{version} is a range");
        }
        assert!(folder_name().starts_with("npm-cloudflare-"), "{}", folder_name());
    }
}
