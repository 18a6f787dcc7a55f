//! `logs`: what a job has printed, as far as it came with its result.

use client::Inbox;
use program::{Exit, Failure, Stream};
use protocol::JobState;

use super::{jobs, note};
use crate::cli::LogsArgs;
use crate::command_task::CommandOutput;
use crate::config::CommonArgs;

pub(super) fn run(common: &CommonArgs, args: &LogsArgs) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let job_id = jobs::named(&args.job, &inbox)?;
    let Some(result) = inbox.find(&job_id)?.map(|arrived| arrived.result) else {
        let follow = if args.follow { " --follow" } else { "" };
        let message = format!(
            "what the job {job_id} prints comes to the laptop with its result, which is not here; on the cluster, with \
             the settings of the daemon there, this shows it at any time: hpc-consumer logs {job_id}{follow}"
        );
        return Err(Failure::with(Exit::NotFound, message));
    };
    let output = CommandOutput::of(&result);
    let left_out = output.as_ref().and_then(|output| output.left_out(&job_id));
    let ends = (result.stdout_tail.clone(), result.stderr_tail.clone());
    let (stdout, stderr) = output.map_or(ends, |output| (Some(output.stdout), Some(output.stderr)));
    if stdout.is_none() && stderr.is_none() {
        if JobState::of(&result) == JobState::Completed && result.output.is_some() {
            let message = format!(
                "the job {job_id} has completed with an output, and then what it has printed does not come with its \
                 result; on the cluster: hpc-consumer logs {job_id}"
            );
            return Err(Failure::with(Exit::NotFound, message));
        }
        note(&format!("the job {job_id} has printed nothing, as far as its result tells"));
    }
    for stream in Stream::asked(args.stream) {
        let text = match stream {
            Stream::Stdout => &stdout,
            Stream::Stderr => &stderr,
        };
        stream.pass_on(text.as_deref().unwrap_or_default().as_bytes())?;
    }
    if let Some(left_out) = left_out {
        note(&left_out);
    }
    Ok(Exit::Ok)
}
