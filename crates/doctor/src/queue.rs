//! Of what the service tells of queues: whether they can be used, and what of their settings loses messages later.
//!
//! Out of scope: asking ([`crate::look`]). What is not told is passed over.

use std::time::Duration;

use protocol::{FailureClass, JOBS_QUEUE, RESULTS_QUEUE, limits};
use queues::{Error, Fault, QueueInfo, is_id};

use crate::Line;

/// The queue that takes what is given up of the jobs.
pub const DEAD_LETTERS: &str = "hpc-jobs-dlq";

/// A queue that keeps its messages no longer than this may lose them over a weekend.
pub const SHORT_RETENTION: Duration = Duration::from_hours(24);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Jobs on their way to the cluster.
    Jobs,
    /// Results on their way to the laptop.
    Results,
}

impl Role {
    /// What the documentation calls the queue.
    pub fn usual_name(self) -> &'static str {
        match self {
            Self::Jobs => JOBS_QUEUE,
            Self::Results => RESULTS_QUEUE,
        }
    }

    /// The setting with its id.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Jobs => "CF_JOBS_QUEUE_ID",
            Self::Results => "CF_RESULTS_QUEUE_ID",
        }
    }

    /// Where what is given up goes. Results that are given up are still in `RESULTS_DIR`, and need no such queue.
    pub fn dead_letters(self) -> Option<&'static str> {
        (self == Self::Jobs).then_some(DEAD_LETTERS)
    }

    fn what(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Results => "results",
        }
    }

    fn check(self) -> &'static str {
        match self {
            Self::Jobs => "queue of jobs",
            Self::Results => "queue of results",
        }
    }
}

/// A queue, as the settings name it.
#[derive(Debug, Clone)]
pub struct Named {
    /// Which one is meant.
    pub role: Role,
    /// The subject of a sentence about the setting: `CF_JOBS_QUEUE_ID from .env line 3`.
    pub subject: String,
    /// What it is set to.
    pub id: Option<String>,
}

/// What was seen of the queues of an account.
#[derive(Debug)]
pub struct Seen {
    /// Where it was asked.
    pub url: String,
    /// The account, and the setting that names it.
    pub account: (String, String),
    /// Where the token comes from.
    pub token: String,
    /// What each of the queues is.
    pub queues: Vec<(Named, Option<Result<QueueInfo, Error>>)>,
    /// All queues, where that is of use.
    pub all: Option<Result<Vec<QueueInfo>, Error>>,
    /// May the token change them? Asked only where one of them was found.
    pub may_write: Option<Result<(), Error>>,
}

/// What can lose messages, as parts of a sentence about the queue.
pub fn troubles(info: &QueueInfo, role: Role) -> Vec<String> {
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
        if role.dead_letters().is_some() && consumer.dead_letter_queue.is_none() {
            problems.push("what is given up is deleted, for there is no dead letter queue".to_owned());
        }
    }
    if let Some(retention) = info.retention.filter(|retention| *retention <= SHORT_RETENTION) {
        let hours = retention.as_secs() / 3_600;
        problems.push(format!("what nobody has taken after {hours} hours is deleted"));
    }
    problems
}

/// The same as a sentence, for the log of a daemon.
pub fn warning(info: &QueueInfo, role: Role) -> Option<String> {
    let problems = troubles(info, role);
    let name = info.name.as_deref().unwrap_or(role.usual_name());
    (!problems.is_empty()).then(|| {
        format!(
            "the queue {name} can lose {}: {}; how to set it is in docs/operations.md, \"Cloudflare\"",
            role.what(),
            problems.join("; ")
        )
    })
}

/// What is wrong with the two ids, when the names of the queues prove it. Who has given them other names than the
/// documentation does is not told anything.
pub fn wrong_ids(jobs: Option<&str>, results: Option<&str>) -> Option<String> {
    let what = match (jobs == Some(RESULTS_QUEUE), results == Some(JOBS_QUEUE)) {
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

/// What is to be said of all of it. `fix` is the command that makes what is missing.
pub fn lines(seen: &Seen, fix: &str) -> Vec<Line> {
    let mut lines = vec![access(seen)];
    let all = match &seen.all {
        Some(Ok(all)) => all.as_slice(),
        _ => &[],
    };
    for (named, told) in &seen.queues {
        lines.extend(match told {
            None => Some(not_set(named, all, fix)),
            Some(Ok(info)) => Some(found(named, info, fix)),
            Some(Err(error)) if error.fault == Fault::Place => Some(not_found(named, all, fix)),
            // It was said of the token, or of the service.
            Some(Err(_)) => None,
        });
    }
    let name = |role| {
        let told = seen.queues.iter().find(|(named, _)| named.role == role)?.1.as_ref()?;
        told.as_ref().ok()?.name.as_deref()
    };
    lines.extend(
        wrong_ids(name(Role::Jobs), name(Role::Results))
            .map(|why| Line::failure("queue ids", why, "npx wrangler queues list")),
    );
    lines
}

/// Does the service answer, and does it let us in?
fn access(seen: &Seen) -> Line {
    let Seen { url, account: (account, account_setting), token, .. } = seen;
    if !is_id(account) {
        let text = format!("{account_setting} is {account}, and the id of an account is 32 hexadecimal digits");
        return Line::failure("account", text, "npx wrangler whoami   (it shows the id)");
    }
    let told = seen.queues.iter().filter_map(|(_, told)| told.as_ref()?.as_ref().err());
    let all = seen.all.as_ref().and_then(|all| all.as_ref().err());
    let mut errors = told.chain(all).filter(|error| error.fault != Fault::Place);
    if let Some(error) = errors.next() {
        return refused(seen, error);
    }
    match &seen.may_write {
        Some(Err(error)) if error.fault == Fault::Permission => Line::failure(
            "token",
            format!(
                "{token} may read the queues and not change them, so nothing can be pulled or pushed: it lacks the \
                 permission Account > Queues > Edit"
            ),
            TOKENS,
        ),
        Some(Err(error)) => refused(seen, error),
        Some(Ok(())) => Line::ok("token", format!("{url} knows it, and it may read and change queues")),
        None => Line::ok("token", format!("{url} knows it, and it may read queues")),
    }
}

/// Where a token is made and changed.
const TOKENS: &str = "https://dash.cloudflare.com/profile/api-tokens   (edit the token there: Account > Queues > Edit)";

fn refused(seen: &Seen, error: &Error) -> Line {
    let Seen { url, account: (account, account_setting), token, .. } = seen;
    match (error.fault, error.class) {
        (Fault::Token, _) => Line::failure(
            "token",
            format!("{url} does not know {token}: it was revoked, has expired, or was not copied as it is"),
            format!("https://dash.cloudflare.com/profile/api-tokens   (make a new one, and write it into {token})"),
        ),
        (Fault::Permission, _) => Line::failure(
            "token",
            format!(
                "{token} may not use the queues of the account {account}: it lacks the permission Account > Queues > Edit, \
                 or {account_setting} is the id of another account"
            ),
            "npx wrangler whoami   (it shows the accounts)",
        ),
        (_, FailureClass::QuotaExhausted | FailureClass::Throttled(_)) => {
            Line::warning("queue API", error.to_string(), "try again later, at the latest after midnight UTC")
        }
        _ => Line::failure("queue API", error.to_string(), format!("curl -sS {url}   (is this machine let out?)")),
    }
}

fn set(named: &Named, info: &QueueInfo) -> Option<String> {
    let id = info.id.as_deref()?;
    Some(format!("write {}={id} into your settings file", named.role.setting()))
}

fn by_name<'a>(all: &'a [QueueInfo], name: &str) -> Option<&'a QueueInfo> {
    all.iter().find(|queue| queue.name.as_deref() == Some(name))
}

fn not_set(named: &Named, all: &[QueueInfo], fix: &str) -> Line {
    let (setting, usual) = (named.role.setting(), named.role.usual_name());
    let known = by_name(all, usual).and_then(|info| set(named, info));
    let text = match &known {
        Some(_) => format!("{setting} is not set, and there is a queue {usual}"),
        None => format!("{setting} is not set; it is the id of the queue {usual}"),
    };
    Line::failure(named.role.check(), text, known.unwrap_or_else(|| fix.to_owned()))
}

/// The service has no queue of this id.
fn not_found(named: &Named, all: &[QueueInfo], fix: &str) -> Line {
    let (subject, id, usual) = (&named.subject, named.id.as_deref().unwrap_or_default(), named.role.usual_name());
    let by_its_name = by_name(all, id);
    let known = by_its_name.or_else(|| by_name(all, usual)).and_then(|info| set(named, info));
    let text = match (by_its_name, is_id(id)) {
        (Some(_), _) => format!("{subject} is {id}, which is the name of a queue, and not its id"),
        (None, false) => format!("{subject} is {id}, and the id of a queue is 32 hexadecimal digits"),
        (None, true) => format!("{subject} is {id}, and this account has no queue with that id"),
    };
    Line::failure(named.role.check(), text, known.unwrap_or_else(|| fix.to_owned()))
}

fn found(named: &Named, info: &QueueInfo, fix: &str) -> Line {
    let role = named.role;
    let name = info.name.as_deref().unwrap_or(role.usual_name());
    if let Some(consumers) = &info.consumers
        && !consumers.iter().any(|consumer| consumer.pulls)
    {
        return if consumers.is_empty() {
            Line::failure(role.check(), format!("{name} cannot be pulled from: it has no HTTP pull consumer"), fix)
        } else {
            let text = format!("{name} is consumed by a Worker, which leaves nothing to pull");
            let next = format!("npx wrangler queues info {name}   (and remove that consumer; then {fix})");
            Line::failure(role.check(), text, next)
        };
    }
    if info.paused == Some(true) {
        let text = format!("somebody has paused the delivery of {name}: nothing comes until it goes on");
        return Line::warning(role.check(), text, format!("npx wrangler queues resume-delivery {name}"));
    }
    let problems = troubles(info, role);
    if !problems.is_empty() {
        let text = format!("{name} can lose {}: {}", role.what(), problems.join("; "));
        return Line::warning(role.check(), text, fix);
    }
    let mut text = name.to_owned();
    if let Some(consumer) = info.consumers.iter().flatten().find(|consumer| consumer.pulls) {
        let retries = consumer.max_retries.map(|retries| format!(", {retries} retries")).unwrap_or_default();
        let then = consumer.dead_letter_queue.as_deref().map(|name| format!(", then {name}")).unwrap_or_default();
        text += &format!(": pulled over HTTP{retries}{then}");
    }
    if let Some(retention) = info.retention {
        text += &format!("; it keeps messages for {} hours", retention.as_secs() / 3_600);
    }
    Line::ok(role.check(), text)
}

#[cfg(test)]
mod tests {
    use queues::Consumer;

    use super::*;
    use crate::Verdict;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const FIX: &str = "hpc-consumer doctor --fix";

    fn queue(name: &str, hours: u64, max_retries: u64, dead_letter_queue: Option<&str>) -> QueueInfo {
        let dead_letter_queue = dead_letter_queue.map(str::to_owned);
        let consumer =
            Consumer { pulls: true, max_retries: Some(max_retries), dead_letter_queue, ..Consumer::default() };
        QueueInfo {
            id: Some(ID.to_owned()),
            name: Some(name.to_owned()),
            retention: Some(Duration::from_hours(hours)),
            consumers: Some(vec![consumer]),
            ..QueueInfo::default()
        }
    }

    fn well() -> QueueInfo {
        queue("hpc-jobs", 96, 100, Some("hpc-jobs-dlq"))
    }

    fn named(id: Option<&str>) -> Named {
        Named { role: Role::Jobs, subject: "CF_JOBS_QUEUE_ID from .env line 3".into(), id: id.map(str::to_owned) }
    }

    fn seen(told: Option<Result<QueueInfo, Error>>, all: Vec<QueueInfo>) -> Seen {
        let id = told.as_ref().map(|told| if told.is_ok() { ID } else { "hpc-jobs" });
        Seen {
            url: "https://api.test/client/v4".into(),
            account: (ID.into(), "CF_ACCOUNT_ID from .env line 1".into()),
            token: "CF_QUEUES_API_TOKEN from .env line 2".into(),
            queues: vec![(named(id), told)],
            all: Some(Ok(all)),
            may_write: Some(Ok(())),
        }
    }

    fn error(status: u16, code: i64) -> Error {
        Error::of_answer("read the settings of queue x", status, code)
    }

    /// The verdict, the text and what is next of the last line.
    fn last(seen: &Seen) -> (Verdict, String, String) {
        let Line { verdict, text, next, .. } = lines(seen, FIX).pop().expect("there is one");
        (verdict, text, next.unwrap_or_default())
    }

    #[test]
    fn queues_as_the_documentation_makes_them_are_well_and_so_are_those_that_tell_nothing() {
        for info in [well(), QueueInfo::default(), queue("hpc-results", 96, 100, None)] {
            let role = if info.name.as_deref() == Some("hpc-results") { Role::Results } else { Role::Jobs };
            assert_eq!((troubles(&info, role), warning(&info, role)), (Vec::new(), None));
        }
        let (verdict, text, _) = last(&seen(Some(Ok(well())), Vec::new()));
        let told = "hpc-jobs: pulled over HTTP, 100 retries, then hpc-jobs-dlq; it keeps messages for 96 hours";
        assert_eq!((verdict, text.as_str()), (Verdict::Ok, told));
        let of_a_worker = Consumer { max_retries: Some(3), ..Consumer::default() };
        let pushed = QueueInfo { consumers: Some(vec![of_a_worker]), ..well() };
        assert_eq!(troubles(&pushed, Role::Jobs), Vec::<String>::new());
        assert!(last(&seen(Some(Ok(pushed)), Vec::new())).1.contains("consumed by a Worker"));
    }

    #[test]
    fn what_can_lose_messages_is_said_once_for_each_queue() {
        let jobs = warning(&queue("my-jobs", 24, 3, None), Role::Jobs).unwrap();
        let all = ["my-jobs can lose jobs", "after 3 retries", "no dead letter queue", "after 24 hours"];
        assert!(all.iter().all(|part| jobs.contains(part)), "{jobs}");
        let results = warning(&queue("hpc-results", 1, 99, None), Role::Results).unwrap();
        assert!(["after 99 retries", "after 1 hours"].iter().all(|part| results.contains(part)), "{results}");
        assert!(!results.contains("dead letter"), "{results}");
        let (verdict, text, next) = last(&seen(Some(Ok(queue("hpc-jobs", 96, 3, Some("d")))), Vec::new()));
        assert!(verdict == Verdict::Warning && text.contains("hpc-jobs can lose jobs: ") && next == FIX, "{text}");
    }

    #[test]
    fn a_queue_that_cannot_be_pulled_from_fails() {
        let none = QueueInfo { consumers: Some(Vec::new()), ..well() };
        let (verdict, text, next) = last(&seen(Some(Ok(none)), Vec::new()));
        assert!(verdict == Verdict::Failure && text.contains("no HTTP pull consumer") && next == FIX, "{text}");
        let paused = QueueInfo { paused: Some(true), ..well() };
        let (verdict, text, next) = last(&seen(Some(Ok(paused)), Vec::new()));
        assert!(verdict == Verdict::Warning && text.contains("paused"), "{text}");
        assert_eq!(next, "npx wrangler queues resume-delivery hpc-jobs");
    }

    #[test]
    fn a_name_in_the_place_of_an_id_is_told_with_the_id() {
        let (verdict, text, next) = last(&seen(Some(Err(error(400, 10107))), vec![well()]));
        assert_eq!(verdict, Verdict::Failure);
        assert_eq!(text, "CF_JOBS_QUEUE_ID from .env line 3 is hpc-jobs, which is the name of a queue, and not its id");
        assert_eq!(next, format!("write CF_JOBS_QUEUE_ID={ID} into your settings file"));
        let (_, text, next) = last(&seen(Some(Err(error(404, 11000))), Vec::new()));
        assert!(text.contains("32 hexadecimal digits") && next == FIX, "{text}");
        let (_, text, next) = last(&seen(None, vec![well()]));
        assert!(text.contains("is not set, and there is a queue hpc-jobs") && next.contains(ID), "{text}");
        let mut unknown = seen(Some(Err(error(404, 11000))), vec![well()]);
        unknown.queues[0].0.id = Some("f".repeat(32));
        let (_, text, next) = last(&unknown);
        assert!(text.contains("no queue with that id") && next.contains(ID), "{text}");
    }

    #[test]
    fn a_token_is_told_by_what_it_lacks() {
        let of = |status, code| {
            let lines = lines(&seen(Some(Err(error(status, code))), Vec::new()), FIX);
            assert_eq!(lines.len(), 1, "the queue is not to blame: {lines:?}");
            (lines[0].check.clone(), lines[0].text.clone())
        };
        assert!(of(401, 10000).1.contains("does not know CF_QUEUES_API_TOKEN from .env line 2"));
        let (check, text) = of(403, 10000);
        assert!(check == "token" && text.contains("Account > Queues > Edit"), "{text}");
        assert!(text.contains("CF_ACCOUNT_ID from .env line 1 is the id of another account"), "{text}");
        assert_eq!(of(500, 0).0, "queue API");
        let read_only = Seen { may_write: Some(Err(error(403, 10000))), ..seen(Some(Ok(well())), Vec::new()) };
        assert!(lines(&read_only, FIX)[0].text.contains("may read the queues and not change them"));
        let account = ("hpc".to_owned(), "CF_ACCOUNT_ID from .env line 1".to_owned());
        let wrong = Seen { account, ..seen(Some(Err(error(404, 7003))), Vec::new()) };
        let line = &lines(&wrong, FIX)[0];
        assert!(line.check == "account" && line.text.contains("is hpc, and the id of an account is 32"), "{line:?}");
    }

    #[test]
    fn names_prove_that_ids_are_swapped() {
        let of = |jobs, results| wrong_ids(Some(jobs), Some(results));
        assert!(of("hpc-results", "hpc-jobs").is_some_and(|text| text.contains("swap the two")));
        assert!(of("hpc-results", "mine").is_some_and(|text| text.contains("set it to the id of hpc-jobs")));
        assert!(of("mine", "hpc-jobs").is_some_and(|text| text.contains("set it to the id of hpc-results")));
        assert_eq!((of("mine", "yours"), wrong_ids(None, None)), (None, None));
        let (_, text, _) = last(&seen(Some(Ok(queue("hpc-results", 96, 100, Some("d")))), Vec::new()));
        assert!(text.contains("set it to the id of hpc-jobs"), "{text}");
    }
}
