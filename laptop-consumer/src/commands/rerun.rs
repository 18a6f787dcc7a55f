//! `rerun`: the same jobs again, as new ones; of a workflow that did not end well, only what is missing.

use std::collections::HashSet;

use client::Inbox;
use client::hub::{Answer, Hub};
use program::{Exit, Failure, Printer};
use protocol::{JobId, JobSpec, JobState, Status};
use serde::Deserialize;
use serde_json::json;
use workflow::Workflow;

use super::several::{self, Outgoing, SAME_COMMAND};
use super::submit::{bytes_of, random_key};
use super::{hub, jobs, list, note};
use crate::cli::RerunArgs;
use crate::config::CommonArgs;

pub(super) async fn run(common: &CommonArgs, args: &RerunArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    if args.jobs.is_empty() && !args.failed {
        let message =
            "`rerun` takes the jobs to submit again: their ids, `last`, @FILE with a list of them, or --failed";
        return Err(Failure::usage(message));
    }
    let edge = args.edge.complete(common)?;
    let inbox = common.inbox()?;
    let hub = hub::if_any(common, &args.edge);
    let which = match args.failed {
        true => failed(&inbox, args)?,
        false => jobs::wanted(&args.jobs, false, &inbox, hub.as_ref()).await?,
    };
    if which.is_empty() {
        if args.failed {
            note("no job here has failed that was not submitted again since");
        }
        return Ok(Exit::Ok);
    }
    // All of them are known before any is sent.
    let mut specs: Vec<JobSpec> = Vec::new();
    for job_id in &which {
        let mut job = match inbox.submitted_job(job_id)? {
            Some(job) => job,
            None => of_hub(job_id, hub.as_ref()).await?,
        };
        let goes_on = !args.anew && may_be_workflow(&job) && !has_completed(job_id, &inbox);
        job.resume = goes_on.then(|| job_id.clone());
        // Who says which jobs wants them again; who says which kind may say so twice.
        job.idempotency_key = Some(if args.failed { format!("rerun-{job_id}") } else { random_key()? });
        specs.push(job);
    }
    let outgoing: Vec<Outgoing> = which.iter().zip(&specs).map(outgoing).collect();
    let next = if args.failed { SAME_COMMAND } else { "those were printed; `rerun` takes the ids of the others" };
    let sent = several::send(
        &edge,
        &inbox,
        &outgoing,
        next,
        |place| specs[place].clone(),
        |place, queued| {
            let (new, old) = (&queued.job_id, &which[place]);
            if args.id {
                printer.id(new)
            } else if printer.is_human() {
                printer.text(&format!("{new}  queued, again of {old}\n"))
            } else {
                printer.json(&json!({"status": "queued", "job_id": new, "rerun_of": old}).to_string())
            }
        },
    );
    Ok(sent.await?.exit)
}

fn outgoing((job_id, job): (&JobId, &JobSpec)) -> Outgoing {
    Outgoing { what: format!("the job {job_id}"), bytes: bytes_of(job), rerun_of: Some(job_id.clone()) }
}

/// Is the input that of a workflow? The site alone knows, and for other jobs it means nothing.
fn may_be_workflow(job: &JobSpec) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct InFile {
        #[serde(rename = "file")]
        _file: String,
    }
    let text = job.input.as_str();
    job.input_file.is_some() || serde_json::from_str::<InFile>(text).is_ok() || Workflow::parse(text).is_ok()
}

/// Does the result here say that a job ended well? Then nothing is missing of it.
fn has_completed(job_id: &JobId, inbox: &Inbox) -> bool {
    inbox.find(job_id).ok().flatten().is_some_and(|arrived| arrived.result.status == Status::Completed)
}

/// The jobs that failed, but for those of which there is another run.
fn failed(inbox: &Inbox, args: &RerunArgs) -> anyhow::Result<Vec<JobId>> {
    let again: HashSet<JobId> = inbox.submissions()?.into_iter().filter_map(|submission| submission.rerun_of).collect();
    let (now, mut left_out) = (hub::now(), 0);
    let earliest = args.since.and_then(|since| now.checked_sub(since).ok());
    let mut failed: Vec<_> = list::jobs(inbox)?.into_values().collect();
    failed.retain(|job| {
        let is_asked = job.state == JobState::Failed
            && args.task.as_ref().is_none_or(|task| job.task.as_ref() == Some(task))
            && args.name.as_ref().is_none_or(|name| job.name.as_ref() == Some(name))
            && earliest.is_none_or(|earliest| job.since.is_some_and(|since| since >= earliest));
        let was_again = again.contains(&job.job_id);
        left_out += usize::from(is_asked && was_again);
        is_asked && !was_again
    });
    if left_out > 0 {
        note(&format!(
            "{left_out} more have failed and were submitted again since; `rerun` with their ids does so again"
        ));
    }
    failed.sort_by_key(|job| job.since);
    Ok(failed.into_iter().map(|job| job.job_id).collect())
}

/// What the hub knows of a job that was submitted elsewhere.
async fn of_hub(job_id: &JobId, hub: Option<&Hub>) -> anyhow::Result<JobSpec> {
    let unknown = |why: &str| {
        let message = format!(
            "the job {job_id} cannot be submitted again from here: {why}; next: `laptop-consumer submit` with what it was"
        );
        Failure::with(Exit::NotFound, message)
    };
    let Some(hub) = hub else { return Err(unknown("it was not submitted with this inbox, or by an earlier version")) };
    let status = match hub.job(job_id, None).await? {
        Answer::Known(status) => status,
        Answer::UnknownJob | Answer::NoHub => {
            return Err(unknown("it was not submitted with this inbox, or by an earlier version, and no hub knows it"));
        }
    };
    let (Some(task), Some(input)) = (status.brief.task, status.input) else {
        return Err(unknown("the hub does not have its task and its input, which may have been too large for it"));
    };
    note(&format!(
        "{job_id} was submitted elsewhere: its task, input, name and pool are those that the hub knows, and it has no other \
         options and no files"
    ));
    Ok(JobSpec { task, input, name: status.brief.name, pool: status.brief.pool, ..JobSpec::default() })
}
