//! Montage, astronomers' programs that make mosaics of images, unpacked into a folder that Apptainer takes as an image:
//! what the jobs of the test of `examples/hyperflow` run.

use std::path::Path;

use anyhow::Context as _;

use super::store::{Session, remove_if_there};
use super::{Missing, Place, Tool, debian};
use crate::image;

const WHAT: &str = "the image with Montage";

/// The folder; the number changes with what is in it.
const FOLDER: &str = "montage-6.0-1";

/// What decides the bytes of a mosaic, at the version that made those which the test knows. A stable release of Debian
/// changes nothing of it.
const PINNED: [(&str, &str, &str); 4] = [
    ("montage", "6.0+dfsg-7+b8", "01f4e7767f6b01354510b6194fc78c8d241d7b0bbbdf4045af7dd1284d176903"),
    ("montage-gridtools", "6.0+dfsg-7+b8", "535ca6f4becf4114af66d8b8290879e3798e4a8fe45101894e88727c9683cad0"),
    ("libcfitsio10", "4.2.0-3", "1fd66f2dd32991902c4e728493e516ff4c9a7894cdd1ce7678eb444740eab54f"),
    ("libwcstools1", "3.9.7-1", "281c02a0ad466e1997d335e79417ffdbf4002416d041b9cbdd6ce2b442bf77c5"),
];

/// What those need, and a shell. The fonts that Montage labels images with are left out.
const LIBRARIES: [&str; 32] = [
    "dash",
    "libbrotli1",
    "libbz2-1.0",
    "libc6",
    "libcom-err2",
    "libcurl3-gnutls",
    "libffi8",
    "libfreetype6",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libidn2-0",
    "libjpeg62-turbo",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "libnettle8",
    "libnghttp2-14",
    "libp11-kit0",
    "libpng16-16",
    "libpsl5",
    "librtmp1",
    "libsasl2-2",
    "libssh2-1",
    "libssl3",
    "libtasn1-6",
    "libunistring2",
    "libzstd1",
    "zlib1g",
];

/// Debian has no mJPEG. This program of Montage takes the same words.
const MJPEG: &str = "#!/bin/sh\nexec mViewer \"$@\"\n";

/// The root file system.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let path = place.store.folder(FOLDER).join("root");
    path.is_dir().then(|| Tool { path, version: PINNED[0].1.to_owned() })
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    println!("Fetching Montage and its libraries from Debian; nothing is installed into the system.");
    session.place(FOLDER, |folder| make(session, &folder.join("root"))).map_err(|error| {
        Missing::because(
            WHAT,
            &error,
            "It comes from Debian 12, by apt-get and dpkg-deb with Debian's keys (package debian-archive-keyring).",
        )
    })
}

fn make(session: &Session, root: &Path) -> anyhow::Result<()> {
    let apt = debian::Apt::of(session.scratch(), &["bookworm"])?;
    let pinned = PINNED.map(|(package, version, _)| format!("{package}={version}"));
    let files = apt.download(pinned.iter().map(String::as_str).chain(LIBRARIES))?;
    // Debian builds for each processor on its own.
    if cfg!(target_arch = "x86_64") {
        for (package, _, hash) in PINNED {
            debian::check(debian::file_of(&files, package)?, hash)?;
        }
    }
    debian::unpack(&files, root)?;
    // Documentation, for the most part.
    remove_if_there(&root.join("usr/share"))?;
    image::lay_out_mount_points(root)?;
    let program = root.join("usr/local/bin/mJPEG");
    std::fs::write(&program, MJPEG).with_context(|| format!("cannot write {}", program.display()))?;
    image::set_mode(&program, 0o755)?;
    // What the task runner of whoever uses the image is mounted over.
    let task_runner = root.join("usr/local/bin/task-runner");
    std::fs::write(&task_runner, "").with_context(|| format!("cannot write {}", task_runner.display()))
}
