//! Many jobs on their way into the queue: in batches, with a bar on the terminal, and noted as they are taken.
//!
//! Invariant: each job has a key of its own, and is noted as soon as the edge has taken it: whatever ends this, the
//! same command sends the rest, and what it sends again is the same job.

use std::time::Instant;

use client::{Edge, Inbox, Queued, Taken, many, submit_batch};
use program::{Exit, Failure, counted};
use protocol::{JobId, JobSpec};

use super::note;
use crate::config::http_client;
use crate::progress::{self, Progress};
use crate::stop::Stop;

/// So many refusals are told one by one.
const TOLD_MAX: usize = 10;

/// What to do next where the keys of jobs follow from what they are.
pub(super) const SAME_COMMAND: &str = "the same command sends the rest, and nothing twice";

/// A job that is to be sent.
pub(super) struct Outgoing {
    /// What it is to a person: `line 7`.
    pub(super) what: String,
    /// How many bytes it has as JSON.
    pub(super) bytes: usize,
    /// The job that it is another run of.
    pub(super) rerun_of: Option<JobId>,
}

/// What came of it.
pub(super) struct Sent {
    /// Of each job, in their order: its id, if the edge has taken it.
    pub(super) queued: Vec<Option<JobId>>,
    /// Not all: a signal came, or the edge has refused some, which was told.
    pub(super) exit: Exit,
}

/// Sends jobs. `job` gives each of them, with its key in it; `taken` hears of each that is in the queue. `next` is what
/// to do where not all are sent, as a sentence that goes on.
pub(super) async fn send(
    edge: &Edge,
    inbox: &Inbox,
    outgoing: &[Outgoing],
    next: &str,
    job: impl Fn(usize) -> JobSpec,
    mut taken: impl FnMut(usize, &Queued) -> anyhow::Result<()>,
) -> anyhow::Result<Sent> {
    let (http, mut stop) = (http_client(&edge.address)?, Stop::listen()?);
    let (mut progress, began) = (Progress::new(), Instant::now());
    let mut queued: Vec<Option<JobId>> = vec![None; outgoing.len()];
    let (total, mut done, mut refused) = (outgoing.len(), 0, Vec::new());
    for batch in many::batches(outgoing, |outgoing| outgoing.bytes) {
        progress.show(|| progress::bar(done, total, began.elapsed()));
        let jobs: Vec<JobSpec> = batch.clone().map(&job).collect();
        let answered = tokio::select! {
            answered = submit_batch(&http, edge, &jobs) => answered,
            () = stop.asked() => {
                progress.clear();
                let queued_count = queued.iter().flatten().count();
                note(&format!(
                    "{queued_count} of {} are in the queue; {next}",
                    counted(total, "job")
                ));
                return Ok(Sent { queued, exit: Exit::Interrupted });
            }
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                progress.clear();
                let exit = match error.remedy() {
                    client::Remedy::TryLater => Exit::TryLater,
                    _ => Exit::Unexpected,
                };
                let queued = queued.iter().flatten().count();
                let message = format!("{error}; {queued} of {} are in the queue; {next}", counted(total, "job"));
                return Err(Failure::with(exit, message));
            }
        };
        for ((place, job), answer) in batch.zip(&jobs).zip(answered) {
            let Outgoing { what, rerun_of, .. } = &outgoing[place];
            match answer {
                Taken::Queued(answer) => {
                    let noted = match rerun_of {
                        Some(of) => inbox.note_rerun(&answer.job_id, &answer.answer, job, of),
                        None => inbox.note_one_of_many(&answer.job_id, &answer.answer, job),
                    };
                    noted?;
                    progress.clear();
                    taken(place, &answer)?;
                    queued[place] = Some(answer.job_id);
                }
                Taken::Refused(why) => refused.push(format!("{what}: {why}")),
            }
            done += 1;
        }
    }
    progress.clear();
    for text in refused.iter().take(TOLD_MAX) {
        tracing::warn!("{text}");
    }
    if refused.len() > TOLD_MAX {
        note(&format!("and {} more were refused", refused.len() - TOLD_MAX));
    }
    Ok(Sent { queued, exit: if refused.is_empty() { Exit::Ok } else { Exit::Unexpected } })
}
