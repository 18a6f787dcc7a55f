//! Chromium, in which the tests look at the page: the one that `HPC_QUEUE_CHROMIUM` names, the one on the `PATH`, or
//! Debian's shell of it without windows, unpacked into the cache.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::store::{Session, remove_if_there};
use super::{Missing, Place, Tool, debian};
use crate::{command, image};

const WHAT: &str = "Chromium";

/// Names one that is not on the `PATH`.
const SETTING: &str = "HPC_QUEUE_CHROMIUM";

/// What it is called by those who pack it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The folder; the number changes with what is in it.
const FOLDER: &str = "chromium-debian-bookworm-1";

/// The program in there.
const PROGRAM: &str = "chromium";

/// It, its data, and two families of fonts: a system without any would show empty pages.
const PACKAGES: [&str; 4] = ["chromium-common", "chromium-headless-shell", "fonts-dejavu-core", "fonts-inter"];

/// What it needs, without the C library and that of the compiler: those of the system do, and must match its loader.
const LIBRARIES: [&str; 65] = [
    "libasound2",
    "libasyncns0",
    "libatk1.0-0",
    "libatspi2.0-0",
    "libblkid1",
    "libbrotli1",
    "libbsd0",
    "libcap2",
    "libdav1d6",
    "libdbus-1-3",
    "libdouble-conversion3",
    "libdrm2",
    "libexpat1",
    "libffi8",
    "libflac12",
    "libfontconfig1",
    "libfreetype6",
    "libgbm1",
    "libgcrypt20",
    "libglib2.0-0",
    "libgpg-error0",
    "libgraphite2-3",
    "libharfbuzz-subset0",
    "libharfbuzz0b",
    "libjpeg62-turbo",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libminizip1",
    "libmount1",
    "libmp3lame0",
    "libmpg123-0",
    "libnspr4",
    "libnss3",
    "libogg0",
    "libopenh264-7",
    "libopus0",
    "libpcre2-8-0",
    "libpng16-16",
    "libpulse0",
    "libselinux1",
    "libsndfile1",
    "libsqlite3-0",
    "libstdc++6",
    "libsystemd0",
    "libudev1",
    "libvorbis0a",
    "libvorbisenc2",
    "libwayland-server0",
    "libx11-6",
    "libx11-xcb1",
    "libxau6",
    "libxcb1",
    "libxcomposite1",
    "libxdamage1",
    "libxdmcp6",
    "libxext6",
    "libxfixes3",
    "libxi6",
    "libxkbcommon0",
    "libxnvctrl0",
    "libxrandr2",
    "libxrender1",
    "libzstd1",
    "zlib1g",
];

/// Of its data, what a browser with windows or a graphics card needs; this is half of it.
const NEEDLESS: [&str; 5] = [
    "usr/lib/chromium/libVkLayer_khronos_validation.so",
    "usr/lib/chromium/locales",
    "usr/lib/chromium/resources.pak",
    "usr/share/doc",
    "usr/share/locale",
];

pub(super) fn find(place: &Place) -> Result<Option<Tool>, Missing> {
    if let Some(path) = std::env::var_os(SETTING).map(PathBuf::from) {
        return match command::is_program(&path) {
            true => Ok(Some(Tool { path, version: format!("the one that {SETTING} names") })),
            false => Err(Missing::new(
                WHAT,
                format!("{SETTING} names {}, which is no program", path.display()),
                format!("Name the program, or unset {SETTING}."),
            )),
        };
    }
    if let Some(path) = NAMES.into_iter().find_map(command::on_path) {
        return Ok(Some(Tool { path, version: "the one on the PATH".to_owned() }));
    }
    let path = place.store.folder(FOLDER).join(PROGRAM);
    Ok(command::is_program(&path).then(|| Tool { path, version: "of Debian 12".to_owned() }))
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    println!("Fetching Chromium (100 MB) and its libraries from Debian; nothing is installed into the system.");
    session.place(FOLDER, |folder| make(session, folder)).map_err(|error| {
        Missing::new(
            WHAT,
            format!("it is not on the PATH, and it could not be fetched: {error:#}"),
            format!("Install it (package `chromium` of your distribution), or set {SETTING} to one."),
        )
    })
}

fn make(session: &Session, folder: &Path) -> anyhow::Result<()> {
    let apt = debian::Apt::of(session.scratch(), &["bookworm"])?;
    let root = folder.join("root");
    debian::unpack(&apt.download(PACKAGES.into_iter().chain(LIBRARIES))?, &root)?;
    for needless in NEEDLESS {
        let path = root.join(needless);
        if path.is_file() {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        } else {
            remove_if_there(&path)?;
        }
    }
    write_fonts(&folder.join("fonts.conf"))?;
    let program = folder.join(PROGRAM);
    write_starter(&program)?;
    try_it(&program)
}

/// Those of the folder alone, so that a page looks the same everywhere. The cache of fonts lies there too.
fn write_fonts(file: &Path) -> anyhow::Result<()> {
    let mut text = String::from("<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"urn:fontconfig:fonts.dtd\">\n");
    text.push_str("<fontconfig>\n<dir prefix=\"relative\">root/usr/share/fonts</dir>\n");
    text.push_str("<cachedir prefix=\"xdg\">hpc-queue-fonts</cachedir>\n");
    for (family, ours) in [("system-ui", "Inter"), ("sans-serif", "Inter"), ("monospace", "DejaVu Sans Mono")] {
        let edit = "<edit name=\"family\" mode=\"assign\" binding=\"same\">";
        write!(
            text,
            "<match><test name=\"family\"><string>{family}</string></test>{edit}<string>{ours}</string></edit>"
        )
        .expect("a text takes what is written to it");
        text.push_str("</match>\n");
    }
    text.push_str("</fontconfig>\n");
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// It starts itself anew for each page, so the loader cannot stand before it as with smaller programs.
fn write_starter(file: &Path) -> anyhow::Result<()> {
    let libraries = debian::processor()?.libraries;
    let text = format!(
        "#!/bin/sh\n\
         root=$(dirname \"$0\")/root\n\
         lib=$root/usr/lib/{libraries}\n\
         export FONTCONFIG_FILE=\"$root/../fonts.conf\"\n\
         export LD_LIBRARY_PATH=\"$root/lib/{libraries}:$lib:$lib/pulseaudio\"\n\
         exec \"$root/usr/lib/chromium/chromium-headless-shell\" \"$@\"\n"
    );
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    image::set_mode(file, 0o755)
}

/// Does it show a page here?
fn try_it(program: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    // The page is ours, and as root, or in a container, there is no sandbox.
    command.args([
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        "data:text/html,<script>document.write(6*7)</script>",
    ]);
    let page = command::capture(&mut command)?;
    if !page.contains("42") {
        bail!("it shows no page on this system");
    }
    Ok(())
}
