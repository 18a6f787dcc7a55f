//! `wait`, and the second half of `submit --wait`: until the results of some jobs are here.

use std::time::{Duration, Instant};

use client::{Arrived, Inbox, Patience, Waiting, take_arrived};
use program::{Exit, Failure, Printer};
use protocol::JobId;

use super::{follower, jobs, note, print_one};
use crate::cli::WaitArgs;
use crate::config::CommonArgs;
use crate::progress::Progress;
use crate::stop::Stop;

/// After this long without a result it is said what is waited for.
const NOTE_AFTER: Duration = Duration::from_secs(30);

/// After this long it is said why a result may never come.
const ADVICE_AFTER: Duration = Duration::from_secs(600);

pub(super) async fn run(common: &CommonArgs, args: &WaitArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    if args.jobs.is_empty() && !args.all {
        let message = "`wait` takes the jobs to wait for: their ids, `last`, @FILE with a list of them, or --all";
        return Err(Failure::with(Exit::Usage, message));
    }
    let inbox = Inbox::new(&common.data_dir()?);
    let mut pending = jobs::wanted(&args.jobs, args.all, &inbox)?;
    if pending.is_empty() {
        note("there is nothing to wait for: each job that was submitted with this inbox has its result");
        return Ok(Exit::Ok);
    }
    let mut print = |arrived: &Arrived| print_one(arrived, printer);
    let mut results = Results::new(pending.len(), &mut print);
    // What is here needs neither settings nor a network.
    for arrived in take_arrived(&inbox, &mut pending)? {
        results.print(&arrived)?;
    }
    if pending.is_empty() {
        return Ok(results.exit);
    }
    let follower = follower(common, &args.queue, Patience::OF_A_WAIT)?;
    until_here(Waiting::new(follower, pending), args.timeout, Stop::listen()?, results).await
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
}

impl<'a> Results<'a> {
    /// The results of so many jobs.
    pub(super) fn new(total: usize, print: &'a mut Print<'a>) -> Self {
        Self { print, progress: Progress::new(total), total, done: 0, failed: 0, exit: Exit::Ok }
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
    loop {
        let arrived = tokio::select! {
            arrived = waiting.next() => arrived?,
            () = stop.asked() => break,
        };
        if let Some(arrived) = arrived {
            results.print(&arrived)?;
            quiet_since = Instant::now();
            continue;
        }
        if waiting.pending().is_empty() || timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            break;
        }
        if let Some(text) = note_due(notes, quiet_since.elapsed(), waiting.pending()) {
            results.note(&text);
            notes += 1;
        }
        results.progress.show(results.done, results.failed);
    }
    results.progress.clear();
    if stop.is_asked() && !waiting.pending().is_empty() {
        // At once: the look that is under way may take a moment.
        note(&interrupted(waiting.pending()));
    }
    waiting.finish().await;
    while let Some(arrived) = waiting.next_here()? {
        results.print(&arrived)?;
    }
    match waiting.pending() {
        [] => Ok(results.exit),
        _ if stop.is_asked() => Ok(Exit::Interrupted),
        pending => Err(Failure::with(Exit::TryLater, not_here(pending, results.total))),
    }
}

/// What a person should know who has waited for so long, and was told so much.
fn note_due(told: usize, quiet: Duration, pending: &[JobId]) -> Option<String> {
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
        assert_eq!(note_due(0, NOTE_AFTER / 2, &jobs), None);
        let first = note_due(0, NOTE_AFTER, &jobs[..1]).unwrap();
        assert!(first.contains("waiting for the result of the job j1: ") && first.contains("hpc-consumer jobs"));
        assert_eq!(note_due(1, NOTE_AFTER, &jobs), None);
        let second = note_due(1, ADVICE_AFTER, &jobs).unwrap();
        assert!(second.contains("2 results, for example of the job j1") && second.contains("24 hours"), "{second}");
        assert_eq!(note_due(2, Duration::MAX, &jobs), None);
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
