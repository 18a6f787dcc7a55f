//! The hub, as the commands ask it: for those that can do without it, and those that cannot.

use client::Follower;
use client::hub::{Answer, Error, Hub, Interest, Listener};
use program::{Exit, Failure, age};
use protocol::hub::{JobBrief, Sites};
use protocol::link::Children;
use protocol::{JobId, JobState, Timestamp, timestamp_from_millis};
use std::io::IsTerminal as _;

use crate::config::{CommonArgs, EdgeArgs};

/// The hub, should there be one, for what can do without: what is wrong with the settings is said.
pub(super) fn if_any(common: &CommonArgs, edge: &EdgeArgs) -> Option<Hub> {
    edge.hub(common).unwrap_or_else(|error| {
        tracing::warn!("the hub is not asked: {error:#}");
        None
    })
}

/// What the hub said, for what can do without: that it said nothing is told.
pub(super) fn said<T>(answer: Result<Answer<T>, Error>) -> Option<T> {
    match answer {
        Ok(answer) => answer.known(),
        Err(error) => {
            tracing::warn!("this is only what is known here: {error}");
            None
        }
    }
}

/// There is no hub that could be asked for this.
pub(super) fn none(hub: Option<&Hub>, what: &str) -> anyhow::Error {
    let why = match hub {
        Some(_) => "the edge has no hub",
        None => "PRODUCER_URL and API_KEY, which lead to the hub of the edge, are not set",
    };
    Failure::with(Exit::NotFound, format!("{why}, and {what}"))
}

/// Has a hub tell when jobs have ended. On a terminal it also tells how far they are.
pub(super) fn listen(follower: &mut Follower, hub: Option<Hub>, jobs: &[JobId]) {
    let Some(hub) = hub else { return };
    let on_the_way = std::io::stderr().is_terminal();
    follower.listen(Listener::new(hub, Interest::Jobs { jobs: jobs.to_vec(), on_the_way }));
}

/// Now, as times on the wire have it.
pub(super) fn now() -> Timestamp {
    timestamp_from_millis(Timestamp::now().as_millisecond())
}

/// Where a job is, for a person: `running at alpha for 3 min`.
pub(super) fn whereabouts(job: &JobBrief, now: Timestamp) -> String {
    let mut text = job.state.to_string();
    let state = job.state.known();
    if let Some(site) = job.site.as_ref().filter(|_| state != Some(JobState::Queued)) {
        text = format!("{text} at {site}");
    }
    let since = age(job.updated_at, now);
    text = if state.is_some_and(JobState::has_ended) {
        format!("{text} {since} ago")
    } else {
        format!("{text} for {since}")
    };
    match &job.children {
        Some(children) if !state.is_some_and(JobState::has_ended) => {
            text = format!("{text}, {}", of_children(children))
        }
        // Each round of a job with children is an execution of its own.
        Some(_) => {}
        None if job.attempt > 1 => text = format!("{text}, attempt {}", job.attempt),
        None => {}
    }
    if job.cancel_requested_at.is_some() && !state.is_some_and(JobState::has_ended) {
        text.push_str(", to be canceled");
    }
    text
}

/// How many jobs of a job have ended; of a workflow, of all its tasks.
fn of_children(children: &Children) -> String {
    let Children { all, ended, tasks } = children;
    match tasks {
        Some(tasks) => format!("{ended} of {tasks} tasks have ended"),
        None => format!("{ended} of {all} jobs have ended"),
    }
}

/// Whether anybody would take a job.
pub(super) fn linked(sites: &Sites) -> String {
    let mut linked: Vec<&str> = sites.sites.iter().filter(|site| site.linked).map(|site| site.site.as_str()).collect();
    linked.sort_unstable();
    linked.dedup();
    match linked.as_slice() {
        [] => "no site is linked".to_owned(),
        [site] => format!("the site {site} is linked"),
        sites => format!("{} sites are linked", sites.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_where_a_job_is() {
        let now = "2026-11-30T04:03:00Z".parse().unwrap();
        let text = |fields: &str| {
            let brief = format!(r#"{{"job_id":"j","updated_at":"2026-11-30T04:00:00Z",{fields}}}"#);
            whereabouts(&serde_json::from_str(&brief).unwrap(), now)
        };
        for (fields, says) in [
            (r#""state":"running","site":"alpha","attempt":1"#, "running at alpha for 3 min"),
            (r#""state":"running","site":"alpha","attempt":2"#, "running at alpha for 3 min, attempt 2"),
            (
                r#""state":"held","site":"alpha","attempt":1,"children":{"all":20,"ended":17,"tasks":143}"#,
                "held at alpha for 3 min, 17 of 143 tasks have ended",
            ),
            (
                r#""state":"held","site":"alpha","attempt":3,"children":{"all":20,"ended":17}"#,
                "held at alpha for 3 min, 17 of 20 jobs have ended",
            ),
            (r#""state":"queued","site":"alpha","attempt":1"#, "queued for 3 min"),
            (r#""state":"completed","site":"alpha","attempt":1"#, "completed at alpha 3 min ago"),
            (r#""state":"parked","attempt":0"#, "parked for 3 min"),
            (
                r#""state":"held","attempt":0,"cancel_requested_at":"2026-11-30T04:01:00Z""#,
                "held for 3 min, to be canceled",
            ),
        ] {
            assert_eq!(text(fields), says);
        }
    }
}
