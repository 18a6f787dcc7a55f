//! Keeps `STATE_DIR/view.json` up to date for `hpc-consumer jobs` and `status`: soon after a change, not more often
//! than once a second, and every [`REFRESH`] in any case.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::{Attempt, Event, Lifecycle, Phase, PoolState};
use protocol::link::PoolReport;
use protocol::{JobId, JobMessage, PoolName, Timestamp, timestamp_from_millis};
use slurm::fleet::ShownAllocation;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::link::Shown;
use crate::lock;
use crate::metrics::{self, Counted};
use crate::services::Services;
use crate::slurm::Slurm;
use crate::store::Store;
use crate::store::view::{
    self, About, AllocationView, Called, Counts, DaemonState, JobView, OperationsView, PoolView, REFRESH, VERSION,
    View, timestamp,
};
use crate::transfers::UnderWay;

const INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of the daemon waits for the last view.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How many jobs are shown at most: the view is for people, and is written every second.
const JOBS_MAX: usize = 2_000;

/// And how many allocations of a pool.
const ALLOCATIONS_MAX: usize = 200;

/// Of how many jobs the store is asked for the task at once: it has to read their whole messages.
const TASKS_AT_ONCE: usize = 50;

/// How much is shown of the end of an attempt, in characters.
const LAST_ATTEMPT_MAX: usize = 500;

/// The words for jobs whose messages are not in memory; none where the message cannot be read.
type Learned = Arc<Mutex<HashMap<JobId, Option<Called>>>>;

/// Writes the view.
pub(crate) struct Viewer {
    state_dir: PathBuf,
    host: String,
    slots: usize,
    about: About,
    store: Store,
    link: Option<Shown>,
    under_way: UnderWay,
    /// The pools that live in Slurm.
    slurm: Option<Slurm>,
    services: Option<Arc<Services>>,
    learned: Learned,
    /// Which pools are ready, and since when that is so, or not.
    ready: HashMap<PoolName, (bool, Timestamp)>,
    exporter: Option<Exporter>,
    /// When to write next.
    due: Instant,
    written: Option<Instant>,
    writing: Option<JoinHandle<()>>,
    /// Said once, not every second.
    complained: Arc<AtomicBool>,
}

impl Viewer {
    #[expect(clippy::too_many_arguments, reason = "each is a part of what is shown, and there is one caller")]
    pub(crate) fn new(
        state_dir: PathBuf,
        slots: usize,
        about: About,
        store: Store,
        link: Option<Shown>,
        under_way: UnderWay,
        slurm: Option<Slurm>,
        services: Option<Arc<Services>>,
        metrics_file: Option<PathBuf>,
    ) -> Self {
        Self {
            state_dir,
            host: crate::host(),
            slots,
            about,
            store,
            link,
            under_way,
            slurm,
            services,
            learned: Learned::default(),
            ready: HashMap::new(),
            exporter: metrics_file.map(Exporter::to),
            due: Instant::now(),
            written: None,
            writing: None,
            complained: Arc::default(),
        }
    }

    /// This has happened.
    pub(crate) fn hears(&mut self, event: &Event) {
        if let Some(exporter) = &mut self.exporter {
            exporter.counted.hear(event);
        }
    }

    /// Something may have changed.
    pub(crate) fn changed(&mut self) {
        let now = Instant::now();
        self.due = self.due.min(self.written.map_or(now, |written| now.max(written + INTERVAL)));
    }

    /// Resolves when the view is to be written.
    pub(crate) async fn due(&self) {
        tokio::time::sleep_until(self.due).await;
    }

    /// Begins to write the view; how that ends is nobody's concern but the log's.
    pub(crate) fn write(&mut self, lifecycle: &Lifecycle) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            // The file system is slow, or hangs.
            self.due = Instant::now() + INTERVAL;
            return;
        }
        let state = if lifecycle.draining() { DaemonState::Draining } else { DaemonState::Running };
        self.note_ready(lifecycle);
        let mut view = self.view(lifecycle, state);
        let unknown = self.unknown(&view.jobs);
        let now = Instant::now();
        (self.due, self.written) = (now + if unknown.is_empty() { REFRESH } else { INTERVAL }, Some(now));
        let metrics = self.exporter.as_mut().and_then(|exporter| exporter.due(now, &view));
        let (state_dir, complained) = (self.state_dir.clone(), self.complained.clone());
        let (store, learned) = (self.store.clone(), self.learned.clone());
        self.writing = Some(tokio::spawn(async move {
            if !unknown.is_empty() {
                let new = learn(&store, unknown).await;
                let jobs = view.jobs.into_iter().map(|job| match new.get(&job.job_id) {
                    Some(called) => job.called(called.clone()),
                    None => job,
                });
                view.jobs = jobs.collect();
                lock(&learned).extend(new);
            }
            crate::blocking(move || {
                metrics.into_iter().for_each(Metrics::write);
                match view::write(&state_dir, &view) {
                    Ok(()) => complained.store(false, Ordering::Relaxed),
                    Err(error) if !complained.swap(true, Ordering::Relaxed) => {
                        tracing::warn!("what `hpc-consumer jobs` shows cannot be written: {error}");
                    }
                    Err(_) => {}
                }
            })
            .await;
        }));
    }

    fn note_ready(&mut self, lifecycle: &Lifecycle) {
        for pool in lifecycle.pools() {
            let noted = self.ready.get(pool.name).is_some_and(|(ready, _)| *ready == pool.is_ready);
            if !noted {
                self.ready.insert(pool.name.clone(), (pool.is_ready, view_time()));
            }
        }
    }

    /// Some jobs for which the words are to be asked for. Forgets what is known of others that are not shown.
    fn unknown(&self, shown: &[JobView]) -> Vec<JobId> {
        let mut learned = lock(&self.learned);
        if learned.len() > 2 * JOBS_MAX {
            let mut known = std::mem::take(&mut *learned);
            learned.extend(shown.iter().filter_map(|job| known.remove_entry(&job.job_id)));
        }
        let unknown = shown.iter().filter(|job| job.task.is_none() && !learned.contains_key(&job.job_id));
        unknown.take(TASKS_AT_ONCE).map(|job| job.job_id.clone()).collect()
    }

    /// Writes the last view of this daemon.
    pub(crate) async fn last(&mut self, lifecycle: &Lifecycle) {
        self.note_ready(lifecycle);
        let (state_dir, view) = (self.state_dir.clone(), self.view(lifecycle, DaemonState::Ended));
        let metrics = self.exporter.as_ref().map(|exporter| exporter.metrics(&view));
        let under_way = self.writing.take();
        let written = async move {
            // The same files: at the same time, each would spoil the other's.
            if let Some(under_way) = under_way {
                let _ = under_way.await;
            }
            let write = move || {
                metrics.into_iter().for_each(Metrics::write);
                view::write(&state_dir, &view)
            };
            tokio::task::spawn_blocking(write).await
        };
        // The state itself tells the same; this is only for machines that cannot read it.
        let _ = tokio::time::timeout(LAST_PATIENCE, written).await;
    }

    fn view(&self, lifecycle: &Lifecycle, state: DaemonState) -> View {
        let mut counts = Counts::default();
        let mut jobs = Vec::new();
        let mut owed_since: Option<Duration> = None;
        let allocations = self.slurm.as_ref().map(Slurm::shown).unwrap_or_default();
        let learned = lock(&self.learned);
        for (job_id, phase, attempt, since) in lifecycle.jobs() {
            match phase {
                Phase::Asked => continue,
                Phase::Waiting | Phase::Staging | Phase::Claiming | Phase::Ready | Phase::Parked | Phase::Returning => {
                    counts.waiting += 1;
                }
                Phase::Running => counts.running += 1,
                Phase::Ending | Phase::Uploading => counts.ending += 1,
                Phase::Recorded => {
                    counts.owed += 1;
                    owed_since = Some(owed_since.map_or(since, |earliest| earliest.min(since)));
                }
            }
            // Results that are owed may be many, and jobs that wait: they must not hide what runs.
            let may_be_many = matches!(phase, Phase::Recorded | Phase::Uploading | Phase::Waiting | Phase::Parked);
            if jobs.len() < if may_be_many { JOBS_MAX / 2 } else { JOBS_MAX } {
                let (job_id, phase) = (job_id.clone(), phase.name().to_owned());
                let attempt = attempt.map_or(0, Attempt::get);
                let called = lifecycle.brief(&job_id).map(|job| Called::of(&job.spec));
                let called = called.or_else(|| learned.get(&job_id).cloned().flatten());
                let remark = || lifecycle.remark(&job_id).map(|what| what.chars().take(LAST_ATTEMPT_MAX).collect());
                let last_attempt = self.under_way.of(&job_id).or_else(remark);
                let since = Some(timestamp(since));
                let pool = lifecycle.pool_of(&job_id).cloned();
                let waits = lifecycle.waits(&job_id);
                let allocation = of_run(&allocations, &job_id, attempt);
                let (task, name) = (None, None);
                let job = JobView { job_id, phase, attempt, since, task, name, pool, last_attempt, waits, allocation };
                jobs.push(job.called(called));
            }
        }
        View {
            v: VERSION,
            written_at: view_time(),
            host: self.host.clone(),
            pid: std::process::id(),
            state,
            node: lifecycle.node_problem().or(lifecycle.executor_problem()).map(ToString::to_string),
            slots: self.slots,
            pools: lifecycle
                .pools()
                .map(|pool| {
                    let since = self.ready.get(pool.name).map(|(_, since)| *since);
                    pool_view(pool, since, &allocations)
                })
                .collect(),
            services: self.services.as_ref().map(|services| services.views(lifecycle)).unwrap_or_default(),
            counts,
            jobs,
            queue_trouble: lifecycle.queue_problem().map(str::to_owned),
            owed_since: owed_since.map(timestamp),
            link: self.link.as_ref().map(Shown::view),
            operations: lifecycle
                .expenses()
                .zip(lifecycle.allowance())
                .map(|(expenses, state)| OperationsView::of(state, expenses.now)),
            about: self.about.clone(),
        }
    }
}

/// Shows the same to Prometheus.
#[derive(Debug)]
struct Exporter {
    file: PathBuf,
    counted: Counted,
    written: Option<Instant>,
    complained: Arc<AtomicBool>,
}

/// A text on its way into its file.
struct Metrics {
    file: PathBuf,
    text: String,
    complained: Arc<AtomicBool>,
}

impl Exporter {
    fn to(file: PathBuf) -> Self {
        Self { file, counted: Counted::default(), written: None, complained: Arc::default() }
    }

    /// What is to be written, if it is time.
    fn due(&mut self, now: Instant, view: &View) -> Option<Metrics> {
        if self.written.is_some_and(|written| now < written + metrics::INTERVAL) {
            return None;
        }
        self.written = Some(now);
        Some(self.metrics(view))
    }

    fn metrics(&self, view: &View) -> Metrics {
        let (file, complained) = (self.file.clone(), self.complained.clone());
        Metrics { file, text: metrics::text(view, &self.counted), complained }
    }
}

impl Metrics {
    /// Nobody waits for it, and it is tried again.
    fn write(self) {
        match metrics::write(&self.file, &self.text) {
            Ok(()) => self.complained.store(false, Ordering::Relaxed),
            Err(error) if !self.complained.swap(true, Ordering::Relaxed) => {
                tracing::warn!("METRICS_FILE {} cannot be written: {error}", self.file.display());
            }
            Err(_) => {}
        }
    }
}

/// The allocation of a run, by what is known of all.
fn of_run(allocations: &[ShownAllocation], job_id: &JobId, attempt: u32) -> Option<AllocationView> {
    let is = |run: &lifecycle::Run| run.job_id == *job_id && run.attempt.get() == attempt;
    allocations.iter().find(|allocation| allocation.runs.iter().any(is)).map(allocation_view)
}

fn allocation_view(allocation: &ShownAllocation) -> AllocationView {
    AllocationView {
        name: allocation.name.clone(),
        slurm_job_id: allocation.element.map(|element| element.to_string()),
        node: Some(allocation.nodes.clone()).filter(|nodes| !nodes.is_empty()),
        state: allocation.state.clone(),
    }
}

/// By the clock of the machine, as it is shown.
fn view_time() -> Timestamp {
    timestamp_from_millis(Timestamp::now().as_millisecond())
}

fn pool_view(pool: PoolState<'_>, since: Option<Timestamp>, allocations: &[ShownAllocation]) -> PoolView {
    let hold = Some(pool.hold).filter(|hold| *hold < usize::MAX);
    let (held, running) = (pool.waiting, pool.running);
    let slurm = allocations.iter().filter(|one| one.pool == *pool.name).take(ALLOCATIONS_MAX).map(allocation_view);
    let slurm = slurm.collect();
    let PoolReport { pool, ready, problem, capacity, in_use, allocations, want, why, .. } = pool.report();
    let (capacity, in_use) = (capacity.into(), in_use.into());
    PoolView { pool, ready, problem, since, held, running, hold, capacity, in_use, allocations, want, why, slurm }
}

/// The words for these jobs, as the store has them.
async fn learn(store: &Store, jobs: Vec<JobId>) -> HashMap<JobId, Option<Called>> {
    let mut learned: HashMap<_, _> = jobs.iter().map(|job_id| (job_id.clone(), None)).collect();
    // Should it fail, the daemon hears of it from its next commit.
    for (job_id, message) in store.messages(jobs).await.unwrap_or_default() {
        learned.insert(job_id, JobMessage::parse(&message).ok().map(|job| Called::of(&job.spec)));
    }
    learned
}

#[cfg(test)]
pub(crate) use self::tests::settings as settings_of_test;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lifecycle::{Entry, Fact, Failures, Lease, Origin, Stage, Terms};
    use site::{Defaults, Site};

    use super::*;

    fn viewer(state_dir: &Path) -> Viewer {
        let opened = Store::open(state_dir).unwrap();
        Viewer::new(
            state_dir.to_owned(),
            1,
            About::default(),
            opened.store,
            None,
            UnderWay::default(),
            None,
            None,
            None,
        )
    }

    fn site() -> Arc<Site> {
        Arc::new(Site::from_settings(&site::Settings {
            runtime: site::Runtime::Bare,
            image: None,
            command: vec!["true".to_owned()],
            binds: Vec::new(),
            arguments: Vec::new(),
            slots: 1,
            defaults: Defaults {
                time_limit: Duration::from_secs(1),
                grace: Duration::from_secs(1),
                log_max: 1,
                network: false,
                cpus: 1,
            },
        }))
    }

    pub(crate) fn settings() -> lifecycle::Settings {
        lifecycle::Settings {
            site: site(),
            default_task: None,
            batch_size: 1,
            lease: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
            poll_interval_max: Duration::from_secs(1),
            linked_poll_interval: Duration::from_secs(1),
            operations_per_day: None,
            retry_delay: Duration::from_secs(1),
            claim_patience: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(1),
            exit_when_idle: false,
            life: "life".to_owned(),
        }
    }

    fn lifecycle(entries: Vec<Entry>) -> Lifecycle {
        Lifecycle::restore(settings(), entries, Duration::ZERO)
    }

    fn written(state_dir: &Path) -> View {
        serde_json::from_slice(&std::fs::read(state_dir.join("view.json")).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_view_is_written_soon_after_a_change_and_from_time_to_time_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut viewer, lifecycle) = (viewer(folder.path()), lifecycle(Vec::new()));
        assert!(viewer.due <= Instant::now(), "the first one at once");
        viewer.write(&lifecycle);
        let (earliest, latest) = (viewer.written.unwrap() + INTERVAL, viewer.written.unwrap() + REFRESH);
        assert_eq!(viewer.due, latest);
        viewer.changed();
        assert!(viewer.due >= earliest && viewer.due < latest);
        viewer.writing.take().unwrap().await.unwrap();
        assert_eq!(written(folder.path()).state, DaemonState::Running);
    }

    #[tokio::test]
    async fn the_tasks_and_names_of_jobs_that_an_earlier_daemon_has_left_are_learned_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let mut viewer = viewer(folder.path());
        let entry = |id: &str| Entry {
            job_id: id.parse().unwrap(),
            stage: Stage::Accepted,
            attempt: None,
            launched: None,
            message: None,
            terms: Terms::default(),
            failures: Failures::default(),
            lease: None,
            parent: None,
            service: None,
            idle_since: None,
            parking: None,
            unwanted: false,
            since: Duration::ZERO,
        };
        let accepted = Fact::Accepted {
            job_id: "a".parse().unwrap(),
            message: r#"{"v":1,"job_id":"a","task":"simulate","name":"draft 3"}"#.to_owned(),
            terms: Terms::default(),
            origin: Origin::Queue(Lease { id: "l".to_owned(), until: Duration::ZERO, deliveries: Some(1) }),
        };
        viewer.store.commit(vec![accepted], Duration::ZERO).await.unwrap();
        // Nothing is known of the other one, and it is asked for once.
        let lifecycle = lifecycle(vec![entry("a"), entry("b")]);
        for _ in 0..2 {
            viewer.write(&lifecycle);
            viewer.writing.take().unwrap().await.unwrap();
            let jobs = written(folder.path()).jobs.into_iter();
            let called = jobs.map(|job| (job.task, job.name)).collect::<Vec<_>>();
            assert_eq!(called, [(Some("simulate".to_owned()), Some("draft 3".to_owned())), (None, None)]);
        }
        assert!(viewer.unknown(&written(folder.path()).jobs).is_empty());
    }

    #[tokio::test]
    async fn the_last_view_comes_after_the_one_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().to_owned();
        let (mut viewer, lifecycle) = (viewer(&state_dir), lifecycle(Vec::new()));
        let earlier = viewer.view(&lifecycle, DaemonState::Running);
        viewer.writing = Some(tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(100));
            view::write(&state_dir, &earlier).unwrap();
        }));
        viewer.last(&lifecycle).await;
        if let Some(writing) = viewer.writing.take() {
            writing.await.unwrap();
        }
        assert_eq!(written(folder.path()).state, DaemonState::Ended);
    }
}
