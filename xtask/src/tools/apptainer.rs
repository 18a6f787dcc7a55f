//! Apptainer: the one on the `PATH`, or one of our own in the cache; either is proven by running a container.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::store::Session;
use super::{Missing, Place, Tool, apptainer_debian};
use crate::command;
use crate::workspace::musl_target;

const WHAT: &str = "Apptainer";

/// The folder of the image that proves Apptainer to work; the number changes with the image.
const PROBE: &str = "apptainer-probe-1";

/// A program that does nothing, for an image that holds nothing else.
const PROBE_SOURCE: &str = "fn main() {}\n";

const REMEDY: &str = "Install Apptainer 1.2 or newer (package `apptainer` of your distribution, or the packages that the \
                      Apptainer project releases), or ask the administrator for it.";

/// An Apptainer that runs containers. `None` when there is none, or when it was not tried yet.
pub(super) fn find(place: &Place) -> Result<Option<Tool>, Missing> {
    let Some(path) = program(place) else { return Ok(None) };
    let image = place.store.folder(PROBE).join("probe.sif");
    if !image.is_file() {
        return Ok(None);
    }
    let version = command::capture(Command::new(&path).arg("--version"))
        .map_err(|error| Missing::because(WHAT, &error, REMEDY))?;
    probe(&path, &image)?;
    Ok(Some(Tool { path, version: version.trim().to_owned() }))
}

/// Fetches Apptainer where that is possible, and builds the image that proves it to work.
pub(super) fn install(place: &Place, session: &Session) -> Result<(), Missing> {
    let path = match program(place) {
        Some(path) => path,
        None => apptainer_debian::install(session).map_err(|error| {
            Missing::new(WHAT, format!("it is not on the PATH, and it could not be fetched: {error:#}"), REMEDY)
        })?,
    };
    session.place(PROBE, |folder| build_probe(&path, folder)).map_err(|error| Missing::because(WHAT, &error, REMEDY))
}

fn program(place: &Place) -> Option<PathBuf> {
    command::on_path("apptainer").or_else(|| apptainer_debian::find(place.store))
}

fn build_probe(apptainer: &Path, folder: &Path) -> anyhow::Result<()> {
    let source = folder.join("probe.rs");
    let root = folder.join("root");
    std::fs::create_dir(&root)?;
    std::fs::write(&source, PROBE_SOURCE)?;
    let target = musl_target();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    command::capture(
        Command::new(rustc)
            .args(["--target", target.as_str(), "-C", "opt-level=s", "-C", "strip=symbols", "-o"])
            .arg(root.join("probe"))
            .arg(&source),
    )
    .context("cannot compile the program of the probe")?;
    command::capture(Command::new(apptainer).arg("build").arg(folder.join("probe.sif")).arg(&root))
        .context("cannot build the image of the probe")?;
    Ok(())
}

/// Runs the image, with the isolation that the daemon asks for.
fn probe(apptainer: &Path, image: &Path) -> Result<(), Missing> {
    let mut command = Command::new(apptainer);
    command.args(["--quiet", "exec", "--containall", "--no-home", "--no-mount", "bind-paths"]);
    if rustix::process::geteuid().is_root() {
        // Otherwise Apptainer asks for every capability, and root does not have all of them on some machines.
        command.arg("--no-privs");
    }
    command.arg(image).arg("/probe");
    let output = command::output(&mut command).map_err(|error| Missing::because(WHAT, &error, REMEDY))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = command::complaint(&output);
    let why = format!("{} runs no container here: {complaint}", apptainer.display());
    Err(Missing::new(WHAT, why, advice(&complaint)))
}

/// What to do about the failures that are known.
fn advice(complaint: &str) -> &'static str {
    if complaint.contains("/dev/fuse") {
        "Make /dev/fuse readable and writable for your user (as root: `chmod 0666 /dev/fuse`), or have the package \
         `apptainer-suid` installed."
    } else if complaint.contains("user namespace") || complaint.contains("unshare") {
        "Let your user create user namespaces (as root: `sysctl -w kernel.unprivileged_userns_clone=1`, on Ubuntu also \
         `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`), or have the package `apptainer-suid` installed."
    } else {
        "Run `apptainer exec` by hand with any image to see more, or ask the administrator."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_failures_come_with_advice() {
        let fuse = "FATAL: squashfuse_ll exited: fuse: failed to open /dev/fuse: Permission denied";
        assert!(advice(fuse).contains("chmod 0666 /dev/fuse"));
        assert!(advice("FATAL: failed to create user namespace: not allowed").contains("sysctl"));
        assert!(advice("something new").contains("by hand"));
    }
}
