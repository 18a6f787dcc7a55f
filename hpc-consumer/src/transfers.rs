//! Files on their way, as the daemon's loop sees them: a task for each job whose files come, and for each run whose
//! outputs go; and how far they are, for people.
//!
//! Invariants: of one job, one task at a time; what is stopped tells nothing any more, and what is removed is removed
//! after it has ended.
//!
//! Out of scope: what such a task does (`job`), how many there are at a time and when one is tried again (`lifecycle`).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};

use lifecycle::{Event, Run};
use protocol::{JobId, JobMessage};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::events::{Events, Heard};
use crate::job::{JobFiles, Tell};
use crate::lock;
use crate::store::Problem;

/// What is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Files(JobId),
    Outputs(Run),
}

#[derive(Debug)]
struct Task {
    stop: watch::Sender<bool>,
    handle: JoinHandle<()>,
}

impl Task {
    /// Has it end, and waits for that.
    async fn end(self) {
        self.stop.send_replace(true);
        // A panic is told where it happens.
        let _ = self.handle.await;
    }
}

/// All that is on its way.
#[derive(Debug)]
pub(crate) struct Transfers {
    files: Arc<JobFiles>,
    events: Events,
    tasks: Mutex<HashMap<What, Task>>,
    under_way: UnderWay,
}

impl Transfers {
    pub(crate) fn new(files: Arc<JobFiles>, events: Events) -> Self {
        Self { files, events, tasks: Mutex::default(), under_way: UnderWay::default() }
    }

    /// How far all of it is.
    pub(crate) fn under_way(&self) -> UnderWay {
        self.under_way.clone()
    }

    /// Has the files of a job ready.
    pub(crate) fn stage(
        &self,
        job_id: JobId,
        message: impl Future<Output = Result<Arc<JobMessage>, Problem>> + Send + 'static,
    ) {
        let files = self.files.clone();
        self.begin(What::Files(job_id.clone()), job_id.clone(), |stop, tell| async move {
            let job = match message.await {
                Ok(job) => job,
                Err(problem) => return Some(Err(problem)),
            };
            Some(Ok(Event::Staged(job_id, files.stage(&job, stop, &tell).await?)))
        });
    }

    /// Removes what is there of the files of a job.
    pub(crate) fn unstage(&self, job_id: JobId) {
        let files = self.files.clone();
        self.begin(What::Files(job_id.clone()), job_id.clone(), |_, _| async move {
            files.unstage(&job_id).await;
            None
        });
    }

    /// Sends the outputs of a run.
    pub(crate) fn upload(
        &self,
        run: Run,
        message: impl Future<Output = Result<Arc<JobMessage>, Problem>> + Send + 'static,
    ) {
        let files = self.files.clone();
        self.begin(What::Outputs(run.clone()), run.job_id.clone(), |mut stop, tell| async move {
            let job = match message.await {
                Ok(job) => job,
                Err(problem) => return Some(Err(problem)),
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => None,
                uploaded = files.upload(&job, &run, &tell) => Some(Ok(Event::Uploaded(run, uploaded))),
            }
        });
    }

    /// Sends them no more.
    pub(crate) fn stop_upload(&self, run: Run) {
        let job_id = run.job_id.clone();
        self.begin(What::Outputs(run), job_id, |_, _| async { None });
    }

    /// Begins a task in place of the one before, which ends first.
    fn begin<W: Future<Output = Option<Heard>> + Send + 'static>(
        &self,
        what: What,
        job_id: JobId,
        work: impl FnOnce(watch::Receiver<bool>, Tell) -> W + Send + 'static,
    ) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|_, task| !task.handle.is_finished());
        let before = tasks.remove(&what);
        let (stop, stopped) = watch::channel(false);
        let (under_way, events) = (self.under_way.clone(), self.events.clone());
        let handle = tokio::spawn(async move {
            if let Some(before) = before {
                before.end().await;
            }
            let tell: Tell = {
                let (under_way, job_id) = (under_way.clone(), job_id.clone());
                Arc::new(move |text| under_way.say(&job_id, text))
            };
            let heard = work(stopped.clone(), tell).await;
            under_way.forget(&job_id);
            // An event that comes in the moment of the stop is of no use to anybody.
            if let Some(heard) = heard.filter(|_| !*stopped.borrow()) {
                events.tell(heard);
            }
        });
        tasks.insert(what, Task { stop, handle });
    }
}

/// How far what is on its way is, in words.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(Arc<Mutex<BTreeMap<JobId, Said>>>);

#[derive(Debug)]
struct Said {
    text: String,
    is_news: bool,
}

impl UnderWay {
    fn say(&self, job_id: &JobId, text: String) {
        let mut said = lock(&self.0);
        match said.get_mut(job_id) {
            Some(before) if before.text == text => {}
            Some(before) => *before = Said { text, is_news: true },
            None => drop(said.insert(job_id.clone(), Said { text, is_news: true })),
        }
    }

    fn forget(&self, job_id: &JobId) {
        lock(&self.0).remove(job_id);
    }

    /// How far it is for this job.
    pub(crate) fn of(&self, job_id: &JobId) -> Option<String> {
        lock(&self.0).get(job_id).map(|said| said.text.clone())
    }

    /// The jobs for which there is something new to say since this was asked last.
    pub(crate) fn take_news(&self) -> Vec<JobId> {
        let mut said = lock(&self.0);
        let news =
            said.iter_mut().filter_map(|(job_id, said)| std::mem::take(&mut said.is_news).then(|| job_id.clone()));
        news.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_already_is_no_news() {
        let under_way = UnderWay::default();
        let job_id: JobId = "j1".parse().unwrap();
        under_way.say(&job_id, "1 of 2".to_owned());
        assert_eq!((under_way.take_news(), under_way.take_news()), (vec![job_id.clone()], vec![]));
        under_way.say(&job_id, "1 of 2".to_owned());
        assert_eq!(under_way.take_news(), []);
        under_way.say(&job_id, "2 of 2".to_owned());
        assert_eq!((under_way.of(&job_id).as_deref(), under_way.take_news().len()), (Some("2 of 2"), 1));
        under_way.forget(&job_id);
        assert_eq!(under_way.of(&job_id), None);
    }

    #[tokio::test]
    async fn what_is_stopped_says_nothing_and_what_follows_waits_for_its_end() {
        let temp = tempfile::tempdir().unwrap();
        let (events, mut heard) = crate::events::channel();
        let transfers = Transfers::new(crate::job::node_of_test(temp.path(), "us"), events);
        let job_id: JobId = "j1".parse().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = order.clone();
        transfers.begin(What::Files(job_id.clone()), job_id.clone(), |mut stop, tell| async move {
            tell("begun".to_owned());
            begun.send(()).unwrap();
            stop.wait_for(|stop| *stop).await.unwrap();
            tokio::task::yield_now().await;
            lock(&first).push("first has ended");
            Some(Ok(Event::Woken))
        });
        has_begun.await.unwrap();
        assert_eq!(transfers.under_way().of(&job_id).as_deref(), Some("begun"));
        let (second, done) = (order.clone(), Arc::new(tokio::sync::Notify::new()));
        let tell_done = done.clone();
        transfers.begin(What::Files(job_id.clone()), job_id.clone(), |_, _| async move {
            lock(&second).push("second");
            tell_done.notify_one();
            Some(Ok(Event::Tick))
        });
        done.notified().await;
        assert_eq!(*lock(&order), ["first has ended", "second"]);
        assert!(matches!(heard.recv().await, Some(Ok(Event::Tick))));
        assert_eq!(transfers.under_way().of(&job_id), None);
        assert!(heard.try_recv().is_err());
    }
}
