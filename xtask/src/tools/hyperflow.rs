//! HyperFlow, a workflow engine in Node.js, for the test of `examples/hyperflow`; and Redis, where it keeps its state.
//!
//! `xtask/tools/hyperflow/package-lock.json` has every package with its version and hash. None runs a script.

use std::process::Command;

use super::store::Session;
use super::{Missing, Place, Tool, debian, npm};
use crate::command;

const PACKAGE_JSON: &str = include_str!("../../tools/hyperflow/package.json");
const PACKAGE_LOCK: &str = include_str!("../../tools/hyperflow/package-lock.json");

const WHAT: &str = "HyperFlow";
const REDIS: &str = "Redis, for HyperFlow";

/// The folder of Redis; the number changes with what is in it.
const REDIS_FOLDER: &str = "redis-debian-bookworm-1";

/// Redis, and all that it needs.
const REDIS_PACKAGES: [&str; 16] = [
    "libatomic1",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "libjemalloc2",
    "liblz4-1",
    "liblzf1",
    "liblzma5",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libzstd1",
    "redis-server",
    "redis-tools",
];

/// The package's folder.
pub(super) fn find(place: &Place) -> Result<Option<Tool>, Missing> {
    if command::on_path("node").is_none() {
        return Err(Missing::new(WHAT, "there is no `node` on the PATH", "Install Node.js 20 or newer with npm."));
    }
    let path = place.store.folder(&folder_name()).join("node_modules/@hyperflow/hyperflow");
    Ok(path.join("bin/hflow.js").is_file().then(|| Tool { path, version: version() }))
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    let remedy = "Install Node.js 20 or newer with npm, and see to it that npm reaches its registry.";
    if command::on_path("npm").is_none() {
        return Err(Missing::new(WHAT, "there is no `npm` on the PATH", remedy));
    }
    println!("Fetching @hyperflow/hyperflow {} with npm.", version());
    session
        .place(&folder_name(), |folder| npm::fetch_locked(folder, PACKAGE_JSON, PACKAGE_LOCK, Some("optional")))
        .map_err(|error| Missing::because(WHAT, &error, remedy))
}

fn version() -> String {
    let package: serde_json::Value = serde_json::from_str(PACKAGE_JSON).expect("a test reads the same text");
    package["dependencies"]["@hyperflow/hyperflow"].as_str().unwrap_or_default().to_owned()
}

fn folder_name() -> String {
    format!("npm-hyperflow-{}", version())
}

/// The program `redis-server`: the one on the `PATH`, or one of our own.
pub(super) fn find_redis(place: &Place) -> Option<Tool> {
    if let Some(path) = command::on_path("redis-server") {
        return Some(Tool { path, version: "the one on the PATH".to_owned() });
    }
    let path = place.store.folder(REDIS_FOLDER).join("redis-server");
    command::is_program(&path).then(|| Tool { path, version: "of Debian 12".to_owned() })
}

pub(super) fn install_redis(session: &Session) -> Result<(), Missing> {
    println!("Fetching Redis and its libraries from Debian; nothing is installed into the system.");
    session
        .place(REDIS_FOLDER, |folder| {
            let apt = debian::Apt::of(session.scratch(), &["bookworm"])?;
            let root = folder.join("root");
            debian::unpack(&apt.download(REDIS_PACKAGES)?, &root)?;
            let program = folder.join("redis-server");
            debian::write_starter(&program, "usr/bin/redis-server")?;
            command::capture(Command::new(&program).arg("--version"))?;
            Ok(())
        })
        .map_err(|error| {
            Missing::new(
                REDIS,
                format!("it is not on the PATH, and it could not be fetched: {error:#}"),
                "Install Redis 5 or newer (package `redis-server` or `redis` of your distribution).",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_exact_and_every_package_has_a_hash() {
        assert!(version().split('.').all(|part| part.parse::<u64>().is_ok()), "{} is a range", version());
        let lock: serde_json::Value = serde_json::from_str(PACKAGE_LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert_eq!(packages["node_modules/@hyperflow/hyperflow"]["version"], version().as_str());
        npm::assert_locked(PACKAGE_LOCK);
    }
}
