//! The bell: hears from the hub, in the background, that jobs have ended, so that nobody needs to look for their
//! results all the time.
//!
//! It holds one request open: for one job the one that waits for its end, otherwise the stream of events.
//!
//! Out of scope: results. They come through the queue ([`crate::Follower`]), and [`crate::Waiting`] asks the hub for
//! one that does not.
//!
//! Invariant: what is heard has somebody look, and decides nothing else. A listener that hears nothing, or cannot be
//! sure that it would, says so, and then looks are as if there were no hub.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::hub::{JobBrief, Sites, WAIT_SECONDS_MAX};
use protocol::{JobId, JobState};
use queues::Backoff;
use tokio::task::JoinHandle;

use super::error::Error;
use super::events::{Event, Events};
use super::{Answer, Hub};

/// For so long a hub that has not answered yet is taken for one that will.
const OPENING_PATIENCE: Duration = Duration::from_secs(3);

/// The pauses while the hub does not answer, or does not know a job.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A hub that was asked to wait, and has not, is not asked again at once.
const HELD_MIN: Duration = Duration::from_secs(1);

/// So many daemons are known by name.
const DAEMONS_MAX: usize = 1_000;

/// For so long a result is looked for that should be in the queue. After that somebody else has fetched it.
const OWED_MAX: Duration = Duration::from_secs(30);

/// So many results that are owed are known by name.
const OWED_COUNT_MAX: usize = 1_000;

/// Whose ends are of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Those of all jobs.
    All,
    /// Those of these jobs.
    Jobs {
        /// Which.
        jobs: Vec<JobId>,
        /// Is it of interest, too, how far they are on the way? That costs a stream of everything that happens.
        on_the_way: bool,
    },
}

/// Hears from the hub until the value goes.
#[derive(Debug)]
pub struct Listener {
    hub: Hub,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared(Mutex<Heard>);

/// Does the hub tell what happens?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ear {
    /// It was asked, and has not answered yet.
    Opening(Instant),
    /// Yes.
    Open,
    /// No.
    Closed,
}

#[derive(Debug)]
struct Heard {
    ear: Ear,
    /// The daemons that tell the hub what they do.
    linked: HashSet<String>,
    /// The jobs of interest, and how far they are; nothing where all are.
    wanted: Option<HashMap<JobId, Option<JobBrief>>>,
    on_the_way: bool,
    /// When something was heard last that may have put a result into the queue.
    rung: Option<Instant>,
    /// Jobs that have ended, and when that was heard.
    ended: HashMap<JobId, Instant>,
}

impl Listener {
    /// Begins to listen. It needs a runtime.
    pub fn new(hub: Hub, interest: Interest) -> Self {
        let (wanted, on_the_way) = match interest {
            Interest::All => (None, true),
            Interest::Jobs { jobs, on_the_way } => {
                (Some(jobs.into_iter().map(|job| (job, None)).collect()), on_the_way)
            }
        };
        let ear = Ear::Opening(Instant::now());
        let heard = Heard { ear, linked: HashSet::new(), wanted, on_the_way, rung: None, ended: HashMap::new() };
        let shared = Arc::new(Shared(Mutex::new(heard)));
        let task = tokio::spawn(listen(hub.clone(), Arc::clone(&shared)));
        Self { hub, shared, task }
    }

    /// What it listens to.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Would it hear of the end of every job of interest?
    pub fn hears(&self, now: Instant) -> bool {
        self.heard().hears(now)
    }

    /// When something was heard last that may have put a result into the queue.
    pub(crate) fn rung(&self) -> Option<Instant> {
        self.heard().rung
    }

    /// For how long the newest result is looked for that should be there and is not. `is_here` tells of each.
    pub(crate) fn owed(&self, now: Instant, is_here: impl Fn(&JobId) -> bool) -> Option<Duration> {
        let mut heard = self.heard();
        if heard.wanted.is_none() {
            heard.ended.retain(|job, at| now.duration_since(*at) < OWED_MAX && !is_here(job));
        }
        let since = heard.ended.iter().map(|(job, at)| (job, now.saturating_duration_since(*at)));
        since.filter(|(job, since)| *since < OWED_MAX && !is_here(job)).map(|(_, since)| since).min()
    }

    /// Those of these jobs that have ended so long ago.
    pub(crate) fn ended<'a>(&self, jobs: &'a [JobId], ago: Duration, now: Instant) -> Vec<&'a JobId> {
        let heard = self.heard();
        let is_so = |job: &&JobId| heard.ended.get(*job).is_some_and(|at| now.saturating_duration_since(*at) >= ago);
        jobs.iter().filter(is_so).collect()
    }

    /// The result of this job is here.
    pub(crate) fn came(&self, job_id: &JobId) {
        let mut heard = self.heard();
        heard.ended.remove(job_id);
        if let Some(wanted) = &mut heard.wanted {
            wanted.remove(job_id);
        }
    }

    /// How far the jobs of interest are, as far as it was heard.
    pub fn on_the_way(&self) -> Vec<JobBrief> {
        self.heard().wanted.iter().flatten().filter_map(|(_, brief)| brief.clone()).collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.shared.heard()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn hears(&self, now: Instant) -> bool {
        match self.ear {
            Ear::Closed => false,
            Ear::Opening(since) => now.duration_since(since) < OPENING_PATIENCE,
            // A job that no site tells of may be taken by one that never tells anything.
            Ear::Open => match &self.wanted {
                Some(wanted) => wanted.values().all(|brief| brief.as_ref().is_some_and(|job| self.is_told_of(job))),
                None => !self.linked.is_empty(),
            },
        }
    }

    fn is_told_of(&self, job: &JobBrief) -> bool {
        !self.linked.is_empty() || !matches!(job.state.known(), Some(JobState::Queued | JobState::Unknown))
    }

    /// A job is so far. Is it of interest?
    fn tell(&mut self, job: JobBrief, now: Instant) {
        if let Some(wanted) = &mut self.wanted {
            match wanted.get_mut(&job.job_id) {
                Some(brief) => *brief = Some(job.clone()),
                None => return,
            }
        }
        if job.state.known().is_some_and(JobState::has_ended) && !self.ended.contains_key(&job.job_id) {
            self.rung = Some(now);
            if self.wanted.is_some() || self.ended.len() < OWED_COUNT_MAX {
                self.ended.insert(job.job_id, now);
            }
        }
    }

    /// Some sites are so.
    fn tell_of_sites(&mut self, sites: Sites) {
        for site in sites.sites {
            if !site.linked {
                self.linked.remove(&site.daemon);
            } else if self.linked.len() < DAEMONS_MAX {
                self.linked.insert(site.daemon);
            }
        }
    }

    /// What is not known to have ended.
    fn open(&self) -> Vec<JobId> {
        let open = self.wanted.iter().flatten().filter(|(job, _)| !self.ended.contains_key(*job));
        open.map(|(job, _)| job.clone()).collect()
    }
}

/// How one connection ended.
enum Round {
    /// As it should: the next one may follow at once.
    Done,
    /// The hub does not know the job.
    Unknown,
    /// There is no hub, or no use in asking it again.
    Never,
    /// Something was wrong.
    Trouble(Error),
}

async fn listen(hub: Hub, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    let mut is_told = false;
    loop {
        let begun = Instant::now();
        let round = match next(&shared) {
            Next::Nothing => Ok(Round::Done),
            Next::One(job_id) => poll(&hub, &shared, &job_id).await,
            Next::All => events(&hub, &shared).await,
        };
        let lasted = begun.elapsed() >= HELD_MIN;
        let round = round.unwrap_or_else(Round::Trouble);
        if lasted && !matches!(round, Round::Trouble(_)) {
            backoff.reset();
            if std::mem::take(&mut is_told) {
                tracing::warn!("the hub answers again");
            }
        }
        let pause = match round {
            Round::Done if lasted => continue,
            Round::Done => backoff.pause(),
            Round::Unknown => {
                shared.heard().ear = Ear::Closed;
                backoff.pause()
            }
            Round::Never => {
                shared.heard().ear = Ear::Closed;
                return;
            }
            Round::Trouble(error @ Error::Refused(_)) => {
                tracing::warn!("going on without the hub: {error}");
                shared.heard().ear = Ear::Closed;
                return;
            }
            Round::Trouble(error) => {
                shared.heard().ear = Ear::Closed;
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("going on without the hub: {error}");
                }
                match error {
                    Error::Unavailable { after: Some(after), .. } => after.min(PAUSE_MAX),
                    _ => backoff.pause(),
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

enum Next {
    /// All that is of interest has ended.
    Nothing,
    /// Hold a request for this job.
    One(JobId),
    /// Hear everything.
    All,
}

fn next(shared: &Shared) -> Next {
    let heard = shared.heard();
    if heard.wanted.is_none() {
        return Next::All;
    }
    match (heard.open().as_slice(), heard.on_the_way) {
        ([], _) => Next::Nothing,
        ([job_id], false) => Next::One(job_id.clone()),
        _ => Next::All,
    }
}

/// Waits for the end of one job.
async fn poll(hub: &Hub, shared: &Shared, job_id: &JobId) -> Result<Round, Error> {
    loop {
        // What it says at once is whether it knows the job.
        let is_open = matches!(shared.heard().ear, Ear::Open);
        let wait = is_open.then_some(Duration::from_secs(WAIT_SECONDS_MAX));
        let brief = match hub.job(job_id, wait).await? {
            Answer::Known(status) => status.brief,
            Answer::UnknownJob => return Ok(Round::Unknown),
            Answer::NoHub => return Ok(Round::Never),
        };
        let waits = matches!(brief.state.known(), Some(JobState::Queued | JobState::Unknown));
        let sites = if waits { Some(sites(hub).await?) } else { None };
        let mut heard = shared.heard();
        if let Some(sites) = sites {
            heard.linked.clear();
            heard.tell_of_sites(sites);
        }
        heard.ear = Ear::Open;
        heard.tell(brief, Instant::now());
        if is_open || heard.ended.contains_key(job_id) {
            return Ok(Round::Done);
        }
    }
}

/// Hears what happens, until the stream ends or nothing is of interest any more.
async fn events(hub: &Hub, shared: &Shared) -> Result<Round, Error> {
    let mut events = match hub.events().await? {
        Answer::Known(events) => events,
        Answer::UnknownJob | Answer::NoHub => return Ok(Round::Never),
    };
    // What happened before the stream began is asked for.
    let wanted = shared.heard().open();
    let known = hub.briefs(&wanted).await?.known().unwrap_or_default();
    let sites = sites(hub).await?;
    let now = Instant::now();
    {
        let mut heard = shared.heard();
        heard.linked.clear();
        heard.tell_of_sites(sites);
        known.into_values().for_each(|job| heard.tell(job, now));
        if heard.wanted.is_none() {
            // Of what ended meanwhile nothing tells.
            heard.rung = Some(now);
        }
        heard.ear = Ear::Open;
    }
    let ended = hear(shared, &mut events).await;
    // The next connection may hear what this one would have heard.
    shared.heard().ear = Ear::Opening(Instant::now());
    ended.map(|()| Round::Done)
}

async fn hear(shared: &Shared, events: &mut Events) -> Result<(), Error> {
    while let Some(event) = events.next().await? {
        match event {
            Event::Job(job) => shared.heard().tell(*job, Instant::now()),
            Event::Sites(sites) => shared.heard().tell_of_sites(sites),
            Event::Other => {}
        }
        if matches!(next(shared), Next::Nothing) {
            break;
        }
    }
    Ok(())
}

async fn sites(hub: &Hub) -> Result<Sites, Error> {
    Ok(hub.sites().await?.known().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(job_id: &str, state: &str) -> JobBrief {
        let text =
            format!(r#"{{"job_id":"{job_id}","state":"{state}","attempt":1,"updated_at":"2026-11-30T04:00:00Z"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn heard(wanted: Option<&[&str]>) -> Heard {
        let wanted = wanted.map(|ids| ids.iter().map(|id| (id.parse().unwrap(), None)).collect());
        Heard { ear: Ear::Open, linked: HashSet::new(), wanted, on_the_way: false, rung: None, ended: HashMap::new() }
    }

    fn site(linked: bool) -> Sites {
        let text = format!(
            r#"{{"sites":[{{"site":"alpha","daemon":"d","host":"h","version":"1","linked":{linked},
            "since":"2026-11-30T04:00:00Z","seen_at":"2026-11-30T04:00:00Z"}}],"queue":{{"queued":0}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_hub_is_relied_on_only_for_what_somebody_tells_it() {
        let now = Instant::now();
        let mut heard = heard(Some(&["a", "b"]));
        assert!(!heard.hears(now), "it knows neither");
        heard.tell(brief("a", "running"), now);
        heard.tell(brief("b", "queued"), now);
        assert!(!heard.hears(now), "a site that is not linked may take it");
        heard.tell_of_sites(site(true));
        assert!(heard.hears(now));
        heard.tell_of_sites(site(false));
        assert!(!heard.hears(now));
        heard.tell(brief("b", "held"), now);
        assert!(heard.hears(now));
        heard.tell(brief("b", "a newer word"), now);
        assert!(heard.hears(now), "it is told of");
        heard.ear = Ear::Opening(now);
        assert!(heard.hears(now) && !heard.hears(now + OPENING_PATIENCE));
        heard.ear = Ear::Closed;
        assert!(!heard.hears(now));
        let mut all = super::tests::heard(None);
        assert!(!all.hears(now));
        all.tell_of_sites(site(true));
        assert!(all.hears(now));
    }

    #[test]
    fn ends_of_jobs_of_interest_ring_once() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut heard = heard(Some(&["a"]));
        heard.tell(brief("other", "failed"), now);
        heard.tell(brief("a", "running"), now);
        assert_eq!(heard.rung, None);
        heard.tell(brief("a", "completed"), now);
        heard.tell(brief("a", "completed"), later);
        assert_eq!((heard.rung, heard.ended.len(), heard.open().len()), (Some(now), 1, 0));
        let mut all = super::tests::heard(None);
        for number in 0..2 * OWED_COUNT_MAX {
            all.tell(brief(&format!("j{number}"), "failed"), now);
        }
        assert_eq!(all.ended.len(), OWED_COUNT_MAX, "what is owed has a bound");
    }
}
