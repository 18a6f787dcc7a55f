//! Jobs that the hub says are not wanted any more. Each gets the mark in `RESULTS_DIR` that `hpc-consumer cancel`
//! leaves there, so that every daemon of the site heeds it; then our own is told at once.
//!
//! There may be very many, and a file system that hangs: they are marked by one thread, some at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::JobId;
use tokio::sync::mpsc;

use super::Said;
use crate::blocking;
use crate::job::ResultsDir;

/// How many are marked before the loop is told.
const AT_ONCE: usize = 500;

/// As many marks as `RESULTS_DIR` keeps.
const WAITING_MAX: usize = 100_000;

/// Before the next try.
const PAUSE: Duration = Duration::from_secs(10);

/// Marks what comes, until nobody sends any more.
pub(super) async fn mark(results: ResultsDir, mut unwanted: mpsc::Receiver<Vec<JobId>>, said: mpsc::Sender<Said>) {
    let mut waiting: BTreeSet<JobId> = BTreeSet::new();
    let mut troubled = false;
    loop {
        if waiting.is_empty() {
            let Some(jobs) = unwanted.recv().await else { return };
            waiting.extend(jobs);
        }
        while let Ok(jobs) = unwanted.try_recv() {
            waiting.extend(jobs);
        }
        while waiting.len() > WAITING_MAX {
            waiting.pop_last();
        }
        let jobs: Vec<JobId> = waiting.iter().take(AT_ONCE).cloned().collect();
        let place = results.clone();
        let marked = blocking(move || {
            let done = place.must_be_it().and_then(|()| jobs.iter().try_for_each(|job_id| place.cancel(job_id)));
            done.map(|()| jobs)
        });
        match marked.await {
            Ok(jobs) => {
                troubled = false;
                waiting.retain(|job_id| jobs.binary_search(job_id).is_err());
                if said.send(Said::Cancelled(jobs)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut troubled, true) {
                    tracing::warn!("jobs cannot be cancelled in RESULTS_DIR, which is tried again: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
