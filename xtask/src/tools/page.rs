//! What the page of the hub is built from, and what its tests use, from npm.
//!
//! `crates/page/package-lock.json` has every package with its version and hash. None runs a script.

use super::store::Session;
use super::{Missing, Place, Tool, npm};
use crate::command;

const PACKAGE_JSON: &str = include_str!("../../../crates/page/package.json");
const PACKAGE_LOCK: &str = include_str!("../../../crates/page/package-lock.json");

const WHAT: &str = "what the page is built from";
const REMEDY: &str = "Install Node.js 20 or newer with npm, and see to it that npm reaches its registry.";

/// The folder whose `node_modules` holds the packages.
pub(super) fn find(place: &Place) -> Result<Option<Tool>, Missing> {
    if command::on_path("node").is_none() {
        return Err(Missing::new(WHAT, "there is no `node` on the PATH", REMEDY));
    }
    let path = place.store.folder(&folder_name());
    let whole = path.join("node_modules/preact/package.json").is_file();
    Ok(whole.then(|| Tool { path, version: versions().join(", ") }))
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    if command::on_path("npm").is_none() {
        return Err(Missing::new(WHAT, "there is no `npm` on the PATH", REMEDY));
    }
    println!("Fetching {} with npm.", versions().join(", "));
    session
        .place(&folder_name(), |folder| npm::fetch_locked(folder, PACKAGE_JSON, PACKAGE_LOCK, None))
        .map_err(|error| Missing::because(WHAT, &error, REMEDY))
}

/// `name version` of each package that we name ourselves.
fn versions() -> Vec<String> {
    let package: serde_json::Value = serde_json::from_str(PACKAGE_JSON).expect("a test reads the same text");
    let named = ["dependencies", "devDependencies"].map(|kind| package[kind].as_object().into_iter().flatten());
    let version = |(name, version): (&String, &serde_json::Value)| {
        format!("{} {}", name.trim_start_matches('@'), version.as_str().unwrap_or_default())
    };
    named.into_iter().flatten().map(version).collect()
}

/// The versions are in the name, so another checkout with other versions has a folder of its own.
fn folder_name() -> String {
    format!("npm-page-{}", versions().join("-").replace([' ', '/'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_exact_and_every_package_has_a_hash() {
        let lock: serde_json::Value = serde_json::from_str(PACKAGE_LOCK).unwrap();
        let package: serde_json::Value = serde_json::from_str(PACKAGE_JSON).unwrap();
        for kind in ["dependencies", "devDependencies"] {
            assert_eq!(package[kind], lock["packages"][""][kind], "package-lock.json is of another package.json");
            for (name, version) in package[kind].as_object().unwrap() {
                let exact = version.as_str().unwrap().split('.').all(|part| part.parse::<u64>().is_ok());
                assert!(exact, "{name} {version} is a range");
            }
        }
        npm::assert_locked(PACKAGE_LOCK);
        assert!(folder_name().starts_with("npm-page-preact-signals-2."), "{}", folder_name());
    }

    #[test]
    fn the_worker_is_bundled_by_the_same_esbuild() {
        let version = versions().into_iter().find(|version| version.starts_with("esbuild ")).unwrap();
        assert!(npm::versions().contains(&version), "{version}");
    }
}
