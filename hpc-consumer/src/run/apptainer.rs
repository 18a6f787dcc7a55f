//! The runtime `apptainer`: the command in a container that sees its job directory at `/work` and little else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::{Isolation, JobId, RuntimeKind};
use site::{Reference, Secret};
use tokio::process::Command;

use super::begin::{Begin, Lookup};
use super::children::Known;
use super::containment::{Containment, Part, Parts};
use super::isolation;
use super::kit::gpu_flag;
use super::programs;
use super::pull::{Credentials, Pull};
use super::scratch::Scratch;
use super::unpacked::{Unpacked, asks_to_write};
use super::{CommandLine, Confinement, Own, Says, WORKFLOW_DIR, Wrapping, lock, secrets};
use crate::lease::IN_CONTAINER;

/// Where a container sees its job directory.
pub(super) const WORK_DIR: &str = "/work";

/// Where it sees that of the workflow that it is a task of.
const WORKFLOW: &str = "/workflow";

/// A program that no image has: the probe gets as far as looking for it, if all before that works.
const NO_SUCH_PROGRAM: &str = "/hpc-queue-probe-no-such-program";

/// The longest that a probe may take; an image on a busy file system takes its time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest that it may take to remove what a probe has made.
const REMOVED_WITHIN: Duration = Duration::from_secs(10);

/// A command in a container.
#[derive(Debug)]
pub(crate) struct Apptainer {
    pub(crate) program: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) oci_ref: Option<String>,
    /// The directory of the image, where that is ours.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) binds: Vec<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) command: Vec<String>,
    /// Where jobs look for programs, if not where the image says.
    pub(crate) path: Option<String>,
    pub(crate) as_root: bool,
    pub(crate) inherited: Vec<(OsString, OsString)>,
    /// What of our environment the job gets.
    pub(crate) passed: Vec<(OsString, OsString)>,
    /// How to reach the registry that an image is pulled from.
    pub(crate) proxies: Vec<(OsString, OsString)>,
    /// Who we are to registries, where a setting names the file.
    pub(crate) registry_auth: Option<PathBuf>,
    /// Where the image is unpacked, if it is to be.
    pub(crate) unpacked: Option<Unpacked>,
    /// Does each run get a session keyring of its own?
    pub(crate) keyring: bool,
    pub(crate) containment: Containment,
    /// What its runs see of their pool's secrets.
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) says: Says,
    pub(crate) seen: Seen,
}

/// Arguments that show GPUs.
const GPU_FLAGS: [&str; 3] = ["--nv", "--nvccli", "--rocm"];

/// What probes have seen of the runtime and its image.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// It tells of the begin of the command.
    hook: AtomicBool,
    /// It was said that it does not.
    told: AtomicBool,
    /// The program that jobs run is there.
    program: AtomicBool,
}

/// What a program said that we started for ourselves, and how it ended.
pub(super) struct Said {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Can what tells of the begin of a command be put into containers of this image? In a directory that Apptainer has not
/// made itself it would take the place of all variables that a job is given.
fn takes_hook(root: &Path) -> bool {
    !root.is_dir() || root.join(".singularity.d/env").is_dir()
}

impl Apptainer {
    pub(super) fn command(&self, job_id: &JobId, job_dir: &Path, own: &Own) -> (CommandLine, Wrapping) {
        let root = self.root();

        // What a container may write to changes for its own reasons.
        let image = (!self.arguments.iter().any(|argument| asks_to_write(argument))).then(|| root.clone());
        let (parts, facts) = self.containment.parts_and_facts();
        let mut words = self.exec_words(root, job_dir, job_id.as_str(), &parts, own);
        let command = if own.command.is_empty() { &self.command } else { &own.command };
        words.extend(command.iter().map(OsString::from));
        let mut environment = self.inherited.clone();
        // Not as words, which other users of the machine can read: a proxy may have a password.
        let passed = own.over(&self.passed).into_iter().map(|(name, value)| handed_on(&name, &value));
        environment.extend(passed);
        // Not the job directory: apptainer and its helpers must not find there what a job has put there for them.
        let confinement = Confinement { writable: None, keyring: self.keyring };
        let hook = self.seen.hook.load(Ordering::Relaxed) && takes_hook(&self.root());
        let command = CommandLine { words, environment, directory: "/".into() };
        let isolation = facts.map(Box::new);
        let mut secrets = self.secrets.clone();
        secrets.extend(own.secrets.clone());
        let (launched, seen) = (own.launched.clone(), own.seen.clone());
        let runtime = RuntimeKind::Apptainer;
        (command, Wrapping { runtime, image, hook, confinement, isolation, secrets, launched, seen })
    }

    pub(super) fn to_be_pulled(&self) -> Option<&Path> {
        (self.oci_ref.is_some() && !self.image.exists()).then_some(self.image.as_path())
    }

    pub(super) fn has_program(&self) -> bool {
        self.seen.program.load(Ordering::Relaxed)
    }

    /// What containers start from: what was unpacked of the image as it is now, or the image.
    fn root(&self) -> PathBuf {
        let unpacked = self.unpacked.as_ref().and_then(|unpacked| unpacked.root(&self.image));
        unpacked.unwrap_or_else(|| self.image.clone())
    }

    /// What a probe has seen of the isolation of containers.
    pub(super) fn isolation(&self) -> Option<Isolation> {
        self.containment.facts()
    }

    /// `apptainer exec` with all isolation: own process and IPC namespaces, an empty environment, an empty home, none
    /// of the paths that the site's configuration binds, and these parts of what contains it further. All but the
    /// command, and the scratch that a run gets.
    fn exec_words(
        &self,
        root: PathBuf,
        job_dir: &Path,
        job_id: &str,
        parts: &Parts,
        Own { arguments, read_only, workflow, lease, secrets, .. }: &Own,
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.program.clone().into()];
        words.extend(["--quiet", "exec", "--containall", "--no-mount", "bind-paths"].map(OsString::from));
        if self.as_root {
            // Root keeps its capabilities in a container by default: more than a job should have, and more than root
            // itself has on some machines, where apptainer then fails.
            words.push("--no-privs".into());
        }
        words.extend(self.containment.words(parts));
        let mut bind = job_dir.as_os_str().to_owned();
        bind.push(":");
        bind.push(WORK_DIR);
        for (flag, value) in
            [("--bind", bind), ("--pwd", WORK_DIR.into()), ("--env", format!("JOB_ID={job_id}").into())]
        {
            words.extend([flag.into(), value]);
        }
        words.extend(["--env".into(), format!("WORK_DIR={WORK_DIR}").into()]);
        for (content, path) in read_only {
            let mut bind = content.as_os_str().to_owned();
            bind.push(format!(":{WORK_DIR}/{path}:ro"));
            words.extend(["--bind".into(), bind]);
        }
        if let Some(workflow) = workflow {
            let mut bind = workflow.as_os_str().to_owned();
            bind.push(":");
            bind.push(WORKFLOW);
            words.extend(["--bind".into(), bind, "--env".into(), format!("{WORKFLOW_DIR}={WORKFLOW}").into()]);
        }
        if let Some(lease) = lease {
            // The directory, because a broker that starts anew makes another socket in it.
            let mut bind = lease.as_os_str().to_owned();
            bind.push(format!(":{IN_CONTAINER}:ro"));
            words.extend(["--bind".into(), bind]);
        }
        for bind in &self.binds {
            words.extend(["--bind".into(), bind.into()]);
        }
        for (name, secret) in self.secrets.iter().chain(secrets) {
            words.extend(["--bind".into(), super::secrets::bind(name, &secret.file)]);
        }
        words.extend(arguments.iter().chain(&self.arguments).map(OsString::from));
        words.push(root.into());
        words
    }

    /// Is all there that containers need on whatever node they are? Pulls the image where it is missing and a
    /// reference is set.
    pub(super) async fn look(&self) -> Result<(), String> {
        if !self.image.exists() {
            match &self.oci_ref {
                Some(oci_ref) => self.pull(oci_ref).await?,
                None => {
                    let advice = match &self.says {
                        Says::Settings => "correct APPTAINER_IMAGE, or set APPTAINER_OCI_REF to pull it".to_owned(),
                        Says::Site { image, .. } => {
                            format!("put it there, or correct `{image}` in the site's file")
                        }
                    };
                    return Err(format!("the image {} is not there; {advice}", self.image.display()));
                }
            }
        }
        secrets::check_all(&self.secrets, &self.says)?;
        self.containment.prepare()
    }

    /// Is apptainer there, and does it start containers from the image on this node?
    ///
    /// It is started as a job is, with the same binds and arguments and `scratch` as its job directory: a file system
    /// that is not mounted on this node would fail every job.
    pub(super) async fn try_here(&self, scratch: &Path) -> Result<(), String> {
        let Some(unpacked) = &self.unpacked else { return self.start_from(self.image.clone(), scratch).await };
        unpacked.prepare(self).await;
        let root = self.root();
        let outcome = self.start_from(root.clone(), scratch).await;
        if root == self.image {
            return outcome;
        }
        let Err(problem) = outcome else {
            unpacked.works();
            return Ok(());
        };
        // Is it what was unpacked, or does the image itself fail as well?
        self.start_from(self.image.clone(), scratch).await?;
        unpacked.give_up(&self.image, problem)
    }

    /// Can a container be started, and is the program there that jobs run?
    async fn start_from(&self, root: PathBuf, scratch: &Path) -> Result<(), String> {
        let Begun { parts, left_out, tried } = self.start_with_what_goes(&root, scratch).await?;
        let Tried { began, program, read, .. } = tried;
        self.containment.remember(parts, left_out, read.as_deref());
        self.seen.hook.store(began, Ordering::Relaxed);
        if !began && !self.seen.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "apptainer does not tell of the begin of a job in {}: a job that it cannot start may be taken for one \
                 that failed",
                root.display()
            );
        }
        self.seen.program.store(program == Lookup::Found, Ordering::Relaxed);
        match program {
            Lookup::Missing => {
                let there = format!("in the image {}", self.image.display());
                Err(programs::missing(&self.command, &there, &self.says))
            }
            Lookup::Found | Lookup::Unknown => Ok(()),
        }
    }

    /// Starts a container with all that contains it, or finds out which parts of that do not go here.
    async fn start_with_what_goes(&self, root: &Path, scratch: &Path) -> Result<Begun, String> {
        let wanted = self.containment.wanted();
        let tried = self.start_once(root, scratch, wanted).await?;
        let Err(problem) = tried.outcome else {
            return Ok(Begun { parts: wanted.clone(), left_out: Vec::new(), tried });
        };
        // What went the last time is tried first: on a node that never takes all of it this is the usual way.
        if let Some((parts, left_out)) = self.containment.less_than_wanted() {
            let tried = self.start_once(root, scratch, &parts).await?;
            if tried.outcome.is_ok() {
                return Ok(Begun { parts, left_out, tried });
            }
        }
        let (mut parts, mut left_out) = (Parts::new(), Vec::new());
        let mut best = self.start_once(root, scratch, &parts).await?;
        if best.outcome.is_err() {
            return Err(problem);
        }
        for &part in wanted {
            let more: Parts = parts.iter().copied().chain([part]).collect();
            let tried = self.start_once(root, scratch, &more).await?;
            match &tried.outcome {
                Ok(()) => (parts, best) = (more, tried),
                Err(problem) => left_out.push((part, problem.clone())),
            }
        }
        Ok(Begun { parts, left_out, tried: best })
    }

    /// Starts a container as for a job, and gets as far as looking for a program that is not there.
    async fn start_once(&self, root: &Path, scratch: &Path, parts: &Parts) -> Result<Tried, String> {
        static TRIALS: AtomicU64 = AtomicU64::new(0);
        let number = TRIALS.fetch_add(1, Ordering::Relaxed);
        let place = scratch.join(format!("run-{}-{}-{number}", crate::host(), std::process::id()));
        let tried = self.start_in(root, &place, parts).await;
        let removed = files::remove(&place, REMOVED_WITHIN);
        let tried = tried?;
        removed.map_err(|error| format!("{} cannot be removed: {error}", place.display()))?;
        Ok(tried)
    }

    async fn start_in(&self, root: &Path, place: &Path, parts: &Parts) -> Result<Tried, String> {
        let mut words = self.exec_words(root.to_owned(), place, "probe", parts, &Own::default());
        words.push(NO_SUCH_PROGRAM.into());
        let inside = Scratch::inside();
        let lookup = if self.may_set_path() { String::new() } else { Lookup::script(&self.command[0], &inside) };
        let look = lookup + &isolation::script(&inside);
        let mut prepare = || -> io::Result<Option<Begin>> {
            // An earlier daemon of this number may have left one.
            files::remove(place, REMOVED_WITHIN)?;
            files::new_dir(place)?;
            let made = Scratch::make(Arc::new(File::open(place)?.into()), place, &mut words)?;
            parts.contains(&Part::Hook).then(|| made.begin(place, &look, &mut words)).transpose()
        };
        let failed = |error: io::Error| format!("{} cannot be used: {error}", place.display());
        let begin = prepare().map_err(failed)?;
        let mut environment = self.inherited.clone();
        environment.extend(self.path.iter().map(|path| handed_on("PATH".as_ref(), path.as_ref())));
        let said = self.output_of(words, &environment, PROBE_TIMEOUT).await?;
        let began = begin.map_or(Ok(false), |begin| begin.has_begun()).map_err(failed)?;
        let program = Lookup::read(&Scratch::path(place));
        let read = isolation::read(&Scratch::path(place));
        let outcome = if said.stderr.contains(NO_SUCH_PROGRAM) {
            Ok(())
        } else {
            let said = last_lines(&said.stderr);
            Err(format!("apptainer cannot start a container from {}: {said}", root.display()))
        };
        Ok(Tried { outcome, began, program, read })
    }

    /// May the arguments give containers another `PATH` than that of the image?
    fn may_set_path(&self) -> bool {
        self.arguments.iter().any(|argument| argument.contains("PATH=") || argument.starts_with("--env-file"))
    }

    async fn pull(&self, oci_ref: &str) -> Result<(), String> {
        // Two pools may have one image.
        let pull = pulls_of(&self.image);
        let _one_at_a_time = pull.lock().await;
        if self.image.exists() {
            return Ok(());
        }
        tracing::info!("pulling {oci_ref} into {}", self.image.display());
        let cannot = |error: io::Error| format!("the image cannot be put at {}: {error}", self.image.display());
        if let Some(directory) = &self.cache {
            files::own_dir(directory).map_err(cannot)?;
        }
        let partial = match &self.says {
            Says::Settings => self.image.with_extension("sif.partial"),
            // Its place may be that of other daemons, too.
            Says::Site { .. } => self.image.with_extension(format!("sif.partial-{}", crate::host())),
        };
        let what = match &self.says {
            Says::Settings => format!("APPTAINER_OCI_REF {oci_ref}"),
            Says::Site { image, .. } => format!("{oci_ref}, which `{image}` in the site's file names"),
        };
        let from = Reference::parse(oci_ref).map_err(|why| format!("{what} {why}"))?;
        let mut environment = self.inherited.clone();
        environment.extend(self.proxies.iter().cloned());
        let credentials = match &self.registry_auth {
            Some(file) => Credentials::read(file, &from.host)?,
            None => None,
        };
        let pull = Pull { program: &self.program, from: &from, to: &partial, environment, credentials };
        pull.run(|_| ()).await.map_err(|said| format!("apptainer could not pull {what}: {said}"))?;
        files::put(&partial, &self.image, files::Durability::Content).map_err(cannot)
    }

    /// Runs apptainer, or a tool that goes with it, for ourselves.
    pub(super) async fn output_of(
        &self,
        words: Vec<OsString>,
        environment: &[(OsString, OsString)],
        timeout: Duration,
    ) -> Result<Said, String> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let program = Path::new(&words[0]);
        let advice = if program == self.program { "; install Apptainer or set APPTAINER_BIN" } else { "" };
        let failed = |error: std::io::Error| format!("cannot start {}: {error}{advice}", program.display());
        let child = command.spawn().map_err(failed)?;
        let _known = Known::new(&child);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match tokio::time::timeout(timeout, child.wait_with_output()).await {
            Ok(Ok(output)) => {
                Ok(Said { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) })
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(format!("{} did not end within {} s", program.display(), timeout.as_secs())),
        }
    }
}

/// A container that was started for a look.
struct Tried {
    outcome: Result<(), String>,
    began: bool,
    program: Lookup,
    /// What its hook has read of its isolation.
    read: Option<String>,
}

/// One that was begun, with the parts of what contains it that go, and why others do not.
struct Begun {
    parts: Parts,
    left_out: Vec<(Part, String)>,
    tried: Tried,
}

/// A directory or image in the arguments that containers write to in place of their own image. Those that run at
/// the same time would lose each other's writes.
pub(crate) fn shared_overlay(arguments: &[String]) -> Option<&str> {
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let value = match argument {
            "--overlay" | "-o" => arguments.next()?,
            _ => match argument.strip_prefix("--overlay=") {
                Some(value) => value,
                None => continue,
            },
        };
        let is_read = |place: &str| [":ro", ".sif", ".sqfs", ".squashfs"].iter().any(|end| place.ends_with(end));
        if let Some(written) = value.split(',').find(|place| !is_read(place)) {
            return Some(written);
        }
    }
    None
}

/// The variable by which apptainer hands this one on into a container. Its value becomes a word of a script there,
/// between double quotes.
pub(super) fn handed_on(name: &OsStr, value: &OsStr) -> (OsString, OsString) {
    let mut handed_on = OsString::from("APPTAINERENV_");
    handed_on.push(name);
    let mut literal = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b'\\' | b'$' | b'`') {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    (handed_on, OsString::from_vec(literal))
}

/// Who holds this pulls the image.
fn pulls_of(image: &Path) -> Arc<tokio::sync::Mutex<()>> {
    static PULLS: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());
    lock(&PULLS).entry(image.to_owned()).or_default().clone()
}

/// Do arguments of apptainer show GPUs?
pub(crate) fn shows_gpus(arguments: &[impl AsRef<OsStr>]) -> bool {
    arguments.iter().any(|argument| GPU_FLAGS.iter().any(|flag| argument.as_ref() == *flag))
}

/// Has the words of a container, which is started from this image, show the GPUs of this node, if it has some and they
/// do not already.
pub(crate) fn show_gpus(words: &mut Vec<OsString>, image: Option<&Path>, devices: &Path) {
    let own = image.and_then(|image| words.iter().position(|word| word == image.as_os_str())).unwrap_or(words.len());
    let at = words.iter().position(|word| word == "exec").filter(|_| !shows_gpus(&words[..own]));
    if let (Some(at), Some(flag)) = (at, gpu_flag(devices)) {
        words.insert(at + 1, flag.into());
    }
}

/// Adds a flag right behind the subcommand, so that what a person asks for in `APPTAINER_ARGS` comes later and counts.
pub(super) fn add_flag(words: &mut Vec<OsString>, flag: &str, value: OsString) {
    let at = words.iter().position(|word| word == "exec").map_or(words.len(), |at| at + 1);
    words.splice(at..at, [flag.into(), value]);
}

pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    if last.is_empty() { "it did not say why".to_owned() } else { last.join(" / ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apptainer(arguments: &[&str]) -> Apptainer {
        Apptainer {
            program: "apptainer".into(),
            image: "/images/a.sif".into(),
            oci_ref: None,
            cache: None,
            binds: vec!["/data:/data:ro".to_owned()],
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo $HOME".to_owned()],
            as_root: false,
            inherited: vec![("PATH".into(), "/bin".into())],
            passed: vec![("TZ".into(), "UTC".into())],
            proxies: vec![("https_proxy".into(), "http://proxy".into())],
            registry_auth: None,
            unpacked: None,
            keyring: false,
            containment: Containment::nothing(Path::new("/state")),
            path: None,
            secrets: BTreeMap::new(),
            says: Says::Settings,
            seen: Seen::default(),
        }
    }

    #[test]
    fn what_several_containers_would_write_to_is_found() {
        for (arguments, shared) in [
            (&["--nv"][..], None),
            (&["--overlay", "/o.img"], Some("/o.img")),
            (&["-o", "/a:ro,/b"], Some("/b")),
            (&["--nv", "--overlay=/o.img"], Some("/o.img")),
            (&["--overlay", "/o:ro", "--overlay", "/x.sqfs"], None),
        ] {
            assert_eq!(shared_overlay(&apptainer(arguments).arguments), shared, "{arguments:?}");
        }
    }

    #[test]
    fn a_variable_has_its_value_whatever_a_shell_would_make_of_it() {
        let literal = |value: &str| handed_on("A".as_ref(), value.as_ref()).1.into_string().unwrap();
        assert_eq!(literal(r#"a "b" 'c' é"#), r#"a "b" 'c' é"#, "quotes are apptainer's to see to");
        assert_eq!(literal(r"$HOME `id` \"), r"\$HOME \`id\` \\");
    }

    #[test]
    fn containers_get_the_job_directory_and_the_stated_binds_and_nothing_else() {
        let apptainer = apptainer(&["--nv"]);
        let (command, _) = apptainer.command(&"j1".parse().unwrap(), Path::new("/results/j1"), &Own::default());
        assert_eq!(
            command.to_shell_line(),
            "cd / && env -i 'PATH=/bin' 'APPTAINERENV_TZ=UTC' apptainer --quiet exec --containall --no-mount bind-paths \
             --bind /results/j1:/work --pwd /work --env 'JOB_ID=j1' --env 'WORK_DIR=/work' --bind /data:/data:ro --nv \
             /images/a.sif sh -c 'echo $HOME'"
        );
    }
}
