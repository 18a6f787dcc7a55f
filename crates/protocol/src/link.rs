//! What a site and the hub say to each other over the link, as JSON texts, one message each.
//!
//! Up goes what a site holds and does; down goes a bell and what people want. Nothing that comes down can start or
//! change a job: it can be pulled for, ended, or looked at.
//!
//! Both ends may be of any age: what a reader does not know is passed over, a message of an unknown type as well.
//! Reports come at least once and in any order; each says all there is to say of the job at that moment, so that the
//! newest is enough.
//!
//! Out of scope: when something is said (the daemon), and what becomes of it (`edge::hub`).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::result::if_known;
use crate::{JobId, JobState, Json, PoolName, SiteName, Timestamp, Word};

/// The version of what is said.
pub const VERSION: u64 = 1;

/// The longest message, either way, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// How many jobs one message tells of, or asks for, at the most.
pub const JOBS_MAX: usize = 500;

/// How much of what a job has printed one message carries at the most, in bytes before they are encoded.
pub const LOG_BYTES_MAX: usize = 48_000;

/// What a site sends so that its socket is known to be alive; the hub answers [`PONG`].
pub const PING: &str = "ping";

/// The answer to [`PING`].
pub const PONG: &str = "pong";

/// From a site to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Up {
    /// The first message of each connection.
    Hello(Hello),
    /// What has become of things.
    Report(Report),
    /// A piece of what a job has printed.
    Log(LogPiece),
    /// Something that a newer version says.
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

impl<'de> Deserialize<'de> for Up {
    /// By hand, because JSON that passes through unread cannot be within what serde reads by its tag.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tag {
            r#type: String,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let tag: Tag = serde_json::from_str(text).map_err(D::Error::custom)?;
        match tag.r#type.as_str() {
            "hello" => serde_json::from_str(text).map(Self::Hello),
            "report" => serde_json::from_str(text).map(Self::Report),
            "log" => serde_json::from_str(text).map(Self::Log),
            _ => Ok(Self::Unknown),
        }
        .map_err(D::Error::custom)
    }
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// The version that the site speaks.
    pub v: u64,
    /// What people call the site.
    pub site: SiteName,
    /// Which daemon of the site: a random text that its `STATE_DIR` keeps.
    pub daemon: String,
    /// Which results directory: a random text that it keeps. Two sites that have one name differ in it.
    pub results: String,
    /// The version of the daemon.
    #[serde(default)]
    pub version: String,
    /// The host that it runs on.
    #[serde(default)]
    pub host: String,
}

/// What has become of things since the last report, or all there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// The hub says when it has stored the report with this number; numbers are of one connection.
    #[serde(default)]
    pub number: u64,
    /// The site as a whole.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteReport>,
    /// All its pools.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<PoolReport>>,
    /// Jobs, [`JOBS_MAX`] at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobReport>,
    /// With this report every job that the daemon holds was told of since its `hello`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

/// A daemon as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteReport {
    /// Jobs that are accepted and have not begun.
    #[serde(default)]
    pub held: u64,
    /// Jobs that run.
    #[serde(default)]
    pub running: u64,
    /// Results that the queue does not have yet.
    #[serde(default)]
    pub owed: u64,
    /// Is it ending, and takes nothing new?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// What keeps it from its work, in a sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One pool of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolReport {
    /// Its name.
    pub pool: PoolName,
    /// Can jobs begin in it?
    pub ready: bool,
    /// Why they cannot, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Jobs that are accepted and have not begun.
    #[serde(default)]
    pub held: u64,
    /// Jobs that run.
    #[serde(default)]
    pub running: u64,
    /// How many may be held; absent where there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
    /// What it has.
    #[serde(default)]
    pub capacity: Amount,
    /// What its jobs use of that.
    #[serde(default)]
    pub in_use: Amount,
    /// How many allocations it has, where it lives in a batch system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<u64>,
    /// How many it should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want: Option<u64>,
    /// Why so many, in a sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// So much of what a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Amount {
    /// Processors.
    pub cpus: u64,
    /// Memory, in bytes, where it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// GPUs.
    pub gpus: u64,
}

/// How far a job is at a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobReport {
    /// Which job.
    pub job_id: JobId,
    /// How far it is. `queued`: the site has given it back to the queue. `unknown`: the site was asked for a job of
    /// which it knows nothing.
    pub state: Word<JobState>,
    /// Which execution, counted from 1; 0 when none has begun.
    #[serde(default)]
    pub attempt: u32,
    /// Since when it is so, by the clock of the site.
    #[serde(serialize_with = "crate::time::write")]
    pub at: Timestamp,
    /// The named recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pool that it is in.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The job that has asked for it, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<JobId>,
    /// The jobs that it has asked for, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,
    /// What is to be said of it, in a sentence for a person: why the last attempt ended, why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the queue shows it again, by the clock of the site, where the site has given it back.
    #[serde(
        default,
        deserialize_with = "if_known",
        serialize_with = "crate::time::write_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub again_at: Option<Timestamp>,
    /// Its record, when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
}

/// Of how many jobs below one that a person has submitted a site tells; of the others it tells only how many they are.
/// Each is some rows in the hub, of which a day has so many (`docs/costs.md`).
pub const TREE_JOBS_MAX: u32 = 1_000;

/// How many jobs a job has asked for; of those that a site does not tell of, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Children {
    /// How many by now.
    pub all: u32,
    /// How many of these have ended, well or not.
    #[serde(default)]
    pub ended: u32,
    /// Of a workflow: how many tasks it has, also those that have not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

fn is_now(after_ms: &u64) -> bool {
    *after_ms == 0
}

/// One of the two that a job prints on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A piece of what a job has printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogPiece {
    /// Which job.
    pub job_id: JobId,
    /// Which execution of it; each begins anew.
    pub attempt: u32,
    /// Where it was printed.
    pub stream: Stream,
    /// Where the piece begins, in bytes from the beginning of what is kept of the stream.
    pub offset: u64,
    /// The bytes, base64-encoded; [`LOG_BYTES_MAX`] at the most.
    #[serde(default)]
    pub data: String,
    /// No more comes of this execution.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end: bool,
}

/// From the hub to a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Down {
    /// The answer to `hello`.
    Welcome {
        /// The version that the hub speaks.
        v: u64,
    },
    /// A report is stored.
    Ack {
        /// Which one.
        number: u64,
    },
    /// There may be something in the queue, or will be.
    Wake {
        /// After so long.
        #[serde(default, skip_serializing_if = "is_now")]
        after_ms: u64,
    },
    /// People do not want these jobs any more.
    Cancel {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// The hub believes that the site holds these jobs, and wants to hear of each.
    Ask {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// Somebody looks at what a job prints. A site goes on for [`TAIL_SECONDS`] and is asked again before that.
    Tail {
        /// Which job.
        job_id: JobId,
        /// Which of its streams.
        stream: Stream,
        /// From where, in bytes: from the beginning, or, below 0, from the end as it is now. A site that is at it
        /// goes back to there, if that is before.
        from: i64,
    },
    /// Nobody looks any more.
    Untail {
        /// Which job.
        job_id: JobId,
        /// Which of its streams.
        stream: Stream,
    },
    /// The hub does not take this site, and closes.
    Refused {
        /// A stable word for programs.
        code: String,
        /// A sentence for a person.
        detail: String,
    },
    /// Something that a newer version says.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// For how long a site sends what a job prints after it was asked to, in seconds.
pub const TAIL_SECONDS: u64 = 60;

impl Up {
    /// The message as it travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds only strings, numbers and JSON")
    }
}

impl Down {
    /// The message as it travels.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds only strings and numbers")
    }
}

/// The body of `POST /report`, for a site whose proxy lets no WebSocket through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Upload {
    /// What would have gone up; a `hello` first.
    pub up: Vec<Up>,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Download {
    /// What would have come down. What a job prints cannot be asked for in this way.
    pub down: Vec<Down>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_format_unchanged() {
        let hello =
            r#"{"type":"hello","v":1,"site":"alpha","daemon":"d","results":"r","version":"0.1.0","host":"login1"}"#;
        let job = r#"{"job_id":"j","state":"completed","attempt":1,"at":"2026-11-30T04:00:00.000Z","pool":"cpu","result":{"job_id":"j","status":"completed"}}"#;
        let report = format!(r#"{{"type":"report","number":3,"jobs":[{job}],"complete":true}}"#);
        let log = r#"{"type":"log","job_id":"j","attempt":1,"stream":"stdout","offset":4,"data":"YQ==","end":true}"#;
        let parent = r#"{"type":"report","number":4,"jobs":[{"job_id":"j-1","state":"held","attempt":0,"at":"2026-11-30T04:00:00.000Z","parent":"j","children":{"all":3,"ended":1,"tasks":7}}]}"#;
        for text in [hello, &report, parent, log] {
            assert_eq!(serde_json::from_str::<Up>(text).unwrap().to_json(), text);
        }
        for text in [
            r#"{"type":"welcome","v":1}"#,
            r#"{"type":"ack","number":3}"#,
            r#"{"type":"wake"}"#,
            r#"{"type":"cancel","jobs":["a","b"]}"#,
            r#"{"type":"ask","jobs":["a"]}"#,
            r#"{"type":"tail","job_id":"a","stream":"stderr","from":-4096}"#,
            r#"{"type":"untail","job_id":"a","stream":"stderr"}"#,
            r#"{"type":"refused","code":"name_taken","detail":"d"}"#,
        ] {
            assert_eq!(serde_json::from_str::<Down>(text).unwrap().to_json(), text);
        }
    }

    #[test]
    fn what_a_newer_version_says_is_passed_over() {
        assert_eq!(serde_json::from_str::<Up>(r#"{"type":"dream","of":1}"#).unwrap(), Up::Unknown);
        assert_eq!(serde_json::from_str::<Down>(r#"{"type":"dream","of":1}"#).unwrap(), Down::Unknown);
        let text = r#"{"type":"report","jobs":[{"job_id":"j","state":"parked","at":"2026-11-30T04:00:00Z","x":1}],"site":7,"pools":"x"}"#;
        let Up::Report(report) = serde_json::from_str(text).unwrap() else { panic!("it is a report") };
        assert_eq!((report.jobs[0].state.to_string().as_str(), report.site, report.pools), ("parked", None, None));
    }
}
