//! `hpc-consumer status JOB…`: one word for each job.

use program::{Exit, OutputFormat, StatusLine};
use protocol::{JobId, JobState};

use super::{Jobs, Known};

/// Prints the word of each of these jobs.
pub(crate) fn status(jobs: &Jobs, names: &[JobId], format: OutputFormat) -> anyhow::Result<Exit> {
    let ids = jobs.named(names)?;
    let known = jobs.known(&ids)?;
    let lines: Vec<_> = ids.iter().zip(&known).map(|(job_id, known)| line(job_id, known)).collect();
    crate::print(&StatusLine::print(&lines, names.len() == 1, format))?;
    Ok(Exit::Ok)
}

fn line<'a>(job_id: &'a JobId, known: &'a Known) -> StatusLine<'a> {
    match known {
        Known::Result(result) => StatusLine { job_id, state: JobState::of(result), reason: result.reason.as_ref() },
        Known::State(state) => StatusLine { job_id, state: *state, reason: None },
    }
}
