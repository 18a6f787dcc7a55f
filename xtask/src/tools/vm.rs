//! A virtual machine without hardware's help, for tests of what no container of a CI can show: QEMU, the kernel of
//! Debian 12 (6.1, as old as those of clusters), and a Debian 13 for it, whose systemd is newer than 254.
//!
//! Packages are unpacked and not installed: the tests start this machine with a root of which Debian's files are the
//! read-only base, and write there what the scripts of packages would have.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::store::Session;
use super::{Missing, Place, Tool, debian};
use crate::command;

/// The folder; the number changes with what is in it.
const FOLDER: &str = "vm-debian-1";

/// Written last; it holds what is in there.
const MARKER: &str = "version";

/// QEMU, and what is called in the machine, with all that they need.
const PACKAGES: [&str; 14] = [
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "dosfstools",
    "findutils",
    "grep",
    "mount",
    "procps",
    "qemu-system-x86",
    "sed",
    "systemd",
    "util-linux",
];

/// Always needs the package of the newest kernel of its suite, whose name changes with each.
const NEWEST_KERNEL: &str = "linux-image-amd64";

/// What the kernel must be told to load, in this order: the host's folders, layers of them, FUSE, and FAT.
const MODULES: [&str; 18] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/netfs/netfs",
    "fs/fscache/fscache",
    "fs/9p/9p",
    "fs/overlayfs/overlay",
    "fs/fuse/fuse",
    "drivers/block/loop",
    "fs/nls/nls_cp437",
    "fs/nls/nls_ascii",
    "fs/nls/nls_utf8",
    "fs/fat/fat",
    "fs/fat/vfat",
];

/// The folder: `qemu` starts QEMU; `linux` is the kernel, `modules` has its modules by the order in which they are
/// loaded, and `root` is the Debian.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let path = place.store.folder(FOLDER);
    let version = fs::read_to_string(path.join(MARKER)).ok()?;
    Some(Tool { path, version: version.trim().to_owned() })
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    println!("Fetching QEMU, a kernel and a Debian for it; nothing is installed into the system.");
    session.place(FOLDER, |folder| fetch(session, folder)).map_err(|error| {
        let remedy = "It comes from Debian 12 and 13 for x86-64, by apt-get and dpkg-deb with Debian's keys (package \
                      debian-archive-keyring).";
        Missing::because("A virtual machine", &error, remedy)
    })
}

fn fetch(session: &Session, folder: &Path) -> anyhow::Result<()> {
    if debian::processor()?.debian != "amd64" {
        bail!("it is one for x86-64, and this machine is not");
    }
    let apt = debian::Apt::of(session.scratch(), &["trixie"])?;
    debian::unpack(&apt.download_with_all(&PACKAGES)?, &folder.join("root"))?;
    let kernel = kernel(session, folder)?;
    let qemu = folder.join("qemu");
    debian::write_starter(&qemu, "usr/bin/qemu-system-x86_64")?;
    let says = command::capture(Command::new(&qemu).arg("--version"))?;
    let says = says.lines().next().unwrap_or_default();
    fs::write(folder.join(MARKER), format!("Linux {kernel}, {says}\n"))?;
    Ok(())
}

/// Puts a kernel and its modules into the folder; returns its version.
fn kernel(session: &Session, folder: &Path) -> anyhow::Result<String> {
    let apt = debian::Apt::of(session.scratch(), &["bookworm"])?;
    let newest = apt.download([NEWEST_KERNEL])?;
    let needs = debian::field(debian::file_of(&newest, NEWEST_KERNEL)?, "Depends")?;
    let package = needs.split_whitespace().next().unwrap_or_default();
    let version = package.strip_prefix("linux-image-").with_context(|| format!("{needs:?} names no kernel"))?;
    let files = apt.download([package])?;
    let unpacked = tempfile::Builder::new().prefix("linux-").tempdir_in(session.scratch())?;
    debian::unpack(&[debian::file_of(&files, package)?.to_owned()], unpacked.path())?;
    let boot = unpacked.path().join("boot").join(format!("vmlinuz-{version}"));
    fs::copy(&boot, folder.join("linux")).with_context(|| format!("{package} has no kernel"))?;
    let modules = unpacked.path().join("lib/modules").join(version).join("kernel");
    fs::create_dir(folder.join("modules"))?;
    for (number, module) in MODULES.iter().enumerate() {
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy();
        fs::copy(modules.join(format!("{module}.ko")), folder.join("modules").join(format!("{number:02}-{name}.ko")))
            .with_context(|| format!("{package} has no module {module}"))?;
    }
    Ok(version.to_owned())
}
