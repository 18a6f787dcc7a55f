//! Debian's Python with a shell, unpacked into a folder that becomes an image: what runs tasks of the kind `python`.

use std::path::Path;

use anyhow::Context as _;

use super::store::{Session, remove_if_there};
use super::{Missing, Place, Tool, debian};
use crate::image;

const WHAT: &str = "Debian's Python for an image";

/// The folder; the number changes with what is in it.
pub(super) const FOLDER: &str = "python-image-debian13-1";

/// The suite, whose Python is the version in the names below.
pub(super) const SUITE: &str = "trixie";

/// Python with its standard library, a shell, the programs that scripts expect, and what those need.
const PACKAGES: [&str; 32] = [
    "coreutils",
    "dash",
    "grep",
    "libacl1",
    "libattr1",
    "libbz2-1.0",
    "libc6",
    "libcap2",
    "libdb5.3t64",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libgmp10",
    "liblzma5",
    "libncursesw6",
    "libpcre2-8-0",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libreadline8t64",
    "libselinux1",
    "libsqlite3-0",
    "libssl3t64",
    "libsystemd0",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
    "python3-minimal",
    "python3.13",
    "python3.13-minimal",
    "sed",
    "tzdata",
    "zlib1g",
];

/// Documentation, for the most part. Time zones stay.
const NOT_NEEDED: [&str; 6] = ["bug", "doc", "info", "lintian", "locale", "man"];

/// The root file system, without the task runner.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let path = place.store.folder(FOLDER).join("root");
    path.is_dir().then(|| Tool { path, version: "Python 3.13 of Debian 13".to_owned() })
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    println!("Fetching Python for an image from Debian; nothing is installed into the system.");
    session.place(FOLDER, |folder| make(session, &folder.join("root"))).map_err(|error| {
        Missing::because(
            WHAT,
            &error,
            "It comes from Debian 13, by apt-get and dpkg-deb with Debian's keys (package debian-archive-keyring).",
        )
    })
}

fn make(session: &Session, root: &Path) -> anyhow::Result<()> {
    // Packages have everything below /usr, and a system has these links to it.
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::fs::create_dir_all(root.join("usr").join(name))?;
        link(&format!("usr/{name}"), &root.join(name))?;
    }
    // What it has fetched goes with it.
    let apt = debian::Apt::of(session.scratch(), &[SUITE])?;
    debian::unpack(&apt.download(PACKAGES)?, root)?;
    for name in NOT_NEEDED {
        remove_if_there(&root.join("usr/share").join(name))?;
    }
    // The name that people type.
    link("python3", &root.join("usr/bin/python"))?;
    image::lay_out_mount_points(root)
}

fn link(target: &str, path: &Path) -> anyhow::Result<()> {
    std::os::unix::fs::symlink(target, path).with_context(|| format!("cannot make the link {}", path.display()))
}
