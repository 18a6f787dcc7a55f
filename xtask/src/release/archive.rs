//! Archives that are the same whenever they are made of the same, and their sums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::name_of;
use crate::command;

/// Puts a folder into an archive of its name.
pub(super) fn make(root: &Path, folder: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let (within, name) = (folder.parent().context("a folder lies in another one")?, name_of(folder));
    let archive = out.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    if cfg!(target_os = "linux") {
        // Neither who builds it nor when, but when what it is built of was committed.
        let committed = command::capture(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root));
        let seconds = committed.unwrap_or_default().trim().parse::<u64>().unwrap_or_default();
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w,a+rX"]);
        tar.arg(format!("--mtime=@{seconds}"));
        tar.args(["--use-compress-program", "gzip -n9"]);
    } else {
        tar.arg("-z");
    }
    command::capture(tar.arg("-cf").arg(&archive).arg("-C").arg(within).arg(&name))?;
    Ok(archive)
}

/// Writes `SHA256SUMS` of the files beside it, as `sha256sum --check` reads it.
pub(super) fn write_sums(files: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let mut names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
    names.sort();
    let mut sums = match command::on_path("sha256sum") {
        Some(program) => Command::new(program),
        None => {
            let mut shasum = Command::new("shasum");
            shasum.args(["-a", "256"]);
            shasum
        }
    };
    let text = command::capture(sums.args(&names).current_dir(out))?;
    fs::write(out.join("SHA256SUMS"), text).with_context(|| format!("cannot write into {}", out.display()))
}

/// Does this program of Linux need another one to be loaded, and so the libraries of the system? (A program header of
/// the kind PT_INTERP, in a 64-bit little-endian ELF file. What is none is not judged.)
pub(super) fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let headers = || {
        let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        Some((0..count).filter_map(move |index| usize::try_from(first + index * size).ok()))
    };
    let is_elf = elf.starts_with(b"\x7fELF\x02\x01");
    is_elf && headers().is_some_and(|mut headers| headers.any(|at| number(at, 4) == Some(u64::from(PT_INTERP))))
}
