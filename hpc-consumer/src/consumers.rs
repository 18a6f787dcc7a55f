//! A look at the two queues when the daemon starts: settings of theirs that lose jobs or results later, and ids that
//! were swapped.
//!
//! Out of scope: whether the queues can be used at all, which the loop finds out; what is wrong with them (`doctor`).
//! Invariant: the look keeps no daemon from starting whose token may not read settings, or whose network is slow: what
//! is not told is passed over. Only names that prove that the settings are wrong are a reason not to start.

use std::time::Duration;

use doctor::queue::{self, Role};
use queues::{Client, QueueInfo};

/// How long the two answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the service tells of the two queues; the default is nothing.
#[derive(Debug, Default)]
pub(crate) struct Look {
    jobs: QueueInfo,
    results: QueueInfo,
    /// Why it is not all.
    problem: Option<String>,
}

impl Look {
    /// Asks the service.
    pub(crate) async fn take(client: &Client, jobs_queue: &str, results_queue: &str) -> Self {
        let both = async { tokio::join!(client.queue(jobs_queue), client.queue(results_queue)) };
        let Ok((jobs, results)) = tokio::time::timeout(PATIENCE, both).await else {
            let problem = format!("there was no answer within {} s", PATIENCE.as_secs());
            return Self { problem: Some(problem), ..Self::default() };
        };
        let problem = jobs.as_ref().err().or(results.as_ref().err()).map(ToString::to_string);
        Self { jobs: jobs.unwrap_or_default(), results: results.unwrap_or_default(), problem }
    }

    /// What is wrong with the two ids, when the names of the queues prove it. Who has given them other names than the
    /// documentation does is not told anything.
    pub(crate) fn wrong_ids(&self) -> Option<String> {
        queue::wrong_ids(self.jobs.name.as_deref(), self.results.name.as_deref())
    }

    /// What can lose messages, one sentence for each queue.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let (jobs, results) = (queue::warning(&self.jobs, Role::Jobs), queue::warning(&self.results, Role::Results));
        jobs.into_iter().chain(results).collect()
    }

    /// What the queue of the jobs and that of the results are called, where the service tells it.
    pub(crate) fn into_names(self) -> [Option<String>; 2] {
        [self.jobs.name, self.results.name]
    }

    /// What the queues are called, for a person.
    pub(crate) fn names(&self) -> String {
        let name = |info: &QueueInfo| info.name.clone().unwrap_or_else(|| "unknown".to_owned());
        let names =
            format!("the queue of the jobs is {}, that of the results is {}", name(&self.jobs), name(&self.results));
        match &self.problem {
            None => names,
            Some(problem) if self.jobs.name.is_none() && self.results.name.is_none() => {
                format!("what the two queues are called could not be asked: {problem}")
            }
            Some(problem) => format!("{names} (the queues did not tell all: {problem})"),
        }
    }
}
