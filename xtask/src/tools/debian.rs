//! Packages of Debian, fetched and unpacked without root and without a change to the system.
//!
//! An apt of our own (own sources, own lists, the system's keys) fetches them from the mirror that the system's apt
//! uses, or from the one in `HPC_QUEUE_DEBIAN_MIRROR`, and checks Debian's signatures. Nothing is installed: packages
//! are unpacked, and their scripts never run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::{command, image};

/// Names the mirror where the system is no Debian.
const MIRROR: &str = "HPC_QUEUE_DEBIAN_MIRROR";

const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The names that Debian and the linker have for a processor.
pub(super) struct Processor {
    pub(super) debian: &'static str,
    pub(super) libraries: &'static str,
    pub(super) loader: &'static str,
}

pub(super) fn processor() -> anyhow::Result<Processor> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Processor { debian: "amd64", libraries: "x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" }),
        "aarch64" => Ok(Processor { debian: "arm64", libraries: "aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" }),
        other => bail!("this setup does not know how Debian builds for {other}"),
    }
}

/// An apt that shares nothing with the system's but the program and the keys.
pub(super) struct Apt {
    folder: TempDir,
    options: Vec<String>,
}

impl Apt {
    /// One of these suites, whose lists it fetches.
    pub(super) fn of(scratch: &Path, suites: &[&str]) -> anyhow::Result<Self> {
        let keyring = KEYRINGS.iter().find(|path| Path::new(path).is_file());
        let (Some(keyring), Some(_), Some(_)) = (keyring, command::on_path("apt-get"), command::on_path("dpkg-deb"))
        else {
            bail!("this system has no apt with Debian's keys (package debian-archive-keyring)");
        };
        let named = std::env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty());
        let mirror = named.or_else(|| mirror(Path::new("/etc/apt"))).with_context(|| {
            format!("/etc/apt names no mirror of Debian (an address that ends in /debian); set {MIRROR} to one")
        })?;
        let apt = Self::new(scratch, &mirror, keyring, processor()?.debian, suites)?;
        apt.run(&["update"])?;
        Ok(apt)
    }

    fn new(scratch: &Path, mirror: &str, keyring: &str, architecture: &str, suites: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("apt-").tempdir_in(scratch)?;
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.path().join(part))?;
        }
        let sources: String = suites
            .iter()
            .map(|suite| format!("deb [arch={architecture} signed-by={keyring}] {mirror} {suite} main\n"))
            .collect();
        fs::write(folder.path().join("sources.list"), sources)?;
        let within = |name: &str| folder.path().join(name).display().to_string();
        let settings = [
            format!("Dir::Etc::sourcelist={}", within("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", within("lists")),
            // What the system has installed, maybe from another suite, is not what is looked for.
            "Dir::State::status=/dev/null".to_owned(),
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
        command.arg("--quiet").args(&self.options).args(arguments).current_dir(self.folder.path().join("packages"));
        command::capture(&mut command)?;
        Ok(())
    }

    /// Fetches packages, each a name, or `name=version`, or `name/suite`; returns their files.
    pub(super) fn download<'a>(&self, packages: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Vec<PathBuf>> {
        let arguments: Vec<&str> = ["download"].into_iter().chain(packages).collect();
        self.run(&arguments)?;
        files_in(&self.folder.path().join("packages"))
    }
}

impl Apt {
    /// Fetches packages with all that they need, as for a system that has nothing yet; returns their files.
    pub(super) fn download_with_all(&self, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let status = self.folder.path().join("status");
        fs::write(&status, "")?;
        let status = format!("Dir::State::status={}", status.display());
        let options = ["-o", &status, "-o", "Debug::NoLocking=1", "-o", "APT::Install-Recommends=false"];
        let arguments: Vec<&str> = ["install", "--download-only", "--yes"].into_iter().chain(options).collect();
        self.run(&arguments.into_iter().chain(packages.iter().copied()).collect::<Vec<_>>())?;
        files_in(&self.folder.path().join("cache/archives"))
    }
}

/// The packages in a folder, in order.
fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "deb"));
    files.sort();
    Ok(files)
}

/// Makes an unpacked program use the loader and the libraries of `root`, with its own patchelf.
pub(super) fn relocate(root: &Path, program: &str, libraries: &[PathBuf]) -> anyhow::Result<()> {
    let loader = processor()?.loader;
    let loader = libraries.iter().map(|folder| folder.join(loader)).find(|loader| loader.exists());
    let loader = loader.with_context(|| format!("no loader was unpacked into {}", root.display()))?;
    let libraries = libraries.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
    let program = root.join(program);
    // patchelf itself needs the loader that was unpacked. The forced DT_RPATH, unlike the modern DT_RUNPATH, holds for
    // the libraries of libraries as well.
    command::capture(
        Command::new(&loader)
            .args(["--library-path", &libraries])
            .arg(root.join("usr/bin/patchelf"))
            .arg("--set-interpreter")
            .arg(&loader)
            .args(["--force-rpath", "--set-rpath", &libraries])
            .arg(&program),
    )?;
    let listed = command::capture(Command::new(&loader).arg("--list").arg(&program))?;
    match library_from_elsewhere(&listed, root) {
        Some(stranger) => bail!("{} needs a library that was not fetched: {stranger}", program.display()),
        None => Ok(()),
    }
}

/// The first line of `ld.so --list` that names a library outside of the folder, or none at all.
fn library_from_elsewhere<'a>(listed: &'a str, root: &Path) -> Option<&'a str> {
    listed
        .lines()
        .map(str::trim)
        .find(|line| line.split_once("=> ").is_some_and(|(_, path)| !Path::new(path).starts_with(root)))
}

/// The file of the package of that name.
pub(super) fn file_of<'a>(files: &'a [PathBuf], package: &str) -> anyhow::Result<&'a Path> {
    let start = format!("{package}_");
    let named = |file: &&PathBuf| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start.as_str()))
    };
    files.iter().find(named).map(PathBuf::as_path).with_context(|| format!("apt-get left no package of {package}"))
}

/// The version of the package in this file.
pub(super) fn version(file: &Path) -> anyhow::Result<String> {
    field(file, "Version")
}

/// What the package in this file says of itself, as `Depends`.
pub(super) fn field(file: &Path, name: &str) -> anyhow::Result<String> {
    let value = command::capture(Command::new("dpkg-deb").arg("--field").arg(file).arg(name))?;
    Ok(value.trim().to_owned())
}

/// Unpacks packages into one folder.
pub(super) fn unpack(files: &[PathBuf], root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    for file in files {
        command::capture(Command::new("dpkg-deb").arg("--extract").arg(file).arg(root))?;
    }
    Ok(())
}

/// Is it the file with this SHA-256 sum?
pub(super) fn check(file: &Path, hash: &str) -> anyhow::Result<()> {
    let line = command::capture(Command::new("sha256sum").arg("--binary").arg(file))?;
    let sum = line.split_whitespace().next().unwrap_or_default();
    if sum.trim_start_matches('\\') != hash {
        bail!("{} is not the file that was tried: its SHA-256 sum is {sum}, not {hash}", file.display());
    }
    Ok(())
}

/// Writes a program that starts one of the folder `root` beside it, with the loader and the libraries in there.
pub(super) fn write_starter(file: &Path, program: &str) -> anyhow::Result<()> {
    let Processor { libraries, loader, .. } = processor()?;
    let text = format!(
        "#!/bin/sh\n\
         root=$(dirname \"$0\")/root\n\
         exec \"$root/lib/{libraries}/{loader}\" --library-path \"$root/lib/{libraries}:$root/usr/lib/{libraries}\" \\\n  \
         \"$root/{program}\" \"$@\"\n"
    );
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    image::set_mode(file, 0o755)
}

/// The mirror that the system's own apt uses, from `sources.list`, `*.list` and `*.sources`.
fn mirror(etc_apt: &Path) -> Option<String> {
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
    fn a_library_of_the_system_is_noticed() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /c/root/usr/lib/libc.so.6 (0x2)\n";
        assert_eq!(library_from_elsewhere(listed, Path::new("/c/root")), None);
        let stranger = format!("{listed}\tlibxxhash.so.0 => /lib/libxxhash.so.0 (0x3)\n");
        assert!(library_from_elsewhere(&stranger, Path::new("/c/root")).unwrap().starts_with("libxxhash"));
        let absent = "libz.so.1 => not found\n";
        assert_eq!(library_from_elsewhere(absent, Path::new("/c/root")), Some("libz.so.1 => not found"));
    }

    #[test]
    fn the_file_of_a_package_is_not_that_of_another_with_a_longer_name() {
        let files = ["/p/montage-gridtools_6.0_amd64.deb", "/p/montage_6.0_amd64.deb"].map(PathBuf::from);
        assert_eq!(file_of(&files, "montage").unwrap(), Path::new("/p/montage_6.0_amd64.deb"));
        assert!(file_of(&files, "mont").unwrap_err().to_string().contains("no package of mont"));
    }

    #[test]
    fn a_file_is_taken_only_with_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("package.deb");
        fs::write(&file, "hello\n").unwrap();
        let hash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        check(&file, hash).unwrap();
        fs::write(&file, "hallo\n").unwrap();
        assert!(check(&file, hash).unwrap_err().to_string().contains("is not the file that was tried"));
    }

    #[test]
    fn a_starter_finds_its_folder_wherever_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let Processor { libraries, loader, .. } = processor().unwrap();
        let path = folder.path().join("root/lib").join(libraries).join(loader);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\necho \"$3\" \"$4\"\n").unwrap();
        image::set_mode(&path, 0o755).unwrap();
        let starter = folder.path().join("redis-server");
        write_starter(&starter, "usr/bin/redis-server").unwrap();
        let said = command::capture(Command::new(&starter).arg("two words")).unwrap();
        assert_eq!(said, format!("{}/root/usr/bin/redis-server two words\n", folder.path().display()));
    }
}
