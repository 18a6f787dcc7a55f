//! What runs on this node are begun with, whatever pool they are of; and from a plan to the runtime of its runs.
//!
//! Out of scope: which plan a job has (`site`), and what a run has of its own (`job::launch`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use site::{Image, Plan, Secret, Site};

use super::apptainer::{Apptainer, Seen};
use super::bare::Bare;
use super::confine::Confinement;
use super::containment::{Containment, JobNetwork, JobSeccomp};
use super::pulled::Notes;
use super::unpacked::Unpacked;
use super::{Runtime, Says};

/// What all runs of a node are begun with.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    /// The program apptainer.
    pub(crate) apptainer: PathBuf,
    pub(crate) as_root: bool,
    /// What apptainer, or a command without it, gets of our environment.
    pub(crate) inherited: Vec<(OsString, OsString)>,
    /// What of it jobs get, in a container too.
    pub(crate) passed: Vec<(OsString, OsString)>,
    /// How to reach the registry that an image is pulled from.
    pub(crate) proxies: Vec<(OsString, OsString)>,
    /// Who we are to registries, where a setting names the file.
    pub(crate) registry_auth: Option<PathBuf>,
    /// Where images are unpacked, if they are to be.
    pub(crate) unpack_dir: Option<PathBuf>,
    /// Does each run get a session keyring of its own?
    pub(crate) keyring: bool,
    pub(crate) seccomp: JobSeccomp,
    /// Where runs without a container may write; none where they are not confined.
    pub(crate) writable: Option<Vec<PathBuf>>,
    pub(crate) state_dir: PathBuf,
    /// Where images of registries are kept, which have no place of their own.
    pub(crate) images: PathBuf,
    /// Where devices are.
    pub(crate) devices: PathBuf,
    /// Does a site's file say what there is, and not the settings?
    pub(crate) from_file: bool,
}

/// What of a plan decides how a run is begun, and whether it can be; all else is the run's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    runtime: site::Runtime,
    image: Option<Image>,
    /// The first word of the command.
    program: String,
    /// By which it is found, if it is another one than that of the image.
    path: Option<String>,
    arguments: Vec<String>,
    binds: Vec<String>,
    network: bool,
    secrets: BTreeMap<String, Secret>,
}

impl From<&Plan> for Recipe {
    fn from(plan: &Plan) -> Self {
        Self {
            runtime: plan.runtime,
            image: plan.image.clone(),
            program: plan.command.first().cloned().unwrap_or_default(),
            path: plan.environment.get("PATH").cloned(),
            arguments: plan.arguments.clone(),
            binds: plan.binds.clone(),
            network: plan.network,
            secrets: plan.secrets.clone(),
        }
    }
}

impl Kit {
    /// For runs without a container that have this environment, and are kept from nothing.
    pub(crate) fn bare(environment: Vec<(OsString, OsString)>) -> Self {
        Self {
            apptainer: PathBuf::new(),
            as_root: false,
            inherited: environment,
            passed: Vec::new(),
            proxies: Vec::new(),
            registry_auth: None,
            unpack_dir: None,
            keyring: false,
            seccomp: JobSeccomp::None,
            writable: None,
            state_dir: PathBuf::new(),
            images: PathBuf::new(),
            devices: PathBuf::from("/dev"),
            from_file: false,
        }
    }

    /// What wraps the command of runs of this plan, which is one of this site.
    pub(crate) fn runtime(&self, site: &Site, plan: &Plan) -> Runtime {
        let says = if self.from_file { said_by(site, plan) } else { Says::Settings };
        let (command, keyring) = (plan.command.clone(), self.keyring);
        let path = plan.environment.get("PATH").cloned();
        if plan.runtime == site::Runtime::Bare {
            let mut inherited = self.inherited.clone();
            inherited.extend(self.passed.iter().cloned());
            if let Some(path) = path {
                inherited.retain(|(name, _)| name != "PATH");
                inherited.push(("PATH".into(), path.into()));
            }
            let confinement = Confinement { writable: self.writable.clone(), keyring };
            let mut bare = Bare::new(command, inherited, confinement);
            (bare.secrets, bare.says) = (plan.secrets.clone(), says);
            return Runtime::Bare(bare);
        }
        let (image, oci_ref) = self.place_of(plan.image.as_ref());
        let network = if plan.network { JobNetwork::Host } else { JobNetwork::None };
        let mut containment =
            Containment::new(&self.state_dir, network, self.seccomp, &plan.binds, &plan.arguments, self.as_root);
        if self.from_file {
            containment.is_of(&plan.pool);
        }
        // Where a container may write to its root, it starts from the image; so it does on nodes that may not see what
        // is unpacked here.
        let here = site.pools.get(&plan.pool).is_none_or(|pool| matches!(pool.place, site::Where::Here(_)));
        let unpack_dir = self.unpack_dir.clone().filter(|_| here);
        let unpacked = unpack_dir.and_then(|directory| Unpacked::new(directory, &plan.arguments).ok());
        Runtime::Apptainer(Apptainer {
            program: self.apptainer.clone(),
            image,
            oci_ref,
            cache: matches!(plan.image, Some(Image::Reference { .. })).then(|| self.images.clone()),
            binds: plan.binds.clone(),
            arguments: plan.arguments.clone(),
            command,
            path,
            as_root: self.as_root,
            inherited: self.inherited.clone(),
            passed: self.passed.clone(),
            proxies: self.proxies.clone(),
            registry_auth: self.registry_auth.clone(),
            unpacked,
            keyring,
            containment,
            secrets: plan.secrets.clone(),
            says,
            seen: Seen::default(),
        })
    }

    /// Where an image is, or is to be pulled to, and from where.
    fn place_of(&self, image: Option<&Image>) -> (PathBuf, Option<String>) {
        match image {
            Some(Image::File { path, pull }) => (path.clone(), pull.clone()),
            Some(Image::Reference { name, digest }) => {
                let file = format!("{}.sif", digest.replace(':', "-"));
                (self.images.join(file), Some(format!("{}@{digest}", without_tag(name))))
            }
            // A site's file that is right names one.
            None => (PathBuf::new(), None),
        }
    }

    /// Which flag has apptainer show the GPUs of this node.
    pub(crate) fn gpu_flag(&self) -> Option<&'static str> {
        gpu_flag(&self.devices)
    }

    /// Are the GPUs there that a pool has by these numbers?
    pub(crate) fn check_gpus(&self, pool: &protocol::PoolName, gpus: &[u32]) -> Result<(), String> {
        let Some(last) = gpus.iter().max() else { return Ok(()) };
        let (kind, directory) = match self.gpu_flag() {
            Some("--nv") => ("nvidia", self.devices.clone()),
            Some(_) => ("renderD", self.devices.join("dri")),
            None => {
                return Err(format!(
                    "`pool.{pool}.capacity` has GPUs, and this node has none that can be seen: neither {0}/nvidiactl nor \
                     {0}/kfd is there; load the driver, or take `gpus` out of the pool",
                    self.devices.display()
                ));
            }
        };
        let is_gpu = |name: &str| {
            name.strip_prefix(kind)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let count = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_gpu)).count();
        if count > *last as usize {
            return Ok(());
        }
        Err(format!(
            "`pool.{pool}.capacity` has the GPU {last}, and {} has only {count} (counted from 0); if one was lost, mend \
             it, or correct `gpus` in the pool",
            directory.display()
        ))
    }
}

/// Which flag has apptainer show the GPUs of a node that has these devices.
pub(crate) fn gpu_flag(devices: &Path) -> Option<&'static str> {
    let there = |device: &str| devices.join(device).exists();
    if there("nvidiactl") {
        Some("--nv")
    } else if there("kfd") {
        Some("--rocm")
    } else {
        None
    }
}

/// Which keys of the site's file a person has to look at.
fn said_by(site: &Site, plan: &Plan) -> Says {
    let pool = site.pools.get(&plan.pool);
    let task = plan.task.as_ref().and_then(|pattern| Some((pattern, site.tasks.get(pattern)?)));
    let key = |of_task: bool, key: &str| match &plan.task {
        Some(pattern) if of_task => format!("task.{pattern}.{key}"),
        _ => format!("pool.{}.{key}", plan.pool),
    };
    let image = key(task.is_some_and(|(_, task)| task.image.is_some()), "image");
    let by_task = task.is_some_and(|(_, task)| task.command.is_some() || task.kind != site::TaskKind::Program);
    let nobody = !by_task && pool.is_none_or(|pool| pool.command.is_none());
    let command = if nobody { "command".to_owned() } else { key(by_task, "command") };
    Says::Site { pool: plan.pool.clone(), image, command }
}

/// A registry is asked for a digest alone.
fn without_tag(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(':').map_or(name, |at| &name[..last + at])
}

/// The image of a plan as a result names it, before its file was looked at.
pub(crate) fn named(image: &Image) -> String {
    match image {
        Image::File { path, .. } => path.display().to_string(),
        Image::Reference { .. } => image.to_string(),
    }
}

/// The same with what tells one content of a file from another without reading it, and the digest by which a registry
/// has it, where that is known.
pub(super) fn with_version(image: &str) -> Option<String> {
    let path = Some(Path::new(image)).filter(|path| path.is_absolute())?;
    let metadata = std::fs::metadata(path).ok()?;
    let changed = protocol::timestamp_from_millis(metadata_millis(&metadata));
    let length = if metadata.is_dir() { "a directory".to_owned() } else { format!("{} bytes", metadata.len()) };
    let digest = Notes::read(path).of(path).map(|note| format!(", {}", note.digest)).unwrap_or_default();
    Some(format!("{image}, {length}, changed {changed}{digest}"))
}

fn metadata_millis(metadata: &std::fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// Two pools with one image of a registry, and an apptainer that says what it was asked for.
    #[tokio::test]
    async fn an_image_of_a_registry_is_pulled_once_by_its_digest() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path();
        let script = format!(
            "test $1 = pull && {{ echo \"$*\" >> {0}/pulls; sleep 0.2; echo image > \"$3\"; exit; }}\n\
             for word; do :; done; echo \"$word\" >&2; exit 255",
            home.display()
        );
        // Written by another process: a program that any process has open for writing cannot be executed.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
        assert!(
            Command::new("sh").args(["-c", write]).arg(home.join("apptainer")).arg(script).status().unwrap().success()
        );
        let text = format!(
            "[pool.a]\nimage = \"ghcr.io/a/b:7@{DIGEST}\"\ncapacity = {{ cpus = 1 }}\n\
             [pool.b]\ndefault = true\nimage = \"ghcr.io/a/b@{DIGEST}\"\ncapacity = {{ cpus = 1 }}\n"
        );
        let site = site::SiteFile::parse(&text, home, &site::Defaults::default()).unwrap().site;
        let (scratch, images) = (home.join("scratch"), home.join("images"));
        std::fs::create_dir(&scratch).unwrap();
        let path = vec![("PATH".into(), "/usr/bin:/bin".into())];
        let kit = Kit {
            apptainer: home.join("apptainer"),
            images,
            state_dir: home.to_owned(),
            from_file: true,
            ..Kit::bare(path)
        };
        let runtimes: Vec<Arc<Runtime>> = ["a", "b"]
            .iter()
            .map(|pool| Arc::new(kit.runtime(&site, &site.plans(&pool.parse().unwrap())[0])))
            .collect();
        assert!(runtimes.iter().all(|runtime| runtime.to_be_pulled().is_some()));
        let (one, other) = tokio::join!(runtimes[0].probe(&scratch), runtimes[1].probe(&scratch));
        assert_eq!((one, other), (Ok(()), Ok(())));
        let pulls = std::fs::read_to_string(home.join("pulls")).unwrap();
        let image = home.join("images").join(format!("{}.sif", DIGEST.replace(':', "-")));
        assert!(image.is_file() && runtimes.iter().all(|runtime| runtime.to_be_pulled().is_none()));
        let [pull] = pulls.lines().collect::<Vec<_>>()[..] else { panic!("{pulls}") };
        assert!(
            pull.starts_with("pull --force ") && pull.ends_with(&format!(" docker://ghcr.io/a/b@{DIGEST}")),
            "{pull}"
        );
        let (command, _) = runtimes[0].command(&"j1".parse().unwrap(), home, &super::super::Own::default());
        assert!(command.words.contains(&image.into_os_string()));
    }

    #[test]
    fn a_registry_is_asked_for_the_digest_and_no_tag() {
        for (name, without) in [
            ("ghcr.io/a/b", "ghcr.io/a/b"),
            ("ghcr.io/a/b:7", "ghcr.io/a/b"),
            ("localhost:5000/b", "localhost:5000/b"),
            ("localhost:5000/b:7", "localhost:5000/b"),
            ("b:7", "b"),
        ] {
            assert_eq!(without_tag(name), without);
        }
    }
}
