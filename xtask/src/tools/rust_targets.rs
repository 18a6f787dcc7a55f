//! Rust's standard library for other targets.

use std::path::PathBuf;
use std::process::Command;

use super::{Missing, Tool};
use crate::command;

/// The target's standard library, when the compiler has it.
pub(super) fn find(target: &str) -> Result<Option<Tool>, Missing> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = command::capture(Command::new(rustc).args(["--print", "sysroot"]))
        .map_err(|error| Missing::because(target, &error, "Install Rust with rustup."))?;
    let folder = PathBuf::from(sysroot.trim()).join("lib/rustlib").join(target);
    // The folder itself may hold only the linker of another target.
    Ok(folder.join("lib").is_dir().then(|| Tool { path: folder, version: target.to_owned() }))
}

/// Adds the target to the toolchain in use.
pub(super) fn install(target: &str) -> Result<(), Missing> {
    let remedy = format!("Run `rustup target add {target}`, or install the package of your system that holds it.");
    if command::on_path("rustup").is_none() {
        return Err(Missing::new(
            target,
            "the Rust compiler lacks this target, and there is no rustup to add it",
            remedy,
        ));
    }
    command::run(Command::new("rustup").args(["target", "add", target]))
        .map_err(|error| Missing::because(target, &error, remedy))
}
