//! `hpc-consumer`: the daemon on the cluster. It pulls jobs from the queue `hpc-jobs` over outbound HTTPS, runs each
//! in its job directory, and publishes the results to `hpc-results`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `cli` | the commands, their arguments and their help |
//! | `config` | every setting; the only place that reads the environment |
//! | `consumers` | a look at the queues at the start |
//! | `doctor` | what keeps jobs from running here, and what to do about it |
//! | `startup` | from the settings to a daemon that runs |
//! | `daemon` | the loop between the pure crate `lifecycle` and the world |
//! | `events` | the way of events to that loop |
//! | `executor` | where runs happen, as the daemon sees it |
//! | [`node`] | the files and the executor of a node without the daemon, for tests |
//! | `pace` | how often daemons of one `RESULTS_DIR` ask an empty queue |
//! | `process` | the process itself: clock, signals |
//! | `image` | images of registries, brought up to date, and one step back |
//! | `inherited` | what it gets from who started it, made normal |
//! | `transfers` | files on their way, and how far they are |
//! | `republish` | results that have left the queue, published once more |
//! | `resend` | what jobs have left, sent once more |
//! | `scaling` | the rule by which pools in Slurm grow, tried, and its log decided again |
//! | `service` | the daemon as a service: systemd, cron, `scrontab`, or a detached start |
//! | `services` | instances of services: whether each is ready, and whether it still is |
//! | `setup` | the first command of a newcomer: questions, and files with the answers |
//! | `spending` | what daemons of one `RESULTS_DIR` have spent of the day's operations |
//! | `site` | the file of a site, read and held against what is on this node |
//! | `verbs` | what is asked of single jobs: how far they are, what they print |
//! | `viewer` | keeps up to date what `jobs` and `status` show |
//! | `metrics` | what Prometheus is shown |
//! | `notices` | what a person reads in its log |
//! | `store` | what must not be forgotten, in `STATE_DIR`, and `hpc-consumer jobs` and `status`, which show it |
//! | `link` | what goes to the hub and comes from it |
//! | `keeper` | the process that holds the runs and outlives the daemon, and the daemon's side of it |
//! | `lease` | the broker of quantum machines, kept running, and told which jobs may ask it |
//! | `slurm` | allocations of Slurm as a place where runs happen |
//! | `left` | small files of text that a task has left |
//! | `job` | the files of a job: its directory and the claim for it, its output, its record |
//! | `run` | the only place that starts processes: commands, limits, logs, ending a whole process tree |

mod cancel;
mod cli;
mod config;
mod consumers;
mod daemon;
mod doctor;
mod events;
mod executor;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod inherited;
mod job;
mod keeper;
mod lease;
mod left;
mod link;
mod metrics;
pub mod node;
mod notices;
mod pace;
mod process;
mod purge;
mod republish;
mod resend;
mod run;
mod scaling;
mod service;
mod services;
mod setup;
mod site;
mod slurm;
mod spending;
mod startup;
mod store;
mod transfers;
mod verbs;
mod viewer;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use program::{
    Exit, Failure, Given, JobFilter, Origins, OutputFormat, Printer, ReferenceArgs, StdoutClosed, escaped_lines,
};
pub(crate) use program::{boot_id, host, print};
use protocol::{JobId, WorkPath};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, KeeperSettings, ListJobs, Purge, Republish, Resend, ShowJob, ShowLogs, WaitFor};
use crate::config::Settings;
use crate::run::Invocation;
use crate::startup::{End, Stay, WrongSettings};
use crate::verbs::Jobs;

/// The program.
pub fn main() -> Exit {
    program::harden();
    let start = |command| {
        start(command).map_err(|error| if error.is::<WrongSettings>() { Failure::usage(error) } else { error })
    };
    match settings().map_err(Failure::usage).and_then(start) {
        // Who reads the output has seen enough, as in `logs JOB | head`.
        Err(error) if error.chain().any(|cause| cause.is::<StdoutClosed>()) => Exit::Ok,
        outcome => program::finish(outcome),
    }
}

/// What to do, once everything that a person can get wrong was looked at.
enum Resolved {
    Run(Box<Settings>, Invocation, Stay),
    Show(String),
    Jobs(PathBuf, OutputFormat, JobFilter),
    Status(PathBuf, OutputFormat),
    Pools(PathBuf, OutputFormat),
    Services(PathBuf, OutputFormat),
    StatusOf(PathBuf, Vec<JobId>, OutputFormat),
    Tree(PathBuf, JobId, OutputFormat),
    Wait(PathBuf, WaitFor),
    Logs(PathBuf, ShowLogs),
    Republish(Box<Settings>, Vec<JobId>),
    Resend(Box<Settings>, Vec<JobId>, Vec<WorkPath>),
    Cancel(PathBuf, Vec<JobId>),
    Purge(PathBuf, Purge),
    Site(site::Asked),
    Scaling(scaling::Asked),
    Doctor(Box<doctor::Asked>),
    Image(Box<image::Asked>),
    Service(upkeep::Asked, upkeep::Place),
    Setup(Box<setup::SetupArgs>, Origins),
    Reference(ReferenceArgs),
    Keeper(KeeperSettings),
    Allocation(PathBuf),
}

/// Handles files away from the reactor's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // A panic is a broken invariant and stays one; nothing cancels these.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A lock on what is never left half changed: nothing panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings() -> anyhow::Result<Resolved> {
    let invocation = config::invocation();
    let Given { cli, origins, warnings } = program::read::<Cli>(&config::SOURCES)?;
    cli.log.init()?;
    // The doctor has a line for each of them.
    if !matches!(cli.command, Command::Doctor(_)) {
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    Ok(match cli.command {
        Command::Doctor(asked) => Resolved::Doctor(Box::new(asked.resolve(&cli.files, &origins, warnings)?)),
        Command::Run(settings) => {
            settings.refuse_root()?;
            let check = settings.check;
            let settings = settings.resolve(&origins)?;
            if check {
                let summary = settings.summary();
                let tried = startup::check(settings)?;
                Resolved::Show(format!(
                    "the settings are valid: {summary}\nwhat was set, and where:\n{}{tried}",
                    origins.listed()
                ))
            } else {
                Resolved::Run(Box::new(settings), invocation, Stay::UntilTold)
            }
        }
        Command::Tick(settings) => {
            settings.refuse_root()?;
            Resolved::Run(Box::new(settings.resolve(&origins)?), invocation, Stay::OneRound)
        }
        Command::Command(show) => Resolved::Show(show.render(&origins)?),
        Command::Jobs(show) => {
            let ListJobs { show, filter } = show;
            let (state_dir, format) = show.resolve(&origins)?;
            Resolved::Jobs(state_dir, format, filter)
        }
        Command::Pools(show) => {
            let (state_dir, format) = show.resolve(&origins)?;
            Resolved::Pools(state_dir, format)
        }
        Command::Services(show) => {
            let (state_dir, format) = show.resolve(&origins)?;
            Resolved::Services(state_dir, format)
        }
        Command::Show(ShowJob { job, show }) => {
            let (state_dir, format) = show.resolve(&origins)?;
            Resolved::Tree(state_dir, job, format)
        }
        Command::Status(show) => {
            let (jobs, (state_dir, format)) = show.resolve(&origins)?;
            if jobs.is_empty() {
                Resolved::Status(state_dir, format)
            } else {
                Resolved::StatusOf(state_dir, jobs, format)
            }
        }
        Command::Wait(asked) => Resolved::Wait(asked.state.resolve(&origins)?, asked),
        Command::Logs(asked) => Resolved::Logs(asked.state.resolve(&origins)?, asked),
        Command::Republish(asked) => {
            let Republish { jobs, settings } = *asked;
            Resolved::Republish(Box::new(settings.resolve(&origins)?), jobs)
        }
        Command::Resend(asked) => {
            let Resend { jobs, patterns, settings } = *asked;
            Resolved::Resend(Box::new(settings.resolve(&origins)?), jobs, patterns)
        }
        Command::Cancel(asked) => {
            let (state_dir, jobs) = asked.resolve(&origins)?;
            Resolved::Cancel(state_dir, jobs)
        }
        Command::Purge(asked) => Resolved::Purge(asked.state.resolve(&origins)?, asked),
        Command::Site(asked) => Resolved::Site(asked.resolve(&origins)?),
        Command::Image(asked) => Resolved::Image(Box::new(asked.resolve(&origins)?)),
        Command::Scaling(asked) => Resolved::Scaling(asked.resolve(&origins)?),
        Command::Service(asked) => Resolved::Service(asked.with(&cli.files)?, service::place()?),
        Command::Setup(asked) => Resolved::Setup(asked, origins),
        Command::Reference(asked) => Resolved::Reference(asked),
        Command::Keeper(settings) => Resolved::Keeper(settings),
        Command::Allocation(settings) => Resolved::Allocation(settings.folder),
    })
}

/// How many threads handle files at most.
const FILE_THREADS_MAX: usize = 128;

/// How long they stay: as long as this process.
const FILE_THREADS_STAY: Duration = Duration::from_secs(u32::MAX as u64);

/// One thread serves thousands of jobs: they are other processes. Files are handled on other threads. The first of
/// these is there from the start and none goes, so that work which comes when this user may start no more processes or
/// threads waits for one of them; without any it would end this process.
fn reactor() -> anyhow::Result<Runtime> {
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_keep_alive(FILE_THREADS_STAY)
        .build()?;
    let first = std::thread::Builder::new().spawn(|| {});
    first.context("no thread can be started; raise the limit of processes (ulimit -u), or end some")?;
    reactor.block_on(blocking(|| {}));
    Ok(reactor)
}

fn start(command: Resolved) -> anyhow::Result<Exit> {
    match command {
        Resolved::Run(settings, invocation, stay) => {
            inherited::normalize();
            let reactor = reactor()?;
            let end = reactor.block_on(startup::run(*settings, &invocation, stay));
            // Not waiting for what hangs in a file system.
            reactor.shutdown_background();
            match end? {
                End::Exit(exit) => Ok(exit),
                End::Reload => Err(invocation.start_anew()).context("the daemon cannot start anew"),
            }
        }
        Resolved::Keeper(settings) => {
            inherited::normalize();
            let reactor = reactor()?;
            let served = reactor.block_on(keeper::serve(settings));
            reactor.shutdown_background();
            served.map(|()| Exit::Ok)
        }
        Resolved::Allocation(folder) => {
            inherited::normalize();
            let reactor = reactor()?;
            let served = reactor.block_on(keeper::serve_allocation(&folder, config::environment()));
            reactor.shutdown_background();
            served.map(|()| Exit::Ok)
        }
        Resolved::Wait(state_dir, WaitFor { jobs: names, timeout, output, .. }) => {
            let (jobs, mut printer) = (Jobs::of(state_dir)?, Printer::new(output, "hpc-consumer wait"));
            reactor()?.block_on(verbs::wait(&jobs, &names, timeout, &mut printer))
        }
        Resolved::Logs(state_dir, ShowLogs { job, follow, stream, .. }) => {
            verbs::logs(&Jobs::of(state_dir)?, &job, stream, follow)
        }
        Resolved::Republish(settings, jobs) => reactor()?.block_on(republish::republish(&settings, &jobs)),
        Resolved::Resend(settings, jobs, patterns) => reactor()?.block_on(resend::resend(*settings, &jobs, &patterns)),
        Resolved::Cancel(state_dir, jobs) => cancel::cancel(&Jobs::of(state_dir)?, &jobs),
        Resolved::Purge(state_dir, Purge { older_than, states, yes, .. }) => {
            purge::purge(&Jobs::of(state_dir)?, older_than, &states, yes)
        }
        Resolved::Site(asked) => asked.answer(),
        Resolved::Image(asked) => asked.answer(),
        Resolved::Scaling(asked) => asked.answer(),
        Resolved::Doctor(asked) => reactor()?.block_on(asked.answer()),
        Resolved::Reference(asked) => asked.write::<Cli>().map(|()| Exit::Ok),
        Resolved::Service(command, place) => reactor()?.block_on(service::run(command, place)),
        Resolved::Setup(asked, origins) => reactor()?.block_on(asked.run(&origins)),
        Resolved::Jobs(state_dir, format, filter) => store::show_jobs(&state_dir, format, &filter),
        Resolved::Status(state_dir, format) => store::show_status(&state_dir, format),
        Resolved::Pools(state_dir, format) => store::show_pools(&state_dir, format),
        Resolved::Services(state_dir, format) => store::show_services(&state_dir, format),
        Resolved::StatusOf(state_dir, jobs, format) => verbs::status(&Jobs::of(state_dir)?, &jobs, format),
        Resolved::Tree(state_dir, job, format) => verbs::show(&Jobs::of(state_dir)?, &job, format),
        Resolved::Show(line) => {
            // A check says what the queue service has said.
            println!("{}", escaped_lines(&line));
            Ok(Exit::Ok)
        }
    }
}
