//! Running the command of a job. This is the only place in the project's programs that starts processes;
//! what keeps one of them running as a service, and starts that, is the crate `upkeep`.
//!
//! A [`Runtime`], made by the [`kit`], turns a job directory into a [`CommandLine`] ([`apptainer`], with [`pull`],
//! [`pulled`] and [`unpacked`] for its image, or [`bare`]); [`process`] runs it with its limits, begun by the
//! [`starter`] on the [`processors`] that it is kept to, and kept to itself by what [`confine`] has; [`secrets`] are
//! what it may know and nobody else; [`log_file`] keeps what it prints, bounded; [`scratch`] is its temporary space,
//! [`begin`] tells whether its command has begun, and [`helpers`] whether its image was lost; a [`group`] holds it to
//! its memory, or [`footprint`] watches it. [`containment`] keeps it from the rest of the node, with the filter of
//! [`seccomp`], and [`isolation`] tells how far. [`ending`] decides how all of it ends, [`tree`] finds it, by [`proc`]
//! and by the [`token`] that it carries, and [`children`] tells whether there is any such thing; [`leftovers`] finds
//! what is left of runs that nobody watches any more; [`service`] starts the process in which all this happens, the
//! keeper; [`serving`] looks where a run listens that serves others; [`answer`] asks another program something, and
//! [`client`] a batch system.
//!
//! Out of scope: what the result means (`job`), and which runs there are (`keeper`). Invariant: when [`process::run`]
//! returns, no process of the run that can be found is alive.

mod answer;
mod apptainer;
mod bare;
mod begin;
mod children;
mod client;
mod confine;
mod containment;
mod ended;
mod ending;
mod filter;
mod footprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
mod helpers;
mod isolation;
mod kit;
mod leftovers;
mod log_file;
mod memory;
mod proc;
mod process;
mod processors;
mod programs;
mod pull;
mod pulled;
mod scratch;
mod seccomp;
pub(crate) mod secrets;
mod service;
mod serving;
mod starter;
mod token;
mod tree;
mod unpacked;
mod usage;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Isolation, JobId, Launched, PoolName, RuntimeKind, WorkPath};
use site::Secret;

use crate::lock;

pub(crate) use answer::answer;
pub(crate) use apptainer::{shared_overlay, show_gpus, shows_gpus};
pub(crate) use bare::Bare;
pub(crate) use client::ask_slurm;
pub(crate) use confine::Confinement;
pub(crate) use containment::{JobNetwork, JobSeccomp};
pub(crate) use ended::{Ended, Finished, signal_name};
pub(crate) use ending::Warning;
pub(crate) use group::groups_can_be_had;
pub(crate) use isolation::{Required, check, told};
pub(crate) use kit::{Kit, Recipe, named};
pub(crate) use leftovers::{Leftover, kill_leftovers};
pub(crate) use memory::memory_limit;
pub(crate) use proc::{FirstProcess, descends_from_us, is_running, started_at};
pub(crate) use process::{Place, Stop, Told, make_room, run};
pub(crate) use protocol::job_dir::LOGS;
pub(crate) use pull::{Credentials, Pull, auth_file_of_apptainer};
pub(crate) use pulled::{Note, Notes};
pub(crate) use service::{Invocation, Service, start_program, start_service};
pub(crate) use serving::Seen;
pub(crate) use token::Token;
pub(crate) use unpacked::Unpacked;

/// Prepares this process for runs: what they leave behind becomes its own, and is reaped as it ends.
pub(crate) fn prepare() {
    if let Err(error) = children::adopt_orphans().and_then(|()| children::reap_for_ever()) {
        tracing::warn!("processes that a job leaves behind may not be found: {error}");
    }
}

/// What wraps the command of a job.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in each process")]
pub(crate) enum Runtime {
    Apptainer(apptainer::Apptainer),
    Bare(Bare),
}

/// What a run may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long it may run.
    pub(crate) time: Duration,
    /// How long it may take to end after it was asked to.
    pub(crate) grace: Duration,
    /// What it is told before its time is over, if it wants to know.
    pub(crate) warning: Option<Warning>,
    /// How much of each of its output streams is kept.
    pub(crate) log_bytes: u64,
    /// How much memory all its processes may use together, if there is a limit.
    pub(crate) memory: Option<u64>,
    /// To how many processors it is kept, if it is kept to some.
    pub(crate) processors: Option<u32>,
}

/// What wraps a command, as far as a run has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapping {
    pub(crate) runtime: RuntimeKind,
    /// The image file, which nobody may write to while a container runs from it.
    pub(crate) image: Option<PathBuf>,
    /// Does the runtime tell of the begin of the command? A probe has seen it do so.
    pub(crate) hook: bool,
    pub(crate) confinement: Confinement,
    /// What keeps the command from the rest of the node, as a probe has seen it.
    pub(crate) isolation: Option<Box<Isolation>>,
    /// What it sees of its pool's secrets: where they are, and never what they are.
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// What it is begun as, where a site's file says it.
    pub(crate) launched: Option<Box<Launched>>,
    /// Where it is written down what is seen of its address, if it serves others.
    pub(crate) seen: Option<PathBuf>,
}

/// Tells a command where the workflow is that it is a task of.
pub(crate) const WORKFLOW_DIR: &str = "HPC_QUEUE_WORKFLOW_DIR";

/// What one run has of its own, beside others that are begun in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// The words of its command; those of its runtime, if there are none.
    pub(crate) command: Vec<String>,
    /// Variables, and such as it is to have no value of.
    pub(crate) environment: Vec<(String, Option<String>)>,
    /// More arguments of `apptainer exec`.
    pub(crate) arguments: Vec<String>,
    /// Files that it sees and cannot change, and where below its directory.
    pub(crate) read_only: Vec<(PathBuf, WorkPath)>,
    /// The directory of the workflow that it is a task of, in which its command runs.
    pub(crate) workflow: Option<PathBuf>,
    /// The directory with the socket of the lease, if it may ask quantum machines.
    pub(crate) lease: Option<PathBuf>,
    pub(crate) launched: Option<Box<Launched>>,
    /// What it knows besides the secrets of its pool.
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Where it is written down what is seen of its address, if it serves others.
    pub(crate) seen: Option<PathBuf>,
}

impl Own {
    /// These variables, changed as this run has them.
    fn over(&self, others: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
        let is_own = |name: &OsString| self.environment.iter().any(|(own, _)| name == own.as_str());
        let kept = others.iter().filter(|(name, _)| !is_own(name)).cloned();
        let own = self.environment.iter().filter_map(|(name, value)| Some((name.into(), value.as_ref()?.into())));
        kept.chain(own).collect()
    }
}

/// Who says what a runtime is made of, for what a person has to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Says {
    /// The settings.
    Settings,
    /// A site's file, in these sections.
    Site {
        /// Which pool.
        pool: PoolName,
        /// As `pool.cpu.image`.
        image: String,
        /// As `task.simulate.command`.
        command: String,
    },
}

/// A process to be started: its words, its whole environment, its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) words: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: PathBuf,
}

impl Runtime {
    pub(crate) fn kind(&self) -> RuntimeKind {
        match self {
            Self::Apptainer(_) => RuntimeKind::Apptainer,
            Self::Bare(_) => RuntimeKind::Bare,
        }
    }

    /// The command that runs a job in its directory, and what a run is to know of what wraps it.
    pub(crate) fn command(&self, job_id: &JobId, job_dir: &Path, own: &Own) -> (CommandLine, Wrapping) {
        match self {
            Self::Apptainer(apptainer) => apptainer.command(job_id, job_dir, own),
            Self::Bare(bare) => bare.command(job_id, job_dir, own),
        }
    }

    /// Is all there that a job needs? The text says what is not, and what to do. `scratch` stands for a job directory.
    pub(crate) async fn probe(&self, scratch: &Path) -> Result<(), String> {
        self.look().await?;
        self.try_here(scratch).await
    }

    /// The same as far as it is for all nodes that share their files with this one.
    pub(crate) async fn look(&self) -> Result<(), String> {
        match self {
            Self::Apptainer(apptainer) => apptainer.look().await,
            Self::Bare(bare) => bare.look(),
        }
    }

    /// The rest: could a job run on this node?
    pub(crate) async fn try_here(&self, scratch: &Path) -> Result<(), String> {
        match self {
            Self::Apptainer(apptainer) => apptainer.try_here(scratch).await,
            Self::Bare(bare) => bare.try_here(scratch).await,
        }
    }

    /// What a probe has seen that keeps jobs from the rest of the node.
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        match self {
            Self::Apptainer(apptainer) => apptainer.isolation(),
            Self::Bare(bare) => Some(bare.isolation()),
        }
    }

    /// Why something of that cannot be had here.
    pub(crate) fn left_out(&self) -> Vec<String> {
        match self {
            Self::Apptainer(apptainer) => apptainer.containment.left_out(),
            Self::Bare(_) => Vec::new(),
        }
    }

    /// The image that a probe would pull.
    pub(crate) fn to_be_pulled(&self) -> Option<&Path> {
        match self {
            Self::Apptainer(apptainer) => apptainer.to_be_pulled(),
            Self::Bare(_) => None,
        }
    }

    /// Has a probe seen the program that jobs run?
    pub(crate) fn has_program(&self) -> bool {
        match self {
            Self::Apptainer(apptainer) => apptainer.has_program(),
            Self::Bare(_) => true,
        }
    }

    /// What is run, for the log.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Apptainer(apptainer) => {
                format!("{:?} in {}", shell_words::join(&apptainer.command), apptainer.image.display())
            }
            Self::Bare(bare) => format!("{:?}", shell_words::join(&bare.command)),
        }
    }

    /// One line about the isolation that jobs get, where there is something to say.
    pub(crate) fn warning(&self) -> Option<String> {
        match self {
            Self::Apptainer(_) => None,
            Self::Bare(bare) => Some(bare.warning()),
        }
    }
}

impl CommandLine {
    /// The command as a line for a shell: the environment cleared, the directory entered.
    pub(crate) fn to_shell_line(&self) -> String {
        let quote = |text: &OsStr| shell_words::quote(&text.to_string_lossy()).into_owned();
        let environment = self.environment.iter().map(|(name, value)| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            quote(&pair)
        });
        let words: Vec<String> = environment.chain(self.words.iter().map(|word| quote(word))).collect();
        format!("cd {} && env -i {}", quote(self.directory.as_os_str()), words.join(" "))
    }
}
