//! Waiting for the results of jobs.
//!
//! Out of scope: for how long, and what is said meanwhile (the programs).
//!
//! Invariant: what is in the inbox is enough; which program put it there does not matter.

use std::collections::VecDeque;

use protocol::JobId;

use crate::error::Error;
use crate::follow::Follower;
use crate::inbox::{self, Arrived, Inbox};

/// Jobs whose results are wanted.
#[derive(Debug)]
pub struct Waiting {
    follower: Follower,
    pending: Vec<JobId>,
    arrived: VecDeque<Arrived>,
}

impl Waiting {
    /// Waits for the results of these jobs, and asks for looks that fit somebody who waits.
    pub fn new(follower: Follower, pending: Vec<JobId>) -> Self {
        follower.ask();
        Self { follower, pending, arrived: VecDeque::new() }
    }

    /// The jobs whose results are not here.
    pub fn pending(&self) -> &[JobId] {
        &self.pending
    }

    /// The next result, if it is here, or comes within a moment. Can be dropped without harm.
    pub async fn next(&mut self) -> Result<Option<Arrived>, Error> {
        if let Some(arrived) = self.here()? {
            return Ok(Some(arrived));
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let received = self.follower.step().await?;
        let here = self.here()?;
        match received.and_then(|received| received.failure) {
            Some(failure) if here.is_none() => Err(failure.into()),
            failure => {
                if let Some(failure) = failure {
                    // Another result could not be stored. That must be said, but this one is here.
                    tracing::warn!("{failure}");
                }
                Ok(here)
            }
        }
    }

    /// Ends a look that is under way. What it brought is next.
    pub async fn finish(&mut self) {
        self.follower.finish().await;
    }

    /// The next result that is here, without waiting for one.
    pub fn next_here(&mut self) -> Result<Option<Arrived>, Error> {
        self.here()
    }

    fn here(&mut self) -> Result<Option<Arrived>, Error> {
        if self.arrived.is_empty() {
            self.arrived = take_arrived(self.follower.inbox(), &mut self.pending)?.into();
        }
        Ok(self.arrived.pop_front())
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
