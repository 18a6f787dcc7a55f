//! `logs`: what a job has printed, and with `--follow` what it prints: from its result where that has it, else from the
//! hub.

use client::Inbox;
use client::hub::{Answer, Error, Hub, LogNews, LogsOf};
use program::{Exit, Failure, Stream};
use protocol::{JobId, JobResult, JobState, link};

use super::{hub, jobs, note};
use crate::cli::LogsArgs;
use crate::command_task::CommandOutput;
use crate::config::CommonArgs;
use crate::stop::Stop;

pub(super) async fn run(common: &CommonArgs, args: &LogsArgs) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let hub = hub::if_any(common, &args.edge);
    let job_id = jobs::named(&args.job, &inbox, hub.as_ref()).await?;
    let result = inbox.find(&job_id)?.map(|arrived| arrived.result);
    if let Some(result) = &result
        && of_result(&job_id, result, args.stream)?
    {
        return Ok(Exit::Ok);
    }
    let mut out = Out::default();
    let of_hub = match &hub {
        Some(hub) if args.follow => follow(hub, &job_id, args, &mut out).await,
        Some(hub) => past(hub, &job_id, args.stream, &mut out).await,
        None => Ok(None),
    };
    let of_hub = match of_hub {
        // There is more than that to say.
        Err(error) if result.is_some() => {
            if !matches!(error.downcast_ref(), Some(Error::NotThere(_))) {
                tracing::warn!("{error:#}");
            }
            Ok(None)
        }
        of_hub => of_hub,
    };
    match (of_hub, result) {
        (Ok(Some(exit)), _) => Ok(exit),
        (Ok(None), Some(_)) => {
            let message = format!(
                "the job {job_id} has completed with an output, and then what it has printed does not come with its \
                 result; on the cluster: hpc-consumer logs {job_id}"
            );
            Err(Failure::with(Exit::NotFound, message))
        }
        (Ok(None), None) => {
            let follow = if args.follow { " --follow" } else { "" };
            let message = format!(
                "what the job {job_id} prints comes to the laptop with its result, which is not here; on the cluster, \
                 with the settings of the daemon there, this shows it at any time: hpc-consumer logs {job_id}{follow}"
            );
            Err(Failure::with(Exit::NotFound, message))
        }
        (Err(error), _) => Err(error.context(format!(
            "what the job {job_id} prints cannot be had from here now; on the cluster: hpc-consumer logs {job_id}"
        ))),
    }
}

/// Prints what came with a result. Does it tell?
fn of_result(job_id: &JobId, result: &JobResult, stream: Option<Stream>) -> anyhow::Result<bool> {
    let output = CommandOutput::of(result);
    let left_out = output.as_ref().and_then(|output| output.left_out(job_id));
    let ends = (result.stdout_tail.clone(), result.stderr_tail.clone());
    let (stdout, stderr) = output.map_or(ends, |output| (Some(output.stdout), Some(output.stderr)));
    if stdout.is_none() && stderr.is_none() {
        if JobState::of(result) == JobState::Completed && result.output.is_some() {
            return Ok(false);
        }
        note(&format!("the job {job_id} has printed nothing, as far as its result tells"));
    }
    for stream in Stream::asked(stream) {
        let text = match stream {
            Stream::Stdout => &stdout,
            Stream::Stderr => &stderr,
        };
        stream.pass_on(text.as_deref().unwrap_or_default().as_bytes())?;
    }
    if let Some(left_out) = left_out {
        note(&left_out);
    }
    Ok(true)
}

/// Prints the end of what a job has printed, as the hub has it. Nothing: it does not know the job.
async fn past(hub: &Hub, job_id: &JobId, stream: Option<Stream>, out: &mut Out) -> anyhow::Result<Option<Exit>> {
    let (mut is_there, mut missing) = (false, None);
    for stream in Stream::asked(stream) {
        match hub.log(job_id, on_the_wire(stream)).await {
            Ok(Answer::Known(text)) => {
                out.print(stream, text)?;
                is_there = true;
            }
            Ok(Answer::UnknownJob | Answer::NoHub) => return Ok(None),
            Err(error @ Error::NotThere(_)) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(error) = missing.filter(|_| !is_there) {
        return Err(error.into());
    }
    out.end()?;
    Ok(Some(Exit::Ok))
}

/// Prints what a job prints, until it has ended. Nothing: the hub does not know the job.
async fn follow(hub: &Hub, job_id: &JobId, args: &LogsArgs, out: &mut Out) -> anyhow::Result<Option<Exit>> {
    let mut stop = Stop::listen()?;
    let stream = args.stream.map(on_the_wire);
    let mut follower = hub.follow(LogsOf { job_id: job_id.clone(), stream, from: args.from });
    let mut is_first = true;
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            () = stop.asked() => {
                out.end()?;
                note(&format!("the job {job_id} goes on; `laptop-consumer logs {job_id} -f` follows it again"));
                return Ok(Some(Exit::Interrupted));
            }
        };
        match news {
            Answer::Known(LogNews::Printed(stream, text)) => {
                out.print(here(stream), text)?;
                is_first = false;
            }
            Answer::Known(LogNews::LeftOut(stream, bytes)) => note(&match args.from {
                None if is_first => format!(
                    "{} bytes of {} that it printed before are not shown; `--from 0` begins with them",
                    bytes,
                    stream.as_str()
                ),
                _ => format!("{bytes} bytes of {} did not come along", stream.as_str()),
            }),
            Answer::Known(LogNews::Attempt(attempt)) => note(&format!("attempt {attempt} of the job begins")),
            Answer::Known(LogNews::End) => {
                out.end()?;
                return Ok(Some(Exit::Ok));
            }
            Answer::UnknownJob | Answer::NoHub => return Ok(None),
        }
    }
}

/// What a terminal gets in pieces: a carriage return at the end of one may belong to a line feed that comes next.
#[derive(Default)]
struct Out {
    held_back: [bool; 2],
}

impl Out {
    fn print(&mut self, stream: Stream, mut text: String) -> anyhow::Result<()> {
        if stream.is_terminal() {
            let held_back = &mut self.held_back[usize::from(stream == Stream::Stderr)];
            if std::mem::take(held_back) {
                text.insert(0, '\r');
            }
            *held_back = text.ends_with('\r');
            if *held_back {
                text.pop();
            }
        }
        stream.pass_on(text.as_bytes())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        for (stream, held_back) in [Stream::Stdout, Stream::Stderr].into_iter().zip(std::mem::take(&mut self.held_back))
        {
            if held_back {
                stream.pass_on(b"\n")?;
            }
        }
        Ok(())
    }
}

fn on_the_wire(stream: Stream) -> link::Stream {
    match stream {
        Stream::Stdout => link::Stream::Stdout,
        Stream::Stderr => link::Stream::Stderr,
    }
}

fn here(stream: link::Stream) -> Stream {
    match stream {
        link::Stream::Stdout => Stream::Stdout,
        link::Stream::Stderr => Stream::Stderr,
    }
}
