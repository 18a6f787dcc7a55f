//! Apptainer on Debian and its like, without root and without a change to the system.
//!
//! Debian has the package in its unstable suite only, built for a C library that a stable system may not have yet. So
//! the package, the C library and the few libraries of Debian 13 are fetched by an apt of our own (own sources, own
//! lists), unpacked into the cache, and the programs are told to use the loader and the libraries next to them.
//!
//! The unpacked programs hold the path of their folder, so it is made at its final place, and a marker that is written
//! last says that it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

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

const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

const MARKER: &str = ".complete";

/// The names that Debian and the linker have for a processor.
struct Processor {
    debian: &'static str,
    libraries: &'static str,
    loader: &'static str,
}

fn processor() -> anyhow::Result<Processor> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Processor { debian: "amd64", libraries: "x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" }),
        "aarch64" => Ok(Processor { debian: "arm64", libraries: "aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" }),
        other => bail!("this setup does not know how Debian builds for {other}"),
    }
}

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
    let processor = processor()?;
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).is_file());
    let (Some(keyring), Some(_), Some(_)) = (keyring, command::on_path("apt-get"), command::on_path("dpkg-deb")) else {
        bail!("this system has no apt with Debian's keys (package debian-archive-keyring)");
    };
    let mirror = debian_mirror(Path::new("/etc/apt"))
        .context("/etc/apt names no mirror of Debian (an address that ends in /debian)")?;
    println!("Fetching Apptainer and its libraries from Debian; nothing is installed into the system.");
    let packages = Apt::new(session.scratch(), &mirror, keyring, processor.debian)?.download()?;

    let apptainer = packages
        .iter()
        .find(|package| file_name(package).starts_with("apptainer_"))
        .context("apt-get left no package of Apptainer")?;
    let version = command::capture(Command::new("dpkg-deb").arg("--field").arg(apptainer).arg("Version"))?;
    let folder = session.root().join(format!("apptainer-{}", version.trim().replace([':', '/'], "_")));
    remove_if_there(&folder)?;
    let root = folder.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    for package in &packages {
        command::capture(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root))?;
    }
    relocate(&root, &processor)?;
    let program = root.join("usr/bin/apptainer");
    command::capture(Command::new(&program).arg("--version")).context("the fetched Apptainer does not start")?;
    fs::write(folder.join(MARKER), version.trim())?;
    Ok(program)
}

/// An apt that shares nothing with the system's but the program and the keys.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(scratch: &Path, mirror: &str, keyring: &str, architecture: &str) -> anyhow::Result<Self> {
        let folder = scratch.join("apt");
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let sources: String = [STABLE, "unstable"]
            .map(|suite| format!("deb [arch={architecture} signed-by={keyring}] {mirror} {suite} main\n"))
            .concat();
        fs::write(folder.join("sources.list"), sources)?;
        let within = |name: &str| folder.join(name).display().to_string();
        let settings = [
            format!("Dir::Etc::sourcelist={}", within("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", within("lists")),
            format!("Dir::Cache={}", within("cache")),
            format!("Dir::Log={}", within("")),
            "APT::Get::List-Cleanup=false".to_owned(),
            // As root, apt would go over to a user who cannot write into the cache.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        let options = settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect();
        Ok(Self { folder, options })
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("apt-get");
        command.arg("--quiet").args(&self.options).args(arguments).current_dir(self.folder.join("packages"));
        command::capture(&mut command)?;
        Ok(())
    }

    /// The package files.
    fn download(&self) -> anyhow::Result<Vec<PathBuf>> {
        self.run(&["update"])?;
        let stable = FROM_STABLE.map(|package| format!("{package}/{STABLE}"));
        let mut arguments = vec!["download", APPTAINER];
        arguments.extend(stable.iter().map(String::as_str));
        self.run(&arguments).or_else(|_| {
            arguments[1] = "apptainer";
            self.run(&arguments)
        })?;
        let entries = fs::read_dir(self.folder.join("packages"))?;
        let mut packages = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
        packages.sort();
        Ok(packages)
    }
}

/// Makes the unpacked programs run from where they are.
fn relocate(root: &Path, processor: &Processor) -> anyhow::Result<()> {
    let libraries = root.join("usr/lib").join(processor.libraries);
    let loader = libraries.join(processor.loader);
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
        let program = root.join(name);
        // patchelf itself is of the new suite, so it is started through the new loader. The forced DT_RPATH, unlike
        // the modern DT_RUNPATH, holds for the libraries of libraries as well.
        command::capture(
            Command::new(&loader)
                .arg("--library-path")
                .arg(&libraries)
                .arg(root.join("usr/bin/patchelf"))
                .arg("--set-interpreter")
                .arg(&loader)
                .arg("--force-rpath")
                .arg("--set-rpath")
                .arg(&libraries)
                .arg(&program),
        )?;
        let listed = command::capture(Command::new(&loader).arg("--list").arg(&program))?;
        if let Some(stranger) = library_from_elsewhere(&listed, root) {
            bail!("{name} needs a library that was not fetched: {stranger}");
        }
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

/// The first line of `ld.so --list` that names a library outside of the folder, or none at all.
fn library_from_elsewhere<'a>(listed: &'a str, root: &Path) -> Option<&'a str> {
    listed
        .lines()
        .map(str::trim)
        .find(|line| line.split_once("=> ").is_some_and(|(_, path)| !Path::new(path).starts_with(root)))
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

/// The mirror that the system's own apt uses, from `sources.list`, `*.list` and `*.sources`.
fn debian_mirror(etc_apt: &Path) -> Option<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| mirror_in(&text))
}

fn mirror_in(sources: &str) -> Option<String> {
    let lines = sources.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    lines
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| (word.starts_with("http://") || word.starts_with("https://")) && word.ends_with("/debian"))
        .map(str::to_owned)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let old = "# deb http://old.example/debian bookworm main\n\
                   deb http://security.example/debian-security bookworm-security main\n\
                   deb [signed-by=/k.gpg] https://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("https://mirror.example/debian"));
        let new = "Types: deb\n# http://snapshot.example/debian\nURIs: http://mirror.example/debian\nSuites: trixie\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("deb http://archive.example/ubuntu noble main\n"), None);
    }

    #[test]
    fn the_configuration_looks_into_our_folder_first() {
        let text = "# BINARY PATH: [STRING]\n# binary path = \nmount proc = yes\n";
        let changed = with_binary_path(text, Path::new("/c/usr/bin")).unwrap();
        assert!(changed.contains("\nbinary path = /c/usr/bin:$PATH:/usr/local/sbin"), "{changed}");
        assert!(changed.starts_with("# BINARY PATH") && changed.ends_with("mount proc = yes\n"), "{changed}");
        assert_eq!(with_binary_path("mount proc = yes\n", Path::new("/c")), None);
    }

    #[test]
    fn a_library_of_the_system_is_noticed() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /c/root/usr/lib/libc.so.6 (0x2)\n";
        assert_eq!(library_from_elsewhere(listed, Path::new("/c/root")), None);
        let stranger = format!("{listed}\tlibxxhash.so.0 => /lib/libxxhash.so.0 (0x3)\n");
        assert!(library_from_elsewhere(&stranger, Path::new("/c/root")).unwrap().starts_with("libxxhash"));
        let absent = "libz.so.1 => not found\n";
        assert_eq!(library_from_elsewhere(absent, Path::new("/c/root")), Some("libz.so.1 => not found"));
    }
}
