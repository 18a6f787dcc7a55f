//! `status`: how far jobs are, as far as this machine can know.

use client::Inbox;
use program::{Exit, OutputFormat, Printer, StatusLine};
use protocol::JobState;

use super::jobs;
use crate::cli::StatusArgs;
use crate::config::CommonArgs;

pub(super) fn run(common: &CommonArgs, args: &StatusArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let jobs = jobs::wanted(&args.jobs, false, &inbox)?;
    let mut known = Vec::new();
    for job_id in jobs {
        let arrived = inbox.find(&job_id)?;
        let state = match &arrived {
            Some(arrived) => JobState::of(&arrived.result),
            // It may be held or run by now; nothing tells so before its result.
            None if inbox.has_submitted(&job_id) => JobState::Queued,
            None => JobState::Unknown,
        };
        known.push((job_id, state, arrived.and_then(|arrived| arrived.result.reason)));
    }
    let lines: Vec<_> = known
        .iter()
        .map(|(job_id, state, reason)| StatusLine { job_id, state: *state, reason: reason.as_ref() })
        .collect();
    // The words are for scripts as they are: only who asks for JSON gets it.
    let format = common.output.unwrap_or(OutputFormat::Text);
    let alone = args.jobs.len() == 1 && !args.jobs.iter().any(|job| job.starts_with('@'));
    printer.text(&StatusLine::print(&lines, alone, format))?;
    Ok(Exit::Ok)
}
