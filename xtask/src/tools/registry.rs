//! docker-registry, the reference implementation of a registry of images, for tests by what nobody here wrote: of
//! Debian, unpacked with the one library that it needs.

use std::process::Command;

use super::store::Session;
use super::{Missing, Place, Tool, debian};
use crate::command;

/// The folder; the number changes with what is in it.
const FOLDER: &str = "docker-registry-debian-bookworm-1";

/// The program `docker-registry`.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let path = place.store.folder(FOLDER).join("docker-registry");
    command::is_program(&path).then(|| Tool { path, version: "of Debian 12".to_owned() })
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    println!("Fetching docker-registry from Debian; nothing is installed into the system.");
    session
        .place(FOLDER, |folder| {
            let apt = debian::Apt::of(session.scratch(), &["bookworm"])?;
            debian::unpack(&apt.download(["libc6", "docker-registry"])?, &folder.join("root"))?;
            let program = folder.join("docker-registry");
            debian::write_starter(&program, "usr/bin/docker-registry")?;
            command::capture(Command::new(&program).arg("--version"))?;
            Ok(())
        })
        .map_err(|error| {
            let remedy = "It comes from Debian 12, by apt-get and dpkg-deb with Debian's keys (package \
                          debian-archive-keyring).";
            Missing::because("docker-registry", &error, remedy)
        })
}
