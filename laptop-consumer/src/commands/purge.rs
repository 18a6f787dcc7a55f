//! `purge`: what the inbox does not need to keep any more.

use client::Inbox;
use program::{Exit, Failure, Printer, counted, is_meant};
use protocol::{JobId, JobState};
use serde_json::json;

use super::{hub, jobs, list, note};
use crate::cli::PurgeArgs;
use crate::config::CommonArgs;

pub(super) async fn run(common: &CommonArgs, args: &PurgeArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let which = match args.jobs.is_empty() {
        false => jobs::wanted(&args.jobs, false, &inbox, None).await?,
        true => ended(&inbox, args)?,
    };
    let which: Vec<JobId> = {
        let mut here = Vec::new();
        for job_id in which {
            if inbox.has_submitted(&job_id) || inbox.find(&job_id)?.is_some() {
                here.push(job_id);
            } else if !args.jobs.is_empty() {
                note(&format!("nothing is here of the job {job_id}"));
            }
        }
        here
    };
    if which.is_empty() {
        note("there is nothing to remove");
        return Ok(Exit::Ok);
    }
    let jobs = counted(which.len(), "job");
    if !args.yes && !is_meant(&format!("remove the results of {jobs} from {}", common.data_dir()?.display()))? {
        note("nothing was removed");
        return Ok(Exit::Ok);
    }
    let mut removed = 0;
    for job_id in &which {
        removed += usize::from(inbox.remove(job_id)?);
    }
    if printer.is_human() {
        printer.text(&format!("the results of {} are removed\n", counted(removed, "job")))?;
    } else {
        printer.json(&json!({"jobs": removed}).to_string())?;
    }
    Ok(Exit::Ok)
}

/// The jobs whose results are here and that are asked for.
fn ended(inbox: &Inbox, args: &PurgeArgs) -> anyhow::Result<Vec<JobId>> {
    if args.older_than.is_none() && args.states.is_empty() && !args.all {
        return Err(Failure::usage(
            "`purge` takes ids of jobs, or `last`, or --older-than, as `--older-than 30d`, or --state, or --all",
        ));
    }
    if let Some(open) = args.states.iter().find(|state| !state.has_ended()) {
        return Err(Failure::usage(format!(
            "--state {open}: such a job has no result here; it is completed, failed or cancelled"
        )));
    }
    let now = hub::now();
    let latest = args.older_than.map(|age| now.checked_sub(age).unwrap_or(protocol::Timestamp::MIN));
    let asked = |job: &list::Job| {
        let state = job.state.known().unwrap_or(JobState::Unknown);
        // When it ended is not known of each: such a one goes only if nobody asks for its age.
        state.has_ended()
            && (args.states.is_empty() || args.states.contains(&state))
            && latest.is_none_or(|latest| job.since.is_some_and(|since| since <= latest))
    };
    Ok(list::jobs(inbox)?.into_values().filter(asked).map(|job| job.job_id).collect())
}
