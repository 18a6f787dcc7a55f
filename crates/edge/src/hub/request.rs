//! What people and sites ask of the hub: from the head of a request, and from its body, to a [`Request`].
//!
//! Out of scope: who may ask (`route`), and the answers.

use std::borrow::Cow;
use std::time::Duration;

use protocol::hub::{CancelMany, PAGE_DEFAULT, PAGE_MAX, WAIT_SECONDS_MAX};
use protocol::link::{MESSAGE_BYTES_MAX, Stream, Upload};
use protocol::{JobId, JobState};

use super::database::Value;
use super::view::rank;
use crate::Problem;
use crate::files::{self, Asker};

/// How much of what a job has printed is shown when nobody says from where, in bytes.
const LOG_TAIL: i64 = 16_384;

/// The last place in a stream that anybody means: what comes after it can be counted, too.
pub(crate) const OFFSET_MAX: u64 = i64::MAX as u64;

/// The largest body of a request that is not a report.
const BODY_BYTES_MAX: usize = 10_000;

/// Something that the hub is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A page of jobs.
    List {
        /// Which.
        filter: Filter,
        /// Those below this number.
        after: Option<i64>,
        /// How many.
        limit: usize,
    },
    /// All that is known of a job.
    Status {
        /// Which.
        job_id: JobId,
        /// How long to wait for its end.
        wait: Duration,
    },
    /// A job is not wanted any more.
    Cancel {
        /// Which.
        job_id: JobId,
    },
    /// Nor all that fit.
    CancelMany {
        /// Which.
        filter: Filter,
        /// Only count them.
        dry_run: bool,
    },
    /// What a job has printed.
    Logs {
        /// Which.
        job_id: JobId,
        /// On one stream, or on both.
        stream: Option<Stream>,
        /// Go on while it prints?
        follow: bool,
        /// From where.
        from: From,
    },
    /// What happens, as it does.
    Events,
    /// The pools of all sites.
    Pools {
        /// With what they were?
        history: bool,
    },
    /// All sites.
    Sites,
    /// A site that has no link tells, and asks.
    Report(Upload),
    /// Something about files.
    Files(files::Request),
}

/// Where in what a job prints to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// So many bytes from the beginning, or, below 0, from the end.
    Offset(i64),
    /// Where an earlier answer has ended: an attempt, and for each stream its next byte, or, below 0, so many bytes
    /// from its end where nothing of it has come.
    Resumed {
        /// Which attempt.
        attempt: u32,
        /// Of standard output, and of standard error.
        next: [i64; 2],
    },
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    states: Vec<u8>,
    task: Option<String>,
    name: Option<String>,
    pool: Option<String>,
    site: Option<String>,
    parent: Option<String>,
    /// Only those that no job has asked for.
    is_top: bool,
}

impl Filter {
    /// Does an index lead to all that fit, and to few others? A job has few children that are told of.
    pub(crate) fn has_index(&self) -> bool {
        let others = [&self.task, &self.name, &self.pool, &self.site];
        let none_else = !self.is_top && others.iter().all(|other| other.is_none());
        self.parent.is_some() || self.states.len() <= 1 && none_else
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The conditions, as they follow others; their values are added.
    pub(crate) fn conditions(&self, values: &mut Vec<Value>) -> String {
        let mut sql = String::new();
        let states: Vec<String> = self.states.iter().map(ToString::to_string).collect();
        match states.as_slice() {
            [] => {}
            [state] if self.parent.is_none() => sql.push_str(&format!(" AND state = {state}")),
            // Without the index: in the order of numbers, which this is asked for in.
            several => sql.push_str(&format!(" AND +state IN ({})", several.join(", "))),
        }
        if self.is_top {
            sql.push_str(" AND parent IS NULL");
        }
        let columns = [
            ("task", &self.task),
            ("name", &self.name),
            ("pool", &self.pool),
            ("site", &self.site),
            ("parent", &self.parent),
        ];
        for (column, wanted) in columns {
            if let Some(wanted) = wanted {
                values.push(wanted.as_str().into());
                sql.push_str(&format!(" AND {column} = ?{}", values.len()));
            }
        }
        sql
    }
}

/// A request whose head is right; its body is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Whole(Request),
    CancelMany,
    Report,
    Files(Asker, files::Kind),
}

impl Opening {
    /// The request of a path and a query, of which [`crate::route`] has said that it may be asked. `None`: it is a
    /// link.
    pub fn of(path: &str, query: &str, last_event_id: Option<&str>) -> Result<Option<Self>, Problem> {
        Path::of(path).ok_or(Problem::NotFound)?.opening(query, last_event_id, Asker::default())
    }

    /// Says who asks, where that makes a difference: [`Opening::of`] takes it for somebody with the key of people.
    pub fn asked_by(self, asker: Asker) -> Self {
        match self.0 {
            Kind::Files(_, kind) => Self(Kind::Files(asker, kind)),
            _ => self,
        }
    }

    /// Does somebody ask with the key of sites, where that makes a difference?
    pub fn is_asked_by_a_site(&self) -> bool {
        matches!(&self.0, Kind::Files(asker, _) if asker.is_site)
    }

    /// How much of the body is read: nothing where it means nothing. A body that is longer is refused.
    pub fn body_limit(&self) -> usize {
        match &self.0 {
            Kind::Whole(_) => 0,
            Kind::CancelMany => BODY_BYTES_MAX,
            Kind::Report => MESSAGE_BYTES_MAX,
            Kind::Files(_, kind) => kind.body_limit(),
        }
    }

    /// Is it nothing without a body?
    pub(crate) fn needs_json(&self) -> bool {
        match &self.0 {
            Kind::Files(_, kind) => kind.needs_json(),
            _ => self.body_limit() > 0,
        }
    }

    /// Refuses a body that is too long by what was announced of it, before any of it is read.
    pub(crate) fn check_announced(&self, length: Option<u64>) -> Result<(), Problem> {
        self.check_length(length.unwrap_or(0), length)
    }

    fn check_length(&self, length: u64, size: Option<u64>) -> Result<(), Problem> {
        let limit = self.body_limit() as u64;
        // A body that means nothing is not read, however long it is.
        if limit == 0 || length <= limit {
            return Ok(());
        }
        Err(Problem::TooLarge { code: "request_too_large", what: "the request body", limit, size, unit: "bytes" })
    }

    /// The whole request.
    pub fn with_body(self, body: &[u8]) -> Result<Request, Problem> {
        self.check_length(body.len() as u64, None)?;
        match self.0 {
            Kind::Whole(request) => Ok(request),
            Kind::CancelMany => cancel_many(body),
            Kind::Files(asker, kind) => kind.with_body(asker, body).map(Request::Files),
            Kind::Report => serde_json::from_slice(body)
                .map(Request::Report)
                .map_err(|error| malformed(&format!("it is no report: {error}"))),
        }
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::MalformedJson { detail: format!("the body cannot be read: {detail}") }
}

fn cancel_many(body: &[u8]) -> Result<Request, Problem> {
    let wanted: CancelMany = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    let states = wanted.state.as_deref().map(states).transpose()?.unwrap_or_default();
    let CancelMany { task, name, pool, dry_run, .. } = wanted;
    let filter = Filter { states, task, name, pool, ..Filter::default() };
    if filter.is_empty() {
        let detail = "name the jobs by at least one of `state`, `task`, `pool` and `name`".to_owned();
        return Err(Problem::InvalidRequest { field: None, detail });
    }
    Ok(Request::CancelMany { filter, dry_run })
}

fn states(text: &str) -> Result<Vec<u8>, Problem> {
    let state = |word: &str| {
        word.parse::<JobState>().map(|state| rank(Some(state))).map_err(|error| invalid("state", &error.to_string()))
    };
    text.split(',').map(state).collect()
}

fn invalid(field: &str, what: &str) -> Problem {
    Problem::InvalidRequest { field: Some(field.to_owned()), detail: format!("`{field}`: {what}") }
}

/// What a path of the hub takes.
pub(crate) enum Path<'a> {
    Jobs,
    Job(&'a str),
    Cancel(&'a str),
    CancelMany,
    Logs(&'a str),
    Events,
    Pools,
    Sites,
    Link,
    Report,
    Files(files::Path<'a>),
}

impl<'a> Path<'a> {
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        Some(match parts.as_slice() {
            ["jobs"] => Self::Jobs,
            ["jobs", "cancel"] => Self::CancelMany,
            ["jobs", id] => Self::Job(id),
            ["jobs", id, "cancel"] => Self::Cancel(id),
            ["jobs", id, "logs"] => Self::Logs(id),
            ["events"] => Self::Events,
            ["pools"] => Self::Pools,
            ["sites"] => Self::Sites,
            ["link"] => Self::Link,
            ["report"] => Self::Report,
            parts => Self::Files(files::Path::of(parts)?),
        })
    }

    /// The one method that it takes.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Cancel(_) | Self::CancelMany | Self::Report => "POST",
            Self::Files(path) => path.method(),
            _ => "GET",
        }
    }

    /// Is it for sites, and not for people?
    pub(crate) fn is_for_sites(&self) -> bool {
        matches!(self, Self::Link | Self::Report)
    }

    /// Is it for both?
    pub(crate) fn is_for_sites_too(&self) -> bool {
        matches!(self, Self::Files(path) if path.is_for_sites_too())
    }

    /// Is it about files?
    pub(crate) fn is_about_files(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// Is it answered at once, and as a whole?
    pub(crate) fn is_one_answer(&self) -> bool {
        matches!(self, Self::Jobs | Self::Job(_) | Self::Pools | Self::Sites)
    }

    /// The request, as far as its head says it. `None`: it is a link.
    pub(crate) fn opening(
        &self,
        query: &str,
        last_event_id: Option<&str>,
        asker: Asker,
    ) -> Result<Option<Opening>, Problem> {
        let mut query = Query::parse(query)?;
        let request = match self {
            Self::Link => return Ok(None),
            Self::Report => return query.none_left(Opening(Kind::Report)).map(Some),
            Self::Files(path) => return query.none_left(Opening(Kind::Files(asker, path.kind()?))).map(Some),
            Self::CancelMany => return query.none_left(Opening(Kind::CancelMany)).map(Some),
            Self::Jobs => Request::List {
                filter: Filter {
                    states: query.take("state").map(|text| states(&text)).transpose()?.unwrap_or_default(),
                    task: query.take("task"),
                    name: query.take("name"),
                    pool: query.take("pool"),
                    site: query.take("site"),
                    parent: query.take("parent"),
                    is_top: query.flag("top")?,
                },
                after: query.number("after", "it is the `after` of an earlier answer")?,
                limit: query
                    .number("limit", "it is how many jobs to list, from 1 to 500")?
                    .map_or(PAGE_DEFAULT, |limit: u64| {
                        usize::try_from(limit).map_or(PAGE_MAX, |limit| limit.clamp(1, PAGE_MAX))
                    }),
            },
            Self::Job(id) => {
                let wait: Option<f64> = query.number("wait", "it is a number of seconds, up to 60")?;
                let wait = wait.filter(|wait| *wait > 0.0).unwrap_or_default().min(WAIT_SECONDS_MAX as f64);
                Request::Status { job_id: job_id(id)?, wait: Duration::from_secs_f64(wait) }
            }
            Self::Cancel(id) => Request::Cancel { job_id: job_id(id)? },
            Self::Logs(id) => Request::Logs {
                job_id: job_id(id)?,
                stream: query.take("stream").map(|text| stream(&text)).transpose()?,
                follow: query.flag("follow")?,
                from: {
                    // Who comes back says both: where it began, and where it was.
                    let from = query.number("from", "it is an offset in bytes")?.unwrap_or(-LOG_TAIL);
                    last_event_id.and_then(From::of_event_id).unwrap_or(From::Offset(from))
                },
            },
            Self::Events => Request::Events,
            Self::Pools => Request::Pools { history: query.flag("history")? },
            Self::Sites => Request::Sites,
        };
        query.none_left(Opening(Kind::Whole(request))).map(Some)
    }
}

impl From {
    /// As [`super::logs`] writes it.
    fn of_event_id(id: &str) -> Option<Self> {
        let mut numbers = id.split('.').map(str::parse::<i64>);
        let (attempt, out, err) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        if out.unsigned_abs().max(err.unsigned_abs()) > OFFSET_MAX {
            return None;
        }
        Some(Self::Resumed { attempt: u32::try_from(attempt).ok()?, next: [out, err] })
    }
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::UnknownJob)
}

fn stream(text: &str) -> Result<Stream, Problem> {
    let found = Stream::ALL.into_iter().find(|stream| stream.as_str() == text);
    found.ok_or_else(|| invalid("stream", "it is stdout or stderr"))
}

/// The fields of a query that were not asked for yet.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, Problem> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        decoded.collect::<Result<_, Problem>>().map(Self)
    }

    /// Takes a field out. An empty one is one that was not given: forms send both.
    fn take(&mut self, name: &str) -> Option<String> {
        let mut found = None;
        self.0.retain(|(given, value)| {
            if given == name {
                found = Some(value.clone());
            }
            given != name
        });
        found.filter(|value| !value.is_empty())
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        self.take(name).map(|text| text.parse().map_err(|_| invalid(name, what))).transpose()
    }

    fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(invalid(name, "it is 1 or 0")),
        }
    }

    /// A field that nobody knows is a typing error, and would be a filter that does not filter.
    fn none_left<T>(self, value: T) -> Result<T, Problem> {
        match self.0.into_iter().next() {
            None => Ok(value),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                let detail = format!("`{name}` is no parameter of this request");
                Err(Problem::InvalidRequest { field: Some(name), detail })
            }
        }
    }
}

/// As forms encode: `+` is a space.
fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Problem::InvalidRequest {
        field: None,
        detail: "the query is not UTF-8, percent-encoded".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, query: &str) -> Result<Request, Problem> {
        let opening = Path::of(path).unwrap().opening(query, None, Asker::default())?.unwrap();
        opening.with_body(b"")
    }

    #[test]
    fn a_query_is_read_and_bounded() {
        let wait = |query| match request("/jobs/j", query) {
            Ok(Request::Status { wait, .. }) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(""), Duration::ZERO);
        assert_eq!(wait("wait=2.5"), Duration::from_millis(2_500));
        assert_eq!([wait("wait=1e9"), wait("wait=inf")], [Duration::from_secs(60); 2]);
        assert_eq!([wait("wait=-1"), wait("wait=NaN"), wait("wait=")], [Duration::ZERO; 3]);
        let Ok(Request::List { filter, after, limit }) = request("/jobs", "name=a%27b+c&state=held&after=7&limit=9999")
        else {
            panic!("it is a list")
        };
        assert_eq!((filter.name.as_deref(), after, limit), (Some("a'b c"), Some(7), 500));
        let limit = |query| match request("/jobs", query) {
            Ok(Request::List { limit, .. }) => limit,
            other => panic!("{other:?}"),
        };
        assert_eq!([limit("limit=0"), limit("limit=18446744073709551615")], [1, 500]);
        for (path, query, field) in [
            ("/jobs", "after=made-up", Some("after")),
            ("/jobs", "state=canceled", Some("state")),
            ("/jobs", "tsak=a", Some("tsak")),
            ("/jobs", "name=%ff", None),
            ("/jobs/j", "wait=soon", Some("wait")),
            ("/jobs/j/logs", "stream=stdin", Some("stream")),
            ("/jobs/j/logs", "follow=yes", Some("follow")),
        ] {
            let Err(Problem::InvalidRequest { field: found, .. }) = request(path, query) else { panic!("{query}") };
            assert_eq!(found.as_deref(), field, "{query}");
        }
        assert_eq!(request("/jobs/a.b", ""), Err(Problem::UnknownJob));
    }

    #[test]
    fn an_event_id_leads_back_to_where_an_answer_ended() {
        assert_eq!(From::of_event_id("2.10.0"), Some(From::Resumed { attempt: 2, next: [10, 0] }));
        assert_eq!(From::of_event_id("2.10.-9"), Some(From::Resumed { attempt: 2, next: [10, -9] }));
        for id in ["", "2", "2.1", "a.b.c", "-1.0.0", "1.18446744073709551615.0"] {
            assert_eq!(From::of_event_id(id), None, "{id}");
        }
    }

    #[test]
    fn who_comes_back_goes_on_where_it_was_wherever_it_began() {
        let path = Path::of("/jobs/j/logs").unwrap();
        let opening = path.opening("follow=1&from=7", Some("2.10.0"), Asker::default()).unwrap().unwrap();
        let Ok(Request::Logs { from, .. }) = opening.with_body(b"") else { panic!("it asks for a log") };
        assert_eq!(from, From::Resumed { attempt: 2, next: [10, 0] });
    }

    #[test]
    fn who_cancels_many_says_which() {
        let cancel = |body: &str| {
            Path::of("/jobs/cancel")
                .unwrap()
                .opening("", None, Asker::default())
                .unwrap()
                .unwrap()
                .with_body(body.as_bytes())
        };
        assert!(matches!(cancel(r#"{"task":"x","dry_run":true}"#), Ok(Request::CancelMany { dry_run: true, .. })));
        assert!(matches!(cancel("{}"), Err(Problem::InvalidRequest { .. })));
        assert!(matches!(cancel(r#"{"tsak":"x"}"#), Err(Problem::MalformedJson { .. })));
        assert!(matches!(cancel(r#"{"state":"x"}"#), Err(Problem::InvalidRequest { .. })));
        assert!(matches!(cancel(&" ".repeat(10_001)), Err(Problem::TooLarge { .. })));
    }
}
