//! What the hub knows of one job: a join of all that was said of it.
//!
//! Sayings come late, twice, and in any order. Each is a small [`View`] of its own, and [`View::join`] of two views is
//! the same whichever comes first and however often: every part of it is a greatest, a least or a union. So the hub can
//! be wiped and be told everything again.

use std::collections::BTreeMap;

use protocol::hub::{JobBrief, Moment};
use protocol::link::{Children, JobReport};
use protocol::{
    Callback, JobId, JobMessage, JobResult, JobState, Json, PoolName, SiteName, Timestamp, timestamp_from_millis,
};
use serde::{Deserialize, Serialize};

/// So many moments are kept: those of the last attempts.
const MOMENTS_MAX: usize = 64;

/// The event of a moment that is no state.
const CANCEL_REQUESTED: &str = "cancel_requested";

/// So much of a sentence is kept, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// The same of the name of a node.
const HOST_CHARS_MAX: usize = 128;

/// What is known of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// When the edge took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submitted_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The pool that the submission asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked_pool: Option<PoolName>,
    /// The job that has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<JobId>,
    /// How many jobs it has asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    children: Option<Children>,
    /// Whom it wants told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) callback: Option<Callback>,
    /// The last thing that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<Turn>,
    /// The first time of each thing that happened.
    #[serde(default)]
    moments: Vec<(Key, Seen)>,
    /// Since when somebody wants it cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_requested_at: Option<i64>,
}

/// How far a job is. The order is that in which things happen: an end is for good, a later attempt outdoes an earlier
/// one, what a site says outdoes the submission, and within an attempt its later word counts, because a job can go back
/// to the queue. The clocks of the edge and of a site are not compared; those of two sites are, when one has given a
/// job back and the other one has taken it, until it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) ended: bool,
    pub(crate) attempt: u32,
    by_site: bool,
    pub(crate) at: i64,
    rank: u8,
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) site: Option<SiteName>,
    /// Which daemon of the site said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) daemon: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<PoolName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// When its last execution began, and on which node, by its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// The job's record. It has a column of its own.
    #[serde(skip)]
    pub(crate) result: Option<String>,
}

/// An event in an attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    attempt: u32,
    rank: u8,
    event: String,
}

/// When it was seen first, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Seen {
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    site: Option<SiteName>,
}

/// The place of a state among those that a job goes through.
pub(crate) fn rank(state: Option<JobState>) -> u8 {
    match state {
        Some(JobState::Unknown) => 0,
        Some(JobState::Queued) => 1,
        Some(JobState::Held) => 2,
        Some(JobState::Running) => 3,
        Some(JobState::Completed) => 4,
        Some(JobState::Failed) => 5,
        Some(JobState::Cancelled) => 6,
        // A word of a newer version.
        None => OTHER,
    }
}

/// The rank of a state that this version does not know.
pub(crate) const OTHER: u8 = 7;

impl View {
    /// What a submission says.
    pub(crate) fn submitted(message: &JobMessage, now: Timestamp) -> Self {
        let at = message.created_at.unwrap_or(now).min(now).as_millisecond();
        let turn = Turn {
            ended: false,
            attempt: 0,
            by_site: false,
            at,
            rank: rank(Some(JobState::Queued)),
            state: JobState::Queued.to_string(),
            site: None,
            daemon: None,
            pool: None,
            reason: None,
            message: None,
            started_at: None,
            host: None,
            result: None,
        };
        Self {
            submitted_at: Some(at),
            task: Some(message.spec.task.clone()),
            name: message.spec.name.clone(),
            asked_pool: message.spec.pool.clone(),
            callback: message.spec.callback.clone(),
            ..Self::of(turn)
        }
    }

    /// What a site says. Of clocks that are ahead it is believed that they mean now.
    pub(crate) fn reported(report: &JobReport, site: &SiteName, daemon: &str, now: Timestamp) -> Self {
        let result = report.result.as_ref().and_then(|json| JobResult::parse(json.as_str()).ok());
        // A record of another job is no record of this one.
        let result = result.filter(|result| result.job_id == report.job_id);
        let state = match &result {
            Some(result) => Some(JobState::of(result)),
            None => report.state.known(),
        };
        let reason = result.as_ref().and_then(|result| result.reason.as_ref()).map(ToString::to_string);
        let message = result.as_ref().and_then(|result| result.message.clone()).or_else(|| report.message.clone());
        let started_at = result.as_ref().and_then(|result| result.started_at);
        let host = result.as_ref().and_then(|result| result.host.as_deref());
        let (submitted_at, kept) = match &result {
            Some(result) => (result.created_at, report.result.as_ref().map(|json| json.as_str().to_owned())),
            None => (None, None),
        };
        let turn = Turn {
            ended: state.is_some_and(JobState::has_ended),
            attempt: report.attempt,
            by_site: true,
            at: report.at.min(now).as_millisecond(),
            rank: rank(state),
            state: state.map_or_else(|| report.state.to_string(), |state| state.to_string()),
            site: Some(site.clone()),
            daemon: Some(daemon.to_owned()),
            pool: report.pool.clone(),
            reason,
            message: message.map(|message| message.chars().take(MESSAGE_CHARS_MAX).collect()),
            started_at: started_at.map(|at| at.min(now).as_millisecond()),
            host: host.map(|host| host.chars().take(HOST_CHARS_MAX).collect()),
            result: kept,
        };
        Self {
            submitted_at: submitted_at.map(|at| at.min(now).as_millisecond()),
            task: report.task.clone().or_else(|| result.and_then(|result| result.task)),
            name: report.name.clone(),
            parent: report.parent.clone(),
            children: report.children,
            ..Self::of(turn)
        }
    }

    /// What somebody who does not want the job says.
    pub(crate) fn cancelled(now: Timestamp) -> Self {
        Self { cancel_requested_at: Some(now.as_millisecond()), ..Self::default() }
    }

    fn of(turn: Turn) -> Self {
        let key = Key { attempt: turn.attempt, rank: turn.rank, event: turn.state.clone() };
        let moments = vec![(key, Seen { at: turn.at, site: turn.site.clone() })];
        Self { turn: Some(turn), moments, ..Self::default() }
    }

    /// All that both say.
    #[must_use]
    pub(crate) fn join(self, other: Self) -> Self {
        let mut moments: BTreeMap<Key, Seen> = self.moments.into_iter().collect();
        for (key, seen) in other.moments {
            match moments.get_mut(&key) {
                Some(known) => *known = seen.min(known.clone()),
                None => drop(moments.insert(key, seen)),
            }
        }
        // What falls off here never comes back: so many later ones stay.
        while moments.len() > MOMENTS_MAX {
            moments.pop_first();
        }
        Self {
            submitted_at: least(self.submitted_at, other.submitted_at),
            task: self.task.max(other.task),
            name: self.name.max(other.name),
            asked_pool: self.asked_pool.max(other.asked_pool),
            parent: self.parent.max(other.parent),
            children: most(self.children, other.children),
            callback: self.callback.max(other.callback),
            turn: self.turn.max(other.turn),
            moments: moments.into_iter().collect(),
            cancel_requested_at: least(self.cancel_requested_at, other.cancel_requested_at),
        }
    }

    /// How far the job is, as a number.
    pub(crate) fn rank(&self) -> u8 {
        self.turn.as_ref().map_or(0, |turn| turn.rank)
    }

    /// Is it in the queue, as far as is known?
    pub(crate) fn is_queued(&self) -> bool {
        self.rank() == rank(Some(JobState::Queued))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.ended)
    }

    /// Is somebody's wish that it be cancelled still to be carried out?
    pub(crate) fn is_cancelling(&self) -> bool {
        self.cancel_requested_at.is_some() && !self.has_ended()
    }

    pub(crate) fn state(&self) -> &str {
        self.turn.as_ref().map_or(JobState::Unknown.as_str(), |turn| &turn.state)
    }

    pub(crate) fn pool(&self) -> Option<&PoolName> {
        self.turn.as_ref().and_then(|turn| turn.pool.as_ref()).or(self.asked_pool.as_ref())
    }

    pub(crate) fn site(&self) -> Option<&SiteName> {
        self.turn.as_ref().and_then(|turn| turn.site.as_ref())
    }

    /// The daemon that spoke of it last.
    pub(crate) fn daemon(&self) -> Option<&str> {
        self.turn.as_ref().and_then(|turn| turn.daemon.as_deref())
    }

    pub(crate) fn message(&self) -> Option<&str> {
        self.turn.as_ref().and_then(|turn| turn.message.as_deref())
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.turn.as_ref().map_or(0, |turn| turn.attempt)
    }

    /// When its last execution began: as its record says, or when that was seen.
    fn started_at(&self) -> Option<i64> {
        let running = rank(Some(JobState::Running));
        let seen = || self.moments.iter().rfind(|(key, _)| key.rank == running).map(|(_, seen)| seen.at);
        self.turn.as_ref().and_then(|turn| turn.started_at).or_else(seen)
    }

    pub(crate) fn brief(&self, job_id: &JobId) -> JobBrief {
        let first = self.submitted_at.or(self.cancel_requested_at).unwrap_or_default();
        let json = format!("\"{}\"", self.state());
        JobBrief {
            job_id: job_id.clone(),
            state: serde_json::from_str(&json).unwrap_or_else(|_| JobState::Unknown.into()),
            reason: self.turn.as_ref().and_then(|turn| turn.reason.clone()),
            task: self.task.clone(),
            name: self.name.clone(),
            pool: self.pool().cloned(),
            site: self.site().cloned(),
            parent: self.parent.clone(),
            children: self.children,
            host: self.turn.as_ref().and_then(|turn| turn.host.clone()),
            attempt: self.attempt(),
            submitted_at: self.submitted_at.map(timestamp_from_millis),
            started_at: self.started_at().map(timestamp_from_millis),
            updated_at: timestamp_from_millis(self.turn.as_ref().map_or(first, |turn| turn.at)),
            cancel_requested_at: self.cancel_requested_at.map(timestamp_from_millis),
        }
    }

    pub(crate) fn timeline(&self) -> Vec<Moment> {
        let moment = |at, event: &str, attempt, site: Option<SiteName>| Moment {
            at: timestamp_from_millis(at),
            event: event.to_owned(),
            attempt,
            site,
        };
        let mut moments: Vec<Moment> = self
            .moments
            .iter()
            .map(|(key, seen)| moment(seen.at, &key.event, key.attempt, seen.site.clone()))
            .collect();
        moments.extend(self.cancel_requested_at.map(|at| moment(at, CANCEL_REQUESTED, self.attempt(), None)));
        // Within a millisecond in the order in which a job goes through them.
        moments.sort_by_key(|moment| moment.at);
        moments
    }

    pub(crate) fn result(&self) -> Option<Json> {
        self.turn.as_ref().and_then(|turn| turn.result.as_deref()).and_then(|text| Json::parse(text).ok())
    }

    /// The columns in which it is kept: without the result, which is one by itself.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds only strings and numbers")
    }
}

fn least(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Of each number the greatest: none of them ever becomes less.
fn most(one: Option<Children>, other: Option<Children>) -> Option<Children> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Children {
            all: one.all.max(other.all),
            ended: one.ended.max(other.ended),
            tasks: one.tasks.max(other.tasks),
        }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::Word;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        timestamp_from_millis(millis)
    }

    fn id() -> JobId {
        "j".parse().unwrap()
    }

    fn report(state: &str, attempt: u32, millis: i64, result: Option<&str>) -> JobReport {
        JobReport {
            job_id: id(),
            state: serde_json::from_str(&format!("\"{state}\"")).unwrap(),
            attempt,
            at: at(millis),
            task: Some("simulate".to_owned()),
            name: None,
            pool: Some(PoolName::default()),
            parent: (millis % 3 == 0).then(|| "p".parse().unwrap()),
            children: (millis % 2 == 0).then(|| Children { all: 7, ended: attempt, tasks: (millis > 9).then_some(9) }),
            message: None,
            again_at: None,
            result: result.map(|result| Json::parse(result).unwrap()),
        }
    }

    fn any_view() -> impl Strategy<Value = View> {
        let result = r#"{"job_id":"j","status":"completed","created_at":"1970-01-01T00:00:00.001Z","started_at":"1970-01-01T00:00:00.002Z","host":"n"}"#;
        let states =
            prop::sample::select(vec!["unknown", "queued", "held", "running", "completed", "failed", "parked"]);
        let reported = (states, 0..4_u32, 0..50_i64, prop::sample::select(vec!["alpha", "beta"])).prop_map(
            move |(state, attempt, millis, site)| {
                let result = (state == "completed" && millis % 2 == 0).then_some(result);
                View::reported(&report(state, attempt, millis, result), &site.parse().unwrap(), site, at(1_000))
            },
        );
        let message = JobMessage::parse(r#"{"job_id":"j","task":"simulate","created_at":"1970-01-01T00:00:00.001Z"}"#);
        let submitted = View::submitted(&message.unwrap(), at(1_000));
        prop_oneof![8 => reported, 1 => Just(submitted), 1 => (0..50_i64).prop_map(|now| View::cancelled(at(now)))]
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_matters(
            views in prop::collection::vec(any_view(), 1..90),
            order in any::<prop::sample::Index>(),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let all = |views: &[View]| views.iter().cloned().fold(View::default(), View::join);
            let expected = all(&views);
            let mut other = views.clone();
            other.rotate_left(order.index(views.len()));
            other.reverse();
            other.extend(again.iter().map(|index| index.get(&views).clone()));
            prop_assert_eq!(&all(&other), &expected);
            // Also in groups, as they are read back from the disk in between.
            let (left, right) = views.split_at(order.index(views.len()));
            let stored = |view: View| {
                let result = view.turn.as_ref().and_then(|turn| turn.result.clone());
                let mut read: View = serde_json::from_str(&view.to_json()).unwrap();
                if let Some(turn) = &mut read.turn {
                    turn.result = result;
                }
                read
            };
            prop_assert_eq!(stored(all(right)).join(stored(all(left))), expected);
        }
    }

    #[test]
    fn an_end_is_for_good_and_a_later_attempt_outdoes_an_earlier_one() {
        let site: SiteName = "alpha".parse().unwrap();
        let said = |state, attempt, millis| View::reported(&report(state, attempt, millis, None), &site, "d", at(99));
        let state = |views: Vec<View>| views.into_iter().fold(View::default(), View::join).state().to_owned();
        assert_eq!(state(vec![]), "unknown");
        assert_eq!(state(vec![said("running", 1, 5), said("held", 0, 7)]), "running");
        assert_eq!(state(vec![said("running", 2, 5), said("held", 1, 9)]), "running");
        assert_eq!(state(vec![said("failed", 1, 5), said("running", 2, 9)]), "failed");
        assert_eq!(state(vec![said("held", 0, 5), said("queued", 0, 6)]), "queued", "it went back to the queue");
        assert_eq!(state(vec![said("held", 0, 5), said("parked", 0, 6)]), "parked", "of a newer version");
        let ahead = View::reported(&report("held", 0, 86_400_000, None), &site, "d", at(99));
        assert_eq!(ahead.turn.unwrap().at, 99, "a clock that is a day ahead");
    }

    #[test]
    fn a_result_says_how_it_ended_whatever_the_report_says() {
        let site: SiteName = "alpha".parse().unwrap();
        let view = |result: &str| View::reported(&report("running", 1, 5, Some(result)), &site, "d", at(99));
        let failed = view(r#"{"job_id":"j","status":"failed","reason":"time_limit","message":"too long"}"#);
        let brief = failed.brief(&id());
        assert_eq!((brief.state, brief.reason.as_deref()), (Word::Known(JobState::Failed), Some("time_limit")));
        assert_eq!(failed.message(), Some("too long"));
        assert!(failed.result().is_some());
        let others = view(r#"{"job_id":"k","status":"failed"}"#);
        assert_eq!((others.state(), others.result()), ("running", None), "the record of another job");
    }
}
