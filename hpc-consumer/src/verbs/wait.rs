//! `hpc-consumer wait JOB…`: until jobs have ended.

use std::time::{Duration, Instant};

use program::{Exit, Failure, Printer};
use protocol::{JobId, JobState, Json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Jobs, Known};

/// The first pause between two looks at the records, and the longest. Pauses grow, so that a quick job is seen at once
/// and a long one costs little.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A look at very many records takes its time: pauses are at least so many times as long.
const PAUSE_PER_LOOK: u32 = 4;

/// After this long without a result it is said what is waited for.
const NOTE_AFTER: Duration = Duration::from_secs(30);

/// Waits for these jobs, and prints the result of each as it comes.
pub(crate) async fn wait(
    jobs: &Jobs,
    names: &[JobId],
    timeout: Option<Duration>,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    jobs.must_be_there()?;
    let mut pending: Vec<JobId> = Vec::new();
    for job_id in jobs.named(names)? {
        if !pending.contains(&job_id) {
            pending.push(job_id);
        }
    }
    let (total, mut exit) = (pending.len(), Exit::Ok);
    let mut stop = Stop::listen()?;
    let (start, mut pause, mut quiet_since) = (Instant::now(), PAUSE_MIN, Some(Instant::now()));
    loop {
        let look = Instant::now();
        let mut waits_on = Vec::new();
        for job_id in std::mem::take(&mut pending) {
            match jobs.ended(&job_id)? {
                None => waits_on.push(job_id),
                Some((result, record)) => {
                    let line = Json::parse(&record).map_or(record, |json| json.as_str().to_owned());
                    printer.result(&result, &line)?;
                    if Exit::of(&result) != Exit::Ok {
                        exit = Exit::JobFailed;
                    }
                    (pause, quiet_since) = (PAUSE_MIN, quiet_since.map(|_| Instant::now()));
                }
            }
        }
        pending = waits_on;
        let Some(first) = pending.first() else { return Ok(exit) };
        let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            let message = format!(
                "{} of {total} jobs have not ended yet, for example {first}; the same command waits on",
                pending.len()
            );
            return Err(Failure::with(Exit::TryLater, message));
        }
        if quiet_since.is_some_and(|since| since.elapsed() > NOTE_AFTER) {
            quiet_since = None;
            program::say(&waiting_for(jobs, first, pending.len())?);
        }
        pause = (pause * 5 / 4).min(PAUSE_MAX);
        let now = pause.max(look.elapsed() * PAUSE_PER_LOOK);
        tokio::select! {
            () = tokio::time::sleep(left.map_or(now, |left| now.min(left))) => {}
            () = stop.asked() => {
                program::say(&format!("{} of {total} jobs have not ended, and go on", pending.len()));
                return Ok(Exit::Interrupted);
            }
        }
    }
}

/// What a person should know who has waited for a while.
fn waiting_for(jobs: &Jobs, first: &JobId, count: usize) -> anyhow::Result<String> {
    let what = if count == 1 { format!("the job {first}") } else { format!("{count} jobs, for example {first}") };
    let state = match jobs.known_of(first)? {
        Known::State(state) => state,
        Known::Result(result) => JobState::of(&result),
    };
    Ok(format!("waiting for {what}, which is {state}; Ctrl-C ends only the waiting"))
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
