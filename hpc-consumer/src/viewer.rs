//! Keeps `STATE_DIR/view.json` up to date for `hpc-consumer jobs` and `status`: soon after a change, and not more often
//! than once a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifecycle::{Attempt, Lifecycle, Phase};
use protocol::{Timestamp, timestamp_from_millis};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::store::view::{self, Counts, JobView, State, VERSION, View, timestamp};

const INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of the daemon waits for the last view.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How many jobs are shown at most: the view is for people, and is written every second.
const JOBS_MAX: usize = 2_000;

/// Writes the view.
#[derive(Debug)]
pub(crate) struct Viewer {
    state_dir: PathBuf,
    host: String,
    slots: usize,
    /// When to write next, if anything has changed.
    due: Option<Instant>,
    written: Option<Instant>,
    writing: Option<JoinHandle<()>>,
    /// Said once, not every second.
    complained: Arc<AtomicBool>,
}

impl Viewer {
    pub(crate) fn new(state_dir: PathBuf, slots: usize) -> Self {
        Self {
            state_dir,
            host: crate::host(),
            slots,
            due: None,
            written: None,
            writing: None,
            complained: Arc::default(),
        }
    }

    /// Something may have changed.
    pub(crate) fn changed(&mut self) {
        if self.due.is_none() {
            let now = Instant::now();
            self.due = Some(self.written.map_or(now, |written| now.max(written + INTERVAL)));
        }
    }

    /// Resolves when the view is to be written.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Begins to write the view; how that ends is nobody's concern but the log's.
    pub(crate) fn write(&mut self, lifecycle: &Lifecycle) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            // The file system is slow, or hangs.
            self.due = Some(Instant::now() + INTERVAL);
            return;
        }
        let state = if lifecycle.draining() { State::Draining } else { State::Running };
        let view = self.view(lifecycle, state);
        (self.due, self.written) = (None, Some(Instant::now()));
        let (state_dir, complained) = (self.state_dir.clone(), self.complained.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || match view::write(&state_dir, &view) {
            Ok(()) => complained.store(false, Ordering::Relaxed),
            Err(error) if !complained.swap(true, Ordering::Relaxed) => {
                tracing::warn!("what `hpc-consumer jobs` shows cannot be written: {error}");
            }
            Err(_) => {}
        }));
    }

    /// Writes the last view of this daemon.
    pub(crate) async fn last(&mut self, lifecycle: &Lifecycle) {
        let (state_dir, view) = (self.state_dir.clone(), self.view(lifecycle, State::Ended));
        let under_way = self.writing.take();
        let written = async move {
            // The same files: at the same time, each would spoil the other's.
            if let Some(under_way) = under_way {
                let _ = under_way.await;
            }
            tokio::task::spawn_blocking(move || view::write(&state_dir, &view)).await
        };
        // The state itself tells the same; this is only for machines that cannot read it.
        let _ = tokio::time::timeout(LAST_PATIENCE, written).await;
    }

    fn view(&self, lifecycle: &Lifecycle, state: State) -> View {
        let mut counts = Counts::default();
        let mut jobs = Vec::new();
        let mut owed_since: Option<Duration> = None;
        for (job_id, phase, attempt, since) in lifecycle.jobs() {
            match phase {
                Phase::Asked => continue,
                Phase::Waiting | Phase::Claiming | Phase::Ready | Phase::Returning => counts.waiting += 1,
                Phase::Running => counts.running += 1,
                Phase::Ending => counts.ending += 1,
                Phase::Recorded => {
                    counts.owed += 1;
                    owed_since = Some(owed_since.map_or(since, |earliest| earliest.min(since)));
                }
            }
            // Results that are owed may be many, and must not hide what runs.
            if jobs.len() < if phase == Phase::Recorded { JOBS_MAX / 2 } else { JOBS_MAX } {
                let (job_id, phase) = (job_id.clone(), phase.name().to_owned());
                let attempt = attempt.map_or(0, Attempt::get);
                jobs.push(JobView { job_id, phase, attempt, since: Some(timestamp(since)) });
            }
        }
        View {
            v: VERSION,
            written_at: timestamp_from_millis(Timestamp::now().as_millisecond()),
            host: self.host.clone(),
            pid: std::process::id(),
            state,
            node: lifecycle.node_problem().or(lifecycle.executor_problem()).map(ToString::to_string),
            slots: self.slots,
            counts,
            jobs,
            queue_trouble: lifecycle.queue_problem().map(str::to_owned),
            owed_since: owed_since.map(timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_view_comes_after_the_one_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().to_owned();
        let settings = lifecycle::Settings {
            slots: 1,
            batch_size: 1,
            lease: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
            poll_interval_max: Duration::from_secs(1),
            retry_delay: Duration::from_secs(1),
            claim_patience: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(1),
            exit_when_idle: false,
        };
        let lifecycle = Lifecycle::restore(settings, Vec::new(), Duration::ZERO);
        let mut viewer = Viewer::new(state_dir.clone(), 1);
        let earlier = viewer.view(&lifecycle, State::Running);
        viewer.writing = Some(tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(100));
            view::write(&state_dir, &earlier).unwrap();
        }));
        viewer.last(&lifecycle).await;
        if let Some(writing) = viewer.writing.take() {
            writing.await.unwrap();
        }
        let shown: View = serde_json::from_slice(&std::fs::read(folder.path().join("view.json")).unwrap()).unwrap();
        assert_eq!(shown.state, State::Ended);
    }
}
