//! Apptainer on Debian and its like, without root and without a change to the system.
//!
//! Debian has the package in its unstable suite only, built for a C library that a stable system may not have yet. So
//! the package, the C library and the few libraries of Debian 13 are fetched (`debian`), unpacked into the cache, and
//! the programs are told to use the loader and the libraries next to them.
//!
//! The unpacked programs hold the path of their folder, so it is made at its final place, and a marker that is written
//! last says that it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::debian::{self, Apt, Processor, processor};
use super::store::{Session, Store, remove_if_there};
use crate::command;

/// The version that was tried; when the archive has it no more, its newest one is taken.
const APPTAINER: &str = "apptainer=1.4.5-2";

/// What Apptainer, the programs that it calls, and patchelf need. All from one suite, so that they fit together.
const FROM_STABLE: [&str; 16] = [
    "libc6",
    "libfuse3-4",
    "libgcc-s1",
    "liblz4-1",
    "liblzma5",
    "liblzo2-2",
    "libseccomp2",
    "libsqlite3-0",
    "libsquashfuse0",
    "libstdc++6",
    "libxxhash0",
    "libzstd1",
    "patchelf",
    "squashfs-tools",
    "squashfuse",
    "zlib1g",
];

/// The suite that those come from.
const STABLE: &str = "trixie";

const MARKER: &str = ".complete";

/// The newest one in the cache that is whole.
pub(super) fn find(store: &Store) -> Option<PathBuf> {
    let names = store.names();
    let folders = names.iter().rev().filter(|name| name.starts_with("apptainer-")).map(|name| store.folder(name));
    let mut programs =
        folders.filter(|folder| folder.join(MARKER).is_file()).map(|folder| folder.join("root/usr/bin/apptainer"));
    programs.find(|program| command::is_program(program))
}

/// Fetches it and returns the program.
pub(super) fn install(session: &Session) -> anyhow::Result<PathBuf> {
    let apt = Apt::of(session.scratch(), &[STABLE, "unstable"])?;
    println!("Fetching Apptainer and its libraries from Debian; nothing is installed into the system.");
    let stable = FROM_STABLE.map(|package| format!("{package}/{STABLE}"));
    let libraries = stable.iter().map(String::as_str);
    let packages =
        apt.download(libraries.clone().chain([APPTAINER])).or_else(|_| apt.download(libraries.chain(["apptainer"])))?;

    let version = debian::version(debian::file_of(&packages, "apptainer")?)?;
    let folder = session.root().join(format!("apptainer-{}", version.replace([':', '/'], "_")));
    remove_if_there(&folder)?;
    let root = folder.join("root");
    debian::unpack(&packages, &root)?;
    relocate(&root, &processor()?)?;
    let program = root.join("usr/bin/apptainer");
    command::capture(Command::new(&program).arg("--version")).context("the fetched Apptainer does not start")?;
    fs::write(folder.join(MARKER), &version)?;
    Ok(program)
}

/// Makes the unpacked programs run from where they are.
fn relocate(root: &Path, processor: &Processor) -> anyhow::Result<()> {
    let libraries = root.join("usr/lib").join(processor.libraries);
    let starter = format!("usr/lib/{}/apptainer/bin/starter", processor.libraries);
    let programs = [
        "usr/bin/apptainer",
        starter.as_str(),
        "usr/bin/squashfuse",
        "usr/bin/squashfuse_ll",
        "usr/bin/mksquashfs",
        "usr/bin/unsquashfs",
    ];
    for name in programs {
        debian::relocate(root, name, std::slice::from_ref(&libraries))?;
    }

    // Apptainer derives the paths of its configuration and state from where its program is.
    for (link, target) in
        [("usr/etc", "../etc"), ("usr/var", "../var"), ("usr/lib/etc", "../../etc"), ("usr/lib/var", "../../var")]
    {
        std::os::unix::fs::symlink(target, root.join(link)).with_context(|| format!("cannot create {link}"))?;
    }
    fs::create_dir_all(root.join("var/lib/apptainer/mnt/session"))?;

    let path = root.join("etc/apptainer/apptainer.conf");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = with_binary_path(&text, &root.join("usr/bin"))
        .with_context(|| format!("{} has no line `binary path`", path.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The configuration with our folder as the first that Apptainer looks into for its helpers.
fn with_binary_path(text: &str, first: &Path) -> Option<String> {
    let is_setting = |line: &str| line.trim_start_matches(['#', ' ']).trim_end().starts_with("binary path =");
    text.lines().any(is_setting).then(|| {
        let setting = format!(
            "binary path = {}:$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            first.display()
        );
        text.lines()
            .map(|line| if is_setting(line) { setting.as_str() } else { line })
            .fold(String::new(), |text, line| text + line + "\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_looks_into_our_folder_first() {
        let text = "# BINARY PATH: [STRING]\n# binary path = \nmount proc = yes\n";
        let changed = with_binary_path(text, Path::new("/c/usr/bin")).unwrap();
        assert!(changed.contains("\nbinary path = /c/usr/bin:$PATH:/usr/local/sbin"), "{changed}");
        assert!(changed.starts_with("# BINARY PATH") && changed.ends_with("mount proc = yes\n"), "{changed}");
        assert_eq!(with_binary_path("mount proc = yes\n", Path::new("/c")), None);
    }
}
