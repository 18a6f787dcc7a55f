//! The folder of an allocation: what the daemon orders, and what the keeper in the allocation tells of itself.
//!
//! ```text
//! order.json       what is to be done there; written by the daemon before the allocation is asked for
//! claim            which keeper does it: made once, by the first of however many come
//! card.json        who that is and where it listens
//! journal          which runs were begun, and how they ended
//! beat             that it lives, and how much it does
//! end              that it has ended by itself, and all is in its journal
//! stop             made by the daemon: to end as soon as nothing runs
//! end-JOB.ATTEMPT  made by the daemon: to end this run
//! caller-KEY       made by the daemon for as long as it connects: that who has this key is the daemon
//! closed           made by the daemon: nothing that still happens there counts, so that all is to be ended; and what
//!                  is known of how it came to that
//! keeper.log       what it has to tell a person
//! ```
//!
//! Daemon and keeper are on different machines. All of this is read by names that were not there before, or that are
//! put in place whole; the clocks of the two are never compared.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use files::{Creator, Durability};
use lifecycle::{EndReason, Run};
use protocol::{PoolName, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slurm::fleet::Closed;

use super::client::{Said, named};
use super::finished::Why;
use super::folder::{Folder, Origin};
use super::journal;
use super::link::push_line;
use super::messages::{Runs, Settings, Start, Word, to_ms};
use crate::job::StartLine;
use crate::run::{self, FirstProcess, Leftover};

/// The version of `order.json`.
const ORDER_VERSION: u32 = 1;

/// No file here is larger.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long before the end of the allocation the last run begins.
const MARGIN: Duration = Duration::from_secs(120);

/// How long runs may take to end when the allocation is ended. Slurm leaves half a minute, where a site says nothing.
const LEAVE: Duration = Duration::from_secs(20);

const ORDER: &str = "order.json";
const CLAIM: &str = "claim";
const BEAT: &str = "beat";
const END: &str = "end";
const STOP: &str = "stop";
const CLOSED: &str = "closed";
const END_RUN: &str = "end-";
const CALLER: &str = "caller-";

/// What is to be done in an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OrderText", into = "OrderText")]
pub(crate) struct Order {
    /// The name of the allocation, as Slurm has it.
    pub(crate) name: String,
    pub(crate) pool: PoolName,
    pub(crate) work: Work,
    pub(crate) settings: Settings,
    /// The program to ask for the time that is left where the allocation does not tell.
    pub(crate) squeue: Option<PathBuf>,
    /// How long before the end of the allocation the last run begins.
    pub(crate) margin: Duration,
    /// How long runs may take to end when the allocation is ended.
    pub(crate) leave: Duration,
    /// Where the daemon is that wrote this.
    pub(super) daemon: Origin,
}

/// What the keeper of an allocation has runs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// The daemon, over a connection: at most so many at a time, until there was none for so long.
    Worker { slots: u32, idle: Duration },
    /// This order: one run, and no connection.
    Once(Box<Once>),
}

/// The run of an allocation that is for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Once(pub(super) Start);

impl Once {
    #[cfg(test)]
    pub(super) fn run(&self) -> &str {
        &self.0.run
    }
}

/// An order as it is written.
#[derive(Serialize, Deserialize)]
struct OrderText {
    v: u32,
    name: String,
    pool: PoolName,
    #[serde(flatten)]
    work: WorkText,
    settings: Settings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    squeue: Option<Word>,
    margin_ms: u64,
    leave_ms: u64,
    daemon: Origin,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WorkText {
    Worker { slots: u32, idle_ms: u64 },
    Once(Box<Start>),
}

/// Which keeper does what is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Its job in Slurm. An id may come a second time.
    pub(crate) slurm_job_id: Option<String>,
    /// The node that it is on; the first one, if there are several.
    pub(crate) node: String,
    pub(crate) boot_id: String,
    pub(crate) pid: u32,
    /// By the clock of the node.
    pub(crate) since: Timestamp,
}

/// What the keeper of an allocation tells again and again. That it changes tells that the keeper lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// By the clock of the node.
    pub(crate) at_ms: i64,
    /// How many runs go on.
    pub(crate) running: usize,
    /// Does it take no further run?
    pub(crate) stopping: bool,
    /// When the allocation ends, by the clock of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ends_at_ms: Option<i64>,
}

/// That a keeper has ended by itself: its journal has all of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanEnd {
    pub(crate) at_ms: i64,
    /// In words for a person.
    pub(crate) why: String,
}

/// What an allocation has, as it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capacity {
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
    /// Its GPUs as programs there call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gpus: Vec<String>,
}

/// What the files say of an allocation. What cannot be read is an error, and tells nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Which keeper has begun, if one has.
    pub(crate) claim: Option<Claim>,
    /// Does it say where it listens?
    pub(crate) listens: bool,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) beat: Option<Beat>,
    /// Has it ended by itself?
    pub(crate) end: Option<CleanEnd>,
    /// Is it gone, for sure: it was on this machine, and is not there any more?
    pub(crate) gone: bool,
    /// Was all that is left of it taken over ([`left`])?
    pub(crate) closed: Option<Closed>,
}

impl Claim {
    /// Is who claimed it gone, for sure? It was on this machine since that was started, where nobody has its lock: it
    /// takes that after its claim, and before its first beat.
    fn is_gone(&self, folder: &Folder, beat: Option<&Beat>) -> bool {
        let is_of_here = !self.boot_id.is_empty() && self.boot_id == Origin::here().boot_id;
        is_of_here && beat.is_some() && !folder.lives() && folder.is_locked().is_ok_and(|locked| !locked)
    }
}

impl Beat {
    /// How much time the allocation had left at this beat, where that is known.
    pub(crate) fn left(&self) -> Option<Duration> {
        let ms = self.ends_at_ms?.saturating_sub(self.at_ms);
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
    }
}

impl Order {
    /// For a worker, which ends when it had nothing to do for as long as `idle`.
    pub(crate) fn worker(name: String, pool: PoolName, slots: u32, idle: Duration, settings: Settings) -> Self {
        Self::new(name, pool, Work::Worker { slots, idle }, settings)
    }

    /// For an allocation that is for this run alone.
    pub(crate) fn once(name: String, pool: PoolName, line: StartLine, settings: Settings) -> Self {
        Self::new(name, pool, Work::Once(Box::new(Once(Start::from(line)))), settings)
    }

    fn new(name: String, pool: PoolName, work: Work, settings: Settings) -> Self {
        let daemon = Origin::here();
        Self { name, pool, work, settings, squeue: None, margin: MARGIN, leave: LEAVE, daemon }
    }

    /// Writes it into the folder, which is made if need be. When this returns, it is there for good.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        files::own_dir(folder)
            .and_then(|()| put(folder, ORDER, self, Durability::Named))
            .with_context(|| format!("{} cannot be written", folder.join(ORDER).display()))
    }

    /// Reads it.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let path = folder.join(ORDER);
        let text =
            files::read_own_text(&path, BYTES_MAX).with_context(|| format!("{} cannot be read", path.display()))?;
        let damaged = || format!("{} is damaged", path.display());
        let Version { v } = serde_json::from_str(&text).with_context(damaged)?;
        if v > ORDER_VERSION {
            bail!(
                "{} is of version {v}, and this hpc-consumer {} knows versions up to {ORDER_VERSION}: a newer daemon has \
                 written it; have the program of the daemon be the one that its allocations run",
                path.display(),
                env!("CARGO_PKG_VERSION")
            );
        }
        serde_json::from_str(&text).with_context(damaged)
    }
}

impl From<Order> for OrderText {
    fn from(order: Order) -> Self {
        let Order { name, pool, work, settings, squeue, margin, leave, daemon } = order;
        let work = match work {
            Work::Worker { slots, idle } => WorkText::Worker { slots, idle_ms: to_ms(idle) },
            Work::Once(once) => WorkText::Once(Box::new(once.0)),
        };
        let squeue = squeue.map(|path| path.into_os_string().into());
        let (margin_ms, leave_ms) = (to_ms(margin), to_ms(leave));
        Self { v: ORDER_VERSION, name, pool, work, settings, squeue, margin_ms, leave_ms, daemon }
    }
}

impl From<OrderText> for Order {
    fn from(text: OrderText) -> Self {
        let OrderText { v: _, name, pool, work, settings, squeue, margin_ms, leave_ms, daemon } = text;
        let work = match work {
            WorkText::Worker { slots, idle_ms } => Work::Worker { slots, idle: Duration::from_millis(idle_ms) },
            WorkText::Once(start) => Work::Once(Box::new(Once(*start))),
        };
        let squeue = squeue.map(|path| std::ffi::OsString::from(path).into());
        let (margin, leave) = (Duration::from_millis(margin_ms), Duration::from_millis(leave_ms));
        Self { name, pool, work, settings, squeue, margin, leave, daemon }
    }
}

/// What the files say.
pub(crate) fn look(folder: &Path) -> io::Result<Look> {
    let folder = Folder::of_allocation(folder);
    let card = folder.card_if_any()?;
    let (claim, beat) = (claimed_by(folder.path())?, get(folder.path(), BEAT)?);
    Ok(Look {
        gone: claim.as_ref().is_some_and(|claim| claim.is_gone(&folder, beat.as_ref())),
        claim,
        listens: card.as_ref().is_some_and(|card| card.network.is_some()),
        capacity: card.and_then(|card| card.capacity),
        beat,
        end: get(folder.path(), END)?,
        closed: closed(folder.path())?,
    })
}

/// All runs of an allocation whose keeper is gone, as Slurm says it; those that have not ended are cut off, and `what`
/// says by what. From then on no keeper begins anything there, and one that lives after all ends what it has.
///
/// An error where a keeper still has the lock: then nothing is known.
pub(crate) async fn left(folder: &Path, what: &str, closed: Closed) -> anyhow::Result<Said> {
    let (folder, what) = (Folder::of_allocation(folder), what.to_owned());
    let Left { runs, leftovers, dead } = crate::blocking(move || Left::take(&folder, &what, &closed)).await?;
    // Slurm ends what is left of an allocation, if it can find it. On this machine we can as well.
    run::kill_leftovers(&leftovers, dead).await;
    Ok(Said::Runs {
        alive: Vec::new(),
        ended: runs.ended.into_iter().filter_map(|(run, end)| Some((named(&run)?, end))).collect(),
        cut_off: runs.cut_off.into_iter().filter_map(|(run, what)| Some((named(&run)?, what))).collect(),
        complete: runs.complete,
    })
}

/// What is left of an allocation.
struct Left {
    runs: Runs,
    leftovers: Vec<Leftover>,
    dead: Option<FirstProcess>,
}

impl Left {
    fn take(folder: &Folder, what: &str, closed: &Closed) -> anyhow::Result<Self> {
        let path = folder.path();
        // The lock of a keeper on another machine is not seen everywhere, which is what the mark is for.
        let Some(_lock) = folder.lock()?.filter(|_| !folder.lives()) else {
            bail!("the keeper of the allocation with the folder {} still lives", path.display());
        };
        put(path, CLOSED, closed, Durability::Named)
            .and_then(|()| claim(path, None))
            .with_context(|| format!("the folder {} of an allocation that is over cannot be closed", path.display()))?;
        let here = Origin::here();
        let claim = claimed_by(path)?;
        let (was_clean, order) = (exists(path, END)?, Order::read(path).ok());
        let was_here = claim.as_ref().is_some_and(|claim| claim.boot_id == here.boot_id && !claim.boot_id.is_empty());
        // Nothing is missing in what was written by a process of this boot, or was synced.
        let lasts = |order: &Order| claim.as_ref().is_none_or(|claim| order.daemon.boot_id != claim.boot_id);
        let whole = was_clean || was_here || order.as_ref().is_some_and(lasts);
        let mut roster = journal::read(&folder.journal())?;
        let leftovers = roster.cut_off(what, was_here);
        let mut runs = roster.runs();
        runs.complete &= whole;
        let (leftovers, dead) = if was_here { (leftovers, folder.dead_keeper(&here)) } else { (Vec::new(), None) };
        Ok(Self { runs, leftovers, dead })
    }
}

/// Claims the folder, for this keeper or for none; `false` if it is claimed already.
pub(super) fn claim(folder: &Path, by: Option<&Claim>) -> io::Result<bool> {
    let text = to_text(&by);
    Creator::new(folder.to_owned()).create(&folder.join(CLAIM), &text, Durability::Named)
}

/// Who has claimed it.
pub(super) fn claimed_by(folder: &Path) -> io::Result<Option<Claim>> {
    Ok(get::<Option<Claim>>(folder, CLAIM)?.flatten())
}

/// What was known of its end when all that is left of it was taken over, if that was done.
fn closed(folder: &Path) -> io::Result<Option<Closed>> {
    match files::read_own(&folder.join(CLOSED), BYTES_MAX) {
        // Earlier versions wrote nothing there, and a later one may know other ends.
        Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Was all that is left of it taken over?
pub(super) fn is_closed(folder: &Path) -> io::Result<bool> {
    exists(folder, CLOSED)
}

pub(super) fn write_beat(folder: &Path, beat: &Beat) -> io::Result<()> {
    put(folder, BEAT, beat, Durability::Cached)
}

/// Writes that the keeper ends by itself, for this reason, and that its journal has all that there is to know.
pub(super) fn write_end(folder: &Path, why: &str) -> io::Result<()> {
    let end = CleanEnd { at_ms: Timestamp::now().as_millisecond(), why: why.to_owned() };
    put(folder, END, &end, Durability::Named)
}

/// What a keeper is told by a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noticed {
    /// To end as soon as nothing runs.
    Stop,
    /// That nothing that still happens counts.
    Closed,
    /// To end a run.
    End(String, EndReason),
}

/// What the file of this name tells, if it tells anything.
pub(super) fn noticed(folder: &Path, name: &str) -> Option<Noticed> {
    match name {
        STOP => Some(Noticed::Stop),
        CLOSED => Some(Noticed::Closed),
        _ => {
            let run = name.strip_prefix(END_RUN)?;
            // It is put in place whole.
            let why: Why = get(folder, name).ok().flatten().unwrap_or_default();
            Some(Noticed::End(run.to_owned(), why.0))
        }
    }
}

/// Has the keeper there end as soon as nothing runs.
pub(crate) fn stop(folder: &Path) -> io::Result<()> {
    put(folder, STOP, &(), Durability::Cached)
}

/// Has the keeper there end a run.
pub(crate) fn end_run(folder: &Path, run: &Run, why: EndReason) -> io::Result<()> {
    put(folder, &format!("{END_RUN}{run}"), &Why(why), Durability::Cached)
}

/// Makes it known that who has this public key is the daemon. Nobody else writes here; each key has a name of its own,
/// because of one that was looked for before, a network file system may say for a while what was so then.
pub(super) fn announce(folder: &Path, key: &[u8]) -> io::Result<()> {
    put(folder, &caller(key), &(), Durability::Cached)
}

/// It has connected, or it has not.
pub(super) fn retract(folder: &Path, key: &[u8]) {
    // What stays is of no use to anybody: the private part of the key is gone.
    let _ = std::fs::remove_file(folder.join(caller(key)));
}

/// Is who has this public key the daemon?
pub(super) fn is_announced(folder: &Path, key: &[u8]) -> bool {
    files::read_own(&folder.join(caller(key)), BYTES_MAX).is_ok()
}

fn caller(key: &[u8]) -> String {
    format!("{CALLER}{}", protocol::Digest::new(Sha256::digest(key).into()))
}

/// Puts a value in place of another.
fn put<T: Serialize>(folder: &Path, name: &str, value: &T, durability: Durability) -> io::Result<()> {
    files::replace(&folder.join(name), &to_text(value), durability).map(drop)
}

fn to_text<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = Vec::new();
    push_line(&mut text, value);
    text
}

/// Reads a value, if there is one.
fn get<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Option<T>> {
    match files::read_own(&folder.join(name), BYTES_MAX) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(folder: &Path, name: &str) -> io::Result<bool> {
    match folder.join(name).symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
