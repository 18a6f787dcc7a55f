//! The settings: their names, defaults and meaning. Precedence: flag, environment, settings file, default; see
//! `program::read` for names that other programs use as well.
//!
//! Invariant: nothing else in this program reads the environment, and here only `environment` and clap do.

mod environment;
mod link;
mod runtime;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allowance::Whose;
use anyhow::{Context as _, anyhow, bail};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use doctor::queue::{Named, Role};
use program::duration::{self, Unit};
use program::{
    Bare as BareName, Files, Origins, Shared, Sources, TrustArgs, TrustedGroup, UserDirectory, counted, user_directory,
    whole,
};
use protocol::{Memory, PoolName, limits, size};

pub(crate) use self::environment::{
    environment, environment_of_broker, environment_of_slurm, has_program, invocation, on_our_path,
};
use self::link::LinkSettings;
pub(crate) use self::runtime::{NetworkSettings, RuntimeSettings};
use crate::doctor::Queues;
use crate::link::Target;
use crate::metrics;
use crate::run::{Kit, Required, Runtime, shared_overlay};
use crate::site::SiteOf;

/// How often a job that another daemon holds is looked at.
const CLAIM_PATIENCE_MIN: Duration = Duration::from_millis(250);
const CLAIM_PATIENCE_MAX: Duration = Duration::from_secs(60);

/// The shortest pause between two pulls: without one, an empty queue costs a day's allowance within seconds.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// A sign of life is given six times within this, over a network file system.
const CLAIM_STALE_MIN: Duration = Duration::from_secs(1);

/// The shortest lease that a pull can ask for.
const LEASE_MIN: Duration = Duration::from_millis(1);

/// More than any pause or patience means.
const DAY: Duration = Duration::from_hours(24);

/// Where the settings come from. A site's module may set `APPTAINER_BIND` for everything that runs under Apptainer.
pub(crate) const SOURCES: Sources =
    Sources { files: Files::Dotenv, shared: &[Shared { name: "APPTAINER_BIND", bare: BareName::Counts }] };

/// Where the daemon remembers what it has promised.
#[derive(Debug, Args)]
pub(crate) struct StateSettings {
    /// Where the daemon keeps its state, one directory for each daemon [default: ~/.local/state/hpc-queue/HOST]
    ///
    /// It must outlive the daemon and the machine. A home directory on NFS, Lustre or GPFS will do. Where
    /// XDG_STATE_HOME is set, the default is $XDG_STATE_HOME/hpc-queue/HOST.
    #[arg(long, env = "STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Where the queues are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queues")]
struct QueueSettings {
    /// The address of the Cloudflare API, or of local-edge, which may be a Unix socket as unix:/PATH
    #[arg(long, env = "CF_API_BASE_URL", default_value = "https://api.cloudflare.com/client/v4", value_name = "URL")]
    cf_api_base_url: String,
    /// Send the token by plain http also to other machines, and to other users of this one
    ///
    /// Without it, plain http goes only to a loopback address where you or root listen, as local-edge and SSH tunnels
    /// do. Whoever is on the way, or listens there, gets what is sent.
    #[arg(long, env = "ALLOW_PLAIN_HTTP", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    allow_plain_http: bool,
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
    /// The file whose only line is that API token: other users of the machine can see flags
    #[arg(long = "token-file", env = "CF_QUEUES_API_TOKEN_FILE", value_name = "FILE")]
    _token_file: Option<PathBuf>,
    /// The most messages in one pull
    #[arg(long, env = "BATCH_SIZE", default_value_t = 100, value_name = "COUNT",
          value_parser = |text: &str| whole(text, 1..=limits::BATCH_COUNT_MAX as u64))]
    batch_size: u64,
    /// How long the queue hides a pulled message, up to 12 hours; a job may run for longer. A plain number is
    /// milliseconds
    #[arg(long, env = "VISIBILITY_TIMEOUT_MS", default_value = "43200000", value_name = "DURATION",
          value_parser = |text: &str| duration::parse(text, Unit::Milliseconds, LEASE_MIN..=limits::VISIBILITY_TIMEOUT_MAX))]
    visibility_timeout_ms: Duration,
    /// After an empty pull, wait this long; doubles with each further one
    #[arg(long, env = "POLL_INTERVAL_SECONDS", default_value = "2", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, POLL_INTERVAL_MIN..=DAY))]
    poll_interval_seconds: Duration,
    /// The longest wait between two pulls of an empty queue
    #[arg(long, env = "POLL_INTERVAL_MAX_SECONDS", default_value = "30", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, POLL_INTERVAL_MIN..=DAY))]
    poll_interval_max_seconds: Duration,
    /// How many operations of the queues the account has a day, of which the daemons of a site spend half at most: a
    /// number, or none where there is no end to them [default: 10000, those of the free plan; none for another service]
    ///
    /// An operation is 64 KB of a message written, read or deleted, or a look at an empty queue; see docs/costs.md. As
    /// they are spent, an empty queue is asked more rarely, and at the end no jobs are taken until 00:00 UTC; results
    /// are published all the same.
    #[arg(long, env = "OPS_PER_DAY", value_name = "COUNT", value_parser = program::operations)]
    ops_per_day: Option<program::Operations>,
    /// How long a job stays in the queue after this node could not run it
    #[arg(long, env = "RETRY_DELAY_SECONDS", default_value = "60", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, Duration::ZERO..=limits::DELAY_MAX))]
    retry_delay_seconds: Duration,
    /// Run a message that is plainly a job and names no task as this task; without it, such a message is rejected
    ///
    /// The system that this one replaces had one task for all jobs.
    #[arg(long, env = "DEFAULT_TASK", value_name = "TASK", value_parser = task)]
    default_task: Option<String>,
}

fn task(text: &str) -> Result<String, String> {
    let job = serde_json::json!({ "task": text }).to_string();
    protocol::JobSpec::parse(&job).map(|job| job.task).map_err(|error| error.to_string())
}

/// What may run at this site, in a file of its own.
#[derive(Debug, Args)]
pub(crate) struct SiteSettings {
    /// The file that says what this site runs, and where; see docs/site.md
    ///
    /// Without it one pool runs every task, as the settings of the runtime say; with it, these do not count.
    #[arg(long, env = "SITE_FILE", value_name = "FILE")]
    site_file: Option<PathBuf>,
}

/// What a job may use, if nothing else is said.
#[derive(Debug, Args)]
#[command(next_help_heading = "Jobs")]
pub(crate) struct LimitSettings {
    /// The longest that a job may run; a job may ask for less
    #[arg(long, env = "JOB_TIME_LIMIT_SECONDS", default_value = "604800", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, Duration::from_secs(1)..=Duration::MAX))]
    job_time_limit_seconds: Duration,
    /// How long a job may take to end after SIGTERM before it is killed
    #[arg(long, env = "JOB_KILL_GRACE_SECONDS", default_value = "10", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, Duration::ZERO..=DAY))]
    job_kill_grace_seconds: Duration,
    /// How much memory all processes of a job together may use, for example 2GiB; no limit without it
    ///
    /// A job that uses more is ended, with reason memory_limit: by the kernel where that can be had, and else by a
    /// watch that looks once a second.
    #[arg(long, env = "JOB_MEMORY_LIMIT", value_name = "SIZE",
          value_parser = |text: &str| text.parse::<Memory>().map_err(|error| format!("it {error}")))]
    job_memory_limit: Option<Memory>,
    /// How much of each of stdout and stderr is kept, in bytes: the beginning and the end
    #[arg(long, env = "OUTPUT_LOG_BYTES_MAX", default_value_t = 16 * 1024 * 1024, value_name = "BYTES",
          value_parser = |text: &str| whole(text, 4_096..=u64::MAX))]
    output_log_bytes_max: u64,
}

/// Files that travel with jobs, through the store of the edge.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// How much of the files that jobs have needed is kept in RESULTS_DIR for others; what was used longest ago goes
    ///
    /// It is more while more is in use, and less on a full disk. All daemons of one RESULTS_DIR should say the same.
    #[arg(long, env = "FILES_CACHE_BYTES", default_value = "50GB", value_name = "SIZE", value_parser = bytes)]
    files_cache_bytes: u64,
    /// How much of what a job leaves may travel; a job whose outputs are more fails, and they stay in its directory
    #[arg(long, env = "OUTPUT_FILES_BYTES_MAX", default_value = "100GB", value_name = "SIZE", value_parser = bytes)]
    output_files_bytes_max: u64,
}

impl FileArgs {
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.files_cache_bytes
    }

    pub(crate) fn output_bytes_max(&self) -> u64 {
        self.output_files_bytes_max
    }
}

/// Jobs and their limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Jobs")]
pub(crate) struct JobSettings {
    /// Where job directories and final records are kept
    #[arg(long, env = "RESULTS_DIR", value_name = "DIR")]
    results_dir: Option<PathBuf>,
    /// How many jobs run at the same time [default: the number of cores]
    #[arg(long, env = "MAX_PARALLEL_JOBS", value_name = "COUNT",
          value_parser = |text: &str| whole(text, 1..=100_000))]
    max_parallel_jobs: Option<u64>,
    #[command(flatten)]
    limits: LimitSettings,
    /// How long running jobs may take to finish after SIGTERM before the daemon leaves them to the next start
    #[arg(long, env = "DRAIN_TIMEOUT_SECONDS", default_value = "60", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, Duration::ZERO..=DAY))]
    drain_timeout_seconds: Duration,
    /// After how long without a sign of life the jobs of another daemon on the same RESULTS_DIR are taken over
    #[arg(long, env = "CLAIM_STALE_SECONDS", default_value = "300", value_name = "DURATION",
          value_parser = |text: &str| seconds(text, CLAIM_STALE_MIN..=DAY))]
    claim_stale_seconds: Duration,
    /// What the isolation of jobs must have, or this node takes none: a list, separated by commas
    ///
    /// What is not demanded and cannot be had is left out, and told at the start.
    #[arg(long, env = "REQUIRE", value_delimiter = ',', value_name = "LIST")]
    require: Vec<Required>,
}

/// The settings of `hpc-consumer run`, as given.
#[derive(Debug, Args)]
pub(crate) struct RunSettings {
    /// Exit once the queue is empty and nothing is left to do
    #[arg(long)]
    exit_when_idle: bool,
    /// Check the settings, try whether a job could run here, print what follows, and exit; no job is taken
    #[arg(long)]
    pub(crate) check: bool,
    /// Use a STATE_DIR that was last used on another host, which is known to be down
    #[arg(long)]
    take_over: bool,
    /// Run as root, which is refused otherwise: jobs would be root's, too
    ///
    /// For where there is no other user, as in a container or on a machine for tests.
    #[arg(long, env = "ALLOW_ROOT", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    allow_root: bool,
    /// Show Prometheus how things are, in this file for the textfile collector of node_exporter; it ends in .prom
    ///
    /// It is written every 15 seconds, for everybody to read; see docs/operations.md.
    #[arg(long, env = "METRICS_FILE", value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    state: StateSettings,
    #[command(flatten)]
    site: SiteSettings,
    #[command(flatten)]
    jobs: JobSettings,
    #[command(flatten)]
    runtime: RuntimeSettings,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    queue: QueueSettings,
    #[command(flatten)]
    link: LinkSettings,
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
    /// Where Prometheus is shown how things are.
    pub(crate) metrics_file: Option<PathBuf>,
    pub(crate) trust: TrustedGroup,
    pub(crate) claim_stale: Duration,
    /// What jobs run, and where: as a site's file says it, or the other settings.
    pub(crate) site: Arc<site::Site>,
    pub(crate) kit: Kit,
    pub(crate) require: Vec<Required>,
    /// How much memory all processes of a job together may use, where nothing else is said.
    pub(crate) memory: Option<u64>,
    /// How much travels with jobs.
    pub(crate) files: FileArgs,
    /// Where the hub is, if there is to be a link.
    pub(crate) link: Option<Target>,
    pub(crate) lifecycle: lifecycle::Settings,
}

impl Settings {
    /// What a person wants to see of them, on one line.
    pub(crate) fn summary(&self) -> String {
        let what = match self.only_runtime() {
            Some(runtime) => format!("runtime {}, command {}", runtime.kind(), runtime.describe()),
            None => {
                let pools: Vec<&str> = self.site.pools.keys().map(PoolName::as_str).collect();
                format!("pools {}", pools.join(", "))
            }
        };
        format!(
            "{}, {what}, results in {}, state in {}, queues at {}",
            counted(self.site.slots(), "slot"),
            self.results_dir.display(),
            self.state_dir.display(),
            self.endpoint.base_url
        )
    }

    /// What a person is to know of jobs without a container.
    pub(crate) fn runtime_warnings(&self) -> Vec<String> {
        let plans = self.site.pools.keys().filter_map(|pool| self.site.plans(pool).into_iter().next());
        plans.filter_map(|plan| self.kit.runtime(&self.site, &plan).warning()).collect()
    }

    /// What all jobs run in, where the settings say it and no site's file.
    pub(crate) fn only_runtime(&self) -> Option<Runtime> {
        let plan = self.site.plans(&PoolName::default()).pop().filter(|_| !self.kit.from_file)?;
        Some(self.kit.runtime(&self.site, &plan))
    }
}

impl RunSettings {
    /// A program that nobody has read would do what it likes with the machine, and a mistake of ours as well.
    pub(crate) fn refuse_root(&self) -> anyhow::Result<()> {
        if self.allow_root || !program::is_root() {
            return Ok(());
        }
        bail!(
            "this is root, and so would be every job: start hpc-consumer as an ordinary user, who needs no right for it; where there is none, say --allow-root, or ALLOW_ROOT=1"
        )
    }

    /// Where the queues are, as far as it is said; what is missing, [`Self::resolve`] tells.
    pub(crate) fn queues(&self, origins: &Origins) -> Option<Queues> {
        let QueueSettings { cf_account_id, cf_jobs_queue_id, cf_results_queue_id, cf_queues_api_token, .. } =
            &self.queue;
        let endpoint = queues::Endpoint {
            base_url: self.queue.cf_api_base_url.clone(),
            account_id: cf_account_id.clone()?,
            api_token: cf_queues_api_token.clone()?,
            api_token_origin: origins.named("CF_QUEUES_API_TOKEN"),
            plain_http: queues::PlainHttp::allowed_anywhere(self.queue.allow_plain_http),
        };
        let named =
            |role: Role, id: &Option<String>| Named { role, subject: origins.named(role.setting()), id: id.clone() };
        let named = vec![named(Role::Jobs, cf_jobs_queue_id), named(Role::Results, cf_results_queue_id)];
        Some(Queues { endpoint, account: origins.named("CF_ACCOUNT_ID"), named })
    }

    /// The site's file, where there is one.
    pub(crate) fn site_of(&self, origins: &Origins) -> Option<SiteOf> {
        let file = absolute(self.site.site_file.as_ref()?, "SITE_FILE", origins).ok()?;
        Some(SiteOf { file, defaults: self.jobs.limits.site_defaults(self.runtime.network()) })
    }

    /// What is right, and may not be meant.
    pub(crate) fn notices(&self, origins: &Origins) -> Vec<String> {
        let image = self.runtime.apptainer_image.as_ref().filter(|image| image.is_relative());
        let notice = image.and_then(|image| {
            let whole = std::path::absolute(image).ok()?;
            Some(format!(
                "{} is {}, which is another file wherever the daemon is started; here it is {}",
                origins.named("APPTAINER_IMAGE"),
                image.display(),
                whole.display()
            ))
        });
        notice.into_iter().collect()
    }

    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<Settings> {
        let Self {
            exit_when_idle,
            check: _,
            take_over,
            allow_root: _,
            metrics_file,
            trust,
            state,
            site,
            jobs,
            runtime,
            files,
            queue,
            link,
        } = self;
        let (mut needed, slots) = (Needed::default(), jobs.slots());
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
        if jobs_queue == results_queue {
            bail!(
                "CF_JOBS_QUEUE_ID and CF_RESULTS_QUEUE_ID are the same queue, {jobs_queue}: results would come back as jobs; set each to the id of its own queue"
            );
        }
        let api_token_origin = origins.named("CF_QUEUES_API_TOKEN");
        let (base_url, plain_http) =
            (queue.cf_api_base_url, queues::PlainHttp::allowed_anywhere(queue.allow_plain_http));
        let endpoint = queues::Endpoint { base_url, account_id, api_token, api_token_origin, plain_http };
        endpoint.address().with_context(|| origins.named("CF_API_BASE_URL"))?;
        endpoint.check_token()?;
        let results_dir = absolute(&results_dir, "RESULTS_DIR", origins)?;
        let state_dir = state.resolve(origins)?;
        let metrics_file = metrics_file.map(|file| self::metrics_file(&file, origins)).transpose()?;
        let defaults = jobs.limits.site_defaults(runtime.network());
        let (site, kit) = site_and_kit(site, runtime, (&results_dir, &state_dir), slots, defaults, origins)?;
        let per_day = program::Operations::or_of_the_plan(queue.ops_per_day, &endpoint.base_url);
        let operations_per_day = per_day.map(|count| Whose::Site.part_of(count));
        Ok(Settings {
            endpoint,
            jobs_queue,
            results_queue,
            site: site.clone(),
            kit,
            results_dir,
            state_dir,
            take_over,
            metrics_file,
            trust: trust.resolve()?,
            claim_stale: jobs.claim_stale_seconds,
            require: jobs.require,
            memory: jobs.limits.job_memory_limit.map(Memory::bytes),
            files,
            link: link.target(plain_http, origins)?,
            lifecycle: lifecycle::Settings {
                site,
                default_task: queue.default_task,
                batch_size: queue.batch_size as usize,
                poll_interval: queue.poll_interval_seconds,
                poll_interval_max: queue.poll_interval_max_seconds,
                linked_poll_interval: link.linked_poll_interval_seconds,
                operations_per_day,
                lease: queue.visibility_timeout_ms,
                retry_delay: queue.retry_delay_seconds,
                // Often enough to see a daemon's end soon after its time, and seldom enough for thousands of jobs.
                claim_patience: (jobs.claim_stale_seconds / 4).clamp(CLAIM_PATIENCE_MIN, CLAIM_PATIENCE_MAX),
                drain_timeout: jobs.drain_timeout_seconds,
                exit_when_idle,
                life: format!("{:08x}", fastrand::u32(..)),
            },
        })
    }
}

/// What this site runs, and what runs are begun with: as a site's file says it, or the other settings.
fn site_and_kit(
    site: SiteSettings,
    runtime: RuntimeSettings,
    (results_dir, state_dir): (&Path, &Path),
    slots: usize,
    defaults: site::Defaults,
    origins: &Origins,
) -> anyhow::Result<(Arc<site::Site>, Kit)> {
    let (site, settings) = match site.site_file {
        Some(file) => {
            let file = absolute(&file, "SITE_FILE", origins)?;
            (SiteOf { file, defaults }.site()?, None)
        }
        None => {
            let count = u32::try_from(slots).unwrap_or(u32::MAX);
            let settings = runtime.site(results_dir, count, defaults, origins)?;
            (site::Site::from_settings(&settings), Some(settings))
        }
    };
    if site.pools.values().any(|pool| pool.runtime == site::Runtime::Apptainer) {
        runtime::refuse_what_cannot_be_mounted(results_dir)?;
    }
    let kit = runtime.kit(results_dir, || Ok(state_dir.to_owned()), settings.as_ref(), origins)?;
    if let Some(overlay) =
        settings.iter().find_map(|settings| shared_overlay(&settings.arguments)).filter(|_| slots > 1)
    {
        bail!(
            "APPTAINER_ARGS has --overlay {overlay}, to which {slots} jobs would write at the same time, and lose each \
             other's writes; add :ro to it, or set MAX_PARALLEL_JOBS=1, or bind a directory with APPTAINER_BIND"
        );
    }
    Ok((Arc::new(site), kit))
}

/// What says where jobs run, without the queue that they come from.
#[derive(Debug, Args)]
pub(crate) struct PlaceSettings {
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    state: StateSettings,
    #[command(flatten)]
    site: SiteSettings,
    #[command(flatten)]
    jobs: JobSettings,
    #[command(flatten)]
    runtime: RuntimeSettings,
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) site: Arc<site::Site>,
    pub(crate) kit: Kit,
    pub(crate) results_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) trust: TrustedGroup,
}

impl PlaceSettings {
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<Place> {
        let Self { trust, state, site, jobs, runtime } = self;
        let (mut needed, slots) = (Needed::default(), jobs.slots());
        let results_dir = needed.take(jobs.results_dir, "RESULTS_DIR", "the directory for job directories and records");
        needed.check()?;
        let results_dir = absolute(&results_dir, "RESULTS_DIR", origins)?;
        let state_dir = state.resolve(origins)?;
        let defaults = jobs.limits.site_defaults(runtime.network());
        let (site, kit) = site_and_kit(site, runtime, (&results_dir, &state_dir), slots, defaults, origins)?;
        Ok(Place { site, kit, results_dir, state_dir, trust: trust.resolve()? })
    }
}

impl SiteSettings {
    /// The file that an argument names, or else the setting.
    pub(crate) fn file(self, named: Option<PathBuf>, origins: &Origins) -> anyhow::Result<PathBuf> {
        match (named, self.site_file) {
            (Some(path), _) => Ok(path),
            (None, Some(path)) => absolute(&path, "SITE_FILE", origins),
            (None, None) => bail!(
                "no site's file is named: give one, or set SITE_FILE; `hpc-consumer site init` prints a first one"
            ),
        }
    }
}

impl LimitSettings {
    /// What counts where a site's file says nothing.
    pub(crate) fn site_defaults(&self, network: bool) -> site::Defaults {
        site::Defaults {
            time_limit: self.job_time_limit_seconds,
            grace: self.job_kill_grace_seconds,
            log_max: self.output_log_bytes_max,
            network,
            cpus: u32::try_from(cores()).unwrap_or(u32::MAX),
        }
    }
}

impl JobSettings {
    fn slots(&self) -> usize {
        self.max_parallel_jobs.map_or_else(cores, |count| count as usize)
    }

    /// What these settings say of how jobs run, as a site's file says it.
    pub(crate) fn site(self, runtime: RuntimeSettings, origins: &Origins) -> anyhow::Result<site::Settings> {
        let results_dir = match &self.results_dir {
            Some(results_dir) => absolute(results_dir, "RESULTS_DIR", origins)?,
            None if runtime.apptainer_image.is_none() && runtime.apptainer_oci_ref.is_some() => {
                bail!("APPTAINER_IMAGE is not set, and neither is RESULTS_DIR, where the image would be pulled to")
            }
            // Nothing of it stands in the file.
            None => PathBuf::from("/"),
        };
        let (slots, defaults) =
            (u32::try_from(self.slots()).unwrap_or(u32::MAX), self.limits.site_defaults(runtime.network()));
        let settings = runtime.site(&results_dir, slots, defaults, origins)?;
        // What would be wrong at the start is told here as well.
        runtime.kit(&results_dir, || Ok(PathBuf::from("/")), Some(&settings), origins)?;
        Ok(settings)
    }
}

/// How many processors this machine has for us.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl StateSettings {
    pub(crate) fn resolve(&self, origins: &Origins) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.state_dir {
            return absolute(directory, "STATE_DIR", origins);
        }
        match user_directory(UserDirectory::State) {
            // A home directory is shared by the machines of a cluster, a state is not.
            Some(base) => Ok(base.join(crate::host())),
            None => bail!(
                "STATE_DIR is not set, and neither is HOME; it is the directory in which the daemon keeps its state"
            ),
        }
    }
}

/// A file that the collector of metrics reads.
fn metrics_file(file: &Path, origins: &Origins) -> anyhow::Result<PathBuf> {
    let file = absolute(file, "METRICS_FILE", origins)?;
    metrics::check(&file).map_err(|why| anyhow!("{}: {why}", origins.named("METRICS_FILE")))
}

/// A path that stays the same wherever the daemon works.
fn absolute(path: &Path, setting: &str, origins: &Origins) -> anyhow::Result<PathBuf> {
    if path.starts_with("~") {
        bail!("{} begins with ~, which only a shell expands; write the whole path", origins.named(setting));
    }
    Ok(std::path::absolute(path)?)
}

/// Settings that have no default. All that are missing are told at once.
#[derive(Default)]
struct Needed(Vec<String>);

impl Needed {
    /// The setting, or an empty value of which [`Self::check`] then tells.
    fn take<T: Default>(&mut self, value: Option<T>, name: &str, what: &str) -> T {
        value.unwrap_or_else(|| {
            self.0.push(format!("{name} ({what})"));
            T::default()
        })
    }

    fn check(self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!(
            "these settings are missing: {}; set them in ./.env, in a file for --env-file or --profile, in the environment, or by flags",
            self.0.join(", ")
        )
    }
}

/// A length of time in which a plain number counts seconds.
fn seconds(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, allowed)
}

/// An amount of bytes, with its unit or without.
fn bytes(text: &str) -> Result<u64, String> {
    size::parse_or_bytes(text).ok_or_else(|| "it must be an amount of bytes such as 500GB".to_owned())
}
