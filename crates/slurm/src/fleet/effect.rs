//! What is to be done, and what there is to say to the person who reads the log.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lifecycle::{EndReason, Room, Run};
use protocol::PoolName;
use scaling::Logged;

use super::allocation::{Closed, Kind, Place};
use crate::{Element, Shape};

/// An allocation that is to be asked for, as it is to stand on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// What is begun in it.
    pub kind: Kind,
    /// What it takes of the quota.
    pub cost: scaling::Amount,
    /// Is it for a job that asks for more than one that asks for nothing gets? Then it is that job's own matter if
    /// Slurm can never give so much.
    pub asks_more: bool,
}

/// Everything that is to be done. Where nothing else is said, nothing is heard of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the folders of these with their orders, which are on disk when this is done; then
    /// [`super::Fleet::recorded`].
    Record {
        /// The submission that they are of.
        job: String,
        /// All of it.
        orders: Vec<Order>,
    },
    /// Ask Slurm for so many allocations under this name; then [`super::Fleet::answered`].
    Submit {
        /// The name.
        job: String,
        /// How many.
        count: u32,
        /// For which pool.
        pool: PoolName,
        /// What each has.
        shape: Shape,
    },
    /// Write down what Slurm says of an allocation. It need not be on disk.
    Note {
        /// The allocation.
        name: String,
        /// What Slurm calls it.
        element: Element,
        /// See [`super::Found::hopeless_since`].
        hopeless_since: Option<Duration>,
        /// See [`super::Found::refused`].
        refused: Option<String>,
    },
    /// Ask Slurm for all that is ours, and the accounting for these; then [`super::Fleet::listed`].
    List {
        /// The names of submissions.
        records_of: Vec<String>,
    },
    /// Have Slurm end what still has this id and this name. Of an array this is said only when a listing has just shown
    /// one by both: no request of Slurm means one of an array by its name.
    Cancel {
        /// The name of the submission.
        job: String,
        /// The id.
        element: Element,
    },
    /// Look into the folders of these; then [`super::Fleet::looked`].
    Look(Vec<String>),
    /// Reach the keeper of a worker: [`super::Fleet::connected`] is told what it says first, then how runs end, and
    /// [`super::Fleet::disconnected`] when it says no more.
    Connect(String),
    /// Write down the runs of a worker, all of them; then [`super::Fleet::placed`].
    Place(String, BTreeMap<Run, Place>),
    /// Have the keeper of a worker begin a run, with these GPUs of it.
    Start {
        /// The worker.
        name: String,
        /// The run.
        run: Run,
        /// The GPUs, counted from 0.
        gpus: Vec<u32>,
    },
    /// Have a run ended that is, or may be, in this allocation.
    End {
        /// The allocation.
        name: String,
        /// The run.
        run: Run,
        /// Why.
        why: EndReason,
    },
    /// Have the keeper of a worker forget runs.
    Forget(String, Vec<Run>),
    /// Have the keeper of a worker end as soon as nothing runs.
    Stop(String),
    /// See to it that nothing more begins in an allocation, which is over, and read what it left; then
    /// [`super::Fleet::closed`].
    Close {
        /// Which.
        name: String,
        /// What is to be said of runs that were cut off.
        what: String,
        /// What is known of its end, for the next daemon, should this one not get further.
        closed: Closed,
    },
    /// Remove its folder.
    Remove(String),
    /// Tell the daemon that a run has ended.
    Ended(Run),
    /// Tell the daemon that a run is gone, and nobody saw how it ended.
    CutOff(Run, String),
    /// Tell the daemon that a run will begin nowhere: Slurm refuses what its job asks for.
    Rejected(Run, String),
    /// Tell the daemon what a run waits for, or that it waits no more.
    Waits(Run, Option<String>),
    /// Tell the daemon what a pool has.
    Room(PoolName, Room),
    /// Tell the daemon that nothing more can begin in a pool.
    Broken(PoolName, String),
    /// Runs that were handed over are not there any more, and are to be handed over again: tell the daemon all runs.
    Observe,
    /// Write down what was decided, and of what.
    Log(Box<Logged>),
    /// Tell the person who reads the log.
    Say(Notice),
}

/// What a person should know.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Allocations are asked for, or workers end; the text says why.
    Scaled(String),
    /// The folder of an allocation cannot be made.
    CannotRecord(String),
    /// A submission was refused.
    Refused(PoolName, String),
    /// A submission was refused because of what its job asks for.
    AsksTooMuch(Run, String),
    /// A submission was refused for the moment.
    NotNow(PoolName, String),
    /// Nobody knows whether a submission arrived.
    Unclear(String, String),
    /// Slurm does not answer.
    Away(String),
    /// It answers again.
    Back,
    /// Something has a name of ours and is in no record.
    Nobodys(String, Element),
    /// An allocation has ended otherwise than it should.
    Ended {
        /// Its name.
        name: String,
        /// What Slurm calls it.
        element: Option<Element>,
        /// How.
        what: String,
        /// Nobody has begun there.
        unclaimed: bool,
    },
    /// An allocation runs, and nobody has begun there.
    Unclaimed(String, Option<Element>, String),
    /// The keeper of a worker on these nodes was never reached, and that was tried several times.
    Unreached(String, String, String),
    /// What an allocation left cannot be read.
    CannotClose(String, String),
    /// An allocation waits for what no time changes.
    Hopeless(PoolName, String),
    /// One for a single job does so, and the others of its pool go on.
    Aside(PoolName, String),
}

/// What to look at where nobody begins in an allocation that runs.
const CANARY: &str = "most often STATE_DIR is not on a file system that the compute nodes share, or the program is not; put both \
     where the nodes see them under the same path, or look into slurm.out in the folder of the allocation";

/// What to do where nobody reaches a worker.
pub(super) const UNREACHED: &str = "workers need a daemon that reaches their nodes on any port: run it where that is so, or let each job of the pool have \
     its own allocation (`once = true`), which needs no connection";

impl Notice {
    /// Is it something to be looked at?
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Scaled(_) | Self::Back)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |element: &Option<Element>| element.map(|id| format!(" (Slurm job {id})")).unwrap_or_default();
        match self {
            Self::Scaled(what) => f.write_str(what),
            Self::CannotRecord(why) => {
                write!(f, "no allocation can be asked for, because its folder cannot be made: {why}")
            }
            Self::Refused(pool, why) => write!(
                f,
                "Slurm refuses allocations for the pool {pool}, which is tried again with growing pauses; correct \
                 `pool.{pool}.slurm` in the site's file if need be: {why}"
            ),
            Self::AsksTooMuch(run, why) => write!(f, "the job {} is rejected: {why}", run.job_id),
            Self::NotNow(pool, why) => {
                write!(f, "Slurm takes no allocation for the pool {pool} now, which is tried again: {why}")
            }
            Self::Unclear(job, why) => write!(
                f,
                "whether the allocation {job} was submitted is not known; it is looked for by its name before another one is \
                 asked for: {why}"
            ),
            Self::Away(why) => write!(
                f,
                "Slurm does not answer; what runs goes on, nothing is submitted until it does, and nothing is concluded: {why}"
            ),
            Self::Back => f.write_str("Slurm answers again"),
            Self::Nobodys(name, element) => write!(
                f,
                "the Slurm job {element} is called {name}, as allocations of this daemon are, and is in no record; it is \
                 cancelled"
            ),
            Self::Ended { name, element: _, what, unclaimed: false } => write!(f, "{what}; it was called {name}"),
            Self::Ended { name, element: _, what, unclaimed: true } => {
                write!(f, "{what}, and nothing has begun in it; it was called {name}; {CANARY}")
            }
            Self::Unclaimed(name, element, nodes) => {
                write!(f, "the allocation {name}{} runs on {nodes} and its keeper has not begun; {CANARY}", id(element))
            }
            Self::Unreached(name, nodes, why) => write!(
                f,
                "the keeper of the allocation {name} on {nodes} cannot be reached from here, which is tried again, and until \
                 then it has nothing to do: {why}; {UNREACHED}"
            ),
            Self::CannotClose(name, why) => write!(
                f,
                "what the allocation {name} has left cannot be read, which is tried again; until then its jobs count as \
                 running: {why}"
            ),
            Self::Hopeless(pool, why) => write!(f, "the pool {pool} is paused: {why}"),
            Self::Aside(pool, why) => write!(f, "a job of the pool {pool} cannot begin, and the others go on: {why}"),
        }
    }
}
