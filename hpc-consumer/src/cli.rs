//! The commands, their arguments and their help. Settings that may also come from the environment are in `config`.

mod images;
mod jobs;
mod node;
mod scaling;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand};
use program::duration::{self, Unit};
use program::{FileArgs, LogArgs, ReferenceArgs};

use crate::config::RunSettings;
use crate::service::ServiceCommand;
use crate::setup::SetupArgs;

pub(crate) use self::images::ImageCommand;
pub(crate) use self::jobs::{
    Cancel, ListJobs, Purge, Republish, Resend, ShowJob, ShowLogs, ShowState, ShowStatus, WaitFor,
};
pub(crate) use self::node::{Doctor, ShowCommand};
pub(crate) use self::scaling::ScalingCommand;
pub(crate) use self::site::SiteCommand;

/// The shortest and the longest length of time that an argument may name.
const DURATION_MIN: Duration = Duration::from_millis(1);
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

/// Pull jobs from the queue, run them on this machine and publish their results
///
/// Only outbound HTTPS is needed: no inbound port, no administrator rights. Settings come from flags, the environment,
/// the file .env and defaults, in this order. Each may also be named HPC_QUEUE_NAME, which goes first.
#[derive(Debug, Parser)]
#[command(name = "hpc-consumer", version, help_expected = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "`hpc-consumer command` is the name of one")]
pub(crate) enum Command {
    /// Run the daemon
    ///
    /// It pulls no more jobs than will find a slot soon. Jobs run under a keeper, a process of their own: they go on
    /// when the daemon ends, however it ends, and the next start with the same STATE_DIR takes them up. The first
    /// SIGTERM or SIGINT drains: nothing new is taken, what was not started goes back to the queue, and running jobs
    /// have DRAIN_TIMEOUT_SECONDS to finish. A second one ends the daemon at once. SIGHUP makes it read its settings
    /// anew. Started at a terminal, it drains instead: there SIGHUP means that the terminal was closed. To end the jobs
    /// as well, end their keeper: its process id is in STATE_DIR/keeper/keeper.json.
    ///
    /// Exit codes: 0 drained, stopped or idle; 1 it could not go on, and says why; 2 wrong arguments or settings.
    #[command(
        after_help = "Example:\n  hpc-consumer run --env-file ~/hpc-queue.env --results-dir /scratch/$USER/results"
    )]
    Run(Box<RunSettings>),
    /// Go one round, for cron where no process may stay: pull, begin, look what has ended, publish; then end
    ///
    /// It does what `run` does, with the same settings and the same STATE_DIR, and ends as soon as nothing more can be
    /// done at once: within seconds as a rule, within the hour if files are on their way. Jobs that run go on under
    /// their keeper, or in Slurm; the next round takes them up. While a daemon or another round is at work with this
    /// STATE_DIR, it fails.
    ///
    /// Exit codes: 0 the round is over; 1 it could not go on, and says why; 2 wrong arguments or settings.
    #[command(
        mut_args = needed_to_tick,
        after_help = "Example, in a crontab:\n  */5 * * * * hpc-consumer tick --env-file ~/hpc-queue.env"
    )]
    Tick(Box<RunSettings>),
    /// Print the command line that would run a job in the given directory
    ///
    /// Use it to try an image by hand with exactly what the daemon does.
    #[command(
        after_help = "Example:\n  mkdir -p try && echo '{\"task\":\"echo\",\"input\":1}' > try/input.json\n  sh -c \"$(hpc-consumer command --job-dir try)\""
    )]
    Command(Box<ShowCommand>),
    /// List the jobs that the daemon holds, running or waiting or with a result owed; others by --state
    ///
    /// Works while the daemon runs, from any machine that sees STATE_DIR, and when it does not. Jobs that have ended
    /// are listed where --state asks for them: completed, failed, cancelled. They come from the records in
    /// RESULTS_DIR, which tell no name and no pool.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  hpc-consumer jobs --state running --pool gpu\n  hpc-consumer jobs --state failed --since 1d"
    )]
    Jobs(ListJobs),
    /// Draw a job and the jobs that it has asked for, or the tasks of a workflow, as a tree with their times
    ///
    /// A line for each: how far it is, when it began, counted from the first of them, for how long it ran, and a bar of
    /// that. Of a job with more than 40 children there is a line for each task. It is read from what the daemon tells
    /// and from the records in RESULTS_DIR; ID-3 is the third child of ID.
    ///
    /// Exit codes: 0 it is printed; 1 it cannot be read; 2 wrong arguments or settings; 4 nothing is known of the job
    /// here, or no daemon was started with this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer show last")]
    Show(ShowJob),
    /// Print how far jobs are, a word for each; without jobs, which daemon it is, and how
    ///
    /// The words are: unknown, queued, held, running, completed, failed, cancelled. Of one job, its word is all that is
    /// printed; of several, each has a line: its id, a tab, its word. `unknown` is also a job that is still in the
    /// queue, which nobody can look into from here.
    ///
    /// Without jobs: directories, node, queue, how many jobs run, which results are owed.
    ///
    /// Exit codes: 0 all is printed, also `failed` and `unknown`; 1 it cannot be read; 2 wrong arguments or settings; 4
    /// no daemon was started with this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer status 3f2a8c1e-...")]
    Status(ShowStatus),
    /// Wait until jobs have ended, and print their results as they come
    ///
    /// What is printed is the final record of each job: lines for people on a terminal, a line of JSON elsewhere. A job
    /// that is not here is waited for, too: it may come. Ctrl-C ends the waiting, with 130, and no job.
    ///
    /// Exit codes: 0 all jobs completed; 1 it cannot be read; 2 wrong arguments or settings; 3 a job failed or was
    /// cancelled; 4 no daemon was started with this STATE_DIR; 75 the time is over; 130 interrupted.
    #[command(after_help = "Example:\n  hpc-consumer wait last --timeout 1h")]
    Wait(WaitFor),
    /// Print what a job prints, as it is, on the stream on which it does
    ///
    /// It is what the last attempt has printed: stdout.log and stderr.log of its directory. A terminal gets no control
    /// characters. With --follow it goes on until the job has ended, through all attempts.
    ///
    /// Exit codes: 0 it is printed, if the job has printed anything; 1 it cannot be read; 2 wrong arguments or
    /// settings; 4 nothing is known of the job here, or no daemon was started with this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer logs last --follow\n  hpc-consumer logs 3f2a8c1e --stream stderr")]
    Logs(ShowLogs),
    /// Print how each pool is: whether it is ready and why not, what it holds, runs, and has
    ///
    /// HELD are jobs that this daemon has accepted and not begun, of as many as may wait; what is in the queue it does
    /// not know. A pool that is not ready says below why.
    ///
    /// Exit codes: 0 all is printed; 1 it cannot be read; 2 wrong arguments or settings; 4 no daemon was started with
    /// this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer pools")]
    Pools(ShowState),
    /// Print the services of the site: their instances, where each runs, how many jobs use it, and why it is there
    ///
    /// AGE is for how long an instance can be used, or for how long it has been on its way. How many jobs wait for a
    /// service stands below it, and what its instances end of while they do not last. An instance is a job:
    /// `hpc-consumer logs INSTANCE` prints what it says.
    ///
    /// Exit codes: 0 all is printed; 1 it cannot be read; 2 wrong arguments or settings; 4 no daemon was started with
    /// this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer services")]
    Services(ShowState),
    /// Publish the results of jobs that have ended once more
    ///
    /// For results that have left the queue before anybody took them: the queue keeps them for a time only, and the
    /// final records in RESULTS_DIR stay. The same bytes are published as before. The daemon may run meanwhile.
    ///
    /// Exit codes: 0 all are published; 1 some have no record here, or the queue did not take them; 2 wrong arguments
    /// or settings.
    #[command(
        mut_args = needed_to_republish,
        after_help = "Example:\n  hpc-consumer republish --env-file ~/hpc-queue.env 3f2a8c1e-..."
    )]
    Republish(Box<Republish>),
    /// Send what jobs have left once more, and publish their results with its list
    ///
    /// For outputs that were too much when the job ended (OUTPUT_FILES_BYTES_MAX), that have expired
    /// (FILES_KEEP_DAYS), or that the store has lost. What is sent is what lies in the directory of the job now: what
    /// was wanted of it, or what --output says. How the job has ended stays as it is; its record says where its files
    /// are, and when they were sent. The daemon may run meanwhile. Interrupted, the same command goes on.
    ///
    /// Exit codes: 0 all is sent and published; 1 some is not, and it is said why; 2 wrong arguments or settings; 75
    /// the store of files does not answer.
    #[command(
        mut_args = needed_to_resend,
        after_help = "Examples:\n  hpc-consumer resend --env-file ~/hpc-queue.env last\n  hpc-consumer resend --env-file ~/hpc-queue.env 3f2a8c1e --output 'plots/*.png' --output-files-bytes-max 500GB"
    )]
    Resend(Box<Resend>),
    /// Cancel jobs, whatever they do
    ///
    /// A job that runs is ended within its grace, and keeps what it has written; one that waits does not begin, nor one
    /// that is not here yet when it comes. Its result says `cancelled`, and no attempt follows. Word of it is left in
    /// RESULTS_DIR: whichever daemon holds the job there heeds it within a second or two, or at its next start.
    ///
    /// Exit codes: 0 all are cancelled, or have ended before; 1 word cannot be left; 2 wrong arguments or settings; 4
    /// no daemon was started with this STATE_DIR.
    #[command(after_help = "Example:\n  hpc-consumer cancel 3f2a8c1e-...")]
    Cancel(Cancel),
    /// Remove the directories and records of jobs that have ended long ago
    ///
    /// None goes that the daemon holds or whose result is owed, however old. A person at the terminal is asked;
    /// elsewhere it takes --yes. Each job is moved to .trash in RESULTS_DIR first, and goes from there. A job that is
    /// submitted again with the same idempotency key after that is run again. Where several daemons share RESULTS_DIR,
    /// --older-than is 15d at least, because what the others owe is not known.
    ///
    /// Exit codes: 0 they are removed, or there is nothing to remove; 1 something cannot be removed; 2 wrong arguments
    /// or settings; 4 no daemon was started with this STATE_DIR; 75 the daemon holds more jobs than it names.
    #[command(after_help = "Example:\n  hpc-consumer purge --older-than 30d")]
    Purge(Purge),
    /// Check and explain the file that says what this site runs, and make a first one
    ///
    /// `hpc-consumer run` takes such a file by SITE_FILE.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Bring images of registries up to date, show how they are, or go back to the one before
    #[command(subcommand)]
    Image(ImageCommand),
    /// Try the rule by which pools in Slurm grow and shrink, and explain what it has decided
    #[command(subcommand)]
    Scaling(ScalingCommand),
    /// Look for what keeps jobs from running here, and say what to do about it
    ///
    /// A line for each check: settings, token and account, the queues and what reads them, clock, directories, room and
    /// locks, hub and edge, Apptainer, what it needs, and a container as for a job, limits, Slurm, the service. It
    /// takes no job and pulls no image, and works beside a daemon.
    ///
    /// With --fix it first makes at Cloudflare what is missing, after it was shown and agreed to: the queues, their
    /// HTTP pull consumers with 100 retries and a dead letter queue, and 14 days of retention where the plan allows it.
    /// It needs CF_ACCOUNT_ID and CF_QUEUES_API_TOKEN alone, prints the ids that belong into the settings, and takes
    /// nothing away.
    ///
    /// Exit codes: 0 there is no failure, warnings or not; 1 there is one; 2 wrong arguments, or settings that cannot
    /// be read.
    #[command(
        mut_args = needed_to_doctor,
        after_help = "Examples:\n  hpc-consumer doctor --env-file ~/hpc-queue.env\n  hpc-consumer doctor --env-file ~/hpc-queue.env --fix"
    )]
    Doctor(Box<Doctor>),
    /// Keep the daemon running, by systemd, cron or Slurm: install, start, stop, look at it
    ///
    /// There is one service for each user on each machine. Without it, `hpc-consumer run` runs as long as you let it.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Ask five questions, and write the settings and a first site's file; the first command of a newcomer
    ///
    /// It asks for the account and its token, a directory for results, the image that jobs run in, and a partition of
    /// Slurm, if they are to run there; the ids of the queues it looks up by their names. What a flag says is not
    /// asked, and what is set already is the answer to an empty line; where nobody can be asked, all must be there.
    /// Nothing that is there is changed before you agree: of a settings file, other lines stay. In the end it says what
    /// `doctor` does, and which command is the next one.
    ///
    /// Exit codes: 0 all is written and well; 1 the doctor has found a failure, or you have not agreed; 2 wrong
    /// arguments, or something is missing.
    #[command(
        mut_args = needed_to_setup,
        after_help = "Examples:\n  hpc-consumer setup\n  hpc-consumer setup --cf-account-id 0123456789abcdef0123456789abcdef --token-file token.txt \\\n    --results-dir /scratch/$USER/results --image ghcr.io/OWNER/hpc-queue-runtime:latest --partition none"
    )]
    Setup(Box<SetupArgs>),
    /// Write man pages and completions of shells into a folder; releases have them
    #[command(hide = true)]
    Reference(ReferenceArgs),
    /// The process that holds the runs; the daemon starts it
    #[command(hide = true)]
    Keeper(KeeperSettings),
    /// The process that holds the runs of an allocation; Slurm starts it
    #[command(hide = true)]
    Allocation(AllocationSettings),
}

/// A length of time as an argument names it; a plain number counts seconds.
fn length_of_time(text: &str) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, DURATION_MIN..=DURATION_MAX)
}

/// They have defaults that do, and nobody is asked for them.
fn needed_to_setup(argument: Arg) -> Arg {
    const NOT_NEEDED: [&str; 4] =
        ["job_time_limit_seconds", "job_kill_grace_seconds", "job_memory_limit", "output_log_bytes_max"];
    let hidden = NOT_NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}

/// The doctor starts nothing that stays.
fn needed_to_doctor(argument: Arg) -> Arg {
    const NOT_NEEDED: [&str; 3] = ["exit_when_idle", "check", "take_over"];
    let hidden = NOT_NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}

/// A round ends by itself, whatever is left to do.
fn needed_to_tick(argument: Arg) -> Arg {
    const NOT_NEEDED: [&str; 2] = ["exit_when_idle", "check"];
    let hidden = NOT_NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}

/// `republish` reads all settings of the daemon, and uses few of them.
fn needed_to_republish(argument: Arg) -> Arg {
    const NEEDED: [&str; 7] = [
        "jobs",
        "results_dir",
        "cf_api_base_url",
        "allow_plain_http",
        "cf_account_id",
        "cf_results_queue_id",
        "cf_queues_api_token",
    ];
    let hidden = !NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}

/// `resend` reads all settings of the daemon as well.
fn needed_to_resend(argument: Arg) -> Arg {
    const NEEDED: [&str; 15] = [
        "jobs",
        "patterns",
        "state_dir",
        "results_dir",
        "output_files_bytes_max",
        "cf_api_base_url",
        "allow_plain_http",
        "cf_account_id",
        "cf_results_queue_id",
        "cf_queues_api_token",
        "edge_url",
        "site_key",
        "_site_key_file",
        "site_name",
        "producer_url",
    ];
    let hidden = !NEEDED.contains(&argument.get_id().as_str());
    argument.hide(hidden)
}

/// What the daemon tells its keeper.
#[derive(Debug, Args)]
pub(crate) struct KeeperSettings {
    /// STATE_DIR of the daemon
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
}

/// What Slurm is told to start.
#[derive(Debug, Args)]
pub(crate) struct AllocationSettings {
    /// The folder of the allocation, in STATE_DIR of the daemon
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_argument_is_documented_and_consistent() {
        Cli::command().debug_assert();
    }
}
