//! `hpc-consumer jobs`, `status`, `pools` and `services`: what they tell; how it is printed for a person is in
//! [`text`].
//!
//! A daemon that lives is seen through its view, from any machine that sees the directory. When none lives, what the
//! next one will find is read from the state itself, which is never written to here.
//!
//! With `--output json` each prints one object with the fields of [`Report`]; a field without a value is
//! `null`. `jobs` adds the array `jobs`. The fields of version 1 stay; others may come.

mod text;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use lifecycle::{Entry, Phase, Stage};
use program::{Exit, Failure, JobFilter, Listed, OutputFormat, age, escaped_json};
use protocol::{JobId, JobResult, JobState, PoolName, Timestamp, timestamp_from_millis};
use serde::Serialize;

use self::text::{jobs_text, pools_text, services_text, status_text};
use super::lock::{self, Held, Holder};
use super::view::{
    self, About, AllocationView, Called, Counts, DaemonState, JobView, OperationsView, PoolView, Queue, REFRESH,
    ServiceView, View, timestamp,
};
use super::{DATABASE, opening};
use crate::job::ResultsDir;
use crate::link::LinkView;

/// The version of the JSON.
const VERSION: u64 = 1;

/// A daemon that is well tells something more often.
const SILENCE: Duration = Duration::from_secs(4 * REFRESH.as_secs());

/// How long a daemon that has only just started is waited for, and how often it is looked at.
const FIRST_VIEW_PATIENCE: Duration = Duration::from_secs(3);
const FIRST_VIEW_PAUSE: Duration = Duration::from_millis(100);

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    v: u64,
    daemon: Daemon,
    /// No daemon runs, and what the next one will find cannot be read.
    #[serde(skip)]
    unreadable: bool,
    /// When this was so.
    as_of: Option<Timestamp>,
    /// Where the daemon is or was, and its process.
    host: Option<String>,
    pid: Option<u32>,
    /// What to know about all this.
    note: Option<String>,
    /// Why the node cannot run jobs.
    node_problem: Option<String>,
    /// Why the queue does not answer.
    queue_trouble: Option<String>,
    slots: Option<usize>,
    counts: Counts,
    owed_since: Option<Timestamp>,
    /// How the link to the hub is; absent where there is to be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<LinkView>,
    /// How it is with the day's operations; absent where there is no end to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<OperationsView>,
    /// Where all this was read.
    state_dir: String,
    #[serde(flatten)]
    about: About,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pools: Vec<PoolView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<ServiceView>,
    #[serde(skip)]
    jobs: Option<Vec<JobView>>,
    /// Those of them that were asked for.
    #[serde(rename = "jobs", skip_serializing_if = "Option::is_none")]
    listed: Option<Vec<ListedJob>>,
}

/// A job as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ListedJob {
    #[serde(flatten)]
    view: JobView,
    state: JobState,
}

impl Listed for ListedJob {
    fn state(&self) -> JobState {
        self.state
    }

    fn task(&self) -> Option<&str> {
        self.view.task.as_deref()
    }

    fn pool(&self) -> Option<&str> {
        self.view.pool.as_ref().map(PoolName::as_str)
    }

    fn name(&self) -> Option<&str> {
        self.view.name.as_deref()
    }

    fn changed(&self) -> Option<Timestamp> {
        self.view.since
    }
}

/// Whether there is a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Daemon {
    Running,
    Draining,
    Stopped,
    /// It cannot be told from here.
    Unknown,
}

impl Report {
    /// A daemon with very many jobs writes only the first of them down.
    fn unnamed(&self) -> usize {
        let Counts { waiting, running, ending, owed } = self.counts;
        (waiting + running + ending + owed).saturating_sub(self.jobs.as_ref().map_or(0, Vec::len))
    }
}

/// `hpc-consumer jobs`.
pub(crate) fn show_jobs(state_dir: &Path, format: OutputFormat, filter: &JobFilter) -> anyhow::Result<Exit> {
    show(state_dir, format, jobs_text, |report, now| listed(report, filter, now))
}

/// The same, with the jobs that are asked for. Those that have ended are looked for only where they are.
fn listed(report: Report, filter: &JobFilter, now: Timestamp) -> anyhow::Result<Report> {
    let results = report.about.results_dir.as_ref().map(|path| ResultsDir::new(path.into()));
    let ended = |job_id: &JobId| {
        let record = results.as_ref()?.final_record(job_id).ok().flatten()?;
        JobResult::parse(&record).ok()
    };
    let of_view = |view: &JobView| {
        // What is owed has ended.
        let state = view.state().or_else(|| Some(JobState::of(&ended(&view.job_id)?)));
        ListedJob { view: view.clone(), state: state.unwrap_or(JobState::Unknown) }
    };
    let mut jobs: Vec<ListedJob> = report.jobs.iter().flatten().map(of_view).collect();
    if let Some(results) = results.as_ref().filter(|_| filter.names_an_end()) {
        let held: HashSet<JobId> = jobs.iter().map(|job| job.view.job_id.clone()).collect();
        let earliest = filter.earliest(now).map(SystemTime::from);
        let place = || format!("RESULTS_DIR {} cannot be read", results.path().display());
        for (job_id, changed) in results.recorded().with_context(place)? {
            // A record is written once, when its job has ended.
            if earliest.is_some_and(|earliest| changed < earliest) || held.contains(&job_id) {
                continue;
            }
            jobs.extend(ended(&job_id).map(ListedJob::of));
        }
    }
    Ok(Report { listed: Some(filter.select(jobs, now)), ..report })
}

impl ListedJob {
    /// A job that has ended.
    fn of(result: JobResult) -> Self {
        let state = JobState::of(&result);
        let view = JobView {
            job_id: result.job_id,
            phase: state.to_string(),
            attempt: result.attempt,
            since: result.finished_at,
            task: result.task,
            // These do not come back with a result.
            name: None,
            pool: None,
            last_attempt: None,
            waits: false,
            allocation: None,
        };
        Self { view, state }
    }
}

/// `hpc-consumer status`.
pub(crate) fn show_status(state_dir: &Path, format: OutputFormat) -> anyhow::Result<Exit> {
    show(state_dir, format, status_text, |report, _| Ok(report))
}

/// The jobs that a daemon holds, or the next one will find.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) jobs: Vec<JobView>,
    /// So many more are not named: a daemon writes down the first thousands.
    pub(crate) unnamed: usize,
    /// Is it known at all? A daemon may have told nothing yet, and a state may be unreadable.
    pub(crate) known: bool,
    pub(crate) results_dir: Option<PathBuf>,
}

/// What a daemon holds. One that has only just started is given a moment to say so.
pub(crate) fn holding(state_dir: &Path) -> anyhow::Result<Holding> {
    must_be_there(state_dir)?;
    let start = Instant::now();
    loop {
        let report = report(state_dir, Timestamp::now())?;
        let has_told = report.jobs.is_some() || report.daemon != Daemon::Running;
        if has_told || start.elapsed() > FIRST_VIEW_PATIENCE {
            let results_dir = report.about.results_dir.as_ref().map(PathBuf::from);
            let (unnamed, known) = (report.unnamed(), report.jobs.is_some());
            return Ok(Holding { jobs: report.jobs.unwrap_or_default(), unnamed, known, results_dir });
        }
        std::thread::sleep(FIRST_VIEW_PAUSE);
    }
}

fn must_be_there(state_dir: &Path) -> anyhow::Result<()> {
    if state_dir.is_dir() {
        return Ok(());
    }
    Err(Failure::with(
        Exit::NotFound,
        format!(
            "there is no directory {}: no daemon was started with this STATE_DIR; give the settings of yours, by \
             --env-file, --profile or --state-dir",
            state_dir.display()
        ),
    ))
}

/// `hpc-consumer pools`.
pub(crate) fn show_pools(state_dir: &Path, format: OutputFormat) -> anyhow::Result<Exit> {
    show(state_dir, format, pools_text, |report, _| Ok(report))
}

/// `hpc-consumer services`.
pub(crate) fn show_services(state_dir: &Path, format: OutputFormat) -> anyhow::Result<Exit> {
    show(state_dir, format, services_text, |report, _| Ok(report))
}

fn show(
    state_dir: &Path,
    format: OutputFormat,
    text: fn(&Report, Timestamp) -> String,
    shown: impl FnOnce(Report, Timestamp) -> anyhow::Result<Report>,
) -> anyhow::Result<Exit> {
    must_be_there(state_dir)?;
    let now = timestamp_from_millis(Timestamp::now().as_millisecond());
    let report = shown(report(state_dir, now)?, now)?;
    crate::print(&match format {
        OutputFormat::Text => text(&report, now),
        OutputFormat::Json => escaped_json(&serde_json::to_string(&report)?) + "\n",
    })?;
    Ok(Exit::Ok)
}

fn report(state_dir: &Path, now: Timestamp) -> anyhow::Result<Report> {
    let report = match lock::look(state_dir)? {
        Held::Yes(holder) => of_live(holder, view::read(state_dir), now),
        Held::Elsewhere(holder) => of_other_machine(holder, view::read(state_dir)),
        Held::No => match opening::look(&state_dir.join(DATABASE)) {
            Ok(entries) => of_state(entries, opening::called(&state_dir.join(DATABASE)), now),
            Err(error) => {
                let Some(view) = view::read(state_dir) else { return Err(error) };
                let note = format!("{error:#}. The jobs are those of which the last daemon has told");
                of_unreadable(view, note)
            }
        },
    };
    let results_dir = || Some(ResultsDir::of(state_dir)?.display().to_string());
    let results_dir = report.about.results_dir.clone().or_else(results_dir);
    let about = About { results_dir, ..report.about };
    Ok(Report { state_dir: state_dir.display().to_string(), about, ..report })
}

fn of_live(holder: Option<Holder>, view: Option<View>, now: Timestamp) -> Report {
    let is_his =
        |view: &View| holder.as_ref().is_none_or(|holder| (&holder.host, holder.pid) == (&view.host, view.pid));
    match view.filter(is_his) {
        Some(view) => Report { note: silence(&view, now), ..of_view(view) },
        None => Report {
            daemon: Daemon::Running,
            note: Some("the daemon has only just started, and has not said yet what it does".to_owned()),
            ..nothing(holder)
        },
    }
}

/// What is to be said of a daemon of this machine that lives and has told nothing for a while.
fn silence(view: &View, now: Timestamp) -> Option<String> {
    let silent = Duration::try_from(now.duration_since(view.written_at)).unwrap_or_default();
    // Earlier versions told something only when it had changed.
    let (often, late) = (view.about.version.is_some(), silent > SILENCE);
    (often && late).then(|| {
        format!(
            "the daemon lives, and tells what it does every {} s, but has not for {}: it hangs, or its STATE_DIR cannot \
             be written; its log says more",
            REFRESH.as_secs(),
            age(view.written_at, now)
        )
    })
}

fn of_other_machine(holder: Holder, view: Option<View>) -> Report {
    let host = &holder.host;
    let note = format!(
        "the daemon was started on {host}, and only there can one tell whether it is alive; what is shown here is what it \
         wrote last"
    );
    let report = match view {
        Some(view) => of_view(view),
        None => nothing(Some(holder)),
    };
    Report { daemon: Daemon::Unknown, note: Some(note), ..report }
}

/// What the last daemon knew of its jobs. How the node and the queue were then says nothing now.
fn of_unreadable(view: View, note: String) -> Report {
    Report {
        daemon: Daemon::Stopped,
        unreadable: true,
        note: Some(note),
        node_problem: None,
        queue_trouble: None,
        link: None,
        operations: None,
        slots: None,
        ..of_view(view)
    }
}

/// What the next daemon will find.
fn of_state(entries: Vec<Entry>, mut called: HashMap<JobId, Called>, now: Timestamp) -> Report {
    let mut report = Report { daemon: Daemon::Stopped, as_of: Some(now), jobs: Some(Vec::new()), ..nothing(None) };
    for entry in entries {
        let since = timestamp(entry.since);
        let (count, phase) = match entry.stage {
            Stage::Accepted => (&mut report.counts.waiting, Phase::Waiting),
            Stage::Parked => (&mut report.counts.waiting, Phase::Parked),
            Stage::Launching => (&mut report.counts.running, Phase::Running),
            Stage::Recorded(_) => {
                report.owed_since = Some(report.owed_since.map_or(since, |earlier| earlier.min(since)));
                (&mut report.counts.owed, Phase::Recorded)
            }
        };
        *count += 1;
        let called = called.remove(&entry.job_id);
        let job = JobView {
            task: None,
            name: None,
            pool: None,
            last_attempt: None,
            waits: false,
            allocation: None,
            job_id: entry.job_id,
            phase: phase.name().to_owned(),
            attempt: entry.attempt.map_or(0, lifecycle::Attempt::get),
            since: Some(since),
        };
        report.jobs.get_or_insert_default().push(job.called(called));
    }
    if report.counts.running > 0 {
        let note = "jobs that are shown as running were started and go on without the daemon, or have ended since: \
                    the next one finds out";
        report.note = Some(note.to_owned());
    }
    report
}

fn of_view(view: View) -> Report {
    Report {
        v: VERSION,
        daemon: match view.state {
            DaemonState::Running => Daemon::Running,
            // It is about to let the directory go.
            DaemonState::Draining | DaemonState::Ended => Daemon::Draining,
        },
        unreadable: false,
        as_of: Some(view.written_at),
        host: Some(view.host),
        pid: Some(view.pid),
        note: None,
        node_problem: view.node,
        queue_trouble: view.queue_trouble,
        slots: Some(view.slots),
        counts: view.counts,
        owed_since: view.owed_since,
        link: view.link,
        operations: view.operations,
        state_dir: String::new(),
        about: view.about,
        pools: view.pools,
        services: view.services,
        jobs: Some(view.jobs),
        listed: None,
    }
}

fn nothing(holder: Option<Holder>) -> Report {
    let (host, pid) = holder.map(|holder| (holder.host, holder.pid)).unzip();
    Report {
        v: VERSION,
        daemon: Daemon::Unknown,
        unreadable: false,
        as_of: None,
        host,
        pid,
        note: None,
        node_problem: None,
        queue_trouble: None,
        slots: None,
        counts: Counts::default(),
        owed_since: None,
        link: None,
        operations: None,
        state_dir: String::new(),
        about: About::default(),
        pools: Vec::new(),
        services: Vec::new(),
        jobs: None,
        listed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::StateLock;
    use super::*;

    const T0: &str = "2026-11-21T01:15:27.123Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn view() -> View {
        let job = |id: &str, phase: &str, attempt, since: Option<&str>| JobView {
            job_id: id.parse().unwrap(),
            phase: phase.to_owned(),
            attempt,
            since: since.map(at),
            task: (id != "b").then(|| "simulate".to_owned()),
            name: None,
            pool: None,
            last_attempt: (attempt > 1).then(|| "attempt 1 failed:\nexit code 3; attempt 2 follows".to_owned()),
            waits: false,
            allocation: None,
        };
        let queue = |id: &str, name: Option<&str>| Queue { id: id.to_owned(), name: name.map(str::to_owned) };
        let about = About {
            version: Some("0.1.0".to_owned()),
            results_dir: Some("/scratch/results".to_owned()),
            runtime: Some("apptainer".to_owned()),
            image: Some("/images/science.sif".to_owned()),
            command: Some("task-runner".to_owned()),
            queues_url: Some("https://api.example/v4".to_owned()),
            jobs_queue: Some(queue("0f3c", Some("hpc-jobs"))),
            results_queue: Some(queue("9e1d", None)),
        };
        View {
            v: view::VERSION,
            written_at: at(T0),
            host: "n1".to_owned(),
            pid: 4_711,
            state: DaemonState::Running,
            node: Some("apptainer is not there\n\u{1b}[31m".to_owned()),
            pools: Vec::new(),
            services: Vec::new(),
            slots: 4,
            counts: Counts { waiting: 1, running: 1, ending: 0, owed: 3 },
            jobs: vec![
                job("a-rather-long-id", "running", 2, Some("2026-11-21T01:00:00.912Z")),
                job("b", "waiting", 0, None),
            ],
            queue_trouble: None,
            owed_since: Some(at("2026-11-20T23:00:00Z")),
            link: None,
            operations: None,
            about,
        }
    }

    fn shown(view: View) -> Report {
        let report = Report { state_dir: "/home/me/state".to_owned(), ..of_view(view) };
        listed(report, &JobFilter::default(), at(T0)).unwrap()
    }

    #[test]
    fn jobs_stand_in_columns() {
        let now = at("2026-11-21T01:15:30.5Z");
        let text = jobs_text(&shown(view()), now);
        let expected = "\
daemon      running on n1, process 4711, version 0.1.0
state in    /home/me/state
results in  /scratch/results
runtime     apptainer: task-runner, in /images/science.sif
jobs from   hpc-jobs (0f3c) at https://api.example/v4
results to  9e1d
as of       2026-11-21T01:15:27Z (3 s ago)

JOB ID            PHASE    FOR     ATTEMPT  TASK
a-rather-long-id  running  15 min  2        simulate
  attempt 1 failed: exit code 3; attempt 2 follows
b                 waiting  -       -        -
and 3 more
";
        assert_eq!(text, expected);
        let none = Report { state_dir: "/s".to_owned(), ..of_state(Vec::new(), HashMap::new(), now) };
        let expected = "\
daemon    no daemon runs here; this is what the next one will find
state in  /s

no jobs
";
        assert_eq!(jobs_text(&none, now), expected);
    }

    #[test]
    fn names_stand_beside_the_jobs_that_have_one() {
        let mut view = view();
        view.jobs[0].name = Some("draft 3\u{1b}[31m".to_owned());
        let text = jobs_text(&shown(view), at("2026-11-21T01:15:30.5Z"));
        let (_, jobs) = text.split_once("\n\n").unwrap();
        let expected = "\
JOB ID            PHASE    FOR     ATTEMPT  TASK      NAME
a-rather-long-id  running  15 min  2        simulate  draft 3 [31m
  attempt 1 failed: exit code 3; attempt 2 follows
b                 waiting  -       -        -
and 3 more
";
        assert_eq!(jobs, expected);
    }

    #[test]
    fn status_says_what_is_wrong_and_what_is_owed() {
        let text = status_text(&shown(view()), at("2026-11-21T01:15:30Z"));
        let expected = "\
daemon        running on n1, process 4711, version 0.1.0
state in      /home/me/state
results in    /scratch/results
runtime       apptainer: task-runner, in /images/science.sif
jobs from     hpc-jobs (0f3c) at https://api.example/v4
results to    9e1d
as of         2026-11-21T01:15:27Z (2 s ago)
node          apptainer is not there  [31m
queue         no trouble
slots         4
jobs          1 running, 1 waiting, 0 ending
results owed  3, the oldest since 2026-11-20T23:00:00Z (2 h)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_daemon_that_lives_and_tells_nothing_is_told_from_one_that_is_idle() {
        let note = |view: View, now: &str| of_live(None, Some(view), at(now)).note;
        assert_eq!(note(view(), "2026-11-21T01:15:40Z"), None);
        let silent = note(view(), "2026-11-21T01:15:54Z").unwrap();
        assert!(silent.contains("every 5 s, but has not for 26 s"), "{silent}");
        // One of an earlier version was idle.
        let earlier = View { about: About::default(), ..view() };
        assert_eq!(note(earlier, "2026-11-21T01:15:54Z"), None);
    }

    #[test]
    fn the_view_of_an_earlier_version_is_read() {
        let text = r#"{"v":1,"written_at":"2026-11-21T01:15:27.123Z","host":"n1","pid":4711,"state":"running","node":null,"slots":4,"counts":{"waiting":0,"running":1,"ending":0,"owed":0},"jobs":[{"job_id":"a","phase":"running","attempt":1,"since":null}],"queue_trouble":null,"owed_since":null}"#;
        let view: View = serde_json::from_str(text).unwrap();
        assert_eq!((&view.about, view.jobs[0].task.as_deref()), (&About::default(), None));
    }

    #[test]
    fn json_format_unchanged() {
        // Scripts read this: fields may be added, nothing else.
        let mut report = shown(View { node: None, ..view() });
        report.listed.as_mut().unwrap().truncate(1);
        let json = r#"{"v":1,"daemon":"running","as_of":"2026-11-21T01:15:27.123Z","host":"n1","pid":4711,"note":null,"node_problem":null,"queue_trouble":null,"slots":4,"counts":{"waiting":1,"running":1,"ending":0,"owed":3},"owed_since":"2026-11-20T23:00:00Z","state_dir":"/home/me/state","version":"0.1.0","results_dir":"/scratch/results","runtime":"apptainer","image":"/images/science.sif","command":"task-runner","queues_url":"https://api.example/v4","jobs_queue":{"id":"0f3c","name":"hpc-jobs"},"results_queue":{"id":"9e1d","name":null},"jobs":[{"job_id":"a-rather-long-id","phase":"running","attempt":2,"since":"2026-11-21T01:00:00.912Z","task":"simulate","name":null,"pool":null,"last_attempt":"attempt 1 failed:\nexit code 3; attempt 2 follows","state":"running"}]}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
        let status = serde_json::to_string(&Report { listed: None, ..report }).unwrap();
        assert!(!status.contains("job_id"), "{status}");
    }

    #[test]
    fn the_view_of_a_daemon_that_lives_is_shown_and_that_of_an_earlier_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StateLock::take(folder.path(), &files::NobodyElse, false).unwrap();
        view::write(folder.path(), &view()).unwrap();
        let report_now = || report(folder.path(), at(T0)).unwrap();
        assert!(report_now().note.unwrap().contains("only just started"));
        let mine = View { host: crate::host(), pid: std::process::id(), ..view() };
        view::write(folder.path(), &mine).unwrap();
        let shown = report_now();
        assert_eq!((shown.daemon, shown.jobs), (Daemon::Running, Some(view().jobs)));

        // It has ended: now its state counts, and its view only when the state cannot be read.
        drop(lock);
        let shown = report_now();
        assert_eq!((shown.daemon, shown.jobs), (Daemon::Stopped, Some(Vec::new())));
        std::fs::write(folder.path().join(DATABASE), "not a database, but more than nothing").unwrap();
        let shown = report_now();
        let text = status_text(&shown, at(T0));
        for line in [
            "daemon        no daemon runs here, and its state cannot be read",
            "node          not known",
            "queue         not known",
            "slots         not known",
            "jobs          1 running, 1 waiting, 0 ending",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(text.contains("no SQLite file") && jobs_text(&shown, at(T0)).contains("\nas of "), "{text}");
        assert_eq!((shown.daemon, shown.jobs), (Daemon::Stopped, Some(view().jobs)));
        std::fs::remove_file(folder.path().join("view.json")).unwrap();
        assert!(report(folder.path(), at(T0)).is_err());
    }
}
