//! Which jobs of many are listed, asked in the same words of every program.

use std::time::Duration;

use clap::Args;
use protocol::duration::{self, Unit};
use protocol::{JobState, PoolName, Timestamp};

use crate::number::whole;

/// The longest time back that can be asked for: a hundred years.
const SINCE_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Which jobs are listed. Without any of these, all that are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs")]
pub struct JobFilter {
    /// List only jobs in this state, or in one of several with commas between them
    ///
    /// A state is unknown, queued, held, running, completed, failed or cancelled.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<JobState>,
    /// List only jobs of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// List only jobs that are, or are to be, in this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<PoolName>,
    /// List only jobs that their user calls this
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// List only jobs with which something has happened within this time: submitted, begun, ended
    #[arg(long, value_name = "DURATION", value_parser = since)]
    since: Option<Duration>,
    /// List at most so many: those with which something has happened last
    #[arg(long, value_name = "COUNT", value_parser = |text: &str| whole(text, 1..=1_000_000))]
    limit: Option<u64>,
}

/// What a job is filtered by.
pub trait Listed {
    /// How far it is.
    fn state(&self) -> JobState;
    /// What it runs, where that is known.
    fn task(&self) -> Option<&str>;
    /// Where it is or is to be.
    fn pool(&self) -> Option<&str>;
    /// What its user calls it.
    fn name(&self) -> Option<&str>;
    /// When something has happened with it last.
    fn changed(&self) -> Option<Timestamp>;
}

impl JobFilter {
    /// Is anything asked for, so that not all jobs are listed?
    pub fn is_given(&self) -> bool {
        let Self { states, task, pool, name, since, limit } = self;
        !states.is_empty()
            || [task, name].iter().any(|text| text.is_some())
            || pool.is_some()
            || since.is_some()
            || limit.is_some()
    }

    /// The states that are asked for; none: any.
    pub fn states(&self) -> &[JobState] {
        &self.states
    }

    /// The task that is asked for.
    pub fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// The pool that is asked for.
    pub fn pool(&self) -> Option<&PoolName> {
        self.pool.as_ref()
    }

    /// The name that is asked for.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How many are asked for at the most.
    pub fn limit(&self) -> Option<usize> {
        self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Are jobs asked for that have ended?
    pub fn names_an_end(&self) -> bool {
        self.states.iter().any(|state| state.has_ended())
    }

    /// The earliest time at which something may have happened.
    pub fn earliest(&self, now: Timestamp) -> Option<Timestamp> {
        self.since.map(|since| now.checked_sub(since).unwrap_or(Timestamp::MIN))
    }

    /// Those of the jobs that are asked for, in their order.
    pub fn select<J: Listed>(&self, jobs: Vec<J>, now: Timestamp) -> Vec<J> {
        let earliest = self.earliest(now);
        let is = |asked: Option<&str>, is: Option<&str>| asked.is_none_or(|asked| is == Some(asked));
        let mut jobs: Vec<J> = jobs
            .into_iter()
            .filter(|job| {
                (self.states.is_empty() || self.states.contains(&job.state()))
                    && is(self.task.as_deref(), job.task())
                    && is(self.pool.as_ref().map(PoolName::as_str), job.pool())
                    && is(self.name.as_deref(), job.name())
                    && earliest.is_none_or(|earliest| job.changed().is_some_and(|changed| changed >= earliest))
            })
            .collect();
        let most = self.limit().unwrap_or(usize::MAX);
        if let Some(too_many) = jobs.len().checked_sub(most).filter(|too_many| *too_many > 0) {
            let mut by_change: Vec<(Option<Timestamp>, usize)> =
                jobs.iter().enumerate().map(|(place, job)| (job.changed(), place)).collect();
            by_change.sort_unstable();
            let mut leaves = vec![false; jobs.len()];
            for (_, place) in &by_change[..too_many] {
                leaves[*place] = true;
            }
            let mut leaves = leaves.into_iter();
            jobs.retain(|_| leaves.next() != Some(true));
        }
        jobs
    }
}

fn since(text: &str) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, Duration::from_millis(1)..=SINCE_MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        filter: JobFilter,
    }

    #[derive(Debug)]
    struct Job(&'static str, JobState, Option<Timestamp>);

    impl Listed for Job {
        fn state(&self) -> JobState {
            self.1
        }
        fn task(&self) -> Option<&str> {
            Some("simulate")
        }
        fn pool(&self) -> Option<&str> {
            (self.0 != "a").then_some("gpu")
        }
        fn name(&self) -> Option<&str> {
            Some(self.0)
        }
        fn changed(&self) -> Option<Timestamp> {
            self.2
        }
    }

    fn listed(arguments: &str) -> String {
        let words = ["list"].into_iter().chain(arguments.split_whitespace());
        let Cli { filter } = Cli::try_parse_from(words).expect("the arguments are right");
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let jobs = vec![
            Job("a", JobState::Running, at("2026-11-21T01:00:00Z")),
            Job("b", JobState::Held, at("2026-11-21T01:30:00Z")),
            Job("c", JobState::Failed, at("2026-11-21T00:00:00Z")),
            Job("d", JobState::Running, None),
        ];
        assert_eq!(filter.is_given(), !arguments.is_empty());
        let now = at("2026-11-21T02:00:00Z").unwrap();
        filter.select(jobs, now).iter().map(|job| job.0).collect()
    }

    #[test]
    fn jobs_are_listed_by_what_is_asked_for_in_their_order() {
        for (arguments, jobs) in [
            ("", "abcd"),
            ("--state running", "ad"),
            ("--state held,failed", "bc"),
            ("--state held --state failed", "bc"),
            ("--task simulate", "abcd"),
            ("--task echo", ""),
            ("--pool gpu", "bcd"),
            ("--name c", "c"),
            ("--since 1h", "ab"),
            ("--since 45m", "b"),
            ("--limit 2", "ab"),
            ("--limit 1", "b"),
            ("--limit 9", "abcd"),
            ("--state running --limit 1", "a"),
        ] {
            assert_eq!(listed(arguments), jobs, "{arguments}");
        }
        for wrong in ["--state canceled", "--since yesterday", "--limit 0", "--pool GPU"] {
            assert!(Cli::try_parse_from(["list"].into_iter().chain(wrong.split(' '))).is_err(), "{wrong}");
        }
    }
}
