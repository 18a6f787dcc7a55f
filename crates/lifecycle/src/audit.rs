//! Record before act, as a check: what must be on disk for an effect to leave the process.

use crate::{Book, Effect, Ending, Run, Stage};

/// Is all on disk that must be there before this effect is performed? The text says what is not.
pub fn permitted(effect: &Effect, book: &Book) -> Result<(), String> {
    let entry = |run: &Run| book.entry(&run.job_id).filter(|entry| entry.attempt == Some(run.attempt));
    match effect {
        Effect::Claim { job_id, .. } => match book.entry(job_id) {
            Some(entry) if matches!(entry.stage, Stage::Accepted | Stage::Parked) => Ok(()),
            other => Err(format!("job {job_id} is claimed and not accepted: {other:?}")),
        },
        Effect::Stage(job_id) => match book.entry(job_id) {
            Some(entry) if entry.stage == Stage::Accepted => Ok(()),
            other => Err(format!("the files of job {job_id} are fetched and it is not accepted: {other:?}")),
        },
        Effect::Unstage(job_id) => match book.entry(job_id) {
            Some(entry) if entry.stage == Stage::Launching => {
                Err(format!("the files of job {job_id} are removed and its run is intended: {entry:?}"))
            }
            _ => Ok(()),
        },
        Effect::Upload(run) => match entry(run) {
            // A graph is parked until it has its record.
            Some(entry) if matches!(entry.stage, Stage::Launching | Stage::Parked) => Ok(()),
            other => Err(format!("the outputs of {run} are sent and its launch is not recorded: {other:?}")),
        },
        Effect::Unfold { run, .. } => match entry(run) {
            Some(entry) if matches!(entry.stage, Stage::Launching | Stage::Parked) => Ok(()),
            other => Err(format!("the graph of {run} unfolds and its launch is not recorded: {other:?}")),
        },
        Effect::Serve(run) => match entry(run) {
            Some(entry) if entry.stage == Stage::Launching && entry.service.is_some() => Ok(()),
            other => Err(format!("{run} is looked at, and is no instance of a service that is launched: {other:?}")),
        },
        Effect::Start(run) => match entry(run) {
            Some(entry) if entry.stage == Stage::Launching => Ok(()),
            other => Err(format!("run {run} is started and its launch is not recorded: {other:?}")),
        },
        Effect::Conclude {
            run,
            ending: Ending::Finished(_) | Ending::CutOff(_) | Ending::FilledDisk(_) | Ending::Unparkable(..),
            ..
        } => match entry(run) {
            // A graph is parked for as long as it has anything to do.
            Some(entry) if matches!(entry.stage, Stage::Launching | Stage::Parked) => Ok(()),
            other => Err(format!("run {run} is concluded and its launch is not recorded: {other:?}")),
        },
        Effect::Forget(runs) => {
            match runs.iter().find(|run| entry(run).is_some_and(|entry| entry.stage == Stage::Launching)) {
                Some(run) => Err(format!("run {run} is forgotten and what became of it is not recorded")),
                None => Ok(()),
            }
        }
        // One whose claim failed was not launched.
        Effect::Unclaim(run) => match book.entry(&run.job_id) {
            Some(entry) if entry.stage == Stage::Accepted && entry.attempt <= Some(run.attempt) => Ok(()),
            other => Err(format!("the claim for {run} is given up and a restart would not claim anew: {other:?}")),
        },
        Effect::Publish(jobs) => match jobs.iter().find(|job_id| !book.records.contains_key(*job_id)) {
            Some(job_id) => Err(format!("the result of job {job_id} is published and not recorded")),
            None => Ok(()),
        },
        // Which job a lease is of is not told; the simulation checks acknowledgements at the queue.
        Effect::Settle { .. }
        | Effect::Conclude { ending: Ending::GivenUp(_) | Ending::Cancelled(_) | Ending::Rejected(_), .. }
        | Effect::Probe(_)
        | Effect::Observe
        | Effect::Reconciled
        | Effect::Pull(_)
        | Effect::Recall(_)
        | Effect::StopUpload(_)
        | Effect::End(..)
        | Effect::Withdraw(_)
        | Effect::PutAway { .. }
        | Effect::Say(_)
        | Effect::Exit
        | Effect::Fail(_) => Ok(()),
    }
}
