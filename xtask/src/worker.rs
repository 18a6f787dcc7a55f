//! Building the Worker, and how large it is.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command;
use crate::page;
use crate::tools::{self, Kind, Missing, Tools};
use crate::workspace::Workspace;

/// The most that the WASM may be after gzip: a data center loads it for its first visitor, and an object when it is
/// woken. Cloudflare's free plan takes 3 MB. The aims are 350 KB for the code and 60 KB for the page that is in it;
/// what has grown to this has grown by a mistake, or needs a decision. Files are 50 KB of it.
pub(crate) const GZIP_BYTES_MAX: u64 = 500_000;

/// The compiled Worker.
pub(crate) struct BuiltWorker {
    /// The folder with `index.js` and `index_bg.wasm`.
    pub(crate) folder: PathBuf,
}

/// How large it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// The file `index_bg.wasm`.
    pub(crate) wasm: u64,
    /// The same after gzip, which is what a deployment counts.
    pub(crate) wasm_gzip: u64,
    /// The file `index.js`.
    pub(crate) script: u64,
}

/// Builds the Worker with the tools in the cache; nothing is downloaded.
pub(crate) fn build(workspace: &Workspace, tools: &Tools) -> anyhow::Result<BuiltWorker> {
    build_with(workspace, tools)?.map_err(anyhow::Error::from)
}

/// The same, with a missing tool as the inner error.
pub(crate) fn build_with(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Result<BuiltWorker, Missing>> {
    for kind in Kind::WORKER {
        if let Err(missing) = tools.get(kind) {
            return Ok(Err(missing));
        }
    }
    if let Err(missing) = page::build_with(workspace, tools)? {
        return Ok(Err(missing));
    }
    let package = workspace.root.join("producer-worker");
    let packages = &tools.get(Kind::NodePackages)?.path;
    let mut command = Command::new(&tools.get(Kind::WorkerBuild)?.path);
    command
        // As wrangler.toml does it, so that what is tested and measured is what is deployed.
        .args(["--profile", "worker", "--no-opt"])
        .current_dir(&package)
        .env("WASM_BINDGEN_BIN", &tools.get(Kind::WasmBindgen)?.path)
        .env("ESBUILD_BIN", tools::esbuild(packages));
    command::run(&mut command)?;
    Ok(Ok(BuiltWorker { folder: package.join("build") }))
}

impl BuiltWorker {
    /// The files that make it up.
    pub(crate) fn modules(&self) -> [PathBuf; 2] {
        ["index.js", "index_bg.wasm"].map(|name| self.folder.join(name))
    }

    /// Measures it. A Worker that is too large is an error.
    pub(crate) fn size_within_limit(&self) -> anyhow::Result<Size> {
        let size = self.size()?;
        size.check()?;
        Ok(size)
    }

    /// Measures it.
    pub(crate) fn size(&self) -> anyhow::Result<Size> {
        let bytes = |name: &str| {
            let path = self.folder.join(name);
            fs::metadata(&path).map(|file| file.len()).with_context(|| format!("cannot read {}", path.display()))
        };
        let wasm_gzip = gzip_bytes(&self.folder.join("index_bg.wasm"))?;
        Ok(Size { wasm: bytes("index_bg.wasm")?, wasm_gzip, script: bytes("index.js")? })
    }
}

/// How large a file is after gzip.
pub(crate) fn gzip_bytes(path: &Path) -> anyhow::Result<u64> {
    // Node.js is at hand, and its gzip is the one with which Cloudflare's own tool reports the size.
    let script = "console.log(require('zlib').gzipSync(require('fs').readFileSync(process.argv[1])).length)";
    let gzip = command::capture(Command::new("node").args(["-e", script]).arg(path))?;
    gzip.trim().parse().with_context(|| format!("node printed no number: {gzip}"))
}

impl Size {
    fn check(self) -> anyhow::Result<()> {
        if self.wasm_gzip > GZIP_BYTES_MAX {
            bail!(
                "the Worker is too large ({self}; the limit is {:.0} KB after gzip); find what made it grow, or raise \
                 GZIP_BYTES_MAX in xtask/src/worker.rs and say why",
                GZIP_BYTES_MAX as f64 / 1000.0
            );
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = |bytes: u64| (bytes as f64) / 1000.0;
        write!(
            f,
            "WASM {:.1} KB, {:.1} KB after gzip; JavaScript {:.1} KB",
            kb(self.wasm),
            kb(self.wasm_gzip),
            kb(self.script)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_the_limits_count_them() {
        let size = Size { wasm: 200_000, wasm_gzip: 82_340, script: 12_000 };
        assert_eq!(size.to_string(), "WASM 200.0 KB, 82.3 KB after gzip; JavaScript 12.0 KB");
    }

    #[test]
    fn a_worker_that_grew_is_a_failure() {
        let of = |wasm_gzip| Size { wasm: 400_000, wasm_gzip, script: 12_000 };
        of(GZIP_BYTES_MAX).check().unwrap();
        let error = of(GZIP_BYTES_MAX + 100).check().unwrap_err().to_string();
        assert!(error.contains("500.1 KB after gzip") && error.contains("the limit is 500 KB"), "{error}");
    }
}
