//! What the daemon keeps of jobs at work, and what the keeper says of them, as events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lifecycle::{Event, Run};
use protocol::{JobId, JobMessage, Json};
use tokio::sync::Notify;

use crate::keeper;
use crate::lock;
use crate::run::Finished;
use crate::store::Store;

/// What is kept of jobs at work, so that the store need not be asked again.
#[derive(Default)]
pub(crate) struct Work {
    /// Jobs without their input.
    jobs: Mutex<HashMap<JobId, Arc<JobMessage>>>,
    /// How runs ended.
    finished: Mutex<HashMap<Run, Finished>>,
    /// The store could not be read. It fails for good then, which a commit tells.
    pub(crate) store_failed: Notify,
    /// Why the keeper cannot be reached.
    pub(crate) keeper_trouble: Mutex<Option<String>>,
}

impl Work {
    pub(crate) fn remember(&self, job: JobMessage) {
        // The input is in input.json by now, and may be large.
        let job = JobMessage { input: Json::default(), metadata: None, ..job };
        lock(&self.jobs).insert(job.job_id.clone(), Arc::new(job));
    }

    pub(crate) fn job(&self, job_id: &JobId) -> Option<Arc<JobMessage>> {
        lock(&self.jobs).get(job_id).cloned()
    }

    pub(crate) async fn job_from(&self, store: &Store, job_id: &JobId) -> Option<Arc<JobMessage>> {
        if let Some(job) = self.job(job_id) {
            return Some(job);
        }
        let message = match store.messages(vec![job_id.clone()]).await {
            Ok(messages) => messages.into_iter().next().map(|(_, message)| message).unwrap_or_default(),
            Err(problem) => {
                tracing::error!("the state cannot be read: {problem}");
                self.store_failed.notify_one();
                return None;
            }
        };
        match JobMessage::parse(&message) {
            Ok(job) => {
                self.remember(job);
                self.job(job_id)
            }
            Err(error) => {
                // Its run is not to be forgotten for that; to deal with what it left needs no more than its id.
                tracing::error!(%job_id, "a stored job cannot be read: {error}");
                let text = format!(r#"{{"job_id":"{job_id}","task":"unknown"}}"#);
                JobMessage::parse(&text).ok().map(Arc::new)
            }
        }
    }

    pub(crate) fn finished(&self, run: &Run) -> Option<Finished> {
        lock(&self.finished).get(run).cloned()
    }

    pub(crate) fn forget(&self, runs: &[Run]) {
        let (mut jobs, mut finished) = (lock(&self.jobs), lock(&self.finished));
        for run in runs {
            jobs.remove(&run.job_id);
            finished.remove(run);
        }
    }

    /// What the keeper says, as an event.
    pub(crate) fn hear(&self, said: keeper::Said) -> Event {
        match said {
            keeper::Said::Ended(run, finished) => match finished.cut_off() {
                Some(what) => Event::RunCutOff(run, what),
                None => {
                    lock(&self.finished).insert(run.clone(), finished);
                    Event::RunEnded(run)
                }
            },
            keeper::Said::Runs { alive, ended, cut_off, complete } => {
                *lock(&self.keeper_trouble) = None;
                let mut runs: Vec<(Run, lifecycle::Sighting)> = Vec::new();
                runs.extend(alive.into_iter().map(|run| (run, lifecycle::Sighting::Alive)));
                for (run, finished) in ended {
                    let sighting = match finished.cut_off() {
                        Some(what) => lifecycle::Sighting::CutOff(what),
                        None => {
                            lock(&self.finished).insert(run.clone(), finished);
                            lifecycle::Sighting::Ended
                        }
                    };
                    runs.push((run, sighting));
                }
                runs.extend(cut_off.into_iter().map(|(run, what)| (run, lifecycle::Sighting::CutOff(what))));
                Event::Observed(lifecycle::Observation { runs, complete })
            }
            keeper::Said::Gone => Event::KeeperGone,
        }
    }
}
