//! What a site is: its pools, its tasks, and what all pools together may take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use protocol::{Memory, PoolName, ServiceName, WorkPath};
use serde::{Deserialize, Serialize};

use crate::{Capacity, Pattern};

/// What a site runs, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What all pools together may take.
    pub quota: Quota,
    /// Its pools; there is at least one.
    pub pools: BTreeMap<PoolName, Pool>,
    /// What may run. Where it is empty, every task may.
    pub tasks: BTreeMap<Pattern, Task>,
    /// The quantum machines that running jobs may ask, where there are any.
    pub lease: Option<Lease>,
    /// What jobs can use while they run, and how it is started.
    pub services: BTreeMap<ServiceName, Service>,
    /// What counts where neither job nor task nor pool says anything.
    pub defaults: Defaults,
    /// Is it what a file says? Else its one pool, that of the daemon's settings, takes every job alike, whatever the
    /// job says of pools and resources.
    pub is_of_file: bool,
}

/// Quantum machines that running jobs may ask, through a broker that has the credential (`docs/lease.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The file that names them, which the broker reads.
    pub machines: PathBuf,
}

/// What counts where a site's file says nothing: the settings of the daemon, and its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The longest that a job may run; a task may set less or more.
    pub time_limit: Duration,
    /// How long a job may take to end after it was asked to.
    pub grace: Duration,
    /// How much of each of stdout and stderr is kept, in bytes.
    pub log_max: u64,
    /// May jobs in containers use the network of the node? A task may say otherwise.
    pub network: bool,
    /// The processors of this node, which a pool has that does not say how many.
    pub cpus: u32,
}

/// What all pools together may take at a time; where nothing is said, there is no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory.
    pub memory: Option<Memory>,
    /// GPUs.
    pub gpus: Option<u32>,
    /// Jobs of Slurm, running and pending.
    pub allocations: Option<u32>,
}

/// A shape of capacity: machine, image and secrets. Not a kind of program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What wraps the command of a job.
    pub runtime: Runtime,
    /// The image of jobs whose task has none of its own.
    pub image: Option<Image>,
    /// The command of jobs whose task has none of its own; not empty.
    pub command: Option<Vec<String>>,
    /// Paths that its containers see, as `SRC[:DEST[:ro]]`.
    pub binds: Vec<String>,
    /// More arguments of `apptainer exec`.
    pub arguments: Vec<String>,
    /// Variables of its jobs.
    pub environment: BTreeMap<String, String>,
    /// What a job gets unless it asks for something else.
    pub slot: Slot,
    /// Is each job kept to processors of its own?
    pub affinity: bool,
    /// Where its jobs run.
    pub place: Where,
    /// How many accepted jobs may wait here; `None` leaves it to the daemon.
    pub hold: Option<u32>,
    /// What only jobs of this pool can see, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// May jobs without a container run beside secrets, which they can read?
    pub expose_secrets: bool,
    /// Does it take the jobs that nothing else sends anywhere? Of one pool of a site at most.
    pub is_default: bool,
    /// May its jobs ask the machines of the lease, where their task does not say otherwise?
    pub lease: bool,
}

/// What wraps the command of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A container of Apptainer.
    Apptainer,
    /// Nothing: the job can do what the user of the daemon can.
    Bare,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apptainer => "apptainer",
            Self::Bare => "bare",
        })
    }
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// A file, or a directory that holds an unpacked image.
    File {
        /// Where it is.
        path: PathBuf,
        /// Where it is pulled from when it is not there, as `ghcr.io/OWNER/NAME:TAG`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pull: Option<String>,
    },
    /// An image of a registry, which cannot change under its digest.
    Reference {
        /// As `ghcr.io/OWNER/NAME`, with a tag if one was given.
        name: String,
        /// `sha256:` and 64 digits.
        digest: String,
    },
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, pull: None } => write!(f, "{}", path.display()),
            Self::File { path, pull: Some(from) } => write!(f, "{} (pulled from {from})", path.display()),
            Self::Reference { name, digest } => write!(f, "{name}@{digest}"),
        }
    }
}

/// What a job gets unless it asks for something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Processors.
    pub cpus: u32,
    /// Memory; where nothing is said it has no limit.
    pub memory: Option<Memory>,
    /// GPUs.
    pub gpus: u32,
}

impl Default for Slot {
    fn default() -> Self {
        Self { cpus: 1, memory: None, gpus: 0 }
    }
}

/// Where the jobs of a pool run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// On this node, with so much of it.
    Here(Capacity),
    /// In allocations of Slurm.
    Slurm {
        /// How they are asked for.
        slurm: Slurm,
        /// How many there are.
        workers: Workers,
    },
}

/// How an allocation is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slurm {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--time`.
    pub time: Option<Duration>,
    /// More arguments of `sbatch`.
    pub extra: Vec<String>,
}

/// How many allocations a pool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// Jobs in one at a time.
    pub slots: u32,
    /// After how long without a job one ends.
    pub idle: Duration,
    /// So many may wait in Slurm at a time.
    pub pending: u32,
    /// How much its work counts beside that of other pools, where the quota has not enough for all: 1 unless said.
    pub weight: u32,
    /// One allocation for each job, sized by what the job asks for.
    pub once: bool,
}

/// The file of a secret, and how jobs see it. In a container it is a file below `/run/secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The file that holds it.
    pub file: PathBuf,
    /// The variable that has its value as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

/// What a job of a task runs; where nothing is said, its pool says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// Who brings the program.
    pub kind: TaskKind,
    /// The pool that its jobs run in unless they name another.
    pub pool: Option<PoolName>,
    /// The pools that its jobs may name, `pool` included. All, where it is empty.
    pub pools: BTreeSet<PoolName>,
    /// Its image.
    pub image: Option<Image>,
    /// Its command; not empty.
    pub command: Option<Vec<String>>,
    /// Paths that its containers see besides those of the pool.
    pub binds: Vec<String>,
    /// Variables of its jobs, besides and before those of the pool.
    pub environment: BTreeMap<String, String>,
    /// The longest that its jobs may run.
    pub time_limit: Option<Duration>,
    /// How long they may take to end after they were asked to.
    pub grace: Option<Duration>,
    /// The largest output, in bytes; a larger one fails the job.
    pub output_max: Option<u64>,
    /// How much of the files that a job leaves may be sent, in bytes; more fails the job.
    pub output_files_max: Option<u64>,
    /// How much of each of stdout and stderr is kept, in bytes.
    pub log_max: Option<u64>,
    /// How often jobs are tried again that do not say it themselves.
    pub retries: Option<u32>,
    /// May its jobs use the network?
    pub network: Option<bool>,
    /// May its jobs ask the machines of the lease?
    pub lease: Option<bool>,
}

/// Who brings the program that a job runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The image has it.
    #[default]
    Program,
    /// The job brings a command or a script.
    Command,
    /// The job brings a function in Python.
    Python,
    /// The job is a graph of others, and the daemon itself does what there is to do.
    Workflow,
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program => "program",
            Self::Command => "command",
            Self::Python => "python",
            Self::Workflow => "workflow",
        })
    }
}

/// Something that runs without an end for the jobs that need it, in as many instances as they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The pool that its instances run in: its image, its slot, its secrets.
    pub pool: PoolName,
    /// Its command; not empty.
    pub command: Vec<String>,
    /// When an instance can be used.
    pub ready: Ready,
    /// How long an instance may take until it is ready; what is not ready by then is ended.
    pub within: Duration,
    /// So many instances at least, whether anybody needs them or not.
    pub min: u32,
    /// So many at most; 1 or more, and not less than `min`.
    pub max: u32,
    /// How many jobs use one instance at a time; 1 or more.
    pub users: u32,
    /// After how long without a job an instance ends, if there are more than `min`.
    pub idle: Duration,
    /// The longest that an instance runs.
    pub longest: Duration,
}

/// When an instance of a service can be used, beside that its address is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// It answers a GET of this path with a status of 200 to 299.
    Http(String),
    /// Its port takes a connection.
    Tcp,
    /// This file is there, below its job directory.
    File(WorkPath),
}
