//! How the command of a job is run: what wraps it, and what it gets of this node.
//!
//! Out of scope: which jobs there are and how many (`config`). The environment is read there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use program::{Origins, on_path};
use protocol::PoolName;

use super::absolute;
use super::environment::from_environment;
use crate::run::{JobNetwork, JobSeccomp, Kit, Runtime, Unpacked};

/// What wraps the command of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// Run it in an Apptainer container
    Apptainer,
    /// Run it as it is: a job reads all that you can read, and BARE_CONFINEMENT says what else it can do
    Bare,
}

/// What keeps jobs without a container from what is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BareConfinement {
    /// A job writes where BARE_WRITABLE says, signals only its own processes, and gets no rights by setuid programs
    Landlock,
    /// A job can do all that you can do
    None,
}

/// Which session keyring of the kernel jobs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionKeyring {
    /// Each has one of its own, which is empty at its begin
    Own,
    /// All have that in which the daemon was started, where file systems may need its tickets (Kerberos, AFS)
    Inherited,
}

/// Which network jobs in containers use, where no task says it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct NetworkSettings {
    /// Which network jobs in containers use: one of their own (localhost works), or that of the node
    ///
    /// For jobs that fetch data, ask a license server, or talk to other nodes: host.
    #[arg(long, env = "JOB_NETWORK", default_value = "none", value_name = "NETWORK")]
    job_network: JobNetwork,
}

/// How the command of a job is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct RuntimeSettings {
    /// What wraps the command of a job
    #[arg(long, env = "RUNTIME", default_value = "apptainer", value_name = "RUNTIME")]
    runtime: RuntimeChoice,
    /// The command of every job, split into words as a shell does and executed without one
    ///
    /// It runs in the job directory, with WORK_DIR and JOB_ID in its environment, and finds the job in input.json.
    /// For a shell, write: sh -c '…'
    #[arg(long, env = "CONTAINER_CMD", default_value = "task-runner", value_name = "COMMAND")]
    container_cmd: String,
    /// What keeps a job of RUNTIME=bare from what is not its own
    #[arg(long, env = "BARE_CONFINEMENT", default_value = "landlock", value_name = "WHAT")]
    bare_confinement: BareConfinement,
    /// Where jobs of RUNTIME=bare may write besides their job directory, TMPDIR and devices, for example
    /// /scratch/me,/project/data; as far as you may [default: /tmp,/var/tmp]
    #[arg(long, env = "BARE_WRITABLE", value_name = "PATHS")]
    bare_writable: Option<String>,
    /// Which session keyring of the kernel jobs have
    #[arg(long, env = "SESSION_KEYRING", default_value = "own", value_name = "WHOSE")]
    session_keyring: SessionKeyring,
    /// The container image, a .sif file
    #[arg(long, env = "APPTAINER_IMAGE", value_name = "FILE")]
    pub(super) apptainer_image: Option<PathBuf>,
    /// Where to pull the image from when the file is not there, for example ghcr.io/OWNER/hpc-queue-runtime:latest
    #[arg(long, env = "APPTAINER_OCI_REF", value_name = "REF")]
    pub(super) apptainer_oci_ref: Option<String>,
    /// The file that says who you are to registries whose images are not for everybody; nobody else may read it
    ///
    /// `apptainer registry login --authfile FILE --username YOU docker://ghcr.io` writes it. Without this setting, it
    /// is the one that `apptainer registry login` writes by itself.
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    registry_auth_file: Option<PathBuf>,
    /// The apptainer program
    #[arg(long, env = "APPTAINER_BIN", default_value = "apptainer", value_name = "PROGRAM")]
    apptainer_bin: PathBuf,
    /// Host paths that containers see, as apptainer's --bind, for example /data:/data:ro,/scratch
    #[arg(long, env = "APPTAINER_BIND", value_name = "BINDS")]
    apptainer_bind: Option<String>,
    /// More arguments of `apptainer exec`, split as a shell does, for example --nv
    #[arg(long, env = "APPTAINER_ARGS", value_name = "ARGS", allow_hyphen_values = true)]
    apptainer_args: Option<String>,
    /// Unpack the image once into DIR, on this node's own disk, and start containers from there, which is faster
    ///
    /// Nobody may clean up in DIR, so /tmp is not for this. Without unsquashfs, containers start from the
    /// image.
    #[arg(long, env = "APPTAINER_UNPACK_DIR", value_name = "DIR")]
    apptainer_unpack_dir: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkSettings,
    /// Which filter of system calls (seccomp) jobs in containers run under
    ///
    /// The shipped one keeps them from setuid files, new user namespaces, mounts and keyrings. Programs of 32 bits, and
    /// containers within the container, need none. A profile of your own, --security seccomp:FILE among
    /// APPTAINER_ARGS, is taken instead.
    #[arg(long, env = "JOB_SECCOMP", default_value = "default", value_name = "PROFILE")]
    job_seccomp: JobSeccomp,
}

impl RuntimeSettings {
    /// What wraps the command of a job where no site's file says it. `mounted` is where containers see directories of
    /// jobs. What contains them needs a `state_dir`.
    pub(crate) fn resolve(
        self,
        mounted: &Path,
        state_dir: impl FnOnce() -> anyhow::Result<PathBuf>,
        origins: &Origins,
    ) -> anyhow::Result<Runtime> {
        let defaults = site::Defaults { network: self.network(), ..site::Defaults::default() };
        let settings = self.site(mounted, 1, defaults, origins)?;
        let site = site::Site::from_settings(&settings);
        let kit = self.kit(mounted, state_dir, Some(&settings), origins)?;
        let plan =
            site.plans(&PoolName::default()).pop().expect("the site of the settings has one pool, for every task");
        Ok(kit.runtime(&site, &plan))
    }

    /// What these settings say of how jobs run, as a site's file says it.
    pub(crate) fn site(
        &self,
        mounted: &Path,
        slots: u32,
        defaults: site::Defaults,
        origins: &Origins,
    ) -> anyhow::Result<site::Settings> {
        let command = words(&self.container_cmd, "CONTAINER_CMD", origins)?;
        if command.is_empty() {
            bail!("{} is empty; it names the program that every job runs", origins.named("CONTAINER_CMD"));
        }
        if self.runtime == RuntimeChoice::Bare {
            let (runtime, binds, arguments) = (site::Runtime::Bare, Vec::new(), Vec::new());
            return Ok(site::Settings { runtime, image: None, command, binds, arguments, slots, defaults });
        }
        refuse_what_cannot_be_mounted(mounted)?;
        let pull = self.apptainer_oci_ref.clone();
        let path = match (&self.apptainer_image, &pull) {
            (Some(image), _) => std::path::absolute(image)?,
            (None, Some(_)) => mounted.join("image.sif"),
            (None, None) => bail!(
                "APPTAINER_IMAGE is not set: it is the .sif file that jobs run in; or set APPTAINER_OCI_REF to pull one, \
                 or RUNTIME=bare to run without a container"
            ),
        };
        let arguments = words(self.apptainer_args.as_deref().unwrap_or_default(), "APPTAINER_ARGS", origins)?;
        let binds = binds(self.apptainer_bind.as_deref().unwrap_or_default());
        let (runtime, image) = (site::Runtime::Apptainer, Some(site::Image::File { path, pull }));
        Ok(site::Settings { runtime, image, command, binds, arguments, slots, defaults })
    }

    /// What all runs are begun with: those that the settings say, or those of a site's file.
    pub(crate) fn kit(
        self,
        mounted: &Path,
        state_dir: impl FnOnce() -> anyhow::Result<PathBuf>,
        settings: Option<&site::Settings>,
        origins: &Origins,
    ) -> anyhow::Result<Kit> {
        let (inherited, passed) = (from_environment(&INHERITED), from_environment(&PASSED));
        let has = |runtime| settings.is_none_or(|settings| settings.runtime == runtime);
        let mut writable = None;
        if has(site::Runtime::Bare) && self.bare_confinement == BareConfinement::Landlock {
            writable = Some(self::writable(self.bare_writable.as_deref(), &inherited, origins)?);
        }
        let mut kit = Kit {
            apptainer: self.apptainer_bin,
            as_root: program::is_root(),
            inherited,
            passed,
            proxies: from_environment(&PROXIES),
            registry_auth: None,
            unpack_dir: None,
            keyring: self.session_keyring == SessionKeyring::Own,
            seccomp: self.job_seccomp,
            writable,
            state_dir: PathBuf::new(),
            images: mounted.join(".images"),
            devices: PathBuf::from("/dev"),
            from_file: settings.is_none(),
        };
        if has(site::Runtime::Apptainer) {
            kit.state_dir = state_dir()?;
            let directory =
                self.apptainer_unpack_dir.map(|directory| absolute(&directory, "APPTAINER_UNPACK_DIR", origins));
            kit.unpack_dir = directory.transpose()?;
            let file = self.registry_auth_file.map(|file| absolute(&file, "REGISTRY_AUTH_FILE", origins));
            kit.registry_auth = file.transpose()?;
            if let (Some(directory), Some(settings)) = (&kit.unpack_dir, settings) {
                Unpacked::new(directory.clone(), &settings.arguments).map_err(anyhow::Error::msg)?;
            }
            kit.apptainer = apptainer(kit.apptainer, &kit.inherited, origins)?;
        }
        Ok(kit)
    }

    /// May jobs in containers use the network of the node, where no task says it?
    pub(crate) fn network(&self) -> bool {
        self.network.is_on()
    }
}

impl NetworkSettings {
    /// May jobs in containers use the network of the node, where no task says it?
    pub(crate) fn is_on(&self) -> bool {
        self.job_network == JobNetwork::Host
    }
}

/// Apptainer reads a colon or comma as the end of a path.
pub(super) fn refuse_what_cannot_be_mounted(mounted: &Path) -> anyhow::Result<()> {
    if mounted.to_string_lossy().contains([':', ',']) {
        bail!(
            "{} holds a ':' or ',', which apptainer cannot mount; choose another directory for jobs (RESULTS_DIR, or --job-dir)",
            mounted.display()
        );
    }
    Ok(())
}

/// Where programs keep what they need for a moment.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Where jobs without a container may write. What was named must be there, or no job is begun.
fn writable(
    named: Option<&str>,
    inherited: &[(OsString, OsString)],
    origins: &Origins,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut writable = match named {
        Some(paths) => binds(paths)
            .iter()
            .map(|path| absolute(Path::new(path), "BARE_WRITABLE", origins))
            .collect::<Result<_, _>>()?,
        None => TEMPORARY.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect::<Vec<_>>(),
    };
    let temporary = inherited.iter().find(|(name, _)| name == "TMPDIR").map(|(_, path)| PathBuf::from(path));
    writable.extend(temporary.filter(|path| path.is_dir() && !writable.contains(path)));
    Ok(writable)
}

/// What jobs get of our environment, in a container too: which accelerators and how many threads they may use, what
/// time and language it is here, and how to reach the network. It says nothing of who we are.
const PASSED: [&str; 24] = [
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "JULIA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// What apptainer, or a bare command, needs of our environment; all else stays with us: it holds our secrets.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "APPTAINER_CONFIGDIR"];

/// What pulling an image needs besides.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "APPTAINER_DOCKER_USERNAME",
    "APPTAINER_DOCKER_PASSWORD",
];

/// Apptainer is looked for once: what a job does must not change which program it is.
fn apptainer(program: PathBuf, inherited: &[(OsString, OsString)], origins: &Origins) -> anyhow::Result<PathBuf> {
    if program.components().count() > 1 {
        return absolute(&program, "APPTAINER_BIN", origins);
    }
    let path = inherited.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    // One that is not there may come; the probe says what is to be done.
    Ok(path.and_then(|path| on_path(path, &program)).unwrap_or(program))
}

fn words(text: &str, setting: &str, origins: &Origins) -> anyhow::Result<Vec<String>> {
    shell_words::split(text).with_context(|| format!("{} cannot be split into words: {text}", origins.named(setting)))
}

/// Binds are separated by commas; a comma that belongs to a path stands behind a backslash, which Apptainer
/// understands.
fn binds(text: &str) -> Vec<String> {
    let mut binds = vec![String::new()];
    let mut is_escaped = false;
    for c in text.chars() {
        match binds.last_mut() {
            Some(bind) if c != ',' || is_escaped => bind.push(c),
            _ => binds.push(String::new()),
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    binds.iter().map(|bind| bind.trim().to_owned()).filter(|bind| !bind.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_behind_a_backslash_belongs_to_its_bind() {
        assert_eq!(binds(r" /a:/b , /c\,d:/e,,/f\\,/g"), ["/a:/b", r"/c\,d:/e", r"/f\\", "/g"]);
        assert!(binds("").is_empty());
    }
}
