//! What a person reads in the log about jobs, the queue and the node.

use std::time::Duration;

use allowance::{Care, State};
use lifecycle::{Concluded, Notice, Run};
use protocol::{JobResult, Status, Word};

pub(crate) fn say(notice: &Notice) {
    match notice {
        Notice::Allowance { state, resets_in } => {
            let State { limit, spent, .. } = state;
            let reset = told(*resets_in);
            if state.care == Care::Stop {
                tracing::warn!(
                    "of {limit} operations of the queues that may be spent a day {spent} are, and the rest is kept for the results of jobs that are here: no more are taken until 00:00 UTC, in {reset} (OPS_PER_DAY; docs/costs.md)"
                );
            } else {
                tracing::info!(
                    "{spent} of {limit} operations of the queues that may be spent a day are, early in the day: an empty queue is asked more rarely until 00:00 UTC, in {reset} (OPS_PER_DAY; docs/costs.md)"
                );
            }
        }
        Notice::NodeBroken(None, problem) => {
            tracing::error!("this node cannot run jobs; none are taken until it can: {problem}");
        }
        Notice::NodeBroken(Some(pool), problem) => {
            tracing::error!(
                "this node cannot run jobs of the pool {pool}; none are taken for it until it can: {problem}"
            );
        }
        Notice::NoSuchPool { job_id, what } => {
            tracing::warn!(%job_id, "a job stays in the queue for another site, and for a day at most: {what}");
        }
        Notice::Full { pool, hold } => {
            tracing::info!("{hold} jobs wait in the pool {pool}; more stay in the queue until it has room (`hold`)");
        }
        Notice::ExecutorTrouble(problem) => tracing::error!("{problem}; it is tried again until it can"),
        Notice::NodeReady(None) => tracing::info!("this node can run jobs again"),
        Notice::NodeReady(Some(pool)) => tracing::info!("this node can run jobs of the pool {pool} again"),
        Notice::QueueTrouble { what, next_try } => {
            tracing::warn!("{what}; next try in {}, and again until it works", told(*next_try));
        }
        Notice::QueueBack => tracing::info!("the queue answers again"),
        Notice::ResultRefused { job_id, what } => {
            tracing::error!(%job_id, "the queue does not take a result; its record stays in RESULTS_DIR: {what}");
        }
        Notice::HeldUp { job_id, problem, next_try } => {
            let pause = told(*next_try);
            tracing::warn!(%job_id, "this job cannot go on here, while others can: {problem}; next try in {pause}");
        }
        Notice::FilesTrouble { job_id, problem, next_try } => {
            let pause = told(*next_try);
            tracing::warn!(
                %job_id,
                "files of this job, and perhaps those of others, cannot travel now: {problem}; next try in {pause}"
            );
        }
        Notice::ServiceFails { service, problem, next_try } => {
            let pause = told(*next_try);
            tracing::error!(
                %service,
                "instances of a service do not last, and the jobs that need it wait: {problem}; next try in {pause}"
            );
        }
        Notice::ServiceBack(service) => tracing::info!(%service, "an instance of the service is ready again"),
        Notice::FilesBack => tracing::info!("no job waits for its files any more, nor to send its outputs"),
        Notice::TakenUp { running } => tracing::info!("runs of an earlier daemon go on and are watched: {running}"),
        Notice::CutOff { run, what, again } => {
            let (job_id, attempt) = (&run.job_id, run.attempt.get());
            if *again {
                tracing::warn!(%job_id, attempt, "run {run} was cut off, the job starts again: {what}");
            } else {
                tracing::error!(%job_id, attempt, "run {run} was cut off, and the job does not start again: {what}");
            }
        }
        Notice::TriedAgain { run, what } => {
            tracing::warn!(job_id = %run.job_id, attempt = run.attempt.get(), "{what}");
        }
        Notice::Elsewhere(job_id) => tracing::debug!(%job_id, "another daemon holds this job; it is looked at again"),
        Notice::LeftOver { running, waiting, results } => {
            tracing::warn!(
                "left to the next start with this STATE_DIR: jobs that go on without this daemon: {running}, jobs that wait: {waiting}, results owed: {results}"
            );
        }
    }
}

/// A length of time, for a person.
fn told(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0 | 1) => format!("{:.1} s", time.as_secs_f64()),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

pub(crate) fn say_how_it_ended(run: &Run, concluded: &Concluded) {
    let job_id = &run.job_id;
    match concluded {
        Concluded::Recorded(record) => match JobResult::parse(record) {
            Ok(JobResult { status: Word::Known(Status::Completed), .. }) => tracing::info!(%job_id, "job completed"),
            Ok(JobResult { reason, message, .. }) => {
                let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
                tracing::warn!(%job_id, reason, "job failed: {}", message.unwrap_or_default());
            }
            // A record that a newer version wrote; it is published as it stands.
            Err(_) => tracing::info!(%job_id, "job has its record"),
        },
        Concluded::Parks(continuation) => {
            let jobs = continuation.run.len();
            tracing::info!(%job_id, "the job goes on after others that it has left; new ones: {jobs}");
        }
        // What follows is decided, and said, by `lifecycle`.
        Concluded::TaskFailed(_) => {}
        Concluded::DiskFull(problem, share) if share.is_large() => {
            tracing::warn!(%job_id, "the disk is full, and the job holds a large share of it: {problem}")
        }
        Concluded::ServiceFailed(problem) => {
            let attempt = run.attempt.get();
            tracing::warn!(%job_id, attempt, "attempt {attempt} failed without its service, and does not count: {problem}");
        }
        Concluded::NodeFailed(problem) | Concluded::DiskFull(problem, _) => {
            let attempt = run.attempt.get();
            tracing::warn!(%job_id, attempt, "the node failed attempt {attempt}, which does not count: {problem}");
        }
        Concluded::ToUpload => tracing::info!(%job_id, "the job has ended; its outputs are being sent"),
        Concluded::NodeBroken(problem) => {
            tracing::warn!(%job_id, "the job has ended; its result waits for the node: {problem}")
        }
        Concluded::TakenOver => {
            tracing::warn!(%job_id, attempt = run.attempt.get(), "another daemon has taken the job over; this run does not count")
        }
    }
}

/// The queue may not know a lease any more; that costs nothing but is worth knowing.
pub(crate) fn say_of_leases(settled: &queues::Settled, acks: usize, retries: usize) {
    for warning in &settled.warnings {
        tracing::debug!("the queue says of a lease: {warning}");
    }
    let counted = |count: Option<u64>, sent: usize| count.is_some_and(|count| count < sent as u64);
    if counted(settled.acks, acks) || counted(settled.retries, retries) {
        tracing::info!(
            "the queue counted {} of {acks} acknowledgements and {} of {retries} messages given back; the others had lapsed, and are settled when they come again",
            settled.acks.unwrap_or_default(),
            settled.retries.unwrap_or_default()
        );
    }
}
