//! The settings: their names, defaults and meaning. Precedence: flag, environment, `.env`, default.
//!
//! Invariant: nothing else in this program reads the environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use program::LogArgs;
use protocol::limits;

use crate::run::{Apptainer, Bare, Invocation, Limits, Runtime, Unpacked, absolute_entries, on_path};
use crate::store::Format;

/// How often a job that another daemon holds is looked at.
const CLAIM_PATIENCE_MIN: Duration = Duration::from_millis(250);
const CLAIM_PATIENCE_MAX: Duration = Duration::from_secs(60);

/// The shortest pause between two pulls of an empty queue.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Pull jobs from the queue, run them on this machine and publish their results
///
/// Only outbound HTTPS is needed: no inbound port, no administrator rights. Settings come from flags, the environment,
/// the file .env and defaults, in this order.
#[derive(Debug, Parser)]
#[command(name = "hpc-consumer", version, help_expected = true)]
pub(crate) struct Cli {
    /// Read settings from FILE instead of .env
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What this process was told; exits if that cannot be understood.
    pub(crate) fn read() -> Self {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let mut told = without_variables(Self::command(), &is_empty).get_matches();
        Self::from_arg_matches_mut(&mut told).unwrap_or_else(|error| error.exit())
    }
}

/// The same arguments without those variables behind them: `NAME=` sets nothing, but for clap it is a value.
fn without_variables(command: clap::Command, is_empty: &dyn Fn(&OsStr) -> bool) -> clap::Command {
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(None::<&'static str>) } else { arg })
        .mut_subcommands(|command| without_variables(command, is_empty))
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
    /// Print the command line that would run a job in the given directory
    ///
    /// Use it to try an image by hand with exactly what the daemon does.
    #[command(
        after_help = "Example:\n  mkdir -p try && echo '{\"task\":\"echo\",\"input\":1}' > try/input.json\n  sh -c \"$(hpc-consumer command --job-dir try)\""
    )]
    Command(Box<ShowCommand>),
    /// Show the jobs that the daemon holds, running or waiting or with a result owed
    ///
    /// Works while the daemon runs, from any machine that sees STATE_DIR, and when it does not.
    Jobs(ShowState),
    /// Show how the daemon is: the node, the queue, how many jobs run, which results are owed
    Status(ShowState),
    /// Print a systemd user unit for the daemon
    #[command(
        after_help = "Example:\n  hpc-consumer service > ~/.config/systemd/user/hpc-consumer.service\n  systemctl --user daemon-reload\n  systemctl --user enable --now hpc-consumer"
    )]
    Service,
    /// The process that holds the runs; the daemon starts it
    #[command(hide = true)]
    Keeper(KeeperSettings),
}

/// The settings of `hpc-consumer jobs` and `hpc-consumer status`.
#[derive(Debug, Args)]
pub(crate) struct ShowState {
    #[command(flatten)]
    state: StateSettings,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    output: OutputChoice,
}

/// How to print what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputChoice {
    /// A table for people
    Text,
    /// JSON for programs
    Json,
}

/// Where the daemon remembers what it has promised.
#[derive(Debug, Args)]
struct StateSettings {
    /// Where the daemon keeps its state, one directory for each daemon [default: ~/.local/state/hpc-queue/HOST]
    ///
    /// It must outlive the daemon and the machine. A home directory on NFS, Lustre or GPFS will do. Where
    /// XDG_STATE_HOME is set, the default is $XDG_STATE_HOME/hpc-queue/HOST.
    #[arg(long, env = "STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// What the daemon tells its keeper.
#[derive(Debug, Args)]
pub(crate) struct KeeperSettings {
    /// STATE_DIR of the daemon
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
}

/// What wraps the command of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// Run it in an Apptainer container
    Apptainer,
    /// Run it as it is; this isolates nothing: a job can do all that you can do
    Bare,
}

/// How the command of a job is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct RuntimeSettings {
    /// What wraps the command of a job; `bare` isolates nothing
    #[arg(long, env = "RUNTIME", default_value = "apptainer", value_name = "RUNTIME")]
    runtime: RuntimeChoice,
    /// The command of every job, split into words as a shell does and executed without one
    ///
    /// It runs in the job directory, with WORK_DIR and JOB_ID in its environment, and finds the job in input.json.
    /// Who wants a shell writes: sh -c '…'
    #[arg(long, env = "CONTAINER_CMD", default_value = "task-runner", value_name = "COMMAND")]
    container_cmd: String,
    /// The container image, a .sif file
    #[arg(long, env = "APPTAINER_IMAGE", value_name = "FILE")]
    apptainer_image: Option<PathBuf>,
    /// Where to pull the image from when the file is not there, for example ghcr.io/OWNER/hpc-queue-runtime:latest
    #[arg(long, env = "APPTAINER_OCI_REF", value_name = "REF")]
    apptainer_oci_ref: Option<String>,
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
}

/// Where the queues are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queues")]
struct QueueSettings {
    /// The address of the Cloudflare API, or of local-edge
    #[arg(long, env = "CF_API_BASE_URL", default_value = "https://api.cloudflare.com/client/v4", value_name = "URL")]
    cf_api_base_url: String,
    /// The id of the Cloudflare account
    #[arg(long, env = "CF_ACCOUNT_ID", value_name = "ID")]
    cf_account_id: Option<String>,
    /// The id of the queue hpc-jobs
    #[arg(long, env = "CF_JOBS_QUEUE_ID", value_name = "ID")]
    cf_jobs_queue_id: Option<String>,
    /// The id of the queue hpc-results
    #[arg(long, env = "CF_RESULTS_QUEUE_ID", value_name = "ID")]
    cf_results_queue_id: Option<String>,
    /// An API token with the permission Queues: Edit
    #[arg(long, env = "CF_QUEUES_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    cf_queues_api_token: Option<String>,
    /// The most messages in one pull
    #[arg(long, env = "BATCH_SIZE", default_value_t = 100, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=limits::BATCH_COUNT_MAX as i64))]
    batch_size: u16,
    /// How long the queue hides a pulled message, in milliseconds, up to 12 hours; a job may run for longer
    #[arg(long, env = "VISIBILITY_TIMEOUT_MS", default_value_t = limits::VISIBILITY_TIMEOUT_MAX.as_millis() as u64,
          value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=limits::VISIBILITY_TIMEOUT_MAX.as_millis() as u64))]
    visibility_timeout_ms: u64,
    /// After an empty pull, wait this many seconds; doubles with each further one
    #[arg(long, env = "POLL_INTERVAL_SECONDS", default_value = "2", value_name = "SECONDS", value_parser = pause)]
    poll_interval_seconds: Duration,
    /// The longest wait between two pulls of an empty queue, in seconds
    #[arg(long, env = "POLL_INTERVAL_MAX_SECONDS", default_value = "30", value_name = "SECONDS", value_parser = pause)]
    poll_interval_max_seconds: Duration,
    /// How long a job stays in the queue, in seconds, after this node could not run it
    #[arg(long, env = "RETRY_DELAY_SECONDS", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=limits::DELAY_MAX.as_secs()))]
    retry_delay_seconds: u64,
}

/// Jobs and their limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Jobs")]
struct JobSettings {
    /// Where job directories and final records are kept
    #[arg(long, env = "RESULTS_DIR", value_name = "DIR")]
    results_dir: Option<PathBuf>,
    /// How many jobs run at the same time [default: the number of cores]
    #[arg(long, env = "MAX_PARALLEL_JOBS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_parallel_jobs: Option<u32>,
    /// The longest that a job may run, in seconds; a job may ask for less
    #[arg(long, env = "JOB_TIME_LIMIT_SECONDS", default_value_t = 604_800, value_name = "SECONDS",
          value_parser = at_least::<1>)]
    job_time_limit_seconds: u64,
    /// How long a job may take to end after SIGTERM, in seconds, before it is killed
    #[arg(long, env = "JOB_KILL_GRACE_SECONDS", default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    job_kill_grace_seconds: Duration,
    /// How much of each of stdout and stderr is kept, in bytes: the beginning and the end
    #[arg(long, env = "OUTPUT_LOG_BYTES_MAX", default_value_t = 16 * 1024 * 1024, value_name = "BYTES",
          value_parser = at_least::<4_096>)]
    output_log_bytes_max: u64,
    /// How long running jobs may take to finish after SIGTERM, in seconds, before the daemon leaves them to the next
    /// start
    #[arg(long, env = "DRAIN_TIMEOUT_SECONDS", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    drain_timeout_seconds: Duration,
    /// After how long without a sign of life, in seconds, the jobs of another daemon on the same RESULTS_DIR are taken
    /// over
    #[arg(long, env = "CLAIM_STALE_SECONDS", default_value = "300", value_name = "SECONDS", value_parser = stale)]
    claim_stale_seconds: Duration,
}

/// The settings of `hpc-consumer run`, as given.
#[derive(Debug, Args)]
pub(crate) struct RunSettings {
    /// Exit once the queue is empty and nothing is left to do
    #[arg(long)]
    exit_when_idle: bool,
    /// Check the settings, print what follows from them, and exit; nothing is tried
    #[arg(long)]
    pub(crate) check: bool,
    /// Use a STATE_DIR that was last used on another host, which is known to be down
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    state: StateSettings,
    #[command(flatten)]
    jobs: JobSettings,
    #[command(flatten)]
    runtime: RuntimeSettings,
    #[command(flatten)]
    queue: QueueSettings,
}

/// The settings of `hpc-consumer command`.
#[derive(Debug, Args)]
pub(crate) struct ShowCommand {
    /// The directory that the command sees as its job directory
    #[arg(long, value_name = "DIR")]
    job_dir: PathBuf,
    #[command(flatten)]
    runtime: RuntimeSettings,
}

/// Everything that the daemon needs to know, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: queues::Endpoint,
    pub(crate) jobs_queue: String,
    pub(crate) results_queue: String,
    pub(crate) results_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) take_over: bool,
    pub(crate) claim_stale: Duration,
    pub(crate) runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) lifecycle: lifecycle::Settings,
}

impl Settings {
    /// What a person wants to see of them, on one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} slots, runtime {}, command {}, results in {}, state in {}, queues at {}",
            self.lifecycle.slots,
            self.runtime.kind(),
            self.runtime.describe(),
            self.results_dir.display(),
            self.state_dir.display(),
            self.endpoint.base_url
        )
    }
}

impl RunSettings {
    pub(crate) fn resolve(self) -> anyhow::Result<Settings> {
        let Self { exit_when_idle, check: _, take_over, state, jobs, runtime, queue } = self;
        let mut needed = Needed::default();
        let results_dir = needed.take(jobs.results_dir, "RESULTS_DIR", "the directory for job directories and records");
        let account_id = needed.take(queue.cf_account_id, "CF_ACCOUNT_ID", "the id of the Cloudflare account");
        let jobs_queue = needed.take(queue.cf_jobs_queue_id, "CF_JOBS_QUEUE_ID", "the id of the queue hpc-jobs");
        let results_queue =
            needed.take(queue.cf_results_queue_id, "CF_RESULTS_QUEUE_ID", "the id of the queue hpc-results");
        let api_token = needed.take(
            queue.cf_queues_api_token,
            "CF_QUEUES_API_TOKEN",
            "an API token with the permission Queues: Edit",
        );
        needed.check()?;
        let endpoint = queues::Endpoint { base_url: queue.cf_api_base_url, account_id, api_token };
        endpoint.url()?;
        let results_dir = absolute(&results_dir, "RESULTS_DIR")?;
        let slots = match jobs.max_parallel_jobs {
            Some(count) => count as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Settings {
            endpoint,
            jobs_queue,
            results_queue,
            runtime: runtime.resolve(&results_dir)?,
            results_dir,
            state_dir: state.resolve()?,
            take_over,
            claim_stale: jobs.claim_stale_seconds,
            limits: Limits {
                time: Duration::from_secs(jobs.job_time_limit_seconds),
                grace: jobs.job_kill_grace_seconds,
                log_bytes: jobs.output_log_bytes_max,
            },
            lifecycle: lifecycle::Settings {
                slots,
                batch_size: queue.batch_size.into(),
                poll_interval: queue.poll_interval_seconds,
                poll_interval_max: queue.poll_interval_max_seconds,
                lease: Duration::from_millis(queue.visibility_timeout_ms),
                retry_delay: Duration::from_secs(queue.retry_delay_seconds),
                // Often enough to see a daemon's end soon after its time, and seldom enough for thousands of jobs.
                claim_patience: (jobs.claim_stale_seconds / 4).clamp(CLAIM_PATIENCE_MIN, CLAIM_PATIENCE_MAX),
                drain_timeout: jobs.drain_timeout_seconds,
                exit_when_idle,
            },
        })
    }
}

impl StateSettings {
    fn resolve(self) -> anyhow::Result<PathBuf> {
        if let Some(directory) = non_empty(self.state_dir) {
            return absolute(&directory, "STATE_DIR");
        }
        let variable =
            |name: &str| non_empty(std::env::var_os(name).map(PathBuf::from)).filter(|path| path.is_absolute());
        let base = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        match base {
            // A home directory is shared by the machines of a cluster, a state is not.
            Some(base) => Ok(base.join("hpc-queue").join(crate::host())),
            None => bail!(
                "STATE_DIR is not set, and neither is HOME; it is the directory in which the daemon keeps its state"
            ),
        }
    }
}

impl ShowState {
    pub(crate) fn resolve(self) -> anyhow::Result<(PathBuf, Format)> {
        let format = match self.output {
            OutputChoice::Text => Format::Text,
            OutputChoice::Json => Format::Json,
        };
        Ok((self.state.resolve()?, format))
    }
}

impl RuntimeSettings {
    fn resolve(self, mounted: &Path) -> anyhow::Result<Runtime> {
        let command = words(&self.container_cmd, "CONTAINER_CMD")?;
        if command.is_empty() {
            bail!("CONTAINER_CMD is empty; it names the program that every job runs");
        }
        let inherited = from_environment(&INHERITED);
        if self.runtime == RuntimeChoice::Bare {
            return Ok(Runtime::Bare(Bare { command, inherited }));
        }
        if mounted.to_string_lossy().contains([':', ',']) {
            bail!("{} holds a ':' or ',', which apptainer cannot mount; choose another directory", mounted.display());
        }
        let oci_ref = self.apptainer_oci_ref.filter(|oci_ref| !oci_ref.is_empty());
        let image = match (non_empty(self.apptainer_image), &oci_ref) {
            (Some(image), _) => std::path::absolute(image)?,
            (None, Some(_)) => mounted.join("image.sif"),
            (None, None) => bail!(
                "APPTAINER_IMAGE is not set: it is the .sif file that jobs run in; or set APPTAINER_OCI_REF to pull one, \
                 or RUNTIME=bare to run without a container"
            ),
        };
        let binds = self.apptainer_bind.unwrap_or_default();
        let arguments = words(&self.apptainer_args.unwrap_or_default(), "APPTAINER_ARGS")?;
        let unpacked = non_empty(self.apptainer_unpack_dir).map(|directory| unpacked(&directory, &arguments));
        Ok(Runtime::Apptainer(Apptainer {
            program: apptainer(self.apptainer_bin, &inherited)?,
            image,
            oci_ref,
            binds: binds.split(',').map(str::trim).filter(|bind| !bind.is_empty()).map(str::to_owned).collect(),
            arguments,
            command,
            as_root: rustix::process::geteuid().is_root(),
            inherited,
            proxies: from_environment(&PROXIES),
            unpacked: unpacked.transpose()?,
        }))
    }
}

fn unpacked(directory: &Path, arguments: &[String]) -> anyhow::Result<Unpacked> {
    Unpacked::new(absolute(directory, "APPTAINER_UNPACK_DIR")?, arguments).map_err(anyhow::Error::msg)
}

/// A path that stays the same wherever the daemon works.
fn absolute(path: &Path, setting: &str) -> anyhow::Result<PathBuf> {
    if path.starts_with("~") {
        bail!("{setting} begins with ~, which only a shell expands; write the whole path");
    }
    Ok(std::path::absolute(path)?)
}

impl ShowCommand {
    /// The command line, quoted for a shell.
    pub(crate) fn render(self) -> anyhow::Result<String> {
        let job_dir = std::path::absolute(&self.job_dir)?;
        if !job_dir.is_dir() {
            tracing::warn!(
                "the directory {} is not there; make it, with the job in its input.json, before you run the command",
                job_dir.display()
            );
        }
        let job_id = protocol::JobId::from_random([0; 16]);
        let command = self.runtime.resolve(&job_dir)?.command(&job_id, &job_dir);
        Ok(command.to_shell_line())
    }
}

/// How this program was started; to be called before a settings file is read into its environment.
pub(crate) fn invocation() -> Invocation {
    Invocation::new(std::env::args_os().skip(1).collect(), std::env::vars_os().collect())
}

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

fn from_environment(names: &[&str]) -> Vec<(OsString, OsString)> {
    let value = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(if name == "PATH" { absolute_entries(&value) } else { value })
    };
    names.iter().filter_map(|name| Some((OsString::from(name), value(name)?))).collect()
}

/// Apptainer is looked for once: what a job does must not change which program it is.
fn apptainer(program: PathBuf, inherited: &[(OsString, OsString)]) -> anyhow::Result<PathBuf> {
    if program.components().count() > 1 {
        return absolute(&program, "APPTAINER_BIN");
    }
    let path = inherited.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    // One that is not there may come; the probe says what is to be done.
    Ok(path.and_then(|path| on_path(path, &program)).unwrap_or(program))
}

/// Settings that have no default. All that are missing are told at once.
#[derive(Default)]
struct Needed(Vec<String>);

impl Needed {
    /// The setting, or an empty value of which [`Self::check`] then tells.
    fn take<T: Default + AsRef<std::ffi::OsStr>>(&mut self, value: Option<T>, name: &str, what: &str) -> T {
        non_empty(value).unwrap_or_else(|| {
            self.0.push(format!("{name} ({what})"));
            T::default()
        })
    }

    fn check(self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!(
            "these settings are missing: {}; set them in the environment, in ./.env, in a file for --env-file, or by flags",
            self.0.join(", ")
        )
    }
}

fn non_empty<T: AsRef<std::ffi::OsStr>>(value: Option<T>) -> Option<T> {
    value.filter(|value| !value.as_ref().is_empty())
}

fn words(text: &str, name: &str) -> anyhow::Result<Vec<String>> {
    shell_words::split(text).with_context(|| format!("{name} cannot be split into words: {text}"))
}

/// Seconds with fractions, as `0.5`; at most a day, which is more than any of these settings means.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= Duration::from_hours(24) => Ok(duration),
        _ => Err("it must be 0 to 86400 seconds".to_owned()),
    }
}

/// A whole number without an upper bound.
fn at_least<const MIN: u64>(text: &str) -> Result<u64, String> {
    let number: u64 = text.parse().map_err(|_| "it is not a whole number".to_owned())?;
    if number < MIN {
        return Err(format!("it must be at least {MIN}"));
    }
    Ok(number)
}

/// Seconds between requests: without a pause, an empty queue costs a day's allowance within seconds.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = seconds(text)?;
    if pause < POLL_INTERVAL_MIN {
        return Err(format!("it must be {} seconds or more", POLL_INTERVAL_MIN.as_secs_f64()));
    }
    Ok(pause)
}

/// A sign of life is given six times within this, over a network file system.
fn stale(text: &str) -> Result<Duration, String> {
    let stale = seconds(text)?;
    if stale < Duration::from_secs(1) {
        return Err("it must be 1 second or more".to_owned());
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_is_documented_and_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_take_fractions_and_nothing_negative() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(["-1", "x", "inf", "1e19"].iter().all(|text| seconds(text).is_err()));
        assert!(pause("0").is_err() && pause("0.05").is_ok());
    }

    #[test]
    fn a_variable_that_is_empty_is_not_asked() {
        let all = Cli::command();
        let few = without_variables(Cli::command(), &|name| name == "RESULTS_DIR" || name == "HPC_QUEUE_LOG");
        let asks = |command: &clap::Command, name: &str| {
            command.get_arguments().any(|arg| arg.get_env() == Some(OsStr::new(name)))
        };
        let run = |command: &clap::Command, name: &str| asks(command.find_subcommand("run").unwrap(), name);
        assert!(asks(&all, "HPC_QUEUE_LOG") && run(&all, "RESULTS_DIR"));
        assert!(!asks(&few, "HPC_QUEUE_LOG") && !run(&few, "RESULTS_DIR"));
        assert!(asks(&few, "HPC_QUEUE_LOG_FORMAT") && run(&few, "STATE_DIR"));

        let told = without_variables(Cli::command(), &|_| true).try_get_matches_from(["hpc-consumer", "run"]);
        let Command::Run(settings) = Cli::from_arg_matches(&told.unwrap()).unwrap().command else { panic!("run") };
        assert_eq!((settings.jobs.results_dir, settings.queue.batch_size), (None, 100));
    }

    #[test]
    fn a_number_without_an_upper_bound_is_told_its_lower_one_only() {
        let read = |seconds: &str| {
            let told = without_variables(Cli::command(), &|_| true);
            told.try_get_matches_from(["hpc-consumer", "run", "--job-time-limit-seconds", seconds])
        };
        let text = read("0").unwrap_err().to_string();
        assert!(text.contains("it must be at least 1") && !text.contains("18446744073709551615"), "{text}");
        assert!(read("1").is_ok() && read("1.5").is_err());
    }
}
