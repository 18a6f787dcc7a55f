//! `hpc-consumer cancel`: leaves word in `RESULTS_DIR` that jobs are not wanted any more. Whichever daemon holds them,
//! or will, ends them.

use std::io::Write as _;

use anyhow::Context as _;
use program::Exit;
use protocol::{JobId, JobResult};

use crate::verbs::Jobs;

/// Cancels these jobs, and says of each what comes of it.
pub(crate) fn cancel(jobs: &Jobs, names: &[JobId]) -> anyhow::Result<Exit> {
    let results = jobs.results();
    if !results.path().is_dir() {
        anyhow::bail!("RESULTS_DIR {} is not there; no job was cancelled", results.path().display());
    }
    let place = results.path().display();
    let mut out = std::io::stdout();
    for job_id in &jobs.named(names)? {
        if let Ok(Some(record)) = results.final_record(job_id) {
            let how = JobResult::parse(&record).map(|result| match result.reason {
                Some(reason) => format!("{}, {reason}", result.status),
                None => result.status.to_string(),
            });
            writeln!(out, "{job_id}: has ended already ({})", how.unwrap_or_else(|_| "see its record".to_owned()))?;
            continue;
        }
        results.cancel(job_id).with_context(|| format!("job {job_id} cannot be cancelled in {place}"))?;
        let known =
            if results.knows(job_id) { "" } else { "; nothing of it is here yet: should it come, it is not run" };
        writeln!(out, "{job_id}: is cancelled{known}")?;
    }
    Ok(Exit::Ok)
}
