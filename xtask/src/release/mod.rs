//! `cargo xtask release`: what people install who have no Rust.
//!
//! For this machine's system an archive with the programs, man pages, completions, licenses and the list of what is in
//! them ([`sbom`]); the Worker as a folder that `npx wrangler deploy` takes as it is ([`bundle`]); the installer with
//! the address of its release; and the SHA-256 sums of all of them.
//!
//! Out of scope: publishing (`.github/workflows/release.yml`). Invariant: on Linux no program needs a library, or it is
//! not put into an archive.

mod archive;
mod bundle;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace, released_target, shown};
use crate::{command, image, worker};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The most that the daemon may take: it is copied to clusters over slow lines.
pub(crate) const DAEMON_BYTES_MAX: u64 = 12_000_000;

/// What a release is made of.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the files go; without it, target/hpc-queue/release
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Where releases will be, for the installer, as <https://github.com/OWNER/REPOSITORY/releases>
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Leave out the Worker, which is the same whichever system builds it
    #[arg(long)]
    without_worker: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<ExitCode> {
    let kinds: &[Kind] = match (options.without_worker, cfg!(target_os = "linux")) {
        (false, true) => &Kind::RELEASE,
        (false, false) => &Kind::WORKER,
        (true, true) => &[Kind::PagePackages, Kind::MuslTarget],
        (true, false) => &[Kind::PagePackages],
    };
    let tools = Tools::set_up(workspace, kinds)?;
    if let Some(missing) = tools.missing().next() {
        return Err(missing.clone().into());
    }
    let out = match &options.out {
        Some(out) => std::path::absolute(out)?,
        None => workspace.scratch()?.join("release"),
    };
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut files = Vec::new();

    // First the page, which becomes a part of Worker and local-edge.
    if !options.without_worker {
        let worker = worker::build(workspace, &tools)?;
        println!("{}", worker.size_within_limit()?);
        files.push(bundle::make(workspace, &worker, &out)?);
    } else {
        crate::page::build_with(workspace, &tools)??;
    }
    files.push(programs(workspace, &out)?);
    files.push(installer(workspace, options.url.as_deref(), &out)?);
    archive::write_sums(&files, &out)?;

    println!("\nIn {}:", shown(&out));
    for file in &files {
        let bytes = fs::metadata(file)?.len();
        println!("  {:>6.1} MB  {}", bytes as f64 / 1e6, name_of(file));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person starts, and what else lies beside it.
struct Contents {
    /// Programs with man pages and completions.
    programs: &'static [&'static str],
    /// Programs that others start: the tasks of the runtime image, for jobs without a container; the broker of the
    /// lease.
    others: &'static [&'static str],
    /// Scripts of this repository, by the names that they have without `.sh`.
    scripts: &'static [&'static str],
}

/// What this system has.
fn of_this_system() -> anyhow::Result<Contents> {
    match std::env::consts::OS {
        "linux" => {
            let programs = &["hpc-consumer", "local-edge", "laptop-consumer"];
            Ok(Contents { programs, others: &["task-runner", "qpu-broker"], scripts: &["hpc-queue-up"] })
        }
        "macos" => Ok(Contents { programs: &["laptop-consumer"], others: &[], scripts: &[] }),
        other => bail!("there are releases for Linux and macOS, and not for {other}"),
    }
}

/// Builds the programs, in the order of [`Contents`], and returns where they are.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let contents = of_this_system()?;
    let names = [contents.programs, contents.others].concat();
    workspace.build(Profile::Dist, &names)?;
    let programs: Vec<PathBuf> = names.iter().map(|name| workspace.program(Profile::Dist, name)).collect();
    for program in &programs {
        let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        if cfg!(target_os = "linux") && archive::has_interpreter(&bytes) {
            bail!("{} is not static: it would not start where the C library is an older one", program.display());
        }
    }
    Ok(programs)
}

/// Builds the programs and puts them into an archive.
fn programs(workspace: &Workspace, out: &Path) -> anyhow::Result<PathBuf> {
    let contents = of_this_system()?;
    let programs = build(workspace)?;
    for program in programs.iter().filter(|program| program.ends_with("hpc-consumer")) {
        let bytes = fs::metadata(program)?.len();
        if bytes > DAEMON_BYTES_MAX {
            bail!("{} has {bytes} bytes; the limit is {DAEMON_BYTES_MAX}", program.display());
        }
    }
    let (names, target) = ([contents.programs, contents.others].concat(), released_target());
    let sbom = sbom::of(workspace, &names, &target)?;
    let named = format!("hpc-queue-{VERSION}-{target}");
    fs::write(out.join(format!("{named}.cdx.json")), &sbom)?;
    let (programs, others) = programs.split_at(contents.programs.len());
    pack(&workspace.root, &Packed { programs, others, scripts: contents.scripts }, &sbom, &named, out)
}

/// The same, where it is built.
struct Packed<'a> {
    programs: &'a [PathBuf],
    others: &'a [PathBuf],
    scripts: &'a [&'a str],
}

/// An archive of this, of this name.
fn pack(root: &Path, packed: &Packed<'_>, sbom: &str, named: &str, out: &Path) -> anyhow::Result<PathBuf> {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join(named);
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let put = |from: &Path, name: &str| -> anyhow::Result<PathBuf> {
        let place = bin.join(name);
        fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?;
        image::set_mode(&place, 0o755)?;
        Ok(place)
    };
    for program in packed.programs {
        reference(&put(program, &name_of(program))?, &folder.join("share"))?;
    }
    for other in packed.others {
        put(other, &name_of(other))?;
    }
    for script in packed.scripts {
        put(&root.join(format!("{script}.sh")), script)?;
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", ".env.example"] {
        fs::copy(root.join(file), folder.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    fs::write(folder.join("sbom.cdx.json"), sbom)?;
    archive::make(root, &folder, out)
}

/// Has a program write its man pages and completions, and puts them where the system looks for them.
fn reference(program: &Path, share: &Path) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    command::capture(Command::new(program).arg("reference").arg(scratch.path()))?;
    let name = name_of(program);
    for entry in fs::read_dir(scratch.path())? {
        let path = entry?.path();
        let found = name_of(&path);
        let (folder, found) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("1") => ("man/man1", found),
            Some("bash") => ("bash-completion/completions", name.clone()),
            Some("fish") => ("fish/vendor_completions.d", found),
            None if found.starts_with('_') => ("zsh/site-functions", found),
            _ => bail!("{name} wrote a file that nobody asked for: {found}"),
        };
        let folder = share.join(folder);
        fs::create_dir_all(&folder)?;
        fs::copy(&path, folder.join(found))?;
    }
    Ok(())
}

/// The installer, with the address of the releases in it.
fn installer(workspace: &Workspace, url: Option<&str>, out: &Path) -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string(workspace.root.join("install.sh")).context("cannot read install.sh")?;
    let path = out.join("install.sh");
    fs::write(&path, with_address(&text, url)?)?;
    image::set_mode(&path, 0o755)?;
    Ok(path)
}

fn with_address(text: &str, url: Option<&str>) -> anyhow::Result<String> {
    const LINE: &str = "releases=${HPC_QUEUE_RELEASES:-}\n";
    let Some(url) = url else { return Ok(text.to_owned()) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_".contains(c);
    if !url.starts_with("https://") || !url.chars().all(is_plain) {
        bail!("--url is the address of releases, as https://github.com/OWNER/REPOSITORY/releases, and not {url:?}");
    }
    if text.matches(LINE).count() != 1 {
        bail!("install.sh has not the one line {LINE:?} that the address goes into");
    }
    Ok(text.replace(LINE, &format!("releases=${{HPC_QUEUE_RELEASES:-{}}}\n", url.trim_end_matches('/'))))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
