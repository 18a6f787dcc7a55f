//! What the hub answers to people and programs: the bodies of `GET /jobs` and its like.
//!
//! The hub is a view: what it says of a job may be late, and may be gone. Fields come, and none goes.
//!
//! Out of scope: what is asked and who may ask (`edge::hub`).

use serde::{Deserialize, Serialize};

use crate::link::{Amount, Children, PoolReport};
use crate::{JobId, JobState, Json, PoolName, SiteName, Timestamp, Word};

/// The longest that a request is held for a job to end, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// How many jobs a page has when it is not said.
pub const PAGE_DEFAULT: usize = 50;

/// How many jobs a page has at the most.
pub const PAGE_MAX: usize = 500;

/// The answer of `GET /jobs`: a page of jobs, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobBrief>,
    /// Where the next page begins: the value of `after`. Absent: there is no more. A page may have fewer jobs than were
    /// asked for, or none, and still not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A job on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobBrief {
    /// Which job.
    pub job_id: JobId,
    /// How far it is.
    pub state: Word<JobState>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The named recipe; absent where nobody has told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pool that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The site that holds or held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// The job that has asked for it, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<JobId>,
    /// The jobs that it has asked for, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,
    /// The node that it ran on, when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which execution it is in, or was; 0 when none has begun.
    pub attempt: u32,
    /// When the edge took it.
    #[serde(default, serialize_with = "crate::time::write_if_any", skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<Timestamp>,
    /// When its last execution began, if one has.
    #[serde(default, serialize_with = "crate::time::write_if_any", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Since when it is as far as it is.
    #[serde(serialize_with = "crate::time::write")]
    pub updated_at: Timestamp,
    /// Since when somebody wants it cancelled.
    #[serde(default, serialize_with = "crate::time::write_if_any", skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<Timestamp>,
}

/// The answer of `GET /jobs/ID`: all that the hub knows of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobStatus {
    /// What is on one line.
    #[serde(flatten)]
    pub brief: JobBrief,
    /// What is to be said of it, in a sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How it came so far, in the order of time.
    pub timeline: Vec<Moment>,
    /// What the task works on, where it is small enough to be kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// The result, when it has ended: the same that comes to the laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// Calls to the address that the submission named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<CallbackStatus>,
}

/// A moment in the life of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Moment {
    /// When; by the clock of whoever saw it.
    #[serde(serialize_with = "crate::time::write")]
    pub at: Timestamp,
    /// What it became, or `cancel_requested`.
    pub event: String,
    /// In which execution; 0 when none had begun.
    pub attempt: u32,
    /// At which site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
}

/// A call to the address that a submission named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallbackStatus {
    /// What it tells.
    pub event: String,
    /// `waiting`, `delivered` or `given_up`.
    pub state: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was tried last, or is tried next.
    #[serde(serialize_with = "crate::time::write")]
    pub at: Timestamp,
    /// What came of the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// The answer of `POST /jobs/ID/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CancelAnswer {
    /// Which job.
    pub job_id: JobId,
    /// How far it is, as far as the hub knows; `unknown` where nobody has told of it yet.
    pub state: Word<JobState>,
    /// `requested`: it will be ended, or never begin; `ended`: it had ended before.
    pub cancel: String,
}

/// The body of `POST /jobs/cancel`: which jobs; those that have ended are never meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelMany {
    /// Those that are so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Those of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Those in this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Those of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only count them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CancelManyAnswer {
    /// How many jobs it is about.
    pub jobs: u64,
    /// There may be more, which this request did not reach; the same request again goes on.
    pub more: bool,
}

/// The answer of `GET /pools`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pools {
    /// The pools of all sites.
    pub pools: Vec<PoolStatus>,
}

/// A pool of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolStatus {
    /// Which site; each daemon of it tells of its pools.
    pub site: SiteName,
    /// On which host.
    pub host: String,
    /// Is the site linked? Otherwise this is what it said last.
    pub linked: bool,
    /// When it said so.
    #[serde(serialize_with = "crate::time::write")]
    pub updated_at: Timestamp,
    /// What it said.
    #[serde(flatten)]
    pub report: PoolReport,
    /// How it was before, oldest first; only with `history=1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PoolSample>,
}

/// How a pool was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolSample {
    /// When.
    #[serde(serialize_with = "crate::time::write")]
    pub at: Timestamp,
    /// Jobs that were accepted and had not begun.
    pub held: u64,
    /// Jobs that ran.
    pub running: u64,
    /// What it had.
    pub capacity: Amount,
    /// Allocations that it had, where it lives in a batch system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<u64>,
    /// How many it should have had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The answer of `GET /sites`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sites {
    /// The daemons of all sites that the hub has heard of lately.
    pub sites: Vec<SiteStatus>,
    /// What waits in the queue of jobs, as far as the hub knows.
    pub queue: QueueStatus,
}

/// Jobs that no site has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QueueStatus {
    /// How many.
    pub queued: u64,
    /// Since when the first of them waits.
    #[serde(default, serialize_with = "crate::time::write_if_any", skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Timestamp>,
}

/// A daemon of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteStatus {
    /// The name of the site.
    pub site: SiteName,
    /// Which daemon.
    pub daemon: String,
    /// Its host.
    pub host: String,
    /// Its version.
    pub version: String,
    /// Is it linked?
    pub linked: bool,
    /// Since when it is, or is not.
    #[serde(serialize_with = "crate::time::write")]
    pub since: Timestamp,
    /// When it was heard of last.
    #[serde(serialize_with = "crate::time::write")]
    pub seen_at: Timestamp,
    /// What it said last.
    #[serde(flatten)]
    pub report: crate::link::SiteReport,
}

/// The data of an event `log` of `GET /jobs/ID/logs?follow=1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogEvent {
    /// Which execution; a new one begins at 0 again.
    pub attempt: u32,
    /// Where it was printed.
    pub stream: crate::link::Stream,
    /// Where the text begins, in bytes from the beginning of the stream.
    pub offset: u64,
    /// Where it ends.
    pub next: u64,
    /// The text; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_format_unchanged() {
        let brief = r#""job_id":"j","state":"failed","reason":"exit","task":"t","pool":"cpu","site":"alpha","attempt":1,"submitted_at":"2026-11-30T04:00:00.000Z","updated_at":"2026-11-30T04:00:01.000Z""#;
        let status = format!(
            r#"{{{brief},"timeline":[{{"at":"2026-11-30T04:00:00.000Z","event":"queued","attempt":0}}],"input":{{"n":1}},"result":{{"job_id":"j"}}}}"#
        );
        assert_eq!(serde_json::to_string(&serde_json::from_str::<JobStatus>(&status).unwrap()).unwrap(), status);
        let page = format!(r#"{{"jobs":[{{{brief}}}],"after":"7"}}"#);
        assert_eq!(serde_json::to_string(&serde_json::from_str::<JobPage>(&page).unwrap()).unwrap(), page);
        let sites = r#"{"sites":[{"site":"alpha","daemon":"d","host":"h","version":"0.1.0","linked":true,"since":"2026-11-30T04:00:00.000Z","seen_at":"2026-11-30T04:00:00.000Z","held":1,"running":2,"owed":0}],"queue":{"queued":0}}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Sites>(sites).unwrap()).unwrap(), sites);
    }
}
