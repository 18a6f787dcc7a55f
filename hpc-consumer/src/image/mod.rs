//! `hpc-consumer image`: images that come from a registry, brought up to date, shown, and one step back.
//!
//! A registry is asked for the digest of what its tag names now ([`registry`]). If that is another image than the
//! stored one, it is pulled by this digest into a file aside, tried there as a pool's jobs would be begun in
//! it, and put in place whole; the one before stays beside it.
//!
//! Out of scope: the first pull of an image, which the daemon can do by itself (`run`).
//! Invariants: whatever fails, and whenever this process dies, the image is the one that it was, or the new one. One
//! process at a time changes an image. A run that has begun in an image keeps it.

mod registry;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use files::Versions;
use program::{Exit, Failure, OutputFormat, escaped, escaped_json, escaped_lines, say};
use protocol::{PoolName, Timestamp};
use serde::Serialize;
use site::{Image, Plan, Reference, Site, Which};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Place;
use crate::job::{self, ResultsDir};
use crate::run::{Credentials, Kit, Note, Notes, Pull, auth_file_of_apptainer};
use crate::store;

/// The version of the JSON.
const VERSION: u64 = 1;

/// What stands in a `.sif` file, and where.
const MAGIC: &[u8] = b"SIF_MAGIC";
const MAGIC_AT: u64 = 32;

/// The ending of a file that is on its way.
const ASIDE: &str = ".new";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Update,
    Status,
    Back,
}

/// What is asked for.
pub(crate) struct Asked {
    pub(crate) verb: Verb,
    pub(crate) pool: Option<PoolName>,
    pub(crate) format: OutputFormat,
    pub(crate) place: Place,
}

/// An image of a registry that has a file of its own here.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// Where it comes from, as somebody has written it.
    pull: String,
    /// The pools that use it.
    pools: Vec<PoolName>,
    /// What runs in it.
    plans: Vec<Plan>,
}

/// How an image is, or what was done. The fields of version 1 stay; others may come.
#[derive(Debug, Default, Serialize)]
struct Told {
    v: u64,
    image: PathBuf,
    reference: String,
    pools: Vec<PoolName>,
    state: State,
    /// The digest of what is here, and when it was pulled, if it was pulled by this command.
    stored: Option<String>,
    pulled_at: Option<Timestamp>,
    /// The digest of what the registry has now.
    registry: Option<String>,
    /// Is there one before it, and which?
    has_former: bool,
    former: Option<String>,
    /// Why something was not done, or is not known.
    problem: Option<String>,
    /// Was it ended by a signal?
    #[serde(skip)]
    interrupted: bool,
}

/// How the file is to what the registry has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is not there.
    Missing,
    /// It is the one that the registry has.
    Current,
    /// The registry has another one.
    Stale,
    /// Which one it is, or which one the registry has, is not known.
    #[default]
    Unknown,
    /// It has just become the one that the registry has.
    Updated,
    /// It has just become the one before.
    Back,
}

impl Asked {
    /// Does it.
    pub(crate) fn answer(self) -> anyhow::Result<Exit> {
        let targets = chosen(targets(&self.place.site)?, &self.place.site, self.pool.as_ref())?;
        if self.verb == Verb::Back && targets.len() > 1 {
            let paths: Vec<String> = targets.iter().map(|target| target.path.display().to_string()).collect();
            return Err(Failure::usage(format!(
                "there are several images, and only one goes back at a time: name a pool of it ({})",
                paths.join(", ")
            )));
        }
        let from_file = self.place.kit.from_file;
        let (format, verb) = (self.format, self.verb);
        let told = crate::reactor()?.block_on(self.all(targets))?;
        for told in &told {
            crate::print(&match format {
                OutputFormat::Text => escaped_lines(&told.text(verb, from_file)),
                OutputFormat::Json => escaped_json(&serde_json::to_string(told)?) + "\n",
            })?;
        }
        Ok(if told.iter().any(|told| told.interrupted) {
            Exit::Interrupted
        } else if told.iter().any(|told| told.problem.is_some()) {
            Exit::Unexpected
        } else {
            Exit::Ok
        })
    }

    async fn all(self, targets: Vec<Target>) -> anyhow::Result<Vec<Told>> {
        let Self { verb, place, .. } = self;
        let mut told = Vec::new();
        for target in targets {
            let outcome = match verb {
                Verb::Status => place.status(&target).await,
                Verb::Back => target.back(),
                Verb::Update => {
                    let aside = target.aside();
                    let outcome = tokio::select! {
                        outcome = place.update(&target, &aside) => outcome,
                        interrupted = interrupted() => interrupted.map(|()| Told {
                            problem: Some("it was interrupted".to_owned()),
                            interrupted: true,
                            ..target.look()
                        }).unwrap_or_else(|error| target.told(Err(format!("no signal can be listened to: {error}")))),
                    };
                    // Of a pull that has come to its end well, nothing is left here.
                    let _ = fs::remove_file(&aside);
                    outcome
                }
            };
            let is_end = outcome.interrupted;
            told.push(outcome);
            if is_end {
                break;
            }
        }
        Ok(told)
    }
}

/// Resolves when somebody wants this to end.
async fn interrupted() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// The images of a site that come from a registry and have files of their own.
fn targets(site: &Site) -> anyhow::Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for pool in site.pools.keys() {
        for plan in site.plans(pool) {
            let Some(Image::File { path, pull: Some(pull) }) = &plan.image else { continue };
            let target = match targets.iter_mut().find(|target| target.path == *path) {
                Some(target) => target,
                None => {
                    let (path, pull) = (path.clone(), pull.clone());
                    targets.push(Target { path, pull, pools: Vec::new(), plans: Vec::new() });
                    targets.last_mut().expect("one was just added")
                }
            };
            if target.pull != *pull {
                return Err(Failure::usage(format!(
                    "{} is to come from {} and from {pull}; give each image a file of its own",
                    path.display(),
                    target.pull
                )));
            }
            if !target.pools.contains(pool) {
                target.pools.push(pool.clone());
            }
            target.plans.push(plan);
        }
    }
    Ok(targets)
}

/// Those that are meant.
fn chosen(targets: Vec<Target>, site: &Site, pool: Option<&PoolName>) -> anyhow::Result<Vec<Target>> {
    let how = "a pool's image is brought up to date if the site's file says where it comes from, as `image = { file = \
               \"/path/to/it.sif\", pull = \"ghcr.io/OWNER/NAME:TAG\" }`, or the settings do, with APPTAINER_OCI_REF";
    if let Some(pool) = pool.filter(|pool| !site.pools.contains_key(*pool)) {
        let pools: Vec<&str> = site.pools.keys().map(PoolName::as_str).collect();
        return Err(Failure::usage(format!("there is no pool {pool}; there are: {}", pools.join(", "))));
    }
    let meant: Vec<Target> =
        targets.into_iter().filter(|target| pool.is_none_or(|pool| target.pools.contains(pool))).collect();
    if meant.is_empty() {
        let which = pool.map_or_else(|| "no pool".to_owned(), |pool| format!("the pool {pool} does not"));
        let has = if pool.is_some() { "have" } else { "has" };
        return Err(Failure::with(
            Exit::NotFound,
            format!("{which} {has} an image that can be brought up to date: {how}"),
        ));
    }
    Ok(meant)
}

impl Place {
    /// Who we are to this registry.
    fn credentials(&self, reference: &Reference) -> Result<Option<Credentials>, String> {
        let Kit { registry_auth, proxies, inherited, .. } = &self.kit;
        let named = registry_auth.clone().or_else(|| auth_file_of_apptainer(inherited));
        let of_file = named.map(|file| Credentials::read(&file, &reference.host)).transpose()?.flatten();
        Ok(of_file.or_else(|| Credentials::of(proxies)))
    }

    /// The digest of what the registry has now.
    async fn digest(&self, reference: &Reference) -> Result<String, String> {
        match &reference.which {
            Which::Digest(digest) => Ok(digest.clone()),
            Which::Tag(_) => registry::digest(reference, self.credentials(reference)?.as_ref()).await,
        }
    }

    async fn status(&self, target: &Target) -> Told {
        let mut told = target.look();
        let asked = match Reference::parse(&target.pull) {
            Ok(reference) => self.digest(&reference).await,
            Err(why) => Err(format!("{} {why}", target.pull)),
        };
        match asked {
            Ok(digest) => {
                told.state = match (told.state, &told.stored) {
                    (State::Missing, _) => State::Missing,
                    (_, None) => State::Unknown,
                    (_, Some(stored)) if *stored == digest => State::Current,
                    _ => State::Stale,
                };
                told.registry = Some(digest);
            }
            Err(problem) => told.problem = Some(problem),
        }
        told
    }

    async fn update(&self, target: &Target, aside: &Path) -> Told {
        target.told(self.try_update(target, aside).await)
    }

    async fn try_update(&self, target: &Target, aside: &Path) -> Result<State, String> {
        let Target { path, pull, .. } = target;
        let reference = Reference::parse(pull).map_err(|why| format!("{pull} {why}"))?;
        let _alone = lock(path)?;
        let cannot = |error: io::Error| format!("what is beside {} cannot be changed: {error}", path.display());
        let versions = Versions::of(path).map_err(cannot)?;
        versions.settle().map_err(cannot)?;
        files::remove_abandoned(path, ASIDE).map_err(cannot)?;
        let digest = self.digest(&reference).await?;
        let notes = Notes::read(path);
        if notes.of(path).is_some_and(|note| note.digest == digest) {
            return Ok(State::Current);
        }
        let from = reference.with_digest(&digest);
        say(&escaped(&format!("pulling {from}")));
        let mut environment = self.kit.inherited.clone();
        environment.extend(self.kit.proxies.iter().cloned());
        let credentials = self.credentials(&reference)?;
        let program = &self.kit.apptainer;
        let pull = Pull { program, from: &from, to: aside, environment, credentials };
        pull.run(|line| say(&escaped(line)))
            .await
            .map_err(|said| format!("apptainer could not pull {from}: {said}"))?;
        check_form(aside)?;
        // Nobody knows the file by that name.
        let named = |why: String| why.replace(&aside.display().to_string(), &from.to_string());
        self.probe(target, aside).await.map_err(named)?;
        let pulled_at = protocol::timestamp_from_millis(Timestamp::now().as_millisecond());
        notes.add(path, aside, reference.to_string(), digest, pulled_at).map_err(cannot)?;
        versions.put(aside).map_err(|error| format!("what was pulled cannot be put in place: {error}"))?;
        Ok(State::Updated)
    }

    /// Can jobs be begun in what was pulled, as far as a probe can tell, and are the programs in it that they run?
    async fn probe(&self, target: &Target, aside: &Path) -> Result<(), String> {
        store::make_private(&self.state_dir, &self.trust).map_err(|error| format!("{error:#}"))?;
        let results = ResultsDir::new(self.results_dir.clone()).trusting(self.trust);
        let scratch = crate::blocking(move || job::scratch(&results)).await?;
        // It gets its name only later, and what is unpacked belongs to a name.
        let kit = Kit { unpack_dir: None, ..self.kit.clone() };
        for plan in &target.plans {
            let image = Some(Image::File { path: aside.to_owned(), pull: None });
            let runtime = kit.runtime(&self.site, &Plan { image, ..plan.clone() });
            let tried = runtime.probe(&scratch).await;
            tried
                .map_err(|problem| format!("what was pulled does not run the jobs of pool {}: {problem}", plan.pool))?;
        }
        Ok(())
    }
}

impl Target {
    /// Where it is as long as it is on its way; nobody else has this name.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let ours = format!(".{name}.{}-{}-{:08x}{ASIDE}", crate::host(), std::process::id(), fastrand::u32(..));
        self.path.with_file_name(ours)
    }

    fn back(&self) -> Told {
        let back = || {
            let _alone = lock(&self.path)?;
            let versions = Versions::of(&self.path);
            let went = versions.and_then(|versions| versions.back());
            match went {
                Ok(true) => Ok(State::Back),
                Ok(false) => Err("there is none before it".to_owned()),
                Err(error) => Err(format!("the one before it cannot be put in its place: {error}")),
            }
        };
        self.told(back())
    }

    /// How the file is.
    fn look(&self) -> Told {
        let notes = Notes::read(&self.path);
        let note = notes.of(&self.path);
        let former = Versions::of(&self.path).ok().and_then(|versions| versions.former().map(Path::to_owned));
        let digest = |note: &Note| note.digest.clone();
        Told {
            v: VERSION,
            image: self.path.clone(),
            reference: Reference::parse(&self.pull).map_or_else(|_| self.pull.clone(), |read| read.to_string()),
            pools: self.pools.clone(),
            state: if self.path.exists() { State::Unknown } else { State::Missing },
            stored: note.map(digest),
            pulled_at: note.map(|note| note.pulled_at),
            has_former: former.is_some(),
            former: former.and_then(|former| notes.of(&former).map(digest)),
            ..Told::default()
        }
    }

    fn told(&self, outcome: Result<State, String>) -> Told {
        let looked = self.look();
        match outcome {
            Ok(state @ (State::Current | State::Updated)) => Told { state, registry: looked.stored.clone(), ..looked },
            Ok(state) => Told { state, ..looked },
            Err(problem) => Told { problem: Some(problem), ..looked },
        }
    }
}

impl Told {
    fn text(&self, verb: Verb, from_file: bool) -> String {
        let image = self.image.display();
        let digest =
            |digest: &Option<String>| digest.clone().unwrap_or_else(|| "one whose digest is not known".to_owned());
        let stays = match self.state {
            State::Missing => format!("{image} is still not there"),
            _ => format!("{image} stays as it is"),
        };
        let again = "`hpc-consumer image back` has the one before again";
        match (verb, &self.problem, self.state) {
            (Verb::Update | Verb::Back, Some(problem), _) => format!("{stays}: {problem}\n"),
            (Verb::Update, None, State::Current) => {
                format!("{image} is what {} names: {}\n", self.reference, digest(&self.stored))
            }
            (Verb::Update, None, _) => {
                let before =
                    if self.has_former { format!("; {again}, {}", digest(&self.former)) } else { String::new() };
                format!(
                    "{image} is now what {} names: {}; jobs that begin run in it, and those that run keep theirs{before}\n",
                    self.reference,
                    digest(&self.stored)
                )
            }
            (Verb::Back, None, _) => format!(
                "{image} is the one before again: {}; jobs that begin run in it, and those that run keep theirs; once more \
                 `back` takes that back\n",
                digest(&self.stored)
            ),
            (Verb::Status, ..) => self.status(from_file),
        }
    }

    fn status(&self, from_file: bool) -> String {
        let pools: Vec<&str> = self.pools.iter().map(PoolName::as_str).collect();
        let of = if from_file { format!(" (pools: {})", pools.join(", ")) } else { String::new() };
        let stored = match (&self.stored, self.pulled_at, self.state) {
            (_, _, State::Missing) => "not there; it is pulled when a job needs it, or by `image update`".to_owned(),
            (Some(digest), Some(at), _) => format!("{digest}, pulled {at}"),
            _ => "not known: it was not put there by `hpc-consumer image update`".to_owned(),
        };
        let registry = match (&self.registry, &self.problem, self.state) {
            (Some(digest), _, State::Current) => format!("{digest}, the same"),
            (Some(digest), _, _) => format!("{digest}; `hpc-consumer image update` gets it"),
            (None, problem, _) => format!("not known: {}", problem.as_deref().unwrap_or_default()),
        };
        let before = match (self.has_former, &self.former) {
            (false, _) => "none".to_owned(),
            (true, Some(digest)) => format!("{digest}; `hpc-consumer image back` has it again"),
            (true, None) => "there, its digest not known; `hpc-consumer image back` has it again".to_owned(),
        };
        format!(
            "{}{of}\n  from      {}\n  stored    {stored}\n  registry  {registry}\n  before    {before}\n",
            self.image.display(),
            self.reference
        )
    }
}

/// The right to change an image, for as long as this is open.
fn lock(image: &Path) -> Result<File, String> {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let path = image.with_file_name(format!(".{name}.lock"));
    let file = files::open_lock(&path).map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err("another `hpc-consumer image` is changing it".to_owned()),
        Err(TryLockError::Error(error)) => Err(format!(
            "{} cannot be locked ({error}); if its file system has no locks (Lustre is mounted so without the option \
             flock), have the image on another one",
            path.display()
        )),
    }
}

/// Is it a `.sif` file? A registry can have anything.
fn check_form(file: &Path) -> Result<(), String> {
    let read = || {
        let mut found = [0; MAGIC.len()];
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(MAGIC_AT))?;
        file.read_exact(&mut found)?;
        Ok::<_, io::Error>(found == *MAGIC)
    };
    match read() {
        Ok(true) => Ok(()),
        Ok(false) => Err("what was pulled is no .sif file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("what was pulled is no .sif file".to_owned()),
        Err(error) => Err(format!("what was pulled cannot be read: {error}")),
    }
}
