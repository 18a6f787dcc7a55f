//! One run: start the command, keep what it prints, end it when its time is over, and wait until all of it is gone.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::EndReason;
use protocol::{MemoryLimit, RuntimeKind, Timestamp, Usage, size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use super::begin::Begin;
use super::children::{self, Known};
use super::ended::{Ended, Finished};
use super::ending::{Cause, Ending, Event, Order};
use super::group::Group;
use super::helpers::Helpers;
use super::isolation::with_facts;
use super::kit::with_version;
use super::log_file::{Logs, Tails};
use super::memory;
use super::proc::FirstProcess;
use super::processors::Processors;
use super::scratch::Scratch;
use super::secrets::Secrets;
use super::serving;
use super::starter::{Begun, started};
use super::token::Token;
use super::tree::Tree;
use super::usage::{CpuTime, PeakMemory};
use super::{CommandLine, Limits, Wrapping};

/// How many files and pipes the process needs by itself, and how many for each run.
const DESCRIPTORS_OWN: u64 = 64;
const DESCRIPTORS_PER_RUN: u64 = 10;

/// Makes sure that so many runs at the same time do not pass the number of files that a process may have open.
///
/// What the process may have by default stays as it is for as long as it is enough: runs inherit it.
pub(crate) fn make_room(runs: usize) {
    let needed = (DESCRIPTORS_OWN + DESCRIPTORS_PER_RUN * runs as u64).next_power_of_two();
    let limit = getrlimit(Resource::Nofile);
    let needed = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if limit.current.is_some_and(|current| current < needed) {
        // A failure is met, and told, by the run that cannot be started for it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum });
    }
}

/// Tells a run to end.
pub(crate) type Stop = watch::Receiver<Option<Told>>;

/// What a run is told that is to end. It may be told again, with less time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Within this time.
    pub(crate) grace: Duration,
    /// The first reason is the one that counts.
    pub(crate) why: EndReason,
}

/// The directory of a job: where it is, and the directory itself, held open.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
}

/// Runs a command to its end, with its logs in its job directory. `begun` is called once it is started.
pub(crate) async fn run(
    mut command: CommandLine,
    token: Token,
    wrapping: Wrapping,
    place: Place,
    limits: &Limits,
    begun: impl FnOnce(FirstProcess),
    stop: Stop,
) -> Finished {
    let kills_before = memory::kills();
    let directory = Arc::new(place.directory);
    let Wrapping { runtime, image, hook, confinement, isolation, secrets, mut launched, seen } = wrapping;
    let secrets = match Secrets::read(&secrets) {
        Ok(secrets) => secrets,
        Err(problem) => return Finished::not_started(problem),
    };
    command.environment.extend(secrets.environment(runtime));
    if let Some(launched) = &mut launched
        && let Some(image) = launched.image.as_deref().and_then(with_version)
    {
        launched.image = Some(image);
    }
    // Held until nothing of it is alive any more.
    let processors = match limits.processors.map(Processors::take).transpose() {
        Ok(processors) => processors,
        Err(problem) => return Finished::not_started(problem),
    };
    let mut wrapped = None;
    if runtime == RuntimeKind::Apptainer {
        match Wrapped::make(directory.clone(), &place.path, hook, &mut command.words) {
            Ok(made) => wrapped = Some(made),
            Err(error) => {
                let place = place.path.display();
                return Finished::not_started(format!("the scratch of the run cannot be made in {place}: {error}"));
            }
        }
    }
    let image_before = image.as_deref().and_then(ImageFile::look);
    let kept_to = processors.as_ref().map(Processors::numbers);
    let group = limits.memory.and_then(Group::with_limit);
    let (command, started) = started(command, token, confinement, kept_to, group, directory.clone()).await;
    let Begun { mut child, known, facts, group } = match started {
        Ok(started) => started,
        Err(error) => {
            if let Some(wrapped) = wrapped {
                wrapped.scratch.remove().await;
            }
            return Finished::not_started(why_not_started(&command, &error));
        }
    };
    let started_at_ms = now_ms();
    // A thousand of them would be held for as long as the runs take.
    drop(command);
    let tree = Tree::of(&child, token, runtime == RuntimeKind::Apptainer);
    let group = group.and_then(|(group, taken)| match taken {
        Ok(()) => Some(group),
        Err(error) => {
            tracing::warn!("a watch looks at the memory of a run, which its group has not taken in: {error}");
            None
        }
    });
    let watched = limits.memory.filter(|_| group.is_none());
    begun(tree.first());
    // Few runs serve others.
    let over = serving::Over::default();
    let is_served = seen.is_some();
    let served = seen.map(|file| Box::pin(serving::watch(file, over.clone(), directory.clone(), tree.first(), token)));
    let served = async {
        match served {
            Some(served) => served.await,
            None => std::future::pending().await,
        }
    };
    let logs = Logs::keep(&mut child, directory, limits.log_bytes);
    let mut helpers = Helpers::new(runtime == RuntimeKind::Apptainer);
    let (ended, usage) = tokio::select! {
        biased;
        ended = end(child, known, tree, limits, watched, stop, &mut helpers) => ended,
        never = served => match never {},
    };
    if is_served {
        over.set().await;
    }
    drop(processors);
    let ended = ended.looked_at_closely(runtime, || match &group {
        Some(group) => group.killed().map(Some),
        None => memory::kills().zip(kills_before).is_some_and(|(now, before)| now > before).then_some(None),
    });
    let held_by = limits.memory.map(|_| if group.is_some() { MemoryLimit::Cgroup } else { MemoryLimit::Watch });
    drop(group);
    let Tails { stdout, stderr } = logs.tails(&secrets).await;
    let mut began = Some(true);
    if let Some(Wrapped { scratch, begin }) = wrapped {
        began = begin.and_then(|begin| begin.has_begun().ok());
        scratch.remove().await;
    }
    let was_written_to = image_before.zip(image).is_some_and(|(before, image)| before.was_written_to(&image));
    let image_lost = was_written_to || helpers.lost();
    // The clock may have been set back meanwhile.
    let finished_at_ms = now_ms().max(started_at_ms);
    let isolation = Some(with_facts(isolation, facts, runtime == RuntimeKind::Bare, held_by));
    let runtime = Some(runtime);
    let (stdout_tail, stderr_tail) = (stdout, stderr);
    Finished {
        ended,
        stdout_tail,
        stderr_tail,
        started_at_ms,
        finished_at_ms,
        runtime,
        began,
        image_lost,
        isolation,
        launched,
        ran: None,
        usage,
    }
}

/// What a run in a container has besides its process.
struct Wrapped {
    scratch: Scratch,
    begin: Option<Begin>,
}

impl Wrapped {
    fn make(directory: Arc<OwnedFd>, path: &Path, hook: bool, words: &mut Vec<OsString>) -> io::Result<Self> {
        let scratch = Scratch::make(directory, path, words)?;
        let begin = if hook { Some(scratch.begin(path, "", words)?) } else { None };
        Ok(Self { scratch, begin })
    }
}

/// An image file as it was at one moment. One that took its place is another file: what runs goes on with the old one.
#[derive(PartialEq, Eq)]
struct ImageFile {
    file: (u64, u64),
    content: (u64, i64, i64),
}

impl ImageFile {
    /// None if it is no file, or cannot be looked at.
    fn look(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(Metadata::is_file)?;
        let content = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        Some(Self { file: (metadata.dev(), metadata.ino()), content })
    }

    fn was_written_to(&self, path: &Path) -> bool {
        Self::look(path).is_some_and(|now| now.file == self.file && now.content != self.content)
    }
}

/// Sees a run to its end, as [`Ending`] decides. When this returns, no process of it that can be found is alive.
async fn end(
    mut child: Child,
    known: Known,
    mut tree: Tree,
    limits: &Limits,
    watched: Option<u64>,
    mut stop: Stop,
    helpers: &mut Helpers,
) -> (Ended, Option<Usage>) {
    let begin = Instant::now();
    let (mut cpu_time, mut memory) = (CpuTime::of(tree.first()), PeakMemory::of(tree.first()));
    let mut ending = Ending::new(limits.time, limits.grace, limits.warning);
    let (mut known, mut status, mut passed) = (Some(known), None, None);
    let mut watch = tree.watch(watched);
    let mut told = Told { grace: Duration::MAX, why: EndReason::Unsaid };
    loop {
        let event = tokio::select! {
            waited = async { cpu_time.learn().await; child.wait().await }, if status.is_none() => {
                tree.first_has_ended();
                known = None;
                status = Some(waited);
                Event::FirstEnded
            }
            less = told_less(&mut stop, told.grace) => {
                told = less;
                Event::Told(less.grace)
            }
            used = watch.passed(), if passed.is_none() => {
                // Its end may have another reason already, of which this is a part.
                passed = Some(used).filter(|_| ending.cause().is_none());
                told = Told { grace: Duration::ZERO, ..told };
                Event::Told(Duration::ZERO)
            }
            () = memory.look(), if status.is_none() => continue,
            turn = helpers.next(), if status.is_none() => {
                helpers.take(turn, &tree.look());
                continue;
            }
            () = sleep_until(ending.wake_at().and_then(|at| begin.checked_add(at))) => Event::Time,
        };
        perform(&mut ending, &mut tree, event, begin);
        if ending.is_over() {
            break;
        }
    }
    drop(known);
    let unknown = tree.unknown();
    if !unknown.is_empty() && children::any_known() {
        tracing::warn!(
            "processes are left of which nothing tells whose they are: {unknown:?}; they are ended with the last run that goes on"
        );
    }
    let usage = Usage {
        cpu_time_ms: cpu_time.used().map(|used| u64::try_from(used.as_millis()).unwrap_or(u64::MAX)),
        memory_bytes: memory.bytes(),
        source: None,
    };
    let ended = match (ending.cause(), status) {
        (Some(Cause::TimeLimit), _) => Ended::TimeLimit,
        (Some(Cause::Told), _) if passed.is_some() => Ended::MemoryLimit(passed.zip(watched).map(by_a_watch)),
        (Some(Cause::Told), _) => Ended::Stopped(told.why),
        (None, Some(Ok(status))) => Ended::of(status),
        // It was begun: to say that it was not would have it begun a second time.
        (None, Some(Err(error))) => Ended::CutOff(format!("the end of its process cannot be seen: {error}")),
        (None, None) => unreachable!("a run that nobody ended is over once its first process is"),
    };
    (ended, usage.known())
}

/// What a watch has seen: how much a run used, and how much it may use.
fn by_a_watch((used, limit): (u64, u64)) -> String {
    format!(
        "its processes used {} of memory and may use {}, as a watch saw that looks once a second",
        // Whole ones of a unit that people know.
        size::shown(used.next_multiple_of(1 << 20)),
        size::shown(limit)
    )
}

/// Does what follows from an event.
fn perform(ending: &mut Ending, tree: &mut Tree, event: Event, begin: Instant) {
    let mut next = Some(event);
    while let Some(event) = next.take() {
        for order in ending.step(event, begin.elapsed()) {
            match order {
                // It is the last of its orders.
                Order::Look => next = Some(Event::Seen(tree.look())),
                Order::Signal(signal, pids) => tree.signal(signal, &pids),
                Order::Say(pids) => tracing::warn!("processes of a run do not end although they were killed: {pids:?}"),
            }
        }
    }
}

pub(super) fn start(command: &CommandLine) -> io::Result<Child> {
    let Some((program, arguments)) = command.words.split_first() else {
        return Err(io::Error::other("the command has no words"));
    };
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An own process group: a signal to the keeper's group leaves its runs alone.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn why_not_started(command: &CommandLine, error: &io::Error) -> String {
    // The same error comes for both.
    if !command.directory.is_dir() {
        return format!("the job directory {} is not there: {error}", command.directory.display());
    }
    let program = command.words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    format!("the program {program} of the runtime cannot be started: {error}")
}

/// Resolves when the run is told to end within less than this time.
async fn told_less(stop: &mut Stop, than: Duration) -> Told {
    let told = stop.wait_for(|told| told.is_some_and(|told| told.grace < than)).await.ok().and_then(|told| *told);
    match told {
        Some(told) => told,
        // Nobody can tell it any more.
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        // The end of time.
        None => std::future::pending().await,
    }
}

pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
