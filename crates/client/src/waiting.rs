//! Waiting for the results of jobs.
//!
//! Out of scope: for how long, and what is said meanwhile (the programs).
//!
//! Invariant: what is in the inbox is enough; which program put it there does not matter.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use protocol::JobId;

use crate::error::Error;
use crate::follow::Follower;
use crate::hub::{Answer, Hub, Listener};
use crate::inbox::{self, Arrived, Inbox, Kept};

/// So long after the hub has said that a job has ended, its result is looked for in the queue alone.
const GRACE: Duration = Duration::from_secs(10);

/// When to ask the hub for a result again that it did not have.
const AGAIN: Duration = Duration::from_secs(60);

/// Jobs whose results are wanted.
#[derive(Debug)]
pub struct Waiting {
    follower: Follower,
    pending: Vec<JobId>,
    arrived: VecDeque<Arrived>,
    /// Results that the hub had and the queue did not.
    by_hub: HashSet<JobId>,
    /// When to ask the hub for a result again.
    again: HashMap<JobId, Instant>,
}

/// A result that is here.
#[derive(Debug)]
pub struct Came {
    /// The result.
    pub arrived: Arrived,
    /// Did it come from the hub, because the queue did not give it?
    pub by_hub: bool,
}

impl Waiting {
    /// Waits for the results of these jobs, and asks for looks that fit somebody who waits.
    pub fn new(mut follower: Follower, pending: Vec<JobId>) -> Self {
        follower.ask();
        Self { follower, pending, arrived: VecDeque::new(), by_hub: HashSet::new(), again: HashMap::new() }
    }

    /// The jobs whose results are not here.
    pub fn pending(&self) -> &[JobId] {
        &self.pending
    }

    /// What hears from the hub, if anything does.
    pub fn listener(&self) -> Option<&Listener> {
        self.follower.listener()
    }

    /// The next result, if it is here, or comes within a moment. Can be dropped without harm.
    pub async fn next(&mut self) -> Result<Option<Came>, Error> {
        if let Some(came) = self.here()? {
            return Ok(Some(came));
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let received = self.follower.step().await?;
        let mut here = self.here()?;
        if let Some(failure) = received.and_then(|received| received.failure) {
            if here.is_none() {
                return Err(failure.into());
            }
            // Another result could not be stored. That must be said, but this one is here.
            tracing::warn!("{failure}");
        }
        if here.is_none() && self.ask_hub().await? {
            here = self.here()?;
        }
        Ok(here)
    }

    /// Ends a look that is under way. What it brought is next.
    pub async fn finish(&mut self) {
        self.follower.finish().await;
    }

    /// The next result that is here, without waiting for one.
    pub fn next_here(&mut self) -> Result<Option<Came>, Error> {
        self.here()
    }

    fn here(&mut self) -> Result<Option<Came>, Error> {
        if self.arrived.is_empty() {
            self.arrived = take_arrived(self.follower.inbox(), &mut self.pending)?.into();
            if let Some(listener) = self.follower.listener() {
                self.arrived.iter().for_each(|arrived| listener.came(&arrived.result.job_id));
            }
        }
        let Some(arrived) = self.arrived.pop_front() else { return Ok(None) };
        let by_hub = self.by_hub.remove(&arrived.result.job_id);
        Ok(Some(Came { arrived, by_hub }))
    }

    /// Takes the result of a job from the hub that has ended a while ago, and whose result the queue has not given:
    /// another laptop may have fetched it. Did one come?
    async fn ask_hub(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        let Some(listener) = self.follower.listener() else { return Ok(false) };
        let ended = listener.ended(&self.pending, GRACE, now);
        let Some(job_id) = ended.into_iter().find(|job| self.again.get(job).is_none_or(|again| *again <= now)) else {
            return Ok(false);
        };
        let job_id = job_id.clone();
        // Before it is asked: the future may be dropped.
        self.again.insert(job_id.clone(), now + AGAIN);
        let Some(arrived) = of_hub(listener.hub(), &job_id).await else { return Ok(false) };
        let inbox = self.follower.inbox();
        if inbox.keep(&arrived)? == Kept::New {
            inbox.sync()?;
            self.by_hub.insert(job_id);
        }
        Ok(true)
    }
}

/// The result of a job, as the hub has it.
async fn of_hub(hub: &Hub, job_id: &JobId) -> Option<Arrived> {
    let result = match hub.job(job_id, None).await {
        Ok(Answer::Known(status)) => status.result?,
        Ok(Answer::UnknownJob | Answer::NoHub) => return None,
        Err(error) => {
            tracing::debug!("{error}");
            return None;
        }
    };
    match Arrived::parse(result.as_str().to_owned()) {
        Ok(arrived) if arrived.result.job_id == *job_id => Some(arrived),
        Ok(arrived) => {
            tracing::warn!(
                "the hub has a result of {} as that of the job {job_id}; it is not used",
                arrived.result.job_id
            );
            None
        }
        Err(error) => {
            tracing::warn!("what the hub has as the result of the job {job_id} is none ({error}); it is not used");
            None
        }
    }
}

/// The results that are here; their jobs are pending no more.
pub fn take_arrived(inbox: &Inbox, pending: &mut Vec<JobId>) -> Result<Vec<Arrived>, inbox::Error> {
    let mut here = Vec::new();
    let mut failed = None;
    pending.retain(|job_id| match inbox.find(job_id) {
        Ok(None) => true,
        Ok(Some(arrived)) => {
            here.push(arrived);
            false
        }
        Err(error) => {
            failed.get_or_insert(error);
            true
        }
    });
    // What is here is given before what is wrong is told.
    match failed {
        Some(error) if here.is_empty() => Err(error),
        _ => Ok(here),
    }
}
