//! A look at the two queues when the daemon starts: settings of theirs that lose jobs or results later, and ids that
//! were swapped.
//!
//! Out of scope: whether the queues can be used at all, which the loop finds out.
//! Invariant: the look keeps no daemon from starting whose token may not read settings, or whose network is slow: what
//! is not told is passed over. Only names that prove that the settings are wrong are a reason not to start.

use std::time::Duration;

use protocol::{JOBS_QUEUE, RESULTS_QUEUE, limits};
use queues::{Client, QueueInfo};

/// How long the two answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue that keeps its messages no longer than this may lose them over a weekend.
const SHORT_RETENTION: Duration = Duration::from_hours(24);

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
        let jobs_is_results = self.jobs.name.as_deref() == Some(RESULTS_QUEUE);
        let results_is_jobs = self.results.name.as_deref() == Some(JOBS_QUEUE);
        let what = match (jobs_is_results, results_is_jobs) {
            (false, false) => return None,
            (true, true) => format!(
                "CF_JOBS_QUEUE_ID is the id of the queue {RESULTS_QUEUE}, and CF_RESULTS_QUEUE_ID that of {JOBS_QUEUE}; swap the two"
            ),
            (true, false) => {
                format!("CF_JOBS_QUEUE_ID is the id of the queue {RESULTS_QUEUE}; set it to the id of {JOBS_QUEUE}")
            }
            (false, true) => {
                format!("CF_RESULTS_QUEUE_ID is the id of the queue {JOBS_QUEUE}; set it to the id of {RESULTS_QUEUE}")
            }
        };
        Some(format!("{what} (`wrangler queues list` shows both)"))
    }

    /// What can lose messages, one sentence for each queue.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let jobs = warning(&self.jobs, "jobs", JOBS_QUEUE, true);
        // Results that are given up are still in RESULTS_DIR, so they need no dead letter queue.
        let results = warning(&self.results, "results", RESULTS_QUEUE, false);
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

fn warning(info: &QueueInfo, what: &str, usual_name: &str, needs_dead_letters: bool) -> Option<String> {
    let mut problems = Vec::new();
    // A Worker that consumes the queue leaves nothing to pull, which pulls are told.
    let consumer = info.consumers.iter().flatten().find(|consumer| consumer.pulls);
    if let Some(consumer) = consumer {
        if let Some(retries) = consumer.max_retries.filter(|retries| *retries < limits::QUEUE_RETRIES_MAX) {
            problems.push(format!(
                "a message is given up after {retries} retries, and each crash of its reader costs one ({} is the most)",
                limits::QUEUE_RETRIES_MAX
            ));
        }
        if needs_dead_letters && consumer.dead_letter_queue.is_none() {
            problems.push("what is given up is deleted, for there is no dead letter queue".to_owned());
        }
    }
    if let Some(retention) = info.retention.filter(|retention| *retention <= SHORT_RETENTION) {
        let hours = retention.as_secs() / 3_600;
        problems.push(format!("what nobody has taken after {hours} hours is deleted"));
    }
    let name = info.name.as_deref().unwrap_or(usual_name);
    (!problems.is_empty()).then(|| {
        format!(
            "the queue {name} can lose {what}: {}; how to set it is in docs/operations.md, \"Cloudflare\"",
            problems.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use queues::Consumer;

    use super::*;

    fn queue(name: &str, retention_hours: u64, max_retries: u64, dead_letter_queue: Option<&str>) -> QueueInfo {
        let dead_letter_queue = dead_letter_queue.map(str::to_owned);
        QueueInfo {
            name: Some(name.to_owned()),
            retention: Some(Duration::from_hours(retention_hours)),
            consumers: Some(vec![Consumer { pulls: true, max_retries: Some(max_retries), dead_letter_queue }]),
        }
    }

    fn look(jobs: QueueInfo, results: QueueInfo) -> Look {
        Look { jobs, results, problem: None }
    }

    #[test]
    fn queues_as_the_documentation_makes_them_are_well_and_so_are_those_that_tell_nothing() {
        let well = look(queue("hpc-jobs", 96, 100, Some("hpc-jobs-dlq")), queue("hpc-results", 96, 100, None));
        for look in [well, Look::default()] {
            assert_eq!((look.wrong_ids(), look.warnings()), (None, Vec::new()));
        }
        let of_a_worker = Consumer { pulls: false, max_retries: Some(3), dead_letter_queue: None };
        let pushed = QueueInfo { consumers: Some(vec![of_a_worker]), ..queue("hpc-jobs", 96, 3, None) };
        assert_eq!(look(pushed, QueueInfo::default()).warnings(), Vec::<String>::new());
    }

    #[test]
    fn what_can_lose_messages_is_said_once_for_each_queue() {
        let warnings = look(queue("my-jobs", 24, 3, None), queue("hpc-results", 1, 99, None)).warnings();
        let [jobs, results] = warnings.as_slice() else { panic!("{warnings:?}") };
        let all = ["my-jobs can lose jobs", "after 3 retries", "no dead letter queue", "after 24 hours"];
        assert!(all.iter().all(|part| jobs.contains(part)), "{jobs}");
        assert!(["after 99 retries", "after 1 hours"].iter().all(|part| results.contains(part)), "{results}");
        assert!(!results.contains("dead letter"), "{results}");
    }

    #[test]
    fn names_prove_that_ids_are_swapped() {
        let named = |jobs, results| look(queue(jobs, 96, 100, Some("d")), queue(results, 96, 100, None)).wrong_ids();
        assert!(named("hpc-results", "hpc-jobs").is_some_and(|text| text.contains("swap the two")));
        assert!(named("hpc-results", "mine").is_some_and(|text| text.contains("set it to the id of hpc-jobs")));
        assert!(named("mine", "hpc-jobs").is_some_and(|text| text.contains("set it to the id of hpc-results")));
        assert_eq!(named("mine", "yours"), None);
    }
}
