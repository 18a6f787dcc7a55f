//! The Worker as `npx wrangler deploy` takes it, without Rust: what was built, and `wrangler.toml` without the build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{VERSION, archive};
use crate::worker::BuiltWorker;
use crate::workspace::Workspace;

const README: &str = "# The edge of hpc-queue, built

The commands at the top of `wrangler.toml` deploy it, from this folder. They need Node.js, and neither Rust nor anything
else of the project. What it costs, and all that can be set: `docs/` of the project.
";

/// Makes the archive of it.
pub(super) fn make(workspace: &Workspace, worker: &BuiltWorker, out: &Path) -> anyhow::Result<PathBuf> {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join(format!("hpc-queue-worker-{VERSION}"));
    fs::create_dir(&folder)?;
    let path = workspace.root.join("producer-worker/wrangler.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(folder.join("wrangler.toml"), without_build(&text)?)?;
    fs::write(folder.join("README.md"), README)?;
    for file in worker.modules() {
        let name = file.file_name().context("a module has a name")?;
        fs::copy(&file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(workspace.root.join(license), folder.join(license))?;
    }
    archive::make(&workspace.root, &folder, out)
}

/// The configuration with the built module as it lies beside it.
fn without_build(text: &str) -> anyhow::Result<String> {
    const MAIN: &str = "main = \"build/index.js\"\n";
    if text.matches(MAIN).count() != 1 {
        bail!("producer-worker/wrangler.toml has not the one line {MAIN:?}");
    }
    let text = text.replace(MAIN, "main = \"index.js\"\n");
    let (before, rest) = text.split_once("[build]\n").context("producer-worker/wrangler.toml has no [build]")?;
    let (_, after) =
        rest.split_once("\n[").context("nothing stands behind [build] in producer-worker/wrangler.toml")?;
    Ok(format!("{before}[{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_deployed_as_it_is() {
        let text = without_build(include_str!("../../../producer-worker/wrangler.toml")).unwrap();
        assert!(text.contains("\nmain = \"index.js\"\n") && !text.contains("worker-build"), "{text}");
        // All else is there.
        for section in ["[[queues.producers]]", "[[durable_objects.bindings]]", "[[migrations]]", "[observability]"] {
            assert!(text.contains(&format!("\n{section}\n")), "{section} in {text}");
        }
    }
}
