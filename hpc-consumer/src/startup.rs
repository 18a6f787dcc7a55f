//! The start of the daemon: what is there already is looked at and taken up, and what cannot work is refused before a
//! job is touched.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{Event, Lifecycle, Stage};
use program::{Exit, counted};
use protocol::{FailureClass, PoolName, hold, size};
use queues::Client;
use tokio::sync::watch;
use upkeep::{Listener, Notify};

use crate::config::{FileArgs, Settings};
use crate::consumers::Look;
use crate::daemon::{Daemon, Link};
use crate::events::{self, Events};
use crate::executor::{Executor, Here, Places};
use crate::inherited;
use crate::job::{self, Cancellations, FileSettings, JobFiles, ResultsDir, Tried};
use crate::keeper::{self, Keeper};
use crate::lease::{self, Lease};
use crate::link::{self, Desk};
use crate::pace::Pace;
use crate::process::{Clock, Signals, abort_on_panic};
use crate::run::{self, Invocation, Runtime, told};
use crate::services::Services;
use crate::slurm::{self, Slurm};
use crate::spending::Spending;
use crate::store::view::{self, About, Queue};
use crate::store::{self, StateLock, Store};
use crate::transfers::Transfers;
use crate::viewer::Viewer;

/// How often other daemons are shown that this one lives.
const BEAT_MIN: Duration = Duration::from_millis(100);
const BEAT_MAX: Duration = Duration::from_secs(5);

const FILES_CLEANED_EVERY: Duration = Duration::from_hours(6);

/// How long the daemon stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    UntilTold,
    /// Until all is done that can be done at once.
    OneRound,
}

/// Runs until told to end, until nothing can get better by itself, or for one round.
pub(crate) async fn run(settings: Settings, invocation: &Invocation, stay: Stay) -> anyhow::Result<End> {
    // From the first moment: a signal that nobody listens to would end this process, or be lost where it is process 1.
    let signals = Signals::listen()?;
    abort_on_panic();
    let http = queues::http_client(&settings.endpoint.address()?).context("cannot set up HTTPS")?;
    let client = Client::new(http, &settings.endpoint)?;
    let host = crate::host();
    let lock = StateLock::take(&settings.state_dir, &settings.trust, settings.take_over)?;
    let opened = Store::open(&settings.state_dir)?;
    if opened.entries.iter().any(|entry| entry.stage == Stage::Launching) {
        refuse_another_results_dir(&settings)?;
    }
    tracing::info!("hpc-consumer {} on {host}: {}", env!("CARGO_PKG_VERSION"), settings.summary());
    if opened.rebooted && !opened.entries.is_empty() {
        tracing::warn!("the machine was started anew since the last daemon ran here: what ran then is cut off");
    }
    let mut about = about(&settings);
    if let Some(warning) = inherited::warning() {
        tracing::warn!("{warning}");
    }
    for warning in settings.runtime_warnings() {
        tracing::warn!("{warning}");
    }
    let of_pools = settings.site.pools.values().any(|pool| pool.slot.memory.is_some());
    let most = [settings.memory.map(size::shown), of_pools.then(|| "its pool gives it".to_owned())];
    let most = most.into_iter().flatten().collect::<Vec<_>>().join(" or ");
    if !most.is_empty() {
        match run::groups_can_be_had() {
            Ok(()) => tracing::info!("the kernel ends each job whose processes together use more memory than {most}"),
            Err(why) => tracing::info!(
                "a watch ends each job whose processes together use more memory than {most}; the kernel enforces nothing of it: {why}"
            ),
        }
    }
    let results =
        ResultsDir::new(settings.results_dir).trusting(settings.trust).marked_by(&settings.state_dir, &opened.owner);
    if let Some(problem) = results.refused() {
        if !opened.entries.iter().any(|entry| entry.stage == Stage::Launching) {
            lock.release();
        }
        return Err(WrongSettings(problem).into());
    }
    let (heart, beat) = (results.heart(&opened.owner), (settings.claim_stale / 6).clamp(BEAT_MIN, BEAT_MAX));
    // To exit when there is nothing, the daemon has to hear itself that there is nothing.
    let shared = !settings.lifecycle.exit_when_idle;
    let pace = shared.then(|| Pace::new(&heart, &settings.jobs_queue, &opened.owner));
    let limited = settings.lifecycle.operations_per_day.is_some();
    let spending = limited.then(|| Spending::new(&heart, &settings.endpoint.account_id, &opened.owner));
    let grace = settings.site.defaults.grace;
    let of_allocations = keeper::Settings { heart: heart.clone(), beat, grace, umask: inherited::mask() };
    let keeper = Keeper::new(settings.state_dir.clone(), heart, beat, grace);
    let owner = opened.owner.clone();
    let file_settings = job_files(&settings.files, settings.link.as_ref())?;
    let files = JobFiles::new(
        results,
        settings.site.clone(),
        settings.kit,
        settings.require,
        settings.memory,
        host,
        opened.owner,
        settings.claim_stale,
    );
    let jobs = Arc::new(files.with_files(file_settings));
    if opened.rebooted {
        restore_records(&jobs, &opened.store).await?;
    }
    // A mistake in where results go is better met before a job has run for hours. All else is the loop's to wait for.
    let (backlog, look) = tokio::join!(
        client.backlog(&settings.results_queue),
        Look::take(&client, &settings.jobs_queue, &settings.results_queue)
    );
    let fatal = backlog.err().filter(|error| error.class == FailureClass::Fatal).map(anyhow::Error::new);
    if let Some(error) = fatal.or_else(|| look.wrong_ids().map(|why| WrongSettings(why).into())) {
        if !opened.entries.iter().any(|entry| entry.stage == Stage::Launching) {
            lock.release();
        }
        return Err(error);
    }
    look.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    for (queue, name) in [&mut about.jobs_queue, &mut about.results_queue].into_iter().zip(look.into_names()) {
        *queue = queue.take().map(|queue| Queue { name, ..queue });
    }
    if std::process::id() == 1 {
        crate::run::prepare();
    }
    let clock = Clock::start();
    let lifecycle = Lifecycle::restore(settings.lifecycle.clone(), opened.entries, clock.now());
    if lifecycle.held() > 0 {
        let owed = lifecycle.owed();
        let (jobs, results) = (counted(lifecycle.held() - owed, "job"), counted(owed, "result"));
        tracing::info!("taking up what an earlier daemon left: {jobs}, {results} owed");
    }
    let (events, queue) = events::channel();
    let slurm = if slurm::has_pools(&settings.site) {
        let (site, commands) = (settings.site.clone(), slurm::Commands::new());
        let of = &settings.state_dir;
        Some(Slurm::open(of, site, &owner, of_allocations, commands, events.clone(), clock).await?)
    } else {
        None
    };
    let quantum = Lease::open(&settings.state_dir, &settings.site, settings.trust)?;
    if let Some(quantum) = &quantum {
        quantum.tend(events.clone(), jobs.clone());
    }
    tokio::spawn(watch_cancellations(jobs.cancellations(), events.clone()));
    jobs.clean_files(false).await;
    tokio::spawn(clean_files(jobs.clone()));
    let transfers = Transfers::new(jobs.clone(), events.clone());
    let under_way = transfers.under_way();
    let store = opened.store;
    let desk = match settings.link {
        Some(target) => {
            Some(link::begin(target, settings.state_dir.clone(), jobs.clone(), store.clone(), under_way.clone())?)
        }
        None => None,
    };
    let shown = desk.as_ref().map(Desk::shown);
    let in_slurm = slurm.clone();
    let executor: Arc<dyn Executor + Send + Sync> = match slurm {
        Some(slurm) => Arc::new(Places::new(keeper, events.clone(), slurm)),
        None => Arc::new(Here::new(keeper, events.clone())),
    };
    let services = Arc::new(Services::new(jobs.clone(), settings.site.clone(), events.clone()));
    let looked_at = services.clone();
    jobs.clean_services().await;
    let daemon = Daemon {
        client,
        jobs_queue: settings.jobs_queue,
        results_queue: settings.results_queue,
        lease: settings.lifecycle.lease,
        // To exit when there is nothing, the daemon has to hear that there is nothing.
        hold: if settings.lifecycle.exit_when_idle || stay == Stay::OneRound { Duration::ZERO } else { hold::MAX },
        stay,
        pace,
        spending,
        enough: watch::Sender::new(false),
        jobs,
        store: store.clone(),
        executor,
        events,
        transfers,
        quantum: quantum.clone(),
        services,
        link: Link(desk),
        notify: Notify::to(&Listener::of_environment()),
    };
    let slots = settings.site.slots();
    let viewer = Viewer::new(
        settings.state_dir,
        slots,
        about,
        store.clone(),
        shown,
        under_way,
        in_slurm,
        Some(looked_at),
        settings.metrics_file,
    );
    let mut left = daemon.serve(lifecycle, queue, clock, viewer, signals, invocation).await?;
    store.close().await?;
    // What starts anew hears nothing of it.
    left.reload &= !left.signals.have_asked_to_end().await;
    // While runs go on under the keeper of this machine, no other machine may use the state unasked.
    if left.running == 0 && !left.reload {
        if let Some(quantum) = quantum {
            quantum.leave().await;
        }
        lock.release();
    }
    let exit = left.exit?;
    Ok(if left.reload { End::Reload } else { End::Exit(exit) })
}

/// Tells of jobs that are not wanted any more, for as long as this process lives.
async fn watch_cancellations(mut cancellations: Cancellations, events: Events) {
    let mut trouble = None;
    loop {
        let (looked, outcome) = crate::blocking(move || {
            let outcome = cancellations.look();
            (cancellations, outcome)
        })
        .await;
        cancellations = looked;
        let problem = outcome.as_ref().err().map(ToString::to_string);
        if let Some(problem) = problem.as_ref().filter(|problem| trouble.as_ref() != Some(*problem)) {
            tracing::warn!("which jobs are cancelled cannot be seen in RESULTS_DIR, which is tried again: {problem}");
        }
        trouble = problem;
        outcome.unwrap_or_default().into_iter().for_each(|job_id| events.send(Event::Cancel(job_id)));
        tokio::time::sleep(Cancellations::INTERVAL).await;
    }
}

/// Removes what nobody goes on with of files that were on their way, for as long as this process lives.
async fn clean_files(jobs: Arc<JobFiles>) {
    loop {
        jobs.clean_files(true).await;
        tokio::time::sleep(FILES_CLEANED_EVERY).await;
    }
}

/// The store of files, which is that of the edge.
pub(crate) fn job_files(settings: &FileArgs, link: Option<&link::Target>) -> anyhow::Result<FileSettings> {
    let store = match link {
        Some(target) => Ok(target.store()?),
        None => Err("this daemon is not told where the store of files is: set EDGE_URL to the address of the edge, and SITE_KEY or SITE_KEY_FILE to the key that it asks sites for".to_owned()),
    };
    let (cache_bytes, output_bytes_max) = (settings.cache_bytes(), settings.output_bytes_max());
    Ok(FileSettings { store, cache_bytes, output_bytes_max })
}

/// What `hpc-consumer status` tells of a daemon with these settings.
fn about(settings: &Settings) -> About {
    let queue = |id: &str| Some(Queue { id: id.to_owned(), name: None });
    let runtime = settings.only_runtime();
    let (image, command) = match &runtime {
        Some(Runtime::Apptainer(apptainer)) => (Some(apptainer.image.display().to_string()), Some(&apptainer.command)),
        Some(Runtime::Bare(bare)) => (None, Some(&bare.command)),
        None => (None, None),
    };
    About {
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        results_dir: Some(settings.results_dir.display().to_string()),
        runtime: runtime.as_ref().map(|runtime| runtime.kind().to_string()),
        image,
        command: command.map(shell_words::join),
        queues_url: Some(settings.endpoint.base_url.clone()),
        jobs_queue: queue(&settings.jobs_queue),
        results_queue: queue(&settings.results_queue),
    }
}

/// Would a start with these settings be refused, or never run a job, although they are valid? As far as it can be seen
/// beside a daemon. Returns what the queues are called, and what was tried of the runtime.
pub(crate) fn check(settings: Settings) -> anyhow::Result<String> {
    // What contains containers lies there.
    if settings.state_dir.exists() || has_containers(&settings.site) {
        store::make_private(&settings.state_dir, &settings.trust)?;
    }
    let counts = view::read(&settings.state_dir).map(|view| view.counts).unwrap_or_default();
    if counts.running + counts.ending > 0 {
        refuse_another_results_dir(&settings)?;
    }
    let http = queues::http_client(&settings.endpoint.address()?).context("cannot set up HTTPS")?;
    let client = Client::new(http, &settings.endpoint)?;
    let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let look = reactor.block_on(Look::take(&client, &settings.jobs_queue, &settings.results_queue));
    if let Some(why) = look.wrong_ids() {
        anyhow::bail!(why);
    }
    look.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let hub = match &settings.link {
        Some(target) => format!("hub: it would be {}", target.summary()),
        None => "hub: none, because SITE_KEY is not set".to_owned(),
    };
    let results = ResultsDir::new(settings.results_dir).trusting(settings.trust);
    let quantum = match &settings.site.lease {
        Some(_) => match reactor.block_on(lease::look(&settings.site, Some(&lease::folder(&settings.state_dir)))) {
            Ok(offer) => format!("lease: jobs may ask {}\n", offer.machines.join(", ")),
            Err(why) => anyhow::bail!("the lease of quantum machines cannot be had: {why}"),
        },
        None => String::new(),
    };
    let from_file = settings.kit.from_file;
    let tried = reactor.block_on(job::probe(results, settings.site, settings.kit, settings.require));
    Ok(format!("{}\n{hub}\n{quantum}{}", look.names(), if from_file { of_pools(&tried)? } else { of_one(tried)? }))
}

/// What was tried of the one pool of the settings.
fn of_one(tried: Vec<(PoolName, Tried)>) -> anyhow::Result<String> {
    match tried.into_iter().next() {
        Some((_, Tried::ToBePulled(image))) => {
            Ok(format!("the runtime was not tried: the image {} is to be pulled first", image.display()))
        }
        Some((_, Tried::Ready(facts))) => Ok(format!(
            "a job can be run here: RESULTS_DIR takes files, and the runtime finds the program of CONTAINER_CMD\nisolation of jobs: {}",
            told(&facts)
        )),
        Some((_, Tried::Not(problem))) => Err(anyhow::anyhow!("no job could run here: {problem}")),
        None => Err(anyhow::anyhow!("no job could run here: there is no pool")),
    }
}

/// The same of those of a site's file. One that is broken keeps no other from its jobs.
fn of_pools(tried: &[(PoolName, Tried)]) -> anyhow::Result<String> {
    let lines = tried.iter().map(|(pool, tried)| match tried {
        Tried::Ready(facts) => format!("pool {pool}: a job can be run here; isolation: {}", told(facts)),
        Tried::ToBePulled(image) => {
            format!("pool {pool}: not tried: the image {} is to be pulled first", image.display())
        }
        Tried::Not(problem) => format!("pool {pool}: not ready: {problem}"),
    });
    let lines: Vec<String> = lines.collect();
    if tried.iter().all(|(_, tried)| matches!(tried, Tried::Not(_))) {
        anyhow::bail!("no job could run here: {}", lines.join("; "));
    }
    Ok(lines.join("\n"))
}

/// Are there jobs in containers?
fn has_containers(site: &site::Site) -> bool {
    site.pools.values().any(|pool| pool.runtime == site::Runtime::Apptainer)
}

/// What runs was begun in `RESULTS_DIR`: elsewhere its output would not be found.
fn refuse_another_results_dir(settings: &Settings) -> anyhow::Result<()> {
    let Some(before) = ResultsDir::moved_from(&settings.state_dir, &settings.results_dir) else { return Ok(()) };
    anyhow::bail!(
        "RESULTS_DIR is {} now, and jobs of this STATE_DIR run in {}: set it back until they have ended (`hpc-consumer jobs` shows them); if that directory is gone for good, end the keeper and remove {}",
        settings.results_dir.display(),
        before.display(),
        settings.state_dir.join("results-dir").display()
    );
}

/// The settings are wrong, as only their use could show.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongSettings(pub(crate) String);

/// What comes after the daemon.
pub(crate) enum End {
    Exit(Exit),
    /// The same program again, with the settings as they are now.
    Reload,
}

/// Makes the files of records again that may not have reached the disk before the machine went down.
async fn restore_records(jobs: &Arc<JobFiles>, store: &Store) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let records = store.recent_records(after).await?;
        if records.is_empty() {
            return Ok(store.settled_in().await?);
        }
        for (number, job_id, record) in records {
            if let Err(error) = jobs.put_record(&job_id, &record).await {
                tracing::warn!(
                    "whether the last final records reached the disk before the machine went down cannot be made sure of, which the next start tries once more: {error}"
                );
                return Ok(());
            }
            after = number;
        }
    }
}
