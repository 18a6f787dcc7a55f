//! What the hub is to be told of jobs, pools and the daemon, and what of it was told.
//!
//! It keeps which jobs have something new to be told, and not what: of a job that is held that is looked up when it is
//! told, so that whatever happens in between is one report and nothing piles up. What is not held any more is kept
//! here until the hub says that it has stored it: a job that has ended with its record, one that went back to the
//! queue, one that the hub has asked for and of which nothing is known. Of that the oldest goes first when it becomes
//! too much; its record stays where it is.
//!
//! Of the many jobs that one job may ask for, the hub is told of the first of them only, unless it asks.
//!
//! After each connection all that is held is told anew. There is one report on its way at a time: the hub's word that
//! it is stored is the back-pressure.
//!
//! Out of scope: connections, and where records are read; time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::link::{JOBS_MAX, JobReport, MESSAGE_BYTES_MAX, PoolReport, Report, SiteReport};
use protocol::{JobId, JobResult, JobState, Json};

use crate::lifecycle::Lifecycle;
use crate::phases::Phase;
use crate::report::{EndedChildren, Known, MESSAGE_MAX, timestamp};
use crate::{Change, Changes, Fact};

/// Between two reports, unless the first was full.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the first change after a while waits for those that follow at once: a job that comes is claimed and begun.
const GATHER: Duration = Duration::from_millis(50);

/// How much of the records of jobs is kept at most, and of how many jobs that are not held anything is.
const RESULTS_BYTES_MAX: usize = 16 * 1024 * 1024;
const KEPT_MAX: usize = 20_000;

/// Of how many jobs the records are looked up at once, and how many may wait for that. Who asks for more asks again.
const LOOK_UP_AT_ONCE: usize = 50;
const LOOK_UPS_MAX: usize = 10_000;

/// What a report has besides its jobs: a bound for a site of very many pools as well.
const HEAD_BYTES: usize = 100_000;

/// What was told, and what is to be.
#[derive(Debug, Default)]
pub struct Reporter {
    connection: Option<Connection>,
    /// Jobs that are not held, and are kept until it is stored what became of them.
    kept: BTreeMap<JobId, Kept>,
    /// The same in the order in which they came, and those of them that have a record.
    order: BTreeMap<u64, JobId>,
    with_results: BTreeSet<u64>,
    results_bytes: usize,
    next_no: u64,
}

#[derive(Debug)]
struct Kept {
    no: u64,
    report: JobReport,
}

/// What is known of the present connection.
#[derive(Debug, Default)]
struct Connection {
    /// Jobs that were held when it began, and were not told yet.
    first: BTreeSet<JobId>,
    /// Was it said that all of them were told?
    complete: bool,
    /// Jobs that have something new to be told.
    changed: BTreeSet<JobId>,
    /// Jobs that the hub wants to hear of, whether there is anything to say or not.
    asked: BTreeSet<JobId>,
    /// Jobs of which it would not have been told, and was when it asked: what becomes of them it hears too.
    told: BTreeSet<JobId>,
    /// Jobs whose record is needed.
    look_up: BTreeSet<JobId>,
    /// What was told of the whole.
    site: Option<SiteReport>,
    pools: Option<Vec<PoolReport>>,
    /// The number of the last report, and the report that is on its way.
    number: u64,
    on_its_way: Option<OnItsWay>,
    /// Since when there may be something to tell.
    since: Option<Duration>,
    /// When the last report left, and whether there was more than it could hold.
    last: Option<Duration>,
    more: bool,
}

#[derive(Debug)]
struct OnItsWay {
    jobs: Vec<JobId>,
    since: Duration,
}

impl Reporter {
    /// The hub can be told something: everything that is held, and all that is kept.
    pub fn connected(&mut self, lifecycle: &Lifecycle, now: Duration) {
        let held = lifecycle.jobs().map(|(job_id, ..)| job_id.clone());
        let changed = self.kept.keys().cloned().collect();
        self.connection =
            Some(Connection { first: held.collect(), changed, since: Some(now), ..Connection::default() });
    }

    /// It cannot any more. What was on its way may not have arrived.
    pub fn disconnected(&mut self) {
        self.connection = None;
        // Who asks for them later asks again.
        let unknown = |kept: &Kept| kept.report.state == JobState::Unknown;
        let unknown: Vec<JobId> =
            self.kept.iter().filter(|(_, kept)| unknown(kept)).map(|(job_id, _)| job_id.clone()).collect();
        unknown.iter().for_each(|job_id| self.forget(job_id));
    }

    /// Is there a connection?
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Something has happened, to these jobs or to anything else.
    pub fn happened(&mut self, changes: Changes, now: Duration) {
        for (job_id, change) in changes {
            let is_news = change == Change::EndedBefore;
            if let Change::GivenBack { attempt, at, again_at, why } = change {
                let report = report(&job_id, JobState::Queued, attempt, at);
                let message = why.map(|why| why.chars().take(MESSAGE_MAX).collect());
                let again_at = Some(timestamp(again_at));
                self.keep(JobReport { again_at, message, ..report });
            }
            if let Some(connection) = &mut self.connection {
                // Its submission was repeated, or the hub was wiped, and believes it to be in the queue.
                if is_news && connection.asked.len() < LOOK_UPS_MAX {
                    connection.asked.insert(job_id.clone());
                }
                connection.changed.insert(job_id);
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.since.get_or_insert(now);
        }
    }

    /// These facts are about to be on disk. Jobs whose record is among them are known to `lifecycle`, or in `ended`,
    /// which [`Lifecycle::take_ended`] has given.
    pub fn commits(&mut self, facts: &[Fact], ended: &EndedChildren, lifecycle: &Lifecycle) {
        for fact in facts {
            let (Fact::Recorded(job_id, record) | Fact::Owed(job_id, record, _)) = fact else { continue };
            let known = ended.get(job_id).cloned().unwrap_or_else(|| lifecycle.known_of(job_id));
            let is_told = self.connection.as_ref().is_some_and(|connection| connection.told.contains(job_id));
            if known.is_untold && !is_told {
                continue;
            }
            self.ended(job_id, record, known);
            if let Some(connection) = &mut self.connection {
                connection.changed.insert(job_id.clone());
            }
        }
    }

    /// The hub has stored the report with this number.
    pub fn acknowledged(&mut self, number: u64) {
        let Some(connection) = &mut self.connection else { return };
        if number != connection.number {
            return;
        }
        let Some(OnItsWay { jobs, .. }) = connection.on_its_way.take() else { return };
        for job_id in jobs {
            let changed = self.connection.as_ref().is_some_and(|connection| connection.changed.contains(&job_id));
            if !changed {
                self.forget(&job_id);
            }
        }
    }

    /// The hub wants to hear of these jobs.
    pub fn asked(&mut self, jobs: Vec<JobId>, now: Duration) {
        let Some(connection) = &mut self.connection else { return };
        connection.since.get_or_insert(now);
        for job_id in jobs {
            if connection.asked.len() < LOOK_UPS_MAX {
                connection.asked.insert(job_id.clone());
                connection.changed.insert(job_id);
            }
        }
    }

    /// The jobs whose final records are needed now; what is found is told to [`Self::looked_up`].
    pub fn to_look_up(&mut self) -> Vec<JobId> {
        let Some(connection) = &mut self.connection else { return Vec::new() };
        let mut jobs = Vec::new();
        while jobs.len() < LOOK_UP_AT_ONCE
            && let Some(job_id) = connection.look_up.pop_first()
        {
            jobs.push(job_id);
        }
        jobs
    }

    /// The final record of a job, if it has one.
    pub fn looked_up(&mut self, job_id: &JobId, record: Option<&str>, lifecycle: &Lifecycle, now: Duration) {
        if self.connection.is_none() {
            return;
        }
        match record {
            Some(record) => self.ended(job_id, record, lifecycle.known_of(job_id)),
            None if lifecycle.phase_of(job_id).is_some() => {}
            None => self.keep(report(job_id, JobState::Unknown, 0, now)),
        }
        if let Some(connection) = &mut self.connection {
            connection.changed.insert(job_id.clone());
            connection.since.get_or_insert(now);
        }
    }

    /// When there may be a next report, should nothing happen before.
    pub fn due(&self) -> Option<Duration> {
        let connection = self.connection.as_ref().filter(|connection| connection.on_its_way.is_none())?;
        let last = connection.last.unwrap_or_default();
        if connection.more || !connection.first.is_empty() {
            return Some(last);
        }
        let gathered = connection.since? + GATHER;
        Some(if connection.last.is_some() { gathered.max(last + INTERVAL) } else { gathered })
    }

    /// The next report, if it is time and there is anything to tell.
    pub fn next(&mut self, lifecycle: &Lifecycle, now: Duration) -> Option<Report> {
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        let mut next = Report::default();
        let connection = self.connection.as_mut()?;
        connection.since = None;
        let site = lifecycle.site_report();
        if connection.site.as_ref() != Some(&site) {
            next.site = Some(site.clone());
            connection.site = Some(site);
        }
        let pools: Vec<PoolReport> = lifecycle.pools().map(|pool| pool.report()).collect();
        if connection.pools.as_ref() != Some(&pools) {
            next.pools = Some(pools.clone());
            connection.pools = Some(pools);
        }
        let more = self.fill(&mut next, lifecycle);
        let connection = self.connection.as_mut()?;
        connection.more = more;
        next.complete =
            connection.first.is_empty() && !std::mem::replace(&mut connection.complete, connection.first.is_empty());
        if next == Report::default() {
            return None;
        }
        connection.number += 1;
        next.number = connection.number;
        connection.last = Some(now);
        let jobs = next.jobs.iter().map(|job| job.job_id.clone()).collect();
        connection.on_its_way = Some(OnItsWay { jobs, since: now });
        Some(next)
    }

    /// Puts in as many jobs as there is room for; tells whether there are more.
    fn fill(&mut self, next: &mut Report, lifecycle: &Lifecycle) -> bool {
        let mut bytes = HEAD_BYTES;
        while let Some(connection) = &mut self.connection
            && let Some(job_id) = connection.first.pop_first().or_else(|| connection.changed.pop_first())
        {
            connection.changed.remove(&job_id);
            let Some(job) = self.job_report(&job_id, lifecycle) else { continue };
            bytes += bytes_of(&job);
            if next.jobs.len() == JOBS_MAX || (bytes > MESSAGE_BYTES_MAX && !next.jobs.is_empty()) {
                if let Some(connection) = &mut self.connection {
                    connection.changed.insert(job_id);
                }
                return true;
            }
            next.jobs.push(job);
        }
        false
    }

    /// What there is to say of a job now. What is held goes before what became of it earlier.
    fn job_report(&mut self, job_id: &JobId, lifecycle: &Lifecycle) -> Option<JobReport> {
        let connection = self.connection.as_mut()?;
        let asked = connection.asked.remove(job_id);
        if lifecycle.is_untold(job_id) {
            if asked && connection.told.len() < LOOK_UPS_MAX {
                connection.told.insert(job_id.clone());
            }
            if !asked && !connection.told.contains(job_id) {
                return None;
            }
        } else if lifecycle.phase_of(job_id).is_none() {
            connection.told.remove(job_id);
        }
        if let Some(report) = lifecycle.job_report(job_id) {
            self.forget(job_id);
            return Some(report);
        }
        if let Some(kept) = self.kept.get(job_id) {
            return Some(kept.report.clone());
        }
        let is_owed = lifecycle.phase_of(job_id) == Some(Phase::Recorded);
        let connection = self.connection.as_mut()?;
        if (asked || is_owed) && connection.look_up.len() < LOOK_UPS_MAX {
            connection.look_up.insert(job_id.clone());
        }
        None
    }

    /// A job has this final record.
    fn ended(&mut self, job_id: &JobId, record: &str, known: Known) {
        let (Ok(result), Ok(json)) = (JobResult::parse(record), Json::parse(record)) else { return };
        let Known { since, name, pool, parent, children, .. } = known;
        let report = JobReport {
            at: result.finished_at.unwrap_or(timestamp(since)),
            pool: result.pool.clone().or(pool),
            name,
            parent,
            children,
            result: Some(json),
            ..report(job_id, JobState::of(&result), result.attempt, since)
        };
        self.keep(JobReport { task: result.task, ..report });
    }

    fn keep(&mut self, report: JobReport) {
        self.forget(&report.job_id);
        let no = self.next_no;
        self.next_no += 1;
        self.order.insert(no, report.job_id.clone());
        if let Some(result) = &report.result {
            self.results_bytes += result.as_str().len();
            self.with_results.insert(no);
        }
        self.kept.insert(report.job_id.clone(), Kept { no, report });
        while self.results_bytes > RESULTS_BYTES_MAX
            && let Some(oldest) = self.with_results.first().and_then(|no| self.order.get(no)).cloned()
        {
            self.drop_result(&oldest);
        }
        while self.kept.len() > KEPT_MAX
            && let Some(oldest) = self.order.values().next().cloned()
        {
            self.forget(&oldest);
        }
    }

    fn drop_result(&mut self, job_id: &JobId) {
        let Some(kept) = self.kept.get_mut(job_id) else { return };
        self.with_results.remove(&kept.no);
        self.results_bytes -= kept.report.result.take().map_or(0, |result| result.as_str().len());
    }

    fn forget(&mut self, job_id: &JobId) {
        self.drop_result(job_id);
        if let Some(kept) = self.kept.remove(job_id) {
            self.order.remove(&kept.no);
        }
    }

    /// Since when the hub has not said that it has stored a report.
    pub fn waits_since(&self) -> Option<Duration> {
        Some(self.connection.as_ref()?.on_its_way.as_ref()?.since)
    }

    /// Has the hub stored all that there was to tell? What is held and not ended is told by who holds it next.
    pub fn is_done(&self) -> bool {
        self.connection.as_ref().map_or(self.kept.is_empty(), |connection| {
            let nothing_new = connection.first.is_empty() && connection.changed.is_empty();
            nothing_new && connection.complete && connection.on_its_way.is_none()
        })
    }
}

fn report(job_id: &JobId, state: JobState, attempt: u32, at: Duration) -> JobReport {
    JobReport {
        job_id: job_id.clone(),
        state: state.into(),
        attempt,
        at: timestamp(at),
        task: None,
        name: None,
        pool: None,
        parent: None,
        children: None,
        message: None,
        again_at: None,
        result: None,
    }
}

/// As much as the report of a job can take at most, as JSON.
fn bytes_of(job: &JobReport) -> usize {
    const ESCAPED: usize = 6;
    let texts = [&job.task, &job.name, &job.message].into_iter().flatten().map(String::len).sum::<usize>();
    400 + ESCAPED * texts + job.result.as_ref().map_or(0, |result| result.as_str().len())
}
