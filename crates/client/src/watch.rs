//! What is new in an inbox, whoever stored it.
//!
//! Out of scope: looking at the queue.
//!
//! Invariant: each result is new once, and none is missed, however many come at once.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use protocol::JobId;

use crate::inbox::{self, Arrived, Inbox};

/// File systems tell times apart that are this far from each other, and servers of files answer from a memory that is
/// this old. A directory is read again until it has not changed for so long.
const SETTLED: Duration = Duration::from_secs(5);

/// A view of the results of an inbox.
#[derive(Debug)]
pub struct Watch {
    inbox: Inbox,
    seen: HashSet<JobId>,
    changed: Option<SystemTime>,
    /// When it was seen that the directory has changed.
    unsettled: Instant,
}

impl Watch {
    /// What is there now is not new.
    pub fn new(inbox: &Inbox) -> Result<Self, inbox::Error> {
        let changed = inbox.changed();
        let seen = inbox.arrived()?.into_iter().collect();
        Ok(Self { inbox: inbox.clone(), seen, changed, unsettled: Instant::now() })
    }

    /// This result is not new any more. Was it?
    pub fn saw(&mut self, job_id: &JobId) -> bool {
        self.seen.insert(job_id.clone())
    }

    /// The results that are new since this was asked last.
    pub fn new_results(&mut self) -> Result<Vec<Arrived>, inbox::Error> {
        let changed = self.inbox.changed();
        if changed != self.changed {
            (self.changed, self.unsettled) = (changed, Instant::now());
        } else if self.unsettled.elapsed() > SETTLED {
            return Ok(Vec::new());
        }
        let mut new = Vec::new();
        for job_id in self.inbox.arrived()? {
            if !self.seen.insert(job_id.clone()) {
                continue;
            }
            match self.inbox.find(&job_id) {
                Ok(arrived) => new.extend(arrived),
                // Somebody has put it there by hand. It is no reason to stop.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_is_new_once() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(dir.path());
        inbox.prepare(&files::NobodyElse).unwrap();
        let keep = |id: &str| {
            let text = format!("{{\"v\":1,\"job_id\":\"{id}\",\"status\":\"completed\",\"result_pointer\":\"p\"}}");
            inbox.keep(&Arrived::parse(text).unwrap()).unwrap();
        };
        keep("before");
        let mut watch = Watch::new(&inbox).unwrap();
        let mut new = || -> Vec<String> {
            let mut new: Vec<_> =
                watch.new_results().unwrap().iter().map(|new| new.result.job_id.to_string()).collect();
            new.sort();
            new
        };
        assert!(new().is_empty());
        // All of them may bear one time.
        keep("a");
        assert_eq!(new(), ["a"]);
        keep("b");
        keep("c");
        assert_eq!(new(), ["b", "c"]);
        std::fs::write(dir.path().join("results").join("junk.json"), "x").unwrap();
        assert!(new().is_empty());
        keep("d");
        assert!(watch.saw(&"d".parse().unwrap()));
        assert!(watch.new_results().unwrap().is_empty());
    }
}
