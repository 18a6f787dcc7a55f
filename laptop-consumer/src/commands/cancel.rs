//! `cancel`: jobs by their ids, or all that fit. By the hub; without one it says what does it on the cluster.

use std::time::Duration;

use anyhow::Context as _;
use client::Inbox;
use client::hub::{Answer, Hub, states_text};
use program::{Exit, Failure, Printer, is_meant};
use protocol::hub::{CancelAnswer, CancelMany, CancelManyAnswer};
use protocol::{JobId, JobState};
use serde_json::json;

use super::{hub, jobs, note};
use crate::cli::{CancelArgs, CancelFilter};
use crate::config::CommonArgs;

/// What has not ended.
const OPEN: [JobState; 4] = [JobState::Unknown, JobState::Queued, JobState::Held, JobState::Running];

/// How often a request may reach no job and say that there are more.
const IDLE_ROUNDS_MAX: u32 = 5;

/// The pause after such a one.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(common: &CommonArgs, args: &CancelArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let hub = args.edge.hub(common)?;
    match which(args)? {
        Some(which) => {
            let what = "nothing else leads from the laptop to jobs by what they are; on the cluster, with the settings \
                        of the daemon there: hpc-consumer jobs, and hpc-consumer cancel with the ids";
            let Some(hub) = &hub else { return Err(hub::none(None, what)) };
            many(hub, which, args.yes, printer).await?.ok_or_else(|| hub::none(Some(hub), what))
        }
        None => by_id(common, args, hub.as_ref(), printer).await,
    }
}

/// Which jobs, where they are not named. One way of naming them is enough, and both would be a mistake.
fn which(args: &CancelArgs) -> anyhow::Result<Option<CancelMany>> {
    let usage = |message: &str| Failure::with(Exit::Usage, message);
    let CancelFilter { states, task, pool, name, all } = &args.which;
    let is_filter = !states.is_empty() || task.is_some() || pool.is_some() || name.is_some();
    if !args.jobs.is_empty() {
        let alone = !is_filter && !*all;
        return if alone {
            Ok(None)
        } else {
            Err(usage("give either the ids of jobs, or --state, --task and the like"))
        };
    }
    if !is_filter && !*all {
        return Err(usage(
            "`cancel` takes ids of jobs, `last`, @FILE with a list of them, --state, --task, --pool or --name, or --all",
        ));
    }
    if let Some(ended) = states.iter().find(|state| state.has_ended()) {
        return Err(usage(&format!("--state {ended}: these jobs have ended, and nothing of them can be canceled")));
    }
    let states = if is_filter { states } else { OPEN.as_slice() };
    let pool = pool.as_ref().map(ToString::to_string);
    Ok(Some(CancelMany { state: states_text(states), task: task.clone(), pool, name: name.clone(), dry_run: false }))
}

/// Cancels all that fit. Nothing: there is no hub.
async fn many(hub: &Hub, which: CancelMany, yes: bool, printer: &mut Printer) -> anyhow::Result<Option<Exit>> {
    if !yes {
        let count = match hub.cancel_many(&CancelMany { dry_run: true, ..which.clone() }).await? {
            Answer::Known(count) => count,
            Answer::UnknownJob | Answer::NoHub => return Ok(None),
        };
        let jobs = jobs_text(&count);
        if count.jobs == 0 && !count.more {
            note("no job that has not ended is such");
            return Ok(Some(Exit::Ok));
        }
        if !is_meant(&format!("cancel {jobs}"))? {
            note("nothing was canceled");
            return Ok(Some(Exit::Ok));
        }
    }
    let (mut total, mut idle) = (0, 0);
    loop {
        let count = match hub.cancel_many(&which).await? {
            Answer::Known(count) => count,
            Answer::UnknownJob | Answer::NoHub => return Ok(None),
        };
        total += count.jobs;
        if !count.more {
            break;
        }
        idle = if count.jobs == 0 { idle + 1 } else { 0 };
        if idle > IDLE_ROUNDS_MAX {
            let message =
                format!("{total} jobs are to be canceled, and the hub says that there are more, but reaches none");
            return Err(Failure::with(Exit::TryLater, message));
        }
        if idle > 0 {
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }
    let text = match total {
        1 => "1 job is to be canceled\n".to_owned(),
        total => format!("{total} jobs are to be canceled\n"),
    };
    if printer.is_human() {
        printer.text(&text)?
    } else {
        printer.json(&json!({"jobs": total}).to_string())?
    }
    Ok(Some(Exit::Ok))
}

fn jobs_text(count: &CancelManyAnswer) -> String {
    match count {
        CancelManyAnswer { jobs, more: true } => format!("{jobs} jobs or more"),
        CancelManyAnswer { jobs: 1, .. } => "1 job".to_owned(),
        CancelManyAnswer { jobs, .. } => format!("{jobs} jobs"),
    }
}

async fn by_id(
    common: &CommonArgs,
    args: &CancelArgs,
    hub: Option<&Hub>,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let mut named = Vec::new();
    for name in &args.jobs {
        // Somebody else's job is not the last one.
        let hub = hub.filter(|_| name != protocol::names::LAST);
        named.extend(jobs::wanted(std::slice::from_ref(name), false, &inbox, hub).await?);
    }
    for (position, job_id) in named.iter().enumerate() {
        let answer = match (inbox.find(job_id)?, hub) {
            (Some(arrived), _) => {
                let state = JobState::of(&arrived.result).into();
                Answer::Known(CancelAnswer { job_id: job_id.clone(), state, cancel: "ended".to_owned() })
            }
            (None, Some(hub)) => hub.cancel(job_id).await.with_context(|| {
                format!("the job {job_id} is not canceled; on the cluster: hpc-consumer cancel {job_id}")
            })?,
            (None, None) => Answer::NoHub,
        };
        match answer {
            Answer::Known(answer) if printer.is_human() => printer.text(&said(&answer))?,
            Answer::Known(answer) => printer.json(&serde_json::to_string(&answer)?)?,
            Answer::UnknownJob | Answer::NoHub => {
                let rest: Vec<&str> = named[position..].iter().map(JobId::as_str).collect();
                let what = format!(
                    "nothing else leads from the laptop to a job; on the cluster, with the settings of the daemon \
                     there, this does it: hpc-consumer cancel {}",
                    rest.join(" ")
                );
                return Err(hub::none(hub, &what));
            }
        }
    }
    Ok(Exit::Ok)
}

/// What comes of it, for a person.
fn said(answer: &CancelAnswer) -> String {
    let CancelAnswer { job_id, state, cancel } = answer;
    let state = protocol::text::escaped(&state.to_string());
    let text = match cancel.as_str() {
        "ended" => format!("had ended: {state}"),
        "requested" => match answer.state.known() {
            Some(JobState::Unknown) => "to be canceled; nobody has told of it yet".to_owned(),
            _ => format!("to be canceled; it is {state}"),
        },
        other => protocol::text::escaped(other),
    };
    format!("{job_id}  {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_of_it_is_said() {
        let text = |state: &str, cancel: &str| {
            let answer = format!(r#"{{"job_id":"j","state":"{state}","cancel":"{cancel}"}}"#);
            said(&serde_json::from_str(&answer).unwrap())
        };
        assert_eq!(text("completed", "ended"), "j  had ended: completed\n");
        assert_eq!(text("running", "requested"), "j  to be canceled; it is running\n");
        assert_eq!(text("unknown", "requested"), "j  to be canceled; nobody has told of it yet\n");
        assert_eq!(text("parked", "a newer word"), "j  a newer word\n");
    }
}
