//! Slurm in two versions, with the database of its accounting, unpacked into the cache: for tests, which start clusters
//! of several nodes on this host.
//!
//! Debian packs all nodes' and the controller's programs. They are fetched with all that they need, the C library
//! included (`debian`), and told to use the loader and the libraries next to them; so they run on other systems too,
//! as root and as anybody. The programs hold the path of their folder, so it is made at its final place, and a marker
//! that is written last says that it is whole.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::store::{Session, remove_if_there};
use super::{Missing, Place, Tool, debian};
use crate::command;

/// A version of Slurm, by Debian's suite that has it.
pub(super) struct Release {
    what: &'static str,
    suite: &'static str,
    /// The number at its end changes with what is in it.
    folder: &'static str,
}

pub(super) const SLURM_22_05: Release =
    Release { what: "Slurm 22.05", suite: "bookworm", folder: "slurm-debian-bookworm-1" };
pub(super) const SLURM_24_11: Release =
    Release { what: "Slurm 24.11", suite: "trixie", folder: "slurm-debian-trixie-1" };

/// What is asked for; apt finds what they need.
const PACKAGES: [&str; 7] =
    ["mariadb-server-core", "patchelf", "slurm-client", "slurm-wlm-mysql-plugin", "slurmctld", "slurmd", "slurmdbd"];

/// What users of a cluster have.
const CLIENTS: [&str; 12] = [
    "sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sdiag", "sinfo", "sprio", "squeue", "srun",
    "sstat",
];

/// What runs on its nodes. Debian adds the end to tell them from another program of the name `slurm`.
const DAEMONS: [&str; 5] = ["slurmctld-wlm", "slurmd-wlm", "slurmstepd-wlm", "slurmdbd", "mariadbd"];

const MARKER: &str = ".complete";

impl Release {
    /// The folder: `clients` for a PATH, `root` with everything.
    pub(super) fn find(&self, place: &Place) -> Option<Tool> {
        let path = place.store.folder(self.folder);
        let version = fs::read_to_string(path.join(MARKER)).ok()?;
        Some(Tool { path, version: version.trim().to_owned() })
    }

    pub(super) fn install(&self, session: &Session) -> Result<(), Missing> {
        println!("Fetching {} with MariaDB from Debian; nothing is installed into the system.", self.what);
        self.fetch(session).map_err(|error| {
            let remedy = "It takes an apt with Debian's keys (packages `apt`, `debian-archive-keyring`) and a mirror; \
                          tests with Slurm fail without it.";
            Missing::because(self.what, &error, remedy)
        })
    }

    fn fetch(&self, session: &Session) -> anyhow::Result<()> {
        // The packages lie in a folder of its own, and are gone with it.
        let apt = debian::Apt::of(session.scratch(), &[self.suite])?;
        let packages = apt.download_with_all(&PACKAGES)?;
        let folder = session.root().join(self.folder);
        remove_if_there(&folder)?;
        let root = folder.join("root");
        debian::unpack(&packages, &root)?;
        relocate(&root)?;
        for name in DAEMONS {
            // They look at their own names.
            if let Some(plain) = name.strip_suffix("-wlm") {
                symlink(name, root.join("usr/sbin").join(plain))?;
            }
        }
        // The other programs of usr/bin would find the wrong C library.
        let clients = folder.join("clients");
        fs::create_dir(&clients)?;
        for name in CLIENTS {
            symlink(format!("../root/usr/bin/{name}"), clients.join(name))?;
        }
        let version = command::capture(Command::new(root.join("usr/sbin/slurmd-wlm")).arg("-V"))
            .context("the fetched Slurm does not start")?;
        fs::write(folder.join(MARKER), version)?;
        Ok(())
    }
}

/// Makes the unpacked programs run from where they are.
fn relocate(root: &Path) -> anyhow::Result<()> {
    let triple = debian::processor()?.libraries;
    let libraries = [format!("usr/lib/{triple}/slurm-wlm"), format!("usr/lib/{triple}"), format!("lib/{triple}")];
    let libraries: Vec<PathBuf> = libraries.iter().map(|folder| root.join(folder)).collect();
    let bins = CLIENTS.map(|name| format!("usr/bin/{name}"));
    let daemons = DAEMONS.map(|name| format!("usr/sbin/{name}"));
    for program in bins.iter().chain(&daemons) {
        debian::relocate(root, program, &libraries)?;
    }
    Ok(())
}
