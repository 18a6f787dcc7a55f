//! The loop's side of the link: it knows the lifecycle, and tells the hub what there is to tell when it is time.
//!
//! No decision about what is told stands here: that is [`Reporter`]'s.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Driver, EndedChildren, Event, Fact, Lifecycle, Reporter};
use protocol::link::Report;
use protocol::{JobId, JobMessage, Timestamp, timestamp_from_millis};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::tails::Followed;
use super::{Said, Shown, Up};
use crate::job::JobFiles;
use crate::process::Clock;
use crate::store::Store;
use crate::store::view::Called;
use crate::transfers::UnderWay;

/// How long the end of the daemon waits for the hub to store what became of the last jobs.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked how far files on their way are.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Of how many jobs the store is asked for the message at once: they may be large.
const MESSAGES_AT_ONCE: usize = 50;

/// What is to be done next.
pub(crate) enum Next {
    Hear(Heard),
    Report,
    /// Look how far files on their way are.
    Progress,
}

/// Something that was said.
pub(crate) struct Heard(Said);

/// The loop's side.
pub(crate) struct Desk {
    reporter: Reporter,
    hears: mpsc::Receiver<Said>,
    /// For what this side asks itself.
    said: mpsc::Sender<Said>,
    up: Option<Up>,
    /// Has no try to link come to anything yet, good or bad?
    is_first_try: bool,
    files: Arc<JobFiles>,
    store: Store,
    shown: Shown,
    followed: Followed,
    looking_up: bool,
    under_way: UnderWay,
    progress: Interval,
}

impl Desk {
    pub(super) fn new(
        hears: mpsc::Receiver<Said>,
        said: mpsc::Sender<Said>,
        files: Arc<JobFiles>,
        store: Store,
        shown: Shown,
        followed: Followed,
        under_way: UnderWay,
    ) -> Self {
        let (reporter, mut progress) = (Reporter::default(), interval(PROGRESS_INTERVAL));
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            reporter,
            hears,
            said,
            up: None,
            is_first_try: true,
            files,
            store,
            shown,
            followed,
            looking_up: false,
            under_way,
            progress,
        }
    }

    /// How the link is, for people.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Something has happened.
    pub(crate) fn happened(&mut self, driver: &mut Driver, clock: &Clock) {
        let changes = driver.take_changes();
        self.followed.look(driver.lifecycle(), Some(&changes));
        self.reporter.happened(changes, clock.now());
    }

    /// These facts are about to be on disk.
    pub(crate) fn commits(&mut self, facts: &[Fact], ended: &EndedChildren, lifecycle: &Lifecycle) {
        self.reporter.commits(facts, ended, lifecycle);
    }

    /// Resolves when there is something to be done.
    pub(crate) async fn next(&mut self, clock: &Clock) -> Next {
        let due = self.reporter.due().map(|at| at.saturating_sub(clock.now()));
        tokio::select! {
            said = self.hears.recv() => match said {
                Some(said) => Next::Hear(Heard(said)),
                // This side holds one end itself.
                None => std::future::pending().await,
            },
            () = sleep(due.unwrap_or_default()), if due.is_some() => Next::Report,
            _ = self.progress.tick() => Next::Progress,
        }
    }

    /// What follows from what was said.
    pub(crate) fn hear(&mut self, Heard(said): Heard, lifecycle: &Lifecycle, clock: &Clock) -> Vec<Event> {
        let now = clock.now();
        match said {
            Said::Connected(up) => {
                let linked = Event::Linked(up.rings);
                self.is_first_try = false;
                self.up = Some(up);
                self.reporter.connected(lifecycle, now);
                vec![linked]
            }
            Said::Disconnected => {
                self.up = None;
                self.reporter.disconnected();
                vec![Event::Linked(false)]
            }
            Said::Failed => {
                self.is_first_try = false;
                Vec::new()
            }
            Said::Stored(number) => {
                self.reporter.acknowledged(number);
                Vec::new()
            }
            Said::Asked(jobs) => {
                self.reporter.asked(jobs, now);
                Vec::new()
            }
            Said::LookedUp(found) => {
                self.looking_up = false;
                for (job_id, record) in found {
                    self.reporter.looked_up(&job_id, record.as_deref(), lifecycle, now);
                }
                self.look_up();
                Vec::new()
            }
            Said::Followed => {
                self.followed.look(lifecycle, None);
                Vec::new()
            }
            Said::Woken => vec![Event::Woken],
            Said::Cancelled(jobs) => jobs.into_iter().map(Event::Cancel).collect(),
        }
    }

    /// Tells the hub what there is to tell, if it is time.
    pub(crate) fn report(&mut self, lifecycle: &Lifecycle, clock: &Clock) {
        let report = self.reporter.next(lifecycle, clock.now());
        self.look_up();
        let (Some(mut report), Some(up)) = (report, &self.up) else { return };
        for job in report.jobs.iter_mut().filter(|job| job.result.is_none()) {
            if let Some(text) = self.under_way.of(&job.job_id) {
                // Of two that say the same of a job but for this, the later one counts.
                job.at = job.at.max(timestamp_from_millis(Timestamp::now().as_millisecond()));
                job.message = Some(text);
            }
        }
        for job in &mut report.jobs {
            if let Some(children) = &mut job.children {
                children.tasks = self.files.tasks_of(&job.job_id);
            }
        }
        let unnamed = |report: &Report| report.jobs.iter().any(|job| job.task.is_none());
        if unnamed(&report) {
            let (store, reports) = (self.store.clone(), up.reports.clone());
            tokio::spawn(async move { reports.send(named(&store, report).await).await });
        } else {
            // There is one on its way at a time. Should nobody take it, the connection is over, which will be said.
            let _ = up.reports.try_send(report);
        }
    }

    /// Has the hub told how far files on their way are, as far as that is new.
    pub(crate) fn tell_progress(&mut self, clock: &Clock) {
        if self.up.is_some() {
            let news = self.under_way.take_news();
            if !news.is_empty() {
                self.reporter.asked(news, clock.now());
            }
        }
    }

    /// Looks up the records that are needed, some at a time.
    fn look_up(&mut self) {
        if self.looking_up {
            return;
        }
        let jobs = self.reporter.to_look_up();
        if jobs.is_empty() {
            return;
        }
        self.looking_up = true;
        let (files, said) = (self.files.clone(), self.said.clone());
        tokio::spawn(async move {
            let mut found = Vec::with_capacity(jobs.len());
            for job_id in jobs {
                let record = files.final_record(&job_id).await;
                found.push((job_id, record));
            }
            let _ = said.send(Said::LookedUp(found)).await;
        });
    }

    /// Tells the hub what became of the last jobs, for a moment: what it does not hear the next daemon tells. A daemon
    /// whose jobs were quick may be done before it is linked, and waits for that.
    pub(crate) async fn last(&mut self, lifecycle: &Lifecycle, clock: &Clock) {
        let told = async {
            while (self.up.is_some() || self.is_first_try) && !self.reporter.is_done() {
                match self.next(clock).await {
                    Next::Report => self.report(lifecycle, clock),
                    Next::Progress => {}
                    Next::Hear(heard) => drop(self.hear(heard, lifecycle, clock)),
                }
            }
        };
        let _ = timeout(LAST_PATIENCE, told).await;
    }
}

/// With the words for jobs that an earlier daemon has accepted, as the store has them.
async fn named(store: &Store, mut report: Report) -> Report {
    let unnamed: Vec<JobId> =
        report.jobs.iter().filter(|job| job.task.is_none()).map(|job| job.job_id.clone()).collect();
    for jobs in unnamed.chunks(MESSAGES_AT_ONCE) {
        // Should it fail, the daemon hears of it from its next commit.
        for (job_id, message) in store.messages(jobs.to_vec()).await.unwrap_or_default() {
            let Ok(message) = JobMessage::parse(&message) else { continue };
            let Called { task, name } = Called::of(&message.spec);
            if let Some(job) = report.jobs.iter_mut().find(|job| job.job_id == job_id) {
                (job.task, job.name) = (Some(task), name);
            }
        }
    }
    report
}
