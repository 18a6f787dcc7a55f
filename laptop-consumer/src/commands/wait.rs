//! `wait`, and the second half of `submit --wait`: until the results of some jobs are here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use client::hub::{Answer, Hub};
use client::{Arrived, Came, Follower, Inbox, Patience, Waiting, take_arrived};
use program::{Exit, Failure, Printer};
use protocol::hub::{JobBrief, Sites};
use protocol::{JobId, JobState, Timestamp};

use super::{follower, hub, jobs, note, print_one};
use crate::cli::WaitArgs;
use crate::config::CommonArgs;
use crate::progress::{self, Progress};
use crate::stop::Stop;

/// After this long without a result it is said what is waited for.
const NOTE_AFTER: Duration = Duration::from_secs(30);

/// The same where a hub tells how far the jobs are.
const WHEREABOUTS_AFTER: Duration = Duration::from_secs(60);

/// It is said in good time, or not at all.
const WHEREABOUTS_PATIENCE: Duration = Duration::from_secs(5);

/// After this long it is said why a result may never come.
const ADVICE_AFTER: Duration = Duration::from_secs(600);

pub(super) async fn run(common: &CommonArgs, args: &WaitArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    if args.jobs.is_empty() && !args.all {
        let message = "`wait` takes the jobs to wait for: their ids, `last`, @FILE with a list of them, or --all";
        return Err(Failure::with(Exit::Usage, message));
    }
    let inbox = Inbox::new(&common.data_dir()?);
    let hub = hub::if_any(common, &args.edge);
    let mut pending = jobs::wanted(&args.jobs, args.all, &inbox, hub.as_ref()).await?;
    if pending.is_empty() {
        if args.all {
            note("there is nothing to wait for: each job that was submitted with this inbox has its result");
        }
        return Ok(Exit::Ok);
    }
    let mut print = |arrived: &Arrived| print_one(arrived, printer);
    let mut results = Results::new(pending.len(), &mut print);
    // What is here needs neither settings nor a network.
    results.print_here(&inbox, &mut pending)?;
    if pending.is_empty() {
        return Ok(results.exit);
    }
    let mut follower = follower(common, &args.queue, Patience::OF_A_WAIT)?;
    hub::listen(&mut follower, hub, &pending);
    until_here(Waiting::new(follower, pending), args.timeout, Stop::listen()?, results).await
}

/// Prints the results of these jobs: those that are here, and then each as it comes.
pub(super) async fn for_results(
    follower: Follower,
    inbox: &Inbox,
    mut pending: Vec<JobId>,
    timeout: Option<Duration>,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    let mut print = |arrived: &Arrived| print_one(arrived, printer);
    let mut results = Results::new(pending.len(), &mut print);
    results.print_here(inbox, &mut pending)?;
    if pending.is_empty() {
        return Ok(results.exit);
    }
    until_here(Waiting::new(follower, pending), timeout, Stop::listen()?, results).await
}

/// Prints a result; the exit code says how the job ended.
pub(super) type Print<'a> = dyn FnMut(&Arrived) -> anyhow::Result<Exit> + 'a;

/// Prints results as they come, and says how the jobs ended.
pub(super) struct Results<'a> {
    print: &'a mut Print<'a>,
    progress: Progress,
    total: usize,
    done: usize,
    failed: usize,
    exit: Exit,
    began: Instant,
}

impl<'a> Results<'a> {
    /// The results of so many jobs.
    pub(super) fn new(total: usize, print: &'a mut Print<'a>) -> Self {
        Self { print, progress: Progress::new(), total, done: 0, failed: 0, exit: Exit::Ok, began: Instant::now() }
    }

    fn print_here(&mut self, inbox: &Inbox, pending: &mut Vec<JobId>) -> anyhow::Result<()> {
        take_arrived(inbox, pending)?.iter().try_for_each(|arrived| self.print(arrived))
    }

    fn print_came(&mut self, came: &Came) -> anyhow::Result<()> {
        if came.by_hub {
            self.note(&format!(
                "the queue did not give the result of the job {}, as when another laptop has fetched it; this is what \
                 the hub has, and it is kept in the inbox",
                came.arrived.result.job_id
            ));
        }
        self.print(&came.arrived)
    }

    fn print(&mut self, arrived: &Arrived) -> anyhow::Result<()> {
        self.progress.clear();
        let exit = (self.print)(arrived)?;
        self.done += 1;
        if exit != Exit::Ok {
            self.failed += 1;
            self.exit = exit;
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.progress.clear();
        note(text);
    }

    /// Shows how far it is, and for how long it was waited.
    fn show(&mut self, waiting: &Waiting) {
        let (total, done, failed, waited) = (self.total, self.done, self.failed, self.began.elapsed());
        self.progress.show(|| {
            let told = waiting.listener().map(|listener| listener.on_the_way()).unwrap_or_default();
            shown(total, done, failed, waiting.pending(), &told, waited)
        });
    }
}

/// How far it is, on one line; `told` is what a hub has said on the way.
fn shown(total: usize, done: usize, failed: usize, pending: &[JobId], told: &[JobBrief], waited: Duration) -> String {
    let state = match (told, pending) {
        ([job], _) if total == 1 => hub::whereabouts(job, hub::now()),
        (_, [job_id, ..]) if total == 1 => format!("{job_id}: no result yet"),
        ([], _) => progress::results(total, done, failed),
        (told, _) => format!("{}; {}", progress::results(total, done, failed), counted(told)),
    };
    format!("{state}; waited {}", progress::waited(waited))
}

/// How many jobs are how far.
fn counted(jobs: &[JobBrief]) -> String {
    let of = |state: JobState| jobs.iter().filter(|job| job.state == state).count();
    let counts = [JobState::Running, JobState::Held, JobState::Queued].map(|state| (of(state), state));
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Waits until no job is pending, the time is over, or a signal comes. This process, or another one, may put the
/// results into the inbox.
pub(super) async fn until_here(
    mut waiting: Waiting,
    timeout: Option<Duration>,
    mut stop: Stop,
    mut results: Results<'_>,
) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let (mut quiet_since, mut notes) = (start, 0);
    // A year at the most: no clock overflows.
    let end = timeout.map(|timeout| start + timeout);
    loop {
        let came = tokio::select! {
            came = waiting.next() => came?,
            () = stop.asked() => break,
            () = until(end) => break,
        };
        if let Some(came) = came {
            results.print_came(&came)?;
            quiet_since = Instant::now();
            continue;
        }
        if waiting.pending().is_empty() {
            break;
        }
        let due = tokio::select! {
            due = note_due(notes, quiet_since.elapsed(), &waiting) => due,
            () = stop.asked() => break,
        };
        if let Some(text) = due {
            results.note(&text);
            notes += 1;
        }
        results.show(&waiting);
    }
    results.progress.clear();
    if stop.is_asked() && !waiting.pending().is_empty() {
        // At once: the look that is under way may take a moment.
        note(&interrupted(waiting.pending()));
    }
    waiting.finish().await;
    while let Some(came) = waiting.next_here()? {
        results.print_came(&came)?;
    }
    match waiting.pending() {
        [] => Ok(results.exit),
        _ if stop.is_asked() => Ok(Exit::Interrupted),
        pending => Err(Failure::with(Exit::TryLater, not_here(pending, results.total))),
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

/// What a person should know who has waited for so long, and was told so much. A hub tells more than we know.
async fn note_due(told: usize, quiet: Duration, waiting: &Waiting) -> Option<String> {
    let listener = waiting.listener().filter(|_| told == 0);
    let Some(listener) = listener else { return note_due_without_hub(told, quiet, waiting.pending()) };
    // Who hears of it all the time has less to worry about.
    let after = if listener.hears(Instant::now()) { WHEREABOUTS_AFTER } else { NOTE_AFTER };
    if quiet < after {
        return None;
    }
    let asked = tokio::time::timeout(WHEREABOUTS_PATIENCE, whereabouts(listener.hub(), waiting.pending())).await;
    asked.ok().flatten().or_else(|| note_due_without_hub(told, quiet, waiting.pending()))
}

/// What is waited for, as far as the hub knows.
async fn whereabouts(hub: &Hub, pending: &[JobId]) -> Option<String> {
    let known = hub.briefs(pending).await.ok()?.known()?;
    let sites = match hub.sites().await {
        Ok(Answer::Known(sites)) => sites,
        _ => return None,
    };
    whereabouts_text(pending, &known, &sites, hub::now())
}

/// Of one job where it is, of many how many are how far; and of what waits in the queue, whether anybody would take it.
fn whereabouts_text(
    pending: &[JobId],
    known: &HashMap<JobId, JobBrief>,
    sites: &Sites,
    now: Timestamp,
) -> Option<String> {
    let example = pending.iter().find_map(|job_id| known.get(job_id))?;
    let mut text = format!("{}: {}", example.job_id, hub::whereabouts(example, now));
    if known.values().any(|job| job.state == JobState::Queued) {
        text = format!("{text}; {}", hub::linked(sites));
    }
    let jobs: Vec<JobBrief> = known.values().cloned().collect();
    Some(match (pending, counted(&jobs).as_str()) {
        ([_], _) => text,
        (pending, "") => format!("waiting for {} results, for example of {text}", pending.len()),
        (pending, counted) => format!("waiting for {} results ({counted}), for example of {text}", pending.len()),
    })
}

/// The same where nobody tells how far the jobs are.
fn note_due_without_hub(told: usize, quiet: Duration, pending: &[JobId]) -> Option<String> {
    let (whose, result) = match pending {
        [job_id] => (format!("the result of the job {job_id}"), "its result"),
        [job_id, ..] => (format!("{} results, for example of the job {job_id}", pending.len()), "each result"),
        [] => return None,
    };
    match told {
        0 if quiet >= NOTE_AFTER => Some(format!(
            "waiting for {whose}: it comes when the job has ended. On the cluster `hpc-consumer jobs` tells whether it \
             waits or runs; Ctrl-C ends only the waiting"
        )),
        1 if quiet >= ADVICE_AFTER => Some(format!(
            "still waiting for {whose}. If the job has ended long ago, {result} may not come any more: another laptop \
             that reads this queue may have fetched it, or it was in the queue for longer than that keeps messages (24 \
             hours on Cloudflare's free plan). `hpc-consumer republish JOB_ID` on the cluster sends it again"
        )),
        _ => None,
    }
}

fn interrupted(pending: &[JobId]) -> String {
    match pending {
        [job_id] => format!("the job {job_id} goes on; `laptop-consumer wait {job_id}` waits for its result again"),
        pending => format!(
            "the {} jobs whose results are not here go on; `laptop-consumer wait` with the same arguments waits for them \
             again",
            pending.len()
        ),
    }
}

fn not_here(pending: &[JobId], total: usize) -> String {
    match pending {
        [job_id] if total == 1 => {
            format!("the result of the job {job_id} is not here yet; `laptop-consumer wait {job_id}` waits on")
        }
        pending => format!(
            "{} of {total} results are not here yet, for example of the job {}; the same command waits on",
            pending.len(),
            pending.first().map(JobId::to_string).unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_long_is_told_for_what_and_then_why_it_may_not_come() {
        let jobs = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
        assert_eq!(note_due_without_hub(0, NOTE_AFTER / 2, &jobs), None);
        let first = note_due_without_hub(0, NOTE_AFTER, &jobs[..1]).unwrap();
        assert!(first.contains("waiting for the result of the job j1: ") && first.contains("hpc-consumer jobs"));
        assert_eq!(note_due_without_hub(1, NOTE_AFTER, &jobs), None);
        let second = note_due_without_hub(1, ADVICE_AFTER, &jobs).unwrap();
        assert!(second.contains("2 results, for example of the job j1") && second.contains("24 hours"), "{second}");
        assert_eq!(note_due_without_hub(2, Duration::MAX, &jobs), None);
    }

    #[test]
    fn who_waits_long_is_told_where_the_job_is() {
        let now = "2026-11-30T04:03:00Z".parse().unwrap();
        let jobs = ["j1", "j2", "j3"].map(|id| id.parse::<JobId>().unwrap());
        let brief = |job_id: &JobId, state: &str| -> (JobId, JobBrief) {
            let fields = r#""site":"alpha","attempt":1,"updated_at":"2026-11-30T04:00:00Z""#;
            let text = format!(r#"{{"job_id":"{job_id}","state":"{state}",{fields}}}"#);
            (job_id.clone(), serde_json::from_str(&text).unwrap())
        };
        let told = |pending: &[JobId], states: &[&str]| {
            let known = jobs.iter().zip(states).map(|(job_id, state)| brief(job_id, state)).collect();
            whereabouts_text(pending, &known, &Sites::default(), now)
        };
        assert_eq!(told(&jobs[..1], &["running"]).as_deref(), Some("j1: running at alpha for 3 min"));
        assert_eq!(told(&jobs[..1], &["queued"]).as_deref(), Some("j1: queued for 3 min; no site is linked"));
        let many = told(&jobs, &["held", "running", "held"]);
        let text = "waiting for 3 results (1 running, 2 held), for example of j1: held at alpha for 3 min";
        assert_eq!(many.as_deref(), Some(text));
        assert_eq!(told(&jobs, &[]), None, "nothing that we do not know");
    }

    #[test]
    fn a_line_says_how_far_it_is_and_for_how_long_it_was_waited() {
        let jobs = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
        let brief = |state: &str| -> JobBrief {
            let at = hub::now();
            let text = format!(r#"{{"job_id":"j1","state":"{state}","site":"alpha","attempt":1,"updated_at":"{at}"}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let waited = Duration::from_secs(200);
        let line = |total, done, failed, told: &[JobBrief]| shown(total, done, failed, &jobs, told, waited);
        assert_eq!(line(1, 0, 0, &[]), "j1: no result yet; waited 3 min 20 s");
        assert_eq!(line(1, 0, 0, &[brief("running")]), "running at alpha for 0 s; waited 3 min 20 s");
        assert_eq!(line(9, 7, 1, &[]), "7 of 9 results, 1 failed; waited 3 min 20 s");
        let told = [brief("running"), brief("held")];
        assert_eq!(line(9, 7, 0, &told), "7 of 9 results; 1 running, 1 held; waited 3 min 20 s");
    }

    #[test]
    fn who_stops_waiting_is_told_how_to_go_on() {
        let jobs = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
        assert!(interrupted(&jobs[..1]).contains("`laptop-consumer wait j1`"));
        assert!(interrupted(&jobs).contains("the 2 jobs"));
        assert!(not_here(&jobs[..1], 1).contains("`laptop-consumer wait j1` waits on"));
        assert!(not_here(&jobs[..1], 5).contains("1 of 5 results"));
    }
}
